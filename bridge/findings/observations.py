"""The findings of a result as FHIR R4 Observations: one for each finding, one for each of its measurements."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.findings.concepts import (
    AIAST,
    CERTAINTY,
    CLINAST,
    COMMENT,
    DERIVATION,
    ITEM_SYSTEM,
    LATERALITY,
    RESULT_SYSTEM,
    SERIES,
    concept,
    fixed,
    laterality,
    presence,
    quantity,
    study_reference,
)
from bridge.findings.model import Finding, Measurement
from bridge.findings.review import Reader, ReportStatus, Standing
from bridge.findings.selections import selections, series_of
from bridge.model import Resource
from bridge.translate.codes import DCM, CodeTables
from bridge.translate.uids import resource_id, uid_identifier

_CONFIDENCE = "http://hl7.org/fhir/uv/aitransparency/StructureDefinition/AIconfidence"
AS_MADE = "https://imaging-bridge.example/StructureDefinition/ai-finding-as-made"
"""Extension of an Observation that a reader has reviewed: `producedAt`, `value` and `confidence` as of the program."""

_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


@dataclass(frozen=True)
class Surroundings:
    """What all resources of a result share: how it stands, its study, its program's Device (None: a person found it),
    the site's codes."""

    standing: Standing
    imaging_study: Resource
    device: Resource | None
    tables: CodeTables

    @property
    def run_id(self) -> str:
        return self.standing.result.run_id

    @property
    def device_reference(self) -> Resource:
        model = self.standing.result.model
        return {
            "reference": f"Device/{(self.device or {})['id']}",
            "type": "Device",
            "display": f"{model.name} {model.version}",
        }

    def identifier(self, *parts: str) -> Resource:
        """Of what a run made, or of what a person's document says."""
        system = RESULT_SYSTEM if self.device is not None else ITEM_SYSTEM
        return {"system": system, "value": "/".join((self.run_id, *parts))}

    def labels(self) -> Resource:
        """Resource.meta: asserted by AI, and by a clinician too once somebody has signed; none of what people found."""
        if self.device is None:
            return {}
        return {"security": [AIAST, CLINAST] if self.standing.signed_by else [AIAST]}

    def of_study(self) -> Resource:
        """Elements that Observation and DiagnosticReport take over from the study."""
        study = self.imaging_study
        orders = [r for r in study.get("basedOn", ()) if r.get("type") == "ServiceRequest"]
        made = {
            "basedOn": orders,
            "subject": study["subject"],
            "encounter": study.get("encounter"),
            "effectiveDateTime": study.get("started"),
            "issued": self.issued,
        }
        return {name: value for name, value in made.items() if value}

    @property
    def issued(self) -> str:
        """When it became what it is: the last review, else when the program made it."""
        reviews = self.standing.reviews
        return (reviews[-1].reviewed_at if reviews else self.standing.result.produced_at).isoformat()

    def readers(self) -> list[Resource]:
        signed_by = self.standing.signed_by
        return [reader_reference(signed_by)] if signed_by else []


def reader_reference(reader: Reader) -> Resource:
    """A reader as reference to a Practitioner: by identifier where there is one, and by name."""
    made: Resource = {"type": "Practitioner"}
    if reader.identifier_value:
        system = {"system": reader.identifier_system} if reader.identifier_system else {}
        made["identifier"] = system | {"value": reader.identifier_value}
    return made | {"display": reader.name}


def observations(around: Surroundings) -> list[Resource]:
    """All Observations of a result, measurements before the finding they belong to; same result, same bytes.

    What a reader refused is entered in error, and so is what was measured of a finding that is absent to a reader.
    """
    found: list[Resource] = []
    for finding in around.standing.result.findings:
        members = [_measurement(around, finding, m, n) for n, m in enumerate(finding.measurements, 1)]
        holding = [] if around.standing.takes_back_measurements(finding) else members
        found += [*members, _finding(around, finding, holding)]
    return found


def finding_id(run_id: str, finding: str) -> str:
    """The id of the Observation of a finding."""
    return resource_id("Observation of AI result", run_id, finding)


def measurement_id(run_id: str, finding: str, n: str) -> str:
    """The id of the Observation of the measurement `n` of a finding, from 1."""
    return resource_id("Observation of AI result", run_id, finding, n)


def _finding(around: Surroundings, finding: Finding, members: list[Resource]) -> Resource:
    own: Resource = {"resourceType": "Observation", "id": finding_id(around.run_id, finding.id)}
    extensions = []
    if finding.confidence is not None:
        extensions.append({"url": _CONFIDENCE, "valueQuantity": quantity(finding.confidence.percent, "%")})
    if around.standing.reviews:
        extensions.append(_as_made(around, finding.id))
    if extensions:
        own["extension"] = extensions
    made = own | _shared(around, finding, around.identifier(finding.id), around.standing.takes_back(finding))
    made["code"] = concept(finding.code, around.tables)
    made |= _value(finding, around.tables)
    if members:
        made["hasMember"] = [{"reference": f"Observation/{m['id']}", "type": "Observation"} for m in members]
    if components := _components(finding):
        made["component"] = components
    return made


def _as_made(around: Surroundings, finding: str) -> Resource:
    """What the program said, and when, of a finding that a reader has reviewed: an amendment changes its value, and
    `issued` is the review's."""
    made = next(f for f in around.standing.made.findings if f.id == finding)
    at = around.standing.made.produced_at.isoformat()
    parts: list[Resource] = [{"url": "producedAt", "valueInstant": at}]
    parts += [{"url": "value"} | value] if (value := _value(made, around.tables)) else []
    if made.confidence is not None:
        parts.append({"url": "confidence", "valueQuantity": quantity(made.confidence.percent, "%")})
    return {"url": AS_MADE, "extension": parts}


def _measurement(around: Surroundings, finding: Finding, measurement: Measurement, n: int) -> Resource:
    made: Resource = {
        "resourceType": "Observation",
        "id": measurement_id(around.run_id, finding.id, str(n)),
    }
    taken_back = around.standing.takes_back_measurements(finding)
    made |= _shared(around, finding, around.identifier(finding.id, str(n)), taken_back)
    made["code"] = concept(measurement.code, around.tables)
    made["valueQuantity"] = quantity(measurement.value, measurement.unit)
    derived = measurement.derivation
    components = (
        [{"code": fixed(DERIVATION), "valueCodeableConcept": concept(derived, around.tables)}] if derived else []
    )
    components += _place(finding)
    return made | ({"component": components} if components else {})


def _shared(around: Surroundings, finding: Finding, own_identifier: Resource, taken_back: bool) -> Resource:
    study = study_reference(around.imaging_study)
    where = selections(finding, around.imaging_study)
    made: Resource = {
        "meta": around.labels(),
        "identifier": [own_identifier, *_tracking(finding)],
        "partOf": [study],
        "status": (ReportStatus.ENTERED_IN_ERROR if taken_back else around.standing.status).value,
        "category": [{"coding": [{"system": _CATEGORY, "code": "imaging", "display": "Imaging"}]}],
        **around.of_study(),
        "device": around.device_reference if around.device is not None else None,
        "derivedFrom": [study | {"extension": where} if where else study],
    }
    if readers := around.readers():
        made["performer"] = readers
    if finding.location.body_site is not None:
        made["bodySite"] = concept(finding.location.body_site, around.tables)
    return {name: value for name, value in made.items() if value}


def _tracking(finding: Finding) -> list[Resource]:
    """What makes findings of one lesion known as such: PS3.16 TID 1410 Tracking Identifier and Unique Identifier."""
    found: list[Resource] = []
    if (known := uid_identifier(finding.tracking_uid)) is not None:
        found.append({"type": {"coding": [{"system": DCM, "code": "112040"}]}} | known)
    if finding.tracking_identifier:
        kind = {"type": {"coding": [{"system": DCM, "code": "112039"}]}}
        found.append(kind | {"value": finding.tracking_identifier})
    return found


def _value(finding: Finding, tables: CodeTables) -> Resource:
    if finding.presence is not None:
        return {"valueCodeableConcept": presence(finding.presence)}
    if finding.classification is not None:
        return {"valueCodeableConcept": concept(finding.classification, tables)}
    if finding.score is not None:
        return {"valueQuantity": quantity(finding.score.value, finding.score.unit)}
    return {}


def _components(finding: Finding) -> list[Resource]:
    sure = finding.confidence
    found: list[Resource] = [{"code": fixed(CERTAINTY), "valueQuantity": quantity(sure.percent, "%")}] if sure else []
    if finding.text:
        found.append({"code": fixed(COMMENT), "valueString": finding.text})
    return [*found, *_place(finding)]


def _place(finding: Finding) -> list[Resource]:
    side = finding.location.laterality
    found = [{"code": fixed(LATERALITY), "valueCodeableConcept": laterality(side)}] if side else []
    return [*found, *({"code": fixed(SERIES), "valueString": uid} for uid in series_of(finding))]
