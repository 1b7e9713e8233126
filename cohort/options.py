"""What the commands of `cohort` have in common: options, and the lake, day and parameters they mean."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge.errors import ConfigError, InvalidQuery
from cohort.catalogue import question as ready_question
from cohort.lake import Generation, Lake
from cohort.selection import EXPORT_LIMITS, Selection

DEFAULT_LAKE = Path("bridge-data/lake")
EXIT_PARTIAL, EXIT_USAGE = 1, 2

LakeOption = Annotated[Path, typer.Option("--lake", help="The lake's folder")]
QuestionArgument = Annotated[str, typer.Argument(metavar="QUESTION", help="As `cohort questions` lists it")]
ParameterOption = Annotated[list[str], typer.Option("--param", "-p", help="NAME=VALUE, may be repeated")]
DateOption = Annotated[str, typer.Option("--date", help="The day asked, YYYY-MM-DD; today if not given")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json")]


def generation(lake: Path) -> Generation:
    """The newest generation of the lake in a folder. Raises ConfigError when there is none."""
    current = Lake(lake).current() if lake.is_dir() else None
    if current is None:
        raise ConfigError(f"--lake: no data in {lake}: has `bridge run` or `cohort load` been used there?")
    return current


def selection(lake: Path, question: str, parameters: Sequence[str], day: str) -> Selection:
    """What a ready question selects in a lake. Raises ConfigError, InvalidQuery."""
    made = Selection(generation(lake), ready_question(question), dict(map(pair, parameters)), on(day), EXPORT_LIMITS)
    _ = made.values
    return made


def on(text: str) -> date:
    """The day of --date. Raises InvalidQuery."""
    try:
        return datetime.fromisoformat(text).date() if text else datetime.now(UTC).date()
    except ValueError:
        raise InvalidQuery(f"--date: found {text!r}; allowed: YYYY-MM-DD") from None


def pair(text: str) -> tuple[str, str]:
    """Name and value of --param. Raises InvalidQuery."""
    name, sign, value = text.partition("=")
    if not sign:
        raise InvalidQuery(f"--param: found {text!r}; allowed: NAME=VALUE")
    return name, value
