"""An AI result as FHIR R4: Device, Observations, DiagnosticReport, Provenance."""

from __future__ import annotations

import re

from bridge.findings.concepts import AIAST, MODEL_SYSTEM, identifier, study_reference
from bridge.findings.model import Model
from bridge.findings.observations import Surroundings, finding_id, observations, reader_reference
from bridge.findings.review import Review, Standing
from bridge.model import Resource
from bridge.translate.codes import CodeTables
from bridge.translate.uids import resource_id

LOINC = "http://loinc.org"
_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_AI: Resource = {
    "coding": [
        {
            "system": "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS",
            "code": "Artificial-Intelligence",
            "display": "Artificial Intelligence",
        }
    ]
}
CATEGORY: list[Resource] = [
    {"coding": [{"system": LOINC, "code": "LP29684-5", "display": "Radiology"}]},
    {"coding": [{"system": _SECTION, "code": "RAD", "display": "Radiology"}]},
]
CODE: Resource = {"coding": [{"system": LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}]}
_GS1 = re.compile(r"^\(01\)(\d{14})(?:\(|$)")


def resources(standing: Standing, imaging_study: Resource, tables: CodeTables) -> tuple[Resource, ...]:
    """Everything FHIR R4 says of a result, what is referred to first.

    From    the result with its reviews; FHIR R4 ImagingStudy of its study, for subject, order, visit and time
    To      Device, Observations (measurements before findings), DiagnosticReport, Provenance of the result and of each
            review; same input, same bytes
    """
    program = device(standing.result.model)
    around = Surroundings(standing, imaging_study, program, tables)
    found = observations(around)
    report = diagnostic_report(around)
    return (program, *found, report, *_provenances(around, [report, *found]))


def report_id(run_id: str) -> str:
    """The id of the DiagnosticReport of a run."""
    return resource_id("DiagnosticReport of AI result", run_id)


def device(model: Model) -> Resource:
    """FHIR R4 Device of one version of a program; the model decides its id and all of its content."""
    key = f"{model.vendor}/{model.name}@{model.version}" + (f"#{model.udi}" if model.udi else "")
    made: Resource = {
        "resourceType": "Device",
        "id": resource_id("Device", model.vendor, model.name, model.version, model.udi),
        "identifier": [{"system": MODEL_SYSTEM, "value": key}],
    }
    if model.udi:
        carrier: Resource = {"carrierHRF": model.udi}
        if (gs1 := _GS1.match(model.udi)) is not None:
            carrier = {"deviceIdentifier": gs1[1], "issuer": "http://hl7.org/fhir/NamingSystem/gs1-di"} | carrier
        made["udiCarrier"] = [carrier]
    made["status"] = "active"
    if model.vendor:
        made["manufacturer"] = model.vendor
    made["deviceName"] = [{"name": model.name, "type": "model-name"}]
    return made | {"type": _AI, "version": [{"value": model.version}]}


def diagnostic_report(around: Surroundings) -> Resource:
    """FHIR R4 DiagnosticReport of a run. Nobody stands as its reader until somebody has signed it."""
    result = around.standing.result
    made: Resource = {
        "resourceType": "DiagnosticReport",
        "id": report_id(result.run_id),
        "meta": around.labels(),
        "identifier": [identifier(result.run_id)],
        "status": around.standing.status.value,
        "category": CATEGORY,
        "code": CODE,
        **around.of_study(),
    }
    if readers := around.readers():
        made |= {"performer": readers, "resultsInterpreter": readers}
    if ids := [finding_id(result.run_id, f.id) for f in result.findings if not around.standing.takes_back(f)]:
        made["result"] = [{"reference": f"Observation/{i}", "type": "Observation"} for i in ids]
    made["imagingStudy"] = [study_reference(around.imaging_study)]
    if result.conclusion:
        made["conclusion"] = result.conclusion if readers else _unsigned(around.standing) + result.conclusion
    return made


def _unsigned(standing: Standing) -> str:
    """What a conclusion begins with that no reader has signed: many systems show nothing else of a report."""
    model = standing.result.model
    return f"[{model.name} {model.version}, not signed by a reader] "


def _provenances(around: Surroundings, made: list[Resource]) -> list[Resource]:
    result = around.standing.result
    author = {
        "type": {"coding": [{"system": _PARTICIPANT, "code": "author", "display": "Author"}]},
        "role": [_AI],
        "who": around.device_reference,
    }
    targets = [{"reference": f"{r['resourceType']}/{r['id']}", "type": r["resourceType"]} for r in made]
    of_result: Resource = {
        "resourceType": "Provenance",
        "id": resource_id("Provenance of AI result", result.run_id),
        "target": targets,
        "occurredDateTime": result.produced_at.isoformat(),
        "recorded": result.produced_at.isoformat(),
        "reason": [{"coding": [AIAST]}],
        "agent": [author],
        "entity": [{"role": "source", "what": study_reference(around.imaging_study)}],
    }
    reviews = enumerate(around.standing.reviews, 1)
    return [of_result, *(_of_review(result.run_id, review, n, targets) for n, review in reviews)]


def _of_review(run_id: str, review: Review, n: int, targets: list[Resource]) -> Resource:
    """Who accepted, amended or rejected it, and when; R4 has no code for that, so it is said in words."""
    verifier = {
        "type": {"coding": [{"system": _PARTICIPANT, "code": "verifier", "display": "Verifier"}]},
        "who": reader_reference(review.reader),
    }
    return {
        "resourceType": "Provenance",
        "id": resource_id("Provenance of AI result", run_id, str(n)),
        "target": targets,
        "occurredDateTime": review.reviewed_at.isoformat(),
        "recorded": review.reviewed_at.isoformat(),
        "activity": {"text": review.decision.value},
        "agent": [verifier],
    }
