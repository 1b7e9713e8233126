"""The rows of a view, of many resources at once: by DuckDB, and by the evaluator where that cannot be sure.

The evaluator judges: a resource whose JSON is not built as FHIR says, or that holds a value which DuckDB could read in
another way, is given to it alone. What it cannot read is parked, and no other resource is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import orjson

from bridge.errors import InvalidQuery
from cohort.delta import Parked
from cohort.keys import KEYS, key_sql
from cohort.schema import ViewTable, view_tables
from cohort.tables import Tables
from cohort.view_columns import PARSED, fits, flat_view

SOURCE = "source"
"""The temporary table or view that resources are read from: `_hash`, `_key`, `origin`, `deleted`, `json`."""

_CHARACTERS = (
    r"CASE WHEN contains(json, '\u0000') OR contains(json, 'null') THEN NULL ELSE TRY(json_structure(json)) END"
)
"""A resource's structure; NULL where the evaluator is asked: NUL in a text, null in a list, too deep, no JSON."""

_ROWS = 2_000


def begin(tables: Tables, kind: str) -> None:
    """Looks at the resources of SOURCE, all of one type: the table `odd` names those for the evaluator."""
    views = [flat_view(name) for name, table in view_tables().items() if table.view.resource == kind]
    tables.make("structures", f"SELECT DISTINCT {_CHARACTERS} AS structure FROM {SOURCE} WHERE NOT deleted")
    tables.load("odd_structure", _odd_structures(tables, [v.row for v in views if v]), {"structure": "VARCHAR"})
    query = f"SELECT _key, {_CHARACTERS} AS structure FROM {SOURCE} WHERE NOT deleted"
    if tables.count("SELECT count(*) FROM odd_structure"):
        odd = "structure IS NULL OR structure IN (SELECT structure FROM odd_structure)"
        tables.make("odd", f"SELECT _key FROM ({query}) WHERE {odd}")
    else:
        tables.make("odd", "SELECT '' AS _key WHERE false")


def rows(tables: Tables, name: str, parked: list[Parked]) -> None:
    """The table `fresh`: the view's rows of SOURCE, with `_hash`, `_key`, `_origin`, and the integer keys of ids."""
    table = view_tables()[name]
    columns = {c.name: c.type for c in table.schema.columns}
    keys = "".join(f", {key_sql(of)} AS {made}" for of, made in KEYS.items() if of in columns)
    remaining = "odd"
    if not _by_sql(tables, name, keys):
        described = {"_hash": "BIGINT", "_key": "VARCHAR", "_origin": "VARCHAR"} | columns
        nothing = ", ".join(f'NULL::{kind} AS "{column}"' for column, kind in described.items())
        tables.make("fresh", f"SELECT *, false AS _doubtful {keys} FROM (SELECT {nothing} WHERE false)")
        tables.make("remaining", f"SELECT _key FROM {SOURCE} WHERE NOT deleted")
        remaining = "remaining"
    elif tables.make("doubtful", "SELECT DISTINCT _key FROM fresh WHERE _doubtful"):
        tables.db.execute("DELETE FROM fresh WHERE _key IN (SELECT _key FROM doubtful)")
        tables.make("remaining", "SELECT _key FROM odd UNION ALL SELECT _key FROM doubtful")
        remaining = "remaining"
    if tables.count(f"SELECT count(*) FROM {remaining}"):
        described = {"_key": "VARCHAR", "_origin": "VARCHAR"} | columns
        tables.load("evaluated", _evaluated(tables, name, table, remaining, parked), described)
        tables.db.execute(
            f"INSERT INTO fresh BY NAME SELECT *, {key_sql('_key')} AS _hash, false AS _doubtful {keys} FROM evaluated"
        )


def _by_sql(tables: Tables, name: str, keys: str) -> bool:
    """Whether DuckDB could make the rows of all resources but the odd ones."""
    view = flat_view(name)
    if view is None:
        return False
    left_out = " ANTI JOIN odd USING (_key)" if tables.count("SELECT count(*) FROM odd") else ""
    tables.db.execute(
        f"CREATE OR REPLACE TEMP VIEW {PARSED} AS SELECT _hash, _key, _origin, unnest(parsed) FROM ("
        f"SELECT _hash, _key, origin AS _origin, json_transform(json, '{view.structure}') AS parsed "
        f"FROM {SOURCE}{left_out} WHERE NOT deleted)"
    )
    try:
        tables.make("fresh", f"SELECT * {keys} FROM ({view.rows})")
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException):
        return False
    return True


def _odd_structures(tables: Tables, wanted: list[Any]) -> Iterator[Mapping[str, str | None]]:
    found = tables.db.execute("SELECT structure FROM structures")
    while some := found.fetchmany(_ROWS):
        for (structure,) in some:
            if structure is None or not all(fits(orjson.loads(structure), row) for row in wanted):
                yield {"structure": structure}


def _evaluated(
    tables: Tables, name: str, table: ViewTable, keys: str, parked: list[Parked]
) -> Iterator[Mapping[str, Any]]:
    found = tables.db.execute(
        f"SELECT _key, origin, json FROM {SOURCE} SEMI JOIN {keys} USING (_key) WHERE NOT deleted"
    )
    while some := found.fetchmany(_ROWS):
        for key, origin, json in some:
            for row in _rows_of(name, table, key, json, parked):
                yield {"_key": key, "_origin": origin} | row


def _rows_of(name: str, table: ViewTable, key: str, json: str, parked: list[Parked]) -> list[dict[str, Any]]:
    try:
        return table.rows(orjson.loads(json))
    except (InvalidQuery, RecursionError, TypeError, AttributeError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, InvalidQuery) else "the resource is malformed"
        named = f"{table.view.resource}/{key.partition('/')[2]}"
        parked.append((named, 0, f"table {name}: {reason}"))
        return []
