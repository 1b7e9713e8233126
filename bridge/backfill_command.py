"""The command `bridge backfill`. Part of the composition root."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bridge.archives import Archives
from bridge.config import Settings
from bridge.errors import ConfigError
from bridge.opened_state import opened_state
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of
from bridge.ports import ImagingSource, ListsByDate
from bridge.reconcile.ordered import some_at_once
from bridge.roles import alone
from bridge.state import State

AT_ONCE = 500
LOOK_S = 1.0


def backfill(
    source: Annotated[str, typer.Argument(help="Name of a configured source")],
    from_: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First StudyDate", show_default=False)
    ] = None,
    to: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last StudyDate", show_default=False)
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Read studies that are known already as well")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Show how far the running bridge is")] = True,
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Have a source's studies read, the newest first, behind everything that changes now.

    They are marked in the state; `bridge run` works on them, at backfill_per_minute. May be interrupted anywhere:
    what is marked stays marked, and what was read is not read again when the command is repeated.

    Example: bridge backfill pacs --from 2024-01-01 --to 2024-12-31
    """
    settings = settings_of(config_file, data_dir)
    first, last = from_.date() if from_ else None, to.date() if to else None
    with opened_state(settings) as state:
        archives = Archives(settings, state, lambda _stage: None)
        try:
            if source not in archives.sources:
                raise ConfigError(f"{source}: no source of that name; configured: {', '.join(archives.sources)}")
            listed, marked = mark(state, archives.sources[source], first, last, again=again, now=time.time())
        finally:
            archives.close()
        told: dict[str, Any] = {"source": source, "listed": listed, "marked": marked}
        if wait and not as_json and _is_running(settings):
            _watch(state, source)
        told |= {"waiting": state.backfill_left(source), "parked": state.parked_of(source)}
    typer.echo(json.dumps(told) if as_json else _line(told))


def mark(
    state: State, source: ImagingSource, first: date | None, last: date | None, *, again: bool, now: float
) -> tuple[int, int]:
    """Marks the studies of these days. Result: how many the source listed, how many were marked.

    Raises  ConfigError         days are asked for, and the source cannot list by date
            SourceUnavailable   it cannot answer; what it listed before is marked
    """
    listed = marked = 0
    for some in some_at_once(_listed(source, first, last), AT_ONCE):
        known = set() if again else state.known_of(source.name, [uid for uid, _ in some])
        wanted = [(uid, day) for uid, day in some if uid not in known]
        state.backfill(source.name, wanted, now)
        listed, marked = listed + len(some), marked + len(wanted)
    return listed, marked


def _listed(source: ImagingSource, first: date | None, last: date | None) -> Iterator[tuple[str, date | None]]:
    if isinstance(source, ListsByDate):
        yield from source.listed(first, last)
    elif first or last:
        raise ConfigError(f"source {source.name}: it cannot list studies by date; leave out --from and --to")
    else:
        yield from ((uid, None) for uid, _ in source.inventory())


def _is_running(settings: Settings) -> bool:
    try:
        with alone(settings):
            return False
    except ConfigError:
        return True


def _watch(state: State, source: str) -> None:
    """A bar until nothing of the source waits, or Ctrl-C."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(), TextColumn("{task.fields[parked]} parked"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        total = state.backfill_left(source)
        task = progress.add_task(f"Backfill of {source}", total=total, rate="", parked=0)
        try:
            for done, per_minute, parked in steps(state, source, total, time.monotonic, lambda: time.sleep(LOOK_S)):
                progress.update(task, completed=done, rate=f"{per_minute:.0f}/min", parked=parked)
        except KeyboardInterrupt:
            return


def steps(
    state: State, source: str, total: int, clock: Callable[[], float], pause: Callable[[], None]
) -> Iterator[tuple[int, float, int]]:
    """(studies begun of those that waited, how many a minute, how many are parked) until none of the source waits."""
    started = clock()
    while True:
        done = max(0, total - state.backfill_left(source))
        yield done, 60 * done / max(clock() - started, 0.001), state.parked_of(source)
        if done >= total:
            return
        pause()


def _line(told: dict[str, Any]) -> str:
    line = f"{told['listed']} studies listed, {told['marked']} marked; {told['waiting']} wait"
    return f"{line}, {told['parked']} parked" + (": bridge run works on them" if told["waiting"] else "")
