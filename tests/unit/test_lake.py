from __future__ import annotations

import base64
import gzip
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.errors import ConfigError, InvalidQuery
from cohort.catalogue import read_question
from cohort.clinical import load
from cohort.keys import key
from cohort.lake import Lake
from cohort.sandbox import ask as ask_question
from cohort.sandbox import run_sql
from cohort.schema import catalogue, first_day, first_moment

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def line(kind: str, id_: str, revision: int = 1, origin: str = "clinical", **resource: Any) -> dict[str, Any]:
    content = {"resourceType": kind, "id": id_} | resource
    return {
        "kind": "resource", "origin": origin, "type": kind, "id": id_, "revision": revision, "deleted": False,
        "resource": content,
    }  # fmt: skip


def gone(kind: str, id_: str, revision: int, origin: str = "clinical") -> dict[str, Any]:
    return line(kind, id_, revision, origin) | {"deleted": True, "resource": None}


def rows_line(table: str, key: str, rows: list[dict[str, Any]], revision: int = 1) -> dict[str, Any]:
    return {"kind": "rows", "table": table, "key": key, "revision": revision, "rows": rows}


def mrn(value: str, system: str = "http://mrn") -> list[dict[str, str]]:
    return [{"system": system, "value": value}]


def study(uid: str, patient: str, accession: str = "", **more: Any) -> dict[str, Any]:
    identifiers: list[dict[str, Any]] = [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]
    if accession:
        identifiers.append({"type": {"coding": [{"code": "ACSN"}]}, "value": accession})
    subject = {"reference": f"Patient/{patient}"}
    return line(
        "ImagingStudy", f"is-{uid}", 1, "bridge", identifier=identifiers, status="available", subject=subject, **more
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def put(lake: Lake, *lines: Mapping[str, Any]) -> None:
    lake.append(lines)
    lake.publish(NOW)


def ask(lake: Lake, sql: str) -> list[tuple[Any, ...]]:
    generation = lake.current()
    assert generation is not None
    return list(run_sql(generation, sql).rows)


def test_nothing_pending_publishes_nothing(lake: Lake) -> None:
    assert lake.publish(NOW) is None
    assert lake.current() is None


def test_every_table_exists_with_all_its_columns_from_the_first_generation_on(lake: Lake) -> None:
    put(lake, line("Patient", "p"))
    for name, table in catalogue().items():
        columns = ", ".join(f'"{c.name}"' for c in table.columns)
        ask(lake, f'SELECT {columns} FROM "{name}"')


def test_the_newest_revision_wins_whatever_the_order(lake: Lake) -> None:
    put(lake, line("Patient", "p", 2, gender="female"))
    put(lake, line("Patient", "p", 1, gender="male"), line("Patient", "p", 3, gender="other"))
    put(lake, line("Patient", "p", 2, gender="male"))
    assert ask(lake, "SELECT patient_id, gender FROM patient") == [("p", "other")]


def test_the_same_line_twice_is_one_row(lake: Lake) -> None:
    put(lake, line("Condition", "c"), line("Condition", "c"))
    put(lake, line("Condition", "c"))
    assert ask(lake, "SELECT count(*) FROM condition") == [(1,)]


def test_a_deleted_resource_leaves_and_does_not_return_by_an_older_version(lake: Lake) -> None:
    put(lake, line("Patient", "p", 5))
    put(lake, gone("Patient", "p", 6))
    put(lake, line("Patient", "p", 5))
    assert ask(lake, "SELECT count(*) FROM patient") == [(0,)]


def test_rows_of_a_study_are_replaced_as_a_whole(lake: Lake) -> None:
    put(lake, rows_line("dicom_instance", "1.2", [{"sop_instance_uid": f"1.2.{n}"} for n in range(3)], 1))
    put(lake, rows_line("dicom_instance", "1.2", [{"sop_instance_uid": "1.2.9", "unknown": 1}], 2))
    put(lake, rows_line("dicom_instance", "1.2", [{"sop_instance_uid": "old"}], 1))
    assert ask(lake, "SELECT sop_instance_uid FROM dicom_instance") == [("1.2.9",)]
    put(lake, rows_line("dicom_instance", "1.2", [], 3))
    assert ask(lake, "SELECT count(*) FROM dicom_instance") == [(0,)]


def test_an_imaging_patient_is_the_clinical_one_with_the_same_identifier(lake: Lake) -> None:
    put(lake, study("1.2", "img"), line("Patient", "img", 1, "bridge", identifier=mrn("7"), gender="female"))
    assert ask(lake, "SELECT patient_id, origin FROM patient") == [("img", "imaging")]
    put(lake, line("Patient", "ehr", identifier=mrn("7")))
    assert ask(lake, "SELECT patient_id, origin FROM patient") == [("ehr", "clinical")]
    assert ask(lake, "SELECT patient_id FROM imaging_study") == [("ehr",)]


@pytest.mark.parametrize(
    "clinical",
    [
        [line("Patient", "ehr", identifier=mrn("7", "http://other"))],
        [line("Patient", "ehr", identifier=[{"value": "7"}])],
        [line("Patient", "one", identifier=mrn("7")), line("Patient", "two", identifier=mrn("7"))],
    ],
    ids=["another system", "no system", "two candidates"],
)
def test_patients_are_never_linked_by_guess(lake: Lake, clinical: list[dict[str, Any]]) -> None:
    put(lake, study("1.2", "img"), line("Patient", "img", 1, "bridge", identifier=mrn("7")), *clinical)
    assert ask(lake, "SELECT patient_id FROM imaging_study") == [("img",)]
    assert ask(lake, "SELECT count(*) FROM patient WHERE origin = 'imaging'") == [(1,)]


def report(id_: str, **how: Any) -> dict[str, Any]:
    return line("DiagnosticReport", id_, status="final", subject={"reference": "Patient/ehr"}, **how)


def test_a_report_finds_its_study_by_uid_reference_or_accession(lake: Lake) -> None:
    by_uid = {"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2"}}
    accession = {"identifier": {"type": {"coding": [{"code": "ACSN"}]}, "value": "A7"}}
    put(
        lake,
        study("1.2", "img", "A7"),
        line("Patient", "img", 1, "bridge", identifier=mrn("7")),
        line("Patient", "ehr", identifier=mrn("7")),
        report("r1", imagingStudy=[by_uid]),
        report("r2", imagingStudy=[{"reference": "ImagingStudy/is-1.2"}]),
        report("r3", basedOn=[accession]),
        report("r4", imagingStudy=[by_uid], basedOn=[accession]),
        report("r5", basedOn=[accession | {"identifier": accession["identifier"] | {"value": "A8"}}]),
    )
    found = ask(lake, "SELECT diagnostic_report_id, study_instance_uid FROM diagnostic_report_study ORDER BY 1")
    assert found == [("r1", "1.2"), ("r2", "1.2"), ("r3", "1.2"), ("r4", "1.2"), ("r5", None)]


def test_an_accession_number_of_another_patient_or_of_two_studies_finds_nothing(lake: Lake) -> None:
    accession = {"identifier": {"type": {"coding": [{"code": "ACSN"}]}, "value": "A7"}}
    put(lake, study("1.2", "someone", "A7"), report("r", basedOn=[accession]))
    assert ask(lake, "SELECT study_instance_uid FROM diagnostic_report_study") == [(None,)]
    put(lake, study("1.3", "ehr", "A7"), study("1.4", "ehr", "A7"), line("Patient", "ehr"))
    assert ask(lake, "SELECT study_instance_uid FROM diagnostic_report_study") == [(None,)]


def test_a_study_is_disputed_while_its_resources_name_several_patients_or_none(lake: Lake) -> None:
    by_reference = {"imagingStudy": [{"reference": "ImagingStudy/is-1.2"}]}
    disputed = "SELECT study_instance_uid FROM disputed_study ORDER BY 1"
    linked = "SELECT subject_key, study_instance_uid FROM diagnostic_report_study"
    put(lake, study("1.2", "ehr"), study("1.3", "ehr"), report("r", **by_reference))
    assert ask(lake, disputed) == []
    assert ask(lake, linked) == [(key("ehr"), "1.2")]
    other = study("1.2", "someone")["resource"] | {"id": "other"}
    put(lake, line("ImagingStudy", "other", 2, **other))
    assert ask(lake, disputed) == [("1.2",)]
    put(lake, gone("ImagingStudy", "other", 3))
    assert ask(lake, disputed) == []
    put(lake, line("DiagnosticReport", "r", 2, status="final", **by_reference))
    assert ask(lake, disputed) == [("1.2",)]
    put(lake, gone("DiagnosticReport", "r", 3), study("1.3", "") | {"revision": 2})
    assert ask(lake, disputed) == [("1.3",)]


def test_lists_of_a_disputed_study_are_complete(lake: Lake) -> None:
    place = {"endpoint": [{"reference": "Endpoint/e"}], "modality": [{"code": "CT"}]}
    about = [{"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2"}}]
    bare = study("1.2", "someone")["resource"] | {"id": "bare"}
    put(
        lake, study("1.2", "ehr", **place), line("ImagingStudy", "bare", **bare), report("r", imagingStudy=about),
        line("Patient", "ehr"), line("Patient", "someone"), line("Endpoint", "e", address="https://pacs.example"),
    )  # fmt: skip
    columns = ["patient_id", "modalities", "endpoints", "report_ids"]
    document = {
        "name": "q", "title": "T", "description": "D", "criteria": {"all": [{"study": {"where": {"modality": "CT"}}}]},
        "return": {"unit": "study", "columns": columns},
    }  # fmt: skip
    generation = lake.current()
    assert generation is not None
    found = ["CT"], ["https://pacs.example/studies/1.2"], ["r"]
    rows = ask_question(generation, read_question(document), {}, NOW.date()).rows
    assert [tuple(row) for row in rows] == [("ehr", *found), ("someone", *found)]


def test_values_become_the_types_the_columns_say(lake: Lake) -> None:
    text = base64.b64encode("Kein Befund für Läsion".encode()).decode()
    put(
        lake,
        line("Patient", "p", birthDate="1970-03", deceasedDateTime="2020"),
        line("Condition", "c", onsetDateTime="2024-03-01T23:30:00-05:00"),
        report("r", presentedForm=[{"contentType": "text/plain", "data": text}]),
        line("Observation", "o", valueQuantity={"value": 5}, effectiveDateTime="2024-01-01"),
    )
    assert ask(lake, "SELECT birth_date, deceased_date FROM patient") == [("1970-03-01", "2020-01-01")]
    assert ask(lake, "SELECT onset_date FROM condition") == [("2024-03-01",)]
    assert ask(lake, "SELECT report_text FROM diagnostic_report") == [("Kein Befund für Läsion",)]
    assert ask(lake, "SELECT value_number, effective_time FROM observation") == [(5.0, "2024-01-01T00:00:00+00:00")]


def test_a_broken_line_or_resource_is_parked_and_the_rest_is_folded(lake: Lake) -> None:
    with (lake.root / lake.append([line("Patient", "p")])).open("ab") as file:
        file.write(b'{"kind": "resource", "or\n{"kind": "nonsense", "revision": 1}\n')
    two_uids = [{"system": "urn:dicom:uid", "value": f"urn:oid:{n}"} for n in (1, 2)]
    lake.append(
        [
            line("DiagnosticReport", "r", imagingStudy=[{"identifier": 5}]),
            line("ImagingStudy", "i", identifier=two_uids),
        ]
    )
    lake.publish(NOW)
    assert ask(lake, "SELECT count(*) FROM patient") == [(1,)]
    (parked,) = (lake.root / "parked").iterdir()
    reasons = [orjson.loads(row)["reason"] for row in parked.read_bytes().splitlines()]
    assert reasons.count("not a line of the delta's format") == 2


NASTY: list[Any] = [
    "2024-13-45", "0000-00-00", "99999", "2024-01-01T25:61:61Z", "9999-12-31T23:59:59-14:00", "\x00", "a\x00b",
    2**40, -1,
    1.5, True, "true", [], {}, [[]], {"a": {"b": ["c"]}}, "\U0001f600" * 50, "'; DROP TABLE x --", "NaN", None,
]  # fmt: skip
SHAPES = [
    ("Patient", "birthDate"), ("Patient", "deceasedBoolean"), ("Patient", "deceasedDateTime"), ("Patient", "gender"),
    ("Patient", "identifier"), ("Condition", "onsetDateTime"), ("Condition", "code"), ("Condition", "subject"),
    ("Observation", "valueQuantity"), ("Observation", "effectiveDateTime"), ("Observation", "category"),
    ("Encounter", "period"), ("Encounter", "class"), ("MedicationRequest", "medicationCodeableConcept"),
    ("DiagnosticReport", "presentedForm"), ("DiagnosticReport", "issued"), ("DiagnosticReport", "imagingStudy"),
    ("ImagingStudy", "numberOfSeries"), ("ImagingStudy", "series"), ("ImagingStudy", "started"),
]  # fmt: skip


def test_no_value_whatever_it_is_stops_a_load(lake: Lake) -> None:
    nested = [{"value": x, "start": x, "data": x, "contentType": "text/plain", "code": x, "coding": x} for x in NASTY]
    broken = [
        line(kind, f"{kind}-{n}-{m}", **{element: value})
        for n, (kind, element) in enumerate(SHAPES)
        for m, value in enumerate((*NASTY, *nested, *([x] for x in nested)))
    ]
    put(lake, *broken, line("Patient", "good", birthDate="1970-01-01"))
    assert ask(lake, "SELECT birth_date FROM patient WHERE patient_id = 'good'") == [("1970-01-01",)]
    assert ask(lake, "SELECT count(*) > 100 FROM patient") == [(True,)]


def test_unchanged_tables_share_their_files_and_a_generation_stays_as_it_was(lake: Lake) -> None:
    put(lake, line("Patient", "p"), line("Condition", "c"))
    first = lake.current()
    put(lake, rows_line("dicom_study", "1.2", [{"study_instance_uid": "1.2"}]))
    second = lake.current()
    assert first is not None
    assert second is not None
    assert first.tables["condition"].layers == second.tables["condition"].layers
    assert first.tables["dicom_study"].layers != second.tables["dicom_study"].layers
    assert run_sql(lake.generation(first.id), "SELECT count(*) FROM dicom_study").rows == ((0,),)


def test_an_id_that_is_no_generation_is_refused(lake: Lake) -> None:
    for bad in ("g999999", "../../etc", "g1/../x"):
        with pytest.raises(InvalidQuery):
            lake.generation(bad)


def test_readers_in_other_processes_see_whole_generations_while_one_publishes(lake: Lake) -> None:
    put(lake, line("Patient", "0"))
    program = (
        "import sys; from pathlib import Path; from cohort.lake import Lake; from cohort.engine.duckdb import connect\n"
        "lake = Lake(Path(sys.argv[1])); seen = set()\n"
        "while not (Path(sys.argv[1]) / 'stop').exists():\n"
        "    c = connect(lake.current())\n"
        "    a = c.execute('SELECT count(*) FROM patient').fetchone()[0]\n"
        "    b = c.execute('SELECT count(*) FROM condition').fetchone()[0]\n"
        "    assert a == b + 1, (a, b); seen.add(a)\n"
        "print(len(seen))"
    )
    reader = subprocess.Popen([sys.executable, "-c", program, str(lake.root)], stdout=subprocess.PIPE)
    for n in range(1, 16):
        put(lake, line("Patient", str(n)), line("Condition", str(n)))
    (lake.root / "stop").touch()
    out, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0
    assert int(out) >= 1


def test_clinical_files_load_with_bad_lines_parked(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    good = orjson.dumps({"resourceType": "Patient", "id": "1"})
    (folder / "a.ndjson").write_bytes(b"\n".join([good, b"not json", b"[]", b'{"resourceType":"Patient"}', b"", good]))
    (folder / "b.ndjson.gz").write_bytes(gzip.compress(orjson.dumps({"resourceType": "Condition", "id": "c"})))
    (folder / "c.ndjson").write_bytes(b'{"resourceType":"Patient","id":"big","x":"' + b"x" * 5_000_000 + b'"}\n' + good)
    report_ = load([folder], lake, NOW)
    lake.publish(NOW)
    assert report_.counts == {"Condition": 1, "Patient": 3}
    assert [(Path(f).name, n) for f, n, _ in report_.parked] == [
        ("a.ndjson", 2),
        ("a.ndjson", 3),
        ("a.ndjson", 4),
        ("c.ndjson", 1),
    ]
    assert ask(lake, "SELECT count(*) FROM patient") == [(1,)]


def test_loading_older_data_again_does_not_go_backwards(lake: Lake, tmp_path: Path) -> None:
    def write(name: str, gender: str, updated: str) -> Path:
        path = tmp_path / name
        meta = {"lastUpdated": updated}
        path.write_bytes(orjson.dumps({"resourceType": "Patient", "id": "1", "gender": gender, "meta": meta}))
        return path

    load([write("new.ndjson", "female", "2025-02-01T00:00:00Z")], lake, NOW)
    load([write("old.ndjson", "male", "2025-01-01T00:00:00Z")], lake, NOW)
    lake.publish(NOW)
    assert ask(lake, "SELECT gender FROM patient") == [("female",)]


def test_a_path_that_does_not_exist_or_holds_nothing_is_told(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load([tmp_path / "nowhere"], lake, NOW)
    with pytest.raises(ConfigError, match="ndjson"):
        load([tmp_path], lake, NOW)


def test_old_generations_go_but_not_those_someone_may_read(lake: Lake) -> None:
    for n in range(8):
        put(lake, line("Patient", str(n)))
    manifests = sorted((lake.root / "generations").glob("*.json"))
    assert len(manifests) == 8
    for path in manifests:
        os.utime(path, (0, 0))
    put(lake, line("Patient", "last"))
    assert len(list((lake.root / "generations").glob("*.json"))) == 5
    assert ask(lake, "SELECT count(*) FROM patient") == [(9,)]


def test_partial_dates_count_by_their_first_day() -> None:
    assert [first_day(d) for d in ("2024", "2024-03", "2024-03-05", "x")] == [
        "2024-01-01",
        "2024-03-01",
        "2024-03-05",
        None,
    ]
    assert first_moment("2024") == "2024-01-01T00:00:00Z"
