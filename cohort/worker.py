"""The process one query runs in: limits itself, sees one generation, answers JSON on standard output, ends."""

from __future__ import annotations

import resource
import sys
from datetime import date, datetime
from datetime import time as clock_time
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson


def main() -> None:
    """Reads one request, runs it, writes {"columns", "rows", "truncated"} or {"error"}."""
    request = orjson.loads(sys.stdin.buffer.read())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (request["cpu_s"], request["cpu_s"] + 1))
    resource.setrlimit(resource.RLIMIT_AS, (request["address_space"], request["address_space"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.stdout.buffer.write(orjson.dumps(_answer(request)))


def _answer(request: Any) -> dict[str, Any]:
    import duckdb

    from bridge.errors import InvalidQuery
    from cohort.engine.duckdb import connect
    from cohort.generation import Generation, Table
    from cohort.layers import layer
    from cohort.schema import Column

    tables = {
        name: Table(
            name,
            tuple(layer(Path(request["files"]), entry) for entry in t["layers"]),
            tuple(Column(c, kind) for c, kind in t["columns"]),
        )
        for name, t in request["tables"].items()
    }
    try:
        connection = connect(Generation("", "", tables), memory_limit_mb=request["memory_mb"])
        if request["gated"]:
            _gate(connection, request["sql"], frozenset(request["known"]))
        cursor = connection.execute(request["sql"], request["bound"])
        columns = [[d[0], str(d[1])] for d in cursor.description]
        rows, truncated = _rows(cursor, request["rows"], request["answer_bytes"])
        return {"columns": columns, "rows": rows, "truncated": truncated}
    except InvalidQuery as error:
        return {"error": str(error)}
    except duckdb.Error as error:
        return {"error": "sql: " + _said(error)}
    except MemoryError:
        return {"error": "the query used more memory than allowed and was ended"}


def _gate(connection: Any, sql: str, tables: frozenset[str]) -> None:
    from cohort.gate import check

    tree = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()[0]
    check(orjson.loads(tree), tables)


def _rows(cursor: Any, most: int, most_bytes: int) -> tuple[list[list[Any]], bool]:
    found: list[list[Any]] = []
    size = 0
    while len(found) <= most:
        some = cursor.fetchmany(min(1000, most + 1 - len(found)))
        if not some:
            return found, False
        plain = [[_plain(value) for value in row] for row in some]
        size += len(orjson.dumps(plain))
        if size > most_bytes:
            return found, True
        found += plain
    return found[:most], True


def _plain(value: Any) -> Any:
    """A DuckDB value as JSON."""
    if value is None or isinstance(value, bool | int | str):
        return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, datetime | date | clock_time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes | bytearray):
        return value.hex()
    return str(value)


def _said(error: Exception) -> str:
    """The first line of DuckDB's message, without what it quotes of a value it could not convert."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if first.startswith(("Conversion Error", "Invalid Input Error", "Out of Range Error")):
        return first.partition(":")[0] + ": a value does not fit the type asked for"
    return first[:300]


if __name__ == "__main__":
    main()
