"""What `cohort.open` gives: an opened lake, and answers that turn into the data frames people work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge import config
from bridge.errors import ConfigError, InvalidQuery
from cohort.answer import Answer
from cohort.catalogue import question as ready_question
from cohort.catalogue import read_question
from cohort.desk import Caller, Desk, desk_of
from cohort.engine.columnar import Relation, relation
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.question import Question
from cohort.render import SHOWN_ROWS, as_html, as_text
from cohort.sandbox import Limits
from cohort.schema import TableSchema, catalogue
from cohort.store.place import access_of, place
from cohort.timeline import Timeline

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

ROWS = 1_000_000
_ANSWER_BYTES, _SECONDS = 1_073_741_824, 600


@dataclass(frozen=True)
class Result:
    """The answer to a question or a SELECT. Shown as a table in a notebook.

    Result  `columns` names; `rows` tuples of JSON values (dates and times as ISO 8601); `generation` what was asked
    """

    answer: Answer

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.answer.columns)

    @property
    def rows(self) -> tuple[tuple[Any, ...], ...]:
        return self.answer.rows

    @property
    def generation(self) -> str:
        return self.answer.generation

    def relation(self) -> Relation:
        """A DuckDB relation, to go on with in SQL: `.relation().query("answer", "SELECT …")`."""
        return relation(self.answer)

    def arrow(self) -> pyarrow.Table:
        """An Arrow table. Raises ConfigError without the extra `arrow`."""
        _needed("pyarrow", "arrow")
        return self.relation().to_arrow_table()

    def pandas(self) -> pandas.DataFrame:
        """A pandas data frame. Raises ConfigError without the extra `pandas`."""
        _needed("pandas", "pandas")
        frame: pandas.DataFrame = self.relation().df()
        return frame

    def polars(self) -> polars.DataFrame:
        """A polars data frame. Raises ConfigError without the extra `polars`."""
        _needed("polars", "polars")
        _needed("pyarrow", "polars")
        frame: polars.DataFrame = self.relation().pl()
        return frame

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: what is rounded, withheld or replaced (docs/privacy.md)."""
        return self.answer.notes

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return as_text(self.answer)

    def _repr_html_(self) -> str:
        return as_html(self.answer, SHOWN_ROWS)


class Cohort:
    """One generation of a lake, as its settings let it be seen. Every query runs in another process, with at most
    `limit` rows of answer."""

    def __init__(self, generation: Generation, desk: Desk) -> None:
        self._generation, self._desk, self._caller = generation, desk, Caller.here("python")

    @property
    def generation(self) -> str:
        """The id to cite: the same question of the same generation has the same answer."""
        return self._generation.id

    @property
    def tables(self) -> Mapping[str, TableSchema]:
        """name → its columns with type, unit, meaning and source."""
        return {name: schema for name, schema in catalogue().items() if name in self._generation.tables}

    def ask(
        self,
        question: str | Mapping[str, Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        date: date | str | None = None,
        limit: int = ROWS,
    ) -> Result:
        """The answer to a ready question, by its name, or to a question document (docs/questions.md): rows, or how many
        patients it finds, as the settings have it.

        Units   `date` is the day ages and periods count from, today if not given
        Raises  InvalidQuery, naming the place in the document or the parameter; also when there are more rows
        """
        asked, day = _question(question), _day(date)
        answer = self._desk.ask(self._generation, asked, parameters or {}, day, self._caller, _limits(limit))
        return _whole(answer, limit)

    def sql(self, text: str, *, limit: int = ROWS) -> Result:
        """The answer to one SELECT over `tables`; where rows may not be seen, to one that counts patients.
        Raises InvalidQuery as `ask` does."""
        return _whole(self._desk.sql(self._generation, text, self._caller, _limits(limit)), limit)

    def timeline(self, patient: str) -> Timeline:
        """What happened to one patient, by `patient_id` or an identifier's value, as rows show them.

        Raises  InvalidQuery for neither; NotAllowed where rows may not be seen
        """
        return self._desk.timeline(self._generation, patient, self._caller)

    def __repr__(self) -> str:
        return f"<Cohort generation {self.generation}: {len(self.tables)} tables>"


def opened(path: str | Path, generation: str, config_file: Path | None) -> Cohort:
    """See `cohort.open`."""
    settings = config.load(config_file) if config_file else config.embedded()
    where = place(path, access_of(settings) if config_file else None)
    lake = Lake(where) if where else None
    found = (lake.generation(generation) if generation else lake.current()) if lake else None
    if lake is None or found is None:
        raise ConfigError(f"no data in {path}: has `bridge run` or `cohort load` been used there?")
    return Cohort(found, desk_of(settings.cohort, lake.root))


def _question(asked: str | Mapping[str, Any]) -> Question:
    return ready_question(asked) if isinstance(asked, str) else read_question(asked)


def _day(given: date | str | None) -> date:
    try:
        return date.fromisoformat(given) if isinstance(given, str) else given or datetime.now(UTC).date()
    except ValueError:
        raise InvalidQuery("date: allowed are a datetime.date or YYYY-MM-DD") from None


def _limits(rows: int) -> Limits:
    if rows < 1:
        raise InvalidQuery("limit: at least 1")
    return Limits(rows=rows, cpu_s=_SECONDS, deadline_s=_SECONDS, answer_bytes=_ANSWER_BYTES)


def _whole(answer: Answer, limit: int) -> Result:
    """A result is never cut without saying so: a statistic over a part of it would be wrong."""
    if answer.truncated:
        raise InvalidQuery(
            f"there are more than {limit} rows, or more than {_ANSWER_BYTES >> 20} MiB of them: ask for less, or give "
            "a higher limit="
        )
    return Result(answer)


def _needed(module: str, extra: str) -> None:
    try:
        import_module(module)
    except ImportError:
        raise ConfigError(f"{module} is not installed: pip install 'imaging-bridge[{extra}]'") from None
