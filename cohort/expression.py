"""Types and expressions of the small syntax tree that views and questions compile to (`cohort.relation`). Pure.

An expression means one thing, in every dialect that writes it. Absence is NULL; conditions are three-valued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cohort.relation import Relation


class Scalar(Enum):
    """Types of single values. INTEGER has 64 bits; MOMENT is an instant, written in UTC."""

    TEXT = auto()
    INTEGER = auto()
    DOUBLE = auto()
    BOOLEAN = auto()
    DATE = auto()
    MOMENT = auto()


@dataclass(frozen=True)
class ListOf:
    """A list with items of one type."""

    item: Type


@dataclass(frozen=True)
class Struct:
    """Named fields."""

    fields: tuple[tuple[str, Type], ...]


Type = Scalar | ListOf | Struct


class Function(Enum):
    """What a Call computes. NULL in, NULL out unless said otherwise. Lists count from 1; patterns are what RE2 and
    Java read alike; texts compare by code point."""

    AND = auto()
    OR = auto()
    NOT = auto()
    EQUAL = auto()
    UNEQUAL = auto()
    LESS = auto()
    AT_MOST = auto()
    GREATER = auto()
    AT_LEAST = auto()
    SAME = auto()  # never NULL: two NULLs are the same
    IS_NULL = auto()  # never NULL
    COALESCE = auto()  # the first that is not NULL
    ADD = auto()
    SUBTRACT = auto()
    MULTIPLY = auto()
    DIVIDE = auto()  # a DOUBLE; NULL by zero
    MODULO = auto()  # of whole numbers; its sign is the first one's
    NEGATE = auto()
    ROUND = auto()  # number, digits: a DOUBLE
    CONCAT = auto()  # texts
    LOWER = auto()
    UPPER = auto()
    LENGTH = auto()  # of a text, in characters
    SUBSTRING = auto()  # text, first character (from 1), how many
    CONTAINS = auto()  # text, part: case counts
    STARTS_WITH = auto()
    MATCHES = auto()  # text, pattern: somewhere in it
    EXTRACT = auto()  # text, pattern, group: NULL if it does not match
    YEARS_BEFORE = auto()  # date, n: the same day n years earlier, 28 February for the 29th. Age >= n: birth <= this
    DAYS_AFTER = auto()  # date, n (may be negative)
    DAYS_BETWEEN = auto()  # date, later date
    YEAR = auto()  # of a date
    MONTH_START = auto()  # first day of a date's month
    DAY = auto()  # date of a moment, in UTC
    SIZE = auto()  # of a list
    ITEM = auto()  # list, n: NULL outside of it
    LAST = auto()  # of a list; NULL of an empty one
    LIST_CONCAT = auto()  # lists; a NULL one counts as empty
    FLATTEN = auto()  # list of lists without NULLs
    JOIN_TEXTS = auto()  # list of texts, separator
    AS_JSON = auto()  # list of texts: a JSON text
    FAIL = auto()  # text: the whole query fails with it


class AggregateFunction(Enum):
    """What an Aggregate computes over the rows of a group (or a window). NULLs are left out."""

    COUNT = auto()
    COUNT_DISTINCT = auto()
    COUNT_ROWS = auto()
    SUM = auto()
    MEAN = auto()
    LOWEST = auto()
    HIGHEST = auto()
    ANY = auto()  # is one of the conditions true
    LIST = auto()  # the values in the order given; not in windows


class WindowFunction(Enum):
    """What a Window computes beside aggregates."""

    ROW_NUMBER = auto()
    RANK = auto()
    PREVIOUS = auto()
    NEXT = auto()


@dataclass(frozen=True)
class Column:
    """A column of the relation read; `of` names the alias where several are in sight."""

    name: str
    of: str = ""


@dataclass(frozen=True)
class Variable:
    """What a Transform or Filter runs over."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A value from outside: written as a literal, quoted in the dialect's one place. bool, int, float, text, date,
    aware datetime."""

    value: bool | int | float | str | date | datetime


@dataclass(frozen=True)
class Null:
    """NULL of a type; of none where its surroundings tell."""

    type: Type | None


@dataclass(frozen=True)
class Field:
    """A field of a struct."""

    of: Expression
    name: str


@dataclass(frozen=True)
class Call:
    """A Function with its arguments."""

    function: Function
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class Cast:
    """The value as another scalar type; the query fails where that cannot be, or `lenient` gives NULL."""

    of: Expression
    type: Scalar
    lenient: bool = False


@dataclass(frozen=True)
class Case:
    """The value of the first true condition; conditions after it, and other values, are not computed."""

    branches: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression


@dataclass(frozen=True)
class OneOf:
    """Is the value one of these (one at least)?"""

    of: Expression
    values: tuple[Expression, ...]


@dataclass(frozen=True)
class MakeList:
    """A list of these items; an empty one needs a type unless its surroundings tell."""

    items: tuple[Expression, ...]
    item_type: Type | None = None


@dataclass(frozen=True)
class MakeStruct:
    """A struct of these fields."""

    fields: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True)
class Transform:
    """The list with `body` in place of each item, which `variable` names."""

    of: Expression
    variable: str
    body: Expression


@dataclass(frozen=True)
class Filter:
    """The items for which the condition is true."""

    of: Expression
    variable: str
    condition: Expression


@dataclass(frozen=True)
class Order:
    """One key to sort by; NULLs come last, whichever the direction."""

    by: Expression
    descending: bool = False


@dataclass(frozen=True)
class Aggregate:
    """A value over the rows of a group, of those that meet `condition` if there is one. `order` is for LIST."""

    function: AggregateFunction
    of: Expression | None = None
    order: tuple[Order, ...] = ()
    condition: Expression | None = None


@dataclass(frozen=True)
class Window:
    """A value over the rows of the same partition; with an order, aggregates count up to the row (and its equals)."""

    function: WindowFunction | AggregateFunction
    of: Expression | None = None
    partition: tuple[Expression, ...] = ()
    order: tuple[Order, ...] = ()


@dataclass(frozen=True)
class RowId:
    """A number that no other row of the relation has, with no meaning; where columns are made only."""


@dataclass(frozen=True)
class Exists:
    """Has the relation, under this alias, a row that meets the condition? Where only rows are kept or dropped by it,
    a semi or anti Join says the same."""

    relation: Relation = field(repr=False)
    alias: str
    condition: Expression


Expression = (
    Column | Variable | Literal | Null | Field | Call | Cast | Case | OneOf | MakeList | MakeStruct
    | Transform | Filter | Aggregate | Window | RowId | Exists
)  # fmt: skip
Columns = Mapping[str, Expression]


def call(function: Function, *arguments: Expression) -> Call:
    """A Call.

    >>> call(Function.IS_NULL, Column("birth_date"))
    Call(function=<Function.IS_NULL: 11>, arguments=(Column(name='birth_date', of=''),))
    """
    return Call(function, arguments)


def every(*conditions: Expression) -> Expression:
    """All conditions at once; true when there are none."""
    return _together(Function.AND, True, conditions)


def some(*conditions: Expression) -> Expression:
    """At least one of the conditions; false when there are none."""
    return _together(Function.OR, False, conditions)


def _together(function: Function, empty: bool, conditions: tuple[Expression, ...]) -> Expression:
    if not conditions:
        return Literal(empty)
    return conditions[0] if len(conditions) == 1 else Call(function, conditions)
