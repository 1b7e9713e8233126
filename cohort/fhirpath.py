"""The FHIRPath subset of SQL-on-FHIR ViewDefinitions (shareable profile and the experimental functions), compiled to
plain functions over JSON. Pure: no I/O, no clock."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from bridge.errors import InvalidQuery

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


def compile_path(path: str, constants: Mapping[str, Any]) -> Expression:
    """The function of a FHIRPath expression. Raises InvalidQuery naming the path and what is wrong with it."""
    if not isinstance(path, str) or not path.strip():
        raise InvalidQuery(f"path {path!r}: a FHIRPath expression is needed")
    parser = _Parser(path, constants)
    expression = parser.expression(0)
    parser.expect_end()
    return expression


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<string>'(?:[^'\\]|\\.)*')|(?P<date>@[\dT:.Z+-]+)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)|(?P<variable>[%$][A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<operator><=|>=|!=|[-+*/=<>().,\[\]|&])|(?P<end>$))"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_BINDING = {"or": 1, "and": 2, "=": 3, "!=": 3, "<": 4, ">": 4, "<=": 4, ">=": 4, "+": 6, "-": 6, "*": 7, "/": 7}


class _Parser:
    def __init__(self, path: str, constants: Mapping[str, Any]) -> None:
        self._path, self._constants, self._at = path, constants, 0
        self._tokens = self._split(path)

    def _split(self, path: str) -> list[tuple[str, str]]:
        tokens, position = [], 0
        while position < len(path):
            match = _TOKEN.match(path, position)
            if match is None or (match.end() == position and match.lastgroup != "end"):
                raise self._error(f"unexpected {path[position : position + 10]!r}")
            kind = str(match.lastgroup)
            if kind != "end":
                tokens.append((kind, match.group(kind)))
            position = max(match.end(), position + 1)
        return [*tokens, ("end", "")]

    def _error(self, problem: str) -> InvalidQuery:
        return InvalidQuery(f"path {self._path!r}: {problem}")

    def _next(self) -> tuple[str, str]:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._tokens[self._at][0] in ("operator", "name") else ""

    def _expect(self, text: str) -> None:
        if self._next()[1] != text:
            raise self._error(f"{text!r} expected")

    def expect_end(self) -> None:
        if self._tokens[self._at][0] != "end":
            raise self._error(f"unexpected {self._tokens[self._at][1]!r}")

    def expression(self, binding: int) -> Expression:
        left = self._unary()
        while (symbol := self._peek()) in _BINDING and _BINDING[symbol] > binding:
            self._next()
            left = partial(_BINARY[symbol], left, self.expression(_BINDING[symbol]))
        return left

    def _unary(self) -> Expression:
        if self._peek() == "-":
            self._next()
            return partial(_negative, self._unary())
        found = self._term()
        while True:
            if self._peek() == ".":
                self._next()
                found = partial(_then, found, self._step())
            elif self._peek() == "[":
                self._next()
                index = self.expression(0)
                self._expect("]")
                found = partial(_at_index, found, index)
            else:
                return found

    def _term(self) -> Expression:
        kind, text = self._tokens[self._at]
        if kind == "name":
            if text in ("true", "false"):
                self._next()
                return partial(_literal, text == "true")
            return self._step()
        self._next()
        if text == "(":
            inner = self.expression(0)
            self._expect(")")
            return inner
        if kind == "number":
            return partial(_literal, float(text) if "." in text else int(text))
        if kind == "string":
            return partial(_literal, re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text[1:-1]))
        if kind == "date" and len(text) > 4:
            return partial(_literal, text[1:].removeprefix("T"))
        if kind == "variable":
            return self._variable(text)
        raise self._error(f"unexpected {text!r}" if text else "unexpected end")

    def _variable(self, text: str) -> Expression:
        if text == "$this":
            return lambda items, _context: items
        if text == "%rowIndex":
            return lambda _items, context: [context.row_index]
        if text in ("%resource", "%context", "%rootResource"):
            return lambda _items, context: [context.resource]
        if text[1:] not in self._constants:
            raise self._error(f"{text} is not defined by a constant")
        return partial(_literal, self._constants[text[1:]])

    def _step(self) -> Expression:
        kind, name = self._next()
        if kind == "variable" and name == "$this":
            return lambda items, _context: items
        if kind != "name":
            raise self._error(f"a name is expected, not {name!r}")
        name = name.strip("`")
        if self._peek() != "(":
            return partial(_member, name)
        self._next()
        if name in ("ofType", "getReferenceKey"):
            return self._with_type(name)
        arguments: list[Expression] = []
        while self._peek() != ")":
            arguments.append(self.expression(0))
            if self._peek() == ",":
                self._next()
        self._expect(")")
        function = _FUNCTIONS.get(name)
        if function is None:
            raise self._error(f"{name}() is not supported; supported: {', '.join(sorted(_FUNCTIONS))}")
        low, high, implementation = function
        if not low <= len(arguments) <= high:
            raise self._error(f"{name}() takes {low} to {high} arguments, not {len(arguments)}")
        return partial(implementation, *arguments, *[None] * (high - len(arguments)))

    def _with_type(self, name: str) -> Expression:
        wanted = ""
        if self._peek() != ")":
            kind, wanted = self._next()
            if kind != "name":
                raise self._error(f"{name}() takes the name of a type")
            while self._peek() == ".":
                self._next()
                wanted = self._next()[1]
        self._expect(")")
        if name == "ofType":
            return partial(_of_type, wanted)
        return partial(_reference_key, wanted)


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
        if len(key) > size and key.startswith(name) and key[size].isupper():
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


_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]{1,64})?$")


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
    return (
        [float(compute(Decimal(str(a)), Decimal(str(b))))]
        if isinstance(a, float) or isinstance(b, float)
        else [compute(a, b)]
    )


def _negative(of: Expression, items: Items, context: Context) -> Items:
    return [-v for v in _plain(of(items, context)) if isinstance(v, int | float)]


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


def _boundary(low: bool, items: Items, _context: Context) -> Items:
    if len(items) != 1:
        return []
    kind, value = (items[0].type, items[0].value) if isinstance(items[0], Typed) else ("", items[0])
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
    match = re.match(r"^(\d{4})(-\d\d)?(-\d\d)?(?:T([\d:.]+)(Z|[+-]\d\d:\d\d)?)?$", value)
    if match is None:
        return []
    year, month, day, clock, zone = match.groups()
    month = month or ("-01" if low else "-12")
    day = day or ("-01" if low else f"-{_days(int(year), int(month[1:]))}")
    if clock is None and kind not in ("DateTime", "Instant"):
        return [f"{year}{month}{day}"]
    return [f"{year}{month}{day}T{_time_boundary(clock or '', low)}{zone or ('+14:00' if low else '-12:00')}"]


def _days(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


_FUNCTIONS: dict[str, tuple[int, int, Any]] = {
    "where": (1, 1, _where),
    "exists": (0, 1, _exists),
    "empty": (0, 0, lambda items, _context: [not items]),
    "first": (0, 0, lambda items, _context: items[:1]),
    "last": (0, 0, lambda items, _context: items[-1:]),
    "count": (0, 0, lambda items, _context: [len(items)]),
    "not": (0, 0, _not),
    "extension": (1, 1, _extension),
    "join": (0, 1, _join),
    "lowBoundary": (0, 0, partial(_boundary, True)),
    "highBoundary": (0, 0, partial(_boundary, False)),
    "getResourceKey": (0, 0, _resource_key),
}
