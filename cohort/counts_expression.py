"""What can stand in the conditions and groups of people's counts: a small typed language, checked before it runs. Pure.

No value in a table can make such an expression fail: the kinds of what is compared are the same, so the engine casts no
column, and every function has a result for every value. An error that depends on data would tell whether a row exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from bridge.errors import InvalidQuery, NotAllowed
from cohort.disclosure import IDENTIFYING, shown

Columns = Mapping[str, str]
"""column → DuckDB type."""

Sources = Sequence[tuple[str, str, Columns]]
"""(alias, table, columns) of what stands in FROM."""

KINDS: Mapping[str, str] = {
    "VARCHAR": "text", "INTEGER": "number", "BIGINT": "number", "DOUBLE": "number", "DATE": "date",
    "TIMESTAMP WITH TIME ZONE": "moment", "BOOLEAN": "boolean",
}  # fmt: skip
LITERAL, NULL = "literal", "null"
"""Kinds of a text that may yet be read as a date, and of NULL, which fits everything."""

TEXT_TESTS = frozenset({"~~", "!~~", "~~*", "!~~*", "contains", "starts_with", "ends_with", "prefix", "suffix"})
PARTS = frozenset({"year", "quarter", "month", "week", "day", "dayofweek", "isodow", "decade"})
UNITS = frozenset({"decade", "year", "quarter", "month", "week", "day"})
INTERVALS = frozenset({"to_years", "to_months", "to_weeks", "to_days"})
_NUMBER = re.compile(r"^-?\d{1,9}(\.\d{1,6})?$")
"""Larger or finer constants would make the engine cast columns to types they may not fit."""


def kind_of(expression: Any, sources: Sources) -> str:
    """The kind of an expression's values. Raises NotAllowed for what is not in the language."""
    found = _CLASSES.get(expression["class"])
    if found is None:
        raise _refused(f"{str(expression['class']).lower().replace('_', ' ')} is not allowed here")
    return found(expression, sources)


def _column(expression: Any, sources: Sources) -> str:
    names = [str(n).lower() for n in expression["column_names"]]
    if names == ["current_date"]:
        return "date"
    fitting = _fitting(names, sources)
    if any(shown(table, names[-1]).how in IDENTIFYING for table, _ in fitting):
        raise _refused(f"{names[-1]} singles people out; only IS NULL and IS NOT NULL can be asked of it")
    kinds = {KINDS.get(type_, "") for _, type_ in fitting}
    if len(kinds) != 1 or "" in kinds:
        raise _refused(f"{names[-1]} cannot be used here")
    return kinds.pop()


def _fitting(names: Sequence[str], sources: Sources) -> list[tuple[str, str]]:
    """(table, type) of every column that these names can mean."""
    fitting = [
        (table, columns[names[-1]])
        for alias, table, columns in sources
        if names[-1] in columns and (len(names) == 1 or (len(names) == 2 and names[0] == alias))
    ]
    if not fitting:
        raise InvalidQuery("sql: a column is named that the tables in FROM do not have")
    return fitting


def _constant(expression: Any, _sources: Sources) -> str:
    literal = expression["literal"]
    kind = {"STRING": LITERAL, "NULL_LITERAL": NULL, "BOOLEAN": "boolean"}.get(literal["kind"])
    if kind is not None:
        return kind
    if literal["kind"] in ("INTEGER", "NUMERIC") and _NUMBER.match(str(literal["text"])):
        return "number"
    raise _refused("numbers have at most 9 digits and 6 decimal places")


def _same(expressions: Sequence[Any], sources: Sources) -> str:
    """The one kind of several expressions; a text beside dates must be one."""
    kinds = {kind_of(e, sources) for e in expressions} - {NULL}
    days = kinds & {"date", "moment"}
    if days and kinds <= days | {LITERAL}:
        for one in expressions:
            if one["class"] == "CONSTANT":
                _iso(one)
        return "moment" if "moment" in days else "date"
    kinds = {"text" if k == LITERAL else k for k in kinds}
    if len(kinds) > 1:
        raise _refused("what is compared is of the same kind: text, number, date or truth")
    return kinds.pop() if kinds else NULL


def _iso(constant: Any) -> None:
    if constant["literal"]["kind"] == "NULL_LITERAL":
        return
    text = str(constant["literal"].get("text", ""))
    try:
        datetime.fromisoformat(text) if len(text) > 10 else date.fromisoformat(text)
    except ValueError:
        raise InvalidQuery("sql: a date is written as '2024-02-29'") from None


def _comparison(expression: Any, sources: Sources) -> str:
    _same([expression["left"], expression["right"]], sources)
    return "boolean"


def _between(expression: Any, sources: Sources) -> str:
    _same([expression["input"], expression["lower"], expression["upper"]], sources)
    return "boolean"


def _conjunction(expression: Any, sources: Sources) -> str:
    for child in expression["children"]:
        _truth(child, sources)
    return "boolean"


def _truth(expression: Any, sources: Sources) -> None:
    if kind_of(expression, sources) not in ("boolean", NULL):
        raise _refused("a condition is needed")


def _operator(expression: Any, sources: Sources) -> str:
    children = expression["children"]
    kind = expression["type"]
    if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
        if children[0]["class"] == "COLUMN_REF":
            _fitting([str(n).lower() for n in children[0]["column_names"]], sources)
        else:
            kind_of(children[0], sources)
        return "boolean"
    if kind == "OPERATOR_NOT":
        _truth(children[0], sources)
        return "boolean"
    if kind == "COMPARE_IN":
        _same(children, sources)
        return "boolean"
    if kind == "OPERATOR_COALESCE":
        return _same(children, sources)
    raise _refused("this operator is not allowed here")


def _case(expression: Any, sources: Sources) -> str:
    for check in expression["case_checks"]:
        _truth(check["when_expr"], sources)
    return _same([*(c["then_expr"] for c in expression["case_checks"]), expression["else_expr"]], sources)


def _cast(expression: Any, sources: Sources) -> str:
    """To a date: of a date, or of a text that is one."""
    wanted = str(expression["type_expr"].get("type_name", "")).upper()
    child = expression["child"]
    if wanted == "DATE" and not expression["type_expr"].get("children"):
        kind = kind_of(child, sources)
        if kind == LITERAL:
            _iso(child)
        if kind in ("date", "moment", LITERAL):
            return "date"
    raise _refused("only dates can be cast, to DATE")


def _function(expression: Any, sources: Sources) -> str:
    name = str(expression["function_name"]).lower()
    given = [a["expression"] for a in expression["arguments"]]
    if expression["distinct"] or expression.get("filter"):
        raise _refused("only counts can be DISTINCT")
    if name in TEXT_TESTS and len(given) == 2 and kind_of(given[1], sources) == LITERAL:
        _need(given[:1], ("text", LITERAL), sources)
        return "boolean"
    if name in ("lower", "upper") and len(given) == 1:
        _need(given, ("text", LITERAL), sources)
        return "text"
    if name == "length" and len(given) == 1:
        _need(given, ("text", LITERAL), sources)
        return "number"
    if name in PARTS and len(given) == 1:
        _need(given, ("date", "moment"), sources)
        return "number"
    if name in ("date_part", "datepart") and len(given) == 2 and _word(given[0]) in PARTS:
        _need(given[1:], ("date", "moment"), sources)
        return "number"
    if name in ("date_trunc", "datetrunc") and len(given) == 2 and _word(given[0]) in UNITS:
        _need(given[1:], ("date", "moment"), sources)
        return kind_of(given[1], sources)
    if name in ("date_sub", "datesub", "date_diff", "datediff") and len(given) == 3 and _word(given[0]) in UNITS:
        _need(given[1:], ("date", "moment"), sources)
        return "number"
    if name in ("floor", "ceil", "round") and len(given) == 1:
        _need(given, ("number",), sources)
        return "number"
    return _arithmetic(name, given, sources)


def _arithmetic(name: str, given: Sequence[Any], sources: Sources) -> str:
    """Division by a constant, its multiplication by the same, and a constant day before or after another."""
    if name in ("//", "%") and len(given) == 2 and _positive(given[1]):
        _need(given[:1], ("number",), sources)
        return "number"
    if name == "*" and len(given) == 2 and _positive(given[1]):
        divided = given[0]
        if divided["class"] == "FUNCTION" and divided["function_name"] == "//":
            by = divided["arguments"][1]["expression"]
            if _positive(by) == _positive(given[1]):
                return kind_of(divided, sources)
    if name in ("-", "+") and len(given) == 2 and _constant_day(given[0]) and _constant_interval(given[1]):
        return "date"
    raise _refused(f"{name[:60]} is not allowed here, or not in this way")


def _need(expressions: Sequence[Any], kinds: Sequence[str], sources: Sources) -> None:
    for one in expressions:
        if kind_of(one, sources) not in kinds:
            raise _refused(f"a {kinds[0]} is needed")


def _word(expression: Any) -> str:
    return str(expression["literal"].get("text", "")).lower() if expression["class"] == "CONSTANT" else ""


def _positive(expression: Any) -> int:
    """A whole constant above 0, or 0 when it is none."""
    if expression["class"] != "CONSTANT" or expression["literal"]["kind"] != "INTEGER":
        return 0
    return max(0, int(expression["literal"]["text"])) if _NUMBER.match(expression["literal"]["text"]) else 0


def _constant_day(expression: Any) -> bool:
    named = [str(n).lower() for n in expression.get("column_names", [])]
    return named == ["current_date"] or (expression["class"] == "CAST" and _cast(expression, ()) == "date")


def _constant_interval(expression: Any) -> bool:
    """`INTERVAL 5 YEAR` as the parser writes it: to_years(trunc(5 as DOUBLE) as INTEGER)."""
    if expression["class"] == "CONSTANT":
        return _positive(expression) in range(1, 10_000)
    if expression["class"] == "CAST":
        return _constant_interval(expression["child"])
    named = expression["class"] == "FUNCTION" and expression["function_name"] in INTERVALS | {"trunc"}
    return bool(named) and all(_constant_interval(a["expression"]) for a in expression["arguments"])


_CLASSES = {
    "COLUMN_REF": _column,
    "CONSTANT": _constant,
    "COMPARISON": _comparison,
    "BETWEEN": _between,
    "CONJUNCTION": _conjunction,
    "OPERATOR": _operator,
    "CASE": _case,
    "CAST": _cast,
    "FUNCTION": _function,
}


def _refused(what: str) -> InvalidQuery:
    return NotAllowed(f"sql: where rows may not be seen, {what}")
