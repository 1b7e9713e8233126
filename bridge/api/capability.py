"""The CapabilityStatement: what the FHIR read API can do. FHIR R4."""

from __future__ import annotations

from bridge import __version__
from bridge.model import Resource
from bridge.translate.fhir_search import INCLUDES
from bridge.translate.search_parameters import PARAMETERS

RELEASED = "2026-11-24"


def capability_statement(base: str) -> Resource:
    """GET /metadata: instance kind, R4 (4.0.1), read-only, every search parameter with its expression."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": RELEASED,
        "kind": "instance",
        "software": {"name": "Imaging bridge", "version": __version__},
        "implementation": {"description": "ImagingStudy as the archives hold it", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [{"mode": "server", "resource": [_resource(kind) for kind in sorted(PARAMETERS)]}],
    }


def _resource(kind: str) -> Resource:
    rev = [f"{k}:{p}" for k, params in INCLUDES.items() for p, target in params.items() if target == kind]
    described: Resource = {
        "type": kind,
        "interaction": [{"code": code} for code in ("read", "vread", "history-instance", "search-type")],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": False,
    }
    if INCLUDES[kind]:
        described["searchInclude"] = ["*", *(f"{kind}:{param}" for param in INCLUDES[kind])]
    if rev:
        described["searchRevInclude"] = rev
    described["searchParam"] = [
        {"name": "_id", "type": "token", "documentation": "Resource.id"},
        {"name": "_lastUpdated", "type": "date", "documentation": "Resource.meta.lastUpdated"},
        *(
            {"name": p.name, "type": p.kind.value, "documentation": p.expression}
            for p in sorted(PARAMETERS[kind].values(), key=lambda p: p.name)
        ),
    ]
    return described
