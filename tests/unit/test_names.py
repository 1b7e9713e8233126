from __future__ import annotations

import pytest

from bridge.translate.headers import PersonName
from bridge.translate.names import display, human_names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Muster^Eva^Maria^Dr.^MD", "Dr. Eva Maria Muster MD"),
        ("Muster", "Muster"),
        ("^Eva", "Eva"),
        ("Muster^Eva^^^", "Eva Muster"),
        ("  Muster ^ Eva ", "Eva Muster"),
        ("=山田^太郎", "山田 太郎"),
        ("Anonymous", ""),
        ("^^^^", ""),
        ("", ""),
    ],
)
def test_a_name_is_shown_as_people_write_it(text: str, shown: str) -> None:
    assert display(PersonName.parse(text)) == shown


def test_family_names_come_first_where_the_script_does_so() -> None:
    names = human_names(PersonName.parse("Yamada^Tarou=山田^太郎=やまだ^たろう"))
    assert [n["text"] for n in names] == ["Tarou Yamada", "山田 太郎", "やまだ たろう"]


def test_one_alphabetic_name_needs_no_representation() -> None:
    (name,) = human_names(PersonName.parse("Muster^Eva Maria^Anna Luise"))
    assert name == {
        "use": "usual",
        "text": "Eva Maria Anna Luise Muster",
        "family": "Muster",
        "given": ["Eva Maria", "Anna", "Luise"],
    }
