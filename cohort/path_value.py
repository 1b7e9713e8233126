"""What a FHIRPath expression is while it is compiled: an expression of the syntax tree with its FHIR type, and the part
of the resource that has to be read for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from cohort.expression import (
    Call,
    Case,
    Expression,
    Filter,
    Function,
    ListOf,
    Literal,
    MakeList,
    Null,
    Scalar,
    Struct,
    Transform,
    Variable,
    call,
)  # fmt: skip

F = Function
TRUE, FALSE, NOTHING = Literal(True), Literal(False), Null(None)
_KINDS = {
    "boolean": Scalar.BOOLEAN, "integer": Scalar.INTEGER, "positiveInt": Scalar.INTEGER, "unsignedInt": Scalar.INTEGER,
    "integer64": Scalar.INTEGER, "decimal": Scalar.DOUBLE,
}  # fmt: skip


@dataclass
class Shape:
    """The fields of an object that a view reads, by their name in JSON. Grows while paths are compiled."""

    scalars: dict[str, tuple[bool, Scalar]] = field(default_factory=dict)
    objects: dict[str, tuple[bool, Shape]] = field(default_factory=dict)

    def scalar(self, name: str, kind: Scalar, many: bool = False) -> None:
        """Reads a field with a primitive; one that is read as text stays text."""
        if self.scalars.get(name) != (many, Scalar.TEXT):
            self.scalars[name] = (many, kind)

    def object(self, name: str, many: bool) -> Shape:
        """Reads a field with an object, whose shape this gives."""
        return self.objects.setdefault(name, (many, Shape()))[1]

    def struct(self) -> Struct:
        """The type to read it with: the same for shapes with the same fields. An object of which only its presence
        matters is read by its id."""
        if not self.scalars and not self.objects:
            return Struct((("id", Scalar.TEXT),))
        scalars = [(name, ListOf(kind) if many else kind) for name, (many, kind) in self.scalars.items()]
        objects = [(name, ListOf(s.struct()) if many else s.struct()) for name, (many, s) in self.objects.items()]
        return Struct(tuple(sorted([*scalars, *objects], key=lambda field: field[0])))

    def depth(self) -> int:
        """How many lists stand inside one another below."""
        return max((shape.depth() + many for many, shape in self.objects.values()), default=0)

    def size(self) -> int:
        """How many fields are read, at all depths."""
        return len(self.scalars) + sum(shape.size() or 1 for _, shape in self.objects.values())

    def include(self, other: Shape) -> None:
        """Reads what the other one reads, too."""
        for name, (many, kind) in other.scalars.items():
            self.scalar(name, kind, many)
        for name, (many, shape) in other.objects.items():
            self.object(name, many).include(shape)


@dataclass(frozen=True)
class Value:
    """The items an expression stands for: a list without NULLs (`many`; NULL counts as empty), or at most one, where
    NULL is none. `type` is a FHIR type, "" if there never is an item; `shape` is set for objects.

    `choice` is the name of a choice element whose type is still open: the value is then what has the element.
    `raw` is the field a single decimal is read from. The resource (`is_resource`) is no value in SQL: its expression
    tells whether it is there."""

    expression: Expression
    type: str
    many: bool = False
    shape: Shape | None = None
    choice: str = ""
    raw: tuple[Shape, str, Expression] | None = None
    is_resource: bool = False

    @property
    def kind(self) -> Scalar | None:
        """The type of a primitive in SQL; None of objects and of nothing."""
        return kind_of(self.type) if self.shape is None and self.type else None


EMPTY = Value(NOTHING, "")


def kind_of(type_: str) -> Scalar:
    """How a primitive FHIR type is read: dates and times as text, as FHIRPath compares them here."""
    return _KINDS.get(type_, Scalar.TEXT)


def size(value: Value) -> Expression:
    """How many items."""
    if value.many:
        return call(F.COALESCE, call(F.SIZE, value.expression), Literal(0))
    return Case(((exists(value), Literal(1)),), Literal(0))


def exists(value: Value) -> Expression:
    """Is there an item?"""
    if value.is_resource:
        return value.expression
    if not value.type:
        return FALSE
    if value.many:
        return call(F.GREATER, size(value), Literal(0))
    return call(F.NOT, call(F.IS_NULL, value.expression))


def only(value: Value, more: Expression) -> Expression:
    """The single item, NULL if there is none, `more` if there are several."""
    if not value.many:
        return value.expression
    several = call(F.GREATER, size(value), Literal(1))
    return Case(((several, more),), call(F.ITEM, value.expression, Literal(1)))


def items(value: Value) -> Expression:
    """All items as a list, never NULL."""
    empty = MakeList((), value.kind)
    if value.many:
        return call(F.COALESCE, value.expression, empty)
    return Case(((exists(value), MakeList((value.expression,))),), empty) if value.type else MakeList((), Scalar.TEXT)


def truth(value: Value) -> Expression:
    """Singleton evaluation: nothing is unknown, an item that is no boolean is true."""
    if value.kind is Scalar.BOOLEAN:
        return call(F.ITEM, value.expression, Literal(1)) if value.many else value.expression
    return Case(((exists(value), TRUE),), Null(Scalar.BOOLEAN))


def holds(value: Value) -> Expression:
    """Is a criterion met: exactly one item, which is true? May be NULL instead of false."""
    return only(value, FALSE) if value.kind is Scalar.BOOLEAN else FALSE


def each(value: Value, variable: str, body: Value) -> Value:
    """The items of `body` for every item of the list `value`, which `variable` stands for in it."""
    if not body.type:
        return EMPTY
    made: Expression = present(Transform(value.expression, variable, body.expression), variable)
    if body.many:
        made = Call(F.FLATTEN, (made,))
    return Value(made, body.type, True, body.shape)


def kept(value: Value, variable: str, condition: Expression) -> Value:
    """The items for which the condition is true; `variable` stands for a list's item in it."""
    if value.is_resource:
        there = call(F.COALESCE, condition, FALSE)
        both = there if value.expression == TRUE else call(F.AND, value.expression, there)
        return Value(both, value.type, shape=value.shape, is_resource=True)
    if value.many:
        return Value(Filter(value.expression, variable, condition), value.type, True, value.shape, value.choice)
    return Value(Case(((condition, value.expression),), NOTHING), value.type, False, value.shape, value.choice)


def present(of: Expression, variable: str) -> Filter:
    """The list without NULLs."""
    return Filter(of, variable, call(F.NOT, call(F.IS_NULL, Variable(variable))))
