"""lowBoundary() and highBoundary(): the earliest and latest, least and greatest a value of its precision can mean.
Pure."""

from __future__ import annotations

from bridge.errors import InvalidQuery
from cohort.expression import Call, Case, Cast, Expression, Function, Literal, Null, OneOf, Scalar, call
from cohort.path_value import EMPTY, Value, only

F = Function
_MOST_PLACES = 15
_DATE = r"^(\d{4})(-(?:0[1-9]|1[0-2]))?(-\d\d)?(?:T([\d:.]+)(Z|[+-]\d\d:\d\d)?)?\z"
_TIME = r"^\d\d(:\d\d){1,2}(\.\d+)?\z"
_LEAP = "^(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)$"
_LOW, _HIGH = "00:00:00.000", "23:59:59.999"
_MOMENTS = ("dateTime", "instant")


def boundary(value: Value, *, low: bool) -> Value:
    """The boundary of a single value, nothing of several. Raises InvalidQuery for values that have none."""
    name = "lowBoundary()" if low else "highBoundary()"
    if not value.type:
        return EMPTY
    single = only(value, Null(value.kind))
    if value.kind is Scalar.INTEGER:
        shift = F.SUBTRACT if low else F.ADD
        return Value(call(shift, Cast(single, Scalar.DOUBLE), Literal(0.5)), "decimal")
    if value.type == "decimal":
        if value.raw is None:
            raise InvalidQuery(f"{name}: needs a decimal as the resource has it, and one only")
        shape, field, of = value.raw
        shape.scalar(field, Scalar.TEXT)
        return Value(_decimal(Cast(of, Scalar.TEXT), low), "decimal")
    if value.type == "time":
        return Value(_time(single, low), "time")
    if value.type in ("date", *_MOMENTS):
        return Value(_date(single, low, whole=value.type in _MOMENTS), value.type)
    raise InvalidQuery(f"{name}: a {value.type} has none")


def _decimal(text: Expression, low: bool) -> Expression:
    """Half of the last place below or above, by the places that are written."""
    number = Cast(text, Scalar.DOUBLE)
    fraction = call(F.EXTRACT, text, Literal(r"^-?\d+\.(\d+)$"), Literal(1))
    places = call(F.COALESCE, call(F.LENGTH, fraction), Literal(0))
    shift = F.SUBTRACT if low else F.ADD
    branches: list[tuple[Expression, Expression]] = [
        (call(F.IS_NULL, text), Null(Scalar.DOUBLE)),
        (
            call(F.NOT, call(F.MATCHES, text, Literal(rf"^-?\d+(\.\d{{1,{_MOST_PLACES}}})?$"))),
            call(F.FAIL, Literal("the boundary of a decimal with an exponent, or with very many places, is not known")),
        ),
    ]
    for n in range(_MOST_PLACES + 1):
        moved = call(F.ROUND, call(shift, number, Literal(float(f"5e-{n + 1}"))), Literal(n + 1))
        branches.append((call(F.EQUAL, places, Literal(n)), moved))
    return Case(tuple(branches), Null(Scalar.DOUBLE))


def _time(text: Expression, low: bool) -> Expression:
    """Filled up to milliseconds."""
    rest = call(
        F.SUBSTRING, Literal(_LOW if low else _HIGH), call(F.ADD, call(F.LENGTH, text), Literal(1)), Literal(12)
    )
    return Case(((call(F.MATCHES, text, Literal(_TIME)), call(F.CONCAT, text, rest)),), Null(Scalar.TEXT))


def _date(text: Expression, low: bool, *, whole: bool) -> Expression:
    """The first or last day; of a dateTime the first or last millisecond, in the outermost zone if it names none."""

    def part(group: int) -> Expression:
        return call(F.EXTRACT, text, Literal(_DATE), Literal(group))

    month = call(F.COALESCE, part(2), Literal("-01" if low else "-12"))
    day = call(F.COALESCE, part(3), Literal("-01") if low else _last_day(part(1), month))
    date = Call(F.CONCAT, (part(1), month, day))
    clock = call(F.COALESCE, part(4), Literal(""))
    rest = call(
        F.SUBSTRING, Literal(_LOW if low else _HIGH), call(F.ADD, call(F.LENGTH, clock), Literal(1)), Literal(12)
    )
    zone = call(F.COALESCE, part(5), Literal("+14:00" if low else "-12:00"))
    moment = Call(F.CONCAT, (date, Literal("T"), clock, rest, zone))
    if whole:
        return moment
    return Case(((call(F.IS_NULL, part(4)), date),), moment)


def _last_day(year: Expression, month: Expression) -> Expression:
    february = Case(((call(F.MATCHES, year, Literal(_LEAP)), Literal("-29")),), Literal("-28"))
    short = OneOf(month, tuple(map(Literal, ("-04", "-06", "-09", "-11"))))
    return Case(((call(F.EQUAL, month, Literal("-02")), february), (short, Literal("-30"))), Literal("-31"))
