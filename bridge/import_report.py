"""What an import shows: its progress, and what it came to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bridge.ports import ChangePage
from bridge.sources.importer import Judged, Verdict

LISTED = 10_000
"""So many rejected and skipped files are listed by name in the summary; all are counted."""

COUNTED_REASONS = 1000
_SHOWN_REASONS = 10
Show = Callable[[int, str], None]
Bar = Callable[[str, int], Show]


@dataclass
class Summary:
    """What an import came to. `working`: who translates and delivers the studies."""

    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    interrupted: bool = False
    working: str = ""

    @property
    def rate(self) -> float:
        """MB/s that were imported."""
        return self.bytes / 1e6 / max(self.seconds, 1e-3)

    @property
    def parked(self) -> bool:
        return bool(self.verdicts[Verdict.REJECTED] or self.verdicts[Verdict.CONFLICT])

    def add(self, judged: Sequence[Judged]) -> None:
        for one in judged:
            self.files += 1
            self.verdicts[one.verdict] += 1
            listed = {Verdict.REJECTED: self.rejected, Verdict.CONFLICT: self.rejected, Verdict.SKIPPED: self.skipped}
            if one.reason and one.verdict is not Verdict.SKIPPED:
                known = one.reason in self.reasons or len(self.reasons) < COUNTED_REASONS
                self.reasons[one.reason if known else "other reasons"] += 1
            if one.verdict in listed and len(listed[one.verdict]) < LISTED:
                listed[one.verdict].append((one.key, one.reason))
            if one.file is not None and one.verdict is not Verdict.DUPLICATE:
                self.bytes += one.file.size
                self.studies.add(one.file.study_instance_uid)

    def add_page(self, page: ChangePage) -> None:
        """What one page of a folder that is followed in place says."""
        for file in page.files:
            if file.study_instance_uid:
                self.files, self.bytes = self.files + 1, self.bytes + file.size
                self.verdicts[Verdict.IMPORTED] += 1
                self.studies.add(file.study_instance_uid)
        self.add([Judged(rejection.key, Verdict.REJECTED, 0, rejection.error) for rejection in page.rejected])

    def as_json(self) -> dict[str, Any]:
        counts = {verdict.value: self.verdicts[verdict] for verdict in Verdict}
        return {
            "files": self.files, **counts, "studies": len(self.studies), "bytes_imported": self.bytes,
            "seconds": round(self.seconds, 3), "interrupted": self.interrupted, "pipeline": self.working,
            "reasons": dict(self.reasons.most_common()),
            "rejected_files": [{"file": key, "reason": reason} for key, reason in self.rejected],
            "skipped_files": [{"file": key, "reason": reason} for key, reason in self.skipped],
        }  # fmt: skip


def show(summary: Summary, console: Console) -> None:
    """The summary for people."""
    counts = summary.verdicts
    console.print(
        f"{summary.files} files: {counts[Verdict.IMPORTED]} objects imported into {len(summary.studies)} studies "
        f"({summary.bytes / 1e6:.1f} MB, {summary.rate:.1f} MB/s), {counts[Verdict.DUPLICATE]} were there already, "
        f"{counts[Verdict.CONFLICT]} conflicts, {counts[Verdict.REJECTED]} rejected, "
        f"{counts[Verdict.SKIPPED]} not DICOM",
        soft_wrap=True,
        highlight=False,
    )
    for reason, count in summary.reasons.most_common(_SHOWN_REASONS):
        console.print(f"  {count} × {reason}", markup=False, highlight=False, soft_wrap=True)
    if len(summary.reasons) > _SHOWN_REASONS:
        console.print(f"  and {len(summary.reasons) - _SHOWN_REASONS} other reasons: --json lists them")
    if summary.parked:
        console.print("What was not used is parked: bridge parked list", highlight=False)
    if summary.interrupted:
        console.print("Interrupted: start the same import again to go on", highlight=False)
    console.print(summary.working, highlight=False, soft_wrap=True)


@contextmanager
def bars(console: Console) -> Iterator[Bar]:
    """Bars on a terminal; elsewhere a plain line every tenth of the way."""
    if not console.is_terminal:
        yield lambda title, total: _plain(console, title, total)
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:

        def bar(title: str, total: int) -> Show:
            task = progress.add_task(title, total=total, told="")
            return lambda done, told: progress.update(task, completed=done, told=told)

        yield bar


def _plain(console: Console, title: str, total: int) -> Show:
    reached, started = [-1], time.monotonic()

    def show(done: int, told: str) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > reached[0]:
            reached[0] = tenth
            console.print(f"{title}: {10 * tenth} %, {told}, {time.monotonic() - started:.0f} s", highlight=False)

    return show
