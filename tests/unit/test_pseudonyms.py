from __future__ import annotations

import re
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError, InvalidQuery, NotAllowed
from cohort.catalogue import column_types, question, read_question
from cohort.desk import Caller, Desk
from cohort.disclosure import MEANINGS, OUTCOME, QUESTION, disclosure, meaning, views
from cohort.engine.duckdb import connect
from cohort.generation import Generation
from cohort.keys import key
from cohort.kinds import KINDS
from cohort.lake import Lake
from cohort.outcome_rows import ROW
from cohort.privacy import Policy
from cohort.pseudonym import KEY_FILE, Pseudonyms, read_secret
from cohort.returns import COMPUTED, NAMED, returned
from cohort.schema import catalogue
from tests.policies import PATIENT

TODAY = date(2026, 11, 24)
ME = Caller("me", "cli")
ROWS = Policy(line_level=True, small_cells=1)
SECRET = b"k" * 32
DCM = "http://dicom.nema.org/resources/ontology/DCM"
UID = "1.2.840.1"
CANARIES = (
    "MRN777",
    "pat-777",
    UID,
    "ACC777",
    "Dr Who",
    "rep-777",
    "typed text",
    "1931-05-17",
    "2024-03-09",
    "enc-777",
    "obs-777",
    *(str(key(one)) for one in ("pat-777", UID, f"{UID}.1", "rep-777")),
)


def resource(content: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "resource", "origin": "clinical", "type": content["resourceType"], "id": content["id"], "revision": 1,
        "deleted": False, "resource": content,
    }  # fmt: skip


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    made = Lake(tmp_path_factory.mktemp("pseudonyms") / "lake")
    subject = {"reference": "Patient/pat-777"}
    contents: list[dict[str, Any]] = [
        {
            "resourceType": "Patient", "id": "pat-777", "gender": "female", "birthDate": "1931-05-17",
            "identifier": [{"system": "http://h/mrn", "value": "MRN777"}],
        },
        {
            "resourceType": "ImagingStudy", "id": "study-777", "status": "available", "subject": subject,
            "identifier": [
                {"system": "urn:dicom:uid", "value": f"urn:oid:{UID}"},
                {"type": {"coding": [{"code": "ACSN"}]}, "value": "ACC777"},
            ],
            "started": "2024-03-09T13:14:15Z", "description": "typed text", "modality": [{"code": "CT"}],
            "referrer": {"display": "Dr Who"}, "numberOfSeries": 1, "numberOfInstances": 1,
            "series": [{"uid": f"{UID}.1", "modality": {"code": "CT"}, "description": "typed text"}],
        },
        {
            "resourceType": "DiagnosticReport", "id": "rep-777", "status": "final", "subject": subject,
            "code": {"text": "CT"}, "conclusion": "typed text", "effectiveDateTime": "2024-03-10",
            "imagingStudy": [{"reference": "ImagingStudy/study-777"}], "encounter": {"reference": "Encounter/enc-777"},
        },
        {
            "resourceType": "MedicationRequest", "id": "med-777", "status": "active", "intent": "order",
            "subject": subject, "authoredOn": "2024-03-09",
            "medicationCodeableConcept": {"coding": [{"system": "s", "code": "c", "display": "cisplatin"}]},
        },
        {
            "resourceType": "Observation", "id": "obs-777", "status": "final", "subject": subject,
            "category": [{"coding": [{"code": "imaging"}]}], "code": {"text": "typed text"},
            "effectiveDateTime": "2024-03-09T15:00:00Z", "device": {"display": "typed text"},
            "partOf": [{"reference": "ImagingStudy/study-777"}], "valueString": "typed text",
            "component": [
                {"code": {"coding": [{"system": DCM, "code": "112002"}]}, "valueString": f"urn:oid:{UID}.1"}
            ],
        },
    ]  # fmt: skip
    made.append(map(resource, contents))
    made.append([{
        "kind": "rows", "table": "dicom_series", "key": UID, "revision": 1,
        "rows": [{"study_instance_uid": UID, "series_instance_uid": f"{UID}.1", "series_date": "2024-03-09"}],
    }])  # fmt: skip
    made.publish(datetime.now(UTC))
    return made


@pytest.fixture(scope="module")
def generation(lake: Lake) -> Generation:
    current = lake.current()
    assert current is not None
    return current


@pytest.fixture(scope="module")
def desk(lake: Lake) -> Desk:
    return Desk(lake.root, ROWS, PATIENT)


def everything(desk: Desk, generation: Generation) -> str:
    """All that people's SQL can see, as text."""
    rows = " UNION ALL ".join(f'SELECT string_agg(t::VARCHAR) FROM "{table}" t' for table in catalogue())
    return repr(desk.sql(generation, rows, ME).rows)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200))
def test_python_and_the_engine_make_the_same_pseudonyms(value: str) -> None:
    made = Pseudonyms.of_project(SECRET, "a")
    connection = duckdb.connect()
    for name, pad in made.variables().items():
        connection.execute(f"SET VARIABLE {name} = unhex('{pad}')")
    expressions = [made.id_sql("P", "$1"), made.number_sql("P", "$1"), made.uid_sql("P", "$1"), made.days_sql("$1")]
    number = key(value)
    (shown,) = connection.execute(f"SELECT {made.integer_sql('study_key', '$1::BIGINT')}", [number]).fetchone()
    assert shown == made.integer("study_key", number) != number
    assert 0 <= shown < 2**60
    found = connection.execute(f"SELECT {', '.join(expressions)}", [value]).fetchone()
    assert found == (made.id("P", value), made.number("P", value), made.uid("P", value), made.days(value))


@given(st.text(max_size=64))
def test_pseudonyms_have_the_form_of_what_they_stand_for(value: str) -> None:
    made = Pseudonyms.of_project(SECRET, "")
    assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", made.id("P", value))
    uid = made.uid("UID", value)
    assert re.fullmatch(r"2\.25\.(0|[1-9]\d*)", uid)
    assert len(uid) <= 64
    assert (int(uid.removeprefix("2.25.")) >> 76) & 0xF == 8
    assert len(made.number("A", value)) <= 16
    assert 1 <= made.days(value) <= 365


def test_a_project_a_kind_and_a_key_have_their_own() -> None:
    one, other = Pseudonyms.of_project(SECRET, "one"), Pseudonyms.of_project(SECRET, "other")
    kinds = {one.id("Patient", "1"), one.id("Encounter", "1"), other.id("Patient", "1")}
    assert len(kinds | {Pseudonyms.of_project(b"x" * 32, "one").id("Patient", "1")}) == 4
    assert one == Pseudonyms.of_project(SECRET, "one")
    assert "key" not in repr(one)


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(read_secret(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert [p.name for p in tmp_path.iterdir()] == [KEY_FILE]
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_a_secret_that_others_can_read_or_that_is_cut_is_refused(tmp_path: Path) -> None:
    read_secret(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(ConfigError, match="readable by others"):
        read_secret(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o600)
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ConfigError, match="damaged"):
        read_secret(tmp_path)


def test_every_column_of_every_table_and_question_says_how_it_is_shown() -> None:
    columns = {(t.name, c.name) for t in catalogue().values() for c in t.columns}
    columns |= {(QUESTION, name) for name in (*COMPUTED, *NAMED)} | {(OUTCOME, name) for name in ROW}
    assert set(disclosure()) == columns
    for place, shown in disclosure().items():
        assert shown.how in MEANINGS, place
        assert bool(shown.kind) == (shown.how in ("pseudonym", "uid", "number", "key")), place


def test_dates_and_ids_are_never_shown_as_they_are() -> None:
    for table in catalogue().values():
        for column in table.columns:
            how = disclosure()[table.name, column.name].how
            if column.type in ("DATE", "TIMESTAMP WITH TIME ZONE"):
                assert how in ("date", "moment", "birth_year"), (table.name, column.name)
            if column.name.endswith("_id") and column.name != "endpoint_id":
                assert how in ("pseudonym", "number"), (table.name, column.name)


def test_a_table_with_dates_says_whose_they_are() -> None:
    for table in catalogue().values():
        names = {c.name for c in table.columns}
        if any(disclosure()[table.name, n].how in ("date", "moment") for n in names):
            assert names & {"patient_id", "study_instance_uid"}, table.name


def test_nothing_that_names_a_person_can_be_selected(desk: Desk, generation: Generation) -> None:
    shown = everything(desk, generation)
    assert [c for c in CANARIES if c in shown] == []
    assert "cisplatin" in shown
    assert "2.25." in shown


def test_with_identifiers_everything_is_as_it_is_stored(lake: Lake, generation: Generation) -> None:
    shown = everything(Desk(lake.root, replace(ROWS, identifiers="identifiers"), PATIENT), generation)
    assert [c for c in CANARIES if c not in shown] == []


def test_free_text_and_dates_are_shown_where_the_settings_say_so(lake: Lake, generation: Generation) -> None:
    lenient = replace(ROWS, free_text="shown", dates="kept")
    shown = everything(Desk(lake.root, lenient, PATIENT), generation)
    assert [c for c in CANARIES if c in shown] == ["typed text", "2024-03-09"]


def test_pseudonyms_join_and_intervals_stay(lake: Lake, desk: Desk, generation: Generation) -> None:
    sql = (
        "SELECT r.effective_date - s.started_date, q.series_date - s.started_date, r.effective_date - m.authored_date, "
        "s.patient_id = p.patient_id, i.value, l.imaging_study_id = s.imaging_study_id "
        "FROM patient p JOIN imaging_study s USING (patient_id) JOIN diagnostic_report r USING (patient_id) "
        "JOIN diagnostic_report_study l USING (diagnostic_report_id) JOIN medication_request m USING (patient_id) "
        "JOIN dicom_series q ON q.study_instance_uid = s.study_instance_uid "
        "JOIN patient_identifier i USING (patient_id)"
    )
    made = Pseudonyms.of_project(read_secret(lake.root), "")
    assert desk.sql(generation, sql, ME).rows == ((1, 0, 1, True, made.id("Identifier", "MRN777"), True),)


def test_pseudonymous_keys_join_where_pseudonymous_ids_do(lake: Lake, desk: Desk, generation: Generation) -> None:
    sql = (
        "SELECT DISTINCT p.patient_key, s.study_key, q.series_key, r.report_key FROM patient p "
        "JOIN imaging_study s USING (patient_key) JOIN dicom_series q USING (study_key) "
        "JOIN diagnostic_report_study l USING (study_key) JOIN diagnostic_report r USING (report_key) "
        "JOIN imaging_series t USING (series_key) JOIN imaging_finding f ON f.series_key = t.series_key "
        "AND f.series_instance_uid = t.series_instance_uid AND f.patient_id = p.patient_id"
    )
    made = Pseudonyms.of_project(read_secret(lake.root), "")
    stored = {"patient_key": "pat-777", "study_key": UID, "series_key": f"{UID}.1", "report_key": "rep-777"}
    assert desk.sql(generation, sql, ME).rows == (tuple(made.integer(k, key(i)) for k, i in stored.items()),)


def test_rows_that_are_gone_stay_gone_under_pseudonyms(tmp_path: Path) -> None:
    """A change adds a small file over the large one, and a list of the large one's rows that are gone."""
    lake = Lake(tmp_path / "lake")
    people = [{"resourceType": "Patient", "id": f"p{n}", "gender": "female"} for n in range(200)]
    lake.append(map(resource, people))
    lake.publish(datetime.now(UTC))
    lake.append([resource(people[7] | {"gender": "male"}) | {"revision": 2}])
    lake.append([resource(people[8]) | {"revision": 2, "deleted": True, "resource": None}])
    lake.publish(datetime.now(UTC))
    current = lake.current()
    assert current is not None
    layers = current.tables["patient"].layers
    assert len(layers) == 2 and layers[0].gone_rows == 2
    desk = Desk(lake.root, ROWS, PATIENT)
    sql = "SELECT gender, count(*), count(DISTINCT patient_key) FROM patient GROUP BY 1 ORDER BY 1"
    assert desk.sql(current, sql, ME).rows == (("female", 198, 198), ("male", 1, 1))
    counted = Desk(lake.root, Policy(), PATIENT).sql(
        current, "SELECT gender, count(DISTINCT patient_key) AS n FROM patient GROUP BY 1", ME
    )
    assert counted.rows == (("female", 190),)


def test_a_timeline_under_pseudonyms_names_nobody(lake: Lake, desk: Desk, generation: Generation) -> None:
    made = Pseudonyms.of_project(read_secret(lake.root), "")
    found = desk.timeline(generation, made.id("Patient", "pat-777"), ME)
    assert found == desk.timeline(generation, made.id("Identifier", "MRN777"), ME)
    assert {e.kind for e in found.events} == {"study", "report", "medication", "finding", "observation"}
    shown = found.as_json().decode()
    assert [c for c in CANARIES if c in shown] == []
    days = {str(e.kind): date.fromisoformat(e.day or "") for e in found.events}
    assert days["report"] - days["study"] == timedelta(days=1)
    for named in ("pat-777", "MRN777"):
        with pytest.raises(InvalidQuery, match="no such patient"):
            desk.timeline(generation, named, ME)
    with pytest.raises(NotAllowed, match="line_level"):
        Desk(lake.root, Policy(), PATIENT).timeline(generation, "pat-777", ME)


def test_a_question_shows_the_same_pseudonyms_as_sql(desk: Desk, generation: Generation) -> None:
    asked = read_question(
        {
            "name": "q",
            "title": "T",
            "description": "D",
            "criteria": {"study": {"where": {"modality": ["CT"]}}},
            "return": {
                "unit": "study",
                "columns": [
                    "patient_id",
                    "identifiers",
                    "birth_date",
                    "age_years",
                    "medications",
                    "study_instance_uid",
                    "started_date",
                    "started_year",
                    "description",
                    "accession_number",
                    "modalities",
                    "report_ids",
                    "reports",
                    "endpoints",
                ],
            },
        }
    )
    ((person, ids, born, age, drugs, uid, day, year, text, number, modalities, reports, texts, places),) = desk.ask(
        generation, asked, {}, TODAY, ME
    ).rows
    ((p, b, u, d, n),) = desk.sql(
        generation,
        "SELECT patient_id, birth_date, study_instance_uid, started_date, accession_number "
        "FROM imaging_study JOIN patient USING (patient_id)",
        ME,
    ).rows
    assert (person, born, uid, day, number) == (p, b, u, d, n)
    assert (age, drugs, modalities) == (90, ["cisplatin"], ["CT"])
    assert (year, text, texts, places) == (None, None, None, None)
    assert len(ids) == len(reports) == 1
    assert born == f"{datetime.now(UTC).year - 90}-01-01"


def test_whatever_a_question_returns_is_shown_as_its_column_is(desk: Desk, generation: Generation) -> None:
    """Every column of every kind, and of every table that has something of the unit in it."""
    for unit in KINDS:
        names: list[str] = []
        lists = column_types() if unit in ("patient", "acquisition") else {}
        for table, columns in {"": {}, **lists}.items():
            for name in (*COMPUTED, *NAMED, *column_types()[KINDS[unit].table]) if not table else columns:
                with suppress(InvalidQuery):
                    full = f"{table}.{name}" if table else name
                    returned(unit, full, column_types())
                    names.append(full)
        assert len(names) > 12
        for start in range(0, len(names), 30):
            document = {
                "name": "q", "title": "T", "description": "D", "index": {"study": {"take": "first"}},
                "return": {"unit": unit, "columns": names[start : start + 30]},
            }  # fmt: skip
            shown = repr(desk.ask(generation, read_question(document), {}, TODAY, ME).rows)
            assert [c for c in CANARIES if c in shown] == [], (unit, start)


def test_dates_in_lists_are_shifted_as_the_patients_own(desk: Desk, generation: Generation) -> None:
    document = {
        "name": "q", "title": "T", "description": "D",
        "return": {"unit": "patient", "columns": ["imaging_study.started_date", "diagnostic_report.effective_date",
                                                   "imaging_study.study_instance_uid", "imaging_study.description"]},
    }  # fmt: skip
    ((started, reported, uids, texts),) = desk.ask(generation, read_question(document), {}, TODAY, ME).rows
    assert date.fromisoformat(reported[0]) - date.fromisoformat(started[0]) == timedelta(days=1)
    assert started[0] < "2024-03-09"
    assert uids[0].startswith("2.25.")
    assert texts is None


def test_a_question_without_the_patient_among_its_columns_is_shifted_all_the_same(
    desk: Desk, generation: Generation
) -> None:
    document = {
        "name": "q", "title": "T", "description": "D", "return": {"unit": "study", "columns": ["started_date"]},
    }  # fmt: skip
    answer = desk.ask(generation, read_question(document), {}, TODAY, ME)
    assert [name for name, _ in answer.columns] == ["started_date"]
    assert answer.rows[0][0] < "2024-03-09"


def test_groups_of_one_are_pseudonyms_too(desk: Desk, generation: Generation) -> None:
    """Where the threshold is 1, a group can be one study."""
    document = {
        "name": "q", "title": "T", "description": "D",
        "return": {"unit": "study", "group_by": ["study_instance_uid", "accession_number"]},
    }  # fmt: skip
    ((uid, number, studies, patients),) = desk.ask(generation, read_question(document), {}, TODAY, ME).rows
    assert uid.startswith("2.25.")
    assert number != "ACC777"
    assert (studies, patients) == (1, 1)


def test_the_founding_question_answers_under_pseudonyms(desk: Desk, generation: Generation) -> None:
    answer = desk.ask(generation, question("osteosarcoma-ct"), {}, TODAY, ME)
    assert "identifiers" in [name for name, _ in answer.columns]
    assert "identifiers are pseudonyms; dates are shifted; free text is withheld" in answer.notes


BEHIND = """
SELECT * FROM stored.patient
SELECT * FROM stored."patient"
SELECT * FROM memory.stored.patient
SELECT stored.patient.patient_id FROM patient
SELECT getvariable('pseudonym_inner')
SELECT * FROM duckdb_views()
SELECT * FROM duckdb_views
SELECT * FROM duckdb_variables()
SELECT * FROM sqlite_master
SELECT * FROM information_schema.views
WITH sqlite_master AS (SELECT 1) SELECT * FROM sqlite_master
WITH sqlite_master AS (SELECT * FROM sqlite_master) SELECT * FROM sqlite_master
WITH duckdb_views AS (SELECT 1 AS a), b AS (SELECT * FROM duckdb_views) SELECT * FROM b
SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) JOIN x ON true
WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a
WITH stored AS (SELECT 1) SELECT * FROM stored.patient
SELECT * FROM read_parquet('x')
SELECT pg_get_viewdef(1)
FROM query('FROM stored.patient')
EXPLAIN SELECT * FROM patient
""".strip().splitlines()


@pytest.mark.parametrize("sql", BEHIND)
def test_sql_cannot_go_behind_the_pseudonyms(desk: Desk, generation: Generation, sql: str) -> None:
    with pytest.raises(InvalidQuery):
        desk.sql(generation, sql, ME)


def test_no_text_in_the_engine_has_the_key(generation: Generation) -> None:
    made = Pseudonyms.of_project(SECRET, "")
    tables = {name: catalogue()[name] for name in generation.tables}
    connection = connect(generation, views=views(tables, ROWS, made), variables=made.variables())
    texts = connection.execute("SELECT string_agg(sql) FROM duckdb_views() WHERE NOT internal").fetchone()[0]
    assert "sha256" in texts
    assert not [pad for pad in made.variables().values() if pad[:32].lower() in texts.lower()]


def test_tables_say_what_is_replaced() -> None:
    assert meaning("patient", "patient_id", Policy()) == "pseudonym"
    assert meaning("diagnostic_report", "report_text", Policy()) == "withheld as free text"
    assert meaning("diagnostic_report", "report_text", Policy(free_text="shown")) == ""
    assert meaning("patient", "gender", Policy()) == ""
    assert meaning("patient", "patient_id", Policy(identifiers="identifiers")) == ""
    assert meaning("patient", "unheard_of", Policy()) == "withheld"
