"""What the documents say is there is there, and the other way round."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from cohort.catalogue import questions
from cohort.schema import catalogue, dicom_tables, view_tables

ROOT = Path(__file__).parents[1]
READ = "\n".join(p.read_text("utf-8") for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))))


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+)(?:%|)?:", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for target in set(re.findall(r"make ([a-z]+)", READ)) - {"bench"}:
        assert target in targets, target


@pytest.mark.parametrize(
    "link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))))
)
def test_every_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_queue_of_the_work_table_is_explained() -> None:
    for queue in (
        "poll",
        "sweep",
        "verify",
        "study",
        "sink:NAME",
        "export",
        "subscription",
        "reconcile",
        "backfill",
        "file:SOURCE",
        "instance",
        "send:ARCHIVE",
        "model:NAME",
    ):
        assert f"`{queue}`" in READ


def test_every_column_has_a_type_a_source_and_a_meaning() -> None:
    for table in catalogue().values():
        assert table.title
        for column in table.columns:
            assert column.type, (table.name, column.name)
            assert column.source, (table.name, column.name)
            assert column.description, (table.name, column.name)


def test_units_stand_in_names_and_in_the_table() -> None:
    suffixes = {
        "mm": "_mm",
        "kV": "_kv",
        "ms": "_ms",
        "mA": "_ma",
        "T": "_t",
        "mGy": "_mgy",
        "deg": "_deg",
        "m": "_m",
        "kg": "_kg",
    }
    for table in dicom_tables().values():
        for column in table.columns:
            if column.unit in suffixes:
                assert column.name.endswith(suffixes[column.unit])


def test_every_view_is_shareable() -> None:
    for name, table in view_tables().items():
        assert table.view.name == name
        assert all(c.type for c in table.view.columns)


def test_ready_questions_state_what_they_count() -> None:
    assert all(len(q.description) > 60 for q in questions().values())


def test_every_dependency_is_pinned_with_a_hash() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    for dependency in project["dependencies"]:
        name = re.split(r"[<>=\[ ]", dependency)[0].lower().replace("_", "-").replace(".", "-")
        assert re.search(rf"^{re.escape(name)}==", lock, re.M), name
    assert "--hash=sha256:" in lock
    assert "http" not in lock.replace("httpx", "").replace("httpcore", "")


def test_a_wheel_holds_the_data_it_needs(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for needed in (
        "bridge/bridge.toml", "bridge/api/web/index.html", "bridge/api/web/page.js",
        "cohort/web/index.html", "cohort/web/page.js", "mappings/codes/modality.csv",
        "mappings/views/patient.json", "mappings/questions/osteosarcoma-ct.yaml", "mappings/value_sets/cancer.json",
        "mappings/questions/schema.json", "mappings/outcomes/schema.json",
        "mappings/outcomes/osteosarcoma.yaml", "bridge/py.typed",
    ):  # fmt: skip
        assert needed in names
    assert not [n for n in names if n.startswith("tests/")]


def test_every_word_of_the_question_language_is_explained() -> None:
    from cohort import question_document, returns
    from cohort.kinds import DERIVED, KINDS

    text = (ROOT / "docs" / "questions.md").read_text("utf-8")
    words = {*KINDS, *question_document.EVENT, *question_document.COMBINATIONS, *question_document.RELATION}
    words |= {*question_document.PERIOD, *question_document.AGES, *question_document.PARAMETER_TYPES}
    words |= {test for tests in question_document.TESTS.values() for test in tests}
    words |= {*returns.COMPUTED, *returns.NAMED, *returns.SHORT, *(c for d in DERIVED.values() for c in d)}
    for word in words:
        assert re.search(rf"\b{word}\b", text), word


def test_every_word_of_outcome_definitions_and_every_column_is_explained() -> None:
    from cohort import outcome_document
    from cohort.outcome import Outcome, Precedence
    from cohort.outcome_rows import ROW

    text = (ROOT / "docs" / "outcomes.md").read_text("utf-8")
    words = {*outcome_document.KEYS, *outcome_document.FACTS, *outcome_document.EVENT, *outcome_document.RULE}
    words |= {*outcome_document.SCORE, *Outcome, *Precedence, *ROW, "changed", "withdrawn"}
    for word in words - {"label"}:
        assert re.search(rf"\b{word}\b", text), word
