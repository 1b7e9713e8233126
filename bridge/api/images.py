"""The images of one study, for whom a model's call gave a token (WADO-RS, PS3.18 10.4). Nothing else is read by it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse

from bridge.errors import SourceUnavailable

AT_ONCE = 16
"""Answers sent at the same time; more are asked to come again."""

MOST_ACCEPT = 1_000
_UID = r"[0-9][0-9.]{0,63}"
_BELOW = re.compile(
    rf"(/series/{_UID}(/instances/{_UID}(/frames/[0-9]{{1,9}}(,[0-9]{{1,9}}){{0,999}})?)?)?(/metadata)?"
)


class Opened(Protocol):
    """An answer that is being read."""

    @property
    def content_type(self) -> str: ...

    def chunks(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Images:
    """`study_of` the study that a token opens now, or None. `opened(study, path, accept)` reads from an archive that
    holds the study; None when there is nothing; raises SourceUnavailable."""

    study_of: Callable[[str], str | None]
    opened: Callable[[str, str, str], Opened | None]


def router(images: Images) -> APIRouter:
    """Routes under /wado-rs."""
    routes = APIRouter(prefix="/wado-rs", tags=["images for models"])
    free = threading.BoundedSemaphore(AT_ONCE)

    @routes.get("/studies/{path:path}", response_class=StreamingResponse)
    def get_images(path: str, request: Request) -> StreamingResponse:
        study, slash, below = path.partition("/")
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or images.study_of(token.strip()) != study:
            raise HTTPException(401, "a token for this study is needed", {"WWW-Authenticate": "Bearer"})
        if not _BELOW.fullmatch(slash + below):
            raise HTTPException(404, "studies, series, instances, frames and metadata are here")
        if not free.acquire(blocking=False):
            raise HTTPException(503, "too many answers at once", {"Retry-After": "2"})
        try:
            accept = request.headers.get("accept", "")[:MOST_ACCEPT] or "*/*"
            found = images.opened(study, f"/studies/{path}", accept)
            if found is None:
                raise HTTPException(404, "no archive has it")
        except SourceUnavailable as error:
            free.release()
            raise HTTPException(502, str(error)) from None
        except BaseException:
            free.release()
            raise
        return StreamingResponse(_Sent(found, free.release), headers={"Content-Type": found.content_type})

    return routes


class _Sent:
    """An answer on its way; it is closed, and its place given back, when it ends or nobody reads it any more."""

    def __init__(self, opened: Opened, release: Callable[[], None]) -> None:
        self._opened = opened
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._opened.chunks()
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            self._opened.close()
            release()
