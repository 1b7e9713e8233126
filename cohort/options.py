"""What the commands of `cohort` have in common: options, and the lake, day and parameters they mean."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge.errors import ConfigError, InvalidQuery
from cohort.catalogue import question as ready_question
from cohort.catalogue import question_file
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.question import Question
from cohort.selection import EXPORT_LIMITS, Selection
from cohort.store.place import in_bucket, in_folder, is_bucket, place

DEFAULT_LAKE = "bridge-data/lake"
EXIT_PARTIAL, EXIT_USAGE = 1, 2
DOCUMENTS = (".yaml", ".yml", ".json")

LakeOption = Annotated[str, typer.Option("--lake", help="The lake's folder, or s3://BUCKET/PREFIX")]
QuestionArgument = Annotated[
    str, typer.Argument(metavar="QUESTION", help="As `cohort questions` lists it, or a .yaml or .json document")
]
ParameterOption = Annotated[list[str], typer.Option("--param", "-p", help="NAME=VALUE, may be repeated")]
DateOption = Annotated[str, typer.Option("--date", help="The day asked, YYYY-MM-DD; today if not given")]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file", show_default=False)]
GenerationOption = Annotated[
    str, typer.Option("--generation", "-g", help="Ask this one, by its id or name; the newest if not given")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json")]


def generation_of(lake: str, wanted: str = "") -> Generation:
    """A generation of the lake at a place by its id or name, the newest if none is named.

    Raises  ConfigError when there is none, InvalidQuery when it is not kept
    """
    opened = opened_lake(lake)
    found = opened.generation(wanted) if wanted else opened.current()
    if found is None:
        raise ConfigError(f"--lake: no data in {lake}: has `bridge run` or `cohort load` been used there?")
    return found


def opened_lake(lake: str) -> Lake:
    """The lake in a folder or bucket. Raises ConfigError when there is no such folder."""
    found = place(lake)
    if found is None:
        raise ConfigError(f"--lake: no data in {lake}: has `bridge run` or `cohort load` been used there?")
    return Lake(found)


def lake_to_fill(lake: str) -> Lake:
    """The lake in a folder, which is made where there is none, or in a bucket. Raises ConfigError."""
    return Lake(in_bucket(lake) if is_bucket(lake) else in_folder(Path(lake)))


def selection(lake: str, question: str, parameters: Sequence[str], day: str) -> Selection:
    """What a ready question selects in a lake. Raises ConfigError, InvalidQuery."""
    given = dict(map(pair, parameters))
    made = Selection(generation_of(lake), question_of(question), given, on(day), EXPORT_LIMITS)
    _ = made.values
    return made


def question_of(name: str) -> Question:
    """A ready question by its name, or the document in a file. Raises InvalidQuery."""
    return question_file(Path(name)) if Path(name).suffix in DOCUMENTS else ready_question(name)


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
