"""A site's ConceptMaps: what they put out, and what they must not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.code_tables import site_code_tables
from bridge.concept_maps import concept_map, concept_maps
from bridge.errors import ConfigError
from bridge.translate.codes import BODY_PART_EXAMINED, DCM, SCT, Code, CodeTables, UnmappedCodes
from tests.builders import headers
from tests.studies import a_code, series_of, study_of, translated

HOSPITAL = "http://hospital.example/procedures"
LOINC = "http://loinc.org"


def a_target(code: str = "24627-2", equivalence: str = "equal", **more: Any) -> dict[str, Any]:
    return {"code": code, "display": "CT Chest", "equivalence": equivalence} | more


def a_group(*targets: dict[str, Any], source: str = HOSPITAL, target: str = LOINC, code: str = "X1") -> Any:
    return {"source": source, "target": target, "element": [{"code": code, "target": list(targets)}]}


def a_map(*groups: Any, **more: Any) -> bytes:
    return json.dumps({"resourceType": "ConceptMap", "status": "active", "group": list(groups)} | more).encode()


def tables(folder: Path, *contents: bytes) -> CodeTables:
    for number, content in enumerate(contents):
        (folder / f"{number}.json").write_bytes(content)
    return site_code_tables(folder, {"99HOSP": HOSPITAL}, UnmappedCodes.TEXT, "")


def test_a_local_procedure_code_gets_its_target_beside_it(tmp_path: Path) -> None:
    one = headers(ProcedureCodeSequence=[a_code("X1", "99HOSP", "Our chest")])
    (found,) = study_of(translated(one, tables=tables(tmp_path, a_map(a_group(a_target())))))["procedureCode"]
    assert found == {
        "coding": [
            {"system": LOINC, "code": "24627-2", "display": "CT Chest"},
            {"system": HOSPITAL, "code": "X1", "display": "Our chest"},
        ],
        "text": "Our chest",
    }


def test_body_parts_and_modalities_are_mapped_before_the_projects_own_tables(tmp_path: Path) -> None:
    body = a_group({"code": "72696002", "equivalence": "wider"}, source=BODY_PART_EXAMINED, target=SCT, code="knee li")
    modality = a_group({"code": "MR", "equivalence": "equal"}, source=DCM, target=DCM, code="MRT")
    one = headers(BodyPartExamined="KNEE_LI", Modality="MRT")
    study = study_of(translated(one, tables=tables(tmp_path, a_map(body), a_map(modality))))
    assert study["series"][0]["bodySite"] == {"system": SCT, "code": "72696002"}
    assert study["series"][0]["modality"]["display"] == "Magnetic Resonance"
    assert [m["code"] for m in study["modality"]] == ["MR"]


def test_a_target_that_says_the_same_is_taken_before_one_that_says_less() -> None:
    found = concept_map(a_map(a_group(a_target("wide", "wider"), a_target("same", "equivalent"))), "m")
    assert found == {(HOSPITAL, "X1"): Code(LOINC, "same", "CT Chest")}


@pytest.mark.parametrize("equivalence", ["narrower", "specializes", "inexact", "relatedto", "unmatched", "disjoint"])
def test_a_target_that_says_more_or_something_else_is_not_used(equivalence: str) -> None:
    assert concept_map(a_map(a_group({"code": "1", "equivalence": equivalence})), "m") == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "m.json: not valid JSON"),
        (b"[]", "m.json: resourceType"),
        (a_map(group={}), "m.json: ConceptMap.group: not a list"),
        (a_map("x"), r"m.json: ConceptMap.group\[0\]: not an object"),
        (a_map({"target": SCT}), r"m.json: ConceptMap.group\[0\].source: missing"),
        (a_map(a_group(code="")), r"ConceptMap.group\[0\].element\[0\].code: missing"),
        (a_map(a_group(a_target(equivalence="same"))), r"element\[0\].target\[0\].equivalence: not a code"),
        (a_map(a_group(a_target(code=" 1"))), r"target\[0\].code: missing, or not a text"),
        (a_map(a_group(a_target(display=1))), r"target\[0\].display"),
        (a_map(a_group(a_target(dependsOn=[]))), r"target\[0\].dependsOn: not supported"),
        (a_map(a_group() | {"unmapped": {"mode": "fixed", "code": "1"}}), r"group\[0\].unmapped: only mode provided"),
        (a_map(a_group(a_target()), a_group(a_target("other"))), r"group\[1\].element\[0\].code: has another target"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_by_name_and_element(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        concept_maps(tmp_path)


def test_two_files_that_disagree_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(a_map(a_group(a_target())))
    (tmp_path / "b.json").write_bytes(a_map(a_group(a_target("other"))))
    with pytest.raises(ConfigError, match=r"b.json: code X1 of .* has another target"):
        concept_maps(tmp_path)
    with pytest.raises(ConfigError, match=r"code_maps: .* is not a folder"):
        concept_maps(tmp_path / "missing")


def test_the_projects_own_synonyms_are_those_of_defined_terms() -> None:
    own = site_code_tables(None, {}, UnmappedCodes.TEXT, "")
    known = set(own.body_part.values())
    assert own.concept_map
    assert all(code in known for code in own.concept_map.values())
    assert not [term for _, term in own.concept_map if term in own.body_part]
    assert series_of(headers(BodyPartExamined="LUMBAR SPINE"))["bodySite"]["display"] == "Lumbar spine"
