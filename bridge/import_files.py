"""`bridge import`: brings files into the pipeline once, by copying their objects into a spool that a source follows.

The copies make the originals dispensable: a disc may be taken out after its import. The index rows and marks are
written to the shared state, so that a running bridge goes on with them; without one, the studies are translated and
delivered here. Every batch is durable before it counts, so an import that was stopped is simply started again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import orjson
from rich.console import Console

from bridge.compose import Bridge
from bridge.config import FolderSource, Settings
from bridge.errors import ConfigError
from bridge.import_report import Bar, Summary, bars
from bridge.import_work import drain, look_through
from bridge.model import Rejection
from bridge.ports import ChangePage
from bridge.roles import alone
from bridge.sources.importer import Judged, Verdict, imported, measured
from bridge.sources.spool import Spool
from bridge.state import State

SOURCE = "import"
REMEMBERED_STUDIES = 256
POLL_S = 5.0
IN_PLACE_POLL_S = 60.0


def including_import(settings: Settings, in_place_settle_s: float = 1.0) -> Settings:
    """The settings with the sources that follow what was imported; the last to be believed.

    Raises  ConfigError when another source has the name of one of them
    """
    copies = FolderSource(
        kind="folder", name=SOURCE, path=_spool(settings) / "studies", poll_s=POLL_S, settle_s=0, allow_empty=True
    )
    in_place = (
        FolderSource(kind="folder", name=name, path=Path(path), poll_s=IN_PLACE_POLL_S, settle_s=in_place_settle_s)
        for name, path in _in_place(settings).items()
    )
    sources = (*settings.sources, copies, *in_place)
    for name in {source.name for source in sources[len(settings.sources) :]}:
        if name in {source.name for source in (*settings.sources, *settings.sinks)}:
            raise ConfigError(f"sources: the name {name} belongs to what `bridge import` brings: choose another one")
    return settings.model_copy(update={"sources": sources})


def import_files(settings: Settings, paths: Sequence[Path], console: Console, in_place: bool = False) -> Summary:
    """Imports everything under the paths: copies, index, marks; then the pipeline, if no running bridge has it.

    `in_place` leaves the files where they are and follows their folders from now on, as configured folders are.

    Raises  ConfigError         a path does not exist; another import into this data folder is running; with
                                `in_place`, a bridge is running, or a path is not a folder
            SourceUnavailable   the spool's disk is full: nothing that was counted is lost
    """
    for path in paths:
        if not path.exists() or (in_place and not path.is_dir()):
            raise ConfigError(f"{path}: no such folder" if in_place else f"{path}: no such file or folder")
        if path.resolve().is_relative_to(settings.data_dir.resolve()):
            raise ConfigError(f"{path}: lies in data_dir, where the bridge keeps its own files")
    summary = Summary()
    with _one_import(settings), bars(console) as bar, ExitStack() as stack:
        if in_place:
            stack.enter_context(alone(settings))
            names = _follow(settings, paths)
        else:
            _copy(settings, paths, summary, bar)
            try:
                stack.enter_context(alone(settings))
            except ConfigError:
                summary.working = "The running bridge translates and delivers them"
                return summary
            names = ()
        if not summary.interrupted:
            _work(settings, names, summary, bar, stack)
    return summary


def _work(settings: Settings, names: Sequence[str], summary: Summary, bar: Bar, stack: ExitStack) -> None:
    """Indexes what lies in place, translates and delivers."""
    bridge = Bridge(including_import(settings, in_place_settle_s=0.0))
    stack.callback(bridge.state.close)
    stack.callback(bridge.documents.close)
    if settings.database_url.startswith("sqlite"):
        bridge.state.release_leases()
    waiting = 1
    try:
        look_through(bridge, names, summary, bar)
        waiting = drain(bridge, bar)
    except KeyboardInterrupt:
        summary.interrupted = True
    bridge.publish()
    summary.working = (
        "Not all of it is delivered yet: `bridge run` goes on, `bridge status` tells what waits"
        if waiting
        else "Translated and delivered"
    )


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


def _in_place(settings: Settings) -> Mapping[str, str]:
    """source → folder of what was imported in place."""
    try:
        found: dict[str, str] = orjson.loads((_spool(settings) / "in-place.json").read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError):
        raise ConfigError(f"{_spool(settings) / 'in-place.json'}: cannot be read: mend or remove it") from None
    return found


def _follow(settings: Settings, paths: Sequence[Path]) -> tuple[str, ...]:
    """Notes down that these folders are followed from now on; their sources' names."""
    added = {_name_in_place(path.resolve()): str(path.resolve()) for path in paths}
    part, file = _spool(settings) / "in-place.part", _spool(settings) / "in-place.json"
    with part.open("wb") as content:
        content.write(orjson.dumps({**_in_place(settings), **added}, option=orjson.OPT_INDENT_2))
        content.flush()
        os.fsync(content.fileno())
    part.replace(file)
    return tuple(added)


def _name_in_place(path: Path) -> str:
    return f"{SOURCE}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def _copy(settings: Settings, paths: Sequence[Path], summary: Summary, bar: Bar) -> None:
    """Copies and commits batch by batch; what is committed survives whatever comes next."""
    spool, state, started = Spool(_spool(settings)), State(settings.database_url), time.monotonic()
    spool.sweep_parts()
    held = _Held(state, spool)
    try:
        files, total = measured(paths)
        show = bar(f"Importing {files} files", total)
        for batch in imported(paths, spool, held.digests):
            state.commit_page(SOURCE, _page(batch), time.time(), settings.quiet_s, settings.max_wait_s)
            held.forget(batch)
            summary.add(batch)
            summary.seconds = time.monotonic() - started
            if batch:
                show(batch[-1].consumed, f"{summary.verdicts[Verdict.IMPORTED]} objects, {summary.rate:.1f} MB/s")
    except KeyboardInterrupt:
        summary.interrupted = True
        summary.working = "What was imported is translated by the next import or `bridge run`"
    finally:
        state.close()


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
    """The digests of what the spool holds of a study, of the last studies asked for."""

    def __init__(self, state: State, spool: Spool) -> None:
        self._state, self._spool = state, spool
        self._known: OrderedDict[str, frozenset[str]] = OrderedDict()

    def digests(self, study_instance_uid: str) -> frozenset[str]:
        found = self._known.get(study_instance_uid)
        if found is None:
            indexed = (self._spool.studies / p for p in self._state.study_files(SOURCE, study_instance_uid))
            found = frozenset(path.stem.rpartition("-")[2] for path in indexed if path.exists())
            self._known[study_instance_uid] = found
            while len(self._known) > REMEMBERED_STUDIES:
                self._known.popitem(last=False)
        return found

    def forget(self, batch: Sequence[Judged]) -> None:
        for one in batch:
            if one.file is not None:
                self._known.pop(one.file.study_instance_uid, None)
