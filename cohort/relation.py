"""The small syntax tree that views and questions compile to: what rows, made of which. Pure.

Every node stands for rows with named columns and is frozen, so a part of a tree can be used twice. `cohort.dialects`
writes a tree as DuckDB or Spark SQL; nothing else in the project puts SQL together for both.

    adults = Where(Table("patient"), call(Function.AT_MOST, Column("birth_date"), eighteen_years_ago))
    scanned = Join(adults, Table("imaging_study"), JoinKind.SEMI, on, "p", "s")
    duckdb.sql(Ordered(scanned, (Order(Column("patient_id")),)))
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from cohort.expression import Expression, Literal, Null, Order, Struct


class JoinKind(Enum):
    """INNER and LEFT give the columns asked for; SEMI and ANTI keep or drop rows of the left side."""

    INNER = auto()
    LEFT = auto()
    SEMI = auto()
    ANTI = auto()


@dataclass(frozen=True)
class Table:
    """A table or view of the connection, by name."""

    name: str


@dataclass(frozen=True)
class Ndjson:
    """The objects of a newline-delimited JSON file (.gz too), read as the fields named, a column each; other fields
    are skipped. A line whose lists and objects are not where the type has them makes the query fail."""

    path: str
    row: Struct


@dataclass(frozen=True)
class Rows:
    """Rows given as values, such as the codes of a list. Names and types as the struct has them."""

    row: Struct
    values: tuple[tuple[Literal | Null, ...], ...]


@dataclass(frozen=True)
class Project:
    """These columns and no others; with `distinct`, equal rows once."""

    source: Relation
    columns: tuple[tuple[str, Expression], ...]
    distinct: bool = False


@dataclass(frozen=True)
class Extend:
    """The source's columns but those in `without`, and these."""

    source: Relation
    columns: tuple[tuple[str, Expression], ...]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Where:
    """The rows for which the condition is true. `alias` names the source for an Exists in the condition."""

    source: Relation
    condition: Expression
    alias: str = ""


@dataclass(frozen=True)
class Join:
    """Rows of two relations that belong together. INNER and LEFT need `columns`, which with `extend` come behind all
    those of the left side; names in `on` and `columns` carry the alias of their side."""

    left: Relation
    right: Relation
    kind: JoinKind
    on: Expression
    left_alias: str = "l"
    right_alias: str = "r"
    columns: tuple[tuple[str, Expression], ...] = ()
    extend: bool = False


@dataclass(frozen=True)
class Union:
    """All rows of all, by position; equal ones stay."""

    sources: tuple[Relation, ...]


@dataclass(frozen=True)
class Unnest:
    """One row for each item of a list, in a column beside the others; no row for an empty list, or with `keep_empty`
    one row with NULL. `index` names a column with the item's place, from 0."""

    source: Relation
    of: Expression
    item: str
    keep_empty: bool = False
    index: str = ""


@dataclass(frozen=True)
class Group:
    """One row for each combination of `by`, with the aggregates in `columns`; one row in all if `by` is empty."""

    source: Relation
    by: tuple[tuple[str, Expression], ...]
    columns: tuple[tuple[str, Expression], ...]
    having: Expression | None = None


@dataclass(frozen=True)
class Ordered:
    """The rows in order."""

    source: Relation
    by: tuple[Order, ...]


@dataclass(frozen=True)
class Limit:
    """The first rows; of Ordered ones, those in front."""

    source: Relation
    count: int


@dataclass(frozen=True)
class Shared:
    """A relation with a name, which may be used several times: written once, in a WITH clause."""

    name: str
    source: Relation


Relation = (
    Table | Ndjson | Rows | Project | Extend | Where | Join | Union | Unnest | Group | Ordered | Limit | Shared
)  # fmt: skip
