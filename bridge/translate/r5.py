"""Our FHIR R4 resources as FHIR R5 (5.0.0): a second pure step, so that one translation serves both versions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bridge.errors import RejectedInput
from bridge.model import Resource
from bridge.translate import r5_results

_IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"


def to_r5(resource: Resource) -> Resource:
    """An R4 resource as R5. What is alike in both is shared with the input, not copied; the input is never changed.

    From    FHIR R4 (4.0.1)
    To      FHIR R5 (5.0.0); elements in R5's order, lists sorted as in R4, so same resource, same bytes
    Raises  RejectedInput when R5 has no equivalent: a type not in `CONVERTED`, Endpoint.status test

    >>> to_r5({"resourceType": "Patient", "id": "p", "gender": "female"})
    {'resourceType': 'Patient', 'id': 'p', 'gender': 'female'}
    """
    kind = resource["resourceType"]
    if kind not in CONVERTED:
        raise RejectedInput(f"{kind} cannot be given as FHIR R5; only {', '.join(sorted(CONVERTED))} can")
    return CONVERTED[kind](resource)


def _patient(r4: Resource) -> Resource:
    """Patient has the same elements in both."""
    return dict(r4)


def _endpoint(r4: Resource) -> Resource:
    """Endpoint.connectionType is a list of concepts; payload joins payloadType and payloadMimeType."""
    if r4["status"] == "test":
        raise RejectedInput("Endpoint.status test is unknown to FHIR R5; say whether the endpoint is active or off")
    payload = _present(type=r4.get("payloadType"), mimeType=r4.get("payloadMimeType"))
    return _in_order(
        r4, _ENDPOINT, connectionType=[_concept(r4["connectionType"])], payload=[payload] if payload else None
    )


def _imaging_study(r4: Resource) -> Resource:
    """ImagingStudy: accession numbers only in basedOn, all modalities, concepts and CodeableReferences; no interpreter.

    R5 lists every distinct series modality where R4 lists those that acquire (R5 ImagingStudy.modality). Media, which
    R5 does not have, is no reason any more.
    """
    series = [_series(one) for one in r4.get("series", ())]
    accessions = [i for i in r4.get("identifier", ()) if _is_accession(i)]
    reasons = [{"concept": c} for c in r4.get("reasonCode", ())]
    reasons += [{"reference": r} for r in r4.get("reasonReference", ()) if not _is_to("Media", r)]
    procedure = r4.get("procedureReference")
    return _in_order(
        r4,
        _IMAGING_STUDY,
        identifier=[i for i in r4.get("identifier", ()) if not _is_accession(i)],
        modality=_distinct([*map(_concept, r4.get("modality", ())), *(s["modality"] for s in series)]),
        basedOn=[*r4.get("basedOn", ()), *_orders(accessions, r4.get("basedOn", ()))],
        partOf=[procedure] if procedure else None,
        procedure=[{"concept": c} for c in r4.get("procedureCode", ())],
        reason=reasons,
        series=series,
    )


def _series(r4: Resource) -> Resource:
    """ImagingStudy.series; its instances are the same in both and are shared."""
    changed: Resource = {"modality": _concept(r4["modality"])}
    if "bodySite" in r4:
        changed["bodySite"] = {"concept": _concept(r4["bodySite"])}
    if "laterality" in r4:
        changed["laterality"] = _concept(r4["laterality"])
    return r4 | changed


def _concept(coding: Resource) -> Resource:
    """A Coding as CodeableConcept; one that has only a display is text."""
    return {"text": coding["display"]} if coding.keys() == {"display"} else {"coding": [coding]}


def _distinct(concepts: Iterable[Resource]) -> list[Resource]:
    """Each concept once, sorted by its code."""
    found: dict[tuple[str, str, str], Resource] = {}
    for one in concepts:
        coding = one.get("coding", [{}])[0]
        found.setdefault((coding.get("code", ""), coding.get("system", ""), one.get("text", "")), one)
    return [found[key] for key in sorted(found)]


def _is_accession(identifier: Resource) -> bool:
    codings = identifier.get("type", {}).get("coding", ())
    return any(c.get("system") == _IDENTIFIER_TYPE and c.get("code") == "ACSN" for c in codings)


def _orders(accessions: Iterable[Resource], known: Iterable[Resource]) -> list[Resource]:
    """References to the orders of those accession numbers that `known` does not name yet."""
    named = {_key(one["identifier"]) for one in known if "identifier" in one}
    return [{"type": "ServiceRequest", "identifier": a} for a in accessions if _key(a) not in named]


def _key(identifier: Resource) -> tuple[str, str]:
    return identifier.get("system", ""), identifier.get("value", "")


def _is_to(kind: str, reference: Resource) -> bool:
    return reference.get("type") == kind or f"/{reference.get('reference', '')}".rpartition("/")[0].endswith(f"/{kind}")


def _present(**elements: object) -> Resource:
    return {name: value for name, value in elements.items() if value not in (None, [])}


def _in_order(r4: Resource, order: tuple[str, ...], **changed: object) -> Resource:
    """`r4` with what is changed, without what R5 removed, in R5's order; all else, such as extensions, as it was."""
    made = {k: v for k, v in r4.items() if k.lstrip("_") not in _REMOVED and k not in changed} | _present(**changed)
    first = {name: made[name] for name in order if name in made}
    return first | {name: value for name, value in made.items() if name not in first}


_REMOVED = frozenset({
    "interpreter", "procedureReference", "procedureCode", "reasonCode", "reasonReference", "payloadType",
    "payloadMimeType",
})  # fmt: skip
_HEAD = (
    "resourceType", "id", "meta", "implicitRules", "language", "text", "contained", "extension", "modifierExtension",
    "identifier", "status",
)  # fmt: skip
_ENDPOINT = (
    *_HEAD, "connectionType", "name", "managingOrganization", "contact", "period", "payload", "address", "header",
)  # fmt: skip
_IMAGING_STUDY = (
    *_HEAD, "modality", "subject", "encounter", "started", "basedOn", "partOf", "referrer", "endpoint",
    "numberOfSeries", "numberOfInstances", "procedure", "location", "reason", "note", "description", "series",
)  # fmt: skip

CONVERTED: Mapping[str, Callable[[Resource], Resource]] = {
    "Device": r5_results.device,
    "DiagnosticReport": r5_results.diagnostic_report,
    "DocumentReference": r5_results.document_reference,
    "Endpoint": _endpoint,
    "ImagingStudy": _imaging_study,
    "Observation": r5_results.observation,
    "Patient": _patient,
    "Provenance": r5_results.provenance,
}
"""Resource type → its conversion."""
