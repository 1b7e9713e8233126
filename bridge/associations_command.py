"""The commands `bridge associations`. Part of the composition root."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bridge.association_list import list_associations, show_association
from bridge.options import DATA_DIR, ConfigOption, DataOption, JsonOption, settings_of

associations_app = typer.Typer(help="What came over DICOM associations, and what became of it.", no_args_is_help=True)


@associations_app.command("list")
def associations_list(
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the newest associations: peer, titles, and how many objects were accepted, quarantined and refused.

    Example: bridge associations list --limit 20
    """
    found = list_associations(settings_of(config_file, data_dir), limit)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    names = ("id", "source", "peer", "calling_ae_title", "received", "accepted", "quarantined", "refused", "how")
    table = Table(*names)
    for one in found:
        table.add_row(*(str(one.get(name, "")) for name in names))
    Console().print(table)


@associations_app.command("show")
def associations_show(
    association_id: Annotated[str, typer.Argument(metavar="ID", help="As `bridge associations list` shows it")],
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
) -> None:
    """Show one association as JSON, with every object: its UIDs, SHA-256, status, and why it was not taken.

    Example: bridge associations show 20260301T091500123456Z-1f0c22ab
    """
    typer.echo(json.dumps(show_association(settings_of(config_file, data_dir), association_id), indent=2))
