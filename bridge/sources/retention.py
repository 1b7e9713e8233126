"""What becomes of received objects afterwards: forwarded to another archive, then kept whole or as headers alone.

Each object that something is still to be done for has a marker file; it is made before the object is acknowledged and
goes when all is done, so a crash forgets nothing and at most does something twice.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pydicom import config, dcmread

from bridge.errors import Unavailable
from bridge.model import IndexedFile, Rejection
from bridge.ports import ChangePage
from bridge.sources.part10 import read_headers
from bridge.sources.preamble import TRIMMED, data_set_at, preamble
from bridge.sources.scu import Sent
from bridge.sources.spool import Spool, is_trimmed, sync_folder

log = logging.getLogger("bridge.receiver")

AT_ONCE = 100
PASS_S = 5.0
RETRY_FIRST_S, RETRY_MOST_S = 5.0, 3600.0


class Forwarder(Protocol):
    """Sends files to another archive. Raises SourceUnavailable when it takes none now."""

    def send(self, paths: Sequence[Path]) -> list[Sent]: ...


class Retention:
    """One thread that goes through the markers. `store` makes a page of changes durable; `replayed` are the keys that
    a person asked to try again. Nothing is dropped of an object before it is forwarded (if it is to be) and until
    `retain_s` seconds after it came."""

    def __init__(
        self,
        name: str,
        root: Path,
        spool: Spool,
        store: Callable[[ChangePage], None],
        clock: Callable[[], float],
        *,
        forwarder: Forwarder | None = None,
        drop_pixel_data: bool = False,
        retain_s: float = 86_400.0,
        replayed: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._name, self._spool, self._store, self._clock = name, spool, store, clock
        self._forwarder, self._drop, self._retain_s = forwarder, drop_pixel_data, retain_s
        self._replayed = replayed
        self._to_forward, self._to_drop = root / "to-forward", root / "to-drop"
        self._refused = root / "not-forwarded"
        for folder in (self._to_forward, self._to_drop, self._refused):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._wait_s, self._stopping = RETRY_FIRST_S, threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything is to be done after an object has come."""
        return self._forwarder is not None or self._drop

    def note(self, path: Path) -> None:
        """Something is to be done for this object of the spool; durable when it returns."""
        if self.wanted:
            folder = self._to_drop if self._forwarder is None else self._to_forward
            (folder / f"{path.parent.name}.{path.name}").touch(mode=0o600)
            sync_folder(folder)

    def start(self) -> None:
        if self.wanted:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name=f"retention-{self._name}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
            self._thread = None

    def work(self) -> None:
        """One pass over the markers. Raises SourceUnavailable when the peer takes none now."""
        if self._forwarder is not None:
            self._take_up_replayed()
            waiting = sorted(self._to_forward.iterdir())
            for start in range(0, len(waiting), AT_ONCE):
                self._forward(self._forwarder, waiting[start : start + AT_ONCE])
        came_before = self._clock() - self._retain_s
        with os.scandir(self._to_drop) as markers:
            due = [Path(m.path) for m in markers if not self._drop or m.stat().st_mtime <= came_before]
        for marker in due:
            path = self._object(marker)
            if self._drop and path.exists() and not is_trimmed(path):
                self._trim(path)
            marker.unlink(missing_ok=True)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            try:
                self.work()
                wait_s, self._wait_s = PASS_S, RETRY_FIRST_S
            except Unavailable as error:
                log.warning("receiver %s: objects wait to be forwarded: %s", self._name, error)
                wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, RETRY_MOST_S)
            except OSError as error:
                log.error("receiver %s: retention: %s", self._name, error.strerror)
                wait_s = RETRY_MOST_S / 60

    def _forward(self, forwarder: Forwarder, markers: Sequence[Path]) -> None:
        by_path = {self._object(m): m for m in markers}
        there = [path for path in by_path if path.exists()]
        for gone in by_path.keys() - set(there):
            by_path[gone].unlink()
        rejected = []
        for sent in forwarder.send(there):
            marker = by_path[sent.path]
            if not sent.stored:
                status = "" if sent.status is None else f"status {sent.status:04X}"
                reason = f"the archive it is forwarded to did not take the object: {sent.problem or status}"
                rejected.append(Rejection(_key(marker), reason, {"status": status}))
                marker.rename(self._refused / marker.name)
            elif self._drop:
                marker.rename(self._to_drop / marker.name)
            else:
                marker.unlink()
        keys = {_key(by_path[path]) for path in there} - {r.key for r in rejected}
        self._store(ChangePage(frozenset(), "", caught_up=True, rejected=tuple(rejected), accepted=tuple(sorted(keys))))

    def _trim(self, path: Path) -> None:
        """Replaces the file by its headers: what stands before its pixel data, marked as such in the preamble."""
        before, part = path.stat(), self._spool.part()
        with path.open("rb") as file, config.disable_value_validation():
            try:
                found = dcmread(file, stop_before_pixels=True, defer_size=65_536)
            except Exception as error:  # noqa: BLE001  the decoder raises whatever it stumbles over: it stays whole
                log.warning("receiver %s: an object stays whole: %s", self._name, type(error).__name__)
                return
            end = file.tell()
            if end == before.st_size or "PixelData" in found:
                return
            file.seek(0)
            content = file.read(end)
            start = data_set_at(content)
            content = (preamble(content, content[start:]) if start else TRIMMED.ljust(128, b"\0")) + content[128:]
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as new:
                new.write(content)
                new.flush()
                os.fsync(new.fileno())
            headers = read_headers(part)
            os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
        relative = str(path.relative_to(self._spool.studies))
        study, instance = headers.text("StudyInstanceUID"), headers.text("SOPInstanceUID")
        indexed = IndexedFile(relative, len(content), before.st_mtime_ns, study, instance)
        self._store(ChangePage(frozenset(), "", caught_up=True, files=(indexed,)))

    def _take_up_replayed(self) -> None:
        for key in self._replayed():
            name = key.removeprefix(_KEY)
            marker = self._refused / name
            if name != key and "/" not in name and marker.exists():
                marker.rename(self._to_forward / name)

    def _object(self, marker: Path) -> Path:
        study, _, name = marker.name.partition(".")
        return self._spool.studies / study[:2] / study / name


_KEY = "forward/"


def _key(marker: Path) -> str:
    return f"{_KEY}{marker.name}"
