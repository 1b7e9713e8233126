"""Asks the API of the bridges all through the faults, as a client does that knows every address and tries again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

ANSWER_WITHIN_S = 10.0
"""For so long a client tries again, at one address after the other."""

TRY_FOR_S = 2.0
PAUSE_S = 0.1
ASK_EVERY_S = 0.15
SEARCH, READY = "/fhir/ImagingStudy?_count=5", "/readyz"


@dataclass
class Probed:
    """`requests` were valid; `unanswered` of them got no right answer in time; `wrong` a wrong one in a try: a status
    other than 200 and 503, or content that was not asked for. `first` were answered at the first try."""

    requests: int = 0
    unanswered: int = 0
    wrong: int = 0
    first: int = 0
    longest_s: float = 0.0

    def add(self, other: Probed) -> None:
        self.requests += other.requests
        self.unanswered += other.unanswered
        self.wrong += other.wrong
        self.first += other.first
        self.longest_s = max(self.longest_s, other.longest_s)


class _Prober:
    def __init__(self, addresses: Sequence[str]) -> None:
        self.found, self._addresses, self._id = Probed(), addresses, ""
        self.stop = threading.Event()

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=TRY_FOR_S) as client:
            while not self.stop.wait(ASK_EVERY_S):
                for path in (SEARCH, f"/fhir/ImagingStudy/{self._id}" if self._id else SEARCH, READY):
                    self._ask(client, path)

    def _ask(self, client: httpx.Client, path: str) -> None:
        began, tries, wrong, answered = time.monotonic(), 0, False, False
        while not answered and time.monotonic() - began < ANSWER_WITHIN_S and not self.stop.is_set():
            if tries:
                self.stop.wait(PAUSE_S)
            answer = _answer(client, self._addresses[tries % len(self._addresses)] + path)
            tries += 1
            answered = answer is not None and self._is_right(path, answer)
            wrong = wrong or (answer is not None and not answered and answer.status_code != 503)
        if self.stop.is_set() and not answered:
            return
        took_s = time.monotonic() - began
        self.found.add(Probed(1, int(not answered), int(wrong), int(answered and tries == 1), took_s))

    def _is_right(self, path: str, answer: httpx.Response) -> bool:
        content = _json(answer)
        if path == READY:  # "not ready" is an answer
            return "well" in content
        if answer.status_code != 200:
            return False
        if path == SEARCH:
            self._id = next((str(one["resource"]["id"]) for one in content.get("entry", [])), self._id)
            return bool(content.get("resourceType") == "Bundle")
        return bool(content.get("id") == path.rpartition("/")[2])


def _answer(client: httpx.Client, url: str) -> httpx.Response | None:
    try:
        return client.get(url)
    except httpx.TransportError:
        return None


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def probing(addresses: Sequence[str]) -> Iterator[Probed]:
    """Asks until the block ends; what was found is complete then."""
    prober = _Prober(addresses)
    thread = threading.Thread(target=prober.run)
    thread.start()
    try:
        yield prober.found
    finally:
        prober.stop.set()
        thread.join()
