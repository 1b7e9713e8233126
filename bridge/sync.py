"""The loops: changes → marks, dirty study → resources, dirty sink → delivered. Decides retry, park or stop from
the error's type alone, and knows no adapter."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial

from bridge.document_reading import Brought, Keep, bring
from bridge.documents.attached import with_documents
from bridge.documents.document import Context
from bridge.documents.objects import kept_part
from bridge.errors import Conflict, ProjectError, SourceUnavailable, Unavailable
from bridge.findings.attached import attached
from bridge.model import ALL_ROLES, Receipt, Role, StudyResult, StudyState
from bridge.observer import Nobody, Observer, Step
from bridge.ports import (
    BACKFILL_QUEUE,
    POLL_QUEUE,
    RECHECK_QUEUE,
    RETRANSLATE_QUEUE,
    STUDY_QUEUE,
    SWEEP_QUEUE,
    VERIFY_QUEUE,
    ChangePage,
    Claim,
    ImagingSource,
    KnowsTotal,
    PipelineState,
    Sink,
    TellsNoChanges,
    Wait,
    sink_queue,
)
from bridge.rounds import Round
from bridge.settling import Settling
from bridge.translate.headers import Headers
from bridge.translate.study import Translator

log = logging.getLogger("bridge.sync")

PAGES_PER_POLL = 50
SWEEP_MARKS = 500
VERIFIED_PER_PASS = 200
"""Studies counted in one verify pass: its cost does not depend on how many the archive holds."""

REPLAY_GRACE_S = 600.0
CONFLICTS_TRIED, CONFLICT_MOST_S = 5, 10.0
"""So often a study is delivered anew when somebody else changed it meanwhile, before it waits for a person; and so many
seconds later at most, however often its server was away before."""

RETRANSLATED_AT_ONCE = 500
"""So many studies wait at most because the translation changed: what changes in the archives is soon their turn."""

FED_AT_ONCE = 32
"""Studies of a backfill that wait to be read at most: what changes in the archives waits for no more of them."""

RECHECK_S = 60.0
"""Seconds between the passes in which a part of what was delivered is compared with a sink again."""


@dataclass(frozen=True)
class Timing:
    """Seconds. `quiet_s`, `max_wait_s`: when a marked study is due; `lease_s`: how long a dead worker blocks a key;
    `retry_first_s`, `retry_most_s`: the bounds of exponential backoff."""

    quiet_s: float = 3.0
    max_wait_s: float = 60.0
    lease_s: float = 30.0
    retry_first_s: float = 1.0
    retry_most_s: float = 300.0
    backfill_per_minute: float = 0.0
    """So many studies of a backfill are begun in a minute at most; 0: as fast as it goes."""
    recheck_hours: Mapping[str, float] = field(default_factory=dict)
    """sink → hours in which all that was delivered to it is compared with it once more."""


def _nothing(_stage: str) -> None:
    return None


@dataclass
class Pipeline:
    """The steps of the two loops, each safe to be killed anywhere and to be run by many threads or processes.

    `clock` gives seconds since the epoch, `random` a number from 0 to 1; `at` is told each stage as it is
    reached (tests kill the process there). Every step returns how many keys it worked on.
    """

    state: PipelineState
    sources: Mapping[str, ImagingSource]
    sinks: Mapping[str, Sink]
    translator: Translator
    timing: Timing
    clock: Callable[[], float]
    random: Callable[[], float]
    at: Callable[[str], None] = field(default=_nothing)
    check: Callable[[StudyResult], None] | None = None
    """Looks at what a translation made before it is stored; raises RejectedInput to park the study instead."""

    followed_by: Callable[[StudyResult], Mapping[str, Wait]] = field(default=lambda _result: {})
    """Queues whose work follows a study that changed, besides those of the sinks."""

    observer: Observer = field(default_factory=Nobody)
    keep: Keep = kept_part
    """Reads objects of documents: in this process, or in those of `bridge.document_process`."""

    _failing: set[str] = field(default_factory=set, init=False)
    """Sinks that could not be reached when they were last tried: circuit breakers that are open."""

    _backfill_at: float = field(default=0.0, init=False)
    """When the next studies of the backfill may be begun."""

    _superseded: bool = field(default=False, init=False)
    """Another process began to translate differently after this one: this one translates no more."""

    @property
    def settling(self) -> Settling:
        """How its steps end."""
        timing = self.timing
        return Settling(self.state, self.clock, self.random, timing.retry_first_s, timing.retry_most_s, self.observer)

    @property
    def failing_sinks(self) -> frozenset[str]:
        """Sinks that could not be reached by this process when it tried last."""
        return frozenset(self._failing)

    def prepare(self, roles: Set[Role] = ALL_ROLES) -> None:
        """What a process with these roles begins with. Rows for every source's polls and sweeps; those of sources no
        longer configured are removed. Every source is looked at now: a receiver's spool may have what a crash left out
        of the index. A server that is new is to get all that is known."""
        if Role.POLL in roles:
            self.state.ensure(POLL_QUEUE, self.sources, self.clock())
            self.state.mark(POLL_QUEUE, self.sources, self.clock())
            self.state.ensure(SWEEP_QUEUE, self.sources, self.clock())
            verified = [name for name, source in self.sources.items() if source.verify_s]
            self.state.ensure(VERIFY_QUEUE, verified, self.clock())
        if Role.WORK in roles and self.state.begin_retranslation(self.translator.fingerprint, self.clock()):
            log.warning("the translation changed: every study that is known is translated again, from what is kept")
        if Role.DELIVER in roles:
            self.state.ensure(RECHECK_QUEUE, self.timing.recheck_hours, self.clock())
            for name in (name for name, sink in self.sinks.items() if not sink.wants_rows):
                self.state.introduce(name, self.clock())

    def poll(self, worker: str) -> int:
        """Reads one due source's changes until it is caught up; its marks and its cursor commit page by page."""
        claims = self.state.claim(POLL_QUEUE, self.clock(), self.timing.lease_s, 1, worker)
        for claim in claims:
            self.settling.guarded(claim, partial(self._poll, claim))
        return len(claims)

    def sweep(self, worker: str) -> int:
        """Compares one due source's whole inventory with what is held of it and marks every difference. Studies that
        nobody knows are read when little else is due: there may be very many."""
        claims = self.state.claim(SWEEP_QUEUE, self.clock(), self.timing.lease_s, 1, worker)
        for claim in claims:
            self.settling.guarded(claim, partial(self._sweep, claim))
        return len(claims)

    def verify(self, worker: str) -> int:
        """Counts the next part of what is held of one due source in its archive and marks every difference."""
        claims = self.state.claim(VERIFY_QUEUE, self.clock(), self.timing.lease_s, 1, worker)
        for claim in claims:
            self.settling.guarded(claim, partial(self._verify, claim))
        return len(claims)

    def recheck(self, worker: str) -> int:
        """Marks the next part of what was delivered to one due sink: patients merged or registered later, and what
        others changed or deleted there, are found without a hint."""
        claims = self.state.claim(RECHECK_QUEUE, self.clock(), self.timing.lease_s, 1, worker)
        for claim in claims:
            self.settling.guarded(claim, partial(self._recheck, claim))
        return len(claims)

    def retranslate(self, worker: str) -> int:
        """Marks the next part of what is known, after the translation changed."""
        claims = self.state.claim(RETRANSLATE_QUEUE, self.clock(), self.timing.lease_s, 1, worker)
        for claim in claims:
            self.settling.guarded(claim, partial(self._retranslate, claim))
        return len(claims)

    def backfill(self, worker: str) -> int:
        """Hands over some studies of the backfill to be read, when few others are due."""
        now = self.clock()
        room = FED_AT_ONCE - self.state.due_in(STUDY_QUEUE, now, FED_AT_ONCE)
        if room < FED_AT_ONCE // 2 or now < self._backfill_at:
            return 0
        per_minute = self.timing.backfill_per_minute
        room = min(room, max(1, int(per_minute / 60))) if per_minute else room
        claims = self.state.claim(BACKFILL_QUEUE, now, self.timing.lease_s, room, worker)
        self.state.commit_backfill(claims, now)
        if per_minute:
            self._backfill_at = now + len(claims) * 60 / per_minute
        return len(claims)

    def translate(self, worker: str, limit: int = 4) -> int:
        """Reads and translates due studies; none any more once a process translates that began later and otherwise."""
        if self._superseded:
            return 0
        claims = self.state.claim(STUDY_QUEUE, self.clock(), self.timing.lease_s, limit, worker)
        if claims and self.state.translation() not in {None, self.translator.fingerprint}:
            log.warning("a process with another translation began later: this one translates no more; restart it")
            self._superseded = True
            for claim in claims:
                self.state.reschedule(claim, self.clock())
            return 0
        for claim in claims:
            self.at("claimed")
            self.settling.guarded(claim, partial(self._study, claim))
        return len(claims)

    def deliver(self, sink: str, worker: str) -> int:
        """Makes a sink match the newest state of due studies. Raises SinkUnavailable after giving them back, so
        that the caller leaves the sink alone for a while; then one study alone is tried first."""
        target = self.sinks[sink]
        limit = 1 if sink in self._failing else target.batch_size
        claims = self.state.claim(sink_queue(sink), self.clock(), self.timing.lease_s, limit, worker)
        if not claims:
            return 0
        self.at("delivery claimed")
        try:
            receipts = self.state.receipts(sink, [c.key for c in claims])
            with self.observer.step(Step.DELIVER, sink):
                outcomes = target.deliver([self._study_state(c.key, target.wants_rows, receipts) for c in claims])
        except Unavailable as error:
            self._failing.add(sink)
            for claim in claims:
                self.settling.retry(claim, error, self.timing.retry_first_s)
            raise
        except Exception as error:  # noqa: BLE001  a bug must not stop every other study: park what met it
            for claim in claims:
                self.settling.park_bug(claim, error)
            return len(claims)
        self.at("delivered")
        self._settle_deliveries(sink, claims, outcomes, receipts)
        return len(claims)

    def _settle_deliveries(
        self,
        sink: str,
        claims: Sequence[Claim],
        outcomes: Sequence[Receipt | ProjectError | None],
        before: Mapping[str, Receipt],
    ) -> None:
        unavailable: Unavailable | None = None
        settled = list(zip(claims, outcomes, strict=True))
        done = [(claim, outcome) for claim, outcome in settled if not isinstance(outcome, ProjectError)]
        if done:
            self.state.commit_delivered(sink, done, self.clock())
        for claim, receipt in done:
            changed = receipt is None or receipt != before.get(claim.key)
            self.observer.delivered(sink, changed, self._waited(claim))
        for claim, outcome in settled:
            if isinstance(outcome, Unavailable):
                unavailable = outcome
                self.settling.retry(claim, outcome, self.timing.retry_first_s)
            elif isinstance(outcome, Conflict) and claim.attempts + 1 < CONFLICTS_TRIED:
                self.settling.retry(claim, outcome, CONFLICT_MOST_S)
            elif isinstance(outcome, ProjectError):
                self.settling.park(claim, outcome)
        if unavailable is not None:
            self._failing.add(sink)
            raise unavailable
        self._failing.discard(sink)

    def _poll(self, claim: Claim) -> None:
        source = self.sources[claim.key]
        for _ in range(PAGES_PER_POLL):
            with self.observer.step(Step.POLL, claim.key):
                page = self._recounted(source, source.changes(self.state.position(claim.key)))
            self.at("changes read")
            now = self.clock()
            self.state.commit_page(claim.key, page, now, self.timing.quiet_s, self.timing.max_wait_s)
            self.observer.hinted(claim.key, Step.POLL, len(page.studies))
            self.at("marks committed")
            if page.resweep:
                log.warning("source %s was reset: comparing everything", claim.key, extra={"source": claim.key})
                self.state.mark(SWEEP_QUEUE, [claim.key], now)
            if page.caught_up:
                self.state.reschedule(claim, now + source.poll_s)
                return
            if not self.state.renew(claim, now, self.timing.lease_s):
                return
        self.state.reschedule(claim, self.clock())

    def _recounted(self, source: ImagingSource, page: ChangePage) -> ChangePage:
        """The page with those of the studies to be counted again that differ from what is held; all when that fails."""
        asked = sorted(page.recount - page.studies)
        if not asked:
            return page
        held = self.state.held_of(source.name, asked)
        try:
            now_held = source.count(asked)
        except SourceUnavailable:
            return replace(page, studies=page.studies | page.recount)
        return replace(page, studies=page.studies | {u for u in asked if now_held.get(u, 0) != held.get(u, 0)})

    def _sweep(self, claim: Claim) -> None:
        with self.observer.step(Step.SWEEP, claim.key):
            self._compare_all(claim)

    def _compare_all(self, claim: Claim) -> None:
        source, started = self.sources[claim.key], self.clock()
        held = dict(self.state.held(claim.key))
        different, unknown = set[str](), list[tuple[str, None]]()
        for study, instances in source.inventory():
            known = held.pop(study, None)
            if known is None:
                unknown.append((study, None))
            elif known != instances:
                different.add(study)
            if len(different) + len(unknown) >= SWEEP_MARKS:
                self._mark_different(claim.key, different, unknown)
                different, unknown = set(), []
                self.state.renew(claim, self.clock(), self.timing.lease_s)
        self._mark_different(claim.key, different | held.keys(), unknown)
        self.state.clear_replayed(claim.key, started - REPLAY_GRACE_S)
        self.state.reschedule(claim, self.clock() + source.sweep_s)

    def _mark_different(self, source: str, studies: Set[str], unknown: Sequence[tuple[str, None]]) -> None:
        self.state.mark_studies(source, studies, self.clock())
        self.state.backfill(source, unknown, self.clock())
        self.observer.hinted(source, Step.SWEEP, len(studies) + len(unknown))

    def _verify(self, claim: Claim) -> None:
        with self.observer.step(Step.VERIFY, claim.key):
            self._verify_next(claim)

    def _verify_next(self, claim: Claim) -> None:
        """One pass over the next studies in order of UID; after the last one the next pass begins with the first."""
        source, missing = self.sources[claim.key], self._missing(claim.key)
        begun = Round.parse(self.state.verified(claim.key)).before_pass(missing)
        held = dict(self.state.held_after(claim.key, begun.up_to, VERIFIED_PER_PASS))
        now_held = source.count(list(held)) if held else {}
        different = {uid: now_held.get(uid, 0) for uid, n in held.items() if now_held.get(uid, 0) != n}
        up_to = max(held) if len(held) == VERIFIED_PER_PASS else ""
        left = max(0, missing - sum(held[uid] - there for uid, there in different.items()))
        ended, now = begun.after_pass(up_to, left), self.clock()
        self.state.commit_verified(claim.key, different, ended.text, now)
        self.observer.hinted(claim.key, Step.VERIFY, len(different))
        if isinstance(source, TellsNoChanges):
            self.state.commit_rereads(claim.key, source.rereads_per_pass, now)
        self.state.reschedule(claim, now if ended.pressing else now + source.verify_s)

    def _missing(self, name: str) -> int:
        """How many instances the source says to hold too few, against the studies whose reading nothing waits for."""
        source = self.sources[name]
        total = source.total() if isinstance(source, KnowsTotal) else None
        return 0 if total is None else max(0, self.state.settled_instances(name) - total)

    def _recheck(self, claim: Claim) -> None:
        share = RECHECK_S / (self.timing.recheck_hours[claim.key] * 3600)
        self.state.commit_recheck(claim.key, min(share, 1.0), self.clock())
        self.state.reschedule(claim, self.clock() + RECHECK_S)

    def _retranslate(self, claim: Claim) -> None:
        self.state.commit_retranslation(claim, RETRANSLATED_AT_ONCE, self.clock())

    def _study(self, claim: Claim) -> None:
        with self.observer.step(Step.STUDY, ""):
            self._read_and_translate(claim)

    def _read_and_translate(self, claim: Claim) -> None:
        uid = claim.key
        failure = self._read(claim)
        self.at("snapshots committed")
        snapshots = self.state.snapshots(uid)
        brought = bring(self.state, self.sources, uid, snapshots, self.clock(), self.keep)
        failure = failure or brought.failure
        with self.observer.step(Step.TRANSLATE, ""):
            result = self._result(uid, snapshots, failure)
            if result is not None:
                result = self._with_findings(result, brought)
        if result is None:
            self.settling.retry(claim, failure or SourceUnavailable("nothing could be read"))
            return
        self.at("translated")
        if self.check is not None:
            self.check(result)
        plain = [name for name, sink in self.sinks.items() if not sink.wants_rows]
        with_rows = [name for name, sink in self.sinks.items() if sink.wants_rows]
        finished, followed_by = failure is None, self.followed_by(result)
        changed = self.state.commit_study(claim, result, plain, with_rows, self.clock(), finished, followed_by)
        self.observer.translated(changed, self._waited(claim))
        self.at("study committed")
        if failure is not None:
            self.settling.retry(claim, failure)

    def _read(self, claim: Claim) -> Unavailable | None:
        """Reads the study from every source that hinted at it; one that cannot answer does not hold up the others."""
        failure: Unavailable | None = None
        for source, hint in self.state.hinted(claim.key).items():
            if source not in self.sources:
                continue
            try:
                with self.observer.step(Step.READ, source):
                    headers = self.sources[source].read(claim.key)
            except Unavailable as error:
                failure = error
                continue
            self.at("headers read")
            self.state.commit_snapshot(claim, source, hint, headers, self.clock())
        return failure

    def _with_findings(self, made: StudyResult, brought: Brought) -> StudyResult:
        """The study with what its documents say and its AI results."""
        uid, site = made.study_instance_uid, self.translator.site
        results = self.state.ai_results(uid)
        reports = self.state.reader_reports(uid)
        if not brought.documents and not reports:
            made = attached(made, results, site.tables)
        else:
            previous = [r.content for r in self.state.study_resources(uid) if r.content is not None]
            context = Context(site, self.translator.order, self.translator.endpoints)
            made = with_documents(made, brought.documents, results, previous, context, reports)
        return replace(made, rejected=(*made.rejected, *brought.rejected)) if brought.rejected else made

    def _result(
        self, uid: str, snapshots: Mapping[str, Sequence[Headers]], failure: Unavailable | None
    ) -> StudyResult | None:
        """The study as all archives hold it; if none does, announced or withdrawn; None when it cannot be known now."""
        unreadable = self.state.rejections(uid)
        steps = self.state.procedure_steps(uid)
        if snapshots:
            return self.translator.translate(uid, snapshots, unreadable, steps)
        previous = [r.content for r in self.state.study_resources(uid) if r.content is not None]
        if failure is not None and (previous or not steps):
            return None
        return self.translator.without_instances(uid, previous, steps, unreadable)

    def _study_state(self, uid: str, with_rows: bool, receipts: Mapping[str, Receipt]) -> StudyState:
        resources = self.state.study_resources(uid)
        rows = self.translator.rows(uid, self.state.snapshots(uid)) if with_rows else {}
        return StudyState(uid, max((r.revision for r in resources), default=0), resources, rows, receipts.get(uid))

    def _waited(self, claim: Claim) -> float:
        return max(0.0, self.clock() - claim.first_marked_at)
