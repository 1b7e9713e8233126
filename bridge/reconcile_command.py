"""The command `bridge reconcile`. Part of the composition root."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bridge.archives import Archives
from bridge.command_line import EXIT_PARTIAL
from bridge.config import Settings
from bridge.fhir_servers import fhir_server_sink
from bridge.opened_state import opened_state
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of
from bridge.reconcile.reconciler import Reconciler
from bridge.reconcile.report import Level, Report, Standing
from bridge.reconcile.scheduled import keep
from bridge.state import State
from cohort.lake import Lake
from cohort.store.place import place_of
from cohort.tally import LakeTally

SHOWN = 20


def reconcile(
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    repair: Annotated[bool, typer.Option("--repair", help="Mark what differs: a running bridge puts it right")] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Read every header of every archive, and every element on FHIR servers")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare what archives, state, FHIR servers and lake hold of every study, by counts and digests.

    Works beside a running bridge: what is under way counts as waiting, not as a difference. Exit code 1 when anything
    else differs or could not be compared.

    Example: bridge reconcile --repair
    """
    settings = settings_of(config_file, data_dir)
    console = Console(stderr=True)
    with opened_state(settings) as state, console.status("Reading") as shown:
        logging.getLogger("httpx").setLevel(logging.WARNING)
        with reconciler(settings, state, lambda what: shown.update(f"Comparing {what}")) as made:
            report = made.run(repair=repair, whole=whole)
        keep(state, report)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report, Console())
    raise typer.Exit(0 if report.agrees else EXIT_PARTIAL)


@contextmanager
def reconciler(settings: Settings, state: State, told: Callable[[str], None]) -> Iterator[Reconciler]:
    """Everything that is configured, with connections of its own."""
    with ExitStack() as stack:
        closed = list[Callable[[], None]]()
        stack.callback(lambda: [close() for close in reversed(closed)])
        archives = Archives(settings, state, lambda _stage: None)
        closed.append(archives.close)
        servers = {one.name: fhir_server_sink(one, closed) for one in settings.sinks}
        lake = stack.enter_context(LakeTally(Lake(place_of(settings))))
        yield Reconciler(state, archives.sources, servers, lake, time.time, told)


def show(report: Report, console: Console) -> None:
    """The report as a table, and the first differences of each comparison."""
    standings = [s.value for s in Standing]
    table = Table("compared", "studies", "series", "instances", "resources", *standings, "result")
    for one in report.comparisons:
        counts = [str(one.compared.get(name, "")) for name in ("studies", "series", "instances", "resources")]
        result = one.error or ("agree" if one.agrees else "DIFFER")
        table.add_row(f"{one.left} ↔ {one.right}", *counts, *(str(one.standings[s]) for s in standings), result)
    console.print(table)
    for one in report.comparisons:
        for difference in one.differences[:SHOWN]:
            level = "" if difference.level is Level.STUDY else f" ({difference.level.value})"
            console.print(
                f"{one.left} ↔ {one.right}: {difference.key}{level}: {difference.problem}: {difference.standing.value}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        if len(one.differences) > SHOWN:
            console.print(f"… and more, all with --json: {sum(one.standings.values())} in all")
