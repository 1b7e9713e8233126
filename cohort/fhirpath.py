"""The FHIRPath subset of SQL-on-FHIR ViewDefinitions, compiled to plain functions over JSON. Pure: no I/O,
no clock."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from bridge.errors import InvalidQuery
from cohort import fhirpath_syntax as syntax
from cohort.fhirpath_syntax import parse
from cohort.path_types import CHOICE_TYPES, Elements, type_of

Items = list[Any]


@dataclass
class Context:
    """What an expression sees besides its focus: the resource, `%name` values, `%rowIndex`."""

    resource: Mapping[str, Any]
    constants: Mapping[str, Any] = field(default_factory=dict)
    row_index: int = 0


Expression = Callable[[Items, Context], Items]


@dataclass(frozen=True)
class Typed:
    """A value of a choice element (`value[x]`) with its FHIR type."""

    type: str
    value: Any


def compile_path(
    path: object, constants: Mapping[str, Any], focus: str = "", elements: Elements | None = None
) -> Expression:
    """The function of a FHIRPath expression. `focus` is the type of what it will be given, and `elements` what is known
    of FHIR: with them the boundaries of dates and dateTimes are told apart. Raises InvalidQuery naming the path and
    what is wrong with it."""
    return _compiled(parse(path), str(path), constants, focus, elements)


def _compiled(
    node: syntax.Node, path: str, constants: Mapping[str, Any], focus: str, elements: Elements | None
) -> Expression:
    def inner(part: syntax.Node, of: str = focus) -> Expression:
        return _compiled(part, path, constants, of, elements)

    match node:
        case syntax.Literal(value):
            return partial(_literal, value)
        case syntax.This():
            return lambda items, _context: items
        case syntax.Resource():
            return lambda _items, context: [context.resource]
        case syntax.RowIndex():
            return lambda _items, context: [context.row_index]
        case syntax.Constant(name):
            if name not in constants:
                raise InvalidQuery(f"path {path!r}: %{name} is not defined by a constant")
            return partial(_literal, constants[name])
        case syntax.Member(name):
            return partial(_member, name)
        case syntax.OfType(type_):
            return partial(_of_type, type_)
        case syntax.ReferenceKey(type_):
            return partial(_reference_key, type_)
        case syntax.Then(left, step):
            return partial(_then, inner(left), inner(step, type_of(left, focus, elements)))
        case syntax.Index(of, index):
            return partial(_at_index, inner(of), inner(index))
        case syntax.Negative(of):
            return partial(_negative, inner(of))
        case syntax.Binary(symbol, left, right):
            return partial(_BINARY[symbol], inner(left), inner(right))
        case syntax.Call("lowBoundary" | "highBoundary" as name, _):
            return partial(_boundary, name == "lowBoundary", focus)
        case syntax.Call(name, arguments):
            missing = syntax.ARGUMENTS[name][1] - len(arguments)
            return partial(_FUNCTIONS[name], *map(inner, arguments), *[None] * missing)


def _plain(items: Items) -> Items:
    return [i.value if isinstance(i, Typed) else i for i in items]


def _literal(value: Any, _items: Items, _context: Context) -> Items:
    return [value]


def _then(left: Expression, right: Expression, items: Items, context: Context) -> Items:
    return right(left(items, context), context)


def _member(name: str, items: Items, _context: Context) -> Items:
    found: Items = []
    for item in items:
        if isinstance(item, Typed):
            item = item.value
        if not isinstance(item, dict):
            continue
        value = item.get(name)
        if value is None:
            found += _choice(name, item)
        elif isinstance(value, list):
            found += [v for v in value if v is not None]
        else:
            found.append(value)
    return found


def _choice(name: str, item: Mapping[str, Any]) -> Items:
    """Elements such as value[x]: `value` stands for valueQuantity, valueString …; a type name for the resource."""
    if item.get("resourceType") == name:
        return [item]
    size = len(name)
    for key, value in item.items():
        if key.startswith(name) and key[size:] in CHOICE_TYPES:
            return [Typed(key[size:], value)]
    return []


def _of_type(wanted: str, items: Items, _context: Context) -> Items:
    return [item for item in items if _is_type(wanted, item)]


_PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "boolean": bool,
    "integer": int,
    "decimal": (int, float),
    "string": str,
}


def _is_type(wanted: str, item: Any) -> bool:
    if isinstance(item, Typed):
        return item.type == wanted[:1].upper() + wanted[1:]
    if isinstance(item, dict):
        return bool(item.get("resourceType", wanted) == wanted)
    known = _PYTHON_TYPES.get(wanted)
    if known is None:
        return isinstance(item, str)
    return isinstance(item, known) and (wanted == "boolean" or not isinstance(item, bool))


def _at_index(base: Expression, index: Expression, items: Items, context: Context) -> Items:
    position = _plain(index(items, context))
    found = base(items, context)
    if len(position) != 1 or not isinstance(position[0], int):
        return []
    return found[position[0] : position[0] + 1] if position[0] >= 0 else []


def _where(criteria: Expression, items: Items, context: Context) -> Items:
    return [item for item in items if _plain(criteria([item], context)) == [True]]


def _exists(criteria: Expression | None, items: Items, context: Context) -> Items:
    return [bool(items if criteria is None else _where(criteria, items, context))]


def _extension(url: Expression, items: Items, context: Context) -> Items:
    wanted = url(items, context)
    return [e for e in _member("extension", items, context) if isinstance(e, dict) and [e.get("url")] == wanted]


def _join(separator: Expression | None, items: Items, context: Context) -> Items:
    between = str(separator(items, context)[0]) if separator else ""
    return [between.join(str(i) for i in _plain(items))]


def _not(items: Items, _context: Context) -> Items:
    truth = _truth(items)
    return [] if truth is None else [not truth]


def _resource_key(_items: Items, context: Context) -> Items:
    id_ = context.resource.get("id")
    return [] if id_ is None else [str(id_)]


_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?\Z")


def _reference_key(wanted: str, items: Items, _context: Context) -> Items:
    """The id in references, relative, absolute or versioned; for other types than wanted: nothing."""
    found: Items = []
    for item in _plain(items):
        reference = item.get("reference", "") if isinstance(item, dict) else ""
        match = _REFERENCE.search(reference) if isinstance(reference, str) else None
        if match and wanted in ("", match.group(1)):
            found.append(match.group(2))
    return found


def _truth(items: Items) -> bool | None:
    """Singleton evaluation: empty is unknown, one value that is no boolean is true."""
    plain = _plain(items)
    if not plain:
        return None
    return plain[0] if isinstance(plain[0], bool) else True


def _and(left: Expression, right: Expression, items: Items, context: Context) -> Items:
    one, two = _truth(left(items, context)), _truth(right(items, context))
    if one is False or two is False:
        return [False]
    return [] if one is None or two is None else [True]


def _or(left: Expression, right: Expression, items: Items, context: Context) -> Items:
    one, two = _truth(left(items, context)), _truth(right(items, context))
    if one or two:
        return [True]
    return [] if one is None or two is None else [False]


def _equal(wanted: bool, left: Expression, right: Expression, items: Items, context: Context) -> Items:
    one, two = _plain(left(items, context)), _plain(right(items, context))
    if not one or not two:
        return []
    same = len(one) == len(two) and all(map(_same, one, two))
    return [same == wanted]


def _same(one: Any, two: Any) -> bool:
    return isinstance(one, bool) == isinstance(two, bool) and bool(one == two)


def _ordered(
    compare: Callable[[Any, Any], bool], left: Expression, right: Expression, items: Items, context: Context
) -> Items:
    one, two = _plain(left(items, context)), _plain(right(items, context))
    if len(one) != 1 or len(two) != 1:
        return []
    numbers = all(isinstance(v[0], int | float) and not isinstance(v[0], bool) for v in (one, two))
    if not numbers and not (isinstance(one[0], str) and isinstance(two[0], str)):
        return []
    return [compare(one[0], two[0])]


_DIGITS = 8
"""Places behind the point of a computed decimal (FHIRPath: the step size of Decimal)."""


def _arithmetic(
    compute: Callable[[Any, Any], Any], left: Expression, right: Expression, items: Items, context: Context
) -> Items:
    one, two = _plain(left(items, context)), _plain(right(items, context))
    if len(one) != 1 or len(two) != 1:
        return []
    a, b = one[0], two[0]
    if isinstance(a, str) and isinstance(b, str) and compute is operator.add:
        return [a + b]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in (a, b)):
        return []
    if compute is operator.truediv and b == 0:
        return []
    if compute is not operator.truediv and isinstance(a, int) and isinstance(b, int):
        return [compute(a, b)]
    return [round(float(compute(Decimal(str(a)), Decimal(str(b)))), _DIGITS)]


def _negative(of: Expression, items: Items, context: Context) -> Items:
    return [-v for v in _plain(of(items, context)) if isinstance(v, int | float) and not isinstance(v, bool)]


_BINARY: dict[str, Any] = {
    "and": _and,
    "or": _or,
    "=": partial(_equal, True),
    "!=": partial(_equal, False),
    "<": partial(_ordered, operator.lt),
    ">": partial(_ordered, operator.gt),
    "<=": partial(_ordered, operator.le),
    ">=": partial(_ordered, operator.ge),
    "+": partial(_arithmetic, operator.add),
    "-": partial(_arithmetic, operator.sub),
    "*": partial(_arithmetic, operator.mul),
    "/": partial(_arithmetic, operator.truediv),
}


def _boundary(low: bool, focus: str, items: Items, _context: Context) -> Items:
    if len(items) != 1:
        return []
    kind, value = (items[0].type, items[0].value) if isinstance(items[0], Typed) else (focus, items[0])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [_decimal_boundary(value, low)]
    if not isinstance(value, str):
        return []
    if re.match(r"^\d\d(:\d\d){0,2}(\.\d+)?$", value) and ":" in value:
        return [_time_boundary(value, low)]
    return _date_boundary(kind, value, low)


def _decimal_boundary(value: float, low: bool) -> float:
    exact = Decimal(str(value))
    half = Decimal(5).scaleb(int(exact.as_tuple().exponent) - 1)
    return float(exact - half if low else exact + half)


def _time_boundary(value: str, low: bool) -> str:
    pattern = "00:00:00.000" if low else "23:59:59.999"
    return value + pattern[len(value) :]


def _date_boundary(kind: str, value: str, low: bool) -> Items:
    match = re.match(r"^(\d{4})(-(?:0[1-9]|1[0-2]))?(-\d\d)?(?:T([\d:.]+)(Z|[+-]\d\d:\d\d)?)?\Z", value)
    if match is None:
        return []
    year, month, day, clock, zone = match.groups()
    month = month or ("-01" if low else "-12")
    day = day or ("-01" if low else f"-{_days(int(year), int(month[1:]))}")
    if clock is None and kind.lower() not in ("datetime", "instant"):
        return [f"{year}{month}{day}"]
    return [f"{year}{month}{day}T{_time_boundary(clock or '', low)}{zone or ('+14:00' if low else '-12:00')}"]


def _days(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


_FUNCTIONS: dict[str, Any] = {
    "where": _where,
    "exists": _exists,
    "empty": lambda items, _context: [not items],
    "first": lambda items, _context: items[:1],
    "last": lambda items, _context: items[-1:],
    "count": lambda items, _context: [len(items)],
    "not": _not,
    "extension": _extension,
    "join": _join,
    "getResourceKey": _resource_key,
}
