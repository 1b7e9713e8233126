"""`repeat` of a view: level by level, each an unnest of "stop here" and the items below. Pure.

SQL's types have no recursion, so a fixed number of levels is read; a resource that goes deeper makes the query fail
rather than lose rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import InvalidQuery
from cohort.expression import (
    Call,
    Case,
    Column,
    Expression,
    Field,
    Function,
    Literal,
    MakeList,
    MakeStruct,
    Null,
    Order,
    RowId,
    Scalar,
    Transform,
    Variable,
    Window,
    WindowFunction,
    call,
    some,
)  # fmt: skip
from cohort.path_sql import PathCompiler, UnknownElement
from cohort.path_value import NOTHING, Shape, Value, exists, items
from cohort.relation import Extend, Relation, Unnest

F = Function
LEVELS = {1: 8, 2: 4}
"""number of paths → levels read; what is read grows with paths ** levels."""
LEVELS_OF_MORE = 2
DEEPEST_COLUMN = 4
"""Lists inside one another that a column may reach below an item."""


@dataclass
class Repeated:
    """One repeat. `item` is what the columns inside see; `shape` collects what they read of it."""

    paths: PathCompiler
    focus: Value
    steps: Sequence[Any]
    at: str
    name: str
    when: Expression | None
    type: str = ""
    shape: Shape | None = None
    _levels: list[list[Shape]] = field(default_factory=list)
    _lists: list[Expression] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Compiles the paths on every level."""
        depth = LEVELS.get(len(self.steps), LEVELS_OF_MORE)
        first = self._below(self.focus)
        if not first:
            self._lists = [MakeList(())]
            return
        listed = _joined(first)
        self._lists.append(listed if self.when is None else Case(((self.when, listed),), MakeList((NOTHING,))))
        self.shape = Shape() if self._levels else None
        while self._levels and len(self._levels) == len(self._lists):
            below = self._below(self._level(len(self._lists)))
            if not below:
                break
            if len(self._lists) == depth:
                self._levels.pop()  # of what is too deep only its being there counts
                deeper = call(F.FAIL, Literal(f"view: {self.at}: a resource goes deeper than SQL reads"))
                self._lists.append(Case(((some(*map(exists, below)), deeper),), MakeList((NOTHING,))))
                break
            self._lists.append(Call(F.LIST_CONCAT, (MakeList((NOTHING,)), _joined(below))))

    @property
    def item(self) -> Value:
        """What the view's columns see."""
        return Value(Column(self.name), self.type, shape=self.shape)

    @property
    def row_index(self) -> Column:
        """The item's place, depth first."""
        return Column(f"{self.name}_index")

    @property
    def levels(self) -> int:
        """How many unnests it takes."""
        return len(self._lists)

    def close(self) -> None:
        """Reads what the columns need, on every level. Raises InvalidQuery when that is too deep for SQL."""
        if self.shape is None:
            return
        if self.shape.depth() > DEEPEST_COLUMN:
            raise InvalidQuery(f"{self.at}: what is read of each item is too deep for SQL")
        for shapes in reversed(self._levels):  # the lists of several paths become one: their items need one type
            for shape in shapes:
                shapes[0].include(shape)
            shapes[0].include(self.shape)
            for shape in shapes:
                shape.include(shapes[0])

    def rows(self, source: Relation) -> Relation:
        """The source's rows, each once for every item of every level."""
        numbered = self.row_index in self.paths.used_indexes
        rows: Relation = Extend(source, ((f"{self.name}_row", RowId()),)) if numbered else source
        for n, listed in enumerate(self._lists, 1):
            rows = Unnest(rows, listed, self._column(n), index=f"{self._column(n)}_place" if numbered else "")
            if n == 1:
                rows = Extend(rows, ((self.name, self._item(1)),))
            elif n <= len(self._levels):  # what stops above keeps its item
                item = Case(((exists(self._level(n)), self._item(n)),), Column(self.name))
                rows = Extend(rows, ((self.name, item),), (self.name, self._column(n - 1)))
        if not numbered:
            return rows
        order = tuple(Order(Column(f"{self._column(n)}_place")) for n in range(1, len(self._lists) + 1))
        place = Window(WindowFunction.ROW_NUMBER, None, (Column(f"{self.name}_row"),), order)
        return Extend(rows, ((self.row_index.name, call(F.SUBTRACT, place, Literal(1))),))

    def _column(self, level: int) -> str:
        return f"{self.name}_{level}"

    def _level(self, level: int) -> Value:
        return Value(Column(self._column(level)), self.type, shape=self._levels[level - 1][0])

    def _below(self, focus: Value) -> list[Value]:
        """The items one level below, as each path gives them."""
        found: list[Value] = []
        for step in self.steps:
            try:
                found.append(self.paths.compile(step, focus, Literal(0)))
            except UnknownElement:  # an element of the upper level only
                continue
        types = {value.type for value in found} | ({self.type} if self.type else set())
        if len(types) > 1:
            raise InvalidQuery(f"{self.at}: the paths give items of different types")
        if not found:
            return []
        (self.type,) = types
        if found[0].shape is not None and focus.shape is not None:
            self._levels.append([value.shape for value in found if value.shape is not None])
        return found

    def _item(self, level: int) -> Expression:
        """The item with the fields that are needed, so that all levels have one type."""
        item = self._level(level) if self._levels else Value(Column(self._column(level)), self.type)
        if self.shape is None:
            return item.expression
        return Case(((exists(item), _reduced(item.expression, self.shape, self.paths)),), NOTHING)


def _joined(found: Sequence[Value]) -> Expression:
    lists = tuple(items(value) for value in found)
    return lists[0] if len(lists) == 1 else Call(F.LIST_CONCAT, lists)


def _reduced(of: Expression, shape: Shape, paths: PathCompiler) -> Expression:
    fields: list[tuple[str, Expression]] = [(name, Field(of, name)) for name in shape.scalars]
    for name, (many, inner) in shape.objects.items():
        part = Field(of, name)
        if many:
            variable = paths.variable()
            fields.append((name, Transform(part, variable, _reduced(Variable(variable), inner, paths))))
        else:
            fields.append((name, Case(((call(F.IS_NULL, part), NOTHING),), _reduced(part, inner, paths))))
    return MakeStruct(tuple(fields) or (("id", Null(Scalar.TEXT)),))
