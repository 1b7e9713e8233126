"""AI results in their JSON form, valid by default, one argument for what a test is about."""

from __future__ import annotations

from typing import Any

from tests.builders import STUDY

SERIES, INSTANCE = f"{STUDY}.1", f"{STUDY}.1.1"
NODULE = {"scheme": "SCT", "code": "427359005", "display": "Solitary nodule of lung"}
LUNG = {"scheme": "SCT", "code": "39607008", "display": "Lung"}
DIAMETER = {"scheme": "SCT", "code": "81827009", "display": "Diameter"}


def a_finding(**fields: Any) -> dict[str, Any]:
    """A nodule that is present; a field given as None is left out."""
    made = {"id": "1", "code": NODULE, "presence": "present"} | fields
    return {name: value for name, value in made.items() if value is not None}


def an_image(**fields: Any) -> dict[str, Any]:
    return {"series_instance_uid": SERIES, "sop_instance_uid": INSTANCE} | fields


def a_full_finding(**fields: Any) -> dict[str, Any]:
    """A finding with everything a finding can have, but text."""
    return a_finding(
        confidence={"value": 0.93, "scale": "fraction"},
        measurements=[{"code": DIAMETER, "value": 8.5, "unit": "mm"}],
        location={
            "body_site": LUNG,
            "laterality": "right",
            "planar_regions": [{"image": an_image(), "shape": "circle", "points": [[120.5, 88], [126.5, 88]]}],
            "spatial_regions": [{"frame_of_reference_uid": "1.2.9", "shape": "point", "points": [[1.5, -20, 33]]}],
            "segments": [{"series_instance_uid": SERIES, "sop_instance_uid": INSTANCE, "number": 2}],
        },
        images=[an_image(frames=[1, 3])],
        tracking_uid=f"{STUDY}.99",
        tracking_identifier="nodule 1",
        **fields,
    )


def a_result(*findings: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A run of LungNet on the study of `tests.builders`, with one simple finding unless others are given."""
    made = {
        "run_id": "run-1",
        "model": {"name": "LungNet", "version": "2.1.0", "vendor": "Fictive AI", "udi": "(01)00844588003288(10)2.1"},
        "study_instance_uid": STUDY,
        "produced_at": "2025-12-01T10:05:00Z",
        "findings": list(findings) or [a_finding()],
    } | fields
    return {name: value for name, value in made.items() if value is not None}
