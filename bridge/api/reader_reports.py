"""Readers' own reports by HTTP, for what they say of AI results: a FHIR Bundle of a DiagnosticReport."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse

from bridge.api.ai_results import AiResultsState, Kept
from bridge.api.negotiation import SentBody, sent_json
from bridge.errors import InvalidQuery, Refusal, RefusedResult
from bridge.findings.attached import standing_of
from bridge.findings.reader_bundle import read_readers_report
from bridge.intake import MOST_OF_A_STUDY, Intake, Outcome
from bridge.model import KeptReport, KeptResult


class ReportsState(AiResultsState, Protocol):
    """What of the state reports are kept in."""

    def keep_report(self, report: KeptReport, now: float) -> bool: ...

    def other_reports(self, report: KeptReport) -> int: ...


def router(intake: Intake, state: ReportsState, order: tuple[str, ...] = ()) -> APIRouter:
    """The route /reader-reports; `order` as in `Kept`."""
    kept = Kept(intake, state, order)
    routes = APIRouter(tags=["AI results"])

    @routes.post("/reader-reports", openapi_extra=_BODY)
    def post_report(request: Request, body: SentBody) -> JSONResponse:
        try:
            bundle = sent_json(request, body)
        except InvalidQuery as error:
            raise HTTPException(400, str(error)) from None
        try:
            report = read_readers_report(bundle if isinstance(bundle, dict) else {}, intake.tables)
            if state.other_reports(report) >= MOST_OF_A_STUDY:
                reason = f"has {MOST_OF_A_STUDY} reports, the most it can have"
                raise RefusedResult((Refusal("DiagnosticReport.imagingStudy", reason),))
        except RefusedResult as error:
            errors = [{"field": r.field, "reason": r.reason} for r in error.refusals]
            return JSONResponse({"outcome": Outcome.REFUSED.value, "errors": errors}, 422)
        outcome = Outcome.KEPT if state.keep_report(report, intake.clock()) else Outcome.UNCHANGED
        results = [_stands(one) for one in kept.of_study(report.study_instance_uid)]
        return JSONResponse({"outcome": outcome.value, "results": results}, 201 if outcome is Outcome.KEPT else 200)

    return routes


def _stands(one: KeptResult) -> dict[str, Any]:
    try:
        return {"run_id": one.run_id, "status": standing_of(one).status.value}
    except RefusedResult:
        return {"run_id": one.run_id, "status": None}


_EXAMPLE: dict[str, Any] = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {
            "fullUrl": "urn:uuid:0f0f9a3e-6c1c-4c9b-9d0a-3f2f7c1f2a11",
            "resource": {
                "resourceType": "DiagnosticReport",
                "identifier": [{"system": "http://hospital.example/reports", "value": "R-17"}],
                "status": "final",
                "code": {"text": "CT of the chest"},
                "issued": "2025-12-01T12:00:00+01:00",
                "resultsInterpreter": [{"display": "Leser, Lia"}],
                "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}}],
                "result": [{"reference": "urn:uuid:7d3a4a5e-3f67-4a53-8e0e-62b3a1f0c0d2"}],
            },
        },
        {
            "fullUrl": "urn:uuid:7d3a4a5e-3f67-4a53-8e0e-62b3a1f0c0d2",
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "code": {"coding": [{"system": "http://snomed.info/sct", "code": "427359005"}]},
                "valueCodeableConcept": {"coding": [{"system": "http://snomed.info/sct", "code": "2667000"}]},
                "derivedFrom": [
                    {"identifier": {"system": "https://imaging-bridge.example/ai-result", "value": "run-17/1"}}
                ],
            },
        },
    ],
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/fhir+json": {"schema": {"type": "object"}, "example": _EXAMPLE}},
    }
}
