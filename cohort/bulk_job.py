"""What an import remembers on disk: the server's job, its files, which of them are here, and since when to ask next.

LAKE/imports/KEY/job.json       the job under way
LAKE/imports/KEY/NNNNNN.ndjson  its finished files
LAKE/imports/KEY/since          transactionTime of the last import that was loaded
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

import orjson

from bridge.errors import ConfigError
from cohort.store.local import write


@dataclass(frozen=True)
class ExportFile:
    """One file of the manifest. kind: output, deleted or error; count: resources as the server says, or None."""

    kind: str
    resource_type: str
    url: str
    count: int | None


@dataclass(frozen=True)
class Job:
    """An export: where its status is asked, and, once it is complete, its files and the instant it is true of."""

    status_url: str
    transaction_time: str = ""
    needs_token: bool = False
    files: tuple[ExportFile, ...] = ()
    finished: frozenset[int] = field(default=frozenset())


class JobFolder:
    """The folder of one server, level and choice of types."""

    def __init__(self, imports: Path, url: str, level: str, types: tuple[str, ...]) -> None:
        asked = "\n".join((url.rstrip("/"), level, *sorted(types)))
        self.path = imports / hashlib.sha256(asked.encode()).hexdigest()[:24]
        self.path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One import at a time. Raises ConfigError when another process imports the same."""
        with (self.path / "lock").open("a") as lock:
            try:
                flock(lock, LOCK_EX | LOCK_NB)
            except OSError:
                raise ConfigError("--from-server: another process imports the same; wait for it") from None
            yield

    def since(self) -> str:
        """transactionTime of the last import that was loaded, or ""."""
        path = self.path / "since"
        return path.read_text("ascii") if path.exists() else ""

    def job(self) -> Job | None:
        """The job under way, if there is one."""
        path = self.path / "job.json"
        if not path.exists():
            return None
        raw = orjson.loads(path.read_bytes())
        files = tuple(ExportFile(**f) for f in raw["files"])
        done = frozenset(n for n in range(len(files)) if self.file(n).exists())
        return Job(raw["status_url"], raw["transaction_time"], raw["needs_token"], files, done)

    def remember(self, job: Job) -> Job:
        """On disk when this returns. Which files are here is not written: the disk says."""
        content = asdict(replace(job, finished=frozenset()))
        content.pop("finished")
        write(self.path / "job.json", orjson.dumps(content))
        return job

    def file(self, number: int) -> Path:
        """Where a finished file of the job lies."""
        return self.path / f"{number:06}.ndjson"

    def forget(self) -> None:
        """The job and its files go; since when to ask stays."""
        (self.path / "job.json").unlink(missing_ok=True)
        for path in self.path.glob("*.ndjson*"):
            path.unlink()

    def loaded(self, transaction_time: str) -> None:
        """The job's files are in the lake: the next import asks for what changed after it."""
        write(self.path / "since", transaction_time.encode())
        self.forget()

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free
