"""`cohort view`: ViewDefinitions over NDJSON files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from bridge.errors import InvalidQuery
from cohort.engine.views import explained, run_view, write_parquet
from cohort.render import FORMATS, rendered, table
from cohort.view import View

app = typer.Typer(help="ViewDefinitions (SQL on FHIR) over FHIR NDJSON.", no_args_is_help=True)
ViewArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A ViewDefinition, JSON")]
LARGEST_VIEW = 1_048_576
SHOWN_PARKED = 20


@app.command()
def run(
    view: ViewArgument,
    data: Annotated[list[Path], typer.Option("--data", "-d", help="FHIR NDJSON (.gz too), may be repeated")],
    format: Annotated[str, typer.Option("--format", "-f", help=f"One of: {', '.join(FORMATS)}")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here", show_default=False)] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000_000, help="Rows at most; Parquet has all")
    ] = 10_000,
) -> None:
    """Show or write a view's rows. Exit code 1 when a line could not be used; the rest is there.

    Example: cohort view run mappings/views/condition.json --data Condition.ndjson --format csv
    """
    if format not in FORMATS:
        raise InvalidQuery(f"--format: found {format!r}; allowed: {', '.join(FORMATS)}")
    definition, files = _definition(view), _files(data)
    if format == "parquet":
        if output is None:
            raise InvalidQuery("--format parquet: needs --output FILE")
        if not write_parquet(definition, files, output):
            return
        limit = 10_000_000
    made = run_view(definition, files, limit)
    if format == "table":
        console = Console(file=output.open("w", encoding="utf-8") if output else sys.stdout)
        console.print(table(made.answer, console.width))
    elif output:
        output.write_bytes(rendered(made.answer, format))
    else:
        sys.stdout.buffer.write(rendered(made.answer, format) + (b"\n" if format == "json" else b""))
    if made.reason:
        typer.echo(f"Evaluated without SQL: {made.reason}", err=True)
    if made.answer.truncated:
        typer.echo("There are more rows: raise --limit to see them", err=True)
    for file, line, reason in made.parked[:SHOWN_PARKED]:
        typer.echo(f"Not used: {file} line {line}: {reason}", err=True)
    if len(made.parked) > SHOWN_PARKED:
        typer.echo(f"… and {len(made.parked) - SHOWN_PARKED} more lines", err=True)
    raise typer.Exit(1 if made.parked else 0)


@app.command()
def check(view: ViewArgument) -> None:
    """Is the view valid, and can SQL say it? Shows its columns. Exit code 2 when it is not valid.

    Example: cohort view check mappings/views/condition.json
    """
    definition = _definition(view)
    _, reason = explained(definition, Path("data.ndjson"))
    made = Table("column", "type", "list", "what it holds")
    for c in View(definition).columns:
        made.add_row(c.name, c.type, "yes" if c.collection else "", c.description)
    Console().print(made)
    typer.echo(f"Valid; runs without SQL, slower: {reason}" if reason else "Valid; runs as SQL")


@app.command()
def explain(
    view: ViewArgument,
    data: Annotated[Path, typer.Option("--data", "-d", help="The file the SQL names")] = Path("data.ndjson"),
    dialect: Annotated[str, typer.Option("--dialect", help="duckdb or spark")] = "duckdb",
) -> None:
    """Show the SQL of a view.

    Example: cohort view explain mappings/views/condition.json --dialect spark
    """
    if dialect not in ("duckdb", "spark"):
        raise InvalidQuery(f"--dialect: found {dialect!r}; allowed: duckdb, spark")
    text, reason = explained(_definition(view), data, dialect)
    if reason:
        raise InvalidQuery(f"no SQL: {reason}")
    typer.echo(text)


def _definition(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST_VIEW:
            raise InvalidQuery(f"{file}: a ViewDefinition has {LARGEST_VIEW} bytes at most")
        found = orjson.loads(file.read_bytes())
    except OSError as error:
        raise InvalidQuery(f"{file}: cannot be read ({error.strerror})") from None
    except orjson.JSONDecodeError:
        raise InvalidQuery(f"{file}: is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidQuery(f"{file}: must be a JSON object")
    return found


def _files(data: list[Path]) -> list[Path]:
    if missing := [str(file) for file in data if not file.is_file()]:
        raise InvalidQuery(f"--data: no file {', '.join(missing)}")
    return data
