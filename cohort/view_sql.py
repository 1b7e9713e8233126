"""SQL-on-FHIR ViewDefinition → relation: typed reading of NDJSON, one unnest in the projection for each forEach. Pure.

What FHIR's types do not settle, and what would not give the same rows in every dialect, is refused; `cohort.view` is
the evaluator that can say it all, and the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import InvalidQuery
from cohort.expression import (
    Case,
    Column,
    Expression,
    Function,
    ListOf,
    Literal,
    MakeList,
    Null,
    Scalar,
    Struct,
    Type,
    call,
    every,
    some,
)  # fmt: skip
from cohort.path_sql import PathCompiler, Types
from cohort.path_value import NOTHING, TRUE, Shape, Value, holds, items, kind_of, size
from cohort.relation import Ndjson, Project, Relation, Table, Unnest, Where
from cohort.view import View
from cohort.view_repeat import Repeated

F = Function
Step = Callable[[Relation], Relation]
SEVERAL = "_several"
LARGEST = 4_000
"""Fields read times unnests of a view with repeats: DuckDB holds some thousand values of each at every step."""


@dataclass(frozen=True)
class SqlColumn:
    """A column of a compiled view: name, type, what gives its value; when it has several values and may not."""

    name: str
    type: Type
    value: Expression
    several: Expression | None = None


@dataclass(frozen=True)
class SqlView:
    """A compiled view."""

    name: str
    resource: str
    columns: tuple[SqlColumn, ...]
    _row: Shape
    _steps: tuple[Step, ...]

    @property
    def row(self) -> Struct:
        """What is read of a resource."""
        return self._row.struct()

    def relation(self, path: str) -> Relation:
        """The view's rows over an NDJSON file of its resource type. It fails where a column has several values."""
        return Project(self._stepped(Ndjson(path, self.row)), tuple((c.name, self._or_fail(c)) for c in self.columns))

    def over(self, table: str, carried: Sequence[str]) -> Relation:
        """The view's rows over a table that has the fields of `row` as columns, with the table's columns `carried`.
        `SEVERAL` tells of each row whether a column has several values and may not: then its value is the first."""
        several = some(*(c.several for c in self.columns if c.several is not None), Literal(False))
        columns = (*((c, Column(c)) for c in carried), *((c.name, c.value) for c in self.columns), (SEVERAL, several))
        return Project(self._stepped(Table(table)), columns)

    def _stepped(self, rows: Relation) -> Relation:
        for step in self._steps:
            rows = step(rows)
        return rows

    def _or_fail(self, column: SqlColumn) -> Expression:
        if column.several is None:
            return column.value
        said = f"view {self.name}: column {column.name} has several values and is not a collection"
        return Case(((column.several, call(F.FAIL, Literal(said))),), column.value)


def compile_view(definition: Mapping[str, Any], types: Types) -> SqlView:
    """The view as a relation. Raises InvalidQuery, naming the place, for views that are not valid or that SQL cannot
    say."""
    view = View(definition)
    compiler = _ViewCompiler(view, types)
    try:
        columns = compiler.compile(definition)
    except RecursionError:
        raise InvalidQuery(f"view {view.name}: too deep") from None
    return SqlView(view.name, view.resource, tuple(columns), compiler.shape, tuple(compiler.steps))


@dataclass(frozen=True)
class _Scope:
    """Where a select stands: its focus, %rowIndex, and when its rows count (in which branches of unionAll)."""

    focus: Value
    row_index: Expression
    when: tuple[Expression, ...] = ()


@dataclass
class _ViewCompiler:
    view: View
    types: Types
    shape: Shape = field(default_factory=Shape)
    steps: list[Step] = field(default_factory=list)
    _closings: list[Callable[[], None]] = field(default_factory=list)
    _unnested: int = 0
    _unnests: int = 0

    def compile(self, definition: Mapping[str, Any]) -> list[SqlColumn]:
        resource = Value(TRUE, self.view.resource, shape=self.shape, is_resource=True)
        self.types.elements(self.view.resource)
        self.shape.scalar("resourceType", Scalar.TEXT)
        self.paths = PathCompiler(self.types, resource, self.view.constants)
        scope = _Scope(resource, Literal(0))
        conditions: list[Expression] = [call(F.EQUAL, Column("resourceType"), Literal(self.view.resource))]
        for index, where in enumerate(definition.get("where") or []):
            conditions.append(self._condition(where["path"], scope, f"where[{index}].path"))
        self.steps.append(lambda rows: Where(rows, every(*conditions)))
        columns = self._selects(definition["select"], scope, "select")
        for _ in self._closings:  # what one repeat reads of an item can belong to what another one reads
            for close in reversed(self._closings):
                close()
        if self._closings and self.shape.size() * self._unnests > LARGEST:
            raise InvalidQuery("select: what the repeats read is too much for SQL")
        return columns

    def _path(self, path: Any, scope: _Scope, at: str) -> Value:
        try:
            return self.paths.compile(path, scope.focus, scope.row_index)
        except InvalidQuery as error:
            raise InvalidQuery(f"{at}: {error}") from None

    def _condition(self, path: Any, scope: _Scope, at: str) -> Expression:
        found = self._path(path, scope, at)
        if found.type and found.kind is not Scalar.BOOLEAN:
            raise InvalidQuery(f"{at}: the path is not a boolean")
        return holds(found)

    def _selects(self, selects: Sequence[Any], scope: _Scope, at: str) -> list[SqlColumn]:
        return [c for i, s in enumerate(selects) for c in self._select(s, scope, f"{at}[{i}]")]

    def _select(self, select: Mapping[str, Any], scope: _Scope, at: str) -> list[SqlColumn]:
        inner = self._iterated(select, scope, at)
        columns = [self._column(c, inner, f"{at}.column[{i}]") for i, c in enumerate(select.get("column") or [])]
        columns += self._selects(select.get("select") or [], inner, f"{at}.select")
        if "unionAll" in select:
            columns += self._union(select["unionAll"], inner, f"{at}.unionAll")
        return columns

    def _column(self, column: Mapping[str, Any], scope: _Scope, at: str) -> SqlColumn:
        value = self._path(column["path"], scope, f"{at}.path")
        name = str(column["name"])
        if value.is_resource or value.shape is not None or value.choice:
            what = "a choice of types; add ofType()" if value.choice else f"a {value.type}, not a primitive value"
            raise InvalidQuery(f"{at}.path: path {column['path']!r}: is {what}")
        kind = value.kind or kind_of(str(column.get("type", "")))
        if column.get("collection") is True:
            listed = items(value) if value.type else MakeList((), kind)
            return SqlColumn(name, ListOf(kind), listed)
        if not value.type:
            return SqlColumn(name, kind, Null(kind))
        if not value.many:
            return SqlColumn(name, kind, value.expression)
        several = call(F.GREATER, size(value), Literal(1))
        return SqlColumn(name, kind, call(F.ITEM, value.expression, Literal(1)), several)

    def _iterated(self, select: Mapping[str, Any], scope: _Scope, at: str) -> _Scope:
        if "repeat" in select:
            return self._repeat(select["repeat"], scope, f"{at}.repeat")
        for way in ("forEach", "forEachOrNull"):
            if way in select:
                found = self._path(select[way], scope, f"{at}.{way}")
                if found.is_resource or found.choice:
                    raise InvalidQuery(f"{at}.{way}: path {select[way]!r}: needs an element of one type")
                listed, keep = found.expression if found.many else items(found), way == "forEachOrNull"
                return self._unnest(listed, found.type, found.shape, scope, keep_empty=keep)
        return scope

    def _repeat(self, paths: Sequence[Any], scope: _Scope, at: str) -> _Scope:
        self._unnested += 1
        when = every(*scope.when) if scope.when else None
        made = Repeated(self.paths, scope.focus, paths, at, f"_item{self._unnested}", when)
        self._closings.append(made.close)
        self._unnests += made.levels
        self.steps.append(made.rows)
        return _Scope(made.item, made.row_index, scope.when)

    def _unnest(self, of: Expression, type_: str, shape: Shape | None, scope: _Scope, *, keep_empty: bool) -> _Scope:
        self._unnested += 1
        self._unnests += 1
        item, index = f"_item{self._unnested}", f"_index{self._unnested}"

        def step(rows: Relation) -> Relation:
            listed = _only_when(scope.when, of, keep_empty)
            numbered = index if Column(index) in self.paths.used_indexes else ""
            return Unnest(rows, listed, item, keep_empty and not scope.when, numbered)

        self.steps.append(step)
        return _Scope(Value(Column(item), type_, shape=shape), Column(index), scope.when)

    def _union(self, branches: Sequence[Any], scope: _Scope, at: str) -> list[SqlColumn]:
        """Each row once for each branch, numbered; a branch's unnests leave the rows of the others as they are."""
        numbers = MakeList(tuple(Literal(n) for n in range(len(branches))))
        tagged = self._unnest(numbers, "integer", None, scope, keep_empty=False)
        compiled = []
        for n, branch in enumerate(branches):
            here = call(F.EQUAL, tagged.focus.expression, Literal(n))
            inner = _Scope(scope.focus, scope.row_index, (*scope.when, here))
            compiled.append((here, self._select(branch, inner, f"{at}[{n}]")))
        columns = []
        for position, first in enumerate(compiled[0][1]):
            same = [(here, branch[position]) for here, branch in compiled]
            value = Case(tuple((h, c.value) for h, c in same), NOTHING)
            several = [every(here, c.several) for here, c in same if c.several is not None]
            columns.append(SqlColumn(first.name, _one_type(same, at), value, some(*several) if several else None))
        return columns


def _only_when(when: tuple[Expression, ...], of: Expression, keep_empty: bool) -> Expression:
    """The list where the branch's rows count; elsewhere one NULL, so that the row stays as it is."""
    if not when:
        return of
    some = (*when, call(F.GREATER, call(F.SIZE, of), Literal(0))) if keep_empty else when
    return Case(((every(*some), of),), MakeList((NOTHING,)))


def _one_type(columns: Sequence[tuple[Expression, SqlColumn]], at: str) -> Type:
    types = {c.type for _, c in columns if not isinstance(c.value, Null)}
    if types <= {Scalar.INTEGER, Scalar.DOUBLE} and len(types) == 2:
        return Scalar.DOUBLE
    if len(types) > 1:
        raise InvalidQuery(f"{at}: column {columns[0][1].name} has values of different types")
    return types.pop() if types else columns[0][1].type
