"""AI results by HTTP: taken one by one or in batches, shown as they stand, reviewed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol

import orjson
from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from bridge.api.negotiation import SentBody, sent_json
from bridge.documents.attached import is_in
from bridge.documents.document import Context, documents_of
from bridge.documents.results import results_of
from bridge.errors import InvalidQuery, Refusal, RefusedResult, SourceUnavailable
from bridge.findings.attached import standing_of
from bridge.findings.contract import MOST_RESULTS, schema
from bridge.findings.documents import written_document
from bridge.findings.example import EXAMPLE
from bridge.findings.placement import misplaced
from bridge.findings.report import report_id
from bridge.findings.review import Standing, check_review, read_review, review_as_json
from bridge.findings.sr_uid import newest_uid
from bridge.intake import Intake, Outcome, Taken
from bridge.model import KeptDocument, KeptReport, KeptResult, StoredResource
from bridge.translate.headers import Headers
from bridge.translate.site import Site

RunId = Annotated[str, Path(max_length=128)]


class AiResultsState(Protocol):
    """What of the state senders and reviewers of results reach."""

    def add_review(self, result: KeptResult, review: bytes, now: float) -> bool: ...

    def ai_result(self, run_id: str) -> KeptResult | None: ...

    def ai_results(self, study_instance_uid: str) -> tuple[KeptResult, ...]: ...

    def document(self, sop_instance_uid: str) -> KeptDocument | None: ...

    def documents(self, study_instance_uid: str) -> tuple[KeptDocument, ...]: ...

    def reader_reports(self, study_instance_uid: str) -> tuple[KeptReport, ...]: ...

    def snapshots(self, study_instance_uid: str) -> dict[str, tuple[Headers, ...]]: ...

    def read_resource(self, resource_type: str, id_: str, version: int | None = None) -> StoredResource | None: ...


@dataclass(frozen=True)
class Kept:
    """Results that are kept, or that documents in archives are: reviewed, written as documents, shown as they stand.

    `order`: sources by authority, whose document counts where several hold it.
    """

    intake: Intake
    state: AiResultsState
    order: tuple[str, ...] = ()

    def review(self, run_id: str, item: object) -> dict[str, Any]:
        """The result after a review. Raises RefusedResult."""
        kept = self.known(run_id)
        review = read_review(item, self.intake.tables.coding_scheme)
        before = standing_of(kept)
        check_review(review, before)
        study = self.intake.study(kept.study_instance_uid)
        if study is not None and (wrong := misplaced(replace(before.result, findings=review.findings), study)):
            raise RefusedResult(wrong)
        if not self.state.add_review(kept, review_as_json(review), self.intake.clock()):
            raise HTTPException(409, "somebody else reviewed it at this moment: read it again")
        return self.shown(self.known(run_id))

    def document(self, run_id: str) -> bytes:
        """The result as a DICOM SR document. Raises RefusedResult."""
        kept = self.known(run_id)
        study = self.intake.study(kept.study_instance_uid)
        instance = next((h for held in self.state.snapshots(kept.study_instance_uid).values() for h in held), None)
        found = standing_of(kept)
        if study is None or instance is None or misplaced(found.result, study):
            raise HTTPException(409, "the result is not attached to its study: there is no document of it yet")
        try:
            return written_document(found, study, instance, newest_uid(kept))
        except ImportError:
            raise HTTPException(501, "highdicom is not installed: pip install 'imaging-bridge[sr]'") from None

    def known(self, run_id: str) -> KeptResult:
        """A result that was sent, or that a document in an archive is."""
        sent, document = self.state.ai_result(run_id), self.state.document(run_id)
        if sent is None and document is None:
            raise HTTPException(404, "no result is kept under this run_id")
        uid = sent.study_instance_uid if sent is not None else document.name.study_instance_uid if document else ""
        found = next((one for one in self.of_study(uid) if one.run_id == run_id), None)
        if found is None:
            raise HTTPException(404, "the document of this UID is no result of AI, or cannot be taken as one")
        return found

    def of_study(self, uid: str) -> tuple[KeptResult, ...]:
        """All results of a study, those that its documents are among them."""
        sent, documents, reports = (
            self.state.ai_results(uid),
            self.state.documents(uid),
            self.state.reader_reports(uid),
        )
        if not documents and not reports:
            return sent
        tables, zone, study = self.intake.tables, self.intake.zone, self.intake.study(uid)
        found = documents_of(documents, Context(Site(tables, zone), self.order))
        shown = [one for one in found if study is None or is_in(one, study)]
        return results_of(shown, sent, tables, zone, study, reports).kept

    def shown(self, kept: KeptResult) -> dict[str, Any]:
        """A result as it stands: `attached` whether its study has it, with `errors` where its images are not there."""
        try:
            return self._stands(kept, standing_of(kept))
        except RefusedResult as error:
            return {"run_id": kept.run_id, "attached": False, "errors": _errors(error.refusals)}

    def _stands(self, kept: KeptResult, found: Standing) -> dict[str, Any]:
        study = self.intake.study(kept.study_instance_uid)
        wrong = misplaced(found.result, study) if study is not None else ()
        report = self.state.read_resource("DiagnosticReport", report_id(kept.run_id))
        made = {
            "run_id": kept.run_id,
            "study_instance_uid": kept.study_instance_uid,
            "status": found.status.value,
            "attached": study is not None and not wrong,
            "errors": _errors(wrong),
            "signed_by": found.signed_by.name if found.signed_by else None,
            "diagnostic_report": f"DiagnosticReport/{report.id}" if report is not None else None,
        }
        reviews = [orjson.loads(review) for review in (*kept.reviews, *kept.reviews_by_report)]
        return made | {"result": orjson.loads(kept.content), "reviews": reviews}


def router(intake: Intake, state: AiResultsState, order: tuple[str, ...] = ()) -> APIRouter:
    """Routes under /ai-results; `order` as in `Kept`."""
    kept = Kept(intake, state, order)
    routes = APIRouter(prefix="/ai-results", tags=["AI results"])

    @routes.post("", openapi_extra=_POST)
    def post_results(request: Request, body: SentBody) -> JSONResponse:
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/dicom":
            try:
                return _answered(intake.take_sr(body))
            except SourceUnavailable as error:
                raise HTTPException(503, str(error)) from None
        item = _sent(request, body)
        if not isinstance(item, dict) or "results" not in item:
            return _answered(intake.take([item])[0])
        items = item["results"]
        if not isinstance(items, list) or len(items) > MOST_RESULTS or item.keys() != {"results"}:
            raise HTTPException(400, f"results: a list of at most {MOST_RESULTS}, and nothing beside it")
        return JSONResponse({"results": [_told(one) for one in intake.take(items)]})

    @routes.get("")
    def get_results(study_instance_uid: Annotated[str, Query(max_length=64)]) -> list[dict[str, Any]]:
        return [kept.shown(one) for one in kept.of_study(study_instance_uid)]

    @routes.get("/$schema")
    def get_schema() -> dict[str, Any]:
        return schema()

    @routes.get("/{run_id}")
    def get_result(run_id: RunId) -> dict[str, Any]:
        return kept.shown(kept.known(run_id))

    @routes.get("/{run_id}/sr", response_class=Response)
    def get_document(run_id: RunId) -> Response:
        try:
            return Response(kept.document(run_id), media_type="application/dicom")
        except RefusedResult as error:
            return JSONResponse(_refused(run_id, error.refusals), 422)

    @routes.post("/{run_id}/review", openapi_extra=_REVIEW)
    def post_review(run_id: RunId, request: Request, body: SentBody) -> JSONResponse:
        try:
            return JSONResponse(kept.review(run_id, _sent(request, body)))
        except RefusedResult as error:
            return JSONResponse(_refused(run_id, error.refusals), 422)

    return routes


def _sent(request: Request, body: bytes) -> object:
    try:
        return sent_json(request, body)
    except InvalidQuery as error:
        raise HTTPException(400, str(error)) from None


_STATUSES = {Outcome.KEPT: 201, Outcome.UNCHANGED: 200, Outcome.REFUSED: 422, Outcome.CONFLICT: 409}


def _answered(taken: Taken) -> JSONResponse:
    return JSONResponse(_told(taken), _STATUSES[taken.outcome])


def _told(taken: Taken) -> dict[str, Any]:
    if taken.outcome in (Outcome.REFUSED, Outcome.CONFLICT):
        return _refused(taken.run_id, taken.refusals)
    return {"run_id": taken.run_id, "outcome": taken.outcome.value}


def _refused(run_id: str, refusals: tuple[Refusal, ...]) -> dict[str, Any]:
    return {"run_id": run_id, "outcome": "refused", "errors": _errors(refusals)}


def _errors(refusals: tuple[Refusal, ...]) -> list[dict[str, str]]:
    return [{"field": r.field, "reason": r.reason} for r in refusals]


def _body(examples: Mapping[str, Any], described: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: {"value": value} for name, value in examples.items()}
    content: dict[str, Any] = {"application/json": {"schema": dict(described), "examples": named}}
    return {"requestBody": {"required": True, "content": content}}


_ONE = {"$ref": "/ai-results/$schema"}
_MANY = {"type": "object", "required": ["results"], "properties": {"results": {"type": "array", "items": _ONE}}}
_POST = _body({"one": EXAMPLE, "several": {"results": [EXAMPLE]}}, {"anyOf": [_ONE, _MANY]})
_POST["requestBody"]["content"]["application/dicom"] = {"schema": {"type": "string", "format": "binary"}}
_REVIEWED = {
    "reader": {"name": "Leser, Lia", "identifier_system": "http://hospital.example/staff", "identifier_value": "L7"},
    "reviewed_at": "2025-12-01T12:00:00+01:00",
}
_REVIEW = _body(
    {
        "accept": {"decision": "accept", **_REVIEWED},
        "amend": {
            "decision": "amend",
            **_REVIEWED,
            "conclusion": "No nodule: a vessel.",
            "findings": EXAMPLE["findings"],
        },
        "reject": {"decision": "reject", **_REVIEWED},
    },
    {"type": "object", "required": ["decision", "reader", "reviewed_at"]},
)
