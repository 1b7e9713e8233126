"""The commands `bridge status` and `bridge study`. Part of the composition root."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bridge.api.operations import status as status_of
from bridge.errors import ConfigError
from bridge.opened_state import opened_state
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of


def status(config_file: ConfigOption = None, data_dir: DataOption = DATA_DIR, as_json: JsonOption = False) -> None:
    """Show what waits, fails and is parked, what is held, and how many studies each FHIR server has.

    Works beside a running bridge.

    Example: bridge status --json
    """
    with opened_state(settings_of(config_file, data_dir)) as state:
        found = status_of(state, time.time())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("queue", "waiting", "failing", "parked", "oldest (s)", "last error")
    for queue in found["queues"]:
        table.add_row(*(str(queue.get(k, "")) for k in ("queue", "waiting", "failing", "parked", "oldest_s", "error")))
    console = Console()
    console.print(table)
    if found["sinks"]:
        has = Table("sink", "studies delivered")
        for name, studies in found["sinks"].items():
            has.add_row(name, str(studies))
        console.print(has)
    if kept := found.get("reconciliation"):
        result = "all agreed" if kept["agrees"] else "not all agreed: see bridge reconcile"
        console.print(f"Reconciled {kept['age_s'] / 3600:.1f} hours ago: {result}")
    console.print("Held: " + (", ".join(f"{n} {kind}" for kind, n in found["resources"].items()) or "nothing yet"))


def study(
    uid: Annotated[str, typer.Argument(metavar="STUDY_INSTANCE_UID")],
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
) -> None:
    """Show one study as JSON: its resources, and what of it was left out and why.

    Example: bridge study 1.2.840.113619.2.55.3
    """
    with opened_state(settings_of(config_file, data_dir)) as state:
        remarks = state.study_remarks(uid)
        resources = state.study_resources(uid)
        parked = [asdict(i) for i in state.items(parked=True) if i.key == uid or i.key.startswith(f"{uid}/")]
    if remarks is None and not parked:
        raise ConfigError("no study with this UID is known here")
    shown: dict[str, Any] = {"remarks": remarks or [], "parked": parked}
    shown["resources"] = [{"version": r.version, "resource": r.content} for r in resources]
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
