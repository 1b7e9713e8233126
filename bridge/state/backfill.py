"""Studies that are to be read when there is nothing else to do: in the same work table, in a queue of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from sqlalchemy import case, func, select

from bridge.ports import BACKFILL_QUEUE, STUDY_QUEUE, Claim, LeaseLost
from bridge.state.deliveries import Deliveries
from bridge.state.schema import holding, work
from bridge.state.work import BATCH

_APART_S = 1e-6


class Backfill(Deliveries):
    """Keys are source/study. A row is due since a moment before 1970, the earlier the later its study was made: the
    newest come first, those without a date last."""

    def backfill(self, source: str, studies: Iterable[tuple[str, date | None]], now: float) -> None:
        """Marks studies of a source, once each; of two dates the later counts."""
        rows: list[dict[str, Any]] = [
            {
                "queue": BACKFILL_QUEUE, "key": f"{source}/{uid}", "generation": 1, "first_marked_at": now,
                "due_at": -float(day.toordinal()) if day else 0.0, "attempts": 0,
            }
            for uid, day in studies
        ]  # fmt: skip
        statement = self._insert(work)
        new, there = statement.excluded.due_at, work.c.due_at
        statement = statement.on_conflict_do_update(
            index_elements=[work.c.queue, work.c.key], set_={"due_at": case((new < there, new), else_=there)}
        )
        with self._db.write() as connection:
            for start in range(0, len(rows), BATCH):
                connection.execute(statement, rows[start : start + BATCH])

    def known_of(self, source: str, studies: Sequence[str]) -> set[str]:
        """Those of the studies that a source was read for, or is to be read for already."""
        found: set[str] = set()
        with self._db.read() as connection:
            for start in range(0, len(studies), BATCH):
                some = holding.c.study_instance_uid.in_(studies[start : start + BATCH])
                rows = select(holding.c.study_instance_uid).where(holding.c.source == source, some)
                found.update(connection.execute(rows).scalars())
        return found

    def backfill_left(self, source: str) -> int:
        """How many studies of a source wait."""
        mine = (work.c.queue == BACKFILL_QUEUE) & work.c.key.startswith(f"{source}/", autoescape=True)
        with self._db.read() as connection:
            return int(connection.execute(select(func.count()).select_from(work).where(mine)).scalar_one())

    def due_in(self, queue: str, now: float, most: int) -> int:
        """How many rows of a queue are due, those that are worked on among them; `most` when there are more."""
        due = select(work.c.key).where(work.c.queue == queue, work.c.parked.is_(False), work.c.due_at <= now)
        rows = select(func.count()).select_from(due.limit(most).subquery())
        with self._db.read() as connection:
            return int(connection.execute(rows).scalar_one())

    def commit_backfill(self, claims: Sequence[Claim], now: float) -> None:
        """Hands studies over to the queue of studies that are read, where they are due in the order of the claims."""
        with self._db.write() as connection:
            for place, claim in enumerate(claims, -len(claims)):
                source, _, uid = claim.key.partition("/")
                try:
                    self._done(connection, claim, now)
                except LeaseLost:
                    continue
                self._hint(connection, source, [uid], now + place * _APART_S, 0.0, 0.0)

    def parked_of(self, source: str) -> int:
        """How many studies that a source has are parked, and not read or translated."""
        mine = select(holding.c.study_instance_uid).where(holding.c.source == source)
        rows = select(func.count()).where(work.c.queue == STUDY_QUEUE, work.c.parked.is_(True), work.c.key.in_(mine))
        with self._db.read() as connection:
            return int(connection.execute(rows).scalar_one())
