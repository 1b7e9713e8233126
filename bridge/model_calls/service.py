"""Speaks with one model service over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import orjson

from bridge.errors import RefusedByServer
from bridge.findings.contract import MOST_RESULTS
from bridge.web.exchange import Exchange

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


@dataclass(frozen=True)
class Answered:
    """`items` the results in their JSON form; `later` that the model sends them itself when it is ready."""

    items: tuple[object, ...]
    later: bool = False


class ModelService(Protocol):
    """How a model is called. Raises SinkUnavailable (later again; Doubtful where that may be this study's fault),
    RefusedByServer when it will not answer this, ever."""

    def call(self, request: bytes) -> Answered: ...


class HttpModel:
    """A model behind one URL: 200 or 201 with results, 204 without any, 202 when it sends them later."""

    def __init__(self, name: str, exchange: Exchange) -> None:
        self._name, self._exchange = name, exchange

    def call(self, request: bytes) -> Answered:
        """What it answers to one request."""
        answer = self._exchange.post("", request, _HEADERS)
        if answer.status in (202, 204):
            return Answered((), later=answer.status == 202)
        if answer.status not in (200, 201):
            raise RefusedByServer(f"model {self._name}: HTTP {answer.status}: it does not take this request")
        try:
            found = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            raise RefusedByServer(f"model {self._name}: the answer is not JSON") from None
        return Answered(self._items(found))

    def _items(self, found: object) -> tuple[object, ...]:
        if not isinstance(found, dict) or "results" not in found:
            return (found,)
        items = found["results"]
        if not isinstance(items, list) or len(items) > MOST_RESULTS:
            raise RefusedByServer(f"model {self._name}: results: a list of at most {MOST_RESULTS} is wanted")
        return tuple(items)
