"""Copies the DICOM objects in folders, files and archives into a spool, each judged as it comes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bridge.errors import InvalidFile, RejectedInput, SourceUnavailable
from bridge.model import IndexedFile
from bridge.sources.archive_file import Member, is_archive, members
from bridge.sources.copier import MINIMUM_FREE_BYTES, PIECE, Copier, SpoolUnavailable, digest_of
from bridge.sources.dicomdir import MEDIA_DIRECTORY, absent_files
from bridge.sources.part10 import read_headers
from bridge.sources.preamble import has_marker
from bridge.sources.spool import Outcome, Spool
from bridge.sources.tree import UNFINISHED
from bridge.translate.headers import Headers
from bridge.translate.uids import checked_uid

BATCH_OBJECTS = 200
"""So many objects are made durable together."""

BATCH_BYTES = 256 * 1024**2


class Verdict(StrEnum):
    """What became of one file or member."""

    IMPORTED = "imported"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """Another content of the same SOP Instance UID is there already; both are kept."""
    REJECTED = "rejected"
    SKIPPED = "skipped"
    """Not DICOM, or a DICOMDIR: nothing to import."""


@dataclass(frozen=True)
class Judged:
    """One input. `key` its path from the folder or archive that was given; `file` where its object lies in the spool;
    `consumed` bytes of the input up to here, of all that `measured` counted."""

    key: str
    verdict: Verdict
    consumed: int
    reason: str = ""
    file: IndexedFile | None = None


@dataclass(frozen=True)
class _Copied:
    """An object that is in the spool's folder of parts, not durable yet."""

    key: str
    consumed: int
    part: Path
    size: int
    digest: str
    study_instance_uid: str
    sop_instance_uid: str


_Step = Judged | _Copied


def measured(paths: Sequence[Path]) -> tuple[int, int]:
    """(files, bytes) of everything under the paths."""
    files = size = 0
    for path in paths:
        for _, file in files_under(path):
            files, size = files + 1, size + _size(file)
    return files, size


def imported(
    paths: Sequence[Path],
    spool: Spool,
    held: Callable[[str], frozenset[str]],
    minimum_free_bytes: int = MINIMUM_FREE_BYTES,
) -> Iterator[Sequence[Judged]]:
    """Judges everything under the paths, in order, and copies what is new; every batch is durable when it is given.

    `held` gives the digests of what the spool holds of a study (as in its file names). The originals are only read.

    Raises  SpoolUnavailable when the spool's disk is full, or nearly so
    """
    copier = Copier(spool, minimum_free_bytes)
    waiting: list[_Step] = []
    size = 0
    for step in _steps(paths, copier, held):
        waiting.append(step)
        size += step.size if isinstance(step, _Copied) else 0
        if len(waiting) >= BATCH_OBJECTS or size >= BATCH_BYTES:
            yield _kept(waiting, spool)
            waiting, size = [], 0
    yield _kept(waiting, spool)


def _kept(steps: Sequence[_Step], spool: Spool) -> list[Judged]:
    """Makes what was copied durable: first all contents, so that one flush of the disk serves many of them."""
    try:
        for step in steps:
            if isinstance(step, _Copied):
                _sync(step.part)
        return [_keep(step, spool) if isinstance(step, _Copied) else step for step in steps]
    except OSError as error:
        raise SpoolUnavailable(f"import: an object cannot be kept: {error.strerror}") from None


def _keep(copied: _Copied, spool: Spool) -> Judged:
    study, instance = copied.study_instance_uid, copied.sop_instance_uid
    kept = spool.keep(copied.part, study, instance, copied.digest)
    status = kept.path.stat()
    path = str(kept.path.relative_to(spool.studies))
    file = IndexedFile(path, status.st_size, status.st_mtime_ns, study, instance)
    verdict, reason = _KEPT[kept.outcome]
    return Judged(copied.key, verdict, copied.consumed, reason, file)


_KEPT = {
    Outcome.NEW: (Verdict.IMPORTED, ""),
    Outcome.DUPLICATE: (Verdict.DUPLICATE, ""),
    Outcome.CONFLICT: (
        Verdict.CONFLICT,
        "SOPInstanceUID: other content of the same instance was imported before; both are kept, the first is shown",
    ),
}


def _steps(paths: Sequence[Path], copier: Copier, held: Callable[[str], frozenset[str]]) -> Iterator[_Step]:
    consumed = 0
    for path in paths:
        for key, file in files_under(path):
            before, consumed = consumed, consumed + _size(file)
            try:
                if not isinstance(file, Path):
                    yield Judged(key, Verdict.REJECTED, consumed, file.problem)
                elif is_archive(file.name):
                    yield from _archive(key, file, before, copier, held)
                else:
                    yield _file(key, file, consumed, copier, held)
            except SpoolUnavailable:
                raise
            except FileNotFoundError:
                yield Judged(key, Verdict.REJECTED, consumed, "it vanished before it was read")
            except (InvalidFile, SourceUnavailable) as error:
                yield Judged(key, Verdict.REJECTED, consumed, str(error))
            except OSError as error:
                yield Judged(key, Verdict.REJECTED, consumed, f"it cannot be read: {error.strerror}")


def _file(key: str, file: Path, consumed: int, copier: Copier, held: Callable[[str], frozenset[str]]) -> _Step:
    """One plain file. What has no DICOM marker and cannot be read as DICOM is no object at all."""
    stamp = _stamp(file)
    try:
        headers = read_headers(file)
        if headers.text("SOPClassUID") == MEDIA_DIRECTORY:
            return _media_directory(key, file, consumed)
        study, instance = _uids(headers)
    except RejectedInput as error:
        no_object = isinstance(error, InvalidFile) and not _has_marker(file)
        return Judged(key, Verdict.SKIPPED if no_object else Verdict.REJECTED, consumed, str(error))
    with file.open("rb") as content:
        there = held(study)
        if there and digest_of(content.read)[1][:32] in there:
            return Judged(key, Verdict.DUPLICATE, consumed)
        content.seek(0)
        part, size, digest = copier.copy(content.read)
    if _stamp(file) != stamp:
        part.unlink()
        return Judged(key, Verdict.REJECTED, consumed, "it changed while it was read: import it again")
    return _Copied(key, consumed, part, size, digest, study, instance)


def _media_directory(key: str, file: Path, consumed: int) -> Judged:
    named, absent = absent_files(file)
    if absent:
        problem = f"{absent} of the {named} files that this DICOMDIR names are not here"
        return Judged(key, Verdict.REJECTED, consumed, problem)
    return Judged(key, Verdict.SKIPPED, consumed, "a DICOMDIR")


def _archive(
    key: str, file: Path, before: int, copier: Copier, held: Callable[[str], frozenset[str]]
) -> Iterator[_Step]:
    for member in members(file):
        yield _member(f"{key}!{member.name}", member, before + member.consumed, copier, held)


def _member(key: str, member: Member, consumed: int, copier: Copier, held: Callable[[str], frozenset[str]]) -> _Step:
    """One member: copied first and judged then, since it can be read only once."""
    if member.problem:
        return Judged(key, Verdict.REJECTED, consumed, member.problem)
    try:
        head = member.read(PIECE)
    except InvalidFile as error:
        return Judged(key, Verdict.REJECTED, consumed, str(error))
    marked = has_marker(head)
    if not marked and head[:1] not in (b"\0", b"\2", b"\10"):
        return Judged(key, Verdict.SKIPPED, consumed, "not a DICOM file")
    part: Path | None = None
    try:
        part, size, digest = copier.copy(_after(head, member.read))
        headers = read_headers(part)
        if headers.text("SOPClassUID") == MEDIA_DIRECTORY:
            return _dropped(part, Judged(key, Verdict.SKIPPED, consumed, "a DICOMDIR"))
        study, instance = _uids(headers)
    except RejectedInput as error:
        no_object = isinstance(error, InvalidFile) and not marked
        return _dropped(part, Judged(key, Verdict.SKIPPED if no_object else Verdict.REJECTED, consumed, str(error)))
    if digest[:32] in held(study):
        return _dropped(part, Judged(key, Verdict.DUPLICATE, consumed))
    return _Copied(key, consumed, part, size, digest, study, instance)


def _dropped(part: Path | None, judged: Judged) -> Judged:
    if part is not None:
        part.unlink(missing_ok=True)
    return judged


def _after(head: bytes, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Reads what was read already, then the rest."""
    pieces = iter((head,))
    return lambda length: next(pieces, None) or read(length)


@dataclass(frozen=True)
class Closed:
    """A folder that cannot be listed."""

    problem: str


def files_under(root: Path) -> Iterator[tuple[str, Path | Closed]]:
    """(key, file) of everything under a path, hidden files, unfinished downloads and links left out, by name."""
    name = root.resolve().name
    if root.is_file():
        yield _shown(name), root
        return
    folders = [(_shown(name), root)]
    while folders:
        key, folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            yield key, Closed(f"the folder cannot be listed: {error.strerror}")
            continue
        inner = [e for e in entries if not e.name.startswith(".") and not e.name.endswith(UNFINISHED)]
        folders += ((f"{key}/{_shown(e.name)}", Path(e.path)) for e in inner if e.is_dir(follow_symlinks=False))
        for entry in reversed(inner):
            if entry.is_file(follow_symlinks=False):
                yield f"{key}/{_shown(entry.name)}", Path(entry.path)


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _uids(headers: Headers) -> tuple[str, str]:
    study = checked_uid(headers.text("StudyInstanceUID"), "StudyInstanceUID")
    return study, checked_uid(headers.text("SOPInstanceUID"), "SOPInstanceUID")


def _has_marker(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return has_marker(content.read(PIECE))
    except OSError:
        return True


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _size(file: Path | Closed) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size if isinstance(file, Path) else 0
    return 0


def _sync(part: Path) -> None:
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
