"""Documents to an archive by STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from bridge.archiving.verdict import verdict
from bridge.errors import ProjectError, RefusedByServer, SinkUnavailable
from bridge.model import Document
from bridge.web.exchange import Answer, Exchange

AT_ONCE, BYTES_AT_ONCE = 20, 4_194_304
_FAILED, _REFERENCED = "00081198", "00081199"
_INSTANCE, _REASON = "00081155", "00081197"


class StowArchive:
    """One STOW-RS service. Each document has an outcome of its own, as the answer says of it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def store(self, study_instance_uid: str, documents: Sequence[Document]) -> list[ProjectError | None]:
        """None for what the archive has, else why not. Raises SinkUnavailable when it takes nothing now."""
        outcomes: list[ProjectError | None] = []
        for some in _parts(documents):
            content, limit = _multipart(some)
            headers = {
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={limit}',
                "Accept": "application/dicom+json",
            }
            answer = self._exchange.post(f"/studies/{study_instance_uid}", content, headers)
            outcomes += _outcomes(answer, some)
        return outcomes


def _parts(documents: Sequence[Document]) -> Iterator[list[Document]]:
    some: list[Document] = []
    for one in documents:
        if some and (len(some) == AT_ONCE or sum(len(d.content) for d in some) + len(one.content) > BYTES_AT_ONCE):
            yield some
            some = []
        some.append(one)
    if some:
        yield some


def _multipart(documents: Sequence[Document]) -> tuple[bytes, str]:
    limit = hashlib.sha256(b"".join(d.content for d in documents)).hexdigest()[:40]
    part = f"--{limit}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(part + d.content + b"\r\n" for d in documents) + f"--{limit}--\r\n".encode(), limit


def _outcomes(answer: Answer, documents: Sequence[Document]) -> list[ProjectError | None]:
    """Of each document: 200 means all, 409 none, 202 some; the reasons stand in the answer (PS3.18 10.5.3)."""
    told = _told(answer.content)
    stored = {_uid(item) for item in _items(told, _REFERENCED)}
    failed = {_uid(item): _reason(item) for item in _items(told, _FAILED)}
    return [_outcome(answer.status, d.sop_instance_uid, stored, failed) for d in documents]


def _outcome(status: int, uid: str, stored: set[str], failed: Mapping[str, int]) -> ProjectError | None:
    if uid in failed:
        return verdict(failed[uid])
    if status == 200 or (status == 202 and uid in stored):
        return None
    if status == 202:
        return SinkUnavailable("HTTP 202, and not a word of this document")
    return RefusedByServer(f"HTTP {status}")


def _told(content: bytes) -> Mapping[str, Any]:
    """The data set of the answer; {} when there is none that can be read."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(found, list):
        found = found[0] if found else {}
    return found if isinstance(found, dict) else {}


def _items(data_set: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    element = data_set.get(tag)
    items = element.get("Value") if isinstance(element, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _value(item: Mapping[str, Any], tag: str) -> object:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _uid(item: Mapping[str, Any]) -> str:
    return str(_value(item, _INSTANCE) or "").strip(" \0")


def _reason(item: Mapping[str, Any]) -> int:
    """FailureReason; 0110 (processing failure) where none can be read."""
    found = _value(item, _REASON)
    if isinstance(found, str) and found.isascii() and found.isdigit():
        found = int(found)
    return found if isinstance(found, int) and 0 < found < 65_536 else 0x0110
