"""What each source holds: its cursor, its files, and for every study a snapshot of headers with a hint counter.

A hint says "this study may have changed"; a snapshot remembers the hint it was read after. A hint newer than
the snapshot means the source must be read again.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, select, update

from bridge.model import IndexedFile, Rejection
from bridge.ports import STUDY_QUEUE, ChangePage, Claim, StudyHeaders, file_queue
from bridge.state.database import Database
from bridge.state.schema import cursor, file, holding, study, work
from bridge.state.work import BATCH, Work
from bridge.translate.headers import Headers
from bridge.translate.procedure_step import ProcedureStep

HELD_PAGE = 2000
_VERIFIED, _REREAD = "verify:", "reread:"
"""Cursors of verify passes lie beside those of sources; a source's name has no colon."""


class Holdings(Work):
    """Cursors, file index and snapshots. Everything one page of changes brings is committed together."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)

    def position(self, source: str) -> str | None:
        """The source's durable cursor, or None before the first page."""
        with self._db.read() as connection:
            return connection.execute(select(cursor.c.position).where(cursor.c.source == source)).scalar()

    def commit_page(self, source: str, page: ChangePage, now: float, quiet_s: float, max_wait_s: float) -> None:
        """One page's marks, index rows, rejections and cursor, all or nothing."""
        with self._db.write() as connection:
            self._index(connection, source, page.files)
            self._forget(connection, source, page.gone)
            self._accept(connection, source, (*page.accepted, *page.gone))
            self._park_rejections(connection, file_queue(source), page.rejected, now)
            self._hint(connection, source, page.studies, now, quiet_s, max_wait_s)
            if page.position:
                self._move(connection, source, page.position)

    def _move(self, connection: Connection, source: str, position: str) -> None:
        statement = self._insert(cursor).values(source=source, position=position)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[cursor.c.source], set_={"position": statement.excluded.position}
            )
        )

    def mark_studies(self, source: str, studies: Iterable[str], now: float) -> None:
        """Hint that these studies of a source may have changed; they are due at once (sweeps, people)."""
        with self._db.write() as connection:
            self._hint(connection, source, studies, now, 0.0, 0.0)

    def _hint(
        self, connection: Connection, source: str, studies: Iterable[str], now: float, quiet_s: float, max_wait_s: float
    ) -> None:
        uids = sorted(set(studies))
        rows = [
            {"source": source, "study_instance_uid": u, "hint": 1, "read_hint": 0, "instances": 0, "digest": ""}
            for u in uids
        ]
        statement = self._insert(holding)
        statement = statement.on_conflict_do_update(
            index_elements=[holding.c.source, holding.c.study_instance_uid], set_={"hint": holding.c.hint + 1}
        )
        for start in range(0, len(rows), BATCH):
            connection.execute(statement, rows[start : start + BATCH])
        if uids:
            self._mark(connection, STUDY_QUEUE, uids, now, quiet_s, max_wait_s)

    def hinted(self, study_instance_uid: str) -> dict[str, int]:
        """source → hint number, for every source that must be read again."""
        statement = (
            select(holding.c.source, holding.c.hint)
            .where(holding.c.study_instance_uid == study_instance_uid, holding.c.hint > holding.c.read_hint)
            .order_by(holding.c.source)
        )
        with self._db.read() as connection:
            return {row.source: row.hint for row in connection.execute(statement)}

    def holders(self, study_instance_uid: str) -> frozenset[str]:
        """The sources that held instances of a study when they were read last."""
        mine = (holding.c.study_instance_uid == study_instance_uid) & (holding.c.instances > 0)
        with self._db.read() as connection:
            return frozenset(connection.execute(select(holding.c.source).where(mine)).scalars())

    def waiting_studies(self, studies: Sequence[str]) -> frozenset[str]:
        """Those of these studies that some source must be read again for."""
        waiting = (holding.c.hint > holding.c.read_hint) & holding.c.study_instance_uid.in_(studies)
        with self._db.read() as connection:
            return frozenset(connection.execute(select(holding.c.study_instance_uid).where(waiting)).scalars())

    def commit_snapshot(self, claim: Claim, source: str, hint: int, headers: StudyHeaders, now: float) -> None:
        """What the source held of the claimed study when it was read after `hint`. Raises LeaseLost.

        Where the headers are others than before, what row sinks have is no longer known to follow them: it may have
        been delivered from these, which the archive can take back before the study is translated.
        """
        plain = plain_headers(headers)
        steps = sorted(headers.procedure_steps, key=lambda step: step.sop_instance_uid)
        digest = hashlib.sha256(plain).hexdigest() if headers.instances else ""
        mine = (holding.c.source == source) & (holding.c.study_instance_uid == claim.key)
        statement = (
            update(holding)
            .where(mine)
            .values(
                read_hint=hint,
                instances=headers.held,
                headers=zlib.compress(plain, 1) if headers.instances else None,
                digest=digest,
                rejected=orjson.dumps([_plain_rejection(r) for r in headers.rejected]) if headers.rejected else None,
                procedure_steps=orjson.dumps([s.as_json() for s in steps]) if steps else None,
                read_at=now,
            )
        )
        with self._db.write() as connection:
            changed = connection.execute(select(holding.c.digest).where(mine)).scalar() != digest
            connection.execute(statement)
            self._still_held(connection, claim)
            if changed:
                connection.execute(update(study).where(study.c.study_instance_uid == claim.key).values(digest=""))

    def snapshots(self, study_instance_uid: str) -> dict[str, tuple[Headers, ...]]:
        """source → headers of every instance, for every source that holds the study; sources by name."""
        statement = (
            select(holding.c.source, holding.c.headers)
            .where(holding.c.study_instance_uid == study_instance_uid, holding.c.headers.is_not(None))
            .order_by(holding.c.source)
        )
        with self._db.read() as connection:
            found = connection.execute(statement).all()
        return {
            row.source: tuple(Headers.from_json(h) for h in orjson.loads(zlib.decompress(row.headers))) for row in found
        }

    def procedure_steps(self, study_instance_uid: str) -> dict[str, tuple[ProcedureStep, ...]]:
        """source → the procedure steps that name the study, for every source that was told of any; sources by name."""
        statement = (
            select(holding.c.source, holding.c.procedure_steps)
            .where(holding.c.study_instance_uid == study_instance_uid, holding.c.procedure_steps.is_not(None))
            .order_by(holding.c.source)
        )
        with self._db.read() as connection:
            found = connection.execute(statement).all()
        return {
            row.source: tuple(ProcedureStep.from_json(s) for s in orjson.loads(row.procedure_steps)) for row in found
        }

    def rejections(self, study_instance_uid: str) -> tuple[Rejection, ...]:
        """Instances the sources could not hand over when the study was read."""
        statement = select(holding.c.rejected).where(
            holding.c.study_instance_uid == study_instance_uid, holding.c.rejected.is_not(None)
        )
        with self._db.read() as connection:
            found = connection.execute(statement.order_by(holding.c.source)).scalars().all()
        return tuple(Rejection(**plain) for row in found for plain in orjson.loads(row))

    def held(self, source: str) -> Iterator[tuple[str, int]]:
        """Every study the source held when last read, with its number of instances; in order of UID."""
        last = ""
        while True:
            page = self.held_after(source, last, HELD_PAGE)
            yield from page
            if len(page) < HELD_PAGE:
                return
            last = page[-1][0]

    def held_after(self, source: str, after: str, limit: int) -> list[tuple[str, int]]:
        """The next `limit` studies after a UID that the source held when last read, with their instances."""
        statement = (
            select(holding.c.study_instance_uid, holding.c.instances)
            .where(holding.c.source == source, holding.c.instances > 0, holding.c.study_instance_uid > after)
            .order_by(holding.c.study_instance_uid)
            .limit(limit)
        )
        with self._db.read() as connection:
            return [(row.study_instance_uid, row.instances) for row in connection.execute(statement)]

    def held_of(self, source: str, studies: Sequence[str]) -> dict[str, int]:
        """study → how many instances the source held when last read, for those of the studies known of it."""
        found: dict[str, int] = {}
        with self._db.read() as connection:
            for start in range(0, len(studies), BATCH):
                statement = select(holding.c.study_instance_uid, holding.c.instances).where(
                    holding.c.source == source, holding.c.study_instance_uid.in_(studies[start : start + BATCH])
                )
                found |= {row.study_instance_uid: row.instances for row in connection.execute(statement)}
        return found

    def settled_instances(self, source: str) -> int:
        """How many instances the source held of all studies that no hint waits for."""
        statement = select(func.sum(holding.c.instances)).where(
            holding.c.source == source, holding.c.hint == holding.c.read_hint
        )
        with self._db.read() as connection:
            return int(connection.execute(statement).scalar() or 0)

    def verified(self, source: str) -> str:
        """How far the verify passes of a source have come, as the last of them put it; "" before the first."""
        return self.position(f"{_VERIFIED}{source}") or ""

    def commit_verified(self, source: str, different: Iterable[str], progress: str, now: float) -> None:
        """What one verify pass found: hints for the studies that differ, and how far the passes have come."""
        with self._db.write() as connection:
            self._hint(connection, source, different, now, 0.0, 0.0)
            self._move(connection, f"{_VERIFIED}{source}", progress)

    def commit_rereads(self, source: str, studies: int, now: float) -> None:
        """Hints for the next so many studies held of a source, after those of the last call; round again at the end."""
        place = f"{_REREAD}{source}"
        held = [uid for uid, _ in self.held_after(source, self.position(place) or "", studies)]
        with self._db.write() as connection:
            self._hint(connection, source, held, now, 0.0, 0.0)
            self._move(connection, place, held[-1] if len(held) == studies else "")

    def known_files(self, source: str) -> dict[str, tuple[int, int]]:
        """path → (size, mtime_ns) of every file the source has read, readable or not."""
        statement = select(file.c.path, file.c.size, file.c.mtime_ns).where(file.c.source == source)
        with self._db.read() as connection:
            return {row.path: (row.size, row.mtime_ns) for row in connection.execute(statement)}

    def study_files(self, source: str, study_instance_uid: str) -> tuple[str, ...]:
        """Paths of the files of one study, first seen first."""
        statement = (
            select(file.c.path)
            .where(file.c.source == source, file.c.study_instance_uid == study_instance_uid)
            .order_by(file.c.id)
        )
        with self._db.read() as connection:
            return tuple(connection.execute(statement).scalars())

    def file_studies(self, source: str, paths: Sequence[str]) -> dict[str, str]:
        """path → Study Instance UID ("" = not usable) for those of the paths that are indexed."""
        found: dict[str, str] = {}
        with self._db.read() as connection:
            for start in range(0, len(paths), BATCH):
                statement = select(file.c.path, file.c.study_instance_uid).where(
                    file.c.source == source, file.c.path.in_(paths[start : start + BATCH])
                )
                found |= {row.path: row.study_instance_uid for row in connection.execute(statement)}
        return found

    def indexed_studies(self, source: str) -> Iterator[tuple[str, int]]:
        """Every study in the file index with its number of files, in order of UID."""
        statement = (
            select(file.c.study_instance_uid, func.count())
            .where(file.c.source == source, file.c.study_instance_uid != "")
            .group_by(file.c.study_instance_uid)
            .order_by(file.c.study_instance_uid)
        )
        with self._db.read() as connection:
            rows = connection.execute(statement).all()
        yield from ((row[0], row[1]) for row in rows)

    def file_counts(self, source: str, studies: Sequence[str]) -> dict[str, int]:
        """study → how many files of it are indexed, for those of the studies that have any."""
        found: dict[str, int] = {}
        with self._db.read() as connection:
            for start in range(0, len(studies), BATCH):
                statement = (
                    select(file.c.study_instance_uid, func.count())
                    .where(file.c.source == source, file.c.study_instance_uid.in_(studies[start : start + BATCH]))
                    .group_by(file.c.study_instance_uid)
                )
                found |= {row[0]: row[1] for row in connection.execute(statement)}
        return found

    def instance_files(self, source: str, sop_instance_uids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """SOP Instance UID → the paths of its files, for those of the instances that are indexed."""
        found: dict[str, tuple[str, ...]] = {}
        with self._db.read() as connection:
            for start in range(0, len(sop_instance_uids), BATCH):
                statement = select(file.c.sop_instance_uid, file.c.path).where(
                    file.c.source == source, file.c.sop_instance_uid.in_(sop_instance_uids[start : start + BATCH])
                )
                for row in connection.execute(statement.order_by(file.c.id)):
                    found[row.sop_instance_uid] = (*found.get(row.sop_instance_uid, ()), row.path)
        return found

    def replayed_files(self, source: str) -> tuple[str, ...]:
        """Keys a person asked to try again."""
        queue = file_queue(source)
        statement = select(work.c.key).where(work.c.queue == queue, work.c.parked.is_(False))
        with self._db.read() as connection:
            return tuple(connection.execute(statement.order_by(work.c.key)).scalars())

    def clear_replayed(self, source: str, before: float) -> None:
        """Entries of a source that people asked to try again before this time and that a whole comparison settled."""
        old = (work.c.queue == file_queue(source)) & work.c.parked.is_(False) & (work.c.first_marked_at < before)
        with self._db.write() as connection:
            connection.execute(delete(work).where(old))

    def _index(self, connection: Connection, source: str, files: Sequence[IndexedFile]) -> None:
        rows = [
            {
                "source": source, "path": f.path, "size": f.size, "mtime_ns": f.mtime_ns,
                "study_instance_uid": f.study_instance_uid, "sop_instance_uid": f.sop_instance_uid,
            }
            for f in files
        ]  # fmt: skip
        statement = self._insert(file)
        changed = ("size", "mtime_ns", "study_instance_uid", "sop_instance_uid")
        statement = statement.on_conflict_do_update(
            index_elements=[file.c.source, file.c.path], set_={name: statement.excluded[name] for name in changed}
        )
        for start in range(0, len(rows), BATCH):
            connection.execute(statement, rows[start : start + BATCH])

    def _forget(self, connection: Connection, source: str, paths: Sequence[str]) -> None:
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            connection.execute(delete(file).where(file.c.source == source, file.c.path.in_(some)))

    def _accept(self, connection: Connection, source: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), BATCH):
            some = keys[start : start + BATCH]
            connection.execute(delete(work).where(work.c.queue == file_queue(source), work.c.key.in_(some)))


def plain_headers(headers: StudyHeaders) -> bytes:
    """What is kept of a study's headers, before it is compressed: the same for the same headers in any order."""
    return orjson.dumps([h.as_json() for h in sorted(headers.instances, key=_place)])


def _place(headers: Headers) -> tuple[str, str]:
    return headers.text("SeriesInstanceUID"), headers.text("SOPInstanceUID")


def _plain_rejection(rejection: Rejection) -> dict[str, Any]:
    return {"key": rejection.key, "error": rejection.error, "evidence": dict(rejection.evidence)}
