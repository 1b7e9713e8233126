"""`bridge map`: what became of every attribute of files, study by study. Keeps nothing, asks no server.

Files are looked through twice: first for the study they belong to, then study by study, so that no more than one
study is in memory.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bridge.code_tables import attribute_table
from bridge.errors import ConfigError, InvalidFile, RejectedInput, SourceUnavailable
from bridge.import_report import Show, bars
from bridge.sources.archive_file import is_archive
from bridge.sources.dicomdir import MEDIA_DIRECTORY
from bridge.sources.importer import files_under
from bridge.sources.inventory import Listed, listed, printable
from bridge.sources.part10 import NO_DICOM, read_headers
from bridge.translate.explanation import StudyExplanation, explain
from bridge.translate.headers import Headers, Value
from bridge.translate.occurrences import Occurrences
from bridge.translate.study import Translator
from bridge.translate.uids import checked_uid

LISTED = 10_000
"""So many files that were not used are told by name; all are counted."""

BAR_FROM_FILES = 200


@dataclass
class NotUsed:
    """Files that tell nothing of a study: (file, reason). `skipped` are no objects, or the same as one before."""

    rejected: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    incomplete: list[tuple[str, str]] = field(default_factory=list)
    """Files that are used, but not all attributes of which could be listed."""
    files: int = 0
    unlisted: int = 0

    def add(self, files: list[tuple[str, str]], file: str, reason: str) -> None:
        """Tells a file, or counts it."""
        if len(files) < LISTED:
            files.append((printable(file), reason))
        else:
            self.unlisted += 1


class Files:
    """The files under some paths, by study. `not_used` is filled while they are read; progress goes to `console`."""

    def __init__(self, paths: Sequence[Path], console: Console) -> None:
        """Raises ConfigError when a path does not exist."""
        for path in paths:
            if not path.exists():
                raise ConfigError(f"{path}: no such file or folder")
        self.not_used, self._console, self._used = NotUsed(), console, 0
        self._studies: dict[str, list[tuple[str, Path]]] = {}
        found = [one for path in paths for one in files_under(path)]
        self.not_used.files = len(found)
        with self._progress("Looking through the files", len(found)) as show:
            for number, (key, file) in enumerate(found, 1):
                if not isinstance(file, Path):
                    self.not_used.add(self.not_used.rejected, key, file.problem)
                elif study := self._study_of(key, file):
                    self._studies.setdefault(study, []).append((key, file))
                show(number, f"{len(self._studies)} studies")

    @property
    def all_used(self) -> bool:
        """Whether there was something to tell, and no file was rejected."""
        return self._used > 0 and not self.not_used.rejected

    def explained(self, translator: Translator, values: bool) -> Iterator[StudyExplanation]:
        """Every study, by UID. One of which no file can be used is told with its files only."""
        for uid, files in sorted(self._studies.items()):
            headers, occurrences = self._read(files, values)
            if headers:
                yield explain(uid, headers, occurrences, translator, attribute_table())

    def _study_of(self, key: str, file: Path) -> str:
        """The study a file belongs to; "" when it cannot be used."""
        unused = self.not_used
        try:
            headers = read_headers(file)
            if headers.text("SOPClassUID") == MEDIA_DIRECTORY:
                unused.add(unused.skipped, key, "a DICOMDIR")
                return ""
            for keyword in ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID"):
                checked_uid(headers.text(keyword), keyword)
            return checked_uid(headers.text("StudyInstanceUID"), "StudyInstanceUID")
        except InvalidFile as error:
            archive = is_archive(file.name)
            no_object = archive or str(error) in (NO_DICOM, "the file is empty")
            reason = "an archive: unpack it" if archive else str(error)
            unused.add(unused.skipped if no_object else unused.rejected, key, reason)
        except (RejectedInput, SourceUnavailable) as error:
            unused.add(unused.rejected, key, str(error))
        except FileNotFoundError:
            unused.add(unused.rejected, key, "it vanished before it was read")
        return ""

    def _read(self, files: Sequence[tuple[str, Path]], values: bool) -> tuple[list[Headers], Occurrences]:
        """The headers of a study's instances, each once, and what its files have."""
        found: dict[str, Path] = {}
        headers: list[Headers] = []
        occurrences, shared = Occurrences(), _Shared()
        with self._progress("Reading a study", len(files)) as show:
            for number, (key, file) in enumerate(files, 1):
                show(number, f"{len(headers)} instances")
                one = self._listed(key, file, values)
                if one is None or self._is_repeated(key, file, one.headers.text("SOPInstanceUID"), found):
                    continue
                if one.problem:
                    self.not_used.add(self.not_used.incomplete, key, one.problem)
                headers.append(shared.of(one.headers))
                occurrences.add(one.attributes)
        self._used += len(headers)
        return headers, occurrences

    @contextmanager
    def _progress(self, title: str, total: int) -> Iterator[Show]:
        """A bar, where there is enough to do."""
        if total < BAR_FROM_FILES:
            yield lambda _done, _told: None
            return
        with bars(self._console) as bar:
            yield bar(title, total)

    def _listed(self, key: str, file: Path, values: bool) -> Listed | None:
        try:
            return listed(file, values)
        except (InvalidFile, SourceUnavailable, FileNotFoundError):
            self.not_used.add(self.not_used.rejected, key, "it changed while it was read")
            return None

    def _is_repeated(self, key: str, file: Path, sop_instance_uid: str, found: dict[str, Path]) -> bool:
        before = found.setdefault(sop_instance_uid, file)
        if before is file:
            return False
        try:
            same = filecmp.cmp(before, file, shallow=False)
        except OSError:
            same = False
        if same:
            self.not_used.add(self.not_used.skipped, key, "the same object as in a file before it")
        else:
            problem = "SOPInstanceUID: a file before it has other content of the same instance"
            self.not_used.add(self.not_used.rejected, key, problem)
        return True


class _Shared:
    """Keeps one copy of values that many instances have."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, tuple[Value, ...]], tuple[Value, ...]] = {}

    def of(self, headers: Headers) -> Headers:
        return Headers({keyword: self._one(keyword, values) for keyword, values in headers.items()})

    def _one(self, keyword: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
        first = values[0]
        if isinstance(first, Headers):
            return tuple(self.of(v) if isinstance(v, Headers) else v for v in values)
        return self._values.setdefault((keyword, type(first).__name__, values), values)
