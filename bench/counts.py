"""How long counts over a hundred million observations take: as SQL on the engine, and asked as people ask them.

    make bench-counts                           100,000,000 observations of 1,000,000 patients; beside naive Parquet
    python -m bench.counts ROWS FOLDER          another size; what is in FOLDER is kept for the next time

The lake is made by SQL, as loading would make it, and compacted. Every answer is that of the naive file, or as coarse
as those who may not see rows get it, before its time counts.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from bench.lake_seed import NOW, fill, person
from bench.questions import Cost
from bench.results_file import Measured, write
from cohort.desk import Caller, Desk
from cohort.engine.duckdb import connect
from cohort.generation import Generation, Generations
from cohort.lake import Lake, stamp_of
from cohort.privacy import Policy
from cohort.sandbox import Limits
from cohort.store.place import in_folder
from cohort.tables import Tables

SEED, RUNS, ROWS, PART, PER_PATIENT = 20260101, 5, 100_000_000, 10_000_000, 100
LIMITS = Limits(cpu_s=600, deadline_s=300)
LOINC = "http://loinc.org"
COUNTS = {
    "results of one test": "SELECT count(*) AS n FROM observation WHERE code = '2160-0'",
    "patients with one test": "SELECT count(DISTINCT patient_id) AS n FROM observation WHERE code = '2160-0'",
    "patients with a rare test": "SELECT count(DISTINCT patient_id) AS n FROM observation WHERE code = '10311-1'",
    "patients with a high result": (
        "SELECT count(DISTINCT patient_id) AS n FROM observation WHERE code = '2160-0' AND value_number > 9.5"
    ),
    "patients with one test in two years": (
        "SELECT count(DISTINCT patient_id) AS n FROM observation "
        "WHERE code = '2160-0' AND effective_date >= DATE '2024-01-01'"
    ),
    "results of every test": "SELECT code, count(*) AS n FROM observation GROUP BY code ORDER BY code",
    "patients of every test": (
        "SELECT code, count(DISTINCT patient_id) AS n FROM observation GROUP BY code ORDER BY code"
    ),
}
"""One test in five is 2160-0; the others are of 500 kinds."""


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else scratch)
        naive = folder / "observation.parquet"
        if not naive.exists():
            seed(folder / "lake", rows)
            by_hand(naive, rows)
        found = Lake(folder / "lake").current()
        assert found is not None
        layers = found.tables["observation"].layers
        sizes = {
            "observations": sum(one.live for one in layers),
            "parquet_bytes": sum(one.file.stat().st_size for one in layers),
            "copies_bytes": sum(one.copy.stat().st_size for one in layers if one.copy),
            "naive_bytes": naive.stat().st_size,
        }
        write("counts", SEED, sizes, measured(found, naive, folder), RUNS)


def measured(found: Generation, naive: Path, folder: Path) -> list[Measured]:
    """Patients are counted by those who may not see rows, results by those who may: others cannot."""
    strict, free = Desk(folder), Desk(folder, Policy(line_level=True))
    rows, every = [], list[float]()
    with closing(connect(found)) as ours, closing(duckdb.connect(config={"threads": 2})) as theirs:
        theirs.execute(f"CREATE VIEW observation AS SELECT * FROM read_parquet('{naive}')")
        for name, query in COUNTS.items():
            try:
                mine = ours.execute(query).fetchall()
            except duckdb.OutOfMemoryException:
                rows.append(Measured(f"{name}, more memory than a question may use", math.inf, "s", met=False))
                continue
            right = theirs.execute(query).fetchall()
            assert mine == right, name
            desk = strict if "patient_id" in query else free
            answer = [tuple(row) for row in desk.sql(found, query, Caller.here("python"), LIMITS).rows]
            shown = [(*group, strict.policy.count(n)) for *group, n in right]  # None: too few to be told
            assert answer == (right if desk is free else [row for row in shown if row[-1] is not None]), name
            runs = [(_once(ours, query), _once(theirs, query)) for _ in range(RUNS + 1)][1:]
            cost, peer = (Cost.of(*zip(*one, strict=True)) for one in zip(*runs, strict=True))
            every += [wall for (wall, _), _ in runs]
            ratio, hand = peer.cpu_s / cost.cpu_s, "the same SQL, naive Parquet"
            rows.append(Measured(f"{name}, CPU", cost.cpu_s, "s", hand, peer.cpu_s, ratio))
            rows.append(Measured(f"{name}, median", cost.median_s, "s", hand, peer.median_s))
            rows.append(Measured(f"{name}, of a process as of the API, median", _asked(desk, found, query), "s"))
    p95 = Cost.of(every).p95_s
    return [*rows, Measured("all that are answered, p95", p95, "s", goal="<= 0.5 s", met=p95 <= 0.5)]


def _once(connection: Any, query: str) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    connection.execute(query).fetchall()
    return time.perf_counter() - wall, time.process_time() - cpu


def _asked(desk: Desk, found: Generation, query: str) -> float:
    """Seconds until the answer of a process of its own is there."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        desk.sql(found, query, Caller.here("python"), LIMITS)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def observations(low: int, high: int, rows: int) -> str:
    """SQL of some observations: `n`, and the columns of the table that are not empty."""
    patients = rows // PER_PATIENT
    return f"""
        SELECT n, 'clinical' AS origin, (1000000000 + n)::VARCHAR AS id, id AS observation_id,
               {person(f"(hash(n) % {patients})")} AS patient_id, 'final' AS status, 'laboratory' AS category_code,
               (DATE '2008-01-01' + (hash(n + 5) % 6570)::INT) AS effective_date,
               effective_date::TIMESTAMP AT TIME ZONE 'UTC' AS effective_time,
               (hash(n + 7) % 1000 / 100)::DECIMAL(10, 2) AS value_number, 'mg/dL' AS value_unit,
               '{LOINC}' AS code_system,
               CASE WHEN hash(n + 9) % 5 = 0 THEN '2160-0' ELSE (10000 + hash(n + 11) % 500) || '-1' END AS code
        FROM range({low}, {high}) t(n)"""


def seed(root: Path, rows: int) -> None:
    """A lake with these observations: a generation for each part, then all of it compacted."""
    place = in_folder(root)
    generations = Generations(place.store, place.files)
    for low in range(0, rows, PART):
        head = generations.head()
        with place.scratch() as scratch, Tables(place.files, scratch, stamp_of(head), head.tables) as tables:
            fill(tables, "observation", observations(low, min(low + PART, rows), rows))
            manifest = tables.manifest()
        place.files.keep(tables.made)
        generations.publish(head, NOW, manifest, lambda _stage: None)
    Lake(root).compact(datetime.now(UTC), everything=True)


def by_hand(target: Path, rows: int) -> None:
    """A file as a person would write it: ids as text, in the order of the ids."""
    made = f"SELECT * EXCLUDE (n, origin, id) FROM ({observations(0, rows, rows)})"
    with closing(duckdb.connect(config={"threads": 2, "preserve_insertion_order": True})) as db:
        db.execute(f"COPY ({made}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")


if __name__ == "__main__":
    main()
