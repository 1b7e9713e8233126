"""New versions of resources, many at once: a transaction that others wait for is short."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, insert, select

from bridge.model import Resource
from bridge.state.schema import resource, resource_index, resource_version
from bridge.state.work import BATCH
from bridge.translate.search_parameters import index_entries

OF_ONE_STUDY = frozenset({"ImagingStudy", "DiagnosticReport", "DocumentReference", "Observation", "Provenance"})
"""Resource types each of whose resources belongs to one study for ever."""

_CHANGING = ("version", "last_updated", "revision", "deleted", "digest")


@dataclass(frozen=True)
class Put:
    """A content to be the newest of a resource; None deletes it. `body` is what is stored of it."""

    resource_type: str
    id: str
    content: Resource | None
    body: bytes | None
    digest: str
    study_instance_uid: str | None


def put(resource_type: str, id_: str, content: Resource | None, study_instance_uid: str = "") -> Put:
    """The content as it is stored: the same content, the same bytes."""
    body = None if content is None else orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return Put(
        resource_type,
        id_,
        content,
        body,
        "" if body is None else hashlib.sha256(body).hexdigest(),
        study_instance_uid if resource_type in OF_ONE_STUDY else None,
    )


def put_all(connection: Connection, inserted: Callable[[Any], Any], puts: Sequence[Put], now: float) -> bool:
    """A new version of each whose content is another one, in their order. Result: whether there was any.

    Later revisions never have earlier times: clocks may jump back, and a commit may wait for another. `inserted` makes
    the database's own INSERT, which knows what to do about rows that are there.
    """
    known = _known(connection, puts)
    changed = [one for one in _last_of_each(puts) if _is_new(one, known.get((one.resource_type, one.id)))]
    if not changed:
        return False
    newest = select(resource.c.revision, resource.c.last_updated).order_by(resource.c.revision.desc()).limit(1)
    before = connection.execute(newest).one_or_none()
    first, now = (before.revision + 1, max(now, before.last_updated)) if before else (1, now)
    rows = [_row(one, known.get((one.resource_type, one.id)), first + n, now) for n, one in enumerate(changed)]
    statement = inserted(resource)
    statement = statement.on_conflict_do_update(
        index_elements=[resource.c.resource_type, resource.c.id],
        set_={name: statement.excluded[name] for name in _CHANGING},
    )
    connection.execute(statement, [{k: v for k, v in row.items() if k != "content"} for row in rows])
    of_version = ("resource_type", "id", "version", "last_updated", "revision", "content")
    connection.execute(insert(resource_version), [{k: row[k] for k in of_version} for row in rows])
    _reindex(connection, changed, known)
    return True


def _known(connection: Connection, puts: Sequence[Put]) -> dict[tuple[str, str], tuple[int, str]]:
    """(type, id) → version and digest, of those that there are."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    columns = select(resource.c.id, resource.c.version, resource.c.digest)
    for kind in sorted({one.resource_type for one in puts}):
        ids = [one.id for one in puts if one.resource_type == kind]
        for start in range(0, len(ids), BATCH):
            some = (resource.c.resource_type == kind) & resource.c.id.in_(ids[start : start + BATCH])
            found |= {(kind, row.id): (row.version, row.digest) for row in connection.execute(columns.where(some))}
    return found


def _last_of_each(puts: Sequence[Put]) -> list[Put]:
    return list({(one.resource_type, one.id): one for one in puts}.values())


def _is_new(one: Put, known: tuple[int, str] | None) -> bool:
    return one.body is not None if known is None else known[1] != one.digest


def _row(one: Put, known: tuple[int, str] | None, revision: int, now: float) -> dict[str, Any]:
    return {
        "resource_type": one.resource_type, "id": one.id, "version": known[0] + 1 if known else 1,
        "last_updated": now, "revision": revision, "deleted": one.body is None, "digest": one.digest,
        "study_instance_uid": one.study_instance_uid, "content": one.body,
    }  # fmt: skip


def _reindex(connection: Connection, changed: Sequence[Put], known: Mapping[tuple[str, str], tuple[int, str]]) -> None:
    old = [{"t": o.resource_type, "i": o.id} for o in changed if (o.resource_type, o.id) in known]
    if old:
        owner = (resource_index.c.resource_type == bindparam("t")) & (resource_index.c.id == bindparam("i"))
        connection.execute(delete(resource_index).where(owner), old)
    rows = [
        {
            "resource_type": o.resource_type, "id": o.id, "param": e.param, "system": e.system, "value": e.value,
            "low": e.low, "high": e.high,
        }
        for o in changed
        for e in (index_entries(o.content) if o.content is not None else ())
    ]  # fmt: skip
    if rows:
        connection.execute(insert(resource_index), rows)
