"""The command `cohort scores`: how well a model's predictions agree with what became of the patients."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bridge.errors import ConfigError, InvalidQuery
from cohort.answer import Answer
from cohort.desk import Caller
from cohort.feedback import Wanted
from cohort.feedback_command import definition_of
from cohort.options import (
    ConfigOption,
    DateOption,
    GenerationOption,
    JsonOption,
    LakeOption,
    OutputOption,
    ParameterOption,
    desk,
    generation_of,
    on,
    pair,
    policy,
)
from cohort.privacy import Policy
from cohort.render import BINARY, FORMATS, rendered
from cohort.scores.asked import SLICES, Asked

if TYPE_CHECKING:
    from cohort.scores.report import Report

SHOWN_WIDTH = 140


def scores(
    model: Annotated[str, typer.Argument(metavar="[MODEL[@VERSION]]", help="One model or version; all if none")] = "",
    by: Annotated[
        str, typer.Option("--by", help="Of the lake, by an outcome definition: its name, or a document")
    ] = "",
    rows: Annotated[
        Path | None, typer.Option("--rows", help="Of a .parquet or .csv file of outcomes instead", show_default=False)
    ] = None,
    param: ParameterOption = [],  # noqa: B006
    date: DateOption = "",
    slice: Annotated[list[str], typer.Option("--slice", help=f"Of: {', '.join(SLICES)}")] = list(SLICES),  # noqa: B006
    drift: Annotated[bool, typer.Option("--drift", help="Each month beside the first three")] = False,
    since: Annotated[str, typer.Option("--since", help="From this day, YYYY-MM-DD, on beside all before")] = "",
    versions: Annotated[bool, typer.Option("--versions", help="Versions beside each other, same studies")] = False,
    plots: Annotated[Path | None, typer.Option("--plots", help="Draw them into this folder")] = None,
    plot_format: Annotated[Literal["svg", "png"], typer.Option("--plot-format")] = "svg",
    generation: GenerationOption = "",
    lake: LakeOption = None,
    config_file: ConfigOption = None,
    format: Annotated[str, typer.Option("--format", "-f", help=f"One of: {', '.join(FORMATS)}")] = "table",
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show score cards of a model: counts, sensitivity, specificity, PPV, NPV, AUROC, calibration, agreement with
    readers, times; by site, scanner, sex and age; drift; two versions beside each other. Needs the extra `scores`.

    JSON is the whole report; the other formats are one line for each number.

    Example: cohort scores LungNet@2.1.0 --by lung-nodule-cancer --drift --plots plots/
    """
    if format not in FORMATS:
        raise InvalidQuery(f"--format: found {format!r}; allowed: {', '.join(FORMATS)}")
    if format in BINARY and output is None and not as_json:
        raise InvalidQuery(f"--format {format}: needs --output FILE")
    if bool(by) == (rows is not None):
        raise InvalidQuery("needs either --by OUTCOME, for the lake, or --rows FILE")
    day = on(since) if since else None
    asked = Asked.of(model, by=tuple(slice), drift=drift, since=day, versions=versions)
    started = time.monotonic()
    if rows is not None:
        found, source = _of_file(rows, asked, policy(config_file)), rows.name
    else:
        name, _, version = model.partition("@")
        wanted = Wanted(definition_of(by), dict(map(pair, param)), name, version or None, on(date))
        at = generation_of(lake, config_file, generation)
        found, source = desk(lake, config_file).scores(at, wanted, asked, Caller.here("cli")), at.id
    if plots is not None:
        for title, content in _drawn(found, plot_format):
            _replace(plots / f"{title}.{plot_format}", content)
            typer.echo(f"Drawn: {plots / title}.{plot_format}", err=True)
    _show(found, "json" if as_json else format, output, source, time.monotonic() - started)


def _of_file(path: Path, asked: Asked, allowed: Policy) -> Report:
    try:
        from cohort.scores.report import report
        from cohort.scores.rows import read_rows
    except ImportError:
        raise ConfigError("scikit-learn and SciPy are not installed: pip install 'imaging-bridge[scores]'") from None
    return report(read_rows(path), asked, allowed)


def _drawn(found: Report, kind: Literal["svg", "png"]) -> Iterator[tuple[str, bytes]]:
    """(name of the file, content): names are numbers, as those of models may hold anything."""
    from cohort.scores.plots import card_plot, drift_plot, slices_plot

    for number, target in enumerate(dict.fromkeys(c.target for c in found.cards), 1):
        own = [c for c in found.cards if c.target == target]
        yield f"{number:02}-card", card_plot(own[0], kind)
        for by in dict.fromkeys(c.slice for c in own[1:]):
            yield f"{number:02}-{by}", slices_plot([c for c in own if c.slice == by], kind)
        if windows := [d for d in found.drift if d.target == target]:
            yield f"{number:02}-drift", drift_plot(windows, kind)


def _show(found: Report, kind: str, output: Path | None, source: str, elapsed_s: float) -> None:
    from cohort.scores.flat import flat

    if kind == "json":
        content = orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n"
    elif kind == "table":
        content = _table(flat(found, source, elapsed_s))
    else:
        content = rendered(flat(found, source, elapsed_s), kind)
    if output is not None:
        _replace(output, content)
    else:
        sys.stdout.buffer.write(content)
    for reason, count in found.left_out.items():
        typer.echo(f"Left out: {'few' if count is None else count} rows: {reason}", err=True)
    for note in found.notes:
        typer.echo(f"Note: {note}", err=True)


def _table(lines: Answer) -> bytes:
    """A table of numbers for each model version and finding, with so many digits as people read."""
    out = io.StringIO()
    console = Console(file=out, width=SHOWN_WIDTH)
    for target in dict.fromkeys(row[:4] for row in lines.rows):
        model, version, _, code = target
        made = Table(title=escape(f"{model} {version}, {code}"), title_justify="left")
        for name in ("", "of", "value", "low", "high", "n", "no value or interval because"):
            made.add_column(
                name, justify="right" if name in ("value", "low", "high", "n") else "left", no_wrap=not name
            )
        for name, where, value, low, high, n, _, why in (row[4:] for row in lines.rows if row[:4] == target):
            made.add_row(*(escape(_digits(cell)) for cell in (name, where, value, low, high, n, why)))
        console.print(made)
    return out.getvalue().encode()


def _digits(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _replace(path: Path, content: bytes) -> None:
    """The file as a whole or as it was: a part is never left under its name."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
