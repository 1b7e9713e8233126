"""The change feed: every change of every resource, in the one order in which all followers see them.

A follower asks again with the last sequence it has, until the answer is empty. Entries never change and none is
left out: whoever replays from any point gets the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal, Protocol

import orjson
from fastapi import APIRouter, HTTPException, Query, Response

from bridge.model import Change, StoredResource
from bridge.translate.meta import instant, with_meta
from bridge.translate.search_parameters import PARAMETERS

DEFAULT_LIMIT, MAXIMUM_LIMIT = 100, 1000
MAXIMUM_BYTES = 16_777_216
"""Bytes of resources in one answer; a single larger resource still comes, alone."""

_LAST = 2**63 - 1


class ChangesState(Protocol):
    """What of the state followers ask for."""

    def latest_change(self) -> Change | None: ...

    def changes(self, since: int, limit: int, resource_type: str = "") -> list[Change]: ...

    def versions(self, changes: Sequence[Change]) -> list[StoredResource]: ...


def router(state: ChangesState) -> APIRouter:
    """Routes under /changefeed."""
    routes = APIRouter(prefix="/changefeed", tags=["changefeed"])

    @routes.get("")
    def changefeed(
        since: Annotated[int, Query(ge=0, le=_LAST)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAXIMUM_LIMIT)] = DEFAULT_LIMIT,
        type: Annotated[str, Query(max_length=64)] = "",
        include: Literal["", "resource"] = "",
    ) -> Response:
        if type and type not in PARAMETERS:
            raise HTTPException(400, f"type: resource types here are {', '.join(sorted(PARAMETERS))}")
        found = state.changes(since, limit, type)
        if not include:
            return _json([entry(change) for change in found])
        found = leading(found, MAXIMUM_BYTES)
        contents = state.versions(found)
        return _json([entry(change) | _resource(one) for change, one in zip(found, contents, strict=True)])

    @routes.get("/latest")
    def latest() -> Response:
        found = state.latest_change()
        return Response(status_code=204) if found is None else _json(entry(found))

    return routes


def entry(change: Change) -> dict[str, Any]:
    """One entry of the feed."""
    told: dict[str, Any] = {
        "sequence": change.revision,
        "resourceType": change.resource_type,
        "id": change.id,
        "versionId": str(change.version),
        "action": change.action.value,
        "timestamp": instant(change.last_updated),
    }
    return told | ({"studyInstanceUid": change.study_instance_uid} if change.study_instance_uid else {})


def leading(changes: Sequence[Change], maximum_bytes: int) -> list[Change]:
    """The first changes whose contents together are not larger; at least one."""
    sizes = accumulate(change.size for change in changes)
    return [c for n, (c, size) in enumerate(zip(changes, sizes, strict=True)) if n == 0 or size <= maximum_bytes]


def _resource(version: StoredResource) -> dict[str, Any]:
    return {} if version.deleted else {"resource": with_meta(version)}


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
