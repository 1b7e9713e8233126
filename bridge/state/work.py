"""The work table: mark, claim, done, retry, park. One keyed row per piece of work that must survive a crash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from bridge.errors import InvalidQuery
from bridge.model import Rejection
from bridge.ports import Claim, LeaseLost, WorkItem
from bridge.state.database import Database
from bridge.state.schema import work

BATCH = 500
ANALYZED_EVERY_S = 60.0


class Work:
    """The work table over one database. All times are seconds since the epoch and come from the caller."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._analyzed_at = float("-inf")

    def mark(self, queue: str, keys: Iterable[str], now: float, quiet_s: float = 0.0, max_wait_s: float = 0.0) -> None:
        """Make keys dirty. The same key coalesces: due once no mark came for `quiet_s`, but never later than
        `max_wait_s` after the first mark; the generation grows; a parked key is tried again."""
        with self._db.write() as connection:
            self._mark(connection, queue, keys, now, quiet_s, max_wait_s)

    def _mark(
        self,
        connection: Connection,
        queue: str,
        keys: Iterable[str],
        now: float,
        quiet_s: float,
        max_wait_s: float,
        since: float | None = None,
    ) -> None:
        """`since`: when that was marked which this mark follows from, so that the age of work is that of the change."""
        first, due = now if since is None else since, now + quiet_s
        rows = [
            {"queue": queue, "key": k, "generation": 1, "due_at": due, "first_marked_at": first, "attempts": 0}
            for k in sorted(set(keys))
        ]
        statement = self._insert(work)
        latest = work.c.first_marked_at + max(max_wait_s, quiet_s)
        statement = statement.on_conflict_do_update(
            index_elements=[work.c.queue, work.c.key],
            set_={
                "generation": work.c.generation + 1,
                "due_at": case((latest < now + quiet_s, latest), else_=now + quiet_s),
                "attempts": 0,
                "parked": False,
            },
        )
        for start in range(0, len(rows), BATCH):
            connection.execute(statement, rows[start : start + BATCH])

    def _insert(self, table: Any) -> Any:
        return sqlite.insert(table) if self._db.sqlite else postgresql.insert(table)

    def claim(self, queue: str, now: float, lease_s: float, limit: int, worker: str) -> list[Claim]:
        """Lease up to `limit` due keys to `worker`, oldest first; nobody else gets them until the lease ends."""
        free = or_(work.c.leased_until.is_(None), work.c.leased_until <= now)
        due = (
            select(work.c.key)
            .where(work.c.queue == queue, work.c.parked.is_(False), work.c.due_at <= now, free)
            .order_by(work.c.due_at, work.c.key)
            .limit(limit)
        )
        if self._db.sqlite and not self._any(due):  # looking must not wait for its one writer
            return []
        chosen = due.with_for_update(skip_locked=True).cte()
        lease = (
            update(work)
            .where(work.c.queue == queue, work.c.key == chosen.c.key)
            .values(leased_by=worker, leased_until=now + lease_s)
            .returning(work.c.key, work.c.generation, work.c.attempts, work.c.due_at, work.c.first_marked_at)
        )
        with self._db.write(durable=False) as connection:
            found = sorted(connection.execute(lease), key=lambda row: (row.due_at, row.key))
        if len(found) == limit and not self._db.sqlite:
            self._analyze(now)
        return [Claim(queue, r.key, r.generation, r.attempts, worker, r.first_marked_at) for r in found]

    def _analyze(self, now: float) -> None:
        """There is a backlog: PostgreSQL gathers what it plans claims by. Its own daemon looks once a minute; until
        then a backlog that grew in seconds is read and sorted whole for each claim. Waits for no vacuum, ends none."""
        if abs(now - self._analyzed_at) >= ANALYZED_EVERY_S:
            with self._db.write(durable=False) as connection:
                connection.exec_driver_sql("ANALYZE (SKIP_LOCKED) work")
            self._analyzed_at = now

    def _any(self, due: Select[Any]) -> bool:
        with self._db.read() as connection:
            return connection.execute(due.limit(1)).first() is not None

    def due(self, queues: Sequence[str], now: float) -> frozenset[str]:
        """Those of the queues that have a key to claim now. One question, however many queues."""
        with self._db.read() as connection:
            return frozenset(connection.execute(_any_due(tuple(queues)), {"now": now}).scalars())

    def renew_process(self, process: str, now: float, lease_s: float) -> None:
        """Extend every lease that workers of this process (`process/…`) hold: they are alive."""
        mine = work.c.leased_by.startswith(f"{process}/", autoescape=True)
        with self._db.write(durable=False) as connection:
            connection.execute(update(work).where(mine, work.c.leased_until > now).values(leased_until=now + lease_s))

    def give_back(self, worker: str) -> None:
        """End every lease that this worker holds: it works on nothing, whatever it was told of its claims."""
        with self._db.write() as connection:
            mine = work.c.leased_by == worker
            connection.execute(update(work).where(mine).values(leased_by=None, leased_until=None))

    def move_back(self, back_s: float, now: float, lease_s: float) -> None:
        """The clock went back by so many seconds and shows `now`: what is due later is due so much earlier, and no
        lease lasts longer than `lease_s`. Done by each of several processes it only makes things due sooner."""
        earlier = work.c.due_at - back_s
        moved = case((work.c.due_at <= now, work.c.due_at), (earlier < now, now), else_=earlier)
        marked = case((work.c.first_marked_at > now, now), else_=work.c.first_marked_at)
        leased = case((work.c.leased_until > now + lease_s, now + lease_s), else_=work.c.leased_until)
        later = or_(work.c.due_at > now, work.c.first_marked_at > now, work.c.leased_until > now + lease_s)
        statement = update(work).where(later, work.c.parked.is_(False))
        with self._db.write() as connection:
            connection.execute(statement.values(due_at=moved, first_marked_at=marked, leased_until=leased))

    def release_leases(self) -> None:
        """Free what dead processes held. Only for the one process that has the database to itself."""
        with self._db.write() as connection:
            connection.execute(
                update(work).where(work.c.leased_by.is_not(None)).values(leased_by=None, leased_until=None)
            )

    def renew(self, claim: Claim, now: float, lease_s: float) -> bool:
        """Extend the lease; False when it is no longer ours."""
        with self._db.write(durable=False) as connection:
            statement = update(work).where(held_by(claim)).values(leased_until=now + lease_s)
            return connection.execute(statement).rowcount == 1

    def done(self, claim: Claim, now: float) -> None:
        """Remove the key if nothing marked it since the claim; else it stays dirty. Raises LeaseLost."""
        with self._db.write() as connection:
            self._done(connection, claim, now)

    def _done(self, connection: Connection, claim: Claim, now: float) -> None:
        if not self._finish(connection, [claim], now):
            raise LeaseLost

    def _still_held(self, connection: Connection, claim: Claim) -> None:
        """Nobody else gets the key until the transaction ends. Raises LeaseLost."""
        if connection.execute(select(work.c.key).where(held_by(claim)).with_for_update()).first() is None:
            raise LeaseLost

    def _finish(self, connection: Connection, claims: Sequence[Claim], now: float) -> frozenset[str]:
        """Ends claims that one worker has in one queue. Result: the keys of those whose lease had not been lost."""
        held: set[str] = set()
        for start in range(0, len(claims), BATCH):
            some = claims[start : start + BATCH]
            mine = (work.c.queue == some[0].queue) & (work.c.leased_by == some[0].worker)
            theirs = work.c.key.in_([c.key for c in some])  # SQLite looks rows up by this, and not by the next
            unchanged = tuple_(work.c.key, work.c.generation).in_([(c.key, c.generation) for c in some])
            finished = delete(work).where(mine, theirs, unchanged).returning(work.c.key)
            gone = set(connection.execute(finished).scalars())
            again = [c.key for c in some if c.key not in gone]
            if again:
                released = update(work).where(mine, work.c.key.in_(again)).returning(work.c.key)
                values = {"leased_by": None, "leased_until": None, "attempts": 0, "error": "", "evidence": None}
                held |= set(connection.execute(released.values(first_marked_at=now, **values)).scalars())
            held |= gone
        return frozenset(held)

    def retry(self, claim: Claim, now: float, delay_s: float, error: str) -> None:
        """Give the key back, due again after `delay_s`. A newer mark is not delayed."""
        delayed = case((work.c.generation == claim.generation, now + delay_s), else_=work.c.due_at)
        self._release(claim, due_at=delayed, attempts=work.c.attempts + 1, error=error)

    def reschedule(self, claim: Claim, due_at: float) -> None:
        """Give a recurring key back after success, due again at `due_at`. A newer mark is not delayed."""
        due = case((work.c.generation == claim.generation, due_at), else_=work.c.due_at)
        self._release(claim, due_at=due, attempts=0, error="", first_marked_at=due_at, evidence=None)

    def park(self, claim: Claim, now: float, error: str, evidence: Mapping[str, str | int]) -> None:
        """Put the key aside with its error and evidence until a person replays it or a new mark arrives."""
        unchanged = work.c.generation == claim.generation
        self._release(
            claim,
            parked=case((unchanged, True), else_=False),
            attempts=work.c.attempts + 1,
            error=error,
            evidence=orjson.dumps(dict(evidence)),
            due_at=case((unchanged, now), else_=work.c.due_at),
        )

    def _release(self, claim: Claim, **values: Any) -> None:
        with self._db.write() as connection:
            connection.execute(update(work).where(held_by(claim)).values(leased_by=None, leased_until=None, **values))

    def ensure(self, queue: str, keys: Iterable[str], now: float) -> None:
        """Recurring work (polls, sweeps): there is a row for each key, due now if it is new; others are removed."""
        wanted = set(keys)
        with self._db.write() as connection:
            there = set(connection.execute(select(work.c.key).where(work.c.queue == queue)).scalars())
            self._mark(connection, queue, wanted - there, now, 0.0, 0.0)
            connection.execute(delete(work).where(work.c.queue == queue, work.c.key.in_(there - wanted)))

    def _park_rejections(self, connection: Connection, queue: str, rejected: Sequence[Rejection], now: float) -> None:
        rows = [
            {
                "queue": queue, "key": r.key, "generation": 1, "due_at": now, "first_marked_at": now, "attempts": 1,
                "parked": True, "error": r.error, "evidence": orjson.dumps(dict(r.evidence)),
            }
            for r in rejected
        ]  # fmt: skip
        statement = self._insert(work)
        statement = statement.on_conflict_do_update(
            index_elements=[work.c.queue, work.c.key],
            set_={name: statement.excluded[name] for name in ("parked", "error", "evidence", "due_at")},
        )
        for start in range(0, len(rows), BATCH):
            connection.execute(statement, rows[start : start + BATCH])

    def items(self, *, parked: bool | None = None, queue: str | None = None, limit: int = 1000) -> list[WorkItem]:
        """Rows as people see them, oldest first."""
        statement: Select[Any] = select(work).order_by(work.c.first_marked_at, work.c.queue, work.c.key).limit(limit)
        if parked is not None:
            statement = statement.where(work.c.parked.is_(parked))
        if queue is not None:
            statement = statement.where(work.c.queue == queue)
        with self._db.read() as connection:
            return [_item(row) for row in connection.execute(statement)]

    def parked_item(self, queue: str, key: str) -> WorkItem:
        """One parked row. Raises InvalidQuery when there is none."""
        with self._db.read() as connection:
            row = connection.execute(select(work).where(_parked(queue, key))).one_or_none()
        if row is None:
            raise _not_parked(queue)
        return _item(row)

    def troubled(self, limit: int = 1000) -> list[WorkItem]:
        """Rows that fail or are parked, those first that were tried last."""
        statement = select(work).where(or_(work.c.parked.is_(True), work.c.attempts > 0))
        with self._db.read() as connection:
            ordered = statement.order_by(work.c.due_at.desc(), work.c.queue, work.c.key).limit(limit)
            return [_item(row) for row in connection.execute(ordered)]

    def depth(self) -> list[tuple[str, int, int, int, float]]:
        """queue, rows waiting, rows parked, rows failing (tried and not parked), oldest first mark; by queue."""
        waiting = func.sum(case((work.c.parked.is_(False), 1), else_=0))
        parked = func.sum(case((work.c.parked.is_(True), 1), else_=0))
        failing = func.sum(case((and_(work.c.parked.is_(False), work.c.attempts > 0), 1), else_=0))
        statement = select(work.c.queue, waiting, parked, failing, func.min(work.c.first_marked_at)).group_by(
            work.c.queue
        )
        with self._db.read() as connection:
            return [tuple(row) for row in connection.execute(statement.order_by(work.c.queue))]

    def replay(self, queue: str, key: str, now: float) -> None:
        """Try a parked row again now. Raises InvalidQuery when there is no such parked row."""
        statement = (
            update(work)
            .where(_parked(queue, key))
            .values(parked=False, due_at=now, attempts=0, generation=work.c.generation + 1, first_marked_at=now)
        )
        with self._db.write() as connection:
            if connection.execute(statement).rowcount != 1:
                raise _not_parked(queue)

    def discard(self, queue: str, key: str) -> None:
        """Forget a parked row; a new mark makes it anew. Raises InvalidQuery when there is no such parked row."""
        with self._db.write() as connection:
            if connection.execute(delete(work).where(_parked(queue, key))).rowcount != 1:
                raise _not_parked(queue)


def _parked(queue: str, key: str) -> Any:
    return and_(work.c.queue == queue, work.c.key == key, work.c.parked.is_(True))


def _not_parked(queue: str) -> InvalidQuery:
    return InvalidQuery(f"nothing parked in queue {queue} under this key")


@lru_cache(maxsize=64)
def _any_due(queues: tuple[str, ...]) -> Any:
    now: BindParameter[float] = bindparam("now")
    free = or_(work.c.leased_until.is_(None), work.c.leased_until <= now)
    due = and_(work.c.parked.is_(False), work.c.due_at <= now, free)
    return union_all(*(select(literal(q)).where(exists().where(work.c.queue == q, due)) for q in queues))


def held_by(claim: Claim) -> Any:
    """The condition that a claim's row is still leased to its worker."""
    return and_(work.c.queue == claim.queue, work.c.key == claim.key, work.c.leased_by == claim.worker)


def _item(row: Any) -> WorkItem:
    return WorkItem(
        row.queue, row.key, row.generation, row.due_at, row.first_marked_at, row.attempts, row.leased_until,
        bool(row.parked), row.error, orjson.loads(row.evidence) if row.evidence else {},
    )  # fmt: skip
