"""Relations with the rows they stand for, in every dialect: run on DuckDB and on Spark."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

from cohort.expression import (
    Aggregate,
    AggregateFunction,
    Call,
    Case,
    Cast,
    Column,
    Exists,
    Expression,
    Field,
    Filter,
    Function,
    ListOf,
    Literal,
    MakeList,
    MakeStruct,
    Null,
    OneOf,
    Order,
    RowId,
    Scalar,
    Struct,
    Transform,
    Variable,
    Window,
    WindowFunction,
    call,
    every,
    some,
)  # fmt: skip
from cohort.relation import (
    Extend,
    Group,
    Join,
    JoinKind,
    Limit,
    Ordered,
    Project,
    Relation,
    Rows,
    Shared,
    Union,
    Unnest,
    Where,
)  # fmt: skip

F, A, W = Function, AggregateFunction, WindowFunction
NASTY = [
    "'",
    "\\",
    "\\'",
    '"',
    "`",
    "${x}",
    "$",
    "a\nb",
    "%",
    "_",
    "--",
    "/*",
    "\t",
    "ü",
    "\\u0041",
    "{0}",
    "🩻",
    "\x01",
]


def lit(value: Any) -> Literal:
    return Literal(value)


def null(kind: Scalar = Scalar.TEXT) -> Null:
    return Null(kind)


def texts(*items: str | None) -> MakeList:
    return MakeList(tuple(null() if i is None else lit(i) for i in items), Scalar.TEXT)


def numbers(*items: int) -> MakeList:
    return MakeList(tuple(lit(i) for i in items), Scalar.INTEGER)


def day(text: str) -> Literal:
    return lit(date.fromisoformat(text))


NO_TEXTS, NO_TEXT_LIST = MakeList((), Scalar.TEXT), Null(ListOf(Scalar.TEXT))
TRUE, FALSE, UNKNOWN = lit(True), lit(False), null(Scalar.BOOLEAN)
V = Variable("v")

EXPRESSIONS: list[tuple[Expression, Any]] = [
    *[(lit(text), text) for text in NASTY],
    (lit(-5), -5), (lit(2**40), 2**40), (lit(0.1), 0.1), (lit(-1e300), -1e300), (lit(True), True),
    (day("2024-02-29"), date(2024, 2, 29)), (null(), None),
    (call(F.YEAR, call(F.DAY, lit(datetime(2024, 12, 31, 23, 59, 1, tzinfo=UTC)))), 2024),
    (call(F.DAY, lit(datetime.fromisoformat("2024-03-01T00:30:00+02:00"))), date(2024, 2, 29)),
    (call(F.AND, TRUE, UNKNOWN), None), (call(F.AND, FALSE, UNKNOWN), False), (call(F.OR, TRUE, UNKNOWN), True),
    (call(F.OR, FALSE, UNKNOWN), None), (call(F.NOT, UNKNOWN), None), (call(F.NOT, FALSE), True),
    (every(), True), (some(), False), (every(TRUE), True), (some(FALSE, TRUE), True),
    (call(F.EQUAL, lit("a"), lit("A")), False), (call(F.EQUAL, lit("a"), null()), None),
    (call(F.EQUAL, lit("a"), lit("a ")), False), (call(F.UNEQUAL, lit(1), lit(2)), True),
    (call(F.LESS, lit("Z"), lit("a")), True), (call(F.LESS, lit("z"), lit("é")), True),
    (call(F.LESS, lit("\uffff"), lit("🩻")), True), (call(F.AT_MOST, lit(1), lit(1.0)), True),
    (call(F.GREATER, lit(2), lit(10)), False), (call(F.AT_LEAST, day("2024-01-02"), day("2024-01-01")), True),
    (call(F.SAME, null(), null()), True), (call(F.SAME, lit("a"), null()), False), (call(F.IS_NULL, null()), True),
    (call(F.COALESCE, null(), lit("a"), lit("b")), "a"),
    (call(F.ADD, lit(1), lit(2)), 3), (call(F.SUBTRACT, lit(1.5), lit(2)), -0.5),
    (call(F.MULTIPLY, lit(3), lit(4)), 12),
    (call(F.MODULO, lit(47), lit(10)), 7), (call(F.MODULO, lit(-47), lit(10)), -7),
    (call(F.DIVIDE, lit(1), lit(2)), 0.5), (call(F.DIVIDE, lit(1), lit(0)), None),
    (call(F.DIVIDE, lit(1.0), lit(0.0)), None),
    (call(F.NEGATE, lit(3)), -3), (call(F.ROUND, call(F.ADD, lit(0.1), lit(0.2)), lit(8)), 0.3),
    (call(F.CONCAT, lit("a"), lit("b")), "ab"), (call(F.CONCAT, lit("a"), null()), None),
    (call(F.LOWER, lit("ÄB")), "äb"), (call(F.UPPER, lit("äb")), "ÄB"), (call(F.LENGTH, lit("🩻ü")), 2),
    (call(F.SUBSTRING, lit("🩻bcd"), lit(2), lit(2)), "bc"), (call(F.SUBSTRING, lit("abc"), lit(4), lit(2)), ""),
    (call(F.CONTAINS, lit("CT Thorax"), lit("Thor")), True), (call(F.CONTAINS, lit("CT"), lit("ct")), False),
    (call(F.CONTAINS, lit("a"), lit("%")), False), (call(F.STARTS_WITH, lit("C22.1"), lit("C22")), True),
    (call(F.MATCHES, lit("ab12"), lit(r"\d{2}$")), True), (call(F.MATCHES, lit("ab"), lit("^b")), False),
    (call(F.EXTRACT, lit("Patient/x1"), lit("^([A-Z][a-z]+)/(.+)$"), lit(2)), "x1"),
    (call(F.EXTRACT, lit("x1"), lit("^([A-Z][a-z]+)/(.+)$"), lit(2)), None),
    (call(F.YEARS_BEFORE, day("2024-02-29"), lit(1)), date(2023, 2, 28)),
    (call(F.YEARS_BEFORE, day("2024-03-01"), lit(40)), date(1984, 3, 1)),
    (call(F.DAYS_AFTER, day("2024-02-28"), lit(2)), date(2024, 3, 1)),
    (call(F.DAYS_AFTER, day("2024-03-01"), lit(-1)), date(2024, 2, 29)),
    (call(F.DAYS_BETWEEN, day("2023-12-31"), day("2024-03-01")), 61),
    (call(F.MONTH_START, day("2024-02-29")), date(2024, 2, 1)),
    (call(F.SIZE, numbers(7, 8)), 2), (call(F.SIZE, NO_TEXTS), 0), (call(F.SIZE, NO_TEXT_LIST), None),
    (call(F.ITEM, numbers(7, 8), lit(2)), 8), (call(F.ITEM, numbers(7, 8), lit(3)), None),
    (call(F.LAST, numbers(7, 8)), 8), (call(F.LAST, NO_TEXTS), None),
    (call(F.LIST_CONCAT, texts("a"), NO_TEXT_LIST, texts("b", None)), ["a", "b", None]),
    (call(F.FLATTEN, MakeList((texts("a"), texts(), texts("b", "a")), ListOf(Scalar.TEXT))), ["a", "b", "a"]),
    (call(F.JOIN_TEXTS, texts("a", "b"), lit(", ")), "a, b"),
    (call(F.COALESCE, call(F.JOIN_TEXTS, NO_TEXTS, lit(",")), lit("")), ""),
    (call(F.AS_JSON, texts('a "b"', "ü/\n")), '["a \\"b\\"","ü/\\n"]'), (call(F.AS_JSON, NO_TEXTS), "[]"),
    (Cast(lit("12"), Scalar.INTEGER), 12), (Cast(lit("1.5"), Scalar.DOUBLE), 1.5),
    (Cast(lit("2024-02-29"), Scalar.DATE), date(2024, 2, 29)),
    (Cast(lit("2023-02-29"), Scalar.DATE, lenient=True), None),
    (Cast(lit("x"), Scalar.INTEGER, lenient=True), None), (Cast(lit(5), Scalar.TEXT), "5"),
    (Case(((UNKNOWN, lit("a")), (TRUE, lit("b"))), lit("c")), "b"),
    (Case(((FALSE, call(F.FAIL, lit("never"))),), lit("c")), "c"),
    (OneOf(lit("a"), (lit("b"), lit("a"))), True), (OneOf(null(), (lit("b"),)), None),
    (Field(MakeStruct((("a b", lit(1)), ("c", lit("x")))), "a b"), 1),
    (Transform(numbers(1, 2), "v", call(F.ADD, V, lit(1))), [2, 3]),
    (Filter(numbers(1, 2, 3), "v", call(F.GREATER, V, lit(1))), [2, 3]),
    (Filter(texts("a", None), "v", call(F.EQUAL, V, lit("a"))), ["a"]),
    (Transform(numbers(1, 2), "v", Transform(numbers(10), "w", call(F.ADD, V, Variable("w")))), [[11], [12]]),
]  # fmt: skip

PEOPLE = Rows(
    Struct((("id", Scalar.TEXT), ("sex", Scalar.TEXT), ("born", Scalar.DATE), ("weight", Scalar.INTEGER))),
    (
        (lit("a"), lit("f"), day("1980-05-01"), lit(60)),
        (lit("b"), lit("m"), day("1990-05-01"), null(Scalar.INTEGER)),
        (lit("c"), lit("f"), Null(Scalar.DATE), lit(70)),
        (lit("d"), null(), day("1980-05-01"), lit(60)),
    ),
)
STUDIES = Rows(
    Struct((("person", Scalar.TEXT), ("modality", Scalar.TEXT))),
    ((lit("a"), lit("CT")), (lit("a"), lit("MR")), (lit("c"), lit("CT")), (null(), lit("US"))),
)
ID, SEX, BORN, WEIGHT = (Column(n) for n in ("id", "sex", "born", "weight"))
SAME_PERSON = call(F.EQUAL, Column("id", "p"), Column("person", "s"))


def ids(source: Relation) -> Project:
    return Project(source, (("id", ID),))


def joined(kind: JoinKind, *columns: tuple[str, Expression]) -> Join:
    return Join(PEOPLE, STUDIES, kind, SAME_PERSON, "p", "s", columns)


def grouped(**columns: Expression) -> Group:
    return Group(PEOPLE, (("sex", SEX),), tuple(columns.items()))


def window(function: A | W, of: Expression | None = None, *order: Order) -> Project:
    return Project(PEOPLE, (("id", ID), ("x", Window(function, of, (SEX,), order))))


LISTS = Rows(Struct((("n", Scalar.INTEGER),)), ((lit(0),), (lit(2),)))
LIST = Case(((call(F.EQUAL, Column("n"), lit(0)), NO_TEXTS),), texts("a", "b"))
PAIR = (("id", Column("id", "p")), ("modality", Column("modality", "s")))

RELATIONS: dict[str, tuple[Relation, list[tuple[Any, ...]]]] = {
    "where unknown is not kept": (ids(Where(PEOPLE, call(F.EQUAL, SEX, lit("f")))), [("a",), ("c",)]),
    "born at least forty years before": (
        ids(Where(PEOPLE, call(F.AT_MOST, BORN, call(F.YEARS_BEFORE, day("2020-05-01"), lit(40))))), [("a",), ("d",)],
    ),
    "distinct": (Project(PEOPLE, (("sex", SEX),), distinct=True), [("f",), ("m",), (None,)]),
    "inner join": (joined(JoinKind.INNER, *PAIR), [("a", "CT"), ("a", "MR"), ("c", "CT")]),
    "left join": (
        joined(JoinKind.LEFT, *PAIR), [("a", "CT"), ("a", "MR"), ("b", None), ("c", "CT"), ("d", None)],
    ),
    "semi join": (ids(joined(JoinKind.SEMI)), [("a",), ("c",)]),
    "anti join": (ids(joined(JoinKind.ANTI)), [("b",), ("d",)]),
    "exists beside another condition": (
        ids(Where(PEOPLE, some(call(F.EQUAL, Column("sex", "p"), lit("m")), Exists(STUDIES, "s", SAME_PERSON)), "p")),
        [("a",), ("b",), ("c",)],
    ),
    "union": (Union((ids(PEOPLE), Project(STUDIES, (("x", Column("person")),)))),
              [("a",), ("b",), ("c",), ("d",), ("a",), ("a",), ("c",), (None,)]),
    "unnest": (Unnest(LISTS, LIST, "item"), [(2, "a"), (2, "b")]),
    "unnest, none kept": (Unnest(LISTS, LIST, "item", keep_empty=True), [(0, None), (2, "a"), (2, "b")]),
    "unnest with index": (
        Project(Unnest(LISTS, LIST, "item", keep_empty=True, index="i"), (("i", Column("i")), ("x", Column("item")))),
        [(0, None), (0, "a"), (1, "b")],
    ),
    "two unnests multiply": (
        Project(Unnest(Unnest(LISTS, LIST, "x"), LIST, "y"), (("x", Column("x")), ("y", Column("y")))),
        [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")],
    ),
    "counts": (
        grouped(n=Aggregate(A.COUNT_ROWS), w=Aggregate(A.COUNT, WEIGHT), d=Aggregate(A.COUNT_DISTINCT, BORN)),
        [("f", 2, 2, 1), ("m", 1, 0, 1), (None, 1, 1, 1)],
    ),
    "numbers of a group": (
        Group(PEOPLE, (), (("s", Aggregate(A.SUM, WEIGHT)), ("m", Aggregate(A.LOWEST, BORN)),
                           ("h", Aggregate(A.HIGHEST, WEIGHT)), ("a", Aggregate(A.MEAN, WEIGHT)))),
        [(190, date(1980, 5, 1), 70, 190 / 3)],
    ),
    "only those that meet a condition": (
        grouped(n=Aggregate(A.COUNT_ROWS, condition=call(F.GREATER, WEIGHT, lit(60))),
                y=Aggregate(A.ANY, call(F.EQUAL, WEIGHT, lit(70)))),
        [("f", 1, True), ("m", 0, None), (None, 0, False)],
    ),
    "having": (
        Group(PEOPLE, (("sex", SEX),), (("n", Aggregate(A.COUNT_ROWS)),),
              call(F.GREATER, Aggregate(A.COUNT_ROWS), lit(1))),
        [("f", 2)],
    ),
    "lists in order, nulls last": (
        Group(PEOPLE, (), (("x", Aggregate(A.LIST, ID, (Order(WEIGHT, descending=True), Order(ID)))),
                           ("w", Aggregate(A.LIST, WEIGHT, (Order(ID, descending=True),))))),
        [(["c", "a", "d", "b"], [60, 70, 60])],
    ),
    "a list of nothing is empty": (
        grouped(x=Aggregate(A.LIST, WEIGHT, condition=call(F.GREATER, WEIGHT, lit(60)))),
        [("f", [70]), ("m", []), (None, [])],
    ),
    "row number": (window(W.ROW_NUMBER, None, Order(ID, descending=True)), [("a", 2), ("c", 1), ("b", 1), ("d", 1)]),
    "rank": (window(W.RANK, None, Order(WEIGHT)), [("a", 1), ("c", 2), ("b", 1), ("d", 1)]),
    "the row before": (window(W.PREVIOUS, ID, Order(ID)), [("a", None), ("c", "a"), ("b", None), ("d", None)]),
    "the row after": (window(W.NEXT, ID, Order(ID)), [("a", "c"), ("c", None), ("b", None), ("d", None)]),
    "a running sum": (window(A.SUM, WEIGHT, Order(ID)), [("a", 60), ("c", 130), ("b", None), ("d", 60)]),
    "the highest of a partition": (window(A.HIGHEST, WEIGHT), [("a", 70), ("c", 70), ("b", None), ("d", 60)]),
    "the first in order": (Limit(Ordered(ids(PEOPLE), (Order(ID, descending=True),)), 2), [("d",), ("c",)]),
    "nulls last, descending too": (
        Limit(Ordered(Project(PEOPLE, (("sex", SEX),)), (Order(SEX, descending=True),)), 3), [("m",), ("f",), ("f",)],
    ),
    "more and fewer columns": (
        Extend(PEOPLE, (("born", call(F.YEAR, BORN)), ("n", lit(1))), ("born", "sex", "weight")),
        [("a", 1980, 1), ("b", 1990, 1), ("c", None, 1), ("d", 1980, 1)],
    ),
    "a number for each row": (
        Group(Extend(PEOPLE, (("n", RowId()),)), (), (("n", Aggregate(A.COUNT_DISTINCT, Column("n"))),)), [(4,)],
    ),
    "no rows": (Rows(PEOPLE.row, ()), []),
    "a shared part": (
        Union((ids(Shared("f", Where(PEOPLE, call(F.EQUAL, SEX, lit("f"))))),
               ids(Where(Shared("f", Where(PEOPLE, call(F.EQUAL, SEX, lit("f")))), call(F.GREATER, WEIGHT, lit(60)))))),
        [("a",), ("c",), ("c",)],
    ),
}  # fmt: skip


def expressions(run: Callable[[Relation], list[tuple[Any, ...]]]) -> list[Any]:
    """The value of every expression, computed in one query over one row."""
    one = Rows(Struct((("one", Scalar.INTEGER),)), ((lit(1),),))
    ((*values,),) = run(Project(one, tuple((f"c{n}", e) for n, (e, _) in enumerate(EXPRESSIONS))))
    return values


def plain(value: Any) -> Any:
    """A value as the tests compare it: lists as lists, Decimals as numbers."""
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return float(value) if type(value).__name__ == "Decimal" else value


assert {e.function for e, _ in EXPRESSIONS if isinstance(e, Call)} | {F.FAIL} == set(Function)
