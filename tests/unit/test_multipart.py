from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.web.multipart import Damaged, boundary, pieces


def parts(content: bytes, size: int = 7, name: bytes = b"b") -> list[bytes]:
    """The whole parts of a message that arrives in chunks of a size."""
    chunks = (content[at : at + size] for at in range(0, len(content), size))
    found, current = [], b""
    for piece in pieces(chunks, name):
        current += piece.content
        if piece.last:
            found.append(current)
            current = b""
    return found


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=60).filter(lambda b: b"\r\n--b" not in b"\r\n" + b), max_size=5),
    st.integers(1, 50),
    st.sampled_from([b"", b"preamble\r\n"]),
    st.sampled_from([b"", b"Content-Type: application/dicom\r\n", b"A: 1\r\nB: 2\r\n"]),
)
def test_parts_come_out_as_they_went_in_however_they_are_cut(
    contents: list[bytes], size: int, preamble: bytes, header: bytes
) -> None:
    body = preamble + b"".join(b"--b\r\n" + header + b"\r\n" + c + b"\r\n" for c in contents) + b"--b--\r\nepilogue"
    assert parts(body, size) == contents


MESSAGE = b"--b\r\n\r\none\r\n--b \t\r\nX: 1\r\n\r\n\r\n--c\r\n\r\n--b--"


def test_padding_after_a_boundary_and_other_boundaries_within_are_borne() -> None:
    assert parts(MESSAGE) == [b"one", b"\r\n--c\r\n"]


@pytest.mark.parametrize("end", range(0, len(MESSAGE)))
def test_a_message_without_its_end_is_told_and_its_last_part_never_whole(end: int) -> None:
    found = []
    with pytest.raises(Damaged, match="ended before"):
        for piece in pieces(iter([MESSAGE[:end]]), b"b"):
            found.append(piece)
    assert sum(p.last for p in found) < 2 + (end >= len(MESSAGE) - 2)


def test_bytes_are_passed_on_as_they_come() -> None:
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        yield b"--b\r\n\r\n"
        for _ in range(1000):
            taken += 1
            yield b"x" * 1000

    stream = pieces(chunks(), b"b")
    next(stream)
    assert taken <= 2


@pytest.mark.parametrize(
    "content", [b"x" * 70_000, b"--b\r\n" + b"h" * 70_000, b"--b!\r\n\r\nx\r\n--b--", b"--bb\r\n\r\nx\r\n--b--"]
)
def test_what_is_no_multipart_message_is_refused(content: bytes) -> None:
    with pytest.raises(Damaged):
        parts(content, 4096)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("multipart/related; boundary=abc; type=x", b"abc"),
        ('Multipart/Related;\r\n BOUNDARY="a;b c"', b"a;b c"),
        ("application/dicom", None),
        ("", None),
    ],
)
def test_the_boundary_stands_in_the_content_type(header: str, found: bytes | None) -> None:
    assert boundary(header) == found


@pytest.mark.parametrize(
    "header", ["multipart/related", f"multipart/related; boundary={'x' * 71}", "multipart/related; boundary="]
)
def test_without_boundary_it_is_damaged(header: str) -> None:
    with pytest.raises(Damaged):
        boundary(header)
