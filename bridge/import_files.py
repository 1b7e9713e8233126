"""`bridge import`: brings files into the pipeline once, by copying their objects into a spool that a source follows.

The copies make the originals dispensable: a disc may be taken out after its import. The index rows and marks are
written to the shared state, so that a running bridge goes on with them; without one, the studies are translated and
delivered here. Every batch is durable before it counts, so an import that was stopped is simply started again.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bridge.compose import Bridge, _alone
from bridge.config import FolderSource, Settings
from bridge.errors import ConfigError, SinkUnavailable, Unavailable
from bridge.model import Rejection
from bridge.ports import STUDY_QUEUE, ChangePage, sink_queue
from bridge.sources.importer import Judged, Verdict, imported, measured
from bridge.sources.spool import Spool
from bridge.state import State

SOURCE = "import"
LISTED = 10_000
"""So many rejected and skipped files are listed by name in the summary; all are counted."""

REMEMBERED_STUDIES = 256
_POLL_S = 5.0
_IDLE_S = 0.2
_SHOWN_REASONS = 10


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
    def parked(self) -> bool:
        return bool(self.verdicts[Verdict.REJECTED] or self.verdicts[Verdict.CONFLICT])

    def add(self, judged: Sequence[Judged]) -> None:
        for one in judged:
            self.files += 1
            self.verdicts[one.verdict] += 1
            listed = {Verdict.REJECTED: self.rejected, Verdict.CONFLICT: self.rejected, Verdict.SKIPPED: self.skipped}
            if one.reason and one.verdict is not Verdict.SKIPPED:
                self.reasons[one.reason] += 1
            if one.verdict in listed and len(listed[one.verdict]) < LISTED:
                listed[one.verdict].append((one.key, one.reason))
            if one.file is not None and one.verdict is not Verdict.DUPLICATE:
                self.bytes += one.file.size
                self.studies.add(one.file.study_instance_uid)

    def as_json(self) -> dict[str, Any]:
        counts = {verdict.value: self.verdicts[verdict] for verdict in Verdict}
        return {
            "files": self.files, **counts, "studies": len(self.studies), "bytes_imported": self.bytes,
            "seconds": round(self.seconds, 3), "interrupted": self.interrupted, "pipeline": self.working,
            "reasons": dict(self.reasons.most_common()),
            "rejected_files": [{"file": key, "reason": reason} for key, reason in self.rejected],
            "skipped_files": [{"file": key, "reason": reason} for key, reason in self.skipped],
        }  # fmt: skip


def including_import(settings: Settings) -> Settings:
    """The settings with the source that follows what was imported; the last to be believed.

    Raises  ConfigError when another source has its name
    """
    if SOURCE in {source.name for source in (*settings.sources, *settings.sinks)}:
        raise ConfigError(f"sources: the name {SOURCE} belongs to what `bridge import` brings: choose another one")
    spool = FolderSource(
        kind="folder", name=SOURCE, path=_spool(settings) / "studies", poll_s=_POLL_S, settle_s=0, allow_empty=True
    )
    return settings.model_copy(update={"sources": (*settings.sources, spool)})


def import_files(settings: Settings, paths: Sequence[Path], console: Console) -> Summary:
    """Imports everything under the paths: copies, index, marks; then the pipeline, if no running bridge has it.

    Raises  ConfigError         a path does not exist, or another import into this data folder is running
            SourceUnavailable   the spool's disk is full: nothing that was counted is lost
    """
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        if path.resolve().is_relative_to(settings.data_dir.resolve()):
            raise ConfigError(f"{path}: lies in data_dir, where the bridge keeps its own files")
    started, summary = time.monotonic(), Summary()
    with _one_import(settings), _bars(console) as bar:
        state = State(settings.database_url)
        try:
            _copy(settings, state, paths, summary, bar)
        except KeyboardInterrupt:
            summary.interrupted = True
        finally:
            state.close()
        summary.seconds = time.monotonic() - started
        _work(settings, summary, bar)
    return summary


def show(summary: Summary, console: Console) -> None:
    """The summary for people."""
    counts, rate = summary.verdicts, summary.bytes / 1e6 / max(summary.seconds, 1e-3)
    console.print(
        f"{summary.files} files: {counts[Verdict.IMPORTED]} objects imported into {len(summary.studies)} studies "
        f"({summary.bytes / 1e6:.1f} MB, {rate:.1f} MB/s), {counts[Verdict.DUPLICATE]} were there already, "
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


def _spool(settings: Settings) -> Path:
    return settings.data_dir / "spool" / SOURCE


@contextmanager
def _one_import(settings: Settings) -> Iterator[None]:
    """Two imports side by side would clear away each other's unfinished copies."""
    spool = _spool(settings)
    spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (spool / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"data_dir: another import into {settings.data_dir} is running") from None
        yield


def _copy(settings: Settings, state: State, paths: Sequence[Path], summary: Summary, bar: _Bar) -> None:
    """Copies and commits batch by batch; what is committed survives whatever comes next."""
    spool = Spool(_spool(settings))
    spool.sweep_parts()
    held = _Held(state)
    files, total = measured(paths)
    show, started = bar(f"Importing {files} files", total), time.monotonic()
    for batch in imported(paths, spool, held.digests):
        now = time.time()
        state.commit_page(SOURCE, _page(batch), now, settings.quiet_s, settings.max_wait_s)
        held.add(batch)
        summary.add(batch)
        if batch:
            rate = summary.bytes / 1e6 / max(time.monotonic() - started, 1e-3)
            show(batch[-1].consumed, f"{summary.verdicts[Verdict.IMPORTED]} objects, {rate:.1f} MB/s")


def _page(batch: Sequence[Judged]) -> ChangePage:
    """What a batch means to the state. Conflicts are parked with their study, when it is read."""
    files = tuple(one.file for one in batch if one.file is not None)
    return ChangePage(
        studies=frozenset(file.study_instance_uid for file in files),
        position="",
        caught_up=True,
        files=files,
        rejected=tuple(Rejection(one.key, one.reason) for one in batch if one.verdict is Verdict.REJECTED),
        accepted=tuple(one.key for one in batch if one.verdict is not Verdict.REJECTED),
    )


class _Held:
    """The digests of what the spool holds of a study, as the index knows them; of the last studies asked for."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: OrderedDict[str, frozenset[str]] = OrderedDict()

    def digests(self, study_instance_uid: str) -> frozenset[str]:
        found = self._known.get(study_instance_uid)
        if found is None:
            paths = self._state.study_files(SOURCE, study_instance_uid)
            found = frozenset(Path(path).stem.rpartition("-")[2] for path in paths)
            self._known[study_instance_uid] = found
            while len(self._known) > REMEMBERED_STUDIES:
                self._known.popitem(last=False)
        return found

    def add(self, batch: Sequence[Judged]) -> None:
        for one in batch:
            if one.file is not None:
                self._known.pop(one.file.study_instance_uid, None)


def _work(settings: Settings, summary: Summary, bar: _Bar) -> None:
    """Translates and delivers, unless a running bridge does; says in `working` how that ended."""
    with ExitStack() as stack:
        try:
            stack.enter_context(_alone(settings))
        except ConfigError:
            summary.working = "The running bridge translates and delivers them"
            return
        if summary.interrupted:
            summary.working = "What was imported is translated by the next import or `bridge run`"
            return
        bridge = Bridge(including_import(settings))
        stack.callback(bridge.state.close)
        if settings.database_url.startswith("sqlite"):
            bridge.state.release_leases()
        try:
            waiting = _drain(bridge, bar)
        except KeyboardInterrupt:
            summary.interrupted, waiting = True, 1
        bridge.publish()
    summary.working = (
        "Translated and delivered"
        if not waiting
        else "Not all of it is delivered yet: `bridge run` goes on, `bridge status` tells what waits"
    )


def _drain(bridge: Bridge, bar: _Bar) -> int:
    """Works on studies until all were tried and delivered, or only waits for peers; how many rows still wait."""
    process = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
    worker, away = f"{process}/import", set[str]()
    total = sum(_untried(bridge.state, STUDY_QUEUE))
    show = bar("Translating and delivering", total)
    with _leases_kept(bridge, process):
        while True:
            worked = bridge.pipeline.translate(worker, limit=8)
            for sink in bridge.sinks.keys() - away:
                try:
                    worked += bridge.pipeline.deliver(sink, worker)
                except SinkUnavailable:
                    away.add(sink)
            untried = _untried(bridge.state, STUDY_QUEUE)[0]
            sinks = sum(_untried(bridge.state, sink_queue(sink))[0] for sink in bridge.sinks.keys() - away)
            show(max(0, total - untried), f"{untried} studies left")
            if not untried and not sinks:
                break
            if not worked:
                time.sleep(_IDLE_S)
    return sum(sum(_untried(bridge.state, queue)) for queue in (STUDY_QUEUE, *map(sink_queue, bridge.sinks)))


def _untried(state: State, queue: str) -> tuple[int, int]:
    """(rows of a queue not tried yet, rows that failed and are tried again later)."""
    for name, waiting, _parked, failing, _oldest in state.depth():
        if name == queue:
            return waiting - failing, failing
    return 0, 0


@contextmanager
def _leases_kept(bridge: Bridge, process: str) -> Iterator[None]:
    """A heartbeat, so that a study of any size is finished by the worker that began it."""
    stop, lease_s = threading.Event(), bridge.pipeline.timing.lease_s

    def beat() -> None:
        while not stop.wait(lease_s / 3):
            with suppress(Unavailable):
                bridge.state.renew_process(process, time.time(), lease_s)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


_Show = Callable[[int, str], None]
_Bar = Callable[[str, int], _Show]


@contextmanager
def _bars(console: Console) -> Iterator[_Bar]:
    """Bars on a terminal; elsewhere a plain line every tenth of the way."""
    if not console.is_terminal:
        yield lambda title, total: _plain(console, title, total)
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:

        def bar(title: str, total: int) -> _Show:
            task = progress.add_task(title, total=total, told="")
            return lambda done, told: progress.update(task, completed=done, told=told)

        yield bar


def _plain(console: Console, title: str, total: int) -> _Show:
    reached, started = [-1], time.monotonic()

    def show(done: int, told: str) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > reached[0]:
            reached[0] = tenth
            console.print(f"{title}: {10 * tenth} %, {told}, {time.monotonic() - started:.0f} s", highlight=False)

    return show
