"""The command `cohort fetch`."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bridge import config
from bridge.command_line import EXIT_PARTIAL
from bridge.errors import ConfigError, InvalidQuery
from bridge.sources.peer import Peer
from cohort.fetch.dimse import DimseImages
from cohort.fetch.folder import ImageFolder
from cohort.fetch.plan import Series
from cohort.fetch.plan import wanted as all_wanted
from cohort.fetch.port import Images, Progress
from cohort.fetch.run import Fetch, Report
from cohort.fetch.sign_in import accesses
from cohort.fetch.wado import WadoImages
from cohort.options import (
    ConfigOption,
    DateOption,
    LakeOption,
    ParameterOption,
    QuestionArgument,
    exported,
)

SHOWN_MISSING = 20
_PEER = re.compile(r"^(?P<title>[^@]+)@(?P<host>\[[0-9A-Fa-f:.]+\]|[^@:\s/]+):(?P<port>\d{1,5})$")


def fetch(
    question: QuestionArgument,
    to: Annotated[Path, typer.Option("--to", help="A folder; what it holds already is not fetched again")],
    param: ParameterOption = [],  # noqa: B006
    date: DateOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    source: Annotated[
        str, typer.Option("--from", metavar="AET@HOST:PORT", help="Ask this archive by C-GET instead of WADO-RS")
    ] = "",
    calling: Annotated[str, typer.Option("--as", metavar="AET", help="Our AE title, with --from")] = "BRIDGE",
    parallel: Annotated[int, typer.Option(min=1, max=16, help="Series fetched side by side")] = 4,
) -> None:
    """Fetch the images of a question into a folder and check them against the lake.

    Images come by WADO-RS from the addresses the studies have, signed in as [[fetch]] has it, or by C-GET. A fetch that
    was ended goes on where it was. Exit code 1 when something is missing.

    Example: cohort fetch osteosarcoma-ct --to images/ --config bridge.toml
    """
    stop = threading.Event()
    images = _images(config_file, source, calling, stop)
    with exported("fetch", question, param, date, lake, config_file) as selection:
        listed = all_wanted(selection)
    folder = ImageFolder(to)
    try:
        with folder.exclusive(), _progress(listed, folder) as progress:
            report = Fetch(images, folder, progress, stop).run(listed, parallel)
            folder.write_index(listed)
    except KeyboardInterrupt:
        typer.echo("Ended; what came is kept: the same command goes on from there", err=True)
        raise typer.Exit(EXIT_PARTIAL) from None
    except OSError as error:
        raise ConfigError(f"--to {to}: cannot be written ({error.strerror})") from None
    finally:
        stop.set()
        images.close()
    _tell(report, len(listed))
    raise typer.Exit(EXIT_PARTIAL if report.missing else 0)


def _images(settings: Path | None, source: str, calling: str, stop: threading.Event) -> Images:
    if not source:
        return WadoImages(accesses(config.load(settings).fetch if settings else ()), stop)
    found = _PEER.match(source)
    if found is None or not 0 < int(found["port"]) <= 65_535:
        raise InvalidQuery("--from: allowed is AET@HOST:PORT, such as ARCHIVE@pacs.example:11112")
    return DimseImages(Peer(found["host"].strip("[]"), int(found["port"]), found["title"], calling), stop)


def _tell(report: Report, series: int) -> None:
    typer.echo(f"{report.held} of {report.wanted} instances of {series} series are here, each checked by its UIDs")
    for reason, count in sorted(report.refused.items()):
        typer.echo(f"Left out: {count} times: {reason}", err=True)
    for one in report.missing[:SHOWN_MISSING]:
        uids = f"study {one.series.study_instance_uid} series {one.series.series_instance_uid}"
        part = f"{len(one.instances)} of {len(one.series.instances)} instances" if one.instances else "all"
        typer.echo(f"Missing: {uids}: {part}: {one.reason}", err=True)
    if len(report.missing) > SHOWN_MISSING:
        typer.echo(f"… and of {len(report.missing) - SHOWN_MISSING} more series", err=True)


@contextmanager
def _progress(listed: Sequence[Series], folder: ImageFolder) -> Iterator[Progress]:
    """A bar on a terminal, else nothing until the end."""
    total = sum(len(one.instances) for one in listed)
    held = total - sum(len(folder.missing(one)) for one in listed)
    if not sys.stderr.isatty():
        yield _Shown(None, held)
        return
    columns = (
        TextColumn("Fetching"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        shown = _Shown(bar, held)
        shown.task = bar.add_task("fetch", total=total, completed=held, rate="")
        yield shown


class _Shown:
    """Instances and bytes, as they come, on a bar."""

    task: TaskID | None = None

    def __init__(self, bar: Bar | None, held: int) -> None:
        self._bar, self._done, self._bytes = bar, held, 0
        self._before, self._started, self._lock = held, time.monotonic(), threading.Lock()

    def received(self, size: int) -> None:
        with self._lock:
            self._bytes += size

    def kept(self) -> None:
        with self._lock:
            self._done += 1
            if self._bar is None or self.task is None:
                return
            elapsed = max(time.monotonic() - self._started, 0.001)
            images = (self._done - self._before) / elapsed
            rate = f"{images:.0f} images/s, {self._bytes / elapsed / 1e6:.1f} MB/s"
            self._bar.update(self.task, completed=self._done, rate=rate)

    def refused(self, problem: str) -> None:
        """Told at the end."""
