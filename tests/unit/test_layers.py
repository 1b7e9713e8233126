"""Layers, compaction and incremental links: whatever the way, the tables are those of one single publish."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from bridge.errors import ConfigError, InvalidQuery
from cohort import arrivals, clinical, compaction, flatten
from cohort import lake as lake_module
from cohort import tables as tables_module
from cohort.catalogue import read_question
from cohort.engine.duckdb import connect
from cohort.generation import Generation, sealed
from cohort.keys import key, key_sql
from cohort.kinds import MODALITIES_TEXT as TEXT
from cohort.kinds import OF_STUDIES
from cohort.lake import Lake
from cohort.sandbox import ask
from cohort.schema import catalogue, dicom_tables
from cohort.stored import clustered_by, columns_of
from tests.unit.test_lake import gone, line, mrn, rows_line, study

SUBJECT = {"reference": "Patient/p"}
CODES = ["SR", "MR", "CT"]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def contents(generation: Generation | None) -> dict[str, list[str]]:
    """Every row of every table that questions see, sorted."""
    assert generation is not None
    connection = connect(generation)
    found = {}
    for name in generation.tables:
        rows = connection.execute(f'SELECT * FROM "{name}"').fetchall()
        found[name] = sorted(map(repr, rows))
        assert len(rows) == generation.tables[name].rows
    return found


def disputes(generation: Generation | None) -> list[Any]:
    """Studies that are disputed or are said to be, but not both; reports' links that name another patient than the
    report does."""
    assert generation is not None
    named = """
        SELECT study_key FROM (SELECT study_key, patient_key FROM imaging_study
                               UNION ALL SELECT study_key, subject_key FROM imaging_study_modality
                               UNION ALL SELECT study_key, subject_key FROM diagnostic_report_study)
        WHERE study_key IS NOT NULL
        GROUP BY study_key HAVING count(DISTINCT patient_key) > 1 OR count(patient_key) < count(*)"""
    said = "SELECT study_key FROM disputed_study"
    links = """
        SELECT report_key FROM diagnostic_report_study l WHERE NOT EXISTS (
            SELECT 1 FROM diagnostic_report r
            WHERE r.report_key = l.report_key AND r.patient_key IS NOT DISTINCT FROM l.subject_key)"""
    with connect(generation) as connection:
        queries = f"({named}) EXCEPT {said}", f"{said} EXCEPT ({named})", links
        return [row for query in queries for row in connection.execute(query).fetchall()]


def modalities(generation: Generation | None) -> list[Any]:
    """Studies whose modalities are not those that their ImagingStudies have together, each once and sorted; or whose
    text says others than their list."""
    assert generation is not None
    with connect(generation) as connection:
        rows = connection.execute(f"SELECT study_instance_uid, modalities, {TEXT} FROM imaging_study").fetchall()
        stated = connection.execute("SELECT study_instance_uid, modality FROM imaging_study_modality").fetchall()
    together = {row[0]: sorted({code for uid, code in stated if uid == row[0]}) for row in rows}
    return [row for row in rows if row[1] != together[row[0]] or [m for m in row[2].split("\\") if m] != row[1]]


def answered(lake: Lake, document: Any) -> Any:
    generation = lake.current()
    assert generation is not None
    return ask(generation, read_question(document), {}, NOW.date()).rows


def published(root: Path, lines: list[dict[str, Any]]) -> Lake:
    lake = Lake(root)
    lake.append(lines)
    lake.publish(NOW)
    return lake


def codes(modalities: list[str]) -> list[dict[str, Any]]:
    return [{"code": code} for code in modalities]


def accession(value: str) -> list[dict[str, Any]]:
    return [{"identifier": {"type": {"coding": [{"code": "ACSN"}]}, "value": value}}]


def changes(chance: random.Random, first: int) -> Iterator[dict[str, Any]]:
    """Random changes of a small hospital: people, their identifiers, studies, reports, facts."""
    person = lambda: chance.choice(["a", "b", "c"])  # noqa: E731
    imaged = lambda: f"img-{chance.randrange(4)}"  # noqa: E731
    for revision in range(first, first + chance.randrange(1, 7)):
        what = chance.randrange(8)
        if what == 0:
            yield line("Patient", person(), revision, identifier=mrn(str(chance.randrange(3))), gender="female")
        elif what == 1:
            held = mrn(str(chance.randrange(3))) + mrn(str(chance.randrange(3)), "http://else")
            yield line("Patient", imaged(), revision, "bridge", identifier=held)
        elif what == 2:
            uid = f"1.2.{chance.randrange(4)}"
            made = study(
                uid,
                imaged(),
                chance.choice(["A1", "A2", ""]),
                modality=codes(chance.sample(CODES, chance.randrange(3))),
            )
            id_ = chance.choice([made["id"], f"other-{uid}"])
            yield made | {"revision": revision, "id": id_, "resource": made["resource"] | {"id": id_}}
        elif what == 3:
            about: dict[str, Any] = chance.choice(
                [
                    {"basedOn": accession(chance.choice(["A1", "A2"]))},
                    {"imagingStudy": [{"reference": f"ImagingStudy/is-1.2.{chance.randrange(4)}"}]},
                    {"imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.1"}}]},
                    {},
                ]
            )
            subject = {"reference": f"Patient/{chance.choice([person(), imaged()])}"}
            origin = chance.choice(["bridge", "clinical"])
            yield line("DiagnosticReport", f"r{chance.randrange(4)}", revision, origin, subject=subject, **about)
        elif what == 4:
            code = {"coding": [{"system": "s", "code": str(n)} for n in range(chance.randrange(3))]}
            subject = {"reference": f"Patient/{person()}"}
            yield line("Condition", f"c{chance.randrange(6)}", revision, code=code, subject=subject)
        elif what == 5:
            uid = f"1.2.{chance.randrange(4)}"
            rows = [{"study_instance_uid": uid, "sop_instance_uid": f"{uid}.{n}"} for n in range(chance.randrange(4))]
            yield rows_line("dicom_instance", uid, rows, revision)
        elif what == 6:
            kind, id_, origin = chance.choice(
                [("Patient", person(), "clinical"), ("Patient", imaged(), "bridge"),
                 ("DiagnosticReport", "r1", "bridge"),
                 ("ImagingStudy", "is-1.2.1", "bridge"), ("Condition", "c1", "clinical")]
            )  # fmt: skip
            yield gone(kind, id_, revision, origin)
        else:
            subject = {"reference": f"Patient/{imaged()}"}
            yield line("Observation", f"o{chance.randrange(3)}", revision, "bridge", subject=subject)


@pytest.mark.parametrize("seed", range(6))
def test_many_small_publishes_give_what_one_gives(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SORTED_ROWS", 2 if seed % 2 else compaction.SORTED_ROWS)
    chance = random.Random(seed)
    lake, everything = Lake(tmp_path / "many"), []
    for round_ in range(1, 13):
        lines = list(changes(chance, round_ * 10))
        everything += lines
        lake.append(chance.sample(lines, len(lines)) if chance.random() < 0.2 else lines)
        if chance.random() < 0.3:
            lake.append(chance.sample(everything, min(5, len(everything))))  # older lines again change nothing
        lake.publish(NOW)
        if chance.random() < 0.2:
            lake.compact(NOW, everything=chance.random() < 0.5)
        assert disputes(lake.current()) == []
        assert modalities(lake.current()) == []
        found = contents(lake.current())
        assert found["condition_by_code"] == found["condition"]
    assert contents(lake.current()) == contents(published(tmp_path / "one", everything).current())
    lake.compact(NOW, everything=True)
    assert contents(lake.current()) == contents(published(tmp_path / "two", everything).current())


@pytest.mark.parametrize(
    ("sorted_rows", "sampled_rows"), [(1, 1000), (7, 1000), (90, 1000), (1000, 1000), (7, 30), (7, 1)]
)
def test_a_table_too_large_to_be_sorted_at_once_is_sorted_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sorted_rows: int, sampled_rows: int
) -> None:
    """Where to part it is told by some of its rows, were it by one or by none."""
    monkeypatch.setattr(compaction, "SORTED_ROWS", sorted_rows)
    monkeypatch.setattr(compaction, "SAMPLED_ROWS", sampled_rows)
    lake = Lake(tmp_path)
    for part in range(3):
        numbers = range(part * 30, part * 30 + 40)  # some twice
        subjects = ({"subject": {"reference": f"Patient/p{n % 10}"}} if n % 7 else {} for n in numbers)
        coded = ({"code": {"coding": [{"system": "s", "code": f"it's {n % 3}"}]}} if n % 5 else {} for n in numbers)
        lines = zip(numbers, subjects, coded, strict=True)
        lake.append([line("Condition", f"c{n}", part, **subject, **code) for n, subject, code in lines])
        lake.publish(NOW)
    before = contents(lake.current())
    assert lake.compact(NOW, everything=True)
    assert contents(lake.current()) == before
    for table in ("condition", "condition_by_code"):
        (one,) = lake.current().tables[table].layers  # type: ignore[union-attr]
        rows = f"FROM read_parquet('{one.file}')"
        order = clustered_by(table).partition(", _hash")[0]
        found = duckdb.execute(f"SELECT {order} {rows}").fetchall()
        assert len(found) == 100
        assert found == duckdb.execute(f"SELECT {order} {rows} ORDER BY {order}").fetchall()


def test_a_small_change_writes_small_files(tmp_path: Path) -> None:
    subject = {"reference": "Patient/p"}
    many = [line("Condition", f"c{n}", subject=subject, note="x" * 100) for n in range(20_000)]
    lake = published(tmp_path, many)
    before = {path.name for path in (tmp_path / "files").iterdir()}
    held = sum(path.stat().st_size for path in (tmp_path / "files").iterdir())
    lake.append([line("Condition", "c7", 2, subject=subject)])
    lake.publish(NOW)
    added = sum(path.stat().st_size for path in (tmp_path / "files").iterdir() if path.name not in before)
    assert 0 < added < held / 20


def test_rows_replaced_while_a_compaction_runs_do_not_come_back(tmp_path: Path) -> None:
    lake = published(tmp_path, [line("Condition", f"c{n}") for n in range(20)])
    lake.append([line("Condition", "c1", 2), gone("Condition", "c2", 2)])
    lake.publish(NOW)
    lines = [line("Condition", "c1", 3, recordedDate="2024-01-01"), gone("Condition", "c3", 3), line("Condition", "x")]

    def meanwhile(stage: str) -> None:
        if stage == "compacted":
            other = Lake(tmp_path)
            other.append(lines)
            other.publish(NOW)

    assert Lake(tmp_path, meanwhile).compact(NOW, everything=True)
    found = lake.current()
    assert found is not None
    rows = connect(found).execute("SELECT condition_id, recorded_date IS NOT NULL FROM condition").fetchall()
    assert sorted(rows) == sorted((f"c{n}", n == 1) for n in (*range(2), *range(4, 20))) + [("x", False)]  # noqa: RUF005
    assert len(found.tables["condition"].layers) == 2


def test_compaction_is_due_by_share_and_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SMALL_ROWS", 20)
    lake = published(tmp_path, [line("Condition", f"c{n}") for n in range(1000)])
    assert not lake.compact(NOW)
    for n in range(compaction.MAXIMUM_LAYERS):
        lake.append([line("Condition", "c1", n + 2), line("Condition", f"new{n}")])
        lake.publish(NOW)
    layers = lambda: lake.current().tables["condition"].layers  # type: ignore[union-attr]  # noqa: E731
    large = layers()[0].file
    assert lake.compact(NOW)
    assert [one.file == large for one in layers()] == [True, False]
    lake.append([line("Condition", f"c{n}", 99) for n in range(200)])
    lake.publish(NOW)
    assert lake.compact(NOW)
    assert len(layers()) == 1
    assert layers()[0].rows == 1000 + compaction.MAXIMUM_LAYERS


@pytest.mark.parametrize(
    ("new", "gone", "due"),
    [(99, 0, []), (101, 0, ["condition"]), (501, 0, ["condition", "resource_Condition"]),
     (0, 101, ["condition", "resource_Condition"]), (60, 60, ["condition"])],
)  # fmt: skip
def test_resources_that_come_are_compacted_later_than_what_questions_read(
    monkeypatch: pytest.MonkeyPatch, new: int, gone: int, due: list[str]
) -> None:
    monkeypatch.setattr(compaction, "SMALL_ROWS", 20)
    layers = [{"file": "large", "rows": 1000, "gone": "list", "gone_rows": gone}, {"file": "small", "rows": new}]
    tables = {n: {"columns": list(columns_of(n)), "layers": layers} for n in ("condition", "resource_Condition")}
    assert sorted(compaction.due(tables, everything=False)) == due


def test_a_reader_keeps_the_generation_it_opened_while_compaction_runs(tmp_path: Path) -> None:
    lake = published(tmp_path, [line("Condition", "c1")])
    lake.append([line("Condition", "c2", 2)])
    old = lake.publish(NOW)
    lake.compact(NOW, everything=True)
    new = lake.current()
    assert old is not None
    assert new is not None
    assert new.id != old.id
    assert contents(old) == contents(new)


def test_keys_are_the_same_in_python_and_sql_and_in_every_table(tmp_path: Path) -> None:
    subject = {"reference": "Patient/p"}
    lake = published(tmp_path, [line("Patient", "p"), line("Condition", "c", subject=subject), study("1.2", "p")])
    found = lake.current()
    assert found is not None
    connection = connect(found)
    assert connection.execute("SELECT patient_key FROM condition").fetchall() == [(key("p"),)]
    assert connection.execute("SELECT patient_key, study_key FROM imaging_study").fetchall() == [(key("p"), key("1.2"))]
    for name, table in catalogue().items():
        columns = {c.name for c in table.columns}
        assert ("patient_id" in columns) == ("patient_key" in columns), name
        assert ("study_instance_uid" in columns) == ("study_key" in columns), name


def test_the_files_hold_what_the_catalogue_says(tmp_path: Path) -> None:
    subject = {"reference": "Patient/p"}
    facts = [line(kind, "x", subject=subject) for kind in ("Condition", "Encounter", "Observation", "Procedure")]
    of_the_study = [{"reference": "ImagingStudy/s", "identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2"}}]
    facts += [line("Observation", "f", subject=subject, derivedFrom=of_the_study)]
    facts += [line("MedicationRequest", "x", subject=subject), line("Endpoint", "e", 1, "bridge", status="active")]
    implanted = [{"manipulated": {"reference": "Device/d"}}]
    facts += [line("Procedure", "y", subject=subject, focalDevice=implanted), line("Device", "d")]
    rows = [rows_line(name, "1.2", [{"study_instance_uid": "1.2"}]) for name in dicom_tables()]
    series = [{"uid": "1.2.3", "modality": {"code": "CT"}, "endpoint": [{"reference": "Endpoint/e"}]}]
    imaging = study("1.2", "p", modality=[{"code": "CT"}], series=series, endpoint=series[0]["endpoint"])
    report = line("DiagnosticReport", "r", basedOn=accession("A1"), subject=subject)
    of_two = line("ImagingStudy", "of another", identifier=imaging["resource"]["identifier"])
    lake = published(tmp_path, [line("Patient", "p", identifier=mrn("7")), *facts, *rows, imaging, of_two, report])
    found = lake.current()
    assert found is not None
    connection = connect(found)
    for name, table in catalogue().items():
        assert found.tables[name].rows, name
        described = connection.execute(f'DESCRIBE SELECT * FROM "{name}"').fetchall()
        assert [(d[0], d[1]) for d in described] == [(c.name, c.type) for c in table.columns]
        for layer in found.tables[name].layers:
            held = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{layer.file}')").fetchall()
            assert {(d[0], d[1]) for d in held if not d[0].startswith("_")} == {(c.name, c.type) for c in table.columns}


@pytest.mark.parametrize("lost", [[TEXT, "modalities"], [TEXT]])
def test_a_generation_from_before_a_column_answers_questions(tmp_path: Path, lost: list[str]) -> None:
    studies = [study(f"1.{n}", "p", modality=codes(found)) for n, found in enumerate([["CT", "PT"], ["MR"], []])]
    reference = [{"reference": "ImagingStudy/is-1.0"}]
    report = line("DiagnosticReport", "r", status="final", imagingStudy=reference, subject=SUBJECT)
    lake = published(tmp_path, [line("Patient", "p"), *studies, report])
    document = {
        "name": "q", "title": "T", "description": "D",
        "criteria": {"all": [{"study": {"where": {"modality": "CT"}}}, {"report": {"where": {"status": "final"}}}]},
        "return": {"unit": "study", "columns": ["modalities", "report_ids", "endpoints"]},
    }  # fmt: skip
    other = document | {"criteria": {"not": {"study": {"where": {"modality": ["PT", "MR"]}}}}}
    (manifest,) = (tmp_path / "generations").glob("*.json")
    known = orjson.loads(manifest.read_bytes())
    del known["tables"]["disputed_study"]
    for column in lost:
        known["tables"]["imaging_study"]["columns"].remove(column)
    known["tables"]["diagnostic_report_study"]["columns"].remove("status")
    for table in OF_STUDIES:
        known["tables"][table]["columns"].remove("subject_key")
    manifest.write_bytes(orjson.dumps(known))
    assert answered(lake, document) == ((["CT", "PT"], ["r"], []),)
    assert answered(lake, other) == (([], [], []),)


def test_words_are_found_whatever_their_case_in_text_and_conclusion(tmp_path: Path) -> None:
    texts = {
        "a": {"conclusion": "NODULE (5 mm)"}, "b": {"presentedForm": [{"data": "bm9kdWxl"}], "conclusion": "of note"},
        "c": {"conclusion": "100% of\tit"}, "d": {"conclusion": "\u212aN\u00d6TCHEN"}, "e": {},
    }  # fmt: skip
    texts["b"]["presentedForm"][0]["contentType"] = "text/plain"
    reports = [line("DiagnosticReport", n, status="final", subject=SUBJECT, **more) for n, more in texts.items()]
    lake = published(tmp_path, [line("Patient", "p"), *reports])

    def about(*words: str) -> str:
        document = {
            "name": "q", "title": "T", "description": "D",
            "criteria": {"report": {"where": {"text": {"contains": list(words)}}}},
            "return": {"unit": "report", "columns": ["diagnostic_report_id"]},
        }  # fmt: skip
        return "".join(sorted(row[0] for row in answered(lake, document)))

    assert [about("nodule"), about("(5 MM)"), about("le of"), about("of note", "nodule")] == ["ab", "a", "b", "ab"]
    assert [about("0%"), about(".*"), about("OF\tit"), about("kn"), about("kn\u00f6t")] == ["c", "", "c", "d", "d"]
    assert about("n\u00f6t", "nodule") == "abd"


def test_a_study_has_the_modalities_of_all_its_imaging_studies(tmp_path: Path) -> None:
    def shown() -> Any:
        with connect(lake.current() or pytest.fail()) as connection:
            return connection.execute("SELECT imaging_study_id, modalities FROM imaging_study ORDER BY 1").fetchall()

    one, other, unknown = study("1.2", "p", modality=codes(["SR", "CT", "CT"])), study("1.2", "p"), study("1.3", "p")
    other |= {"id": "x", "resource": other["resource"] | {"id": "x", "modality": codes(["MR"])}}
    lake = published(tmp_path, [line("Patient", "p"), one, unknown])
    assert shown() == [("is-1.2", ["CT", "SR"]), ("is-1.3", [])]
    lake.append([other])
    lake.publish(NOW)
    assert shown() == [("is-1.2", ["CT", "MR", "SR"]), ("is-1.3", []), ("x", ["CT", "MR", "SR"])]
    question = {
        "name": "q", "title": "T", "description": "D", "criteria": {"study": {"where": {"modality": "MR"}}},
        "return": {"unit": "study", "columns": ["imaging_study_id", "modalities"]},
    }  # fmt: skip
    assert sorted(answered(lake, question)) == [("is-1.2", ["CT", "MR", "SR"]), ("x", ["CT", "MR", "SR"])]
    lake.append([gone("ImagingStudy", "is-1.2", 2, "bridge")])
    lake.publish(NOW)
    assert shown() == [("is-1.3", []), ("x", ["MR"])]


def test_a_series_is_shown_with_the_imaging_study_that_is_asked_for(tmp_path: Path) -> None:
    one, other = study("1.2", "p"), study("1.2", "p")
    other |= {"id": "x", "resource": other["resource"] | {"id": "x", "status": "entered-in-error"}}
    series = rows_line("dicom_series", "1.2", [{"study_instance_uid": "1.2", "series_instance_uid": "1.2.1"}])
    lake = published(tmp_path, [line("Patient", "p"), one, other, series])
    question = {
        "name": "q", "title": "T", "description": "D", "criteria": {"study": {"where": {"status": "available"}}},
        "return": {"unit": "series", "columns": ["series_instance_uid", "imaging_study_id"]},
    }  # fmt: skip
    assert answered(lake, question) == (("1.2.1", "is-1.2"),)
    counted = {"unit": "series", "group_by": ["study.status"]}
    assert answered(lake, question | {"return": counted}) == (("available", 1, 1),)


@pytest.mark.parametrize("part", [3, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_tables_whose_columns_are_others_now_are_made_anew_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, part: int
) -> None:
    monkeypatch.setattr(tables_module, "PART_ROWS", part)
    lake = published(tmp_path, list(changes(random.Random(seed), 1)))
    for first in range(10, 120, 10):
        lake.append(list(changes(random.Random(seed * 1000 + first), first)))
        lake.publish(NOW)
    expected, manifest = contents(lake.current()), max((tmp_path / "generations").glob("*.json"))
    known = orjson.loads(manifest.read_bytes())
    kept = known["tables"]["imaging_study_modality"]
    del known["digest"], known["tables"]["condition_by_code"]
    lost = {"imaging_study": "modalities", "own_report_study": "accession_system", "dicom_instance": "rows"}
    for table, column in lost.items():
        known["tables"][table]["columns"].remove(column)
    manifest.write_bytes(sealed(known))
    lake.append([gone("Encounter", "never there", 1)])
    lake.publish(NOW)
    assert contents(lake.current()) == expected
    known = orjson.loads(max((tmp_path / "generations").glob("*.json")).read_bytes())
    assert kept == known["tables"]["imaging_study_modality"]


def test_a_lake_from_before_a_table_by_code_gets_it_with_the_next_publish(tmp_path: Path) -> None:
    code = {"coding": [{"system": "s", "code": "1"}]}
    lake = published(tmp_path, [line("Patient", "p"), line("Condition", "c", code=code, subject=SUBJECT)])
    (manifest,) = (tmp_path / "generations").glob("*.json")
    known = orjson.loads(manifest.read_bytes())
    del known["digest"], known["tables"]["condition_by_code"]
    manifest.write_bytes(sealed(known))
    document = {
        "name": "q", "title": "T", "description": "D",
        "criteria": {"all": [{"condition": {"codes": {"system": "s", "code": "1"}}}]},
        "return": {"unit": "patient", "columns": ["patient_id"]},
    }  # fmt: skip
    assert answered(lake, document) == (("p",),)
    assert "condition_by_code" not in (lake.current() or pytest.fail()).tables
    lake.append([line("Patient", "q")])
    lake.publish(NOW)
    assert (lake.current() or pytest.fail()).tables["condition_by_code"].rows == 1
    assert answered(lake, document) == (("p",),)
    lake.append([gone("Condition", "c", 2)])
    lake.publish(NOW)
    assert answered(lake, document) == ()


def test_two_people_whose_keys_are_equal_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatten, "key_sql", lambda text: key_sql(text) if "_key" in text else "42::BIGINT")
    lake = published(tmp_path, [line("Patient", "first", gender="male")])
    lake.append([line("Patient", "second", gender="female"), line("Patient", "first", 2, gender="male")])
    found = lake.publish(NOW)
    assert found is not None
    assert connect(found).execute("SELECT patient_id FROM patient").fetchall() == [("first",)]
    (parked,) = lake.parked(10)
    assert parked["file"] == "clinical/second"
    assert "patient_key" in parked["reason"]


def test_two_resources_whose_keys_are_equal_never_replace_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "key_sql", lambda _text: "42::BIGINT")
    lake = published(tmp_path, [line("Condition", "first"), line("Condition", "second"), line("Condition", "first", 2)])
    lake.append([line("Condition", "third"), line("Condition", "first", 3, recordedDate="2024-01-01")])
    found = lake.publish(NOW)
    assert found is not None
    rows = connect(found).execute("SELECT condition_id, recorded_date::VARCHAR FROM condition").fetchall()
    assert rows == [("first", "2024-01-01")]
    assert [one["file"] for one in lake.parked(10)] == ["Condition/third", "Condition/second"]
    assert "another id" in lake.parked(1)[0]["reason"]


def test_a_line_that_is_none_does_not_keep_the_others_from_the_tables(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    sound = [line("Condition", "a", 2, recordedDate="2024-01-01"), line("Condition", "a", 1), line("Condition", "b")]
    path = tmp_path / lake.append([*sound, rows_line("dicom_study", "1", [{"modality": "CT"}])])
    whole = path.read_bytes()
    wrong = (b"{bad", b"5", b'{"kind":"resource"}', b'{"kind":"other","revision":1}',
             orjson.dumps(line("Con dition", "x")), orjson.dumps(line("Condition", "x") | {"resource": 5}))  # fmt: skip
    path.write_bytes(whole + b"\n".join(wrong))
    found = lake.publish(NOW)
    assert found is not None
    rows = connect(found).execute("SELECT condition_id, recorded_date::VARCHAR FROM condition ORDER BY 1").fetchall()
    assert rows == [("a", "2024-01-01"), ("b", None)]
    assert found.tables["dicom_study"].rows == 1
    assert [(one["file"], one["line"]) for one in lake.parked(10)] == [(path.name, n) for n in range(5, 11)]


def test_a_view_with_another_column_is_made_anew_from_the_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [line("Condition", "c1", recordedDate="2024-01-01"), rows_line("dicom_study", "1", [{"modality": "CT"}])]
    lake = published(tmp_path, [*held, line("Patient", "p", identifier=mrn("7"))])
    whole = contents(lake.current())
    path = max((tmp_path / "generations").glob("*.json"))
    manifest = orjson.loads(path.read_bytes())
    del manifest["digest"]
    for table in ("condition", "patient", "own_identifier"):
        manifest["tables"][table]["columns"].remove("_hash")
    path.write_bytes(sealed(manifest))
    lake.append([line("Encounter", "e")])
    lake.publish(NOW)
    now = contents(lake.current())
    assert {name: rows for name, rows in now.items() if name != "encounter"} == {
        name: rows for name, rows in whole.items() if name != "encounter"
    }


def test_a_load_is_seen_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    with lake.loading() as append:
        append([line("Patient", "one")])
        assert lake.publish(NOW) is None
        append([line("Patient", "two")])
    assert lake.pending() == 2
    found = lake.publish(NOW)
    assert found is not None
    assert found.tables["patient"].rows == 2
    assert not list((tmp_path / "delta").iterdir())
    with pytest.raises(RuntimeError), lake.loading() as append:
        append([line("Patient", "three")])
        raise RuntimeError
    assert lake.publish(NOW) is None


def test_a_kept_generation_stays_and_can_be_asked_by_its_name(tmp_path: Path) -> None:
    lake = published(tmp_path, [line("Patient", "0")])
    first = lake.current()
    assert first is not None
    assert lake.keep("study-1", first.id) == first.id
    for n in range(1, 8):
        lake.append([line("Patient", str(n)), line("Patient", "0", n)])
        lake.publish(NOW)
    lake.compact(NOW, everything=True)
    for path in (tmp_path / "generations").iterdir():
        os.utime(path, (0, 0))
    lake.append([line("Patient", "last")])
    lake.publish(NOW)
    assert contents(lake.generation("study-1"))["patient"] == contents(first)["patient"]
    listed = lake.generations()
    assert [one.names for one in listed if one.id == first.id] == [("study-1",)]
    assert listed[0].current
    with pytest.raises(InvalidQuery, match="another generation"):
        lake.keep("study-1", listed[0].id)
    lake.forget("study-1")
    for path in (tmp_path / "generations").iterdir():
        os.utime(path, (0, 0))
    lake.append([line("Patient", "more")])
    lake.publish(NOW)
    with pytest.raises(InvalidQuery, match="not kept"):
        lake.generation(first.id)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "g000001", "-x", "x" * 65, ".hidden", "x.part"])
def test_a_name_that_could_be_something_else_is_refused(tmp_path: Path, name: str) -> None:
    lake = published(tmp_path, [line("Patient", "0")])
    with pytest.raises(InvalidQuery):
        lake.keep(name, "g000001")
    with pytest.raises(InvalidQuery):
        lake.forget(name)


PUBLISHER = """
import os, signal, sys
from datetime import datetime, UTC
from pathlib import Path
from cohort.lake import Lake
from tests.unit.test_layers import hospital
folder, stage, nth = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
reached = []
def at(where):
    reached.append(where)
    if where == stage and reached.count(where) == nth:
        os.kill(os.getpid(), signal.SIGKILL)
lake = Lake(folder, at)
if not (folder / "fed").exists():
    for lines in hospital():
        with lake.loading() as append:
            append(lines)
    (folder / "fed").touch()
def publish():
    lake.publish(datetime(2026, 1, 1, tzinfo=UTC))
    lake.compact(datetime(2026, 1, 1, tzinfo=UTC), everything=True)
publish()
with lake.loading() as append:
    append([])
lake.append(list(hospital())[-1])
publish()
"""


def hospital() -> list[list[dict[str, Any]]]:
    chance = random.Random(7)
    return [[one for part in range(4) for one in changes(chance, (round_ * 4 + part) * 10)] for round_ in range(4)]


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("stage", ["folded", "manifest written", "published", "delta removed", "compacted"])
def test_killed_anywhere_the_next_publish_gives_what_no_kill_gives(tmp_path: Path, stage: str, nth: int) -> None:
    def run(stage: str) -> int:
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path / "lake"), stage, str(nth)]
        return subprocess.run(command, check=False, cwd=Path(__file__).parents[2], timeout=100).returncode

    killed = run(stage)
    assert killed == -9 or nth == 3
    before = Lake(tmp_path / "lake").current()
    if before is not None:
        contents(before)  # whatever was published can be read
    assert run("-") == 0
    everything = [one for lines in hospital() for one in lines]
    lake = Lake(tmp_path / "lake")
    assert contents(lake.current()) == contents(published(tmp_path / "one", everything).current())
    assert not lake.pending()
    assert not (tmp_path / "lake" / "loads").exists() or not list((tmp_path / "lake" / "loads").iterdir())


def test_a_lake_of_another_version_is_told_and_left_alone(tmp_path: Path) -> None:
    lake = published(tmp_path, [line("Patient", "0")])
    lake.append([line("Patient", "1")])
    path = max((tmp_path / "generations").glob("*.json"))
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"format": 1}))
    with pytest.raises(ConfigError, match="another version"):
        lake.check()
    with pytest.raises(ConfigError, match="another version"):
        lake.publish(NOW)
    with pytest.raises(InvalidQuery, match="another version"):
        lake.current()
    assert lake.pending() == 1


def test_what_died_before_it_was_whole_is_removed_after_a_day(tmp_path: Path) -> None:
    lake = published(tmp_path, [line("Patient", "0")])
    for name, age_s in (("old", 2 * 86_400), ("young", 60)):
        for path in (tmp_path / "loads" / name / "1.ndjson", tmp_path / "delta" / f"{name}.ndjson-1.part"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (NOW.timestamp() - age_s,) * 2)
    lake.compact(NOW)
    assert [path.name for path in (tmp_path / "delta").iterdir()] == ["young.ndjson-1.part"]
    assert [path.name for path in (tmp_path / "loads").iterdir()] == ["young"]
    assert lake.publish(NOW) is None


def test_a_large_load_is_taken_in_bit_by_bit_and_seen_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clinical, "PART_BYTES", 2_000)
    monkeypatch.setattr(clinical, "BLOCK_BYTES", 500)
    monkeypatch.setitem(lake_module.FOLD_BYTES, ".ndjson", 10_000)
    monkeypatch.setitem(lake_module.FOLD_BYTES, ".parquet", 10_000)
    file = tmp_path / "x.ndjson.gz"
    lines = [orjson.dumps({"resourceType": "Patient", "id": f"p{n % 300}", "gender": "other"}) for n in range(600)]
    file.write_bytes(gzip.compress(b"\n".join(lines)))
    lake, told = Lake(tmp_path / "lake"), list[tuple[int, int]]()
    report = clinical.load([file], lake, NOW, lambda done, of: told.append((done, of)))
    sizes = [path.stat().st_size for path in (tmp_path / "lake" / "loads").rglob("*.parquet")]
    assert len(sizes) > 10
    assert max(sizes) < 10_000
    assert told[-1][0] <= told[-1][1] == file.stat().st_size
    found = lake.publish(NOW)
    assert found is not None
    assert (report.counts, found.id, found.tables["patient"].rows) == ({"Patient": 600}, "g000001", 300)
    assert 1 < len(found.tables["patient"].layers) < 20


def test_a_gzip_file_that_is_cut_off_is_parked_and_its_beginning_loads(tmp_path: Path) -> None:
    lines = b"".join(orjson.dumps({"resourceType": "Patient", "id": os.urandom(16).hex()}) + b"\n" for _ in range(2000))
    (tmp_path / "cut.ndjson.gz").write_bytes(gzip.compress(lines)[:-2000])
    (tmp_path / "good.ndjson").write_bytes(b'{"resourceType":"Condition","id":"c"}')
    lake = Lake(tmp_path / "lake")
    report = clinical.load([tmp_path / "cut.ndjson.gz", tmp_path / "good.ndjson"], lake, NOW)
    assert report.counts["Condition"] == 1
    assert 100 < report.counts["Patient"] < 2000
    assert "damaged or cut off" in report.parked[-1][2]
    assert lake.parked(1000)[-1]["of"].startswith("load-")
