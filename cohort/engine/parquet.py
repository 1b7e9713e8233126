"""An answer as a Parquet file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import orjson

from cohort.answer import Answer


def parquet(answer: Answer) -> bytes:
    """The answer's rows as Parquet (zstd), columns with the types they had."""
    with tempfile.TemporaryDirectory() as folder:
        rows, out = Path(folder) / "rows.ndjson", Path(folder) / "answer.parquet"
        names = [f"c{i}" for i in range(len(answer.columns))]
        rows.write_bytes(b"".join(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n" for row in answer.rows))
        connection = duckdb.connect(":memory:")
        connection.execute("SET TimeZone = 'UTC'")
        types = {name: kind for name, (_, kind) in zip(names, answer.columns, strict=True)}
        read = "read_json($1, format='newline_delimited', columns=$2, maximum_object_size=1073741824)"
        shown = ", ".join(
            f'{name} AS "{column.replace(chr(34), chr(34) * 2)}"'
            for name, (column, _) in zip(names, answer.columns, strict=True)
        )
        empty = ", ".join(f"NULL::{kind} AS {name}" for name, kind in types.items())
        source = read if answer.rows else f"(SELECT {empty} WHERE false)"
        bound = [str(rows), types] if answer.rows else []
        connection.execute(f"CREATE TABLE answer AS SELECT {shown} FROM {source}", bound)
        connection.execute(f"COPY answer TO '{out}' (FORMAT parquet, COMPRESSION zstd)")
        connection.close()
        return out.read_bytes()
