"""The command `bridge`. With `bridge.compose`, the composition root."""

from __future__ import annotations

import gc
import json
import signal
import sys
import threading
import time
from collections.abc import Set
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bridge import __version__, config
from bridge.api.operations import status as status_of
from bridge.backfill_command import backfill
from bridge.backup_command import backup, restore
from bridge.compose import Bridge, list_associations, show_association
from bridge.dedupe_command import dedupe
from bridge.demo import run_demo
from bridge.errors import ConfigError, ProjectError
from bridge.import_files import import_files, including_import
from bridge.import_report import show
from bridge.map_command import map_files
from bridge.model import ALL_ROLES, Role
from bridge.parked_command import parked_app
from bridge.reconcile_command import reconcile
from bridge.sign_in import fhir_server_sign_in, signing_keys
from bridge.state_command import (
    EXIT_PARTIAL,
    EXIT_USAGE,
    ConfigOption,
    DataOption,
    JsonOption,
    opened_state,
    settings_of,
)
from bridge.tail_command import tail
from bridge.telemetry import log_lines
from bridge.verify_command import verify

app = typer.Typer(
    help="Keeps FHIR ImagingStudy, and a table of facts, true to what DICOM archives hold.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(parked_app, name="parked")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it")] = Path("bridge.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file")] = False,
) -> None:
    """Write a commented configuration file.

    Example: bridge init bridge.toml
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; --force replaces it")
    path.write_text((files("bridge") / "bridge.toml").read_text("utf-8"), "utf-8")
    typer.echo(f"Wrote {path}. Check it with: bridge check --config {path}")


@app.command()
def run(
    config_file: ConfigOption = None,
    data_dir: DataOption = Path("bridge-data"),
    role: Annotated[
        list[Role] | None,
        typer.Option("--role", help="A part of the work; repeat it. Without: all. Parts need PostgreSQL (state_url)"),
    ] = None,
) -> None:
    """Follow the sources, keep FHIR and the lake true, serve the APIs. Stops on SIGINT or SIGTERM.

    Example: bridge run --config bridge.toml
    """
    settings = settings_of(config_file, data_dir)
    log_lines.start(settings.log.format, sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    roles = frozenset(role) if role else ALL_ROLES
    bridge = Bridge(including_import(settings), roles=roles)
    with bridge.running():
        log_lines.log.info("version %s runs", __version__)
        _greet(settings, roles)
        while not stop.is_set() and not bridge.failed.is_set():
            stop.wait(0.5)
    log_lines.log.info("stopped")
    if bridge.failed.is_set():
        raise typer.Exit(EXIT_PARTIAL)


def _greet(settings: config.Settings, roles: Set[Role]) -> None:
    base = settings.public_url
    if roles != ALL_ROLES:
        typer.echo(f"{'Roles':<12} {', '.join(sorted(roles))}")
    for what, where in (
        ("FHIR API", f"{base}/fhir"),
        ("Cohort page", f"{base}/cohort/"),
        ("Operations", f"{base}/operations/"),
    ):
        if Role.SERVE in roles:
            typer.echo(f"{what:<12} {where}")
    for source in settings.sources if Role.POLL in roles else ():
        if isinstance(source, config.FolderSource):
            typer.echo(f"{'Folder':<12} {source.path}")
        elif isinstance(source, config.ReceiverSource):
            typer.echo(f"{'C-STORE':<12} {source.ae_title} at {source.host}:{source.port}")
        elif isinstance(source, config.DimseSource):
            typer.echo(f"{'Archive':<12} {source.ae_title} at {source.host}:{source.port}")
        else:
            typer.echo(f"{'Archive':<12} {source.url}")
    sys.stdout.flush()


@app.command()
def check(
    config_file: ConfigOption = None, data_dir: DataOption = Path("bridge-data"), as_json: JsonOption = False
) -> None:
    """Check the configuration without starting anything.

    Example: bridge check --config bridge.toml
    """
    settings = settings_of(config_file, data_dir)
    for sink in settings.sinks:
        fhir_server_sign_in(sink).close()
    if as_json:
        typer.echo(settings.model_dump_json(indent=2))
        return
    typer.echo(f"The configuration is valid: {len(settings.sources)} sources, {len(settings.sinks)} FHIR servers")


@app.command()
def jwks(config_file: ConfigOption = None) -> None:
    """Print the public keys that FHIR servers are to know the bridge by (JWK Set, RFC 7517), for registration.

    Example: bridge jwks --config bridge.toml
    """
    keys = [key.public() for key in signing_keys(settings_of(config_file, Path("bridge-data")))]
    if not keys:
        raise ConfigError("sinks: none signs in with a key; give one of them smart = { … }")
    typer.echo(json.dumps({"keys": keys}, indent=2))


@app.command()
def status(
    config_file: ConfigOption = None, data_dir: DataOption = Path("bridge-data"), as_json: JsonOption = False
) -> None:
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


@app.command()
def study(
    uid: Annotated[str, typer.Argument(metavar="STUDY_INSTANCE_UID")],
    config_file: ConfigOption = None,
    data_dir: DataOption = Path("bridge-data"),
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


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders, files, zip, tar and tar.gz")],
    config_file: ConfigOption = None,
    data_dir: DataOption = Path("bridge-data"),
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Leave the files where they are and follow them")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring files into the pipeline once. Copied into data_dir, so that a disc may be taken out afterwards.

    Exit code 1 when something was parked or the import was interrupted. Starting it again goes on.

    Example: bridge import /media/cdrom export.zip
    """
    summary = import_files(settings_of(config_file, data_dir), paths, Console(stderr=as_json), in_place)
    if as_json:
        typer.echo(json.dumps(summary.as_json(), indent=2))
    else:
        show(summary, Console())
    raise typer.Exit(EXIT_PARTIAL if summary.parked or summary.interrupted else 0)


app.command("map")(map_files)
app.command()(dedupe)
app.command()(tail)
app.command()(reconcile)
app.command()(verify)
app.command()(backup)
app.command()(restore)
app.command()(backfill)

associations_app = typer.Typer(help="What came over DICOM associations, and what became of it.", no_args_is_help=True)
app.add_typer(associations_app, name="associations")


@associations_app.command("list")
def associations_list(
    config_file: ConfigOption = None,
    data_dir: DataOption = Path("bridge-data"),
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
    data_dir: DataOption = Path("bridge-data"),
) -> None:
    """Show one association as JSON, with every object: its UIDs, SHA-256, status, and why it was not taken.

    Example: bridge associations show 20260301T091500123456Z-1f0c22ab
    """
    typer.echo(json.dumps(show_association(settings_of(config_file, data_dir), association_id), indent=2))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Everything the demo makes is in here")] = Path("demo"),
    once: Annotated[bool, typer.Option("--once", help="Answer, then stop instead of staying up")] = False,
    patients: Annotated[int, typer.Option(min=20, max=5000, help="Patients of the synthetic hospital")] = 240,
) -> None:
    """Make a small synthetic hospital, run the bridge on it, answer the founding question.

    Example: bridge demo ./demo
    """
    run_demo(folder, stay=not once, patients=patients)


COLLECT_AFTER = 10_000
"""Objects after which Python looks for cycles. Headers are many objects without any: at Python's own 700, looking for
them takes a fifth of the time that a study of 20,000 instances takes."""


def main() -> None:
    """Entry point: an error of the project is one clear message and exit code 2, never a traceback."""
    gc.set_threshold(COLLECT_AFTER)
    try:
        app()
    except ProjectError as error:
        Console(stderr=True).print(f"bridge: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
