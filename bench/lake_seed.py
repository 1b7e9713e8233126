"""A large lake made by SQL, as loading its resources would make it: each table's rows, and the resources themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cohort.engine.duckdb import connect
from cohort.generation import Generations
from cohort.keys import key_sql
from cohort.schema import view_tables
from cohort.store.place import in_folder
from cohort.stored import OWN_IDENTIFIER, OWN_REPORT_STUDY, columns_of
from cohort.tables import Tables

NOW = "2026-01-01T00:00:00+00:00"
SCT, RX = "http://snomed.info/sct", "http://www.nlm.nih.gov/research/umls/rxnorm"
OSTEOSARCOMA = "307576001"


@dataclass(frozen=True)
class Sizes:
    """Resources of each type."""

    patients: int
    studies: int
    medications: int
    conditions: int
    reports: int

    @classmethod
    def of(cls, rows: int) -> Sizes:
        """About so many rows in the tables that questions see."""
        return cls(rows // 20, rows // 8, rows * 2 // 5, rows // 8, rows // 12)


def person(number: str) -> str:
    """SQL: the id of the patient with a number."""
    return f"md5('p' || ({number})::BIGINT)"


def rows_sql(sizes: Sizes) -> dict[str, str]:
    """view → SQL of its rows with `n` (a number), `origin`, `id` and `json` of the resource each comes from."""
    patient = person(f"(hash(n) % {sizes.patients})")
    day = "(DATE '2008-01-01' + (hash(n + 5) % 6570)::INT)"
    uid = "('2.25.' || (1000000000 + n) || (hash(n) % 1000000000000))"
    accession = "('A' || (100000000 + n))"
    code = f"CASE WHEN hash(n + 9) % 2000 = 0 THEN '{OSTEOSARCOMA}' ELSE (100000000 + hash(n + 7) % 5000)::VARCHAR END"
    drug = "(hash(n + 3) % 1000)"
    return {
        "patient": f"""
            SELECT n, 'clinical' AS origin, {person("n")} AS id, id AS patient_id,
                   (DATE '1930-01-01' + (hash(n) % 30000)::INT) AS birth_date,
                   CASE WHEN n % 2 = 0 THEN 'female' ELSE 'male' END AS gender,
                   '{{"resourceType":"Patient","id":"' || id || '","gender":"' || gender || '","birthDate":"'
                   || birth_date || '","identifier":[{{"system":"http://mrn","value":"M' || n || '"}}]}}' AS json
            FROM range({sizes.patients}) t(n)""",
        "condition": f"""
            SELECT n, 'clinical' AS origin, md5('c' || n) AS id, id AS condition_id, {patient} AS patient_id,
                   'active' AS clinical_status, 'confirmed' AS verification_status, {day} AS onset_date,
                   '{SCT}' AS code_system, {code} AS code, 'Condition ' || code AS code_display,
                   '{{"resourceType":"Condition","id":"' || id || '","subject":{{"reference":"Patient/' || patient_id
                   || '"}},"clinicalStatus":{{"coding":[{{"code":"active"}}]}},"verificationStatus":{{"coding":'
                   || '[{{"code":"confirmed"}}]}},"onsetDateTime":"' || onset_date || '","code":'
                   || '{{"coding":[{{"system":"' || code_system || '","code":"' || code || '","display":"'
                   || code_display || '"}}]}}}}' AS json
            FROM range({sizes.conditions}) t(n)""",
        "medication_request": f"""
            SELECT n, 'clinical' AS origin, md5('m' || n) AS id, id AS medication_request_id, {patient} AS patient_id,
                   'active' AS status, 'order' AS intent, {day} AS authored_date, 'Drug ' || {drug} AS medication_text,
                   '{RX}' AS medication_system, {drug}::VARCHAR AS medication_code,
                   medication_text AS medication_display,
                   '{{"resourceType":"MedicationRequest","id":"' || id || '","status":"active","intent":"order",'
                   || '"subject":{{"reference":"Patient/' || patient_id || '"}},"authoredOn":"' || authored_date
                   || '","medicationCodeableConcept":{{"text":"' || medication_text || '","coding":[{{"system":"'
                   || medication_system || '","code":"' || medication_code || '","display":"' || medication_text
                   || '"}}]}}}}' AS json
            FROM range({sizes.medications}) t(n)""",
        "imaging_study": f"""
            SELECT n, 'bridge' AS origin, md5('s' || n) AS id, id AS imaging_study_id, {uid} AS study_instance_uid,
                   {patient} AS patient_id, 'available' AS status, {day} AS started_date,
                   started_date::TIMESTAMP AT TIME ZONE 'UTC' AS started_time, 'CT chest' AS description,
                   {accession} AS accession_number, 1 AS number_of_series, 300 AS number_of_instances,
                   ['CT', 'MR', 'US', 'CR', 'DX'][1 + (hash(n + 11) % 5)::INT] AS modality, [modality] AS modalities,
                   '\\' || modality || '\\' AS modalities_in_study,
                   '{{"resourceType":"ImagingStudy","id":"' || id || '","status":"available","identifier":[{{"system":'
                   || '"urn:dicom:uid","value":"urn:oid:' || study_instance_uid || '"}},{{"type":{{"coding":[{{"code":'
                   || '"ACSN"}}]}},"value":"' || accession_number || '"}}],"subject":{{"reference":"Patient/'
                   || patient_id || '"}},"started":"' || started_date || '","description":"CT chest",'
                   || '"numberOfSeries":1,"numberOfInstances":300,"modality":[{{"system":'
                   || '"http://dicom.nema.org/resources/ontology/DCM","code":"' || modality || '"}}]}}' AS json
            FROM range({sizes.studies}) t(n)""",
        "diagnostic_report": f"""
            SELECT n, 'clinical' AS origin, md5('r' || n) AS id, id AS diagnostic_report_id, {patient} AS patient_id,
                   'final' AS status, false AS asserted_by_ai, {day} AS effective_date,
                   'No finding of note in this study ' || n AS conclusion,
                   {uid} AS study_instance_uid,
                   '{{"resourceType":"DiagnosticReport","id":"' || id || '","status":"final","subject":{{"reference":'
                   || '"Patient/' || patient_id || '"}},"effectiveDateTime":"' || effective_date || '","conclusion":"'
                   || conclusion || '","imagingStudy":[{{"identifier":{{"system":"urn:dicom:uid","value":"urn:oid:'
                   || study_instance_uid || '"}}}}]}}' AS json
            FROM range({sizes.reports}) t(n)""",
    }


def seed(root: Path, sizes: Sizes) -> None:
    """A lake with one generation. Raises AssertionError when a view makes other rows of its resources."""
    place = in_folder(root)
    generations = Generations(place.store, place.files)
    head = generations.head()
    with place.scratch() as scratch, Tables(place.files, scratch, head.next_id, {}) as tables:
        made = rows_sql(sizes)
        for view, rows in made.items():
            raw = f"SELECT *, 1 AS _revision, false AS deleted FROM ({rows})"
            fill(tables, f"resource_{view_tables()[view].view.resource}", raw)
            fill(tables, view, f"SELECT * REPLACE ('clinical' AS origin) FROM ({rows})")
        fill(tables, "imaging_study_modality", made["imaging_study"])
        identifiers = f"SELECT *, 'http://mrn' AS system, 'M' || n AS value, origin AS _origin FROM ({made['patient']})"
        fill(tables, OWN_IDENTIFIER, identifiers)
        fill(tables, "patient_identifier", f"SELECT *, id AS _key FROM ({identifiers})")
        fill(tables, OWN_REPORT_STUDY, made["diagnostic_report"])
        linked = "SELECT r.*, s.imaging_study_id FROM ({}) r JOIN ({}) s USING (n)"
        fill(tables, "diagnostic_report_study", linked.format(made["diagnostic_report"], made["imaging_study"]))
        manifest = tables.manifest()
    place.files.keep(tables.made)
    generations.publish(head, NOW, manifest, lambda _stage: None)
    _check(generations, made)


def fill(tables: Tables, table: str, rows: str) -> None:
    """The columns a query has, keys of ids made of them, NULL for the others."""
    wanted = columns_of(table)
    have = {d[0] for d in tables.db.execute(f"SELECT * FROM ({rows}) LIMIT 0").description or ()}
    key = "_key" if "_key" in have else "origin_of || '/' || id"
    own = "origin_of = 'bridge'"
    known = {
        "_key": key,
        "_hash": key_sql(f"({key})"),
        "patient_key": key_sql("patient_id"),
        "subject_key": key_sql("patient_id"),
        "study_key": key_sql("study_instance_uid"),
        "report_key": key_sql("diagnostic_report_id"),
        "_own_patient_id": f"CASE WHEN {own} THEN patient_id END",
        "_own_patient_key": f"CASE WHEN {own} THEN {key_sql('patient_id')} END",
    }
    columns = ", ".join(
        f'{known[c]} AS "{c}"' if c in known else f'"{c}"::{kind} AS "{c}"' if c in have else f'NULL::{kind} AS "{c}"'
        for c, kind in wanted.items()
    )
    origin = "bridge" if "imaging_study" in table or "ImagingStudy" in table else "clinical"
    tables.replace(
        table, "SELECT NULL::BIGINT AS _hash, '' AS _key WHERE false",
        f"SELECT {columns} FROM (SELECT *, '{origin}' AS origin_of FROM ({rows}))",
    )  # fmt: skip


def _check(generations: Generations, made: dict[str, str]) -> None:
    """A hundred resources of each type, through the views: their rows must be those of the table."""
    generation = generations.current()
    assert generation is not None
    connection = connect(generation)
    for view, rows in made.items():
        table = view_tables()[view]
        raw = connection.execute(f"SELECT id, json FROM ({rows}) WHERE n % 977 = 1 LIMIT 100").fetchall()
        for id_, json in raw:
            (expected,) = table.rows(orjson.loads(json))
            names = list(expected)
            found = connection.execute(
                f'SELECT {", ".join(names)} FROM "{view}" WHERE {names[0]} = ?', [id_]
            ).fetchall()
            assert [str(v)[:10] for v in found[0]] == [str(expected[n])[:10] for n in names], (view, found, expected)


def changed_lines(sizes: Sizes, kind: str, count: int, revision: int) -> list[dict[str, Any]]:
    """Delta lines of so many changed resources of one view's type, one in ten of them new."""
    import duckdb

    total = getattr(sizes, _SIZE[kind])
    step = max(1, total // count)
    rows = rows_sql(sizes)[kind].replace(f"range({total})", f"range(0, {total + total // 10}, {step})")
    query = f"SELECT id, origin, json FROM ({rows}) ORDER BY n DESC LIMIT {count}"
    return [
        {
            "kind": "resource", "origin": origin, "type": view_tables()[kind].view.resource, "id": id_,
            "revision": revision, "deleted": False, "resource": orjson.loads(json) | {"language": f"v{revision}"},
        }
        for id_, origin, json in duckdb.connect().execute(query).fetchall()
    ]  # fmt: skip


_SIZE = {
    "patient": "patients", "condition": "conditions", "medication_request": "medications",
    "imaging_study": "studies", "diagnostic_report": "reports",
}  # fmt: skip
