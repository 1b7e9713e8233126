"""What the dialects write alike. Names are always quoted; values from outside are quoted by `Writer.text`. Pure."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import ClassVar

from bridge.errors import InvalidQuery
from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Call,
    Case,
    Cast,
    Column,
    Exists,
    Expression,
    Field,
    Filter,
    Function,
    ListOf,
    Literal,
    MakeList,
    MakeStruct,
    Null,
    OneOf,
    Order,
    RowId,
    Scalar,
    Transform,
    Type,
    Variable,
    Window,
    WindowFunction,
    every,
)  # fmt: skip
from cohort.relation import (
    Extend,
    Group,
    Join,
    JoinKind,
    Limit,
    Ndjson,
    Ordered,
    Project,
    Relation,
    Rows,
    Shared,
    Table,
    Union,
    Unnest,
    Where,
)  # fmt: skip

_INFIX = {
    Function.AND: " AND ", Function.OR: " OR ", Function.EQUAL: " = ", Function.UNEQUAL: " <> ", Function.LESS: " < ",
    Function.AT_MOST: " <= ", Function.GREATER: " > ", Function.AT_LEAST: " >= ", Function.ADD: " + ",
    Function.SUBTRACT: " - ", Function.MULTIPLY: " * ", Function.MODULO: " % ", Function.CONCAT: " || ",
    Function.SAME: " IS NOT DISTINCT FROM ",
}  # fmt: skip
_ALIKE = {
    Function.NOT: "(NOT {0})", Function.IS_NULL: "({0} IS NULL)", Function.NEGATE: "(- {0})",
    Function.DIVIDE: "(CAST({0} AS DOUBLE) / nullif({1}, 0))",
    Function.ROUND: "round(CAST({0} AS DOUBLE), CAST({1} AS INT))",
    Function.LOWER: "lower({0})", Function.UPPER: "upper({0})", Function.SUBSTRING: "substring({0}, {1}, {2})",
    Function.EXTRACT: "nullif(regexp_extract({0}, {1}, CAST({2} AS INT)), '')", Function.YEAR: "year({0})",
    Function.FLATTEN: "flatten({0})",
}  # fmt: skip
_AGGREGATES: Mapping[AggregateFunction | WindowFunction, str] = {
    AggregateFunction.COUNT: "count({0})", AggregateFunction.COUNT_DISTINCT: "count(DISTINCT {0})",
    AggregateFunction.COUNT_ROWS: "count(*)", AggregateFunction.SUM: "sum({0})", AggregateFunction.MEAN: "avg({0})",
    AggregateFunction.LOWEST: "min({0})", AggregateFunction.HIGHEST: "max({0})", AggregateFunction.ANY: "bool_or({0})",
}  # fmt: skip
_WINDOWS: Mapping[AggregateFunction | WindowFunction, str] = {
    WindowFunction.ROW_NUMBER: "row_number()", WindowFunction.RANK: "rank()",
    WindowFunction.PREVIOUS: "lag({0})", WindowFunction.NEXT: "lead({0})", **_AGGREGATES,
}  # fmt: skip
_JOINS = {
    JoinKind.INNER: "JOIN", JoinKind.LEFT: "LEFT JOIN", JoinKind.SEMI: "LEFT SEMI JOIN", JoinKind.ANTI: "LEFT ANTI JOIN"
}  # fmt: skip
_WHOLE = 2**63


class Writer(ABC):
    """Writes one statement. Raises InvalidQuery for what cannot be said alike in every dialect."""

    functions: ClassVar[Mapping[Function, str]]
    types: ClassVar[Mapping[Scalar, str]]
    row_id: ClassVar[str]
    leave_out: ClassVar[str]
    joins: ClassVar[Mapping[JoinKind, str]] = _JOINS

    def __init__(self) -> None:
        self._shared: dict[str, tuple[Relation, str]] = {}

    def statement(self, relation: Relation) -> str:
        """The relation as one SELECT."""
        body = self.relation(relation)
        named = ", ".join(f"{self.name(name)} AS ({text})" for name, (_, text) in self._shared.items())
        return f"WITH {named} {body}" if named else body

    @abstractmethod
    def name(self, name: str) -> str:
        """An identifier, quoted."""

    @abstractmethod
    def text(self, value: str) -> str:
        """A text literal: the one place where values from outside are quoted."""

    @abstractmethod
    def struct_type(self, fields: Iterable[tuple[str, str]]) -> str:
        """A struct type of names and written types."""

    @abstractmethod
    def list_type(self, item: str) -> str:
        """A list type."""

    @abstractmethod
    def field(self, of: str, name: str) -> str:
        """A struct's field."""

    @abstractmethod
    def make_list(self, items: list[str]) -> str:
        """A list."""

    @abstractmethod
    def make_struct(self, fields: list[tuple[str, str]]) -> str:
        """A struct."""

    @abstractmethod
    def over_items(self, kind: type[Transform | Filter], of: str, variable: str, body: str) -> str:
        """Transform or Filter."""

    @abstractmethod
    def list_aggregate(self, aggregate: Aggregate) -> str:
        """AggregateFunction.LIST."""

    @abstractmethod
    def ndjson(self, source: Ndjson) -> str:
        """A SELECT over the file."""

    @abstractmethod
    def unnest(self, unnest: Unnest, source: str, of: str) -> str:
        """One row for each item."""

    def relation(self, relation: Relation) -> str:
        """A SELECT."""
        match relation:
            case Table(name):
                return f"SELECT * FROM {self.name(name)}"
            case Ndjson():
                return self.ndjson(relation)
            case Rows():
                return self._rows(relation)
            case Project(source, columns, distinct):
                return f"SELECT {'DISTINCT ' if distinct else ''}{self._columns(columns)} FROM {self._from(source)}"
            case Extend(source, columns, without):
                left_out = f" {self.leave_out} ({', '.join(map(self.name, without))})" if without else ""
                return f"SELECT *{left_out}, {self._columns(columns)} FROM {self._from(source)}"
            case Where(source, condition, alias):
                return f"SELECT * FROM {self._from(source, alias)} WHERE {self.expression(condition)}"
            case Join():
                return self._join(relation)
            case Union(sources):
                return " UNION ALL ".join(f"SELECT * FROM {self._from(s)}" for s in sources)
            case Unnest():
                return self.unnest(relation, self._from(relation.source), self.expression(relation.of))
            case Group():
                return self._group(relation)
            case Ordered(source, by):
                return f"SELECT * FROM {self._from(source)} ORDER BY {self.order(by)}"
            case Limit(source, count):
                return f"{self.relation(source)} LIMIT {int(count)}"
            case Shared(name, source):
                return self._named(name, source)

    def _named(self, name: str, source: Relation) -> str:
        if name not in self._shared:
            self._shared[name] = (source, self.relation(source))
        elif self._shared[name][0] != source:
            raise InvalidQuery(f"two relations are called {name}")
        return f"SELECT * FROM {self.name(name)}"

    def _from(self, source: Relation, alias: str = "") -> str:
        if isinstance(source, Table):
            written = self.name(source.name)
        elif isinstance(source, Shared):
            self._named(source.name, source.source)
            written = self.name(source.name)
        else:
            written = f"({self.relation(source)})"
        return f"{written} AS {self.name(alias)}" if alias else written

    def _columns(self, columns: Iterable[tuple[str, Expression]]) -> str:
        return ", ".join(f"{self.expression(e)} AS {self.name(name)}" for name, e in columns)

    def _rows(self, rows: Rows) -> str:
        if not rows.values:
            nothing = ", ".join(f"CAST(NULL AS {self.type(t)}) AS {self.name(n)}" for n, t in rows.row.fields)
            return f"SELECT {nothing} WHERE FALSE"
        values = ", ".join(f"({', '.join(map(self.expression, row))})" for row in rows.values)
        names = ", ".join(self.name(name) for name, _ in rows.row.fields)
        return f"SELECT * FROM (VALUES {values}) AS rows({names})"

    def _join(self, join: Join) -> str:
        left, right = self._from(join.left, join.left_alias), self._from(join.right, join.right_alias)
        of_left = f"{self.name(join.left_alias)}.*" if join.extend or not join.columns else ""
        columns = ", ".join(filter(None, (of_left, self._columns(join.columns))))
        return f"SELECT {columns} FROM {left} {self.joins[join.kind]} {right} ON {self.expression(join.on)}"

    def _group(self, group: Group) -> str:
        columns = self._columns((*group.by, *group.columns))
        by = ", ".join(self.expression(e) for _, e in group.by)
        grouped = f" GROUP BY {by}" if by else ""
        having = f" HAVING {self.expression(group.having)}" if group.having is not None else ""
        return f"SELECT {columns} FROM {self._from(group.source)}{grouped}{having}"

    def order(self, by: Iterable[Order]) -> str:
        """What follows ORDER BY."""
        return ", ".join(f"{self.expression(o.by)} {'DESC' if o.descending else 'ASC'} NULLS LAST" for o in by)

    def type(self, kind: Type) -> str:
        """A type's name."""
        if isinstance(kind, Scalar):
            return self.types[kind]
        if isinstance(kind, ListOf):
            return self.list_type(self.type(kind.item))
        return self.struct_type((name, self.type(t)) for name, t in kind.fields)

    def expression(self, expression: Expression) -> str:
        """A value."""
        match expression:
            case Column(name, of):
                return f"{self.name(of)}.{self.name(name)}" if of else self.name(name)
            case Variable(name):
                return self.name(name)
            case Literal(value):
                return self.literal(value)
            case Null(kind):
                return "NULL" if kind is None else f"CAST(NULL AS {self.type(kind)})"
            case Field(of, name):
                return self.field(self.expression(of), name)
            case Call(function, arguments):
                return self.function(function, [self.expression(a) for a in arguments])
            case Cast(of, kind, lenient):
                return f"{'TRY_CAST' if lenient else 'CAST'}({self.expression(of)} AS {self.types[kind]})"
            case Case(branches, otherwise):
                whens = " ".join(f"WHEN {self.expression(c)} THEN {self.expression(v)}" for c, v in branches)
                return f"CASE {whens} ELSE {self.expression(otherwise)} END"
            case OneOf(of, values):
                return f"({self.expression(of)} IN ({', '.join(map(self.expression, values))}))"
            case MakeList(items, item_type):
                made = self.make_list([self.expression(i) for i in items])
                return made if items or item_type is None else f"CAST({made} AS {self.list_type(self.type(item_type))})"
            case MakeStruct(fields):
                return self.make_struct([(name, self.expression(e)) for name, e in fields])
            case Transform(of, variable, body) | Filter(of, variable, body):
                each = self.expression(body)
                return self.over_items(type(expression), self.expression(of), self.name(variable), each)
            case Aggregate():
                return self._aggregate(expression)
            case Window():
                return self._window(expression)
            case RowId():
                return self.row_id
            case Exists(relation, alias, condition):
                return f"EXISTS (SELECT 1 FROM {self._from(relation, alias)} WHERE {self.expression(condition)})"

    def function(self, function: Function, arguments: list[str]) -> str:
        """A function's call."""
        if function in _INFIX:
            return f"({_INFIX[function].join(arguments)})"
        if function is Function.COALESCE:
            return f"coalesce({', '.join(arguments)})"
        return (self.functions.get(function) or _ALIKE[function]).format(*arguments)

    def literal(self, value: bool | int | float | str | date | datetime) -> str:
        """A value from outside as a literal. Raises InvalidQuery for numbers no column can hold."""
        if isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        if isinstance(value, int):
            if not -_WHOLE < value < _WHOLE:
                raise InvalidQuery("a whole number is too large")
            return f"CAST({value} AS {self.types[Scalar.INTEGER]})"
        if isinstance(value, float):
            if not math.isfinite(value):
                raise InvalidQuery("a number is not finite")
            return f"CAST({value!r} AS DOUBLE)"
        if isinstance(value, datetime):
            return f"CAST('{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00:00' AS {self.types[Scalar.MOMENT]})"
        if isinstance(value, date):
            return f"DATE '{value.isoformat()}'"
        return self.text(value)

    def _aggregate(self, aggregate: Aggregate) -> str:
        if aggregate.function is AggregateFunction.LIST:
            return self.list_aggregate(aggregate)
        of = "" if aggregate.of is None else self.expression(aggregate.of)
        return _AGGREGATES[aggregate.function].format(of) + self.filtered(aggregate.condition)

    def listed(self, aggregate: Aggregate) -> tuple[str, str]:
        """The value of a LIST and its FILTER: NULLs are left out."""
        if aggregate.of is None:
            raise InvalidQuery("a list needs the values it is of")
        present = Call(Function.NOT, (Call(Function.IS_NULL, (aggregate.of,)),))
        condition = present if aggregate.condition is None else every(aggregate.condition, present)
        return self.expression(aggregate.of), self.filtered(condition)

    def filtered(self, condition: Expression | None) -> str:
        """FILTER (…), or nothing."""
        return "" if condition is None else f" FILTER (WHERE {self.expression(condition)})"

    def _window(self, window: Window) -> str:
        if window.function in (AggregateFunction.LIST, AggregateFunction.COUNT_DISTINCT):
            raise InvalidQuery("lists and distinct counts are not possible in windows")
        of = "" if window.of is None else self.expression(window.of)
        partition = ", ".join(map(self.expression, window.partition))
        over = [f"PARTITION BY {partition}"] if partition else []
        over += [f"ORDER BY {self.order(window.order)}"] if window.order else []
        return f"{_WINDOWS[window.function].format(of)} OVER ({' '.join(over)})"


def checked_text(value: str) -> str:
    """The text, if it is one that SQL can hold. Raises InvalidQuery for NUL and lone surrogates."""
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidQuery("a text holds a character that SQL cannot")
    return value
