"""What each column shows under pseudonyms, as `mappings/codes/disclosure.csv` says it, and the SQL that shows it.

Applied inside the query's own engine: by the views that people's SQL sees instead of the stored tables, and around the
SELECT of a question. A column without a row in the table is withheld.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from cohort.kinds import KINDS
from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms
from cohort.returns import FOUND_UNITS, SHOWN_PEOPLE, Form, Returned
from cohort.schema import TableSchema

QUESTION = "question"
"""Stands in the table's place for what questions return besides columns of tables."""

OUTCOME = "outcome"
"""Stands in the table's place for what rows of outcomes have (cohort.outcome_rows)."""

PERSON_COLUMN = "patient.patient_id"
"""What a question returns that says whose a row is."""

STORED = "stored"
"""The engine's schema of the tables as they are; people's SQL cannot name it."""

PERSON = "person"
"""The engine's variable with a `patient_id`, in UTF-8."""

TOP_AGE = 90
"""Older people all show this age."""


@dataclass(frozen=True)
class Shown:
    """How a column is shown: `how` is one of MEANINGS, `kind` what a pseudonym stands for."""

    how: str
    kind: str = ""


MEANINGS: Mapping[str, str] = {
    "as_is": "as it is",
    "pseudonym": "pseudonym",
    "uid": "pseudonym, a UID under 2.25",
    "number": "pseudonym of 16 digits",
    "key": "pseudonym, a number for joins",
    "date": "shifted",
    "moment": "shifted, without time of day",
    "birth_year": f"1 January of the year, at most {TOP_AGE} years ago",
    "age": f"at most {TOP_AGE}",
    "year": "withheld while dates are shifted",
    "undated": "without its date",
    "text": "withheld as free text",
    "withheld": "withheld",
}
IDENTIFYING = ("pseudonym", "uid", "number", "key", "text", "withheld")
"""Columns that cannot stand in a count's conditions and groups: they single people out."""


@lru_cache(maxsize=1)
def disclosure() -> Mapping[tuple[str, str], Shown]:
    """(table, column) → how it is shown."""
    text = (files("mappings") / "codes" / "disclosure.csv").read_text("utf-8")
    return {(r["table"], r["column"]): Shown(r["shown"], r["kind"]) for r in csv.DictReader(text.splitlines())}


def shown(table: str, column: str) -> Shown:
    return disclosure().get((table, column), Shown("withheld"))


def meaning(table: str, column: str, policy: Policy) -> str:
    """In words, for `cohort tables`; "" where the policy shows the column as it is."""
    how = shown(table, column).how
    if not policy.pseudonymous or how == "as_is" or _kept(how, policy):
        return ""
    return MEANINGS[how]


def views(
    tables: Mapping[str, TableSchema], policy: Policy, pseudonyms: Pseudonyms, *, one: bool = False
) -> dict[str, str]:
    """table → the SELECT over the stored tables that people's SQL sees in its place.

    With `one`, tables of persons show the one whose `patient_id` stands in the variable PERSON: pseudonyms are made
    for nobody else.
    """
    return {name: _view(table, policy, pseudonyms, one) for name, table in tables.items()}


def stored_patient(pseudonyms: Pseudonyms) -> str:
    """SQL: the stored `patient_id` of whoever is shown under the pseudonym $1, of the person or of an identifier."""
    parts = (
        f"SELECT patient_id FROM {STORED}.{table} "
        f"WHERE {_identifying(shown(table, column), column, False, pseudonyms)} = $1"
        for table, column in (("patient", "patient_id"), ("patient_identifier", "value"))
    )
    return " UNION ".join(parts)


def _view(table: TableSchema, policy: Policy, pseudonyms: Pseudonyms, one: bool) -> str:
    names = {c.name for c in table.columns}
    source, person = f'{STORED}."{table.name}" t', "''"
    if "patient_id" in names:
        person = "t.patient_id"
    elif "study_key" in names and any(shown(table.name, n).how in ("date", "moment") for n in names):
        source += (
            f" LEFT JOIN (SELECT study_key AS key, min(patient_id) AS person FROM {STORED}.imaging_study GROUP BY ALL) "
            "o ON o.key = t.study_key"
        )
        person = "coalesce(o.person, t.study_instance_uid)"
    columns = [
        _expression(shown(table.name, c.name), f't."{c.name}"', False, person, policy, pseudonyms) + f' AS "{c.name}"'
        for c in table.columns
    ]
    if one and "patient_id" in names and table.name != "imaging_finding":  # a finding may name its study alone
        source += f" WHERE t.patient_id = decode(getvariable('{PERSON}'))"
    return f"SELECT {', '.join(columns)} FROM {source}"


def returned_as(wanted: Returned) -> Shown:
    """How what a question returns is shown."""
    if wanted.form is Form.PLAIN:
        return shown(KINDS[wanted.kind].table, wanted.column)
    return shown(wanted.table, wanted.column) if wanted.form is Form.LIST else shown(QUESTION, wanted.name)


def as_shown(table: str, columns: Sequence[str], person: str, policy: Policy, pseudonyms: Pseudonyms) -> list[str]:
    """SQL: each of these columns as it may be shown, under its name; `person` is the expression of whose a row is."""
    made = ((n, _expression(shown(table, n), f'"{n}"', False, person, policy, pseudonyms)) for n in columns)
    return [f'{expression} AS "{name}"' for name, expression in made]


def of_rows(
    query: str, units: str, wanted: Sequence[Returned], policy: Policy, pseudonyms: Pseudonyms, most: int
) -> str:
    """SQL: a question's rows as they may be shown, so many or all of the last person's. `query` has the columns
    `wanted`, and PERSON_COLUMN, of the people in SHOWN_PEOPLE; `units` are FOUND_UNITS of all people
    (cohort.question_answer)."""
    person = f'"{PERSON_COLUMN}"'
    columns = [
        _expression(returned_as(w), f'"{w.name}"', _many(w), person, policy, pseudonyms) + f' AS "{w.name}"'
        for w in wanted
    ]
    counted = f'SELECT "_patient", "_person", count(*) AS units FROM {FOUND_UNITS} GROUP BY ALL'
    by = pseudonyms.id_sql("Patient", '"_person"')
    before = f"sum(units) OVER (ORDER BY {by}) - units"
    people = f'SELECT "_patient" FROM (SELECT "_patient", {before} AS before FROM ({counted})) WHERE before < {most}'
    order = [pseudonyms.id_sql("Patient", person), *map(str, range(1, len(columns) + 1))]
    return (
        f"WITH {FOUND_UNITS} AS ({units}), {SHOWN_PEOPLE} AS ({people}) "
        f"SELECT {', '.join(columns)} FROM ({query}) ORDER BY {', '.join(order)}"
    )


def of_counts(query: str, groups: Sequence[Returned], others: Sequence[str], pseudonyms: Pseudonyms) -> str:
    """SQL: a question's groups without what identifies; dates and ages are as they are: they are many people's."""
    columns = [
        (_identifying(returned_as(w), f'"{w.name}"', _many(w), pseudonyms) or f'"{w.name}"') + f' AS "{w.name}"'
        for w in groups
    ]
    return f"SELECT {', '.join([*columns, *others])} FROM ({query})"


def _many(wanted: Returned) -> bool:
    return wanted.form in (Form.LIST, Form.NAMED)


def _expression(rule: Shown, column: str, many: bool, person: str, policy: Policy, pseudonyms: Pseudonyms) -> str:
    if rule.how == "as_is" or _kept(rule.how, policy):
        return column
    hidden = _identifying(rule, column, many, pseudonyms)
    if hidden is not None:
        return hidden
    if rule.how == "undated":
        return f"list_transform({column}, lambda x: regexp_replace(x, ' \\([0-9-]*\\)$', ''))"
    if rule.how == "year":
        return _nothing(column)
    if many:
        return f"list_transform({column}, lambda x: {_dated(rule.how, 'x', person, pseudonyms)})"
    return _dated(rule.how, column, person, pseudonyms)


def _dated(how: str, value: str, person: str, pseudonyms: Pseudonyms) -> str:
    days = pseudonyms.days_sql(f"coalesce({person}, '')")
    return {
        "date": f"({value} - {days})::DATE",
        "moment": f"date_trunc('day', {value}) - to_days({days})",
        "birth_year": f"greatest(date_trunc('year', {value}), date_trunc('year', current_date) - to_years({TOP_AGE}))"
        "::DATE",
        "age": f"least({value}, {TOP_AGE})",
    }[how]


def _identifying(rule: Shown, column: str, many: bool, pseudonyms: Pseudonyms) -> str | None:
    if rule.how in ("text", "withheld"):
        return _nothing(column)
    made = {
        "pseudonym": pseudonyms.id_sql, "uid": pseudonyms.uid_sql, "number": pseudonyms.number_sql,
        "key": pseudonyms.integer_sql,
    }.get(rule.how)  # fmt: skip
    if made is None:
        return None
    return f"list_transform({column}, lambda x: {made(rule.kind, 'x')})" if many else made(rule.kind, column)


def _nothing(column: str) -> str:
    """NULL of the column's own type."""
    return f"CASE WHEN false THEN {column} END"


def _kept(how: str, policy: Policy) -> bool:
    if how == "text":
        return policy.free_text == "shown"
    return how in ("date", "moment", "year", "undated") and policy.dates == "kept"
