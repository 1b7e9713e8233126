"""How a step ends for the work it was for: done, given back, parked. Decided from the error's type alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.errors import Conflict, ProjectError, RejectedInput, SourceUnavailable, Unavailable, place
from bridge.observer import Nobody, Observer
from bridge.ports import (
    POLL_QUEUE,
    RECHECK_QUEUE,
    RETRANSLATE_QUEUE,
    SWEEP_QUEUE,
    VERIFY_QUEUE,
    Claim,
    LeaseLost,
    WorkTable,
)

log = logging.getLogger("bridge.sync")

RECURRING = frozenset({POLL_QUEUE, SWEEP_QUEUE, VERIFY_QUEUE, RECHECK_QUEUE, RETRANSLATE_QUEUE})


@dataclass(frozen=True)
class Settling:
    """`clock` gives seconds since the epoch, `random` a number from 0 to 1; retries wait `retry_first_s` at first and
    `retry_most_s` at most."""

    state: WorkTable
    clock: Callable[[], float]
    random: Callable[[], float]
    retry_first_s: float = 1.0
    retry_most_s: float = 300.0
    observer: Observer = field(default_factory=Nobody)

    def guarded(self, claim: Claim, step: Callable[[], None]) -> None:
        """Runs one step and settles its claim by the type of error it ends with."""
        try:
            step()
        except LeaseLost:
            log.info("queue %s: a lease was taken over", claim.queue, extra={"queue": claim.queue})
        except Unavailable as error:
            self.retry(claim, error)
        except RejectedInput as error:
            self.park(claim, error)
        except Exception as error:  # noqa: BLE001  a bug met by one study must not stop the others
            self.park_bug(claim, error)

    def retry(self, claim: Claim, error: Unavailable | Conflict, most_s: float | None = None) -> None:
        """Back after an exponential backoff with full jitter. What waits for a sink as a whole does not wait long by
        itself (`most_s`): the caller keeps away from the sink, and all of it is due when the sink is well again."""
        most = min(self.retry_most_s, self.retry_first_s * 2 ** min(claim.attempts, 30))
        asked = error.retry_after_s if isinstance(error, Unavailable) else None
        delay = max(self.random() * min(most, most_s or most), asked or 0.0)
        self.state.retry(claim, self.clock(), delay, str(error))
        self.observer.failed(claim.queue, parked=False)

    def park(self, claim: Claim, error: ProjectError) -> None:
        """Put aside until a person replays it, or a new mark arrives."""
        self.state.park(claim, self.clock(), str(error), {"error": type(error).__name__})
        self.observer.failed(claim.queue, parked=True)

    def park_bug(self, claim: Claim, error: Exception) -> None:
        """A bug: recorded by type and place only, since its message may quote a value. Recurring work is retried."""
        where = place(error)
        about = {"queue": claim.queue, "error": type(error).__name__, "place": where}
        log.error("queue %s: unexpected %s at %s: please report this", *about.values(), extra=about)
        message = f"unexpected {type(error).__name__} at {where}: a bug of this program"
        if claim.queue in RECURRING:
            self.retry(claim, SourceUnavailable(message))
        else:
            self.state.park(claim, self.clock(), message, {"error": type(error).__name__, "place": where})
            self.observer.failed(claim.queue, parked=True)
