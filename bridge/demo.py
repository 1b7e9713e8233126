"""The demo: a synthetic hospital, brought through the real pipeline, and the founding question answered."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import orjson
from pydicom import data as pydicom_data
from pydicom import dcmread
from pynetdicom import AE, evt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bridge import __version__, config
from bridge.compose import Bridge
from bridge.errors import ConfigError, ProjectError, SourceUnavailable
from bridge.ports import STUDY_QUEUE, file_queue, sink_queue
from bridge.sources.association import answer_at_once
from cohort.catalogue import question
from cohort.clinical import load
from cohort.desk import Caller
from cohort.render import table
from hospital import generate

SEED = 20260101
MARKER = "made-by-bridge-demo.json"
STORE_TRIES, STORE_ANSWER_S = 5, 5.0
RECEIVED_SHARE = 4
"""Every fourth study is sent by C-STORE, the others are copied into the watched folder."""

QUESTION = "osteosarcoma-ct"
SHOWN_COLUMNS = ("identifiers", "age_years", "started_date", "description", "reports", "medications")
CONFIGURATION = """# The commands of the demo. Its patients are made up, so everything about them may be seen.
data_dir = "bridge-data"

[cohort]
small_cells = 1
line_level = true
identifiers = "identifiers"
"""
_QUIET_S = 1.0
_IDLE_S = 0.3
_GIVE_UP_S = 900.0


def run_demo(folder: Path, stay: bool, patients: int) -> None:
    """Everything `make demo` shows. Safe to repeat; a folder from another day or version is made anew.

    Raises  ConfigError when `folder` holds something else
    """
    console = Console()
    today = datetime.now(UTC).date()
    made = _prepare(folder, today, patients)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    console.print("Synthetic data only: no patient in it exists.", style="bold")
    with _progress(console) as bar:
        summary = generate(made, patients=patients, seed=SEED, today=today, progress=bar("Making the hospital"))
    console.print(
        f"{summary.patients} patients, {summary.conditions} conditions, {summary.medication_requests} medication "
        f"requests, {summary.reports} reports; {summary.studies} imaging studies, {summary.instances} DICOM files"
    )
    settings = _settings(folder)
    with Bridge(settings).running() as bridge:
        _bring(bridge, made, folder, summary.studies, console, stop)
        if stop.is_set():
            return
        _answer(bridge, folder, console, today)
        _addresses(bridge, console)
        while stay and not stop.is_set() and not bridge.failed.is_set():
            stop.wait(0.5)


def _prepare(folder: Path, today: date, patients: int) -> Path:
    marker, wanted = folder / MARKER, {"version": __version__, "today": today.isoformat(), "patients": patients}
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise ConfigError(f"{folder}: holds something else than a demo; choose an empty folder")
        if orjson.loads(marker.read_bytes()) != wanted:
            shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker.write_bytes(orjson.dumps(wanted))
    return folder / "hospital"


def _settings(folder: Path) -> config.Settings:
    """The embedded defaults, in the demo's folder; a port that is taken is replaced by a free one."""
    embedded = config.embedded(folder / "bridge-data")
    sources = tuple(
        s.model_copy(update={"port": _free_port(s.port)}) if isinstance(s, config.ReceiverSource) else s
        for s in embedded.sources
    )
    api = embedded.api.model_copy(update={"port": _free_port(embedded.api.port)})
    (folder / "bridge.toml").write_text(CONFIGURATION, "utf-8")
    cohort = config.load(folder / "bridge.toml").cohort
    return embedded.model_copy(update={"sources": sources, "api": api, "cohort": cohort, "quiet_s": _QUIET_S})


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("no free port on 127.0.0.1")


def _bring(bridge: Bridge, made: Path, folder: Path, studies: int, console: Console, stop: threading.Event) -> None:
    """Sends the studies in by folder and by C-STORE, loads the clinical side, waits until all of it is visible."""
    inbox = next(s.path for s in bridge.settings.sources if isinstance(s, config.FolderSource))
    with _progress(console) as bar:
        shown = bar("Bringing studies through the pipeline")
        sender = _Sender(bridge, made / "dicom", inbox, stop)
        sender.start()
        loaded = bar("Loading clinical FHIR")
        report = load([made / "clinical"], bridge.lake, datetime.now(UTC), loaded)
        bridge.publish()
        _wait(bridge, sender, studies, shown, stop)
    console.print(
        f"Clinical resources loaded: {sum(report.counts.values())}; in FHIR now: "
        + ", ".join(f"{n} {kind}" for kind, n in bridge.state.counts().items())
    )
    parked = len(bridge.state.items(parked=True))
    if parked:
        console.print(
            f"{parked} of pydicom's own test files are damaged or incomplete on purpose and parked with the reason. "
            f"See: {_command('bridge')} parked list --data-dir {bridge.settings.data_dir}"
        )


class _Sender(threading.Thread):
    """Sends everything in the background; `error` is what stopped it, if anything did."""

    def __init__(self, bridge: Bridge, dicom: Path, inbox: Path, stop: threading.Event) -> None:
        super().__init__(name="demo-sender", daemon=True)
        self._send = partial(_send_all, bridge, dicom, inbox, stop)
        self.error: ProjectError | OSError | None = None

    def run(self) -> None:
        try:
            self._send()
        except (ProjectError, OSError) as error:
            self.error = error


def _send_all(bridge: Bridge, dicom: Path, inbox: Path, stop: threading.Event) -> None:
    for number, folder in enumerate(_study_folders(dicom)):
        if stop.is_set():
            return
        if number % RECEIVED_SHARE == 0:
            _c_store(bridge, sorted(folder.rglob("*.dcm")))
        else:
            _copy(sorted(folder.rglob("*.dcm")), dicom, inbox / "synthetic")
    bundled = Path(pydicom_data.__file__).parent
    for part in ("test_files", "charset_files"):
        _copy(sorted((bundled / part).rglob("*.dcm")), bundled, inbox / "pydicom")


def _study_folders(dicom: Path) -> Iterator[Path]:
    """The deepest folders that hold one study each."""
    yield from sorted({p.parent for p in dicom.rglob("*.dcm")})


def _copy(files: Sequence[Path], root: Path, target: Path) -> None:
    for file in files:
        place = target / (file.relative_to(root) if file.is_relative_to(root) else Path(file.name))
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_suffix(".part")
        shutil.copyfile(file, part)
        part.rename(place)


def _c_store(bridge: Bridge, files: Sequence[Path]) -> None:
    """Sends them; again where an answer is lost, which pynetdicom's client now and then does on a busy machine."""
    for _ in range(STORE_TRIES):
        status = _stored(bridge, files)
        if status == 0:
            return
        if status is not None:
            raise SourceUnavailable(f"the demo's C-STORE was answered with status 0x{status:04X}")
    raise SourceUnavailable("the demo's C-STORE was not answered")


def _stored(bridge: Bridge, files: Sequence[Path]) -> int | None:
    """The status of the last C-STORE, of the first that is no success; None without an answer in time."""
    receiver = next(s for s in bridge.settings.sources if isinstance(s, config.ReceiverSource))
    datasets = [dcmread(file) for file in files]
    entity = AE("DEMO")
    entity.dimse_timeout = STORE_ANSWER_S
    for context in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
        entity.add_requested_context(*context)
    association = entity.associate(
        receiver.host, receiver.port, ae_title=receiver.ae_title, evt_handlers=[(evt.EVT_CONN_OPEN, answer_at_once)]
    )
    if not association.is_established:
        raise SourceUnavailable("the demo's C-STORE association was not accepted")
    for dataset in datasets:
        status = getattr(association.send_c_store(dataset), "Status", None)
        if status != 0:
            association.abort()
            return status
    association.release()
    return 0


def _wait(
    bridge: Bridge, sender: _Sender, studies: int, shown: Callable[[int, int], None], stop: threading.Event
) -> None:
    """Until every study is visible and nothing waits in any queue."""
    started = time.monotonic()
    while not stop.is_set() and not bridge.failed.is_set():
        visible = bridge.state.counts().get("ImagingStudy", 0)
        shown(min(visible, studies), studies)
        if not sender.is_alive() and visible >= studies and _at_rest(bridge):
            return
        if sender.error is not None:
            raise SourceUnavailable(f"the demo could not send its studies: {sender.error}")
        if time.monotonic() - started > _GIVE_UP_S:
            raise SourceUnavailable("the demo did not come to rest in 15 minutes: see `bridge status`")
        stop.wait(_IDLE_S)


def _at_rest(bridge: Bridge) -> bool:
    """Looked at in the order in which work moves on, so that nothing slips by between two looks."""
    if not _inbox_read(bridge):
        return False
    for queue in (*map(file_queue, bridge.sources), STUDY_QUEUE, sink_queue("lake")):
        if bridge.state.items(queue=queue, parked=False, limit=1):
            return False
    return not bridge.lake.pending()


def _inbox_read(bridge: Bridge) -> bool:
    folders = [s for s in bridge.settings.sources if isinstance(s, config.FolderSource)]
    return all(
        len(bridge.state.known_files(s.name)) >= sum(1 for p in s.path.rglob("*") if p.is_file()) for s in folders
    )


def _answer(bridge: Bridge, folder: Path, console: Console, today: date) -> None:
    asked = question(QUESTION)
    console.rule(asked.title)
    console.print(asked.description)
    generation = bridge.lake.current()
    if generation is None:
        raise SourceUnavailable("the lake has no generation: nothing was delivered")
    answer = bridge.desk.ask(generation, asked, {}, today, Caller("demo", "cli"))
    console.print(table(answer, console.width, rows=12, columns=SHOWN_COLUMNS))
    console.print(
        f"All of it: {_command('cohort')} ask {QUESTION} --config {folder / 'bridge.toml'} --format csv", soft_wrap=True
    )


def _command(name: str) -> str:
    """How the person who started the demo calls a command of this environment."""
    path = Path(sys.executable).with_name(name)
    if shutil.which(name) == str(path):
        return name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _addresses(bridge: Bridge, console: Console) -> None:
    base = bridge.settings.public_url
    console.rule("It stays up: Ctrl-C ends it")
    console.print(f"FHIR API      {base}/fhir/ImagingStudy?_include=ImagingStudy:patient", soft_wrap=True)
    console.print(f"Cohort page   {base}/cohort/", soft_wrap=True)
    console.print(f"Operations    {base}/operations/", soft_wrap=True)
    sys.stdout.flush()


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Bars on a terminal; elsewhere a plain line every tenth of the way."""
    if not console.is_terminal:
        yield lambda title: _plain(console, title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def bar(title: str) -> Callable[[int, int], None]:
            task = progress.add_task(title, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield bar


def _plain(console: Console, title: str) -> Callable[[int, int], None]:
    reached = [-1]

    def show(done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth > reached[0]:
            reached[0] = tenth
            console.print(f"{title}: {done} of {total}")

    return show
