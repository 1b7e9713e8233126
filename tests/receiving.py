"""Our own receiver, running, with its objects routed as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge.ports import ChangePage
from bridge.sources.receiver import Receiver
from bridge.sources.spool import Spool
from bridge.state import State
from tests.services.peers import free_port


class Receiving:
    """The receiver and what it made its own."""

    def __init__(self, folder: Path, takes: Callable[[str, str, str], Spool | None], port: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port
        self._state = State(f"sqlite:///{folder / 'state.sqlite'}")
        self._receiver = Receiver(
            "receiver",
            folder / "spool",
            self._state,
            self._store,
            lambda: 1e9,
            port=self.port,
            minimum_free_bytes=0,
            route=lambda origin, study: takes(origin.calling_ae_title, origin.move_originator, study),
        )
        self._receiver.start()

    def held(self) -> dict[str, int]:
        """Studies it keeps as its own, with their numbers of instances."""
        assert self._receiver.settled()
        return dict(self._receiver.inventory())

    def close(self) -> None:
        self._receiver.stop()
        self._state.close()

    def _store(self, page: ChangePage) -> None:
        self._state.commit_page("receiver", page, 1.0, 0, 0)


@contextmanager
def receiving(folder: Path, takes: Callable[[str, str, str], Spool | None], port: int = 0) -> Iterator[Receiving]:
    """A receiver, on a free port unless one is given, until the block ends."""
    running = Receiving(folder, takes, port or free_port())
    try:
        yield running
    finally:
        running.close()
