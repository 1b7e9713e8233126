"""One AI result as documents and OpenAPI show it."""

from __future__ import annotations

from typing import Any

EXAMPLE: dict[str, Any] = {
    "run_id": "lungnet-2025-12-01-000017",
    "model": {"name": "LungNet", "version": "2.1.0", "vendor": "Fictive AI", "udi": "(01)00844588003288(10)2.1.0"},
    "study_instance_uid": "1.2.826.0.1.3680043.9.1",
    "produced_at": "2025-12-01T10:05:00Z",
    "findings": [
        {
            "id": "1",
            "code": {"scheme": "SCT", "code": "427359005", "display": "Solitary nodule of lung"},
            "presence": "present",
            "confidence": {"value": 0.93, "scale": "fraction"},
            "measurements": [
                {"code": {"scheme": "SCT", "code": "81827009", "display": "Diameter"}, "value": 8.5, "unit": "mm"}
            ],
            "location": {
                "body_site": {"scheme": "SCT", "code": "39607008", "display": "Lung"},
                "laterality": "right",
                "planar_regions": [
                    {
                        "image": {
                            "series_instance_uid": "1.2.826.0.1.3680043.9.1.1",
                            "sop_instance_uid": "1.2.826.0.1.3680043.9.1.1.1",
                        },
                        "shape": "circle",
                        "points": [[120.5, 88], [126.5, 88]],
                    }
                ],
            },
            "tracking_uid": "1.2.826.0.1.3680043.9.1.99",
        }
    ],
    "preliminary": True,
    "conclusion": "One nodule in the right lung.",
}
