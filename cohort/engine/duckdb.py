"""DuckDB over one generation: a locked connection that sees the generation's tables and nothing else."""

from __future__ import annotations

from typing import Any

import duckdb

from cohort.lake import Generation

MEMORY_LIMIT_MB = 1024


def connect(generation: Generation, *, memory_limit_mb: int = MEMORY_LIMIT_MB, threads: int = 2) -> Any:
    """An in-memory connection with one view for each table. Read-only in effect: no other file, no network, no
    extension, no Python variable and no setting can be reached from it any more."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": f"{memory_limit_mb}MB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "python_scan_all_frames": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    names = [str(table.file) for table in generation.tables.values()]
    connection.execute("SET allowed_paths = ?", [names])
    for table in generation.tables.values():
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        file = str(table.file).replace("'", "''")
        connection.execute(f"CREATE VIEW \"{table.name}\" AS SELECT {columns} FROM read_parquet('{file}')")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection
