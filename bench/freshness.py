"""How soon changed resources are seen in a large lake, and what the overlay costs questions.

    make bench-freshness            a lake of 10,000,000 rows; 100,000 changed resources; five runs, medians
    python -m bench.freshness ROWS FOLDER       another size; FOLDER/lake is kept for the next time

The lake is made by SQL and checked against the views; every run counts what is visible before its time counts.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from bench.lake_seed import Sizes, changed_lines, seed
from bench.results_file import Measured, write
from cohort.catalogue import column_types, question, read_question
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.question_answer import compile_question

SEED, RUNS, ROWS, CHANGED = 20260101, 5, 10_000_000, 100_000
DAY = date(2026, 1, 1)
MIXED = {"medication_request": 0.5, "condition": 0.15, "imaging_study": 0.15, "diagnostic_report": 0.1, "patient": 0.1}


@dataclass(frozen=True)
class Cost:
    """Seconds waited, and seconds of CPU of all threads: the second does not depend on who else uses the machine."""

    wall_s: float
    cpu_s: float


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    changed = min(CHANGED, rows // 100)
    sizes = Sizes.of(rows)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(sys.argv[2] if len(sys.argv) > 2 else scratch) / "lake"
        if not root.exists():
            seed(root, sizes)
            Lake(root).compact(datetime.now(UTC))  # which makes the copies of the large files
        lake = Lake(root)
        base = lake.generation("g000002")
        held = sum(table.rows for table in base.tables.values())
        files = {path for table in base.tables.values() for one in table.layers for path in one.paths}
        bytes_ = sum(path.stat().st_size for path in files)
        one = _visible(lake, base, changed_lines(sizes, "medication_request", changed, 2))
        small = _visible(lake, base, changed_lines(sizes, "medication_request", 1, 2))
        lines = [x for name, share in MIXED.items() for x in changed_lines(sizes, name, int(changed * share), 2)]
        mixed = _visible(lake, base, lines)
        lake = Lake(root)
        over = _current(lake)
        started = time.monotonic()
        lake.compact(datetime.now(UTC), everything=True)
        compact_s = time.monotonic() - started
        (before, asked), (overlaid, again), (after, compacted) = _questions([base, over, _current(lake)])
        assert len(again) >= len(asked) > 0  # some of the changed resources are new
        assert sorted(map(repr, compacted)) == sorted(map(repr, again))
        _restored(lake, base)
    slower = overlaid.cpu_s / before.cpu_s
    write(
        "freshness",
        SEED,
        asdict(sizes) | {"rows": held, "changed": changed, "bytes": bytes_, "answer_rows": len(asked)},
        [
            _seen("changed resources of one type to visible", one),
            _seen("changed resources of five types to visible", mixed),
            Measured("changed resources of one type, CPU", one.cpu_s, "s"),
            Measured("changed resources of five types, CPU", mixed.cpu_s, "s"),
            Measured("one changed resource to visible", small.wall_s, "s"),
            Measured(
                "founding question over the changes, CPU", overlaid.cpu_s, "s", "before them", before.cpu_s, slower,
                "<= 1.3", slower <= 1.3,
            ),
            Measured(
                "founding question over the changes, wall", overlaid.wall_s, "s", "before them", before.wall_s,
                overlaid.wall_s / before.wall_s,
            ),
            Measured("founding question after compaction, CPU", after.cpu_s, "s", "before", before.cpu_s),
            Measured("compaction of every table, one thread", compact_s, "s"),
            Measured("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB"),
            Measured("load of the machine, one minute", os.getloadavg()[0], ""),
        ],
        RUNS,
    )  # fmt: skip


def _seen(what: str, cost: Cost) -> Measured:
    return Measured(what, cost.wall_s, "s", goal="<= 2 s", met=cost.wall_s <= 2)


def _visible(lake: Lake, base: Generation, lines: list[dict[str, Any]]) -> Cost:
    """From the first line written until a reader counts all of them in the tables."""

    def run() -> None:
        lake.append(lines)
        lake.publish(datetime.now(UTC))
        connect(_current(lake)).execute("SELECT count(*) FROM medication_request").fetchone()

    costs = []
    for _ in range(RUNS):
        _restored(lake, base)
        lake = Lake(lake.root)  # which has not seen what was taken back
        costs.append(_cost(run))
        over = [t.layers[-1].rows for n, t in _current(lake).tables.items() if n in MIXED and len(t.layers) == 2]
        assert sum(over) == len(lines)
    return _median(costs)


def _questions(generations: list[Generation]) -> list[tuple[Cost, list[Any]]]:
    """The founding question of each, one after the other in every run; medians and answers."""
    asked = read_question(question("osteosarcoma-ct").document, {"within_years": 5})
    sql = dialect.sql(compile_question(asked, DAY, column_types()))
    connections = [connect(generation) for generation in generations]
    answers: list[list[Any]] = [connection.execute(sql).fetchall() for connection in connections]
    costs: list[list[Cost]] = [[] for _ in connections]
    for _ in range(RUNS):
        for found, connection in zip(costs, connections, strict=True):
            found.append(_cost(lambda on=connection: on.execute(sql).fetchall()))
    return [(_median(found), answer) for found, answer in zip(costs, answers, strict=True)]


def _cost(run: Callable[[], Any]) -> Cost:
    wall, cpu = time.monotonic(), time.process_time()
    run()
    return Cost(time.monotonic() - wall, time.process_time() - cpu)


def _median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.wall_s for c in costs), statistics.median(c.cpu_s for c in costs))


def _restored(lake: Lake, base: Generation) -> None:
    """As if nothing had been published after it."""
    store = lake.place.store
    store.put("CURRENT", base.id.encode())
    store.delete([e.key for e in store.list("generations") if not e.key.endswith(f"{base.id}.json")])


def _current(lake: Lake) -> Generation:
    found = lake.current()
    assert found is not None
    return found


if __name__ == "__main__":
    main()
