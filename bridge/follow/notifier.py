"""Tells the receivers of subscriptions what changed. Level-triggered: each has a position in the one history.

A change first becomes a numbered event, together with the new position; then events are sent until the receiver took
them. So numbers have no gaps, everything is told at least once, and whoever is down falls behind alone.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import orjson

from bridge.errors import InvalidQuery, SinkUnavailable, Unavailable
from bridge.follow.endpoints import is_allowed
from bridge.follow.export import groups
from bridge.follow.notification import Notification, NotificationType, bundle
from bridge.follow.ports import SUBSCRIPTION_QUEUE, Event, Subscription, SubscriptionState, SubscriptionStatus
from bridge.follow.rest_hook import Hook
from bridge.follow.subscription import Form, Payload, Wanted
from bridge.follow.versions import media_type, wanted
from bridge.model import Change, ChangeAction, Resource, StoredResource
from bridge.ports import Claim, LeaseLost
from bridge.translate.meta import with_meta
from bridge.translate.search_match import matches

log = logging.getLogger("bridge.subscriptions")

LEASE_S = 30.0
CLAIMED_AT_ONCE = 10
CHANGES_AT_ONCE = 200
BACKLOG = 1000
"""Events recorded ahead of what the receiver took: more changes wait in the history."""

CONTENT_BYTES = 4_194_304
NOTIFICATIONS_IN_A_ROW = 50
IDLE_S = 3600.0
RETRY_FIRST_S, RETRY_MOST_S = 1.0, 300.0
GIVE_BACK_AFTER_S = (0.0, 1.0, 5.0, 10.0, 30.0)
"""Together longer than a lease: a state that is away so long lets go of it by itself."""


@dataclass(frozen=True)
class NotifierSettings:
    """`base` address of the FHIR API; `endpoints` what may be notified; `give_up_s` of failures before off."""

    base: str
    endpoints: tuple[str, ...]
    give_up_s: float


class _Over(Exception):
    """The subscription ends here; the message says why."""


class Notifier:
    """Serves due subscriptions. `spread` runs a piece of work, at once or in a thread of its own."""

    def __init__(
        self,
        state: SubscriptionState,
        hook: Hook,
        settings: NotifierSettings,
        clock: Callable[[], float],
        random: Callable[[], float],
        spread: Callable[[Callable[[], None]], object] = lambda work: work(),
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._state, self._hook, self._settings = state, hook, settings
        self._clock, self._random, self._spread = clock, random, spread
        self._wait = wait
        self._seen = -1

    def step(self, worker: str) -> int:
        """Marks who is behind, and begins to serve who is due; how many."""
        newest = self._state.latest_revision()
        if newest != self._seen:
            self._state.wake_subscriptions(newest, self._clock())
            self._seen = newest
        if not self._state.due([SUBSCRIPTION_QUEUE], self._clock()):
            return 0
        claims = self._state.claim(SUBSCRIPTION_QUEUE, self._clock(), LEASE_S, CLAIMED_AT_ONCE, worker)
        for claim in claims:
            self._spread(partial(self._guarded, claim))
        return len(claims)

    def _guarded(self, claim: Claim) -> None:
        try:
            self._settle(claim)
        except LeaseLost:
            log.info("subscription %s: removed, or taken over by another worker", claim.key)
        except Unavailable as error:
            log.warning("%s", error)
            self._give_back(claim, error)
        except Exception as error:  # noqa: BLE001  a bug met by one subscription must not stop the others
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
            log.error(
                "subscription %s: unexpected %s at %s: please report this", claim.key, type(error).__name__, place
            )
            message = f"unexpected {type(error).__name__} at {place}: a bug of this program"
            self._state.park(claim, self._clock(), message, {"error": type(error).__name__, "place": place})

    def _give_back(self, claim: Claim, error: Unavailable) -> None:
        """To be tried again soon; as often as it takes, for the lease does not end while this process lives."""
        for pause_s in GIVE_BACK_AFTER_S:
            self._wait(pause_s)
            try:
                self._state.retry(claim, self._clock(), RETRY_FIRST_S, str(error))
                return
            except Unavailable:
                continue

    def _settle(self, claim: Claim) -> None:
        subscription = self._state.subscription(claim.key)
        if subscription is None or subscription.status is SubscriptionStatus.OFF:
            self._state.done(claim, self._clock())
            return
        try:
            asked = self._asked(subscription)
            due_at = self._serve(subscription, asked)
        except _Over as over:
            log.warning("subscription %s: off: %s", claim.key, over)
            self._state.note_failure(subscription, SubscriptionStatus.OFF, str(over), self._clock())
            self._state.done(claim, self._clock())
        except SinkUnavailable as error:
            self._failed(claim, subscription, error)
        else:
            self._state.reschedule(claim, due_at)

    def _asked(self, subscription: Subscription) -> Wanted:
        try:
            asked = wanted(subscription.content, subscription.fhir_version)
        except InvalidQuery as error:
            raise _Over(str(error)) from None
        if asked.end is not None and self._clock() >= asked.end:
            raise _Over("Subscription.end is over")
        if not is_allowed(asked.endpoint, self._settings.endpoints):
            raise _Over("its endpoint is not among api.subscription_endpoints any more")
        return asked

    def _failed(self, claim: Claim, tried: Subscription, error: SinkUnavailable) -> None:
        now, subscription = self._clock(), self._state.subscription(claim.key)
        if subscription is None or subscription.version != tried.version:
            self._state.reschedule(claim, now)
            return
        since = now if subscription.failing_since is None else subscription.failing_since
        if now - since >= self._settings.give_up_s:
            log.warning("subscription %s: off: its receiver %s", claim.key, error)
            self._state.note_failure(subscription, SubscriptionStatus.OFF, f"given up: {error}", now)
            self._state.done(claim, now)
            return
        log.warning("subscription %s: its receiver %s", claim.key, error)
        self._state.note_failure(subscription, SubscriptionStatus.ERROR, str(error), now)
        most = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** min(subscription.failures, 30))
        self._state.retry(claim, now, max(most * (0.5 + self._random() / 2), error.retry_after_s or 0.0), str(error))

    def _serve(self, subscription: Subscription, asked: Wanted) -> float:
        """Tells the receiver what is new; when it is due again. Raises SinkUnavailable when it does not take it."""
        current: Subscription | None = subscription
        if not subscription.greeted_at:
            current = self._greet(subscription, asked)
        for _ in range(NOTIFICATIONS_IN_A_ROW):
            current = self._recorded(current, asked) if current is not None else None
            if current is None:
                return self._clock()  # the client wrote another version meanwhile
            events = self._next_events(current, asked)
            if not events:
                return self._quiet(current, asked)
            self._tell(current, asked, events)
            current = self._state.note_taken(current, events[-1].number, self._clock())
        return self._clock()

    def _greet(self, subscription: Subscription, asked: Wanted) -> Subscription | None:
        """The handshake; the criteria form has none."""
        if asked.form is not Form.CRITERIA:
            self._post(subscription, asked, NotificationType.HANDSHAKE, ())
        return self._state.note_taken(subscription, subscription.delivered, self._clock())

    def _recorded(self, subscription: Subscription, asked: Wanted) -> Subscription | None:
        """The subscription after the next changes became events; None when it is another one by now."""
        newest = self._state.latest_revision()
        if subscription.position >= newest or subscription.events - subscription.delivered >= BACKLOG:
            return subscription
        found = self._state.changes(subscription.position, CHANGES_AT_ONCE, asked.resource_type)
        position = found[-1].revision if len(found) == CHANGES_AT_ONCE else max([newest, *(c.revision for c in found)])
        revisions = [change.revision for change in self._matching(found, asked)]
        return self._state.record_events(subscription, revisions, position)

    def _matching(self, changes: Sequence[Change], asked: Wanted) -> list[Change]:
        if asked.form is Form.CRITERIA:
            changes = [c for c in changes if c.action is not ChangeAction.DELETED]
        if not asked.query.criteria and not asked.query.ids:
            return list(changes)
        matched = []
        for group in groups(changes, CONTENT_BYTES, CHANGES_AT_ONCE):
            for change, version in zip(group, self._state.versions(group), strict=True):
                content = version.content if version.content is not None else self._content_before(change)
                if content is not None and matches(asked.query, content):
                    matched.append(change)
        return matched

    def _content_before(self, deletion: Change) -> Resource | None:
        before = self._state.read_resource(deletion.resource_type, deletion.id, deletion.version - 1)
        return None if before is None else before.content

    def _next_events(self, subscription: Subscription, asked: Wanted) -> list[Event]:
        most = 1 if asked.form is Form.CRITERIA else asked.most_events
        events = self._state.events(subscription.id, subscription.delivered, most)
        if asked.payload is not Payload.FULL_RESOURCE or not events:
            return events
        first = next(groups([event.change for event in events], CONTENT_BYTES, most))
        return events[: len(first)]

    def _tell(self, subscription: Subscription, asked: Wanted, events: Sequence[Event]) -> None:
        if asked.form is not Form.CRITERIA:
            self._post(subscription, asked, NotificationType.EVENT, events)
        elif asked.payload is Payload.EMPTY:
            self._hook.send("POST", asked.endpoint, asked.headers, b"", asked.timeout_s)
        else:
            (version,) = self._state.versions([events[0].change])
            place = f"{asked.endpoint.rstrip('/')}/{version.resource_type}/{version.id}"
            headers = [*asked.headers, ("Content-Type", media_type(subscription.fhir_version))]
            self._hook.send("PUT", place, headers, orjson.dumps(with_meta(version)), asked.timeout_s)

    def _post(
        self, subscription: Subscription, asked: Wanted, type_: NotificationType, events: Sequence[Event]
    ) -> None:
        contents: dict[int, StoredResource] = {}
        if asked.payload is Payload.FULL_RESOURCE:
            changes = [event.change for event in events]
            contents = {c.revision: v for c, v in zip(changes, self._state.versions(changes), strict=True)}
        told = Notification(subscription, asked, type_, asked.payload, self._clock(), events, contents)
        headers = [*asked.headers, ("Content-Type", media_type(subscription.fhir_version))]
        content = orjson.dumps(bundle(self._settings.base, told))
        self._hook.send("POST", asked.endpoint, headers, content, asked.timeout_s)

    def _quiet(self, subscription: Subscription, asked: Wanted) -> float:
        """Nothing is new: a heartbeat if it is time for one; when it is due again."""
        due_at = self._clock() + IDLE_S
        if asked.heartbeat_s and asked.form is not Form.CRITERIA:
            due_at = subscription.notified_at + asked.heartbeat_s
            if self._clock() >= due_at:
                self._post(subscription, asked, NotificationType.HEARTBEAT, ())
                self._state.note_taken(subscription, subscription.delivered, self._clock())
                return self._clock()  # what changed while it counted as failing was not marked: look again
        return due_at if asked.end is None else min(due_at, asked.end)
