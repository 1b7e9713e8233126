"""FHIRPath → expressions of the syntax tree, over the columns and fields that hold a resource's elements. Pure.

Where the types of FHIR do not settle what a path means, it is refused: the evaluator (`cohort.fhirpath`) can say it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from bridge.errors import InvalidQuery
from cohort import fhirpath_syntax as syntax
from cohort.expression import (
    Case,
    Cast,
    Column,
    Expression,
    Field,
    Function,
    Literal,
    Null,
    Scalar,
    Variable,
    call,
    every,
    some,
)
from cohort.path_boundary import boundary
from cohort.path_operators import binary, join, negative
from cohort.path_types import Element, Elements
from cohort.path_value import (
    EMPTY,
    NOTHING,
    TRUE,
    Shape,
    Value,
    each,
    exists,
    holds,
    kept,
    kind_of,
    only,
    present,
    size,
    truth,
)  # fmt: skip

F = Function
_REFERENCE = r"(?:^|/)({})/([A-Za-z0-9\-.]{{1,64}})(?:/_history/[A-Za-z0-9\-.]{{1,64}})?\z"
_ANY_TYPE = "[A-Z][A-Za-z]+"
MOST_LAMBDAS = 800
LONGEST_ID = 64


class UnknownElement(InvalidQuery):
    """A type has no such element."""


@dataclass(frozen=True)
class Types:
    """What has to be known of FHIR: the elements of a type (raises InvalidQuery for others), and what is primitive."""

    elements: Elements
    primitives: frozenset[str]

    def value(self, of: Expression, shape: Shape, name: str, type_: str, many: bool) -> Value:
        """A field of an object, which is read from now on."""
        if type_ not in self.primitives:
            return Value(of, type_, many, shape.object(name, many))
        kind = kind_of(type_)
        shape.scalar(name, kind, many)
        if many:
            return Value(present(of, "i"), type_, True)  # lists of primitives hold null beside extensions
        if kind is Scalar.DOUBLE:
            return Value(Cast(of, Scalar.DOUBLE), type_, raw=(shape, name, of))
        return Value(of, type_)


@dataclass
class PathCompiler:
    """Compiles the paths of one view. `resource` is the resource the rows are of."""

    types: Types
    resource: Value
    constants: Mapping[str, Any]
    used_indexes: set[Expression] = field(default_factory=set)
    _names: Iterator[int] = field(default_factory=count)

    def compile(self, path: object, focus: Value, row_index: Expression) -> Value:
        """The items of the path. Raises InvalidQuery, naming the path."""
        node = syntax.parse(path)
        try:
            return self._value(node, focus, row_index)
        except UnknownElement as error:
            raise UnknownElement(f"path {path!r}: {error}") from None
        except InvalidQuery as error:
            raise InvalidQuery(f"path {path!r}: {error}") from None

    def variable(self) -> str:
        """A name no other lambda has. Raises InvalidQuery when there are more than a statement can bear."""
        number = next(self._names)
        if number >= MOST_LAMBDAS:
            raise InvalidQuery("the view is too large for SQL (nested repeats, or very many paths)")
        return f"v{number}"

    def _value(self, node: syntax.Node, focus: Value, row_index: Expression) -> Value:
        match node:
            case syntax.Literal(value):
                return _literal(value)
            case syntax.Constant(name):
                if name not in self.constants:
                    raise InvalidQuery(f"%{name} is not defined by a constant")
                return _literal(self.constants[name])
            case syntax.This():
                return focus
            case syntax.Resource():
                return self.resource
            case syntax.RowIndex():
                self.used_indexes.add(row_index)
                return Value(row_index, "integer")
            case syntax.Member(name):
                return self.member(focus, name)
            case syntax.OfType(type_):
                return self._of_type(focus, type_)
            case syntax.ReferenceKey(type_):
                return self._reference_key(focus, type_)
            case syntax.Then(left, step):
                return self._value(step, self._value(left, focus, row_index), row_index)
            case syntax.Index(of, index):
                return self._at(self._value(of, focus, row_index), settled(self._value(index, focus, row_index)))
            case syntax.Negative(of):
                return self.over(settled(self._value(of, focus, row_index)), negative)
            case syntax.Binary(symbol, left, right):
                one, two = self._value(left, focus, row_index), self._value(right, focus, row_index)
                prepared = self._any_type if symbol in ("and", "or") else settled
                return binary(symbol, prepared(one), prepared(two))
            case syntax.Call(name, arguments):
                return self._call(name, arguments, focus, row_index)

    def over(self, value: Value, body: Callable[[Value], Value]) -> Value:
        """What `body` gives for each item."""
        if not value.many:
            return body(value)
        name = self.variable()
        return each(value, name, body(replace(value, expression=Variable(name), many=False)))

    def member(self, value: Value, name: str) -> Value:
        """An element of each item."""
        if value.is_resource and name == value.type:
            return value
        if value.choice:
            return self._member_of_choice(value, name)
        if not value.type:
            return EMPTY
        if value.shape is None:
            raise InvalidQuery(f"{name}: elements of the primitive type {value.type} cannot be reached in SQL")
        element = self._element(value.type, name)
        if element.choice:
            return replace(value, choice=name)
        if element.type == "Resource":
            raise InvalidQuery(f"{name}: resources inside a resource cannot be reached in SQL")
        return self.over(value, lambda item: self._field(item, name, element.type, element.many))

    def _element(self, type_: str, name: str) -> Element:
        element = self.types.elements(type_).get(name)
        if element is None:
            raise UnknownElement(f"{type_} has no element {name}")
        return element

    def _field(self, item: Value, name: str, type_: str, many: bool) -> Value:
        if item.shape is None:
            raise InvalidQuery(f"{item.type} has no element {name}")
        of: Expression = Column(name) if item.is_resource else Field(item.expression, name)
        if item.is_resource and item.expression != TRUE:
            of = Case(((item.expression, of),), NOTHING)
        return self.types.value(of, item.shape, name, type_, many)

    def _types_of(self, value: Value) -> tuple[str, ...]:
        return self._element(value.type, value.choice).choice

    def _of_type(self, value: Value, type_: str) -> Value:
        if not value.choice:
            if value.type in ("", type_):
                return value
            raise InvalidQuery(f"ofType({type_}): the element is always a {value.type}")
        if type_ not in self._types_of(value):
            raise InvalidQuery(f"ofType({type_}): {value.type}.{value.choice} is never a {type_}")
        name = value.choice + type_[:1].upper() + type_[1:]
        return self.over(replace(value, choice=""), lambda item: self._field(item, name, type_, False))

    def _member_of_choice(self, value: Value, name: str) -> Value:
        able = [t for t in self._types_of(value) if t not in self.types.primitives and name in self.types.elements(t)]
        if len(able) != 1:
            raise InvalidQuery(f"{name}: {value.type}.{value.choice} has several types; choose one with ofType()")
        return self.member(self._of_type(value, able[0]), name)

    def _any_type(self, value: Value) -> Value:
        """The items that have the choice element, whatever its type."""
        if not value.choice:
            return value
        bare = replace(value, choice="")
        name = self.variable()
        one = replace(bare, expression=Variable(name), many=False) if value.many else bare
        there = some(*(exists(self._of_type(replace(one, choice=value.choice), t)) for t in self._types_of(value)))
        return kept(bare, name, there)

    def _reference_key(self, value: Value, wanted: str) -> Value:
        if value.choice and "Reference" in self._types_of(value):
            value = self._of_type(value, "Reference")
        if value.type != "Reference":
            raise InvalidQuery(f"getReferenceKey(): the element is a {value.choice or value.type}, not a Reference")

        def key(item: Value) -> Value:
            return Value(_key(self._field(item, "reference", "string", False).expression, wanted), "id")

        return self.over(value, key)

    def _at(self, value: Value, index: Value) -> Value:
        settled(value)
        if index.kind is not Scalar.INTEGER:
            return EMPTY
        place = only(index, Null(Scalar.INTEGER))
        if not value.many:
            return kept(value, "", call(F.EQUAL, place, Literal(0)))
        found: Expression
        if isinstance(place, Literal) and isinstance(place.value, int):
            found = call(F.ITEM, value.expression, Literal(place.value + 1)) if place.value >= 0 else NOTHING
        else:
            later = call(F.ITEM, value.expression, call(F.ADD, place, Literal(1)))
            found = Case(((call(F.AT_LEAST, place, Literal(0)), later),), NOTHING)
        return Value(found, value.type, False, value.shape)

    def _call(self, name: str, arguments: tuple[syntax.Node, ...], focus: Value, row_index: Expression) -> Value:
        def argument(of: Value) -> Value:
            return settled(self._value(arguments[0], of, row_index))

        match name:
            case "where":
                return self._where(focus, argument)
            case "exists":
                found = self._where(focus, argument) if arguments else self._any_type(focus)
                return Value(exists(found), "boolean")
            case "empty":
                return Value(call(F.NOT, exists(self._any_type(focus))), "boolean")
            case "count":
                return Value(size(self._any_type(focus)), "integer")
            case "not":
                return Value(call(F.NOT, truth(self._any_type(focus))), "boolean")
            case "extension":
                url = argument(focus)
                if url.many or url.kind is not Scalar.TEXT:
                    raise InvalidQuery("extension(): takes one url")
                return self._where(
                    self.member(focus, "extension"),
                    lambda item: Value(call(F.EQUAL, self.member(item, "url").expression, url.expression), "boolean"),
                )
            case "getResourceKey":
                return self.member(replace(self.resource, expression=TRUE), "id")
        value = settled(focus)
        match name:
            case "first":
                return self._at(value, _literal(0))
            case "last":
                if not value.many:
                    return value
                return Value(call(F.LAST, value.expression), value.type, False, value.shape)
            case "join":
                return join(value, argument(value) if arguments else _literal(""))
            case _:
                return boundary(value, low=name == "lowBoundary")

    def _where(self, value: Value, criterion: Callable[[Value], Value]) -> Value:
        if not value.type:
            return EMPTY
        if value.choice:
            raise InvalidQuery(f"{value.choice}: choose a type with ofType() before where()")
        if not value.many:
            return kept(value, "", holds(criterion(value)))
        name = self.variable()
        return kept(value, name, holds(criterion(replace(value, expression=Variable(name), many=False))))


def _key(reference: Expression, wanted: str) -> Expression:
    """The id in a reference to a resource of the type. The plain `Type/id` is looked at first: it is most of them, and
    the whole pattern costs several times as much."""
    whole = call(F.EXTRACT, reference, Literal(_REFERENCE.format(wanted or _ANY_TYPE)), Literal(2))
    if not wanted:
        return whole
    rest = call(F.SUBSTRING, reference, Literal(len(wanted) + 2), Literal(LONGEST_ID + 1))
    plain = every(
        call(F.STARTS_WITH, reference, Literal(f"{wanted}/")),
        call(F.AT_MOST, call(F.LENGTH, rest), Literal(LONGEST_ID)),
        call(F.MATCHES, rest, Literal(r"^[A-Za-z0-9\-.]+\z")),
    )
    return Case(((plain, rest),), whole)


def settled(value: Value) -> Value:
    """The value, if it is one of one type. Raises InvalidQuery for a choice of types."""
    if value.choice:
        raise InvalidQuery(f"{value.type}.{value.choice} has several types; choose one with ofType()")
    return value


def _literal(value: Any) -> Value:
    types = {bool: "boolean", int: "integer", float: "decimal", str: "string"}
    if type(value) not in types:
        raise InvalidQuery("a constant is not a primitive value")
    return Value(Literal(value), types[type(value)])
