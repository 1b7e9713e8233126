"""What results and documents are in FHIR R4 as R5, one resource for one."""

from __future__ import annotations

from bridge.model import Resource

_GIVEN_NAMES = frozenset({"registered-name", "user-friendly-name", "patient-reported-name"})


def observation(r4: Resource) -> Resource:
    """Observation has what ours use in both."""
    return dict(r4)


def diagnostic_report(r4: Resource) -> Resource:
    """DiagnosticReport.imagingStudy is study; media leads to DocumentReference, which R4's Media is not: left out."""
    made = {k: v for k, v in r4.items() if k not in {"imagingStudy", "media"}}
    if forms := r4.get("presentedForm", ()):
        made["presentedForm"] = [_attachment(one) for one in forms]
    return made | ({"study": r4["imagingStudy"]} if "imagingStudy" in r4 else {})


def document_reference(r4: Resource) -> Resource:
    """DocumentReference.context is taken apart: encounters are context, orders basedOn, other related things events;
    the format is a profile, who authenticates it an attester."""
    made = {k: v for k, v in r4.items() if k not in {"masterIdentifier", "authenticator", "context", "content"}}
    context = r4.get("context", {})
    related = context.get("related", ())
    if orders := [r for r in related if r.get("type") == "ServiceRequest"]:
        made["basedOn"] = orders
    if context.get("encounter"):
        made["context"] = context["encounter"]
    if events := [{"reference": r} for r in related if r.get("type") != "ServiceRequest"]:
        made["event"] = events
    if "authenticator" in r4:
        mode = {"system": "http://hl7.org/fhir/composition-attestation-mode", "code": "legal"}
        made["attester"] = [{"mode": {"coding": [mode]}, "party": r4["authenticator"]}]
    made["content"] = [_content(one) for one in r4["content"]]
    return made


def _content(r4: Resource) -> Resource:
    made: Resource = {"attachment": _attachment(r4["attachment"])}
    return made | ({"profile": [{"valueCoding": r4["format"]}]} if "format" in r4 else {})


def _attachment(r4: Resource) -> Resource:
    """Attachment.size is an integer64, which JSON has as string."""
    return r4 | ({"size": str(r4["size"])} if "size" in r4 else {})


def device(r4: Resource) -> Resource:
    """Device names itself by displayName and name; a UDI needs its identifier and issuer; type is a list."""
    made = {k: v for k, v in r4.items() if k not in {"deviceName", "udiCarrier", "type", "status"}}
    if r4.get("status") != "unknown" and "status" in r4:
        made["status"] = r4["status"]
    if names := r4.get("deviceName", ()):
        made["displayName"] = names[0]["name"]
        made["name"] = [{"value": n["name"], "type": _name_type(n["type"])} for n in names]
    if carriers := [c for c in r4.get("udiCarrier", ()) if {"deviceIdentifier", "issuer"} <= c.keys()]:
        made["udiCarrier"] = carriers
    return made | ({"type": [r4["type"]]} if "type" in r4 else {})


def _name_type(r4: str) -> str:
    """R5 knows fewer kinds of names; what a maker calls it is its name for users."""
    return r4 if r4 in _GIVEN_NAMES else "user-friendly-name"


def provenance(r4: Resource) -> Resource:
    """Provenance.reason is authorization; the role derivation is gone, source is what it comes to."""
    made = {k: v for k, v in r4.items() if k not in {"reason", "entity"}}
    if "reason" in r4:
        made["authorization"] = [{"concept": one} for one in r4["reason"]]
    if "entity" in r4:
        made["entity"] = [e | {"role": "source"} if e["role"] == "derivation" else e for e in r4["entity"]]
    return made
