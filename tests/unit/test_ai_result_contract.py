from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bridge.code_tables import code_tables
from bridge.errors import RefusedResult
from bridge.findings.contract import as_json, kept, read_result, schema
from bridge.findings.example import EXAMPLE
from bridge.findings.model import AiResult
from bridge.findings.placement import misplaced
from tests.ai_results import DIAMETER, INSTANCE, SERIES, a_finding, a_full_finding, a_result, an_image
from tests.builders import STUDY, a_translator, headers

A_DIAMETER = {"code": DIAMETER, "value": 8.5, "unit": "mm"}
DOCS = Path(__file__).parents[2] / "docs"


def read(item: object) -> AiResult:
    return read_result(item, code_tables().coding_scheme)


def refused(item: object) -> dict[str, str]:
    with pytest.raises(RefusedResult) as caught:
        read(item)
    return {r.field: r.reason for r in caught.value.refusals}


def test_a_full_result_is_read_and_kept_without_loss() -> None:
    item = a_result(a_full_finding(text="spiculated"), conclusion="One nodule.")
    result = read(item)
    assert result.findings[0].location.planar_regions[0].points == ((120.5, 88.0), (126.5, 88.0))
    assert kept(as_json(result)) == result
    assert as_json(read(item)) == as_json(result)
    jsonschema.validate(json.loads(as_json(result)), schema())


def test_the_published_schema_is_that_of_the_model_and_the_documented_example_fits_it() -> None:
    published = json.loads((DOCS / "ai-result.schema.json").read_text("utf-8"))
    assert published == schema()
    example = json.loads((DOCS / "ai-results.md").read_text("utf-8").split("```json\n")[1].split("```")[0])
    jsonschema.Draft202012Validator(published).validate(example)
    assert example == EXAMPLE
    assert read(example).model.name == "LungNet"


@pytest.mark.parametrize("confidence", [{"value": 1.5, "scale": "fraction"}, {"value": 93, "scale": "fraction"}])
def test_a_confidence_outside_its_scale_is_refused(confidence: dict[str, Any]) -> None:
    assert list(refused(a_result(a_finding(confidence=confidence)))) == ["findings[0].confidence.value"]


@pytest.mark.parametrize("value", [-0.1, 100.5])
def test_a_confidence_on_no_scale_is_refused(value: float) -> None:
    item = a_result(a_finding(confidence={"value": value, "scale": "percent"}))
    assert list(refused(item)) == ["findings[0].confidence.value"]


def test_a_confidence_without_a_scale_is_refused() -> None:
    assert refused(a_result(a_finding(confidence={"value": 0.9}))) == {"findings[0].confidence.scale": "is missing"}


def test_the_same_confidence_on_both_scales_is_the_same_percentage() -> None:
    found = [
        read(a_result(a_finding(confidence=c))).findings[0].confidence
        for c in ({"value": 0.931, "scale": "fraction"}, {"value": 93.1, "scale": "percent"})
    ]
    assert [c.percent for c in found if c is not None] == [93.1, 93.1]


def test_a_code_scheme_without_a_code_system_is_refused_wherever_it_stands() -> None:
    odd = {"scheme": "99ODD", "code": "1"}
    finding = a_finding(
        code=odd,
        presence=None,
        classification=odd,
        measurements=[{"code": DIAMETER, "value": 1, "unit": "mm"}, {"code": odd, "value": 1, "unit": "mm"}],
        location={"body_site": odd},
    )
    assert sorted(refused(a_result(finding))) == [
        "findings[0].classification.scheme",
        "findings[0].code.scheme",
        "findings[0].location.body_site.scheme",
        "findings[0].measurements[1].code.scheme",
    ]


def test_a_scheme_of_the_sites_own_is_taken() -> None:
    finding = a_finding(code={"scheme": "99ODD", "code": "1"})
    assert read_result(a_result(finding), {"99ODD"}).findings[0].code.scheme == "99ODD"


@pytest.mark.parametrize(
    ("finding", "field"),
    [
        (a_finding(presence=None), "findings[0]"),
        (a_finding(score={"value": 3}), "findings[0]"),
        (a_finding(presence="maybe"), "findings[0].presence"),
        (a_finding(id="a b"), "findings[0].id"),
        (a_finding(surprise=1), "findings[0].surprise"),
        (a_finding(**{"Eva Test 1970": 1}), "findings[0].?"),
        (a_finding(text="a\x00b"), "findings[0].text"),
        (
            a_finding(measurements=[{"code": DIAMETER, "value": "8.5", "unit": "mm"}]),
            "findings[0].measurements[0].value",
        ),
        (a_finding(measurements=[A_DIAMETER | {"unit": "m m"}]), "findings[0].measurements[0].unit"),
        (a_finding(images=[an_image(sop_instance_uid="", frames=[1])]), "findings[0].images[0].frames"),
        (a_finding(images=[an_image(frames=[2, 1])]), "findings[0].images[0].frames"),
        (a_finding(images=[an_image(frames=[0])]), "findings[0].images[0].frames[0]"),
        (a_finding(images=[an_image()] * 501), "findings[0].images"),
        (a_finding(location={"laterality": "left"}), "findings[0].location.laterality"),
        (a_finding(tracking_uid="no uid"), "findings[0].tracking_uid"),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(finding: dict[str, Any], field: str) -> None:
    assert list(refused(a_result(finding))) == [field]


@pytest.mark.parametrize(
    ("kind", "shape", "points"),
    [
        ("planar", "circle", [[1, 2]]),
        ("planar", "polyline", [[1, 2]]),
        ("planar", "ellipse", [[1, 2]] * 3),
        ("spatial", "polygon", [[1, 2, 3]] * 2),
        ("spatial", "ellipsoid", [[1, 2, 3]] * 5),
    ],
)
def test_a_shape_has_the_points_it_needs(kind: str, shape: str, points: list[list[int]]) -> None:
    where = {"image": an_image()} if kind == "planar" else {"frame_of_reference_uid": "1.2.9"}
    location = {f"{kind}_regions": [where | {"shape": shape, "points": points}]}
    assert list(refused(a_result(a_finding(location=location)))) == [f"findings[0].location.{kind}_regions[0].points"]


def test_two_findings_of_a_run_have_two_ids() -> None:
    assert list(refused(a_result(a_finding(), a_finding()))) == ["findings[1].id"]


@pytest.mark.parametrize("item", [None, [], "x", 1, {}, {"run_id": "r"}, a_result(run_id="a b"), a_result(surprise=1)])
def test_what_is_no_result_is_refused(item: object) -> None:
    assert refused(item)


def test_a_time_without_a_zone_is_refused() -> None:
    assert refused(a_result(produced_at="2025-12-01T10:05:00")) == {"produced_at": "needs a time zone"}


def test_no_value_is_repeated_in_a_refusal() -> None:
    item = a_result(a_finding(code={"scheme": "EVA TEST", "code": "EVA TEST "}, presence="EVA TEST", id="EVA TEST"))
    item |= {"run_id": "EVA TEST", "study_instance_uid": "EVA TEST", "produced_at": "EVA TEST", "EVA TEST": 1}
    assert "EVA" not in str(refused(item))


def test_references_to_what_is_not_in_the_study_are_told_by_their_field() -> None:
    (study,) = a_translator().translate(STUDY, {"a": [headers(), headers(instance=2)]}).resources
    finding = a_finding(
        images=[an_image(), an_image(sop_instance_uid="1.2.3"), an_image(series_instance_uid="1.2")],
        location={
            "planar_regions": [{"image": an_image(sop_instance_uid="1.2"), "shape": "point", "points": [[1, 1]]}],
            "segments": [{"series_instance_uid": "1.2.3", "sop_instance_uid": INSTANCE, "number": 1}],
        },
    )
    assert [r.field for r in misplaced(read(a_result(finding)), study)] == [
        "findings[0].images[1].sop_instance_uid",
        "findings[0].images[2].series_instance_uid",
        "findings[0].location.planar_regions[0].image.sop_instance_uid",
        "findings[0].location.segments[0].series_instance_uid",
    ]


def test_a_series_that_lists_no_instances_is_taken_to_have_what_is_named() -> None:
    study = {"resourceType": "ImagingStudy", "series": [{"uid": SERIES}]}
    assert not misplaced(read(a_result(a_finding(images=[an_image()]))), study)
