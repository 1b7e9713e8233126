"""How much waits, and since when: what is shown to those who look after the bridge."""

from __future__ import annotations

from sqlalchemy import BigInteger, and_, case, cast, func, select

from bridge.errors import StateUnavailable
from bridge.ports import Backlog, Turn
from bridge.state.schema import resource, work
from bridge.state.work import Work


class Backlogs(Work):
    """Questions about the state as a whole. Each is one statement."""

    def backlogs(self) -> list[Backlog]:
        """One for each queue that has rows, by name."""
        waits = work.c.parked.is_(False)
        counted = (
            func.sum(case((waits, 1), else_=0)),
            func.sum(case((and_(waits, work.c.attempts > 0), 1), else_=0)),
            func.sum(case((waits, 0), else_=1)),
            func.min(case((waits, work.c.first_marked_at))),
        )
        statement = select(work.c.queue, *counted).group_by(work.c.queue).order_by(work.c.queue)
        with self._db.read() as connection:
            return [Backlog(*row) for row in connection.execute(statement)]

    def turns(self, queue: str) -> dict[str, Turn]:
        """key → how its recurring work goes, of a queue with few keys (sources, sinks)."""
        columns = (work.c.key, work.c.first_marked_at, work.c.attempts, work.c.error)
        with self._db.read() as connection:
            rows = connection.execute(select(*columns).where(work.c.queue == queue))
            return {row.key: Turn(row.first_marked_at, row.attempts, row.error) for row in rows}

    def changed_studies(self, since: float, interval_s: int) -> dict[int, int]:
        """start of an interval → how many studies changed last in it, from `since` on. Seconds since the epoch."""
        numbered = resource.c.last_updated / interval_s
        start = (cast(numbered, BigInteger) if self._db.sqlite else func.floor(numbered)) * interval_s
        mine = and_(resource.c.resource_type == "ImagingStudy", resource.c.last_updated >= since)
        statement = select(start, func.count()).where(mine).group_by(start)
        with self._db.read() as connection:
            return {int(row[0]): int(row[1]) for row in connection.execute(statement)}

    def problem(self) -> str:
        """Why the database cannot answer; "" when it does."""
        try:
            with self._db.read() as connection:
                connection.execute(select(work.c.queue).limit(1)).first()
        except StateUnavailable as error:
            return str(error)
        return ""
