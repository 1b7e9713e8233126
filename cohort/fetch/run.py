"""Fetches a cohort's series side by side, tries again where that may help, and says what is missing in the end."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from bridge.errors import SourceUnavailable
from cohort.fetch.folder import ImageFolder
from cohort.fetch.plan import Series
from cohort.fetch.port import Images, Progress, Refused, Stopped

ATTEMPTS = 5
"""Without any instance having come in between."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
GIVEN_UP_SERIES = 3
"""So many series after one another that nothing came of: the archive is not there, the rest is not tried."""

UNLISTED = "the lake does not list its instances, so nothing could be checked"
NOT_SENT = "the archive does not have it, or did not send it"


@dataclass(frozen=True)
class Missing:
    """What did not come of one series, and why. `instances` is empty when the lake lists none."""

    series: Series
    instances: tuple[str, ...]
    reason: str


@dataclass
class Report:
    """How a fetch ended. `wanted` and `held` count instances; `refused` reason → objects that were left out."""

    wanted: int = 0
    held: int = 0
    missing: list[Missing] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    stopped: bool = False


class Fetch:
    """One run. `stop` ends it soon; what came until then stays. `wait` waits so many seconds, or until `stop`."""

    def __init__(
        self,
        images: Images,
        folder: ImageFolder,
        progress: Progress,
        stop: threading.Event,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._images, self._folder, self._stop = images, folder, stop
        self._progress = _Counting(progress)
        self._wait = wait or stop.wait
        self._lock = threading.Lock()
        self._failures: dict[tuple[str, ...], int] = {}
        self._dead: dict[tuple[str, ...], str] = {}

    def run(self, wanted: Sequence[Series], parallel: int) -> Report:
        """Fetches what is missing, `parallel` series at a time."""
        with ThreadPoolExecutor(parallel, thread_name_prefix="fetch") as pool:
            try:
                reasons = list(pool.map(self._series, wanted))
            except BaseException:
                self._stop.set()
                raise
        return self._report(wanted, reasons)

    def _report(self, wanted: Sequence[Series], reasons: Sequence[str]) -> Report:
        report = Report(stopped=self._stop.is_set(), refused=dict(self._progress.refusals))
        for series, reason in zip(wanted, reasons, strict=True):
            missing = tuple(sorted(self._folder.missing(series)))
            report.wanted += len(series.instances)
            report.held += len(series.instances) - len(missing)
            if missing or not series.instances:
                report.missing.append(Missing(series, missing, reason or NOT_SENT))
        return report

    def _series(self, series: Series) -> str:
        """Why something is missing; "" when nothing is."""
        if not series.instances:
            return UNLISTED
        missing = self._folder.missing(series)
        if not missing:
            return ""
        if self._stop.is_set():
            return "it was ended before this was fetched"
        if series.addresses in self._dead:
            return self._dead[series.addresses]
        try:
            reason = self._tried(series, len(missing))
        except Stopped:
            return "it was ended while this was fetched"
        self._folder.settle(series)
        return reason

    def _tried(self, series: Series, missing: int) -> str:
        reason, attempt, before = "", 0, missing
        while missing and attempt < ATTEMPTS and not self._stop.is_set():
            asked_s: float | None = None
            try:
                self._images.retrieve(series, self._folder, self._progress)
                reason = ""
            except Refused as error:
                if error.all_of_it:
                    self._count(series, str(error), missing < before)
                return str(error)
            except SourceUnavailable as error:
                reason, asked_s = str(error), error.retry_after_s
            left = len(self._folder.missing(series))
            if left == missing and not reason:
                break
            attempt = 1 if left < missing else attempt + 1
            missing = left
            if missing and reason and attempt < ATTEMPTS:
                self._wait(_pause(attempt, asked_s))
        self._count(series, reason, missing < before)
        return reason if missing else ""

    def _count(self, series: Series, reason: str, progressed: bool) -> None:
        """Notices an archive that is not there: then what else it should have is not tried."""
        with self._lock:
            failures = 0 if progressed or not reason else self._failures.get(series.addresses, 0) + 1
            self._failures[series.addresses] = failures
            if failures >= GIVEN_UP_SERIES:
                said = f"not tried: nothing came of {GIVEN_UP_SERIES} series after one another ({reason})"
                self._dead[series.addresses] = said


def _pause(attempt: int, asked_s: float | None) -> float:
    """Seconds: what the archive asked for, else twice as long each time, with jitter so that peers do not meet."""
    if asked_s is not None:
        return asked_s
    return float(min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S)) * random.uniform(0.5, 1.0)  # noqa: S311


class _Counting:
    """Passes on what is told, and counts what was left out by reason."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self.refusals: dict[str, int] = {}

    def received(self, size: int) -> None:
        self._progress.received(size)

    def kept(self) -> None:
        self._progress.kept()

    def refused(self, problem: str) -> None:
        with self._lock:
            self.refusals[problem] = self.refusals.get(problem, 0) + 1
        self._progress.refused(problem)
