"""The process that queries run in: limits itself, sees one generation, answers in JSON, ends with who asks."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from bridge.confined import allow_cpu, confine, end_with_asker
from cohort.frames import receive, send
from cohort.spill import MAXIMUM_SPILL

PROGRESS_S = 0.25


def main() -> None:
    """Answers requests with {"columns", "rows", "truncated"} or {"error", "refused"}. The first says what to open."""
    gc.disable()  # rows have no cycles, and there are many
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing but answers goes where they are read
    end_with_asker(answers.fileno())
    query = None
    with suppress(BrokenPipeError):
        while (asked := receive(sys.stdin.buffer)) is not None:
            request = orjson.loads(asked)
            query = query or _Query(request["opened"])
            allow_cpu(request["cpu_s"])
            answer = orjson.dumps(query.answer(request))
            if request["watched"]:
                os.write(query.progress, b"\n")  # no percentage comes any more
            send(answers, answer)


class _Query:
    """What runs queries, one after another, on one connection."""

    def __init__(self, opened: Any) -> None:
        os.nice(opened["nice"])
        confine(opened["address_space"], file_bytes=MAXIMUM_SPILL if opened["spill"] else 0)
        self._opened, self.progress = opened, opened["progress"]
        self._connection: tuple[Any, dict[str, Any]] | None = None

    def answer(self, request: Any) -> dict[str, Any]:
        import duckdb

        from bridge.errors import InvalidQuery, NotAllowed
        from cohort.engine.rows import executed, rows_of

        try:
            connection, tables = self._connected()
            sql = _passed(connection, request, tables)
            with _telling(connection, self.progress if request["watched"] else None):
                ours = request["gate"] == "ours"
                known, bound = request["columns"], request["bound"]
                columns, cursor, lists = executed(connection, sql, bound, as_json=ours, known=known)
                rows, truncated = rows_of(cursor, request["rows"], request["answer_bytes"], lists)
            return {"columns": columns, "rows": rows, "truncated": truncated}
        except InvalidQuery as error:
            return {"error": str(error), "refused": isinstance(error, NotAllowed)}
        except duckdb.Error as error:
            return {"error": "sql: " + _said(error)}
        except MemoryError:
            return {"error": "the query used more memory than allowed and was ended"}

    def _connected(self) -> tuple[Any, dict[str, Any]]:
        """The connection, and its tables."""
        from cohort.engine.duckdb import connect
        from cohort.generation import Generation, Table
        from cohort.layers import layer
        from cohort.schema import Column

        opened = self._opened
        if self._connection is None:
            tables = {
                name: Table(
                    name,
                    tuple(layer(Path(opened["files"]), entry) for entry in t["layers"]),
                    tuple(Column(c, kind) for c, kind in t["columns"]),
                )
                for name, t in opened["tables"].items()
            }
            connection = connect(
                Generation("", "", tables),
                memory_limit_mb=opened["memory_mb"],
                views=opened["views"],
                progress=True,
                variables=opened["variables"],
                spill=opened["spill"],
            )
            self._connection = connection, tables
        return self._connection


@contextmanager
def _telling(connection: Any, pipe: int | None) -> Iterator[None]:
    """Writes the percentage that is done to the pipe, a line each time, while the query runs."""
    if pipe is None:
        yield
        return
    done = threading.Event()

    def tell() -> None:
        with suppress(OSError):
            while not done.wait(PROGRESS_S):
                share = connection.query_progress()
                if share >= 0:
                    os.write(pipe, f"{share:.1f}\n".encode())

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _passed(connection: Any, request: Any, tables: dict[str, Any]) -> str:
    """The SQL to run: ours as it is, people's after the gate, and what they count rewritten."""
    from cohort.counts import counting
    from cohort.gate import check

    sql: str = request["sql"]
    if request["gate"] == "ours":
        return sql
    text = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()[0]
    internal = connection.execute("SELECT lower(view_name) FROM duckdb_views() WHERE internal").fetchall()
    check(orjson.loads(text), frozenset(request["known"]), frozenset(row[0] for row in internal))
    if request["gate"] == "rows":
        return sql
    columns = {name: {c.name: c.type for c in t.columns} for name, t in tables.items()}
    made = counting(orjson.loads(text), columns, request["small_cells"])
    inner = connection.execute("SELECT json_deserialize_sql($1::JSON)", [orjson.dumps(made.tree).decode()]).fetchone()
    return made.around(inner[0])


def _said(error: Exception) -> str:
    """The first line of DuckDB's message where it speaks of the text of the query; of values, that one did not fit."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if first.startswith(("Parser Error", "Binder Error", "Catalog Error", "Syntax Error")):
        return first[:300]
    if first.startswith("Out of Memory Error") or "No space left" in first:
        return "the query needs more memory than allowed, or more disk than there is for temporary files"
    if first.startswith("IO Error"):
        return "the lake's files cannot be read"
    return "a value does not fit what the query does with it"


if __name__ == "__main__":
    main()
