"""Reconciles from time to time inside a bridge that runs, and when somebody asks for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from bridge.errors import Unavailable, place
from bridge.ports import Claim
from bridge.reconcile.report import Report

log = logging.getLogger("bridge.reconcile")

RECONCILE_QUEUE = "reconcile"
"""When everything is compared; key: `all`. Recurring."""

AFTER_FAILURE_S = 300.0


class ScheduleState(Protocol):
    """What of the state the schedule needs."""

    def claim(self, queue: str, now: float, lease_s: float, limit: int, worker: str) -> list[Claim]: ...

    def ensure(self, queue: str, keys: list[str], now: float) -> None: ...

    def reschedule(self, claim: Claim, due_at: float) -> None: ...

    def retry(self, claim: Claim, now: float, delay_s: float, error: str) -> None: ...

    def done(self, claim: Claim, now: float) -> None: ...

    def keep_reconciliation(self, report: str) -> None: ...


class Scheduled:
    """`reconcile` does it once. `every_s` 0: only when asked for."""

    def __init__(
        self, state: ScheduleState, reconcile: Callable[[], Report], every_s: float, clock: Callable[[], float]
    ) -> None:
        self._state, self._reconcile, self._every_s, self._clock = state, reconcile, every_s, clock
        state.ensure(RECONCILE_QUEUE, ["all"] if every_s else [], clock() + every_s)

    def step(self, worker: str, lease_s: float = 30.0) -> int:
        """Reconciles if that is due. Result: how often."""
        claims = self._state.claim(RECONCILE_QUEUE, self._clock(), lease_s, 1, worker)
        for claim in claims:
            try:
                keep(self._state, self._reconcile())
            except Unavailable as error:
                self._state.retry(claim, self._clock(), AFTER_FAILURE_S, str(error))
                continue
            except Exception as error:  # noqa: BLE001  a bug here must not stop the bridge
                where = f"unexpected {type(error).__name__} at {place(error)}: a bug of this program"
                log.error("queue %s: %s", RECONCILE_QUEUE, where)
                self._state.retry(claim, self._clock(), AFTER_FAILURE_S, where)
                continue
            if self._every_s:
                self._state.reschedule(claim, self._clock() + self._every_s)
            else:
                self._state.done(claim, self._clock())
        return len(claims)


def keep(state: ScheduleState, report: Report) -> None:
    """Keeps the report as the newest one, and logs what does not agree."""
    state.keep_reconciliation(json.dumps(report.as_json()))
    for one in report.comparisons:
        if not one.agrees:
            counts = ", ".join(f"{n} {standing}" for standing, n in sorted(one.standings.items()))
            log.warning("%s and %s do not agree: %s", one.left, one.right, one.error or counts)


def summary(report: dict[str, Any], now: float) -> dict[str, Any]:
    """A kept report without its differences; `age_s`: seconds since it was finished."""
    told = {k: v for k, v in report.items() if k != "comparisons"}
    comparisons = [{k: v for k, v in one.items() if k != "differences"} for one in report["comparisons"]]
    return told | {"age_s": round(max(0.0, now - report["finished_at"]), 1), "comparisons": comparisons}
