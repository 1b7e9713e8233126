"""FHIRPath text → syntax tree: the subset of SQL-on-FHIR ViewDefinitions (shareable profile and the experimental
functions). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bridge.errors import InvalidQuery

LONGEST, DEEPEST = 400, 50
"""Tokens of a path; parentheses and brackets inside one another."""

ARGUMENTS = {
    "where": (1, 1), "exists": (0, 1), "empty": (0, 0), "first": (0, 0), "last": (0, 0), "count": (0, 0),
    "not": (0, 0), "extension": (1, 1), "join": (0, 1), "lowBoundary": (0, 0), "highBoundary": (0, 0),
    "getResourceKey": (0, 0),
}  # fmt: skip
"""function → how many arguments it takes, at least and at most; ofType and getReferenceKey take a type."""


@dataclass(frozen=True)
class Literal:
    """A value written in the path. Dates and times are their text."""

    value: str | int | float | bool


@dataclass(frozen=True)
class This:
    """`$this`: the focus."""


@dataclass(frozen=True)
class Resource:
    """`%resource`, `%context`, `%rootResource`: the resource the row is of."""


@dataclass(frozen=True)
class RowIndex:
    """`%rowIndex`."""


@dataclass(frozen=True)
class Constant:
    """`%name` of a constant."""

    name: str


@dataclass(frozen=True)
class Member:
    """An element of the focus."""

    name: str


@dataclass(frozen=True)
class Call:
    """A function on the focus, one of ARGUMENTS."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class OfType:
    """`ofType(type)`."""

    type: str


@dataclass(frozen=True)
class ReferenceKey:
    """`getReferenceKey(type)`; "" is any type."""

    type: str


@dataclass(frozen=True)
class Then:
    """`left.step`: the step has the left side's result as focus."""

    left: Node
    step: Node


@dataclass(frozen=True)
class Index:
    """`of[index]`."""

    of: Node
    index: Node


@dataclass(frozen=True)
class Binary:
    """`left symbol right`."""

    symbol: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Negative:
    """`-of`."""

    of: Node


Node = (
    Literal | This | Resource | RowIndex | Constant | Member | Call | OfType | ReferenceKey | Then | Index | Binary
    | Negative
)  # fmt: skip


def parse(path: object) -> Node:
    """The tree of a FHIRPath expression. Raises InvalidQuery naming the path and what is wrong with it."""
    if not isinstance(path, str) or not path.strip():
        raise InvalidQuery(f"path {path!r}: a FHIRPath expression is needed")
    parser = _Parser(path)
    expression = parser.expression(0)
    parser.expect_end()
    return expression


_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<string>'(?:[^'\\]|\\.)*')|(?P<date>@[\dT:.Z+-]+)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*|`[^`]+`)|(?P<variable>[%$][A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<operator><=|>=|!=|[-+*/=<>().,\[\]|&])|(?P<end>$))"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_BINDING = {"or": 1, "and": 2, "=": 3, "!=": 3, "<": 4, ">": 4, "<=": 4, ">=": 4, "+": 6, "-": 6, "*": 7, "/": 7}


class _Parser:
    def __init__(self, path: str) -> None:
        self._path, self._at, self._depth = path, 0, 0
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
            if len(tokens) > LONGEST:
                raise InvalidQuery(f"path {path[:40]!r}…: longer than {LONGEST} tokens")
            position = max(match.end(), position + 1)
        return [*tokens, ("end", "")]

    def _error(self, problem: str) -> InvalidQuery:
        return InvalidQuery(f"path {self._path!r}: {problem}")

    def _next(self) -> tuple[str, str]:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._tokens[self._at][0] in ("operator", "name") else ""

    def _expect(self, text: str) -> None:
        if self._next()[1] != text:
            raise self._error(f"{text!r} expected")

    def expect_end(self) -> None:
        if self._tokens[self._at][0] != "end":
            raise self._error(f"unexpected {self._tokens[self._at][1]!r}")

    def expression(self, binding: int) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._error(f"more than {DEEPEST} levels deep")
        left = self._unary()
        while (symbol := self._peek()) in _BINDING and _BINDING[symbol] > binding:
            self._next()
            left = Binary(symbol, left, self.expression(_BINDING[symbol]))
        self._depth -= 1
        return left

    def _unary(self) -> Node:
        signs = 0
        while self._peek() == "-":
            self._next()
            signs += 1
        found = self._term()
        while True:
            if self._peek() == ".":
                self._next()
                found = Then(found, self._step())
            elif self._peek() == "[":
                self._next()
                index = self.expression(0)
                self._expect("]")
                found = Index(found, index)
            else:
                return Negative(found) if signs % 2 else found

    def _term(self) -> Node:
        kind, text = self._tokens[self._at]
        if kind == "name":
            if text in ("true", "false"):
                self._next()
                return Literal(text == "true")
            return self._step()
        self._next()
        if text == "(":
            inner = self.expression(0)
            self._expect(")")
            return inner
        if kind == "number":
            return Literal(float(text) if "." in text else int(text))
        if kind == "string":
            return Literal(_ESCAPE.sub(_unescaped, text[1:-1]))
        if kind == "date" and len(text) > 4:
            return Literal(text[1:].removeprefix("T"))
        if kind == "variable":
            return _variable(text)
        raise self._error(f"unexpected {text!r}" if text else "unexpected end")

    def _step(self) -> Node:
        kind, name = self._next()
        if kind == "variable" and name == "$this":
            return This()
        if kind != "name":
            raise self._error(f"a name is expected, not {name!r}")
        name = name.strip("`")
        if self._peek() != "(":
            return Member(name)
        self._next()
        if name in ("ofType", "getReferenceKey"):
            return self._with_type(name)
        arguments: list[Node] = []
        while self._peek() != ")":
            arguments.append(self.expression(0))
            if self._peek() == ",":
                self._next()
            elif self._peek() != ")":
                raise self._error("')' expected")
        self._next()
        if name not in ARGUMENTS:
            raise self._error(f"{name}() is not supported; supported: {', '.join(sorted(ARGUMENTS))}")
        low, high = ARGUMENTS[name]
        if not low <= len(arguments) <= high:
            raise self._error(f"{name}() takes {low} to {high} arguments, not {len(arguments)}")
        return Call(name, tuple(arguments))

    def _with_type(self, name: str) -> Node:
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
            return OfType(wanted)
        return ReferenceKey(wanted)


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _ESCAPES.get(match[2], match[2])


def _variable(text: str) -> Node:
    if text == "$this":
        return This()
    if text == "%rowIndex":
        return RowIndex()
    if text in ("%resource", "%context", "%rootResource"):
        return Resource()
    return Constant(text[1:])
