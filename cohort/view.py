"""SQL-on-FHIR ViewDefinitions → rows. Plain Python over JSON, one resource at a time. Pure.

It judges by the specification (v2.1): constants, where, nested select, forEach, forEachOrNull, repeat, unionAll,
collections, %rowIndex, resource and reference keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bridge.errors import InvalidQuery
from cohort.fhirpath import Context, Expression, Items, Typed, compile_path
from cohort.fhirpath_syntax import parse
from cohort.path_types import Elements, type_of

_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
Row = dict[str, Any]
Part = Callable[[Items, Context], list[Row]]


@dataclass(frozen=True)
class ViewColumn:
    """One column of a view: name, FHIR type ("" unless given), description, whether it holds a list."""

    name: str
    type: str
    description: str
    collection: bool


class View:
    """A compiled ViewDefinition; `elements` is what is known of FHIR's types. Raises InvalidQuery, naming the place,
    when it is not valid."""

    def __init__(self, definition: Mapping[str, Any], elements: Elements | None = None) -> None:
        resource = definition.get("resource")
        if not isinstance(resource, str) or not resource:
            raise InvalidQuery("resource: a view needs the resource type it is over")
        self.resource, self._elements = resource, elements
        self.name = str(definition.get("name", resource))
        self.constants = _constants(definition.get("constant", []))
        self._where = [
            self._path(_text(w, "path", f"where[{i}]"), resource) for i, w in enumerate(definition.get("where", []))
        ]
        selects = _list(definition.get("select"), "select")
        if not selects:
            raise InvalidQuery("select: a view needs at least one")
        parts, self.columns = self._selects(selects, "select", resource)
        self._rows = _product(parts)
        names = [c.name for c in self.columns]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise InvalidQuery(f"select: columns named twice: {', '.join(twice)}")

    def rows(self, resource: Mapping[str, Any]) -> list[Row]:
        """The rows of one resource; [] for one of another type or that `where` leaves out.

        Raises  InvalidQuery when a column has several values and is not a collection
        """
        if resource.get("resourceType") != self.resource:
            return []
        context = Context(resource, self.constants)
        for condition in self._where:
            found = [i.value if isinstance(i, Typed) else i for i in condition([resource], context)]
            if any(not isinstance(v, bool) for v in found):
                raise InvalidQuery(f"view {self.name}: where: the path is not a boolean")
            if found != [True]:
                return []
        return self._rows([resource], context)

    def _path(self, path: Any, focus: str) -> Expression:
        return compile_path(path, self.constants, focus, self._elements)

    def _selects(self, selects: Sequence[Any], at: str, focus: str) -> tuple[list[Part], tuple[ViewColumn, ...]]:
        compiled = [self._select(s, f"{at}[{i}]", focus) for i, s in enumerate(selects)]
        return [part for part, _ in compiled], tuple(c for _, columns in compiled for c in columns)

    def _select(self, select: Any, at: str, outer: str) -> tuple[Part, tuple[ViewColumn, ...]]:
        if not isinstance(select, dict):
            raise InvalidQuery(f"{at}: must be an object")
        iteration, focus = self._iterated(select, at, outer)
        parts: list[Part] = []
        columns: tuple[ViewColumn, ...] = ()
        for index, column in enumerate(_list(select.get("column", []), f"{at}.column")):
            part, described = self._column(column, f"{at}.column[{index}]", focus)
            parts.append(part)
            columns += (described,)
        nested, nested_columns = self._selects(_list(select.get("select", []), f"{at}.select"), f"{at}.select", focus)
        parts += nested
        columns += nested_columns
        if "unionAll" in select:
            union, union_columns = self._union(_list(select["unionAll"], f"{at}.unionAll"), f"{at}.unionAll", focus)
            parts.append(union)
            columns += union_columns
        return iteration(_product(parts)), columns

    def _column(self, column: Any, at: str, focus: str) -> tuple[Part, ViewColumn]:
        name = _text(column, "name", at)
        if not _NAME.match(name):
            raise InvalidQuery(f"{at}.name: {name!r} is not a column name (letters, digits, _)")
        expression = self._path(_text(column, "path", at), focus)
        collection = column.get("collection", False) is True
        described = ViewColumn(name, str(column.get("type", "")), str(column.get("description", "")), collection)

        def part(items: Items, context: Context) -> list[Row]:
            values = [i.value if isinstance(i, Typed) else i for i in expression(items, context)]
            if collection:
                return [{name: values}]
            if len(values) > 1:
                raise InvalidQuery(f"view {self.name}: column {name} has {len(values)} values and is not a collection")
            return [{name: values[0] if values else None}]

        return part, described

    def _union(self, branches: Sequence[Any], at: str, focus: str) -> tuple[Part, tuple[ViewColumn, ...]]:
        compiled = [self._select(b, f"{at}[{i}]", focus) for i, b in enumerate(branches)]
        if not compiled:
            raise InvalidQuery(f"{at}: needs at least one select")
        shapes = [[(c.name, c.type) for c in columns] for _, columns in compiled]
        if any(shape != shapes[0] for shape in shapes):
            raise InvalidQuery(f"{at}: all branches need the same columns in the same order")

        def union(items: Items, context: Context) -> list[Row]:
            return [row for part, _ in compiled for row in part(items, context)]

        return union, compiled[0][1]

    def _iterated(self, select: Mapping[str, Any], at: str, focus: str) -> tuple[Callable[[Part], Part], str]:
        """What makes a part run for each item, and the items' type ("" if it is open)."""
        ways = [way for way in ("forEach", "forEachOrNull", "repeat") if way in select]
        if len(ways) > 1:
            raise InvalidQuery(f"{at}: only one of forEach, forEachOrNull and repeat")
        if not ways:
            return lambda body: body, focus
        way = ways[0]
        paths = _list(select[way], f"{at}.repeat") if way == "repeat" else [select[way]]
        types = {type_of(parse(path), focus, self._elements) for path in paths}
        type_ = types.pop() if len(types) == 1 else ""
        expressions = [self._path(path, type_ if way == "repeat" else focus) for path in paths]
        if way == "repeat":
            return partial(
                _each, lambda items, context: list(_repeated(expressions, items, context)), keep_empty=False
            ), type_
        return partial(_each, expressions[0], keep_empty=way == "forEachOrNull"), type_


def _each(expression: Expression, body: Part, *, keep_empty: bool) -> Part:
    def rows(items: Items, context: Context) -> list[Row]:
        found = [f for item in items for f in expression([item], context)]
        if not found and keep_empty:
            return body([], Context(context.resource, context.constants, 0))
        return [
            row
            for index, one in enumerate(found)
            for row in body([one], Context(context.resource, context.constants, index))
        ]

    return rows


def _repeated(expressions: Sequence[Expression], items: Items, context: Context) -> Iterator[Any]:
    """Depth first, through every path; the starting items are not among the results. Keeps a stack."""
    stack = [c for item in reversed(items) for e in reversed(expressions) for c in reversed(e([item], context))]
    while stack:
        one = stack.pop()
        yield one
        stack += [c for e in reversed(expressions) for c in reversed(e([one], context))]


def _product(parts: Sequence[Part]) -> Part:
    def rows(items: Items, context: Context) -> list[Row]:
        found: list[Row] = [{}]
        for part in parts:
            more = part(items, context)
            if len(more) == 1:
                for row in found:
                    row |= more[0]
            else:
                found = [row | other for row in found for other in more]
        return found

    return rows


def _constants(constants: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index, constant in enumerate(_list(constants, "constant")):
        name = _text(constant, "name", f"constant[{index}]")
        values = [v for key, v in constant.items() if key.startswith("value") and len(key) > len("value")]
        if len(values) != 1:
            raise InvalidQuery(f"constant[{index}]: {name} needs exactly one value[x]")
        found[name] = values[0]
    return found


def _list(value: Any, at: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidQuery(f"{at}: must be a list")
    return value


def _text(value: Any, key: str, at: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        raise InvalidQuery(f"{at}.{key}: missing")
    return found
