"""The outcomes of 1,000,000 predictions by 10,000,000 clinical facts and their counts, beside the same in pandas.

    make bench-outcomes
    python -m bench.outcomes PREDICTIONS FOLDER      another size; FOLDER/lake is kept for the next time

Both read the same Parquet files and must find the same outcomes and the same evidence before a time counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from bench.outcome_lake import Sizes, seed
from bench.results_file import ROOT, Measured, write
from cohort.catalogue import outcome
from cohort.desk import Caller, Desk
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.feedback import Wanted
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.outcome_rows import compile_outcomes
from cohort.outcome_shown import digests_sql
from cohort.privacy import Policy

SEED, RUNS, PREDICTIONS = 20260101, 5, 1_000_000
TODAY = date(2025, 1, 1)
DEFINITION = "lung-nodule-cancer"
ME = Caller("bench", "cli")
COUNTS = "SELECT outcome, predicted, count(*) FROM ({}) GROUP BY ALL ORDER BY ALL"


def main() -> None:
    predictions = int(sys.argv[1]) if len(sys.argv) > 1 else PREDICTIONS
    sizes = Sizes(predictions, predictions * 10)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(sys.argv[2] if len(sys.argv) > 2 else scratch) / "lake"
        if not root.exists():
            seed(root, sizes)
        generation = Lake(root).current()
        assert generation is not None
        ours, peer = [], []
        for _ in range(RUNS):
            ours.append(_ours(generation))
            peer.append(_pandas(generation, Path(scratch)))
            assert (ours[-1]["counts"], ours[-1]["decided"]) == (peer[-1]["counts"], peer[-1]["decided"])
            assert ours[-1]["evidence"] == peer[-1]["evidence"]
        first, again, after = _pulls(root, generation)
    count, peer_count = _median(ours, "counts_s"), _median(peer, "whole_s")
    write(
        "outcomes",
        SEED,
        asdict(sizes) | {"outcomes": ours[0]["counts"], "decided": ours[0]["decided"]},
        [
            Measured("outcomes and their counts, from Parquet", count, "s", "pandas, from the same files", peer_count,
                     count / peer_count, "<= 10 s", count <= 10),
            Measured("the same, CPU", _median(ours, "counts_cpu_s"), "s", "pandas", _median(peer, "cpu_s"),
                     _median(ours, "counts_cpu_s") / _median(peer, "cpu_s")),
            Measured("digests of all rows", _median(ours, "digests_s"), "s"),
            Measured("pandas without reading", _median(peer, "join_s"), "s"),
            Measured("peak memory of pandas", _median(peer, "peak_mb"), "MB"),
            Measured("first pull: everything compared, 10,000 pseudonymous rows given", first, "s"),
            Measured("next pull by the cursor: everything compared, 10,000 rows given", again, "s"),
            Measured("pull by the last cursor: everything compared, nothing new", after, "s"),
            Measured("load of the machine, one minute", os.getloadavg()[0], ""),
        ],
        RUNS,
    )  # fmt: skip


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(float(run[name]) for run in runs)


def _ours(generation: Generation) -> dict[str, Any]:
    """In this process, as a query's own process does it."""
    asked = (outcome(DEFINITION), TODAY, generation.column_types, "LungNet", None)
    sql = dialect.sql(compile_outcomes(*asked))
    connection = connect(generation, memory_limit_mb=4096)
    started, cpu = time.monotonic(), time.process_time()
    counts = connection.execute(COUNTS.format(sql)).fetchall()
    told: dict[str, Any] = {"counts_s": time.monotonic() - started, "counts_cpu_s": time.process_time() - cpu}
    started = time.monotonic()
    connection.execute(f"SELECT bit_xor(hash(d)) FROM ({digests_sql(compile_outcomes(*asked))}) t(p, d)").fetchall()
    told["digests_s"] = time.monotonic() - started
    found = connection.execute(f"SELECT _evidence_id FROM ({sql}) WHERE _evidence_id IS NOT NULL ORDER BY 1").fetchall()
    ids = pd.Series([id_ for (id_,) in found])
    evidence = int(pd.util.hash_pandas_object(ids, index=False).sum() % 2**53)
    return told | {"counts": [list(row) for row in counts], "decided": len(found), "evidence": evidence}


def _pandas(generation: Generation, scratch: Path) -> dict[str, Any]:
    files = {name: [str(one.file) for one in table.layers] for name, table in generation.tables.items()}
    named = scratch / "files.json"
    named.write_bytes(orjson.dumps(files))
    command = [sys.executable, "-m", "bench.outcomes_pandas", str(named), TODAY.isoformat()]
    before = os.times()
    told: dict[str, Any] = orjson.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return told | {"whole_s": told["read_s"] + told["join_s"], "cpu_s": cpu}


def _pulls(root: Path, generation: Generation) -> tuple[float, float, float]:
    """Seconds of the first pull by the desk, of the next page and of one when nothing is new."""
    (root / "outcomes.sqlite").unlink(missing_ok=True)
    desk, cursor, seconds = Desk(root, Policy(line_level=True)), None, []
    wanted = Wanted(outcome(DEFINITION), {}, "LungNet")
    for _ in range(2):
        started = time.monotonic()
        found = desk.outcomes(generation, wanted, ME, cursor)
        assert len(found.answer.rows) == min(10_000, wanted.most)
        cursor = found.cursor
        seconds.append(time.monotonic() - started)
    word = str(cursor).partition(".")[0]
    started = time.monotonic()
    found = desk.outcomes(generation, wanted, ME, f"{word}.{_last(root)}")
    assert found.answer.rows == ()
    return seconds[0], seconds[1], time.monotonic() - started


def _last(root: Path) -> int:
    import sqlite3

    with sqlite3.connect(root / "outcomes.sqlite") as db:
        (number,) = db.execute("SELECT number FROM series").fetchone()
    return int(number)


if __name__ == "__main__":
    main()
