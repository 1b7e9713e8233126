from __future__ import annotations

import json
import math

import pytest

from bridge.sources.json_array import NotAnArray, array_items


def read(text: str, size: int, longest: int = 10_000) -> list[object]:
    content = text.encode()
    return list(array_items((content[i : i + size] for i in range(0, len(content), size)), longest))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_items_are_the_same_however_the_text_is_cut(size: int) -> None:
    text = ' [12 , 345,{"a":[1,2,"]}"]} ,"x,\\"y" , null, [], "Müller ☃"] \n'
    assert read(text, size) == json.loads(text)


@pytest.mark.parametrize("size", [1, 1000])
def test_an_empty_array_has_no_items(size: int) -> None:
    assert read(" [ ] ", size) == []


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "text",
    ["", "{}", "<html>", "[1", "[1,", "[1,]", "[1 2]", "[,1]", "[1,,2]", "[1]x", "[1][2]", '[{"a":}]', "[tru]"],
)
def test_what_is_not_one_whole_array_is_refused(text: str, size: int) -> None:
    with pytest.raises(NotAnArray):
        read(text, size)


def test_items_come_before_the_rest_has_arrived() -> None:
    def chunks() -> object:
        yield b'[{"a": 1}, {"b"'
        raise ConnectionResetError

    items = array_items(chunks(), 100)  # type: ignore[arg-type]
    assert next(items) == {"a": 1}


def test_an_item_longer_than_allowed_is_refused() -> None:
    with pytest.raises(NotAnArray):
        read('["' + "x" * 300 + '"]', 50, longest=200)


def test_nesting_too_deep_is_refused_without_a_crash() -> None:
    with pytest.raises(NotAnArray):
        read("[" * 200_000, 65_536, longest=1_000_000)


def test_not_a_number_is_tolerated() -> None:
    (value,) = read("[NaN]", 2)
    assert isinstance(value, float)
    assert math.isnan(value)


def test_bytes_and_surrogates_that_are_no_text_become_the_replacement_character() -> None:
    assert list(array_items([b'["\xff", "\\ud800", "\\ud83d\\ude00"]'], 100)) == ["\ufffd", "\ufffd", "😀"]


def test_items_after_a_longer_one_are_read_although_they_begin_otherwise() -> None:
    text = '[{"a": "' + "x" * 40 + '"}, {"a": 1}, {"b": 2}, 3]'
    assert read(text, 8) == json.loads(text)
