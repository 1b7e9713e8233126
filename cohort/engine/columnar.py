"""An answer as columns again: a DuckDB relation, with the types the answer had."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import duckdb
import orjson

from cohort.answer import Answer

Relation = duckdb.DuckDBPyRelation


def relation(answer: Answer) -> Relation:
    """A relation `answer` over the rows, in a connection of its own that reads and installs nothing by itself."""
    names = [f"c{i}" for i in range(len(answer.columns))]
    types = {name: kind for name, (_, kind) in zip(names, answer.columns, strict=True)}
    shown = ", ".join(
        f'{name} AS "{column.replace(chr(34), chr(34) * 2)}"'
        for name, (column, _) in zip(names, answer.columns, strict=True)
    )
    settings: dict[str, Any] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    connection = duckdb.connect(":memory:", config=settings)
    connection.execute("SET TimeZone = 'UTC'")
    if not answer.rows:
        empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in types.items())
        connection.execute(f"CREATE TABLE answer AS SELECT {shown} FROM (SELECT {empty} WHERE false)")
        return connection.table("answer")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.ndjson"
        with rows.open("wb") as file:
            for row in answer.rows:
                file.write(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n")
        read = "read_json($1, format='newline_delimited', columns=$2, maximum_object_size=1073741824)"
        connection.execute(f"CREATE TABLE answer AS SELECT {shown} FROM {read}", [str(rows), types])
    return connection.table("answer")
