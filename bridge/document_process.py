"""Reads objects of documents in processes of their own: what hangs there, or eats memory, ends alone.

What comes back is JSON and the bytes of a DICOM file, nothing that can be code. A process is begun when it is needed,
reads many objects, since to begin it is dear, and ends with this one, however that ends.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Any

from bridge.confined import command, kill
from bridge.document_frames import receive, send
from bridge.document_worker import OUT_OF_MEMORY
from bridge.errors import InvalidFile, ReadingEnded, SourceUnavailable
from bridge.model import InstanceName
from bridge.observer import Ended

MOST_PROCESSES = 4
OBJECTS_OF_ONE = 1000
"""So many objects a process reads before another takes its place: what it never gave back goes with it."""

START_S, ENDS_IN_S = 60.0, 5.0
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""Nothing of ours; and no buffers, for each core of a large machine, of a library that is loaded and does nothing."""


@dataclass(frozen=True)
class ReadingLimits:
    """What the reading of one object may take: seconds, bytes of address space of its process."""

    deadline_s: float = 30.0
    memory: int = 1_073_741_824


class DocumentProcesses:
    """At most so many processes as `most` at once. `ended` is told of each that was ended over an object; `module` is
    what they run. Safe to be used by many threads."""

    def __init__(
        self,
        most: int = MOST_PROCESSES,
        limits: ReadingLimits | None = None,
        ended: Callable[[Ended], None] = lambda _why: None,
        module: str = "bridge.document_worker",
    ) -> None:
        self._limits, self._ended, self._module = limits or ReadingLimits(), ended, module
        self._room = threading.BoundedSemaphore(min(most, MOST_PROCESSES))
        self._lock, self._idle, self._closed = threading.Lock(), list[_Reader](), False

    def kept_part(self, content: bytes, name: InstanceName | None) -> bytes:
        """What `bridge.documents.objects.kept_part` gives of an object.

        Raises  InvalidFile as that does; ReadingEnded when the process took too long or too much memory, or ended;
                SourceUnavailable when no process can be begun
        """
        with self._room:
            reader = self._taken()
            try:
                told, kept = self._read(reader, content, name)
            except BaseException:
                reader.end()
                raise
            self._give_back(reader)
        if "error" in told:
            raise InvalidFile(_line(told["error"]))
        return content if told.get("kept") == "same" else kept

    def close(self) -> None:
        """Ends them. One that reads just now ends when it has read, or with this process."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for reader in idle:
            reader.end()

    def _read(self, reader: _Reader, content: bytes, name: InstanceName | None) -> tuple[dict[str, Any], bytes]:
        deadline_s = self._limits.deadline_s
        until = time.monotonic() + deadline_s
        named = list(astuple(name)) if name is not None else None
        try:
            reader.line.settimeout(deadline_s)
            send(reader.line, {"name": named, "cpu_s": deadline_s + 1}, content)
            return receive(reader.line, until)
        except TimeoutError:
            raise self._over(Ended.TIME) from None
        except (EOFError, OSError):
            code = reader.code()
            why = {OUT_OF_MEMORY: Ended.MEMORY, -signal.SIGXCPU: Ended.TIME}.get(code, Ended.CRASH)
            raise self._over(why, f"signal {-code}" if code < 0 else f"exit status {code}") from None
        except ValueError:
            raise self._over(Ended.CRASH, "an answer that is none") from None

    def _over(self, why: Ended, how: str = "") -> ReadingEnded:
        self._ended(why)
        limits = self._limits
        return ReadingEnded(
            {
                Ended.TIME: f"reading it took longer than {limits.deadline_s:g} s and was ended",
                Ended.MEMORY: f"reading it needed more than {limits.memory / 1_048_576:g} MB and was ended",
                Ended.CRASH: f"reading it ended the process that read it ({how})",
            }[why]
        )

    def _taken(self) -> _Reader:
        """One that waits, or a new one."""
        while True:
            with self._lock:
                if not self._idle:
                    break
                reader = self._idle.pop()
            if reader.process.poll() is None:
                return reader
            reader.end()
        return self._begun()

    def _give_back(self, reader: _Reader) -> None:
        reader.objects += 1
        with self._lock:
            if not self._closed and reader.objects < OBJECTS_OF_ONE:
                self._idle.append(reader)
                return
        reader.end()

    def _begun(self) -> _Reader:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(
                    command(self._module, str(self._limits.memory)),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env=_ENVIRONMENT,
                    process_group=0,
                )
        except OSError as error:
            ours.close()
            raise SourceUnavailable(f"documents: no process to read them can be begun: {error.strerror}") from None
        reader = _Reader(process, ours)
        try:
            receive(ours, time.monotonic() + START_S)
        except (EOFError, OSError, ValueError):
            reader.end()
            raise SourceUnavailable(_NOT_BEGUN) from None
        except BaseException:
            reader.end()
            raise
        return reader


@dataclass
class _Reader:
    """One process, and the socket to it."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    objects: int = 0

    def code(self) -> int:
        """How it ended. What closed its side is about to."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDS_IN_S)
        return self.end()

    def end(self) -> int:
        """Kills it if it lives; how it ended."""
        if self.process.poll() is None:
            kill(self.process)
        self.line.close()
        return self.process.wait()


def _line(words: object) -> str:
    """What the process says, which is not trusted, as a short line."""
    return "".join(c for c in str(words) if c.isprintable())[:300]


_NOT_BEGUN = "documents: the process that reads them ends as it begins: is documents.memory_mb too little?"
