"""Any AI result that is taken gives valid FHIR in both versions, the same each time, and a document or a refusal."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.code_tables import code_tables
from bridge.errors import RefusedResult
from bridge.findings.contract import as_json, kept, read_result
from bridge.findings.model import Presence
from bridge.findings.report import resources
from bridge.findings.review import standing
from bridge.findings.sr import read_sr
from bridge.findings.sr_writing import written
from bridge.translate.r5 import to_r5
from bridge.translate.r5_selections import with_selections
from tests.ai_results import INSTANCE, SERIES, a_finding, a_result
from tests.builders import STUDY, a_translator, headers
from tests.unit.test_ai_result_fhir import a_review
from tests.validity import told_wrong

(IMAGING_STUDY,) = a_translator().translate(STUDY, {"a": [headers()]}).resources
TABLES = code_tables()

line = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(lambda t: t == t.strip())
number = st.floats(-1e6, 1e6, allow_nan=False) | st.integers(-(10**9), 10**9)
code = st.fixed_dictionaries(
    {
        "scheme": st.sampled_from(["SCT", "LN", "DCM", "RADLEX"]),
        "code": st.from_regex(r"[A-Za-z0-9-]{1,18}", fullmatch=True),
    },
    optional={"display": line},
)
image = st.fixed_dictionaries(
    {"series_instance_uid": st.just(SERIES), "sop_instance_uid": st.just(INSTANCE)},
    optional={"frames": st.lists(st.integers(1, 99), unique=True).map(sorted)},
)
measurement = st.fixed_dictionaries(
    {"code": code, "value": number, "unit": st.sampled_from(["mm", "1", "%", "[hnsf'U]", "mm3"])},
    optional={"derivation": code},
)
point2, point3 = st.tuples(number, number).map(list), st.tuples(number, number, number).map(list)
planar = st.fixed_dictionaries(
    {"image": image, "shape": st.just("polyline"), "points": st.lists(point2, min_size=2, max_size=4)}
)
spatial = st.fixed_dictionaries(
    {
        "frame_of_reference_uid": st.just("1.2.9"),
        "shape": st.sampled_from(["multipoint", "polyline"]),
        "points": st.lists(point3, min_size=2, max_size=4),
    }
)
location = st.fixed_dictionaries(
    {"body_site": code},
    optional={
        "laterality": st.sampled_from(["left", "right", "bilateral"]),
        "planar_regions": st.lists(planar, max_size=2),
        "spatial_regions": st.lists(spatial, max_size=2),
    },
)
answer = st.one_of(
    st.fixed_dictionaries({"presence": st.sampled_from(["present", "absent", "undetermined"])}),
    st.fixed_dictionaries({"classification": code}),
    st.fixed_dictionaries({"score": st.fixed_dictionaries({"value": number})}),
)
finding = st.builds(
    lambda made, said: made | said,
    st.fixed_dictionaries(
        {"code": code},
        optional={
            "confidence": st.fixed_dictionaries({"value": st.floats(0, 1), "scale": st.just("fraction")}),
            "measurements": st.lists(measurement, max_size=3),
            "location": location,
            "images": st.lists(image, max_size=2),
            "tracking_uid": st.sampled_from(["", "1.2.99"]),
            "tracking_identifier": line,
            "text": line,
        },
    ),
    answer,
)
result = st.builds(
    lambda findings, conclusion: a_result(
        findings=[f | {"id": str(n)} for n, f in enumerate(findings)], conclusion=conclusion
    ),
    st.lists(finding, max_size=3),
    st.just("") | line,
)


@example(a_result(a_finding(score={"value": 0.00040752675359352975}, presence=None)), [])
@given(result, st.lists(st.sampled_from(["accept", "reject"]), max_size=1))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_result_is_valid_fhir_and_a_document_or_a_refusal(item: dict[str, Any], decisions: list[str]) -> None:
    taken = read_result(item, TABLES.coding_scheme)
    assert kept(as_json(taken)) == taken
    found = standing(taken, [a_review(d) for d in decisions])
    made = resources(found, IMAGING_STUDY, TABLES)
    assert orjson.dumps(made) == orjson.dumps(resources(found, IMAGING_STUDY, TABLES))
    for resource in made:
        assert told_wrong(resource, "r4") == []
        r5 = to_r5(resource)
        for one in with_selections(r5) if resource["resourceType"] == "Observation" else (r5,):
            assert told_wrong(one, "r5") == []
    try:
        document = written(found, IMAGING_STUDY, headers(), "1.2.3")
    except RefusedResult:
        return
    back = read_sr(document, TABLES.coding_scheme, None)
    claimed = {(f.code.scheme, f.code.code) for f in taken.findings if f.presence is Presence.PRESENT}
    assert claimed <= {(f.code.scheme, f.code.code) for f in back.findings if f.presence is Presence.PRESENT}
