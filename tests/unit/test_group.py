from __future__ import annotations

from typing import Any

import pytest

from cohort.catalogue import question, questions, read_question
from cohort.group import MEMBERS_REFRESHED, group
from cohort.sandbox import run
from cohort.selection import Selection
from hospital import founding_answer
from tests.hospital_lake import NOW, TODAY, HospitalLake
from tests.validity import told_wrong


def selected(hospital: HospitalLake, name: str = "osteosarcoma-ct", **given: Any) -> Selection:
    return Selection(hospital.generation, question(name), given, TODAY, run)


def test_members_are_the_patients_of_the_answer(hospital: HospitalLake) -> None:
    made = group(selected(hospital))
    members = {m["entity"]["identifier"]["value"]: m["entity"]["reference"] for m in made["member"]}
    assert set(members) == {mrn for mrn, _ in founding_answer(hospital.hospital)}
    assert all(reference == f"Patient/pat-{mrn.lower()}" for mrn, reference in members.items())
    assert made["quantity"] == len(members)
    assert made["actual"] is True
    assert made["extension"] == [{"url": MEMBERS_REFRESHED, "valueDateTime": NOW.isoformat()}]
    assert made["identifier"][0]["value"] == "osteosarcoma-ct/g000001"


@pytest.mark.parametrize("name", sorted(questions()))
@pytest.mark.parametrize("version", ["r4", "r5"])
def test_both_opinions_find_it_valid(hospital: HospitalLake, name: str, version: Any) -> None:
    assert told_wrong(group(selected(hospital, name), version), version) == []


def test_r5_says_it_in_its_own_words(hospital: HospitalLake) -> None:
    made = group(selected(hospital), "r5")
    assert made["membership"] == "enumerated"
    assert "actual" not in made


def test_the_same_question_is_the_same_group_and_every_run_has_its_own_identifier(
    hospital: HospitalLake, tmp_path: Any
) -> None:
    later = hospital.copy(tmp_path)
    later.put({"kind": "rows", "table": "dicom_instance", "key": "none", "revision": 1, "rows": []})
    first, second, other = (
        group(selected(hospital)),
        group(selected(later)),
        group(selected(hospital, older_than_years=60)),
    )
    assert first["id"] == second["id"] != other["id"]
    assert first["identifier"] != second["identifier"]
    assert group(selected(hospital)) == first


def test_characteristics_say_the_criteria_with_their_values(hospital: HospitalLake) -> None:
    told = {
        c["code"]["text"]: c["valueCodeableConcept"]["text"]
        for c in group(selected(hospital, older_than_years=50))["characteristic"]
    }
    assert told["age"] == "age today: older than 50 years"
    assert told["study"] == "study: status available; modality CT"


def test_negation_excludes_and_alternatives_stay_together(hospital: HospitalLake) -> None:
    document = {
        "name": "q", "title": "<Q>", "description": "d",
        "criteria": {"all": [
            {"not": {"patient": {"where": {"gender": "male"}}}},
            {"any": [{"age": {"older_than_years": 60}}, {"not": {"report": {}}}]},
        ]},
        "return": {"unit": "patient", "group_by": ["gender"]},
    }  # fmt: skip
    made = group(Selection(hospital.generation, read_question(document), {}, TODAY, run))
    assert [(c["code"]["text"], c["valueCodeableConcept"]["text"], c["exclude"]) for c in made["characteristic"]] == [
        ("patient", "patient: gender male", True),
        ("any", "any of: (age today: older than 60 years), (not (report: any))", False),
    ]
    assert "&lt;Q&gt;" in made["text"]["div"]
    assert told_wrong(made, "r4") == []


def test_nobody_is_a_group_without_members(hospital: HospitalLake) -> None:
    made = group(selected(hospital, older_than_years=120))
    assert made["quantity"] == 0
    assert "member" not in made
    assert told_wrong(made, "r4") == []
