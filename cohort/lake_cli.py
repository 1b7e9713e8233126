"""Commands that fill the lake and look after it: load, parked, compact, generations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from bridge import config
from bridge.command_line import EXIT_PARTIAL
from bridge.errors import ConfigError, InvalidQuery
from bridge.sign_in import SignIn, clinical_sign_in
from cohort.bulk import BulkExport, ExportRequest, outcomes
from cohort.bulk_job import JobFolder
from cohort.clinical import LoadReport
from cohort.clinical import load as load_clinical
from cohort.lake import Lake
from cohort.options import (
    ConfigOption,
    GenerationOption,
    JsonOption,
    LakeOption,
    generation_of,
    lake_to_fill,
    opened_lake,
)


def load(
    paths: Annotated[list[Path], typer.Argument(help="FHIR NDJSON files (.gz too) or folders of them")] = [],  # noqa: B006
    from_server: Annotated[
        str, typer.Option("--from-server", help="Bulk Data $export of a [[clinical]] server by name, or of a URL")
    ] = "",
    config_file: ConfigOption = None,
    level: Annotated[str, typer.Option(help="system, patient or group/ID, where a URL is given")] = "system",
    kinds: Annotated[str, typer.Option("--type", help="Resource types, by comma, where a URL is given")] = "",
    full: Annotated[bool, typer.Option("--full", help="Everything, not only what changed since the last time")] = False,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load clinical FHIR, all of it visible at once. Exit code 1 when a line could not be used; the rest is loaded.

    An import from a server that was ended goes on where it was. The next one asks for what changed since.

    Example: cohort load export/ --lake bridge-data/lake
    """
    if bool(paths) == bool(from_server):
        raise InvalidQuery("load: give files or folders, or --from-server")
    opened = lake_to_fill(lake, config_file)
    opened.check()
    if paths:
        now = datetime.now(UTC)
        with _bar("Loading", quiet=as_json) as progress:
            report = load_clinical(paths, opened, now, partial(progress, "Loading"))
        opened.publish(now)
    else:
        server, signed_in = _server(from_server, config_file or Path("bridge.toml"), level, kinds)
        try:
            report = _imported(opened, server, signed_in, full=full, quiet=as_json)
        finally:
            signed_in.close()
    opened.compact(datetime.now(UTC))
    _tell(opened, report, as_json=as_json)
    raise typer.Exit(EXIT_PARTIAL if report.parked_lines else 0)


def _server(wanted: str, configuration: Path, level: str, kinds: str) -> tuple[config.ClinicalServer, SignIn]:
    """The server by its name in the configuration, or by its URL without signing in."""
    if "://" in wanted:
        types = tuple(k for k in kinds.split(",") if k)
        (server,) = config.parse(
            {"clinical": [{"name": "server", "url": wanted, "level": level, "types": types}]}, "--from-server"
        ).clinical
        return server, SignIn(None, None)
    known = {s.name: s for s in config.load(configuration).clinical}
    if wanted not in known:
        raise ConfigError(f"--from-server: no [[clinical]] of this name in {configuration}; there: {', '.join(known)}")
    return known[wanted], clinical_sign_in(known[wanted])


def _imported(lake: Lake, server: config.ClinicalServer, signed_in: SignIn, *, full: bool, quiet: bool) -> LoadReport:
    folder = JobFolder(lake.root / "imports", server.url, server.level, server.types)
    with folder.alone(), _bar("Asking", quiet=quiet) as progress:
        request = ExportRequest(server.url, server.level, server.types, "" if full else folder.since())
        export = BulkExport(
            request,
            folder,
            auth=signed_in.auth,
            tls=signed_in.tls,
            timeout_s=server.timeout_s,
            told=progress,
        )
        try:
            found = export.run()
            told = [("error file of the server", line, issue) for line, issue in outcomes(found.errors)]
            report = load_clinical(
                found.output,
                lake,
                found.transaction_time,
                partial(progress, "Loading"),
                deleted=found.deleted,
                told=told,
            )
            lake.publish(datetime.now(UTC))
            export.finish()
        finally:
            export.close()
    return report


def _tell(lake: Lake, report: LoadReport, *, as_json: bool) -> None:
    current = lake.current()
    if as_json:
        told = {
            "counts": report.counts, "deleted": report.deleted, "parked": report.parked,
            "generation": current.id if current else None,
        }  # fmt: skip
        typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo("Loaded: " + (", ".join(f"{n} {kind}" for kind, n in report.counts.items()) or "nothing"))
        if report.deleted:
            typer.echo(f"Deleted: {report.deleted}")
        for file, line, reason in report.parked[:20]:
            typer.echo(f"Not used: {file} line {line}: {reason}", err=True)
        if report.parked_lines > 20:
            typer.echo(f"… and {report.parked_lines - 20} more lines: cohort parked", err=True)


def parked(
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="Lines at most")] = 100,
) -> None:
    """Show what could not be used: lines of files, and resources that a table could not read. Newest first.

    Example: cohort parked --json
    """
    found = opened_lake(lake, config_file).parked(limit)
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    made = Table("of", "file or resource", "line", "why")
    for one in found:
        made.add_row(one["of"], one["file"], str(one["line"] or ""), one["reason"])
    Console().print(made)


def compact(lake: LakeOption = None, config_file: ConfigOption = None) -> None:
    """Write every table as one file now. Publishing and reading go on meanwhile.

    Example: cohort compact
    """
    done = opened_lake(lake, config_file).compact(datetime.now(UTC), everything=True)
    typer.echo("Compacted" if done else "Nothing to do: every table is one file already")


generations = typer.Typer(help="States of the lake: list them, keep one under a name.", no_args_is_help=True)


@generations.command("list")
def list_generations(lake: LakeOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the generations that can be asked, newest first.

    Example: cohort generations list
    """
    found = opened_lake(lake, config_file).generations()
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    made = Table("generation", "made", "kept as")
    for one in found:
        made.add_row(one.id + (" (newest)" if one.current else ""), one.created, ", ".join(one.names))
    Console().print(made)


@generations.command()
def keep(
    name: Annotated[str, typer.Argument(help="Letters, digits, _ . -")],
    generation: GenerationOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Keep a generation under a name, so that questions can be asked of it again.

    Example: cohort generations keep paper-1
    """
    wanted = generation or generation_of(lake, config_file).id
    typer.echo(f"Kept {opened_lake(lake, config_file).keep(name, wanted)} as {name}")


@generations.command()
def forget(
    name: Annotated[str, typer.Argument(help="As `list` shows it")],
    lake: LakeOption = None,
    config_file: ConfigOption = None,
) -> None:
    """No longer keep the generation of this name.

    Example: cohort generations forget paper-1
    """
    opened_lake(lake, config_file).forget(name)


Told = Callable[[str, int, int], None]


@contextmanager
def _bar(title: str, *, quiet: bool) -> Iterator[Told]:
    """Tells on standard error what is done, where a person looks at it."""
    if quiet or not sys.stderr.isatty():
        yield lambda _stage, _done, _of: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None)
        yield lambda stage, done, of: progress.update(task, description=escape(stage), completed=done, total=of or None)
