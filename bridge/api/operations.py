"""What an operator sees by HTTP: status, and what is parked with its replay. The same as `bridge status|parked`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, Field

from bridge.errors import InvalidQuery
from bridge.ports import WorkItem
from bridge.reconcile.scheduled import RECONCILE_QUEUE, summary


class OperationsState(Protocol):
    """What of the state an operator asks for."""

    def depth(self) -> list[tuple[str, int, int, int, float]]: ...

    def counts(self) -> dict[str, int]: ...

    def deliveries(self) -> dict[str, int]: ...

    def items(self, *, parked: bool | None = None, queue: str | None = None, limit: int = 1000) -> list[WorkItem]: ...

    def reconciliation(self) -> dict[str, Any] | None: ...

    def mark(self, queue: str, keys: list[str], now: float) -> None: ...

    def troubled(self, limit: int = 1000) -> list[WorkItem]: ...

    def parked_item(self, queue: str, key: str) -> WorkItem: ...

    def replay(self, queue: str, key: str, now: float) -> None: ...

    def discard(self, queue: str, key: str) -> None: ...


class ParkedItem(BaseModel):
    """The parked item to try again, or to give up."""

    queue: str = Field(max_length=200)
    key: str = Field(max_length=4096)


def status(state: OperationsState, now: float) -> dict[str, Any]:
    """Queues with what waits, fails and is parked, the last error of each, resources held, and what FHIR servers have.

    Result  {"queues": [{queue, waiting, failing, parked, oldest_s, error}], "resources": {type: count},
            "sinks": {name: studies}, "reconciliation": the newest one, without its differences}
    """
    queues = []
    for queue, waiting, parked, failing, oldest in state.depth():
        errors = [i.error for i in state.items(queue=queue, parked=False, limit=200) if i.error] if failing else []
        oldest_s = round(max(0.0, now - oldest), 1)
        queues.append(
            {"queue": queue, "waiting": waiting, "failing": failing, "parked": parked, "oldest_s": oldest_s}
            | ({"error": errors[0]} if errors else {})
        )
    kept = state.reconciliation()
    told = {"queues": queues, "resources": state.counts(), "sinks": state.deliveries()}
    return told | ({"reconciliation": summary(kept, now)} if kept else {})


def troubles(items: Sequence[WorkItem]) -> list[dict[str, Any]]:
    """What fails or is parked, one entry each, without names of files: those may be what people put into them."""
    found = list[dict[str, Any]]()
    for item in items:
        told: dict[str, Any] = {
            "event": "parked" if item.parked else "failing",
            "queue": item.queue,
            "error": item.error,
        }
        uid = item.key.partition("/")[0]
        study = {"studyInstanceUid": uid} if not item.queue.startswith("file:") and _is_uid(uid) else {}
        found.append(told | {"attempts": item.attempts} | study)
    return found


def _is_uid(text: str) -> bool:
    return 0 < len(text) <= 64 and text[0].isdigit() and set(text) <= set("0123456789.")


def router(state: OperationsState, clock: Callable[[], float]) -> APIRouter:
    """Routes under /operations."""
    routes = APIRouter(prefix="/operations", tags=["operations"])

    @routes.get("/status")
    def get_status() -> dict[str, Any]:
        return status(state, clock())

    @routes.get("/parked")
    def get_parked(
        queue: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> list[dict[str, Any]]:
        return [asdict(item) for item in state.items(parked=True, queue=queue, limit=limit)]

    @routes.get("/reconciliation")
    def get_reconciliation() -> dict[str, Any]:
        kept = state.reconciliation()
        if kept is None:
            raise HTTPException(404, "nothing was reconciled yet: POST /operations/reconciliation")
        return kept

    @routes.post("/reconciliation", status_code=202)
    def post_reconciliation() -> dict[str, str]:
        state.mark(RECONCILE_QUEUE, ["all"], clock())
        return {"asked": "GET /operations/reconciliation has it when it is finished"}

    @routes.get("/troubles")
    def get_troubles(limit: Annotated[int, Query(ge=1, le=10_000)] = 1000) -> list[dict[str, Any]]:
        return troubles(state.troubled(limit))

    @routes.get("/parked/item")
    def get_item(
        queue: Annotated[str, Query(max_length=200)], key: Annotated[str, Query(max_length=4096)]
    ) -> dict[str, Any]:
        with _told():
            return asdict(state.parked_item(queue, key))

    @routes.post("/parked/discard")
    def post_discard(what: ParkedItem) -> dict[str, str]:
        with _told():
            state.discard(what.queue, what.key)
        return {"discarded": what.key}

    @routes.post("/parked/replay", status_code=202)
    def post_replay(what: ParkedItem) -> dict[str, str]:
        with _told():
            state.replay(what.queue, what.key, clock())
        return {"replayed": what.key}

    return routes


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except InvalidQuery as error:
        raise HTTPException(404, str(error)) from None
