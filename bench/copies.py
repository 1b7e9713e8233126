"""What copies in DuckDB's own form, and processes that wait, save: every ready question with them and without.

    make bench-copies                            a hospital of 100,000 patients, which is made and loaded first
    python -m bench.copies --patients 10000 --keep FOLDER       FOLDER/10000 of bench.questions is taken, if it is there

Both answers are compared before they are timed. Where a process is new, it is ended after its answer.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.population import TODAY
from bench.questions import FOUNDING, MIXED, RUNS, SEED, Cost, as_asked, made, mixture, once
from bench.results_file import Measured, write
from cohort import sandbox
from cohort.catalogue import question, questions
from cohort.engine.duckdb import connect
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.spill import spilling

PATIENTS = 100_000


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--patients", type=int, default=PATIENTS)
    asked.add_argument("--keep", type=Path)
    wanted = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (wanted.keep or Path(scratch)) / str(wanted.patients)
        made(wanted.patients, folder)
        lake = Lake(folder / "lake")
        lake.compact(datetime.now(UTC))  # one of before copies gets them
        found = lake.current()
        assert found is not None
        layers = [one for table in found.tables.values() for one in table.layers]
        sizes = {
            "patients": wanted.patients,
            "rows": sum(one.live for one in layers),
            "parquet_bytes": sum(one.file.stat().st_size for one in layers),
            "copies_bytes": sum(one.copy.stat().st_size for one in layers if one.copy),
        }
        write("copies", SEED, sizes, [*over_both(found), *by_processes(found)], RUNS)


def over_both(found: Generation) -> list[Measured]:
    """CPU of every ready question, and of many like the founding one, on one connection each, turn by turn."""
    parquet = replace(
        found,
        tables={
            name: replace(table, layers=tuple(replace(one, copy=None) for one in table.layers))
            for name, table in found.tables.items()
        },
    )
    rows = []
    with (
        spilling() as spill,
        closing(connect(parquet, spill=spill)) as theirs,
        closing(connect(found, spill=spill)) as ours,
    ):
        for name in questions():
            query = as_asked(question(name), found)
            assert _digest(ours, query[0]) == _digest(theirs, query[0]), name
            runs = [(once(ours, *query), once(theirs, *query)) for _ in range(RUNS + 1)][1:]
            mine, other = (Cost.of(*zip(*one, strict=True)) for one in zip(*runs, strict=True))
            rows.append(_beside(f"{name}, CPU", mine.cpu_s, "over Parquet", other.cpu_s))
        walls: list[tuple[float, float]] = []
        for query in (as_asked(one, found) for one in mixture()):
            runs = [(once(ours, *query), once(theirs, *query)) for _ in range(2)][1:]
            walls += [(mine[0], other[0]) for mine, other in runs]
    mine, other = (Cost.of(one) for one in zip(*walls, strict=True))
    what = f"{MIXED} founding questions of other codes, ages, modalities"
    rows.append(_beside(f"{what}, median", mine.median_s, "over Parquet", other.median_s))
    rows.append(_beside(f"{what}, p95", mine.p95_s, "over Parquet", other.p95_s))
    return rows


def by_processes(found: Generation) -> list[Measured]:
    """Seconds until whoever asks has the answer: of a process that waited, and of a new one."""
    rows = []
    for name in (FOUNDING, "stroke-imaged-within-a-day", "paediatric-ct", "cancer-staging"):
        new: list[float] = []
        waited: list[float] = []
        for _ in range(RUNS):
            sandbox.WORKERS.close()
            new.append(_asked(found, name))
            waited.append(_asked(found, name))
        mine, other = statistics.median(waited), statistics.median(new)
        rows.append(_beside(f"{name}, to the answer, of a process that waited", mine, "of a new process", other))
    return rows


def _asked(found: Generation, name: str) -> float:
    began = time.perf_counter()
    sandbox.ask(found, question(name), {}, TODAY)
    return time.perf_counter() - began


def _digest(connection: Any, query: str) -> Any:
    return connection.execute(f"SELECT count(*), sum(hash(answer)) FROM ({query}) answer").fetchone()


def _beside(what: str, value: float, peer: str, peer_value: float) -> Measured:
    return Measured(what, value, "s", peer, peer_value, peer_value / value)


if __name__ == "__main__":
    main()
