"""A folder of DICOM files as an archive: what lies in it is what the archive holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bridge.errors import InvalidDicomValue, InvalidFile, RejectedInput, SourceUnavailable
from bridge.model import IndexedFile, Rejection, WadoEndpoint
from bridge.ports import ChangePage, FileIndex, StudyHeaders
from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers
from bridge.translate.uids import checked_uid

PAGE_FILES = 500
"""Files read for one page of changes: bounds memory and the work lost by a crash."""

MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_UNFINISHED = (".part", ".tmp", ".partial", ".crdownload", "~")


class Folder:
    """Follows a folder by comparing what lies there with what was read before (path, size, time of change).

    Hidden files, unfinished downloads and symbolic links are passed over. A file that is not usable is rejected
    with its path, and read again when it changes. `clock` gives seconds since the epoch.
    """

    endpoint: WadoEndpoint | None = None
    verify_s = 0.0

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
    ) -> None:
        self.name, self.poll_s, self.sweep_s = name, poll_s, sweep_s
        self._root, self._index, self._clock = root, index, clock
        self._settle_s, self._allow_empty = settle_s, allow_empty
        self._known: dict[str, tuple[int, int]] | None = None
        self._pending: list[str] = []
        self._unreadable_names: dict[str, tuple[int, int]] = {}
        self._last_position: str | None = None

    def changes(self, position: str | None) -> ChangePage:
        """Reads up to PAGE_FILES new or changed files. Raises SourceUnavailable when the folder is not there."""
        if self._known is None or position != self._last_position:
            self._known, self._pending = self._index.known_files(self.name), []
        gone: list[str] = []
        if not self._pending:
            gone = self._look()
        paths, self._pending = self._pending[:PAGE_FILES], self._pending[PAGE_FILES:]
        page = self._page(paths, gone, str(int(position or 0) + 1))
        self._known |= {f.path: (f.size, f.mtime_ns) for f in page.files}
        for path in gone:
            self._known.pop(path, None)
        if not (page.files or page.gone or page.rejected):
            self._last_position = position
            return ChangePage(frozenset(), "", caught_up=True)
        self._last_position = page.position
        return page

    def read(self, study_instance_uid: str) -> StudyHeaders:
        """The headers of the study's files as they are now; of equal instances the first seen, others rejected."""
        if not self._root.is_dir():
            raise SourceUnavailable(f"source {self.name}: its folder does not exist or is not a folder")
        found: dict[str, Headers] = {}
        rejected: list[Rejection] = []
        paths = self._index.study_files(self.name, study_instance_uid)
        held = 0
        for path in paths:
            try:
                headers = read_headers(self._root / path)
            except FileNotFoundError:
                continue
            except InvalidFile as error:
                rejected.append(Rejection(f"{self.name}/{path}", str(error), {"path": path}))
                continue
            if headers.text("StudyInstanceUID") != study_instance_uid:
                continue
            held += 1
            first = found.setdefault(headers.text("SOPInstanceUID"), headers)
            if first is not headers and not _same(first, headers):
                rejected.append(Rejection(f"{self.name}/{path}", _CONFLICT, {"path": path}))
        return StudyHeaders(tuple(found.values()), held, tuple(rejected))

    def inventory(self) -> Iterator[tuple[str, int]]:
        """Every study with its number of files, as last looked at."""
        return self._index.indexed_studies(self.name)

    def count(self, study_instance_uids: Sequence[str]) -> Mapping[str, int]:
        """How many files of each study there are, as last looked at."""
        return self._index.file_counts(self.name, study_instance_uids)

    def forget_what_is_known(self) -> None:
        """Compare with the durable index at the next look (someone else wrote to it)."""
        self._known = None

    def _look(self) -> list[str]:
        """Fills `_pending` with what is new or changed; gives back the paths that are gone."""
        known, self._unreadable_names = self._known or {}, {}
        settled_before = self._clock() - self._settle_s
        present: set[str] = set()
        pending: list[str] = []
        for path, size, mtime_ns in self._walk():
            present.add(path)
            settled = not self._settle_s or mtime_ns / 1e9 <= settled_before
            if settled and known.get(path) != (size, mtime_ns):
                pending.append(path)
        if known and not present and not self._allow_empty:
            raise SourceUnavailable(
                f"source {self.name}: its folder is empty but held {len(known)} files: taken for not mounted. "
                "Set allow_empty = true if it was emptied on purpose"
            )
        again = [p for p in self._index.replayed_files(self.name) if p in present]
        self._pending = sorted({*pending, *again})
        return sorted(known.keys() - present)

    def _walk(self) -> Iterator[tuple[str, int, int]]:
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                entries = list(os.scandir(self._root / folder))
            except FileNotFoundError:
                if folder:
                    continue
                raise SourceUnavailable(f"source {self.name}: its folder does not exist") from None
            except OSError as error:
                raise SourceUnavailable(f"source {self.name}: a folder cannot be listed: {error.strerror}") from None
            for entry in entries:
                if entry.name.startswith(".") or entry.name.endswith(_UNFINISHED) or entry.is_symlink():
                    continue
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    yield self._utf_8(path, status), status.st_size, status.st_mtime_ns

    def _utf_8(self, path: str, status: os.stat_result) -> str:
        """The path itself, or for a name that is not UTF-8 a readable stand-in, remembered as such."""
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            path = path.encode("utf-8", "backslashreplace").decode()
            self._unreadable_names[path] = (status.st_size, status.st_mtime_ns)
        return path

    def _page(self, paths: Sequence[str], gone: Sequence[str], position: str) -> ChangePage:
        before = self._index.file_studies(self.name, [*paths, *gone])
        files: list[IndexedFile] = []
        rejected: list[Rejection] = []
        for path in paths:
            read = self.index_file(path)
            if read is not None:
                files.append(read[0])
                rejected += read[1]
        studies = {f.study_instance_uid for f in files} | set(before.values())
        bad = {r.key for r in rejected}
        return ChangePage(
            studies=frozenset(studies - {""}),
            position=position,
            caught_up=not self._pending,
            files=tuple(files),
            gone=tuple(gone),
            rejected=tuple(rejected),
            accepted=tuple(f.path for f in files if f.path not in bad),
        )

    def index_file(self, path: str) -> tuple[IndexedFile, list[Rejection]] | None:
        """What one file is, and why it is not usable if it is not; None when it is gone."""
        if path in self._unreadable_names:
            size, mtime_ns = self._unreadable_names[path]
            problem = "the file name is not UTF-8: rename the file"
            return IndexedFile(path, size, mtime_ns, "", ""), [Rejection(path, problem, {"bytes": size})]
        try:
            status = (self._root / path).stat()
            size, mtime_ns = status.st_size, status.st_mtime_ns
            headers = read_headers(self._root / path)
            if headers.text("SOPClassUID") == MEDIA_DIRECTORY:
                return IndexedFile(path, size, mtime_ns, "", ""), []
            study = checked_uid(headers.text("StudyInstanceUID"), "StudyInstanceUID")
            instance = checked_uid(headers.text("SOPInstanceUID"), "SOPInstanceUID")
        except FileNotFoundError:
            return None
        except RejectedInput as error:
            keyword = error.keyword if isinstance(error, InvalidDicomValue) else ""
            evidence: dict[str, str | int] = {"bytes": size} | ({"keyword": keyword} if keyword else {})
            return IndexedFile(path, size, mtime_ns, "", ""), [Rejection(path, str(error), evidence)]
        return IndexedFile(path, size, mtime_ns, study, instance), []


_CONFLICT = "SOPInstanceUID: another file of the same instance has other content; the first seen is kept"


def _same(one: Headers, other: Headers) -> bool:
    return {**one, "TransferSyntaxUID": ()} == {**other, "TransferSyntaxUID": ()}
