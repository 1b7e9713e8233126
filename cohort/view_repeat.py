"""`repeat` of a view: the items of all levels in one list, depth first. Pure.

SQL's types have no recursion, so a fixed number of levels is read; a resource that goes deeper makes the query fail
rather than lose rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bridge.errors import InvalidQuery
from cohort.expression import (
    Call,
    Case,
    Expression,
    Field,
    Function,
    Literal,
    MakeList,
    MakeStruct,
    Transform,
    Variable,
    call,
)
from cohort.path_sql import PathCompiler, UnknownElement
from cohort.path_value import NOTHING, Shape, Value, exists, items

F = Function
LEVELS = {1: 10, 2: 5}
"""number of paths → levels read."""
LEVELS_OF_MORE = 3


@dataclass
class Repeated:
    """All items: their type, the shape that the view's columns read of each, and after `close` the list of them."""

    paths: PathCompiler
    focus: Value
    steps: Sequence[Any]
    at: str
    type: str
    body: Shape | None
    items: Expression = NOTHING

    def close(self) -> None:
        """Makes the list, now that what is read of an item is settled."""
        self.items = self._all(self.focus, LEVELS.get(len(self.steps), LEVELS_OF_MORE))

    def _all(self, focus: Value, levels: int) -> Expression:
        lists = [self._below(found, levels) for found in self._children(focus)]
        if not lists:
            return MakeList(())
        return lists[0] if len(lists) == 1 else Call(F.LIST_CONCAT, tuple(lists))

    def _children(self, focus: Value) -> list[Value]:
        found = []
        for step in self.steps:
            try:
                found.append(self.paths.compile(step, focus, Literal(0)))
            except UnknownElement:  # an element of the upper level only
                continue
            if found[-1].type != self.type:
                raise InvalidQuery(f"{self.at}: path {step!r}: the paths give items of different types")
        return found

    def _below(self, found: Value, levels: int) -> Expression:
        name = self.paths.variable()
        one = replace(found, expression=Variable(name), many=False)
        if levels == 0:
            deeper = call(F.FAIL, Literal(f"view: {self.at}: a resource goes deeper than SQL reads"))
            return Case(((exists(found), deeper),), MakeList(()))
        own = MakeList((self._narrowed(one),))
        if one.shape is None:
            return items(found)
        below = self._all(one, levels - 1)
        listed = own if below == MakeList(()) else Call(F.LIST_CONCAT, (own, below))
        return Call(F.FLATTEN, (Transform(items(found), name, listed),))

    def _narrowed(self, one: Value) -> Expression:
        if self.body is None or one.shape is None:
            return one.expression
        one.shape.include(self.body)
        return _reduced(one.expression, self.body, self.paths)


def repeated(paths: PathCompiler, focus: Value, steps: Sequence[Any], at: str) -> Repeated:
    """Prepares a repeat; of elements that the focus does not have it has no items. Raises InvalidQuery, naming the
    path, when its items would be of different types."""
    types: set[str] = set()
    for step in steps:
        try:
            types.add(paths.compile(step, focus, Literal(0)).type)
        except UnknownElement:
            continue
    if len(types) > 1:
        raise InvalidQuery(f"{at}: the paths give items of different types")
    type_ = types.pop() if types else ""
    return Repeated(paths, focus, steps, at, type_, Shape() if type_ and type_ not in paths.types.primitives else None)


def _reduced(of: Expression, shape: Shape, paths: PathCompiler) -> Expression:
    """The object with the fields of the shape only, so that the items of all levels have one type."""
    fields: list[tuple[str, Expression]] = [(name, Field(of, name)) for name in shape.scalars]
    for name, (many, inner) in shape.objects.items():
        part = Field(of, name)
        if many:
            variable = paths.variable()
            fields.append((name, Transform(part, variable, _reduced(Variable(variable), inner, paths))))
        else:
            fields.append((name, Case(((call(F.IS_NULL, part), NOTHING),), _reduced(part, inner, paths))))
    return MakeStruct(tuple(fields) if fields else (("id", Field(of, "id")),))
