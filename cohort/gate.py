"""The gate for people's SQL: DuckDB's own parse tree, read before anything runs. Pure.

Only what is listed passes: kinds of nodes and expressions, tables, functions (`cohort.functions`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge.errors import InvalidQuery
from cohort.functions import ALLOWED, TABLE_FUNCTIONS

QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
FROM_TYPES = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "PIVOT"})
CLASSES = frozenset(
    {
        "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "DEFAULT",
        "FUNCTION", "LAMBDA", "LAMBDA_REF", "OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW",
    }
)  # fmt: skip
MODIFIERS = frozenset({"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"})
_LISTED = QUERY_NODES | FROM_TYPES | MODIFIERS | {"ORDER_DEFAULT", "ASCENDING", "DESCENDING"}

Scope = frozenset[str]


def statement(tree: Any) -> dict[str, Any]:
    """The one SELECT of a tree of json_serialize_sql. Raises InvalidQuery when it is none or several."""
    if tree.get("error"):
        raise InvalidQuery(f"sql: {tree.get('error_message', 'not a SELECT')}")
    statements = tree.get("statements", [])
    if len(statements) != 1:
        raise InvalidQuery("sql: exactly one SELECT is allowed")
    node: dict[str, Any] = statements[0]["node"]
    return node


def check(tree: Any, tables: frozenset[str], reserved: frozenset[str] = frozenset()) -> None:
    """Raises InvalidQuery unless the tree is one SELECT over known tables with listed functions.

    `reserved` are names that no WITH may take: those of the engine's own catalog.
    """
    stack: list[tuple[Any, Scope]] = [(statement(tree), tables)]
    while stack:
        value, scope = stack.pop()
        if isinstance(value, list):
            stack += [(one, scope) for one in value]
        elif isinstance(value, dict):
            _check_node(value, scope)
            entries, scope = _with(value, scope, reserved)
            stack += entries
            stack += [(one, scope) for one in _parts(value)]


def _with(node: dict[str, Any], scope: Scope, reserved: frozenset[str]) -> tuple[list[tuple[Any, Scope]], Scope]:
    """The bodies of a node's WITH, each with the names it can see, and what the node itself can see: a body sees what
    stands before it, and itself only when it is recursive."""
    entries: list[tuple[Any, Scope]] = []
    ctes = node.get("cte_map")
    for entry in ctes.get("map", []) if isinstance(ctes, dict) else []:
        name, body = str(entry["key"]).lower(), entry["value"]
        if name in reserved:
            raise InvalidQuery("sql: WITH cannot take the name of a table of the engine's catalog")
        recursive = body.get("query_node", {}).get("type") == "RECURSIVE_CTE_NODE"
        entries.append((body, scope | {name} if recursive else scope))
        scope = scope | {name}
    return entries, scope


def _parts(node: dict[str, Any]) -> Iterator[Any]:
    """A node's parts but its WITH and, of a table function, the name that is checked with it."""
    for key, value in node.items():
        if key == "cte_map":
            continue
        if key == "function" and node.get("type") == "TABLE_FUNCTION":
            yield from (v for k, v in value.items() if isinstance(v, dict | list) and k != "qualified_name")
        else:
            yield value


def _check_node(node: dict[str, Any], tables: Scope) -> None:
    kind = node.get("type")
    if "class" in node:
        _check_expression(node)
    elif isinstance(kind, str) and kind not in _LISTED:
        raise InvalidQuery("sql: only tables, subqueries, joins and values can stand in FROM of a SELECT")
    if kind == "BASE_TABLE":
        if node.get("catalog_name") or node.get("schema_name") not in ("", "main", None):
            raise InvalidQuery("sql: tables are named without catalog and schema")
        if str(node["table_name"]).lower() not in tables:
            raise InvalidQuery("sql: an unknown table is named; `cohort tables` lists the known ones")
        if node.get("at_clause"):
            raise InvalidQuery("sql: AT is not allowed")
    if kind == "TABLE_FUNCTION":
        called = node.get("function", {})
        if str(called.get("function_name", "")).lower() not in TABLE_FUNCTIONS or called.get("schema"):
            allowed = ", ".join(sorted(TABLE_FUNCTIONS))
            raise InvalidQuery(f"sql: this table function is not allowed; allowed: {allowed}")


def _check_expression(node: dict[str, Any]) -> None:
    if node["class"] not in CLASSES:
        raise InvalidQuery(f"sql: {str(node['class']).lower().replace('_', ' ')} is not allowed")
    name = node.get("function_name")
    if name is None:
        return
    if node.get("schema") or node.get("catalog"):
        raise InvalidQuery("sql: functions are named without catalog and schema")
    if str(name).lower() not in ALLOWED:
        raise InvalidQuery(f"sql: the function {str(name).lower()[:60]} is not allowed")
