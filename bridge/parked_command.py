"""The commands `bridge parked`. Part of the composition root."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bridge.command_line import EXIT_PARTIAL
from bridge.opened_state import opened_state
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of
from bridge.state import State

parked_app = typer.Typer(help="What could not be used and waits for a person.", no_args_is_help=True)

QueueArgument = Annotated[str, typer.Argument(help="As `bridge parked list` shows it")]
KeyArgument = Annotated[str, typer.Argument(help="As `bridge parked list` shows it")]
KeysArgument = Annotated[str, typer.Argument(help="As `bridge parked list` shows it; `all` for the whole queue")]

MOST_AT_ONCE = 100_000


@parked_app.command("list")
def parked_list(config_file: ConfigOption = None, data_dir: DataOption = DATA_DIR, as_json: JsonOption = False) -> None:
    """List what is parked, with its error and evidence. Exit code 1 when there is anything.

    Example: bridge parked list --json
    """
    with opened_state(settings_of(config_file, data_dir)) as state:
        items = state.items(parked=True, limit=10_000)
    if as_json:
        typer.echo(json.dumps([asdict(i) for i in items], indent=2))
    elif items:
        table = Table()
        for name in ("queue", "key", "error", "evidence"):
            table.add_column(name, overflow="fold")
        for item in items:
            evidence = ", ".join(f"{k} {v}" for k, v in item.evidence.items() if k not in {"path", "source"})
            table.add_row(item.queue, item.key, item.error, evidence)
        Console().print(table)
    else:
        typer.echo("Nothing is parked.")
    raise typer.Exit(EXIT_PARTIAL if items else 0)


@parked_app.command("show")
def parked_show(
    queue: QueueArgument,
    key: KeyArgument,
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Show one parked item: why, since when, how often it was tried, and all of its evidence.

    Example: bridge parked show file:inbox scans/slice7.dcm
    """
    with opened_state(settings_of(config_file, data_dir)) as state:
        item = asdict(state.parked_item(queue, key))
    if as_json:
        typer.echo(json.dumps(item, indent=2))
        return
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in ("queue", "key", "error", "attempts", "first_marked_at"):
        table.add_row(name, str(item[name]))
    for name, value in item["evidence"].items():
        table.add_row(f"evidence: {name}", str(value))
    Console().print(table)


@parked_app.command("replay")
def parked_replay(
    queue: QueueArgument,
    key: KeysArgument,
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Try parked work again. The running bridge picks it up.

    Example: bridge parked replay file:inbox scans/slice7.dcm
    """
    with opened_state(settings_of(config_file, data_dir)) as state:
        keys = _each(state, queue, key, lambda one: state.replay(queue, one, time.time()))
    typer.echo(json.dumps({"replayed": keys}) if as_json else f"{keys} will be tried again")


@parked_app.command("discard")
def parked_discard(
    queue: QueueArgument,
    key: KeysArgument,
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    as_json: JsonOption = False,
) -> None:
    """Give parked work up: it is forgotten until its file, its study or its archive changes. No data is deleted.

    Example: bridge parked discard file:inbox scans/notes.txt
    """
    with opened_state(settings_of(config_file, data_dir)) as state:
        keys = _each(state, queue, key, lambda one: state.discard(queue, one))
    typer.echo(json.dumps({"discarded": keys}) if as_json else f"{keys} discarded")


def _each(state: State, queue: str, key: str, do: Callable[[str], None]) -> int:
    """Does it for the key, or for all that are parked in the queue. Result: for how many."""
    keys = [i.key for i in state.items(parked=True, queue=queue, limit=MOST_AT_ONCE)] if key == "all" else [key]
    for one in keys:
        do(one)
    return len(keys)
