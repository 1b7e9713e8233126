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

from cohort.privacy import Policy
from cohort.pseudonym import Pseudonyms
from cohort.question import LISTS, Question
from cohort.schema import TableSchema

QUESTION = "question"
"""Stands in the table's place for what questions return."""

STORED = "stored"
"""The engine's schema of the tables as they are; people's SQL cannot name it."""

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
    "date": "shifted",
    "moment": "shifted, without time of day",
    "birth_year": f"1 January of the year, at most {TOP_AGE} years ago",
    "age": f"at most {TOP_AGE}",
    "year": "withheld while dates are shifted",
    "undated": "without its date",
    "text": "withheld as free text",
    "withheld": "withheld",
}
IDENTIFYING = ("pseudonym", "uid", "number", "text", "withheld")
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


def views(tables: Mapping[str, TableSchema], policy: Policy, pseudonyms: Pseudonyms) -> dict[str, str]:
    """table → the SELECT over the stored tables that people's SQL sees in its place."""
    return {name: _view(table, policy, pseudonyms) for name, table in tables.items()}


def _view(table: TableSchema, policy: Policy, pseudonyms: Pseudonyms) -> str:
    names = {c.name for c in table.columns}
    source, person = f'{STORED}."{table.name}" t', "''"
    if "patient_id" in names:
        person = "t.patient_id"
    elif "study_instance_uid" in names:
        source += (
            f" LEFT JOIN (SELECT study_instance_uid AS uid, min(patient_id) AS person FROM {STORED}.imaging_study "
            "GROUP BY ALL) o ON o.uid = t.study_instance_uid"
        )
        person = "coalesce(o.person, t.study_instance_uid)"
    columns = [
        _expression(shown(table.name, c.name), f't."{c.name}"', False, person, policy, pseudonyms) + f' AS "{c.name}"'
        for c in table.columns
    ]
    return f"SELECT {', '.join(columns)} FROM {source}"


def of_rows(query: str, question: Question, policy: Policy, pseudonyms: Pseudonyms) -> str:
    """SQL: a question's rows as they may be shown. `query` also has the column `patient_id`."""
    columns = [
        _expression(shown(QUESTION, n), f'"{n}"', n in LISTS, "patient_id", policy, pseudonyms) + f' AS "{n}"'
        for n in question.columns
    ]
    order = [pseudonyms.id_sql("Patient", "patient_id"), *map(str, range(1, len(question.columns) + 1))]
    return f"SELECT {', '.join(columns)} FROM ({query}) ORDER BY {', '.join(order)}"


def of_counts(query: str, groups: Sequence[str], others: Sequence[str], pseudonyms: Pseudonyms) -> str:
    """SQL: a question's groups without what identifies; dates and ages are as they are: they are many people's."""
    columns = [
        (_identifying(shown(QUESTION, n), f'"{n}"', False, pseudonyms) or f'"{n}"') + f' AS "{n}"' for n in groups
    ]
    return f"SELECT {', '.join([*columns, *others])} FROM ({query})"


def _expression(rule: Shown, column: str, many: bool, person: str, policy: Policy, pseudonyms: Pseudonyms) -> str:
    if _kept(rule.how, policy):
        return column
    hidden = _identifying(rule, column, many, pseudonyms)
    if hidden is not None:
        return hidden
    days = pseudonyms.days_sql(f"coalesce({person}, '')")
    return {
        "as_is": column,
        "date": f"({column} - {days})::DATE",
        "moment": f"date_trunc('day', {column}) - to_days({days})",
        "birth_year": f"greatest(date_trunc('year', {column}), date_trunc('year', current_date) - to_years({TOP_AGE}))"
        "::DATE",
        "age": f"least({column}, {TOP_AGE})",
        "year": _nothing(column),
        "undated": f"list_transform({column}, lambda x: regexp_replace(x, ' \\([0-9-]*\\)$', ''))",
    }[rule.how]


def _identifying(rule: Shown, column: str, many: bool, pseudonyms: Pseudonyms) -> str | None:
    if rule.how in ("text", "withheld"):
        return _nothing(column)
    made = {"pseudonym": pseudonyms.id_sql, "uid": pseudonyms.uid_sql, "number": pseudonyms.number_sql}.get(rule.how)
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
