"""People's SQL where they may not see rows: one SELECT that counts patients by groups, rewritten. Pure.

    SELECT columns, count(DISTINCT patient_id) FROM tables joined by USING WHERE conditions GROUP BY columns
    ORDER BY what is selected LIMIT n

What a single patient's values could decide is refused: subqueries, HAVING, other aggregates, identifiers and free text
in conditions, joins of different people's rows. Conditions are a small typed language of functions that no value makes
fail, so that no error tells whether a row exists. The answer is made coarse inside the engine; ORDER BY and LIMIT see
only what is shown.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.errors import InvalidQuery, NotAllowed
from cohort.counts_expression import Columns, kind_of
from cohort.gate import statement
from cohort.keys import KEYS
from cohort.privacy import PATIENTS

PERSON_KEYS = frozenset(
    {
        "patient_id", "study_instance_uid", "imaging_study_id", "series_instance_uid", "sop_instance_uid",
        "encounter_id", "diagnostic_report_id", *KEYS.values(),
    }
)  # fmt: skip
"""Columns whose value belongs to one patient: rows that share one speak of the same person."""

COUNTED = ("patient_id", "patient_key")


@dataclass(frozen=True)
class Counting:
    """The rewritten query: `tree` for json_deserialize_sql, and what goes around the SQL that comes of it."""

    tree: Mapping[str, Any]
    names: tuple[str, ...]
    counts: tuple[bool, ...]
    tail: str
    small_cells: int

    def around(self, inner: str) -> str:
        """SQL: the groups with enough patients, their counts coarse, then ordered and cut as asked."""
        k = self.small_cells
        shown = [
            f'c{n} // {k} * {k} AS "{name}"' if count else f'c{n} AS "{name}"'
            for n, (name, count) in enumerate(zip(self.names, self.counts, strict=True))
        ]
        enough = " AND ".join(f"c{n} >= {k}" for n, count in enumerate(self.counts) if count)
        return f"SELECT * FROM (SELECT {', '.join(shown)} FROM ({inner}) WHERE {enough}) {self.tail}"


def counting(tree: Any, tables: Mapping[str, Columns], small_cells: int) -> Counting:
    """The rewritten form of a gated tree. Raises NotAllowed naming what a count cannot have.

    `tables`: table → column → DuckDB type.
    """
    made = copy.deepcopy(tree)
    node = statement(made)
    if node["type"] != "SELECT_NODE" or node.get("cte_map", {}).get("map"):
        raise _refused("one plain SELECT is allowed: no WITH, no UNION")
    for part, name in (("having", "HAVING"), ("qualify", "QUALIFY"), ("sample", "TABLESAMPLE")):
        if node.get(part):
            raise _refused(f"{name} is not allowed")
    sources = _sources(node["from_table"], tables)
    if node.get("where_clause") and kind_of(node["where_clause"], sources) != "boolean":
        raise _refused("WHERE takes a condition")
    chosen: list[Any] = node["select_list"]
    counts = tuple(_is_count(one) for one in chosen)
    if not any(counts):
        raise _refused(f"count(DISTINCT {COUNTED[0]}) must be among what is selected, and nothing else can be counted")
    for one, count in zip(chosen, counts, strict=True):
        if not count:
            kind_of(one, sources)
    _check_groups(node, chosen, counts)
    names = _names(chosen, counts)
    tail = _tail(node["modifiers"], chosen, names)
    for number, one in enumerate(chosen):
        one["alias"] = f"c{number}"
    node |= {
        "modifiers": [], "group_expressions": [], "group_sets": [], "aggregate_handling": "FORCE_AGGREGATES",
    }  # fmt: skip
    return Counting(made, names, counts, tail, small_cells)


def _sources(source: Any, tables: Mapping[str, Columns]) -> list[tuple[str, str, Columns]]:
    """(alias, table, columns) of everything in FROM, joined so that every row speaks of one person."""
    if source["type"] == "BASE_TABLE":
        table = str(source["table_name"]).lower()
        if source.get("column_name_alias") or source.get("sample") or table not in tables:
            raise _refused("tables keep the names of their columns")
        return [(str(source["alias"] or table).lower(), table, tables[table])]
    if source["type"] != "JOIN":
        raise _refused("only tables can stand in FROM")
    keys = {str(c).lower() for c in source.get("using_columns", [])}
    plain = source["ref_type"] == "REGULAR" and source["join_type"] in ("INNER", "LEFT", "RIGHT", "OUTER", "FULL")
    if not plain or not keys & PERSON_KEYS or source.get("condition"):
        raise _refused(f"tables are joined by USING with one of {', '.join(sorted(PERSON_KEYS))}")
    return _sources(source["left"], tables) + _sources(source["right"], tables)


def _is_count(expression: Any) -> bool:
    if expression["class"] != "FUNCTION" or expression["function_name"].lower() not in ("count", "count_star"):
        return False
    arguments = [a["expression"] for a in expression["arguments"]]
    plain = not expression.get("filter") and not expression["order_bys"]["orders"]
    patients = len(arguments) == 1 and arguments[0].get("column_names", [""])[-1].lower() in COUNTED
    named = patients and len(arguments[0]["column_names"]) <= 2
    if not (expression["distinct"] and named and plain):
        raise _refused(f"only count(DISTINCT {COUNTED[0]}) is allowed")
    return True


def _check_groups(node: Any, chosen: Sequence[Any], counts: Sequence[bool]) -> None:
    """GROUP BY must name what is selected: that is what the rewritten query groups by."""
    if len(node["group_sets"]) > 1:
        raise _refused("grouping sets are not allowed")
    for one in node["group_expressions"]:
        _place(one, chosen, "GROUP BY")
    if node["aggregate_handling"] != "FORCE_AGGREGATES":
        groups = {_place(one, chosen, "GROUP BY") for one in node["group_expressions"]}
        if groups != {n for n, count in enumerate(counts) if not count}:
            raise _refused("GROUP BY names every selected column that is not a count, and no other")


def _place(expression: Any, chosen: Sequence[Any], where: str) -> int:
    """Which of the selected expressions is meant: by number, by alias, or written again."""
    literal = expression.get("literal", {})
    if expression["class"] == "CONSTANT" and literal.get("kind") == "INTEGER":
        number = int(literal["text"]) - 1
        if 0 <= number < len(chosen):
            return number
    written = _text(expression)
    named = expression.get("column_names", [])
    for number, one in enumerate(chosen):
        if _text(one) == written or (len(named) == 1 and str(one["alias"]).lower() == named[0].lower() != ""):
            return number
    raise _refused(f"{where} names what is selected")


def _text(expression: Any) -> Any:
    """An expression without where it stands and what it is called, to compare it with another."""
    if isinstance(expression, dict):
        skipped = ("query_location", "query_location_length", "alias")
        return {k: _text(v) for k, v in expression.items() if k not in skipped}
    if isinstance(expression, list):
        return [_text(v) for v in expression]
    return expression


def _names(chosen: Sequence[Any], counts: Sequence[bool]) -> tuple[str, ...]:
    """What the columns are called: their alias, their name, else a number; never twice the same."""
    names: list[str] = []
    for number, (one, count) in enumerate(zip(chosen, counts, strict=True), 1):
        column = one["column_names"][-1] if one["class"] == "COLUMN_REF" else f"column{number}"
        name = str(one["alias"]) or (PATIENTS if count else column)
        if not name.replace("_", "").isalnum() or len(name) > 60:
            raise _refused("names of columns are letters, digits and _")
        names.append(name if name not in names else f"{name}_{number}")
    return tuple(names)


def _tail(modifiers: Sequence[Any], chosen: Sequence[Any], names: Sequence[str]) -> str:
    """ORDER BY and LIMIT over what is shown; without ORDER BY by all columns."""
    order, cut = "ORDER BY ALL", ""
    for one in modifiers:
        if one["type"] == "ORDER_MODIFIER":
            order = "ORDER BY " + ", ".join(_ordered(o, chosen, names) for o in one["orders"])
        elif one["type"] == "LIMIT_MODIFIER":
            parts = (("LIMIT", one.get("limit")), ("OFFSET", one.get("offset")))
            cut = " ".join(f"{word} {_whole(value)}" for word, value in parts if value)
        else:
            raise _refused("DISTINCT is not allowed")
    return f"{order} {cut}".strip()


def _ordered(order: Any, chosen: Sequence[Any], names: Sequence[str]) -> str:
    if order["expression"]["class"] == "STAR":
        return "ALL"
    place = _place(order["expression"], chosen, "ORDER BY")
    return f'"{names[place]}" {"DESC" if order["type"] == "DESCENDING" else "ASC"}'


def _whole(value: Any) -> int:
    text = str(value.get("literal", {}).get("text", ""))
    if value.get("class") != "CONSTANT" or not text.isdigit() or len(text) > 9:
        raise _refused("LIMIT and OFFSET are whole numbers")
    return int(text)


def _refused(what: str) -> InvalidQuery:
    return NotAllowed(f"sql: where rows may not be seen, {what}")
