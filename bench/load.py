"""How fast NDJSON comes into an empty lake: read, made visible, compacted; and how much memory that takes.

    make bench-load                     1,000,000 resources of five types; three runs, medians
    python -m bench.load RESOURCES      another size

The resources are made by SQL with known rows; every run counts the lake's rows before its time counts.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from bench.lake_seed import Sizes, rows_sql
from bench.results_file import Measured, write
from cohort import clinical
from cohort.lake import Lake

SEED, RUNS, RESOURCES = 20260101, 3, 1_000_000
ROWS_OF_A_RESOURCE = 0.783
"""`Sizes` are shares of all rows; so many of them are resources."""

GOAL = 100_000


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else RESOURCES
    sizes = Sizes.of(int(wanted / ROWS_OF_A_RESOURCE))
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "files"
        counts, size = made(files, sizes)
        runs = [loaded(files, Path(scratch) / f"lake{n}", counts) for n in range(RUNS)]
    resources = sum(counts.values())
    wall, cpu, read = (statistics.median(column) for column in zip(*runs, strict=True))
    write(
        "load",
        SEED,
        asdict(sizes) | {"resources": resources, "bytes": size},
        [
            Measured("resources loaded, visible and compacted", resources / wall, "1/s", goal=f">= {GOAL:,} /s",
                     met=resources / wall >= GOAL),
            Measured("resources loaded, visible and compacted", resources / cpu, "per CPU s"),
            Measured("NDJSON loaded, visible and compacted", size / 1e6 / cpu, "MB per CPU s"),
            Measured("of that, reading NDJSON into the delta", read, "s"),
            Measured("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"),
            Measured("load of the machine, one minute", os.getloadavg()[0], ""),
        ],
        RUNS,
    )  # fmt: skip


def made(folder: Path, sizes: Sizes) -> tuple[dict[str, int], int]:
    """One NDJSON file for each type: view → resources, and bytes in all."""
    folder.mkdir()
    counts = {}
    with duckdb.connect(config={"memory_limit": "1GB"}) as db:
        for view, rows in rows_sql(sizes).items():
            to = f"'{folder / view}.ndjson' (FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')"
            row = db.execute(f"COPY (SELECT json FROM ({rows})) TO {to}").fetchone()
            counts[view] = row[0] if row else 0
    return counts, sum(file.stat().st_size for file in folder.iterdir())


def loaded(files: Path, root: Path, counts: dict[str, int]) -> tuple[float, float, float]:
    """Seconds, CPU seconds, and seconds of reading."""
    lake, now = Lake(root), datetime.now(UTC)
    wall, cpu = time.monotonic(), time.process_time()
    report = clinical.load([files], lake, now)
    read = time.monotonic() - wall
    lake.publish(now)
    lake.compact(now)
    spent = time.monotonic() - wall, time.process_time() - cpu, read
    found = lake.current()
    assert found is not None
    assert report.parked_lines == 0
    assert {view: found.tables[view].rows for view in counts} == counts
    return spent


if __name__ == "__main__":
    main()
