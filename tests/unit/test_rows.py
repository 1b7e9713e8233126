"""The rows of a query as JSON: what DuckDB writes of a list is what Python's objects would be written as."""

from __future__ import annotations

from typing import Any

import duckdb
import orjson
import pytest

from cohort.engine.rows import executed, rows_of

ODD = (
    "",
    "plain",
    'quotes " and \\ and /',
    "line\nend\ttab\r\b\f",
    "\u0000\u001f\u007f",
    "ü ß 骨肉腫 \u2028 😀",
    "</script>",
)


@pytest.fixture
def connection() -> Any:
    with duckdb.connect(":memory:") as opened:
        opened.execute("CREATE TABLE t (n INTEGER, texts VARCHAR[], days DATE[], names VARCHAR[])")
        rows = [
            (1, list(ODD), None, []),
            (2, None, ["2024-02-29"], [None, "a"]),
            (3, [], [], None),
            (4, [None], [None], ["b" * 100_000]),
        ]
        opened.executemany("INSERT INTO t VALUES ($1, $2, $3, $4)", rows)
        yield opened


def _read(connection: Any, sql: str, most: int = 1000, most_bytes: int = 1 << 30) -> tuple[list[Any], bool]:
    _, cursor, lists = executed(connection, sql, as_json=True)
    parts, more = rows_of(cursor, most, most_bytes, lists)
    return [row for part in orjson.loads(orjson.dumps(parts)) for row in part], more


def test_lists_of_texts_are_what_they_are_as_pythons_objects(connection: Any) -> None:
    sql = "SELECT n, texts, days, names FROM t ORDER BY n DESC"
    plain, _ = rows_of(connection.execute(sql), 1000, 1 << 30)

    found, more = _read(connection, sql)

    assert found == [row for part in orjson.loads(orjson.dumps(plain)) for row in part]
    assert found[-1] == [1, list(ODD), None, []]
    assert [row[0] for row in found] == [4, 3, 2, 1]
    assert not more


def test_columns_of_one_name_are_told_by_their_place(connection: Any) -> None:
    assert _read(connection, "SELECT 1 AS a, ['x'] AS a, ['y'] AS a") == ([[1, ["x"], ["y"]]], False)


def test_many_rows_stay_in_their_order(connection: Any) -> None:
    sql = "SELECT range AS n, [range::VARCHAR] AS texts FROM range(30_000) ORDER BY hash(range)"
    wanted = [row[0] for row in connection.execute(sql).fetchall()]

    found, more = _read(connection, sql, most=20_000)

    assert [row[0] for row in found] == wanted[:20_000]
    assert all(texts == [str(n)] for n, texts in found)
    assert more


def test_no_more_bytes_than_allowed(connection: Any) -> None:
    found, more = _read(connection, "SELECT ['x'] AS texts FROM range(5_000)", most=10_000, most_bytes=10_000)

    assert (len(found), more) == (1000, True)


def test_the_types_are_those_of_the_query_not_of_its_json(connection: Any) -> None:
    sql = "SELECT texts, days AS d, texts AS d FROM t WHERE n > $1"
    plain, _, _ = executed(connection, sql, [1], as_json=False)
    columns, _, lists = executed(connection, sql, [1], as_json=True)
    assert columns == plain == [["texts", "VARCHAR[]"], ["d", "DATE[]"], ["d", "VARCHAR[]"]]
    assert lists == (0, 2)
