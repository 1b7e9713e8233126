"""Outcomes back to those who made the predictions: all rows of a definition, or what changed since a cursor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from bridge.errors import InvalidQuery
from cohort.answer import Answer
from cohort.catalogue import outcomes, read_outcome
from cohort.generation import Generation
from cohort.outcome import Definition, Outcome
from cohort.outcome_changes import changed
from cohort.outcome_rows import ROW, TYPES, compile_outcomes, compile_readings
from cohort.outcome_shown import PREDICTION, codes_sql, digests_sql, rows_sql
from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms
from cohort.relation import Relation
from cohort.sandbox import Limits, Run, Task

WITHDRAWN = "withdrawn"
"""The outcome of a prediction that is gone: only seen by who had it."""

MOST_PREDICTIONS = 2_000_000
COMPARED = Limits(
    rows=MOST_PREDICTIONS, address_space=12_884_901_888, memory_mb=4096, cpu_s=600, deadline_s=600.0,
    answer_bytes=1_073_741_824,
)  # fmt: skip
"""For the comparison of all rows with those shown before."""


@dataclass(frozen=True)
class Wanted:
    """Outcomes as they are asked for: by which definition with which parameters, of which model and version ("" and
    None: all), on which day (None: today, which alone has changes), so many at most."""

    definition: Definition
    given: Mapping[str, Any]
    model: str = ""
    version: str | None = None
    on: date | None = None
    most: int = 10_000

    @property
    def asked(self) -> Definition:
        """The definition with the values of its parameters. Raises InvalidQuery naming the parameter."""
        return read_outcome(self.definition.document, self.given)

    @property
    def ready(self) -> bool:
        """Whether it is one of `mappings/outcomes`."""
        known = outcomes().get(self.definition.name)
        return known is not None and known.document == self.definition.document


@dataclass(frozen=True)
class Feedback:
    """Rows of outcomes, and the cursor behind them: "" where a day was asked for."""

    answer: Answer
    cursor: str


@dataclass(frozen=True)
class Showing:
    """What shows rows: the policy, its pseudonyms, what runs SQL, and where changes are kept."""

    policy: Policy
    pseudonyms: Pseudonyms | None
    run: Run
    folder: Path
    limits: Limits

    @property
    def variables(self) -> dict[str, str]:
        return self.pseudonyms.variables() if self.pseudonyms else {}


def feedback(generation: Generation, wanted: Wanted, today: date, cursor: str | None, showing: Showing) -> Feedback:
    """The rows: as of a day where one is asked for; else what is new or has changed since the cursor, or everything.

    Raises  InvalidQuery for parameters, a cursor that is not known any more, and when there are more than allowed
    """
    known = (wanted.asked, wanted.on or today, generation.column_types, wanted.model, wanted.version)
    if wanted.on is not None:
        if cursor is not None:
            raise InvalidQuery("cursor: changes are told of today alone, without a day or a generation")
        return Feedback(_as_of(generation, compile_outcomes(*known), showing, wanted.most), "")
    compared = showing.run(generation, Task(digests_sql(compile_outcomes(*known))), COMPARED)
    if compared.truncated:
        raise InvalidQuery(f"there are more than {MOST_PREDICTIONS} predictions: name a model and its version")
    now = [(str(prediction), str(digest)) for prediction, digest in compared.rows]
    found = changed(showing.folder, _series(wanted, showing.policy), now, cursor, wanted.most)
    standing = {prediction: number for prediction, number, gone in found.rows if not gone}
    answer = replace(compared, columns=_COLUMNS, rows=())
    if standing:
        answer = _of(generation, compile_outcomes(*known, some=True), showing, list(standing))
    rows = {row[-1]: (*row[:-1], standing[row[-1]]) for row in answer.rows}
    for prediction, number, gone in found.rows:
        if gone:
            rows[prediction] = _withdrawn(prediction, number, showing.pseudonyms)
    ordered = tuple(sorted(rows.values(), key=lambda row: int(row[-1])))
    return Feedback(replace(_with_changes(answer), rows=ordered, truncated=found.more), found.cursor)


_COLUMNS = (*TYPES.items(), (PREDICTION, "VARCHAR"))


def definitions_of(generation: Generation, model: str, run: Run) -> tuple[str, ...]:
    """The ready definitions that speak of findings which the model made."""
    answer = run(generation, Task(codes_sql(), (model,)), None)
    found = {(system, code) for system, code in answer.rows}
    return tuple(name for name, d in outcomes().items() if found & set(d.finding.codes or ()))


def readings(generation: Generation, wanted: Wanted, reader: str, today: date, showing: Showing) -> tuple[Answer, str]:
    """What became of a reader's reports, one row for each as of the day (none where rows may not be seen), and that in
    a sentence. Raises InvalidQuery where the definition cannot judge readers."""
    asked = compile_readings(wanted.asked, wanted.on or today, generation.column_types, reader)
    task = Task(rows_sql(asked, showing.policy, showing.pseudonyms, of="DiagnosticReport"), variables=showing.variables)
    answer = showing.run(generation, task, replace(showing.limits, rows=MOST_PREDICTIONS))
    said, became = ([n for n, _ in answer.columns].index(name) for name in ("predicted", "outcome"))
    decided = [row for row in answer.rows if row[became] in (Outcome.CONFIRMED, Outcome.REFUTED)]
    agreed = sum(row[said] == (row[became] == Outcome.CONFIRMED) for row in decided)
    told = f"of {len(answer.rows)} reports that judge it, {len(decided)} have an outcome; {agreed} agreed with it"
    rows = tuple((*row[:-1], None) for row in answer.rows[: wanted.most]) if showing.policy.line_level else ()
    return replace(_with_changes(answer), rows=rows, truncated=bool(rows) and len(answer.rows) > wanted.most), told


def _as_of(generation: Generation, asked: Relation, showing: Showing, most: int) -> Answer:
    task = Task(rows_sql(asked, showing.policy, showing.pseudonyms), variables=showing.variables)
    answer = showing.run(generation, task, replace(showing.limits, rows=most))
    return replace(_with_changes(answer), rows=tuple((*row[:-1], None) for row in answer.rows))


def _of(generation: Generation, asked: Relation, showing: Showing, predictions: list[str]) -> Answer:
    sql = rows_sql(asked, showing.policy, showing.pseudonyms, some=True)
    task = Task(sql, (predictions,), variables=showing.variables)
    answer = showing.run(generation, task, replace(showing.limits, rows=len(predictions) + 1))
    if answer.truncated:
        raise InvalidQuery("the rows are too large for one answer: ask for fewer at a time")
    return answer


def _with_changes(answer: Answer) -> Answer:
    return replace(answer, columns=(*answer.columns[:-1], ("changed", "BIGINT")))


def _withdrawn(prediction: str, number: int, pseudonyms: Pseudonyms | None) -> tuple[Any, ...]:
    shown = pseudonyms.id("Observation", prediction) if pseudonyms else prediction
    known = {"prediction_id": shown, "outcome": WITHDRAWN}
    return (*(known.get(name) for name in ROW), number)


def _series(wanted: Wanted, policy: Policy) -> str:
    """What a cursor belongs to: who edits a ready definition has its rows changed; a document of one's own is known by
    its content."""
    made = {
        "definition": wanted.definition.name,
        "document": None if wanted.ready else orjson.dumps(wanted.definition.document, default=str).decode(),
        "parameters": {k: str(v) for k, v in wanted.given.items()},
        "model": wanted.model,
        "version": wanted.version,
        "shown": [policy.identifiers, policy.dates, policy.free_text, policy.project],
    }
    return hashlib.sha256(orjson.dumps(made, option=orjson.OPT_SORT_KEYS)).hexdigest()
