"""How soon changed resources are seen in a large lake, and what the overlay costs questions.

    make bench-freshness            a lake of 10,000,000 rows; 100,000 changed resources; five runs, medians

The lake is made by SQL and checked against the views; every run counts what is visible before its time counts.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bench.lake_seed import Sizes, changed_lines, seed
from bench.results_file import Measured, write
from cohort.catalogue import code_lists, question
from cohort.engine.duckdb import connect
from cohort.generation import Generation, Generations
from cohort.lake import Lake
from cohort.question_sql import compile_question

SEED, RUNS, ROWS, CHANGED = 20260101, 5, 10_000_000, 100_000
DAY = date(2026, 1, 1)
MIXED = {"medication_request": 0.5, "condition": 0.15, "imaging_study": 0.15, "diagnostic_report": 0.1, "patient": 0.1}


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    changed = min(CHANGED, rows // 100)
    sizes = Sizes.of(rows)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "lake"
        seed(root, sizes)
        lake = Lake(root)
        base = _current(lake)
        held = sum(table.rows for table in base.tables.values())
        bytes_ = sum(p.stat().st_size for p in (root / "files").iterdir())
        small = {name: [changed_lines(sizes, name, 1, 2)] for name in ("medication_request",)}
        one = changed_lines(sizes, "medication_request", changed, 2)
        mixed = [x for name, share in MIXED.items() for x in changed_lines(sizes, name, int(changed * share), 2)]
        one_s = _visible(lake, base, one)
        mixed_s = _visible(lake, base, mixed)
        small_s = _visible(lake, base, small["medication_request"][0])
        _restored(lake, base)
        before, asked = _question(base)
        lake.append(mixed)
        lake.publish(datetime.now(UTC))
        overlaid, again = _question(_current(lake))
        assert len(again) >= len(asked) > 0  # some of the changed resources are new
        started = time.monotonic()
        lake.compact(datetime.now(UTC), everything=True)
        compact_s = time.monotonic() - started
        after, compacted = _question(_current(lake))
        assert sorted(map(repr, compacted)) == sorted(map(repr, again))
    write(
        "freshness",
        SEED,
        asdict(sizes) | {"rows": held, "changed": changed, "bytes": bytes_, "answer_rows": len(asked)},
        [
            Measured("changed resources of one type to visible", one_s, "s", goal="<= 2 s", met=one_s <= 2),
            Measured("changed resources of five types to visible", mixed_s, "s", goal="<= 2 s", met=mixed_s <= 2),
            Measured("one changed resource to visible", small_s, "s"),
            Measured(
                "founding question over the changes", overlaid, "s", "before them", before, overlaid / before,
                "<= 1.3", overlaid / before <= 1.3,
            ),
            Measured("founding question after compaction", after, "s", "before", before, after / before),
            Measured("compaction of every table, one thread", compact_s, "s"),
            Measured("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"),
        ],
        RUNS,
    )  # fmt: skip


def _visible(lake: Lake, base: Generation, lines: list[dict[str, Any]]) -> float:
    """Seconds from the first line written until a reader counts all of them in the table."""
    times = []
    for _ in range(RUNS):
        _restored(lake, base)
        started = time.monotonic()
        lake.append(lines)
        lake.publish(datetime.now(UTC))
        found = _current(lake)
        connect(found).execute("SELECT count(*) FROM medication_request").fetchone()
        times.append(time.monotonic() - started)
        layers = {name: table for name, table in found.tables.items() if len(table.layers) == 2}
        assert layers
        assert sum(t.layers[1].rows for n, t in layers.items() if n in MIXED) == len(lines)
    return statistics.median(times)


def _question(generation: Generation) -> tuple[float, list[Any]]:
    sql, bound = compile_question(question("osteosarcoma-ct"), {"within_years": 5}, DAY, code_lists())
    connection = connect(generation)
    answer: list[Any] = connection.execute(sql, bound).fetchall()
    return _median(lambda: connection.execute(sql, bound).fetchall()), answer


def _median(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.monotonic()
        run()
        times.append(time.monotonic() - started)
    return statistics.median(times)


def _restored(lake: Lake, base: Generation) -> None:
    Generations(lake.root).make_current(base.id)


def _current(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


if __name__ == "__main__":
    main()
