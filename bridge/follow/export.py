"""Writes exports: NDJSON files of everything that was held at one point of the history.

    FOLDER/JOB.part/    being written
    FOLDER/JOB/         whole: what the finished job lists

The point is fixed when a job is accepted, so a job that was interrupted is simply written anew, and is the same.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from bridge.errors import Unavailable
from bridge.follow.ports import EXPORT_QUEUE, ExportFile, ExportJob, ExportState
from bridge.model import Change, ChangeAction, Resource
from bridge.ports import Claim, LeaseLost
from bridge.translate.meta import with_meta

log = logging.getLogger("bridge.export")

LEASE_S = 30.0
CLEAN_EVERY_S = 60.0
RETRY_S = 5.0
GROUP_BYTES, GROUP_RESOURCES = 4_194_304, 500
"""Contents read at once: bounds memory, whatever the number of resources."""

DELETIONS_PER_BUNDLE = 100


@dataclass(frozen=True)
class ExportLimits:
    """`jobs` kept at once, for `seconds` after they were asked for; `total_bytes` of files of all of them."""

    jobs: int
    seconds: float
    total_bytes: int


class _Stopped(Exception):
    """The job cannot or need not go on; the message says why, "" when it was removed."""


class Exporter:
    """Writes one due export after another and removes what is too old."""

    def __init__(self, state: ExportState, folder: Path, limits: ExportLimits, clock: Callable[[], float]) -> None:
        self._state, self._folder, self._limits, self._clock = state, folder, limits, clock
        self._cleaned_at = float("-inf")

    def step(self, worker: str) -> int:
        """Writes one due export; how many were due. Raises StateUnavailable after giving it back."""
        claims = self._state.claim(EXPORT_QUEUE, self._clock(), LEASE_S, 1, worker)
        if claims or self._clock() - self._cleaned_at >= CLEAN_EVERY_S:
            self._clean()
        for claim in claims:
            try:
                self._write(claim)
            except Unavailable as error:
                self._state.retry(claim, self._clock(), RETRY_S, str(error))
                raise
        return len(claims)

    def _write(self, claim: Claim) -> None:
        job = self._state.export(claim.key)
        files, error = ([], "") if job is None else self._files(job)
        try:
            self._state.finish_export(claim, files, error, self._clock())
        except LeaseLost:
            log.info("export: removed, or taken over by another worker")
        if error:
            log.warning("export: failed: %s", error)
        if error or self._state.export(claim.key) is None:
            self._remove(claim.key)

    def _files(self, job: ExportJob) -> tuple[list[ExportFile], str]:
        """(what was written, "") or (nothing, why not)."""
        self._remove(job.id)
        part = self._folder / f"{job.id}.part"
        try:
            part.mkdir(parents=True, mode=0o700)
            files = _Writing(self._state, job, part, self._room()).files()
            _durable(part)
            part.rename(self._folder / job.id)
            _durable(self._folder)
        except _Stopped as stopped:
            return [], str(stopped)
        except OSError as problem:
            return [], f"the files cannot be written: {problem.strerror}"
        except Unavailable:
            raise
        except Exception as bug:  # noqa: BLE001  one export must not stop everything else
            return [], f"unexpected {type(bug).__name__}: a bug of this program"
        return files, ""

    def _remove(self, id_: str) -> None:
        for left in (f"{id_}.part", id_):
            shutil.rmtree(self._folder / left, ignore_errors=True)

    def _room(self) -> int:
        used = sum(path.stat().st_size for path in self._folder.rglob("*.ndjson"))
        return self._limits.total_bytes - used

    def _clean(self) -> None:
        """Removes exports that are too old, and folders of none."""
        self._cleaned_at = now = self._clock()
        kept = set()
        for job in self._state.exports():
            if now - job.created_at > self._limits.seconds:
                self._state.remove_export(job.id)
            else:
                kept.add(job.id)
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.partition(".")[0] not in kept:
                    shutil.rmtree(path, ignore_errors=True)


class _Writing:
    """One job's files in one folder; stops where the room in bytes is used up or the job was removed."""

    def __init__(self, state: ExportState, job: ExportJob, folder: Path, room: int) -> None:
        self._state, self._job, self._folder, self._room, self._written = state, job, folder, room, 0

    def files(self) -> list[ExportFile]:
        found: list[ExportFile] = []
        for kind in self._job.resource_types:
            found += self._file(kind, f"{kind}.ndjson", self._resources(kind))
        if self._job.since:
            found += self._file("Bundle", "deleted.ndjson", self._deletions(), deleted=True)
        return found

    def _held(self, kind: str, deleted: bool) -> Iterator[Change]:
        for change in self._state.held_at(self._job.revision, kind, self._job.since):
            if (change.action is ChangeAction.DELETED) == deleted:
                yield change

    def _resources(self, kind: str) -> Iterator[Resource]:
        for group in groups(self._held(kind, deleted=False), GROUP_BYTES, GROUP_RESOURCES):
            yield from map(with_meta, self._state.versions(group))
            self._written += len(group)
            if not self._state.export_written(self._job.id, self._written):
                raise _Stopped("")

    def _deletions(self) -> Iterator[Resource]:
        gone = (change for kind in self._job.resource_types for change in self._held(kind, deleted=True))
        for group in groups(gone, GROUP_BYTES, DELETIONS_PER_BUNDLE):
            entries = [{"request": {"method": "DELETE", "url": f"{c.resource_type}/{c.id}"}} for c in group]
            yield {"resourceType": "Bundle", "type": "transaction", "entry": entries}

    def _file(self, kind: str, name: str, resources: Iterator[Resource], deleted: bool = False) -> list[ExportFile]:
        """The file of these resources; none when there are none."""
        count = 0
        path = self._folder / name
        with path.open("wb") as file:
            for resource in resources:
                self._line(file, resource)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        if not count:
            path.unlink()
            return []
        return [ExportFile(kind, name, count, deleted)]

    def _line(self, file: BinaryIO, resource: Resource) -> None:
        line = orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE)
        self._room -= len(line)
        if self._room < 0:
            raise _Stopped("the files of all exports are larger than api.export_bytes allows: remove older exports")
        file.write(line)


def groups(changes: Iterable[Change], most_bytes: int, most: int) -> Iterator[list[Change]]:
    """The changes in their order, in groups whose contents are together not larger (but for a single larger one)."""
    group: list[Change] = []
    size = 0
    for change in changes:
        if group and (size + change.size > most_bytes or len(group) == most):
            yield group
            group, size = [], 0
        group.append(change)
        size += change.size
    if group:
        yield group


def _durable(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
