"""A folder of DICOM files as an archive: what lies in it, or in zip and tar files in it, is what the archive holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import InvalidDicomValue, InvalidFile, RejectedInput, SourceUnavailable
from bridge.model import IndexedFile, InstanceName, Rejection, WadoEndpoint
from bridge.ports import ChangePage, FileIndex, StudyHeaders
from bridge.sources.archive_file import MAXIMUM_UNPACKED_BYTES, archive_and_name, is_archive
from bridge.sources.archive_headers import ArchiveHeaders
from bridge.sources.dicomdir import MEDIA_DIRECTORY, absent_files
from bridge.sources.object_files import read_head
from bridge.sources.part10 import read_headers
from bridge.sources.tree import GRACE, Stamp, Tree
from bridge.translate.headers import Headers
from bridge.translate.uids import checked_uid

PAGE_FILES = 500
"""Files read for one page of changes: bounds memory and the work lost by a crash."""

PAGE_S = 10.0
"""A page ends after so long, however few files it has."""

LISTED_MEMBERS = 1000
"""Of the members of one archive that cannot be used, so many are parked each; the rest is counted."""


@dataclass(frozen=True)
class _Reading:
    """What looking at one path came to: a file for the index, why it cannot be used, or that it is gone."""

    file: IndexedFile | None = None
    rejection: Rejection | None = None
    gone: str = ""


class Folder:
    """Follows a folder by comparing what lies there with what was read before (path, size, time of change).

    Members of an archive `a.zip` have the path `a.zip!NAME`. A file that is not usable is rejected with its path, and
    read again when it changes. `clock` gives seconds since the epoch.
    """

    endpoint: WadoEndpoint | None = None
    verify_s = 0.0
    gives_objects = True

    def __init__(
        self,
        name: str,
        root: Path,
        index: FileIndex,
        clock: Callable[[], float],
        *,
        poll_s: float = 2.0,
        sweep_s: float = 3600.0,
        settle_s: float = 1.0,
        allow_empty: bool = False,
        maximum_unpacked_bytes: int = MAXIMUM_UNPACKED_BYTES,
    ) -> None:
        self.name, self.poll_s, self.sweep_s = name, poll_s, sweep_s
        self._root, self._index, self._clock = root, index, clock
        self._grace_s, self._settle_s, self._allow_empty = GRACE * settle_s, settle_s, allow_empty
        self._archives = ArchiveHeaders(root, maximum_unpacked_bytes)
        self._tree: Tree | None = None
        self._members: dict[str, set[str]] = {}
        self._incomplete: set[str] = set()
        self._readings: Iterator[_Reading] | None = None
        self._last_position: str | None = None

    def changes(self, position: str | None) -> ChangePage:
        """Reads up to PAGE_FILES new or changed files. Raises SourceUnavailable when the folder is not there."""
        tree = self._tree
        if tree is None or position != self._last_position:
            tree = self._load()
        self._last_position, self._tree = position, None  # until this page is whole: an error means to begin anew
        found: list[_Reading] = []
        opened: tuple[str, ...] = ()
        if self._readings is None:
            found, opened, self._readings = self._look(tree)
        exhausted = self._take(self._readings, found)
        if exhausted:
            self._readings = None
        page = self._page(found, opened, str(int(position or 0) + 1), exhausted)
        self._tree = tree
        if not (page.files or page.gone or page.rejected or page.accepted):
            return ChangePage(frozenset(), "", caught_up=exhausted)
        self._last_position = page.position
        return page

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """The headers of the study's files as they are now; of equal instances the first seen, others rejected."""
        if not self._root.is_dir():
            raise SourceUnavailable(f"source {self.name}: its folder does not exist or is not a folder")
        found: dict[str, Headers] = {}
        rejected: list[Rejection] = []
        paths = self._index.study_files(self.name, study_instance_uid)
        read = dict(self._headers(paths))
        held = 0
        for path in (*paths, *sorted(read.keys() - set(paths))):
            headers = read.get(path)
            if isinstance(headers, InvalidFile):
                rejected.append(Rejection(f"{self.name}/{path}", str(headers), {"path": path}))
            if not isinstance(headers, Headers) or headers.text("StudyInstanceUID") != study_instance_uid:
                continue
            held += 1
            first = found.setdefault(headers.text("SOPInstanceUID"), headers)
            if first is not headers and not _same(first, headers):
                rejected.append(Rejection(f"{self.name}/{path}", _CONFLICT, {"path": path}))
        return StudyHeaders(tuple(found.values()), held, tuple(rejected))

    def instance(self, name: InstanceName, most_bytes: int) -> bytes | None:
        """See `bridge.ports.GivesObjects`; of several files of one instance the first seen."""
        uid = name.sop_instance_uid
        for path in self._index.instance_files(self.name, [uid]).get(uid, ()):
            member = archive_and_name(path)
            try:
                found = (
                    read_head(self._root / path, most_bytes)
                    if member is None
                    else self._archives.content(*member, most_bytes)
                )
            except FileNotFoundError:
                continue
            if found is not None:
                return found
        return None

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study with its number of files, as last looked at."""
        return self._index.indexed_studies(self.name)

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many files of each study there are, as last looked at."""
        return self._index.file_counts(self.name, study_instance_uids)

    def forget_what_is_known(self) -> None:
        """Compare with the durable index at the next look (someone else wrote to it)."""
        self._tree = None

    def _load(self) -> Tree:
        """What the durable index knows. An archive of which only a part was read is there to be read again."""
        files: dict[str, Stamp] = {}
        self._members, self._readings = {}, None
        for path, stamp in self._index.known_files(self.name).items():
            member = archive_and_name(path)
            if member is None:
                files[path] = stamp
            else:
                self._members.setdefault(member[0], set()).add(path)
        for archive in self._members:
            files.setdefault(archive, (-1, -1))
        return Tree(self.name, self._root, files, self._clock, self._settle_s)

    def _look(self, tree: Tree) -> tuple[list[_Reading], tuple[str, ...], Iterator[_Reading]]:
        """What is known at once, the folders that are open again, and the readings of what is new or changed."""
        look = tree.look()
        if look.empty and len(tree) and not self._allow_empty:
            raise SourceUnavailable(
                f"source {self.name}: its folder is empty but held {len(tree)} files: taken for not mounted. "
                "Set allow_empty = true if it was emptied on purpose"
            )
        replayed = self._index.replayed_files(self.name)
        closed = {path: tree.closed[path] for path in (*look.closed, *replayed) if path in tree.closed}
        found = [_Reading(rejection=Rejection(path, reason)) for path, reason in closed.items()]
        for path in look.gone:
            found += (_Reading(gone=gone) for gone in (path, *sorted(self._members.pop(path, ()))))
        tree.forget(look.gone)
        self._incomplete.difference_update(look.gone)
        again = {(archive_and_name(path) or (path,))[0] for path in replayed}
        if look.changed:
            again |= self._incomplete
        pending = look.changed.keys() | {path for path in again if path in tree}
        return found, look.opened, self._read_all(tree, sorted(pending, key=_media_directories_last))

    def _take(self, readings: Iterator[_Reading], found: list[_Reading]) -> bool:
        """Fills one page; whether that was all."""
        until = time.monotonic() + PAGE_S
        for count, reading in enumerate(readings, 1):
            found.append(reading)
            if count == PAGE_FILES or time.monotonic() > until:
                return False
        return True

    def _read_all(self, tree: Tree, paths: Sequence[str]) -> Iterator[_Reading]:
        for path in paths:
            try:
                stamp = tree.unreadable.get(path) or self._stamp(path)
                readings = self._archive(tree, path, stamp) if is_archive(path) else self._file(tree, path, stamp)
                yield from readings
            except FileNotFoundError:
                tree.again(path)

    def _stamp(self, path: str) -> Stamp:
        status = (self._root / path).lstat()
        return status.st_size, status.st_mtime_ns

    def _file(self, tree: Tree, path: str, stamp: Stamp) -> Iterator[_Reading]:
        """One plain file; nothing while it still changes, or may be about to."""
        file, rejection = _judged(path, *stamp, self._plain_headers(tree, path))
        if path not in tree.unreadable and self._unsettled(tree, path, stamp, rejection is not None):
            tree.again(path)
        else:
            tree.remember({path: stamp})
            yield _Reading(file, rejection)

    def _unsettled(self, tree: Tree, path: str, stamp: Stamp, broken: bool) -> bool:
        """Whether a file changed while it was read or, where it is broken, may be about to."""
        return self._stamp(path) != stamp or (broken and not tree.settled_for(path, stamp, self._grace_s))

    def _plain_headers(self, tree: Tree, path: str) -> Headers | InvalidFile:
        if path in tree.unreadable:
            return InvalidFile("the file name is not UTF-8: rename the file")
        if archive_and_name(path) is not None:
            return InvalidFile("the file name, or a folder's, is like that of an archive's member: rename it without !")
        try:
            headers = read_headers(self._root / path)
        except InvalidFile as error:
            return error
        if headers.text("SOPClassUID") == MEDIA_DIRECTORY:
            named, absent = absent_files(self._root / path)
            if absent:
                self._incomplete.add(path)
                return InvalidFile(
                    f"{absent} of the {named} files that this DICOMDIR names are not here: copy them too"
                )
        return headers

    def _archive(self, tree: Tree, path: str, stamp: Stamp) -> Iterator[_Reading]:
        """The members of one archive, those that are no longer in it, and last itself: then it counts as read."""
        seen: set[str] = set()
        unusable, problem = 0, ""
        try:
            for member, headers in self._archives.all_of(path):
                key = f"{path}!{member.name}"
                seen.add(key)
                file, rejection = _judged(key, member.size, stamp[1], headers)
                unusable += rejection is not None
                yield _Reading(file, rejection if unusable <= LISTED_MEMBERS else None)
        except InvalidFile as error:
            problem = str(error)
        if self._unsettled(tree, path, stamp, problem != ""):
            tree.again(path)
            return
        for gone in sorted(self._members.get(path, set()) - seen):
            yield _Reading(gone=gone)
        self._members[path] = seen
        if not problem and unusable > LISTED_MEMBERS:
            problem = f"{unusable} members cannot be used; the first {LISTED_MEMBERS} are listed with their reasons"
        evidence = {"bytes": stamp[0], "members": len(seen), "unusable": unusable}
        rejection = Rejection(path, problem, evidence) if problem else None
        tree.remember({path: stamp})
        yield _Reading(IndexedFile(path, *stamp, "", ""), rejection)

    def _page(self, found: Sequence[_Reading], opened: Sequence[str], position: str, caught_up: bool) -> ChangePage:
        files = tuple(reading.file for reading in found if reading.file is not None)
        gone = tuple(reading.gone for reading in found if reading.gone)
        rejected = tuple(reading.rejection for reading in found if reading.rejection is not None)
        before = self._index.file_studies(self.name, [*(f.path for f in files), *gone])
        studies = {f.study_instance_uid for f in files} | set(before.values())
        bad = {r.key for r in rejected}
        return ChangePage(
            studies=frozenset(studies - {""}),
            position=position,
            caught_up=caught_up,
            files=files,
            gone=gone,
            rejected=rejected,
            accepted=(*(f.path for f in files if f.path not in bad), *opened),
        )

    def _headers(self, paths: Sequence[str]) -> Iterator[tuple[str, Headers | InvalidFile]]:
        """What files and members hold now, or why they cannot be read; each archive is gone through once."""
        wanted: dict[str, set[str]] = {}
        for path in paths:
            member = archive_and_name(path)
            if member is not None:
                wanted.setdefault(member[0], set()).add(member[1])
                continue
            try:
                yield path, read_headers(self._root / path)
            except FileNotFoundError:
                continue
            except InvalidFile as error:
                yield path, error
        for archive, names in wanted.items():
            try:
                for name, found in self._archives.of(archive, frozenset(names)):
                    yield f"{archive}!{name}", found
            except FileNotFoundError:
                continue
            except InvalidFile as error:
                yield archive, error


_CONFLICT = "SOPInstanceUID: another file of the same instance has other content; the first seen is kept"


def _media_directories_last(path: str) -> tuple[bool, str]:
    return path.rpartition("/")[2].upper() == "DICOMDIR", path


def _judged(
    path: str, size: int, mtime_ns: int, headers: Headers | InvalidFile
) -> tuple[IndexedFile, Rejection | None]:
    """What one file or member is, and why it is not usable if it is not."""
    unusable = IndexedFile(path, size, mtime_ns, "", "")
    try:
        if isinstance(headers, InvalidFile):
            raise headers
        if headers.text("SOPClassUID") == MEDIA_DIRECTORY:
            return unusable, None
        study = checked_uid(headers.text("StudyInstanceUID"), "StudyInstanceUID")
        instance = checked_uid(headers.text("SOPInstanceUID"), "SOPInstanceUID")
    except RejectedInput as error:
        keyword = error.keyword if isinstance(error, InvalidDicomValue) else ""
        evidence: dict[str, str | int] = {"bytes": size} | ({"keyword": keyword} if keyword else {})
        return unusable, Rejection(path, str(error), evidence)
    return IndexedFile(path, size, mtime_ns, study, instance), None


def _same(one: Headers, other: Headers) -> bool:
    return {**one, "TransferSyntaxUID": ()} == {**other, "TransferSyntaxUID": ()}
