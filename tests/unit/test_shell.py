from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from rich.console import Console

from bridge.errors import InvalidQuery
from cohort.answer import Answer
from cohort.shell import Shell

ROWS = Answer((("n", "INTEGER"), ("name", "VARCHAR")), ((1, "[red]a[/red]"),), False, "g000001", 0.0)


class Asked:
    def __init__(self) -> None:
        self.sql: list[str] = []
        self.questions: list[tuple[str, dict[str, str]]] = []
        self.out = io.StringIO()

    def run(self, *lines: str | None, format: str = "csv") -> int:
        console = Console(file=self.out, width=120)
        return Shell(self._sql, self._ask, console, format).run(iter(lines))

    def _sql(self, text: str) -> Answer:
        self.sql.append(text)
        if "wrong" in text:
            raise InvalidQuery("sql: no such table")
        if "slow" in text:
            raise KeyboardInterrupt
        return ROWS

    def _ask(self, name: str, given: Mapping[str, str]) -> Answer:
        self.questions.append((name, dict(given)))
        return ROWS


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_a_statement_ends_with_a_semicolon_or_the_input(asked: Asked) -> None:
    assert asked.run("SELECT 1", "  FROM t;", "", ";", "SELECT 2 ; ", "SELECT 3") == 0
    assert asked.sql == ["SELECT 1\n  FROM t", "SELECT 2", "SELECT 3"]


def test_what_is_wrong_is_told_and_the_rest_goes_on(asked: Asked) -> None:
    assert asked.run("SELECT wrong;", ".none", '.ask "x', ".format parquet", "SELECT slow;", "SELECT 1;") == 5
    assert asked.sql[-1] == "SELECT 1"
    told = asked.out.getvalue()
    for words in ("sql: no such table", ".none: not understood", "quotation mark", "ended", "[red]a[/red]"):
        assert words in told


def test_giving_up_forgets_what_was_begun(asked: Asked) -> None:
    asked.run("SELECT secret", None, "SELECT 1;")
    assert asked.sql == ["SELECT 1"]


def test_questions_are_asked_with_their_parameters(asked: Asked) -> None:
    asked.run(".ask osteosarcoma-ct older_than_years=40 modality=MR", ".ask 'my own.yaml'")
    assert asked.questions == [
        ("osteosarcoma-ct", {"older_than_years": "40", "modality": "MR"}), ("my own.yaml", {}),
    ]  # fmt: skip


def test_a_dot_within_a_statement_is_not_a_command(asked: Asked) -> None:
    asked.run("SELECT 1", ".5;")
    assert asked.sql == ["SELECT 1\n.5"]


def test_tables_questions_formats_and_help(asked: Asked) -> None:
    assert asked.run(".tables", ".tables dicom_series", ".questions", ".help", ".format ndjson", "SELECT 1;") == 0
    told = asked.out.getvalue()
    for words in ("medication_request", "slice_thickness_mm", "osteosarcoma-ct", ".quit", '{"n":1,'):
        assert words in told
    assert asked.run(".quit", "SELECT 9;") == 0
    assert "SELECT 9" not in asked.sql
