"""What lies in a folder and its subfolders, compared with what was read of it before.

A thorough look asks the size and the time of every file. Between two of them a quick look lists only the folders whose
own time has changed, as it does for every file that comes, goes or is renamed: an idle look over 100,000 files costs
next to nothing. Only a file that is written over in place waits for the next thorough look.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridge.errors import SourceUnavailable

Stamp = tuple[int, int]
"""Size in bytes and time of the last change in ns: what tells one content of a file from another."""

SMALL = 1000
"""Up to so many files every look is thorough."""

THOROUGH_SHARE = 0.05
"""Thorough looks take at most this share of the time."""

COARSE_S = 3.0
"""A folder changed so recently is listed again: some file systems count time in steps of two seconds."""

GRACE = 10
"""A file that cannot be read is looked at again until it has been left alone for so many times `settle_s`."""

UNFINISHED = (".part", ".tmp", ".partial", ".filepart", ".crdownload", ".download", "~")
_ONE_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP})


@dataclass(frozen=True)
class Look:
    """What a look found: new or changed files that have settled; files read before that are gone; folders that
    cannot be listed any more, with the reason; folders that can be again; whether there is nothing at all."""

    changed: Mapping[str, Stamp]
    gone: tuple[str, ...]
    closed: Mapping[str, str]
    opened: tuple[str, ...]
    empty: bool


@dataclass
class _Listing:
    """One folder: its own time when it was listed (-1: list it again), the files read of it, its subfolders."""

    changed_at: int = -1
    files: dict[str, Stamp] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


class Tree:
    """The files below `root` that were read (`known`), by folder. `clock` gives seconds since the epoch.

    Hidden files, unfinished downloads and symbolic links are passed over. A file has settled once it was left alone
    for `settle_s` by its own time or, since that may be anything, by ours. What a look tells must be answered by
    `remember`, `forget` or `again` before the next one.
    """

    def __init__(
        self, source: str, root: Path, known: Mapping[str, Stamp], clock: Callable[[], float], settle_s: float
    ) -> None:
        self._source, self._root, self._clock, self._settle_s = source, root, clock, settle_s
        self._listings: dict[str, _Listing] = {"": _Listing()}
        self._watched: dict[str, tuple[Stamp, float]] = {}
        self._thorough_at, self._spent_s = -float("inf"), 0.0
        self.closed: Mapping[str, str] = {}
        """Folders that could not be listed at the last look, with the reason."""
        self.unreadable: Mapping[str, Stamp] = {}
        """Stand-ins for files whose names are not UTF-8."""
        self.remember(known)

    def __len__(self) -> int:
        """How many files were read."""
        return sum(len(listing.files) for listing in self._listings.values())

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return folder in self._listings and name in self._listings[folder].files

    def remember(self, files: Mapping[str, Stamp]) -> None:
        """These files have been read."""
        for path, stamp in files.items():
            folder, _, name = path.rpartition("/")
            self._listing(folder).files[name] = stamp

    def forget(self, paths: Iterable[str]) -> None:
        """These files are gone, and that has been told."""
        for path in paths:
            folder, _, name = path.rpartition("/")
            self._listings[folder].files.pop(name, None)

    def again(self, path: str) -> None:
        """This file could not be taken as it is: the next look tells it again if it is still there."""
        self._listing(path.rpartition("/")[0]).changed_at = -1

    def settled_for(self, path: str, stamp: Stamp, seconds: float) -> bool:
        """Whether a file has been left alone for so long."""
        now = self._clock()
        if now - stamp[1] / 1e9 >= seconds:
            return True
        seen, since = self._watched.get(path, (stamp, now))
        return seen == stamp and now - since >= seconds

    def look(self) -> Look:
        """Raises SourceUnavailable when the root is not there or the disk cannot be read."""
        started = time.monotonic()
        thorough = len(self) <= SMALL or started - self._thorough_at >= self._spent_s / THOROUGH_SHARE
        found = _Pass(self._clock(), self._settle_s, thorough, self._watched)
        visited = self._visit(found)
        found.gone += self._left(visited, tuple(found.closed))
        opened = tuple(folder for folder in self.closed if folder not in found.closed)
        closed = {folder: reason for folder, reason in found.closed.items() if folder not in self.closed}
        self.closed, self._watched = found.closed, found.watched
        self.unreadable = found.unreadable if thorough else {**self.unreadable, **found.unreadable}
        if thorough:
            self._thorough_at, self._spent_s = started, time.monotonic() - started
        return Look(found.changed, tuple(found.gone), closed, opened, not (found.seen or found.closed))

    def _listing(self, folder: str) -> _Listing:
        listing = self._listings.get(folder)
        if listing is None:
            listing = self._listings[folder] = _Listing()
        return listing

    def _visit(self, found: _Pass) -> set[str]:
        """Takes the pass through every folder; gives back those that are there."""
        visited: set[str] = set()
        folders = [""]
        while folders:
            folder = folders.pop()
            listing = self._listing(folder)
            try:
                found.compare(self._root, folder, listing)
            except (FileNotFoundError, NotADirectoryError):
                if not folder:
                    raise SourceUnavailable(
                        f"source {self._source}: its folder does not exist or is not a folder"
                    ) from None
                continue
            except OSError as error:
                if not folder or error.errno not in _ONE_FOLDER:
                    raise SourceUnavailable(
                        f"source {self._source}: a folder cannot be listed: {error.strerror}"
                    ) from None
                found.closed[folder] = f"the folder cannot be listed: {error.strerror}"
                visited.add(folder)
                continue  # what lies in it is taken to be there still
            visited.add(folder)
            folders += (f"{folder}/{name}" if folder else name for name in listing.folders)
        return visited

    def _left(self, visited: set[str], closed: Sequence[str]) -> Iterator[str]:
        """Files of folders that are no longer there; what lies in a closed folder is taken to be there still."""
        for folder in [f for f in self._listings if f not in visited]:
            if any(folder == c or folder.startswith(f"{c}/") for c in closed):
                continue
            if self._listings[folder].files:
                yield from (f"{folder}/{name}" for name in self._listings[folder].files)
            else:
                del self._listings[folder]


class _Pass:
    """One look on its way through the folders."""

    def __init__(
        self, now: float, settle_s: float, thorough: bool, watched_before: Mapping[str, tuple[Stamp, float]]
    ) -> None:
        self._now, self._settle_s, self._thorough, self._watched_before = now, settle_s, thorough, watched_before
        self.changed: dict[str, Stamp] = {}
        self.gone: list[str] = []
        self.closed: dict[str, str] = {}
        self.watched: dict[str, tuple[Stamp, float]] = {}
        self.unreadable: dict[str, Stamp] = {}
        self.seen = 0

    def compare(self, root: Path, folder: str, listing: _Listing) -> None:
        """Lists one folder, unless its time says that nothing came or went."""
        place, prefix = root / folder, f"{folder}/" if folder else ""
        changed_at = place.stat().st_mtime_ns
        if not self._thorough and changed_at == listing.changed_at:
            self.seen += len(listing.files)
            return
        names: set[str] = set()
        folders: list[str] = []
        waits = False
        with os.scandir(place) as entries:
            for entry in entries:
                name = entry.name if entry.name.isascii() else self._utf_8(prefix, entry)
                waits |= not name
                if not name or name.startswith(".") or name.endswith(UNFINISHED):
                    continue
                if not self._thorough and name in listing.files:
                    names.add(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif (stamp := _stamp(entry)) is not None:
                    names.add(name)
                    if listing.files.get(name) != stamp:
                        waits |= not self._tell(prefix + name, stamp)
        self.seen += len(names)
        self.gone += (prefix + name for name in listing.files.keys() - names)
        recent = self._now - changed_at / 1e9 < COARSE_S
        listing.folders, listing.changed_at = tuple(folders), -1 if recent or waits else changed_at

    def _utf_8(self, prefix: str, entry: os.DirEntry[str]) -> str:
        """The name, or a stand-in for the name of a file that is not UTF-8; "" for such a folder, which is closed."""
        name = entry.name.encode("utf-8", "backslashreplace").decode()
        if name == entry.name:
            return name
        if entry.is_dir(follow_symlinks=False):
            self.closed[prefix + name] = "the folder's name is not UTF-8: rename the folder"
            return ""
        self.unreadable[prefix + name] = _stamp(entry) or (0, 0)
        return name

    def _tell(self, path: str, stamp: Stamp) -> bool:
        """Tells of a new or changed file if it has settled."""
        age_s = self._now - stamp[1] / 1e9
        if age_s < GRACE * self._settle_s:
            seen, since = self._watched_before.get(path, (stamp, self._now))
            since = since if seen == stamp else self._now
            self.watched[path] = stamp, since
            if max(age_s, self._now - since) < self._settle_s:
                return False
        self.changed[path] = stamp
        return True


def _stamp(entry: os.DirEntry[str]) -> Stamp | None:
    """None for what is not, or no longer, a regular file."""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None
