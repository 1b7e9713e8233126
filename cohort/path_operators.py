"""FHIRPath's operators between values: and, or, =, !=, order, arithmetic; join. Pure."""

from __future__ import annotations

from bridge.errors import InvalidQuery
from cohort.expression import Call, Case, Expression, Function, Literal, Null, Scalar, call
from cohort.path_value import EMPTY, Value, exists, items, only, size, truth

F = Function
DIGITS = 8
"""Places behind the point of a computed decimal, as the evaluator rounds."""

_ORDER = {"<": F.LESS, "<=": F.AT_MOST, ">": F.GREATER, ">=": F.AT_LEAST}
_ARITHMETIC = {"+": F.ADD, "-": F.SUBTRACT, "*": F.MULTIPLY, "/": F.DIVIDE}
NUMBERS = (Scalar.INTEGER, Scalar.DOUBLE)


def binary(symbol: str, one: Value, two: Value) -> Value:
    """`one symbol two`. Raises InvalidQuery for objects, which SQL does not compare as FHIRPath does."""
    if symbol in ("and", "or"):
        return Value(call(F.AND if symbol == "and" else F.OR, truth(one), truth(two)), "boolean")
    if one.shape is not None or two.shape is not None:
        raise InvalidQuery(f"{symbol}: objects cannot be compared in SQL")
    if not one.type or not two.type:
        return EMPTY
    if symbol in ("=", "!="):
        return Value(_equal(one, two, wanted=symbol == "="), "boolean")
    a, b = _single(one), _single(two)
    if symbol in _ORDER:
        alike = one.kind is two.kind is Scalar.TEXT or (one.kind in NUMBERS and two.kind in NUMBERS)
        return Value(call(_ORDER[symbol], a, b), "boolean") if alike else EMPTY
    return _computed(symbol, one, two, a, b)


def join(value: Value, separator: Value) -> Value:
    """The texts as one, with the separator between; "" of none. Raises InvalidQuery for other values."""
    if value.type and value.kind is not Scalar.TEXT:
        raise InvalidQuery("join(): takes texts")
    if separator.many or separator.kind is not Scalar.TEXT:
        raise InvalidQuery("join(): takes one text as separator")
    if not value.many:
        return Value(call(F.COALESCE, value.expression, Literal("")), "string")
    return Value(call(F.COALESCE, call(F.JOIN_TEXTS, value.expression, separator.expression), Literal("")), "string")


def negative(value: Value) -> Value:
    """`-value` of a single number."""
    return Value(call(F.NEGATE, value.expression), value.type) if value.kind in NUMBERS else EMPTY


def _single(value: Value) -> Expression:
    return only(value, Null(value.kind))


def _equal(one: Value, two: Value, *, wanted: bool) -> Expression:
    if one.kind is not two.kind and not (one.kind in NUMBERS and two.kind in NUMBERS):
        both = call(F.AND, exists(one), exists(two))
        return Case(((both, Literal(not wanted)),), Null(Scalar.BOOLEAN))
    function = F.EQUAL if wanted else F.UNEQUAL
    if not one.many and not two.many:
        return call(function, one.expression, two.expression)
    if one.many and two.many:
        if one.kind is not two.kind:
            raise InvalidQuery("=: lists of different numbers cannot be compared in SQL")
        both = call(F.AND, exists(one), exists(two))
        return Case(((both, call(function, items(one), items(two))),), Null(Scalar.BOOLEAN))
    listed, single = (one, two) if one.many else (two, one)
    unknown = call(F.OR, call(F.NOT, exists(listed)), call(F.NOT, exists(single)))
    several = call(F.GREATER, size(listed), Literal(1))
    same = call(function, call(F.ITEM, listed.expression, Literal(1)), single.expression)
    return Case(((unknown, Null(Scalar.BOOLEAN)), (several, Literal(not wanted))), same)


def _computed(symbol: str, one: Value, two: Value, a: Expression, b: Expression) -> Value:
    if symbol == "+" and one.kind is two.kind is Scalar.TEXT:
        return Value(Call(F.CONCAT, (a, b)), "string")
    if one.kind not in NUMBERS or two.kind not in NUMBERS:
        return EMPTY
    computed = call(_ARITHMETIC[symbol], a, b)
    if symbol != "/" and one.kind is two.kind is Scalar.INTEGER:
        return Value(computed, "integer")
    return Value(call(F.ROUND, computed, Literal(DIGITS)), "decimal")
