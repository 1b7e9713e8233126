"""The gate for people's SQL: DuckDB's own parse tree, read before anything runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bridge.errors import InvalidQuery

TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series"})
FROM_TYPES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "EMPTY_FROM", "PIVOT"}
)
DENIED_FUNCTIONS = frozenset(
    [
        "repeat",
        "lpad",
        "rpad",
        "printf",
        "format",
        "getenv",
        "getvariable",
        "current_setting",
        "set_config",
        "query",
        "query_table",
        "nextval",
        "currval",
        "json_execute_serialized_sql",
        "read_text",
        "read_blob",
        "glob",
        "sniff_csv",
        "which_secret",
        "write_log",
        "pg_typeof",
        "version",
        "current_database",
        "current_schema",
        "current_schemas",
        "current_query",
        "txid_current",
        "in_search_path",
        "list_resize",
        "array_resize",
        "bar",
    ]
)
DENIED_PREFIXES = ("read_", "duckdb_", "pragma_", "parquet_", "pg_", "sniff_", "has_", "icu_", "__internal", "enable_")


def check(tree: Any, tables: frozenset[str]) -> None:
    """Raises InvalidQuery unless the tree (of json_serialize_sql) is one SELECT over known tables with allowed
    functions."""
    if tree.get("error"):
        message = str(tree.get("error_message", "not a SELECT"))
        raise InvalidQuery(f"sql: {message}")
    statements = tree.get("statements", [])
    if len(statements) != 1:
        raise InvalidQuery("sql: exactly one SELECT is allowed")
    nodes = list(_nodes(statements[0]))
    own = frozenset(name for node in nodes for name in _cte_names(node))
    for node in nodes:
        _check_node(node, tables | own)


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            yield one
            stack += one.values()
        elif isinstance(one, list):
            stack += one


def _cte_names(node: dict[str, Any]) -> Iterator[str]:
    names = node.get("cte_map")
    if isinstance(names, dict):
        for entry in names.get("map", []):
            yield str(entry.get("key", "")).lower()
    if "cte_name" in node:
        yield str(node["cte_name"]).lower()
    if node.get("type") == "RECURSIVE_CTE_NODE" and "cte_name" in node:
        yield str(node["cte_name"]).lower()


def _check_node(node: dict[str, Any], tables: frozenset[str]) -> None:
    if "table_name" in node and node.get("type") == "BASE_TABLE":
        if node.get("catalog_name") or node.get("schema_name") not in ("", "main", None):
            raise InvalidQuery("sql: tables are named without catalog and schema")
        if str(node["table_name"]).lower() not in tables:
            raise InvalidQuery("sql: an unknown table is named; `cohort tables` lists the known ones")
    if "from_table" in node and isinstance(node["from_table"], dict):
        _check_from(node["from_table"])
    for side in ("left", "right", "source"):
        inner = node.get(side)
        if node.get("type") in ("JOIN", "PIVOT") and isinstance(inner, dict):
            _check_from(inner)
    if node.get("type") == "TABLE_FUNCTION":
        name = str(node.get("function", {}).get("function_name", "")).lower()
        if name not in TABLE_FUNCTIONS:
            raise InvalidQuery(
                "sql: this table function is not allowed; allowed: " + ", ".join(sorted(TABLE_FUNCTIONS))
            )
    name = str(node.get("function_name", "")).lower()
    if name and (name in DENIED_FUNCTIONS or name.startswith(DENIED_PREFIXES)):
        raise InvalidQuery(f"sql: the function {name} is not allowed")


def _check_from(source: dict[str, Any]) -> None:
    if source.get("type") not in FROM_TYPES:
        raise InvalidQuery("sql: only tables, subqueries, joins and values can stand in FROM")
