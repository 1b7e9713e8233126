from __future__ import annotations

import io
from pathlib import Path

import orjson
import pyarrow.parquet
import pytest

from bridge.errors import InvalidQuery
from cohort.catalogue import question
from cohort.manifest import manifest
from cohort.omop import TABLES, Omop, omop
from cohort.omop_maps import CONCEPTS, PERSONS, ConceptMap, PersonMap
from cohort.sandbox import run
from cohort.selection import Selection
from tests.findings import finding
from tests.hospital_lake import TODAY, HospitalLake, resource_line
from tests.shared import NO_CORPUS, ROOT

DDL = ROOT / "reference" / "data" / "omop_mi_cdm_tables.json"
TYPES = {"integer": "INTEGER", "varchar": "VARCHAR", "date": "DATE", "timestamp": "TIMESTAMP"}


def selected(hospital: HospitalLake) -> Selection:
    return Selection(hospital.generation, question("osteosarcoma-ct"), {}, TODAY, run)


def exported(hospital: HospitalLake, persons: PersonMap | None = None, concepts: ConceptMap | None = None) -> Omop:
    return omop(selected(hospital), persons or PersonMap(), concepts or ConceptMap())


@pytest.mark.skipif(not DDL.exists(), reason=NO_CORPUS)
@pytest.mark.parametrize("table", ["image_occurrence", "image_feature"])
def test_columns_are_those_of_the_published_tables(table: str) -> None:
    wanted = [(name, TYPES[kind], required) for name, kind, required in orjson.loads(DDL.read_bytes())[table]]
    assert list(TABLES[table]) == wanted


def test_one_image_occurrence_for_each_series(hospital: HospitalLake) -> None:
    made = exported(hospital)
    series = manifest(selected(hospital)).series
    assert [r["image_series_uid"] for r in made.tables["image_occurrence"]] == [
        s["series_instance_uid"] for s in series
    ]
    assert len(made.tables["procedure_occurrence"]) == len({s["study_instance_uid"] for s in series})
    assert made.tables["image_feature"] == [] and made.left_out == []


def test_nothing_that_must_be_there_is_missing_and_every_id_leads_somewhere(
    hospital: HospitalLake, tmp_path: Path
) -> None:
    made = exported(with_findings(hospital, tmp_path))
    keys = {name: {row[TABLES[name][0][0]] for row in rows} for name, rows in made.tables.items()}
    for name, rows in made.tables.items():
        for row in rows:
            assert not [c for c, _, required in TABLES[name] if required and row.get(c) is None]
            assert row["person_id"] in made.persons.numbers.values()
    assert {r["procedure_occurrence_id"] for r in made.tables["image_occurrence"]} == keys["procedure_occurrence"]
    assert {r["image_occurrence_id"] for r in made.tables["image_feature"]} <= keys["image_occurrence"]
    assert {r["image_feature_event_id"] for r in made.tables["image_feature"]} == keys["measurement"]


def with_findings(hospital: HospitalLake, folder: Path) -> HospitalLake:
    """A finding that names its series, one of a study with one series, one by nobody's machine, one that is unclear."""
    series = manifest(selected(hospital)).series
    by_study: dict[str, list[str]] = {}
    for row in series:
        by_study.setdefault(row["study_instance_uid"], []).append(row["series_instance_uid"])
    one = next(study for study, listed in by_study.items() if len(listed) == 1)
    two = next(study for study, listed in by_study.items() if len(listed) == 2)
    copy = hospital.copy(folder)
    copy.put(
        *map(
            resource_line,
            [
                finding("names-series", "x", two, by_study[two][1]),
                finding("only-series", "x", one),
                finding("by-a-person", "x", one, ai=False),
                finding("unclear", "x", two),
                finding("in-error", "x", one, status="entered-in-error"),
            ],
        )
    )
    return copy


def test_findings_by_ai_become_features_of_their_series(hospital: HospitalLake, tmp_path: Path) -> None:
    concepts = ConceptMap()
    concepts.ids["feature", "http://snomed.info/sct", "427359005"] = 4_000_001
    made = exported(with_findings(hospital, tmp_path), concepts=concepts)
    features = made.tables["image_feature"]
    assert len(features) == 2
    assert {f["image_feature_concept_id"] for f in features} == {4_000_001}
    assert {f["image_finding_id"] for f in features} == {1}
    assert {f["alg_system"] for f in features} == {"Nodule Finder 2.1"}
    assert {m["value_as_number"] for m in made.tables["measurement"]} == {8.5}
    assert [(what, id_) for what, id_, _ in made.left_out] == [("finding", "unclear")]


def test_parquet_has_the_types_of_the_tables(hospital: HospitalLake, tmp_path: Path) -> None:
    files = exported(with_findings(hospital, tmp_path)).files("parquet")
    for name, columns in TABLES.items():
        table = pyarrow.parquet.read_table(io.BytesIO(files[f"{name}.parquet"]))
        kinds = {
            "INTEGER": "int32",
            "VARCHAR": "string",
            "DATE": "date32[day]",
            "TIMESTAMP": "timestamp[us]",
            "DOUBLE": "double",
        }
        assert [(f.name, str(f.type)) for f in table.schema] == [(n, kinds[kind]) for n, kind, _ in columns]


def test_maps_are_kept_and_only_what_is_new_gets_a_number(hospital: HospitalLake, tmp_path: Path) -> None:
    for name, content in exported(hospital).files("csv").items():
        (tmp_path / name).write_bytes(content)
    persons = (tmp_path / PERSONS).read_text("utf-8").splitlines()
    first = persons[1].split(",")
    (tmp_path / PERSONS).write_text("\n".join([persons[0], ",".join([first[0], "700", *first[2:]])]) + "\n", "utf-8")
    concepts = (tmp_path / CONCEPTS).read_text("utf-8").replace("CT,,0", "CT,,4300757")
    (tmp_path / CONCEPTS).write_text(concepts, "utf-8-sig")
    again = exported(hospital, PersonMap.read(tmp_path / PERSONS), ConceptMap.read(tmp_path / CONCEPTS))
    numbers = again.persons.numbers
    assert numbers[first[0]] == 700
    assert sorted(numbers.values()) == list(range(700, 700 + len(numbers)))
    assert {r["modality_concept_id"] for r in again.tables["image_occurrence"]} == {4300757}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("patient_id,person_id\na,1\nb,1\n", "line 3"),
        ("patient_id,person_id\na,0\n", "line 2"),
        ("patient_id,person_id\na,x\n", "line 2"),
        ("patient_id,person_id\na,2147483648\n", "line 2"),
        ("patient_id,person_id\na\n", "line 2"),
        ("patient,person\na,1\n", "patient_id, person_id"),
        ("patient_id,person_id\na,1\na,2\n", "line 3"),
    ],
)
def test_a_map_that_cannot_be_used_is_told_by_its_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / PERSONS).write_text(content, "utf-8")
    with pytest.raises(InvalidQuery, match=said):
        PersonMap.read(tmp_path / PERSONS)


def test_no_number_is_given_past_the_largest(tmp_path: Path) -> None:
    persons = PersonMap({"a": 2_147_483_647})
    with pytest.raises(InvalidQuery, match="no person_id is left"):
        persons.number(["b"])
