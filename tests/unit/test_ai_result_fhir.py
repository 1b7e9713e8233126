from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import TypeAdapter

from bridge.code_tables import code_tables
from bridge.errors import RefusedResult
from bridge.findings.contract import read_result
from bridge.findings.report import device, resources
from bridge.findings.review import Review, Standing, check_review, standing
from bridge.translate.codes import Code, UnmappedCodes
from bridge.translate.r5 import to_r5
from bridge.translate.r5_selections import with_selections
from tests.ai_results import DIAMETER, INSTANCE, SERIES, a_finding, a_full_finding, a_result, an_image
from tests.builders import STUDY, a_translator, headers

READER = {"name": "Leser, Lia", "identifier_value": "L7"}
TABLES = code_tables()


def a_review(decision: str, **fields: Any) -> Review:
    item = {"decision": decision, "reader": READER, "reviewed_at": "2025-12-02T08:00:00Z"} | fields
    return TypeAdapter(Review).validate_json(json.dumps(item))


def reviewed(item: dict[str, Any], *reviews: Review) -> Standing:
    return standing(read_result(item, TABLES.coding_scheme), reviews)


def made(standing: Standing, tables: Any = TABLES) -> dict[str, list[dict[str, Any]]]:
    (study,) = a_translator().translate(STUDY, {"a": [headers()]}).resources
    found: dict[str, list[dict[str, Any]]] = {}
    for resource in resources(standing, study, tables):
        found.setdefault(resource["resourceType"], []).append(resource)
    return found


def statuses(item: dict[str, Any], *decisions: str) -> list[str]:
    """The report's status from the beginning and after each decision; an amendment changes the conclusion."""
    reviews = [a_review(d, **({"conclusion": "changed"} if d == "amend" else {})) for d in decisions]
    return [reviewed(item, *reviews[:n]).status.value for n in range(len(reviews) + 1)]


def test_the_status_is_preliminary_until_a_reader_signs() -> None:
    assert statuses(a_result(), "amend", "accept", "amend", "accept") == [
        "preliminary", "preliminary", "final", "amended", "amended",
    ]  # fmt: skip
    assert statuses(a_result(), "accept", "reject") == ["preliminary", "final", "entered-in-error"]
    assert statuses(a_result(preliminary=False), "amend") == ["final", "amended"]


def test_nobody_is_named_as_reader_before_somebody_signed() -> None:
    before, after = made(reviewed(a_result())), made(reviewed(a_result(), a_review("accept")))
    assert not {"performer", "resultsInterpreter"} & before["DiagnosticReport"][0].keys()
    assert after["DiagnosticReport"][0]["resultsInterpreter"][0]["display"] == "Leser, Lia"
    assert after["Observation"][0]["performer"][0]["identifier"] == {"value": "L7"}
    labels = [[s["code"] for s in found["DiagnosticReport"][0]["meta"]["security"]] for found in (before, after)]
    assert labels == [["AIAST"], ["AIAST", "CLINAST"]]


def test_a_conclusion_says_so_while_it_is_not_signed() -> None:
    item = a_result(conclusion="One nodule.")
    reports = [made(reviewed(item, *r))["DiagnosticReport"][0] for r in ((), (a_review("accept"),))]
    assert [r["conclusion"] for r in reports] == [
        "[LungNet 2.1.0, not signed by a reader] One nodule.", "One nodule.",
    ]  # fmt: skip


def test_reviews_change_resources_and_make_no_others_but_their_provenance() -> None:
    first = made(reviewed(a_result(a_full_finding())))
    corrected = a_full_finding() | {"measurements": [{"code": DIAMETER, "value": 9, "unit": "mm"}]}
    then = made(reviewed(a_result(a_full_finding()), a_review("accept"), a_review("amend", findings=[corrected])))
    for kind in ("Device", "Observation", "DiagnosticReport"):
        assert [r["id"] for r in first[kind]] == [r["id"] for r in then[kind]]
    assert [p.get("activity", {}).get("text") for p in then["Provenance"]] == [None, "accept", "amend"]
    assert then["Observation"][0]["valueQuantity"]["value"] == 9
    assert then["Observation"][0]["status"] == "amended"


@pytest.mark.parametrize(
    ("review", "field"),
    [
        (a_review("accept", conclusion="x"), "decision"),
        (a_review("amend"), "decision"),
        (a_review("amend", findings=[a_finding(id="9")]), "findings[0].id"),
        (a_review("amend", findings=[a_finding()]), "findings[0].measurements"),
        (a_review("amend", refused=["9"]), "refused[0]"),
        (a_review("amend", refused=["1"]), "refused"),
        (a_review("reject", refused=["1"]), "decision"),
    ],
)
def test_a_review_that_does_not_fit_is_refused(review: Review, field: str) -> None:
    with pytest.raises(RefusedResult) as caught:
        check_review(review, reviewed(a_result(a_full_finding())))
    assert [r.field for r in caught.value.refusals] == [field]


def test_what_a_reader_refuses_is_entered_in_error_and_the_rest_stays() -> None:
    item = a_result(a_full_finding(), a_finding(id="2"))
    found = made(reviewed(item, a_review("amend", refused=["1"]), a_review("accept")))
    measured, refused, other = found["Observation"]
    assert [o["status"] for o in (measured, refused, other)] == ["entered-in-error", "entered-in-error", "final"]
    assert "hasMember" not in refused
    (report,) = found["DiagnosticReport"]
    assert [r["reference"] for r in report["result"]] == [f"Observation/{other['id']}"]
    assert report["status"] == "final"


def test_nothing_is_measured_of_what_a_reader_calls_absent() -> None:
    absent = a_full_finding(presence="absent")
    measured, finding = made(reviewed(a_result(a_full_finding()), a_review("amend", findings=[absent])))["Observation"]
    assert [o["status"] for o in (measured, finding)] == ["entered-in-error", "preliminary"]
    assert finding["valueCodeableConcept"]["coding"][0]["display"] == "Absent"
    assert "hasMember" not in finding
    program = made(reviewed(a_result(absent), a_review("accept")))["Observation"]
    assert [o["status"] for o in program] == ["final", "final"]


def test_a_finding_that_is_refused_and_given_again_counts() -> None:
    item = a_result(a_finding(), a_finding(id="2"))
    again = a_review("amend", findings=[a_finding(presence="undetermined")])
    found = made(reviewed(item, a_review("accept"), a_review("amend", refused=["1"]), again))
    assert [o["status"] for o in found["Observation"]] == ["amended", "amended"]


def test_a_rejected_result_stays_rejected() -> None:
    with pytest.raises(RefusedResult, match="too late"):
        check_review(a_review("accept"), reviewed(a_result(), a_review("reject")))


def test_confidence_is_carried_twice() -> None:
    (finding,) = made(reviewed(a_result(a_finding(confidence={"value": 0.931, "scale": "fraction"}))))["Observation"]
    sure = {"value": 93.1, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"}
    assert finding["extension"][0]["valueQuantity"] == sure
    assert finding["component"][0]["valueQuantity"] == sure


def test_each_version_of_a_program_is_a_device_of_its_own() -> None:
    model = read_result(a_result(), TABLES.coding_scheme).model
    versions = [device(model), device(replace(model, version="2.2")), device(replace(model, udi=""))]
    assert len({d["id"] for d in versions}) == 3
    assert len({d["identifier"][0]["value"] for d in versions}) == 3
    assert device(model) == versions[0]


def test_a_udi_without_issuer_is_kept_in_r4_and_left_out_of_r5() -> None:
    made = device(replace(read_result(a_result(), TABLES.coding_scheme).model, udi="+H123"))
    assert made["udiCarrier"] == [{"carrierHRF": "+H123"}]
    assert "udiCarrier" not in to_r5(made)


def test_the_site_s_concept_map_comes_first() -> None:
    mapped = {("http://snomed.info/sct", "427359005"): Code("http://radlex.org", "RID3875", "nodule")}
    (finding,) = made(reviewed(a_result()), replace(TABLES, concept_map=mapped))["Observation"]
    assert [c["code"] for c in finding["code"]["coding"]] == ["RID3875", "427359005"]


def test_a_scheme_that_is_not_known_any_more_leaves_words_or_a_local_code() -> None:
    item = a_result(a_finding(code={"scheme": "99ODD", "code": "7"}))
    found = standing(read_result(item, {"99ODD"}), ())
    assert made(found)["Observation"][0]["code"] == {"text": "7 of 99ODD"}
    local = replace(TABLES, unmapped=UnmappedCodes.LOCAL, local_system="http://h/codes")
    assert made(found, local)["Observation"][0]["code"]["coding"] == [{"system": "http://h/codes/99ODD", "code": "7"}]


def test_r5_selects_images_regions_and_segments() -> None:
    found = made(reviewed(a_result(a_full_finding())))["Observation"][-1]
    structure, *selections, observation = with_selections(to_r5(found))
    assert [s["code"]["coding"][0]["code"] for s in selections] == ["121112", "111030", "111030", "121191"]
    assert {s["studyUid"] for s in selections} == {STUDY}
    assert {s["seriesUid"] for s in selections} == {SERIES}
    images, planar, spatial, segment = (s["instance"][0] for s in selections)
    assert images["uid"] == INSTANCE
    assert images["subset"] == ["1", "3"]
    assert planar["imageRegion2D"] == [{"regionType": "circle", "coordinate": [120.5, 88, 126.5, 88]}]
    assert spatial["imageRegion3D"] == [{"regionType": "point", "coordinate": [1.5, -20, 33]}]
    assert segment["subset"] == ["2"]
    assert structure["includedStructure"][0]["laterality"]["coding"][0]["display"] == "Right"
    assert observation["bodyStructure"]["reference"] == f"BodyStructure/{structure['id']}"
    assert "bodySite" not in observation
    assert [r["reference"].split("/")[0] for r in observation["derivedFrom"]] == ["ImagingStudy"] + [
        "ImagingSelection"
    ] * 4


def test_r5_keeps_a_site_that_is_neither_tracked_nor_of_a_side() -> None:
    finding = a_finding(location={"body_site": {"scheme": "SCT", "code": "39607008"}})
    (found,) = made(reviewed(a_result(finding)))["Observation"]
    assert with_selections(to_r5(found)) == (to_r5(found),)


def test_one_lesion_is_one_body_structure_and_one_place_one_selection() -> None:
    one, two = a_full_finding(), a_full_finding() | {"id": "2", "presence": "undetermined"}
    found = [with_selections(to_r5(o)) for o in made(reviewed(a_result(one, two)))["Observation"]]
    assert len({tuple(r["id"] for r in each[:-1]) for each in found}) == 1


def test_coordinates_keep_every_digit() -> None:
    points = [[12345.6789012, 0.1], [1e-7, 3]]
    region = {"image": an_image(), "shape": "polyline", "points": points}
    (found,) = made(reviewed(a_result(a_finding(location={"planar_regions": [region]}))))["Observation"]
    (selection, _) = with_selections(to_r5(found))
    assert selection["instance"][0]["imageRegion2D"][0]["coordinate"] == [12345.6789012, 0.1, 1e-07, 3]
