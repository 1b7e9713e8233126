"""What the commands of `cohort` have in common: options, and the lake, day and parameters they mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from bridge import config
from bridge.errors import ConfigError, InvalidQuery
from cohort.catalogue import question as ready_question
from cohort.catalogue import question_file
from cohort.desk import Caller, Desk, desk_of, policy_of
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.privacy import Policy
from cohort.question import Question
from cohort.question_document import parameter_values
from cohort.sandbox import Limits
from cohort.selection import Selection
from cohort.store.place import Place, access_of, in_bucket, in_folder, is_bucket, place, place_of

DOCUMENTS = (".yaml", ".yml", ".json")

LakeOption = Annotated[
    str | None,
    typer.Option(
        "--lake",
        help="The lake's folder, or s3://BUCKET/PREFIX; bridge-data/lake or the configuration's",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The bridge's TOML file: its lake and what [cohort] allows", show_default=False
    ),
]
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


def lake_if_there(lake: str | None, config_file: Path | None) -> Lake | None:
    """The lake as named, else the configuration's; None for a folder that does not exist. Raises ConfigError."""
    settings = _settings(config_file)
    if lake is not None:
        found: Place | None = place(lake, access_of(settings) if config_file else None)
    else:
        found = place_of(settings) if settings.lake.url else place(settings.lake_dir)
    return Lake(found) if found else None


def lake_to_fill(lake: str | None, config_file: Path | None) -> Lake:
    """As `lake_if_there`; a folder that does not exist is made. Raises ConfigError."""
    settings = _settings(config_file)
    if lake is None:
        return Lake(place_of(settings))
    if is_bucket(lake):
        return Lake(in_bucket(lake, access_of(settings) if config_file else None))
    return Lake(in_folder(Path(lake)))


def desk_folder(lake: str | None, config_file: Path | None) -> Path:
    """Where the log of questions and the secret of pseudonyms are: with a lake in a folder; of a bucket that the
    configuration names, in its data_dir; of another bucket, in this person's cache."""
    settings = _settings(config_file)
    if lake is None:
        return settings.lake_dir
    return lake_to_fill(lake, config_file).root if is_bucket(lake) else Path(lake)


def desk(lake: str | None, config_file: Path | None, limits: Limits | None = None) -> Desk:
    """Where the lake can be asked, as the configuration allows it. Raises ConfigError."""
    return desk_of(_settings(config_file).cohort, desk_folder(lake, config_file), limits)


def policy(config_file: Path | None) -> Policy:
    """What the configuration allows people to see. Raises ConfigError."""
    return policy_of(_settings(config_file).cohort)


def generation_of(lake: str | None, config_file: Path | None, wanted: str = "") -> Generation:
    """A generation of the lake at a place by its id or name, the newest if none is named.

    Raises  ConfigError when there is none, InvalidQuery when it is not kept
    """
    opened = opened_lake(lake, config_file)
    found = opened.generation(wanted) if wanted else opened.current()
    if found is None:
        raise ConfigError(f"--lake: no data in {opened.place.url}: has `bridge run` or `cohort load` been used there?")
    return found


def opened_lake(lake: str | None, config_file: Path | None) -> Lake:
    """As `lake_if_there`. Raises ConfigError when there is no such folder."""
    found = lake_if_there(lake, config_file)
    if found is None:
        named = lake or _settings(config_file).lake_dir
        raise ConfigError(f"--lake: no data in {named}: has `bridge run` or `cohort load` been used there?")
    return found


@contextmanager
def exported(
    name: str, question: str, parameters: Sequence[str], day: str, lake: str | None, config_file: Path | None
) -> Iterator[Selection]:
    """What a question selects, for the export `name`. Raises ConfigError, InvalidQuery, NotAllowed."""
    asked, given, today = question_of(question), dict(map(pair, parameters)), on(day)
    parameter_values(asked.parameters, given)
    generation = generation_of(lake, config_file)
    with desk(lake, config_file).export(name, generation, asked, given, today, Caller.here("cli")) as selection:
        yield selection


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


def _settings(config_file: Path | None) -> config.Settings:
    return config.load(config_file) if config_file else config.embedded()
