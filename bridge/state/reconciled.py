"""What reconciliation asks of the state: contents by digest, snapshots by digest, and which work is under way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import and_, or_, select

from bridge.ports import StudyHeaders
from bridge.state.deliveries import Deliveries
from bridge.state.holdings import plain_headers
from bridge.state.schema import holding, resource, resource_version, setting, study, work
from bridge.state.work import BATCH

PAGE = 2000
_REPORT = "reconciliation"


class Reconciled(Deliveries):
    """Reads only, but for the newest report."""

    def keep_reconciliation(self, report: str) -> None:
        """Keeps what was found last, as JSON."""
        statement = self._insert(setting).values(name=_REPORT, value=report)
        with self._db.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[setting.c.name], set_={"value": statement.excluded.value}
                )
            )

    def reconciliation(self) -> dict[str, Any] | None:
        """What was found last; None before the first time."""
        with self._db.read() as connection:
            kept = connection.execute(select(setting.c.value).where(setting.c.name == _REPORT)).scalar()
        return None if kept is None else orjson.loads(kept)

    def contents(self) -> Iterator[tuple[str, bool]]:
        """(type/id, whether the newest content is what was written) of every resource that is there."""
        newest = and_(
            resource_version.c.resource_type == resource.c.resource_type,
            resource_version.c.id == resource.c.id,
            resource_version.c.version == resource.c.version,
        )
        both = select(resource.c.digest, resource_version.c.content).join_from(resource, resource_version, newest)
        for key, deleted, _ in self.held_resources():
            kind, _, id_ = key.partition("/")
            with self._db.read() as connection:
                mine = (resource.c.resource_type == kind) & (resource.c.id == id_)
                row = connection.execute(both.where(mine)).one_or_none()
            if not deleted:
                yield key, row is not None and hashlib.sha256(row.content or b"").hexdigest() == row.digest

    def unread(self, source: str, studies: Sequence[str]) -> set[str]:
        """Those of the studies that a source is to be read for again."""
        found: set[str] = set()
        with self._db.read() as connection:
            for start in range(0, len(studies), BATCH):
                some = holding.c.study_instance_uid.in_(studies[start : start + BATCH])
                behind = (holding.c.source == source) & some & (holding.c.hint > holding.c.read_hint)
                found.update(connection.execute(select(holding.c.study_instance_uid).where(behind)).scalars())
        return found

    def in_work(self, queue: str, keys: Sequence[str]) -> dict[str, bool]:
        """key → whether it is parked, for those of the keys that the queue has."""
        found: dict[str, bool] = {}
        with self._db.read() as connection:
            for start in range(0, len(keys), BATCH):
                some = work.c.key.in_(keys[start : start + BATCH])
                rows = connection.execute(select(work.c.key, work.c.parked).where(work.c.queue == queue, some))
                found |= {row.key: bool(row.parked) for row in rows}
        return found

    def is_snapshot(self, source: str, study_instance_uid: str, headers: StudyHeaders) -> bool:
        """Whether these headers are what is kept of the study."""
        mine = (holding.c.source == source) & (holding.c.study_instance_uid == study_instance_uid)
        with self._db.read() as connection:
            kept = connection.execute(select(holding.c.digest).where(mine)).scalar() or ""
        return kept == (hashlib.sha256(plain_headers(headers)).hexdigest() if headers.instances else "")

    def untranslated(self, after: str, limit: int) -> tuple[list[str], str]:
        """Of the next so many studies after a UID: those whose resources were not made from what is kept of them. And
        the last UID looked at, "" after the last of all."""
        has_any = (holding.c.study_instance_uid > after) & (holding.c.digest != "")
        uids = select(holding.c.study_instance_uid).where(has_any).distinct().order_by(holding.c.study_instance_uid)
        with self._db.read() as connection:
            page = list(connection.execute(uids.limit(limit)).scalars())
            rows = select(study.c.study_instance_uid, study.c.digest).where(study.c.study_instance_uid.in_(page))
            made = {row.study_instance_uid: row.digest for row in connection.execute(rows)}
            kept = self._holding_digests(connection, page)
        different = [uid for uid in page if made.get(uid) != kept[uid]]
        return different, page[-1] if len(page) == limit else ""

    def held_resources(self) -> Iterator[tuple[str, int, str]]:
        """(type/id, 1 when it is deleted, SHA-256 of the content) of every resource."""
        kind, id_ = "", ""
        while True:
            later = and_(resource.c.resource_type == kind, resource.c.id > id_)
            statement = select(resource.c.resource_type, resource.c.id, resource.c.deleted, resource.c.digest)
            statement = statement.where(or_(resource.c.resource_type > kind, later))
            with self._db.read() as connection:
                ordered = statement.order_by(resource.c.resource_type, resource.c.id).limit(PAGE)
                page = connection.execute(ordered).all()
            yield from ((f"{row.resource_type}/{row.id}", int(row.deleted), row.digest) for row in page)
            if len(page) < PAGE:
                return
            kind, id_ = page[-1].resource_type, page[-1].id

    def resource_digests(self, keys: Sequence[str]) -> dict[str, tuple[str, int, str]]:
        """type/id → the same of these resources alone."""
        found: dict[str, tuple[str, int, str]] = {}
        with self._db.read() as connection:
            for key in keys:
                kind, _, id_ = key.partition("/")
                mine = (resource.c.resource_type == kind) & (resource.c.id == id_)
                row = connection.execute(select(resource.c.deleted, resource.c.digest).where(mine)).one_or_none()
                if row is not None:
                    found[key] = (key, int(row.deleted), row.digest)
        return found

    def studies_of(self, key: str) -> list[str]:
        """A study that a resource (type/id) belongs to; none for a resource that no study has."""
        kind, _, id_ = key.partition("/")
        mine = select(resource.c.study_instance_uid).where(resource.c.resource_type == kind, resource.c.id == id_)
        named = select(study.c.study_instance_uid).where(study.c.patient_key == id_)
        with self._db.read() as connection:
            if own := connection.execute(mine).scalar():
                return [own]
            if kind == "Patient" and (uid := connection.execute(named.limit(1)).scalar()):
                return [uid]
            wanted = orjson.dumps([kind, id_])
            rows = connection.execute(select(study.c.study_instance_uid, study.c.resources))
            return next(([row.study_instance_uid] for row in rows if wanted in row.resources), [])
