"""A view's columns as the lake holds them, in DuckDB SQL: the same values as `cohort.schema` gives row by row. Pure.

Each column comes with a condition for values that only the evaluator is sure to read: its row counts as doubtful.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from bridge.errors import InvalidQuery
from cohort.dialects.duckdb import sql
from cohort.elements import R4
from cohort.expression import ListOf, Scalar, Struct, Type
from cohort.path_types import CHOICE_TYPES
from cohort.schema import ViewTable, view_tables
from cohort.view_sql import SEVERAL, compile_view

CARRIED = ("_hash", "_key", "_origin")
PARSED = "parsed"
"""The table a view's SQL reads: CARRIED, and the fields of the resource as columns."""

_MOMENT = (
    r"(1[6-9]|2[0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])?"
)
_BASE64 = r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
_CHOICE = re.compile(f"([a-z][A-Za-z]*?)({'|'.join(sorted(CHOICE_TYPES))})")
_URN_OID = "urn:oid:"
_NAMES: dict[Scalar, tuple[str, ...]] = {
    Scalar.TEXT: ("VARCHAR",), Scalar.BOOLEAN: ("BOOLEAN",), Scalar.INTEGER: ("BIGINT", "UBIGINT"),
    Scalar.DOUBLE: ("BIGINT", "UBIGINT", "DOUBLE"),
}  # fmt: skip


@dataclass(frozen=True)
class FlatView:
    """A view as SQL: what it reads of a resource, that as DuckDB's structure for json_transform, and its rows.

    `rows` is a SELECT over PARSED of CARRIED, the view's columns in the lake's types and `_doubtful`."""

    row: Struct
    structure: str
    rows: str


@lru_cache(maxsize=64)
def flat_view(name: str) -> FlatView | None:
    """The view of mappings/views as SQL; None when only the evaluator can say it."""
    table = view_tables()[name]
    try:
        compiled = compile_view(table.definition, R4)
        rows = sql(compiled.over(PARSED, CARRIED))
    except InvalidQuery:
        return None
    columns, doubts = [], [f'"{SEVERAL}"']
    for column in compiled.columns:
        found = _column(table, column.name, column.type)
        if found is None:
            return None
        columns.append(f'{found[0]} AS "{column.name}"')
        doubts += found[1:]
    selected = ", ".join((*CARRIED, *columns, f"coalesce({' OR '.join(doubts)}, false) AS _doubtful"))
    return FlatView(compiled.row, structure(compiled.row), f"SELECT {selected} FROM ({rows})")


def structure(kind: Type) -> str:
    """A type as json_transform takes it.

    >>> structure(ListOf(Struct((("code", Scalar.TEXT),))))
    '[{"code":"VARCHAR"}]'
    """
    if isinstance(kind, Scalar):
        return f'"{_NAMES[kind][-1] if kind is not Scalar.INTEGER else "BIGINT"}"'
    if isinstance(kind, ListOf):
        return f"[{structure(kind.item)}]"
    return "{" + ",".join(f'"{name}":{structure(of)}' for name, of in kind.fields) + "}"


def fits(found: object, kind: Type) -> bool:
    """Whether values of a structure, as json_structure tells it, are what the type says: then all are read exactly.

    >>> fits({"id": "VARCHAR", "x": "JSON"}, Struct((("id", Scalar.TEXT),))), fits(["VARCHAR"], Scalar.TEXT)
    (True, False)
    """
    if found == "NULL":
        return True
    if isinstance(kind, Scalar):
        return found in _NAMES[kind]
    if isinstance(kind, ListOf):
        return isinstance(found, list) and len(found) == 1 and fits(found[0], kind.item)
    if not isinstance(found, dict) or _two_of_a_choice(found):
        return False
    return all(fits(found[name], of) for name, of in kind.fields if name in found)


def _two_of_a_choice(found: Mapping[str, object]) -> bool:
    """Whether value[x] or the like is there with two types, which FHIR forbids: the evaluator takes the first."""
    bases = [match[1] for match in map(_CHOICE.fullmatch, found) if match]
    return len(bases) > len(set(bases))


def _column(table: ViewTable, name: str, compiled: Type) -> tuple[str, ...] | None:
    """The column in the lake's type, and when it is doubtful; None for what is not known to be the same."""
    wanted = next(c.type for c in table.schema.columns if c.name == name)
    described = next(c for c in table.view.columns if c.name == name)
    value = f'"{name}"'
    match compiled, wanted:
        case Scalar.TEXT, "DATE":
            return (_day(value),)
        case Scalar.TEXT, "TIMESTAMP WITH TIME ZONE":
            return _moment(value)
        case Scalar.TEXT, "VARCHAR" if described.type == "base64Binary":
            return _decoded(value)
        case Scalar.TEXT, "VARCHAR" if name in ("study_instance_uid", "series_instance_uid"):
            rest = f"substring({value}, {len(_URN_OID) + 1})"
            return (f"CASE WHEN starts_with({value}, '{_URN_OID}') THEN {rest} ELSE {value} END",)
        case (Scalar.TEXT, "VARCHAR") | (Scalar.BOOLEAN, "BOOLEAN") | (Scalar.INTEGER, "BIGINT"):
            return (value,)
        case (Scalar.DOUBLE | Scalar.INTEGER, "DOUBLE"):
            number = f"CAST({value} AS DOUBLE)"
            return number, f"({value} IS NOT NULL AND NOT isfinite({number}))"  # DuckDB reads NaN, which is no JSON
        case Scalar.INTEGER, "INTEGER":
            return (f"TRY_CAST({value} AS INTEGER)",)
        case ListOf(Scalar.TEXT), "VARCHAR[]":
            return (value,)
    return None


def _day(value: str) -> str:
    """As `first_day`. DuckDB knows a year 0, which FHIR does not."""
    found = f"regexp_extract({value}, '^[0-9]{{4}}(-[0-9]{{2}}){{0,2}}')"
    whole = (
        f"CASE length({found}) WHEN 10 THEN {found} WHEN 7 THEN {found} || '-01' WHEN 4 THEN {found} || '-01-01' END"
    )
    return f"CASE WHEN {value} >= '0001' THEN TRY_CAST({whole} AS DATE) END"


def _moment(value: str) -> tuple[str, str]:
    """As `first_moment`, for the form FHIR has; session time zone UTC."""
    timed = f"contains({value}, 'T')"
    day = f"CAST({_day(value)} AS TIMESTAMPTZ)"
    plain = f"regexp_full_match({value}, '{_MOMENT}')"
    return f"CASE WHEN {timed} THEN TRY_CAST({value} AS TIMESTAMPTZ) ELSE {day} END", f"({timed} AND NOT {plain})"


def _decoded(value: str) -> tuple[str, str]:
    made = f"TRY(decode(from_base64({value})))"
    plain = f"(regexp_full_match({value}, '{_BASE64}') AND coalesce(NOT contains({made}, chr(0)), false))"
    return made, f"({value} IS NOT NULL AND NOT {plain})"
