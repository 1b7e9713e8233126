"""DuckDB over one generation: a locked connection that sees the generation's tables and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from cohort.generation import Generation
from cohort.layers import COPIED, GONE_COLUMN, Layer, quoted, scan
from cohort.spill import MAXIMUM_SPILL

MEMORY_LIMIT_MB = 1024
STORED = "stored"
"""The schema of the tables as they are. The views of the same names in `main` are what a query sees."""

DYNAMIC_FILTER_VALUES = 1_000
"""So many keys found on one side of a join choose the row groups that are read on the other."""


def connect(
    generation: Generation,
    *,
    memory_limit_mb: int = MEMORY_LIMIT_MB,
    threads: int = 2,
    progress: bool = False,
    views: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    spill: str = "",
) -> Any:
    """An in-memory connection with one view for each table. Read-only in effect: no other file, no network, no
    extension, no Python variable and no setting can be reached from it any more.

    Past the memory a query goes on in the folder `spill`; without one it fails. With `progress`, the connection can
    tell how far its query is. `views` (table → SELECT over the schema `stored`) stand in the place of tables;
    `variables` are what these and the query need (name → hexadecimal digits of a BLOB).
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": f"{memory_limit_mb}MB",
            "temp_directory": spill,
            "max_temp_directory_size": f"{MAXIMUM_SPILL}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "python_scan_all_frames": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET enable_progress_bar = {str(progress).lower()}")
    connection.execute("SET enable_progress_bar_print = false")
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute(f"SET dynamic_or_filter_threshold = {DYNAMIC_FILTER_VALUES}")
    generation.fetch(generation.tables, copies=True)
    connection.execute(f"CREATE SCHEMA {STORED}")
    layers = [one for table in generation.tables.values() for one in table.layers]
    held = _held(connection, layers)
    connection.execute("SET allowed_paths = ?", [[str(one.file) for one in layers if one.copy not in held]])
    for table in generation.tables.values():
        columns = {f'"{column.name}"': column.type for column in table.columns}
        rows = scan(table.layers, list(columns), held) if table.layers else _none(columns)
        connection.execute(f'CREATE VIEW {STORED}."{table.name}" AS {rows}')
    for name, value in (variables or {}).items():
        connection.execute(f"SET VARIABLE {name} = unhex('{value}')")
    for name in generation.tables:
        shown = (views or {}).get(name, f'FROM {STORED}."{name}"')
        connection.execute(f'CREATE VIEW "{name}" AS {shown}')
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _held(connection: Any, layers: Sequence[Layer]) -> dict[Path, str]:
    """Attaches copies, and takes in lists of rows that are gone, which a query reads for every time it names a table.
    Result: their names in the connection."""
    found: dict[Path, str] = {}
    for number, one in enumerate(layers):
        if one.copy:
            connection.execute(f"ATTACH {quoted(one.copy)} AS copy_{number} (READ_ONLY)")
            found[one.copy] = f"copy_{number}.{COPIED}"
        if one.gone:
            found[one.gone] = f"{STORED}.gone_{number}"
            rows = f"SELECT {GONE_COLUMN} FROM read_parquet({quoted(one.gone)})"
            connection.execute(f"CREATE TABLE {found[one.gone]} AS {rows}")
    return found


def _none(columns: dict[str, str]) -> str:
    return f"SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in columns.items())} WHERE false"
