"""The CapabilityStatement: what the FHIR API can do. FHIR R4."""

from __future__ import annotations

from bridge import __version__
from bridge.follow.subscription_r4 import BACKPORT
from bridge.follow.topics import TOPICS
from bridge.model import Resource
from bridge.translate.fhir_search import INCLUDES
from bridge.translate.search_parameters import PARAMETERS

BULK_DATA = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"
RELEASED = "2026-11-24"


def capability_statement(base: str) -> Resource:
    """GET /metadata: instance kind, R4 (4.0.1); what is read, searched, exported and subscribed to."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": RELEASED,
        "kind": "instance",
        "software": {"name": "Imaging bridge", "version": __version__},
        "implementation": {"description": "ImagingStudy as the archives hold it", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "documentation": "Everything but Subscription is read-only. Beside this API, /changefeed tells every "
                "change of every resource in one order.",
                "resource": [*(_resource(kind) for kind in sorted(PARAMETERS)), _subscription()],
                "operation": [{"name": "export", "definition": f"{BULK_DATA}export"}],
            }
        ],
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
    if kind == "Patient":
        described["operation"] = [{"name": "export", "definition": f"{BULK_DATA}patient-export"}]
    return described


def _subscription() -> Resource:
    topics = f"{BACKPORT}capabilitystatement-subscriptiontopic-canonical"
    operations = f"{BACKPORT.removesuffix('StructureDefinition/')}OperationDefinition/backport-subscription-"
    return {
        "extension": [{"url": topics, "valueCanonical": canonical} for canonical in TOPICS],
        "type": "Subscription",
        "supportedProfile": [f"{BACKPORT}backport-subscription"],
        "documentation": "Channel rest-hook, to endpoints that the operator names: by criteria, by topic, and in the "
        "R5 form (fhirVersion=5.0). The topics are read as SubscriptionTopic, in their R5 form.",
        "interaction": [{"code": code} for code in ("create", "read", "update", "delete", "search-type")],
        "versioning": "versioned-update",
        "readHistory": False,
        "updateCreate": False,
        "searchParam": [
            {"name": "_id", "type": "token", "documentation": "Subscription.id"},
            {"name": "status", "type": "token", "documentation": "Subscription.status"},
            {"name": "url", "type": "uri", "documentation": "Subscription.channel.endpoint"},
        ],
        "operation": [{"name": name, "definition": f"{operations}{name}"} for name in ("status", "events")],
    }
