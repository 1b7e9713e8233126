"""Whether a bridge is alive and ready. Every check is bounded in time, and none is started twice while it hangs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import ProjectError
from bridge.telemetry.bounded import Bounded

ANSWER_WITHIN_S = 2.0
"""What has not answered by then counts as away."""

KEPT_S = 1.0
"""A verdict serves so long: however many ask, peers are looked at once a second at most."""

STATE = "state"

Check = Callable[[], str]
"""What is wrong, in words without any value; "" when nothing is."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of some checks.

    Result  `problems` name → what is wrong with it; "" for those that are well

    >>> Verdict({"state": "", "source pacs": "connection refused"}).well
    False
    """

    problems: Mapping[str, str]

    @property
    def well(self) -> bool:
        return not any(self.problems.values())

    def only(self, *names: str) -> Verdict:
        return Verdict({name: self.problems[name] for name in names})


class Readiness:
    """Runs all checks side by side, when somebody asks."""

    def __init__(self, checks: Mapping[str, Check], clock: Callable[[], float] = time.monotonic) -> None:
        self._checks = {name: Bounded(check) for name, check in checks.items()}
        self._clock, self._lock = clock, threading.Lock()
        self._kept, self._kept_at = Verdict({}), float("-inf")

    def verdict(self) -> Verdict:
        """How things are, not older than KEPT_S; takes ANSWER_WITHIN_S at most."""
        with self._lock:
            if self._clock() - self._kept_at >= KEPT_S:
                self._kept = self._looked()
                self._kept_at = self._clock()
            return self._kept

    def _looked(self) -> Verdict:
        running = {name: check.begin() for name, check in self._checks.items()}
        done, _ = wait(running.values(), ANSWER_WITHIN_S)
        hangs = f"no answer within {ANSWER_WITHIN_S:g} s"
        return Verdict({name: _problem(future.exception(), future.result) if future in done else hangs
                        for name, future in running.items()})  # fmt: skip


def _problem(error: BaseException | None, result: Callable[[], str]) -> str:
    if error is None:
        return result()
    return str(error) if isinstance(error, ProjectError) else f"unexpected {type(error).__name__}"


def connects(host: str, port: int) -> Check:
    """That somebody listens there. Nothing is sent."""

    def check() -> str:
        try:
            with socket.create_connection((host, port), timeout=ANSWER_WITHIN_S):
                return ""
        except TimeoutError:
            return "no connection in time"
        except OSError as error:
            return "connection refused" if isinstance(error, ConnectionRefusedError) else "it cannot be connected to"

    return check


def is_there(folder: Path) -> Check:
    """That a folder can be looked into; one on a server that hangs is bounded by whoever runs the check."""

    def check() -> str:
        try:
            next(folder.iterdir(), None)
        except OSError as error:
            return f"the folder cannot be read: {error.strerror}"
        return ""

    return check


def first_of(*checks: Check) -> Check:
    """The first problem that one of them has."""
    return lambda: next(filter(None, (check() for check in checks)), "")
