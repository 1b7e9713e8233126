"""The command `bridge run`. Part of the composition root."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from collections.abc import Set
from typing import Annotated

import typer

from bridge import __version__, config
from bridge.command_line import EXIT_PARTIAL
from bridge.compose import Bridge
from bridge.import_files import including_import
from bridge.model import ALL_ROLES, Role
from bridge.options import DATA_DIR, ConfigOption, DataOption, settings_of
from bridge.telemetry import log_lines


def run(
    config_file: ConfigOption = None,
    data_dir: DataOption = DATA_DIR,
    role: Annotated[
        list[Role] | None,
        typer.Option("--role", help="A part of the work; repeat it. Without: all. Parts need PostgreSQL (state_url)"),
    ] = None,
) -> None:
    """Follow the sources, keep FHIR and the lake true, serve the APIs. Stops on SIGINT or SIGTERM; on SIGUSR1 it
    writes to its standard error what each of its threads is doing.

    Example: bridge run --config bridge.toml
    """
    settings = settings_of(config_file, data_dir)
    log_lines.start(settings.log.format, sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    faulthandler.register(signal.SIGUSR1, file=sys.stderr)
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
