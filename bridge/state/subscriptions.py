"""Subscriptions, their numbered events, and how far each receiver has been told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, case, delete, func, insert, select, update

from bridge.follow.ports import SUBSCRIPTION_QUEUE, Event, Subscription, SubscriptionStatus
from bridge.model import Resource
from bridge.state.changes import change, changes_statement
from bridge.state.exports import Exports
from bridge.state.schema import resource_version, subscription, subscription_event, work
from bridge.state.work import BATCH

EVENTS_KEPT = 10_000
"""Events of a subscription that its receiver took already and can still ask for."""


class Subscriptions(Exports):
    """Subscriptions over one database."""

    def add_subscription(self, new: Subscription, most: int, now: float) -> bool:
        """Stores it, to be told what changes from now on; False when there are `most` already."""
        with self._db.write() as connection:
            self._db.one_after_another(connection)
            if connection.execute(select(func.count()).select_from(subscription)).scalar_one() >= most:
                return False
            newest = connection.execute(select(func.max(resource_version.c.revision))).scalar() or 0
            values = asdict(new) | {"content": orjson.dumps(new.content), "position": newest}
            connection.execute(insert(subscription).values(**values))
            self._mark(connection, SUBSCRIPTION_QUEUE, [new.id], now, 0.0, 0.0)
        return True

    def subscription(self, id_: str) -> Subscription | None:
        """One subscription; None when there is none."""
        with self._db.read() as connection:
            row = connection.execute(select(subscription).where(subscription.c.id == id_)).one_or_none()
        return None if row is None else _subscription(row)

    def subscriptions(self) -> list[Subscription]:
        """All of them, oldest first."""
        statement = select(subscription).order_by(subscription.c.created_at, subscription.c.id)
        with self._db.read() as connection:
            return [_subscription(row) for row in connection.execute(statement)]

    def change_subscription(
        self, old: Subscription, content: Resource, status: SubscriptionStatus, now: float
    ) -> Subscription | None:
        """The client's next version of it, which begins with a handshake; None when another one came before."""
        values = {
            "version": old.version + 1, "content": orjson.dumps(content), "status": status.value, "updated_at": now,
            "error": "", "greeted_at": 0.0, "failures": 0, "failing_since": None,
        }  # fmt: skip
        changed = update(subscription).where(_same(old)).values(**values).returning(subscription)
        with self._db.write() as connection:
            row = connection.execute(changed).one_or_none()
            if row is not None:
                self._mark(connection, SUBSCRIPTION_QUEUE, [old.id], now, 0.0, 0.0)
        return None if row is None else _subscription(row)

    def remove_subscription(self, id_: str) -> bool:
        """Forgets it and its events; False when there is none."""
        with self._db.write() as connection:
            connection.execute(delete(work).where(work.c.queue == SUBSCRIPTION_QUEUE, work.c.key == id_))
            connection.execute(delete(subscription_event).where(subscription_event.c.subscription == id_))
            return connection.execute(delete(subscription).where(subscription.c.id == id_)).rowcount == 1

    def wake_subscriptions(self, revision: int, now: float) -> None:
        """Marks those that work and have not seen this revision. Those that fail are tried at their own pace."""
        behind = select(subscription.c.id).where(
            subscription.c.status == SubscriptionStatus.ACTIVE.value, subscription.c.position < revision
        )
        with self._db.read() as connection:
            ids = connection.execute(behind).scalars().all()
        if ids:
            self.mark(SUBSCRIPTION_QUEUE, ids, now)

    def record_events(self, old: Subscription, revisions: Sequence[int], position: int) -> Subscription | None:
        """Gives the next numbers to these revisions, and moves on to the position; None when `old` is outdated."""
        numbered = [
            {"subscription": old.id, "number": number, "revision": revision}
            for number, revision in enumerate(revisions, old.events + 1)
        ]
        here = _same(old) & (subscription.c.position == old.position) & (subscription.c.events == old.events)
        moved = update(subscription).where(here).values(position=position, events=old.events + len(numbered))
        with self._db.write() as connection:
            row = connection.execute(moved.returning(subscription)).one_or_none()
            if row is not None and numbered:
                connection.execute(insert(subscription_event), numbered)
        return None if row is None else _subscription(row)

    def events(self, id_: str, after: int, limit: int) -> list[Event]:
        """The next events after a number, in order, as far as they are kept."""
        mine = (
            select(subscription_event.c.number, subscription_event.c.revision)
            .where(subscription_event.c.subscription == id_, subscription_event.c.number > after)
            .order_by(subscription_event.c.number)
            .limit(limit)
        )
        with self._db.read() as connection:
            numbers = {row.revision: row.number for row in connection.execute(mine)}
            found: list[Event] = []
            revisions = sorted(numbers)
            for start in range(0, len(revisions), BATCH):
                some = resource_version.c.revision.in_(revisions[start : start + BATCH])
                rows = connection.execute(changes_statement().where(some).order_by(resource_version.c.revision))
                found += [Event(numbers[row.revision], change(row)) for row in rows]
        return found

    def note_taken(self, old: Subscription, delivered: int, now: float) -> Subscription | None:
        """The receiver took everything up to an event. Older events that it took long ago are forgotten."""
        values = {
            "status": SubscriptionStatus.ACTIVE.value, "error": "", "delivered": delivered, "notified_at": now,
            "failures": 0, "failing_since": None,
            "greeted_at": case((subscription.c.greeted_at > 0, subscription.c.greeted_at), else_=now),
        }  # fmt: skip
        forgotten = delete(subscription_event).where(
            subscription_event.c.subscription == old.id, subscription_event.c.number <= delivered - EVENTS_KEPT
        )
        with self._db.write() as connection:
            connection.execute(forgotten)
            noted = update(subscription).where(_same(old)).values(**values).returning(subscription)
            row = connection.execute(noted).one_or_none()
        return None if row is None else _subscription(row)

    def note_failure(self, old: Subscription, status: SubscriptionStatus, error: str, now: float) -> None:
        """The receiver could not be told: why, and whether that was the last try (off)."""
        since = case((subscription.c.failing_since.is_(None), now), else_=subscription.c.failing_since)
        values = {
            "status": status.value, "error": error, "failures": subscription.c.failures + 1, "failing_since": since,
        }  # fmt: skip
        with self._db.write() as connection:
            connection.execute(update(subscription).where(_same(old)).values(**values))


def _same(old: Subscription) -> ColumnElement[bool]:
    return and_(subscription.c.id == old.id, subscription.c.version == old.version)


def _subscription(row: Any) -> Subscription:
    plain = dict(row._mapping)
    return Subscription(**plain | {"content": orjson.loads(row.content), "status": SubscriptionStatus(row.status)})
