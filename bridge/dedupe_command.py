"""The command `bridge dedupe`. Part of the composition root."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bridge import config
from bridge.errors import ConfigError
from bridge.fhir_servers import fhir_server_sink
from bridge.ports import sink_queue
from bridge.sinks.fhir_server import FhirServerSink
from bridge.state import State

STUDIES_AT_ONCE = 50


def dedupe(
    config_file: Annotated[Path, typer.Option("--config", "-c", help="The TOML file, for its FHIR servers")],
    sink: Annotated[str, typer.Option("--sink", help="Only this one of the configured sinks")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Leave one of several; stop `bridge run` before")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output")] = False,
) -> None:
    """Find studies that a FHIR server has several ImagingStudy resources of, and leave one.

    Everything the bridge knows is looked up on every server. With --repair the resource that others refer to is kept,
    else the oldest; the others are deleted, or marked entered-in-error without the study's identifier where the server
    refuses to delete them. Exit code 1 when doubles were found and not repaired.

    Example: bridge dedupe --config bridge.toml --repair
    """
    settings = config.load(config_file)
    wanted = [s for s in settings.sinks if sink in ("", s.name)]
    if not wanted:
        raise ConfigError(f"--sink: no sink of that name; configured: {', '.join(s.name for s in settings.sinks)}")
    state, closed = State(settings.database_url), list[Callable[[], None]]()
    found: list[dict[str, Any]] = []
    try:
        for one in wanted:
            found += _deduped(fhir_server_sink(one, closed), state, repair)
    finally:
        for close in (*reversed(closed), state.close):
            close()
    _show(found, repair, as_json)
    raise typer.Exit(1 if found and not repair else 0)


def _deduped(sink: FhirServerSink, state: State, repair: bool) -> Iterator[dict[str, Any]]:
    for some in track(list(_studies(state)), f"Looking at {sink.name}", console=Console(stderr=True), transient=True):
        for uid, several in sink.duplicates.find(some).items():
            outcome = [asdict(r) for r in sink.duplicates.repair(several)] if repair else []
            if repair:
                state.mark(sink_queue(sink.name), [uid], time.time())
            yield {
                "sink": sink.name,
                "study_instance_uid": uid,
                "resources": outcome or [{"id": r["id"], "action": "found"} for r in several],
            }


def _studies(state: State) -> Iterator[Sequence[str]]:
    after = ""
    while some := state.known_studies(after, STUDIES_AT_ONCE):
        after = some[-1]
        yield some


def _show(found: Sequence[dict[str, Any]], repair: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(list(found), indent=2))
    elif not found:
        typer.echo("No study has several ImagingStudy resources.")
    else:
        table = Table("sink", "study", "ImagingStudy")
        for one in found:
            resources = "\n".join(f"{r['id']} {r['action']}" for r in one["resources"])
            table.add_row(one["sink"], one["study_instance_uid"], resources)
        Console().print(table)
        if not repair:
            typer.echo("Repair them with: bridge dedupe --repair")
