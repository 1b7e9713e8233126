"""Delta files as rows in DuckDB: every resource that arrived, and of each the version that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import orjson

from cohort import delta
from cohort.delta import Newest, Parked
from cohort.keys import key_sql
from cohort.layers import quoted
from cohort.tables import Tables

COLUMNS = {
    "_hash": "BIGINT", "_key": "VARCHAR", "_revision": "BIGINT", "origin": "VARCHAR", "type": "VARCHAR",
    "id": "VARCHAR", "deleted": "BOOLEAN", "json": "VARCHAR",
}  # fmt: skip
"""Of a delta file in Parquet, in the order of the lines it was made of. `_key` is origin/id, `_hash` its key."""

_LINE = {
    "kind": "VARCHAR", "origin": "VARCHAR", "type": "VARCHAR", "id": "VARCHAR", "revision": "BIGINT",
    "deleted": "BOOLEAN", "resource": "JSON", "table": "VARCHAR", "key": "VARCHAR", "rows": "JSON",
}  # fmt: skip
_SOUND = """
CASE kind WHEN 'resource' THEN origin IS NOT NULL AND id IS NOT NULL AND revision IS NOT NULL
               AND regexp_full_match("type", '[A-Za-z]+') AND (deleted OR starts_with(resource, '{'))
          WHEN 'rows' THEN "table" IS NOT NULL AND "key" IS NOT NULL AND revision IS NOT NULL
               AND starts_with("rows", '[') END
"""
_FILES_APART = 1 << 40
"""Greater than the rows of any file: later files have higher places."""


def take(tables: Tables, batch: Sequence[Path]) -> Newest:
    """The table `arrived` (COLUMNS and `place`, higher for later lines) of the resources in delta files of one kind.

    Result  the sets of rows, and what could not be read; no resources
    """
    if batch[0].suffix == ".parquet":
        each = (
            f"SELECT *, {number * _FILES_APART} + file_row_number AS place "
            f"FROM read_parquet({quoted(path)}, file_row_number = true)"
            for number, path in enumerate(batch)
        )
        tables.show("arrived", " UNION ALL ".join(each))
        return Newest()
    try:
        read = _read(tables, batch)
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException):
        read = None
    return _read_one_by_one(tables, batch) if read is None else read


def choose(tables: Tables, kind: str, parked: list[Parked]) -> int:
    """The view `won`: the arrived resources of a type that are newer than all others and than what is held.

    Two resources must never have one `_hash` (cohort.keys): the first one keeps it, another one is parked.
    Result  how many there are
    """
    mine = f"(SELECT * FROM arrived WHERE type = '{kind}')"
    held = tables.scan(f"resource_{kind}", ["_hash", "_key", "_revision"])
    count = tables.count(f"SELECT count(*) FROM {mine}")
    again = tables.make("again", f"SELECT _hash FROM {mine} GROUP BY _hash HAVING count(*) > 1")
    tables.make(
        "lost",
        f"SELECT c.place, any_value(c._key) AS _key, bool_or(o._key <> c._key) AS shared FROM {held} o "
        f"JOIN {mine} c USING (_hash) WHERE o._key <> c._key OR o._revision > c._revision GROUP BY c.place",
    )
    if again:
        tables.db.execute(
            "INSERT INTO lost SELECT place, _key, _key <> first FROM (SELECT place, _key, "
            "first_value(_key) OVER (PARTITION BY _hash ORDER BY place) AS first, "
            "row_number() OVER (PARTITION BY _hash, _key ORDER BY _revision DESC, place DESC) AS later "
            f"FROM {mine} SEMI JOIN again USING (_hash) ANTI JOIN lost USING (place)) WHERE later > 1 OR _key <> first"
        )
    for (shared,) in tables.db.execute("SELECT DISTINCT _key FROM lost WHERE shared ORDER BY 1").fetchall():
        named = f"{kind}/{shared.partition('/')[2]}"
        parked.append((named, 0, "its key is that of another resource of its type: give it another id"))
    left = count - tables.count("SELECT count(*) FROM lost")
    without = f"{mine} ANTI JOIN lost USING (place)" if left < count else mine
    tables.show("won", f"SELECT _hash, _key, _revision, origin, id, deleted, json FROM {without}")
    return left


def _read(tables: Tables, batch: Sequence[Path]) -> Newest | None:
    """By DuckDB. None when a line is not of the delta's format: then it has to be found and named."""
    described = ", ".join(f"'{name}': '{kind}'" for name, kind in _LINE.items())
    files = ", ".join(map(quoted, batch))
    tables.db.execute("SET preserve_insertion_order = true")
    try:
        tables.make("lines", f"SELECT *, coalesce({_SOUND}, false) AS sound FROM "
                    f"read_json([{files}], format='newline_delimited', columns={{{described}}})")  # fmt: skip
    finally:
        tables.db.execute("SET preserve_insertion_order = false")
    if tables.count("SELECT count(*) FROM lines WHERE NOT sound"):
        return None
    tables.show(
        "arrived",
        f"""
        SELECT {key_sql("_key")} AS _hash, *
        FROM (SELECT origin || '/' || id AS _key, revision AS _revision, origin, type, id,
                     coalesce(deleted, false) AS deleted,
                     CASE WHEN NOT coalesce(deleted, false) THEN resource::VARCHAR END AS json, place
              FROM {tables.halves("lines", "*, rowid AS place")} WHERE kind = 'resource')""",
    )
    newest = Newest()
    query = 'SELECT "table", "key", revision, "rows" FROM lines WHERE kind = \'rows\' ORDER BY rowid'
    for table, key, revision, rows in tables.db.execute(query).fetchall():
        delta.take(newest, {"kind": "rows", "table": table, "key": key, "revision": revision,
                            "rows": orjson.loads(rows)})  # fmt: skip
    return newest


def _read_one_by_one(tables: Tables, batch: Sequence[Path]) -> Newest:
    newest = delta.read(batch)
    rows = (_row(line) | {"place": place} for place, line in enumerate(newest.resources.values()))
    tables.load("by_line", rows, COLUMNS | {"place": "BIGINT"})
    tables.show("arrived", f"SELECT * REPLACE ({key_sql('_key')} AS _hash) FROM by_line")
    newest.resources.clear()
    return newest


def _row(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "_key": f"{line['origin']}/{line['id']}", "_revision": line["revision"], "origin": line["origin"],
        "type": line["type"], "id": line["id"], "deleted": bool(line["deleted"]),
        "json": None if line["deleted"] else orjson.dumps(line["resource"]).decode(),
    }  # fmt: skip
