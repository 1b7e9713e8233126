"""Every ready question at 10,000, 100,000 and 1,000,000 patients: loading, size, seconds for one and four clients.

    make bench-questions                            all sizes; hours, and about 40 GB of disk in FOLDER
    python -m bench.questions --patients 10000 --folder FOLDER --no-hapi
    python -m bench.questions --keep FOLDER         hospitals that are there are not made and loaded again

Beside each question, in the same run: the SQL a person would write, on DuckDB over one Parquet file for each type, and
Spark on two threads over the lake's own files (above 10,000 patients it is asked the founding question alone: all would
take it hours); beside the founding question, searches of HAPI FHIR. An answer that differs from the person's SQL ends
the benchmark before anything is timed. Past its gigabyte of memory a question goes on on disk, as in the API.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import orjson

from bench import naive_questions
from bench.naive_questions import QUERIES
from bench.population import SCT, TODAY, Population
from bench.questions_hapi import founding_by_search
from bench.questions_spark import Spark
from bench.results_file import ROOT, Measured, write
from cohort.catalogue import question, questions, read_question
from cohort.dialects import duckdb as dialect
from cohort.engine.duckdb import connect
from cohort.engine.rows import executed, rows_of
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.question import Question
from cohort.question_answer import compile_question, texts_of
from cohort.spill import spilling

SEED, RUNS, CLIENTS, MIXED, SIZES = 20260101, 5, 4, 40, (10_000, 100_000, 1_000_000)
FOUNDING, TOP, SPARK_ALL = "osteosarcoma-ct", 1_000_000, 10_000
NAIVE_MEMORY_MB, CHECK_MEMORY_MB, HAPI_PATIENTS, BREAST_CANCER = 9000, 9000, 1000, "254837009"
ROWS = 10_000
"""That the API gives at most."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one answer: the clock's, in the middle and the 95th percentile, and the CPU's of all threads."""

    median_s: float
    p95_s: float
    cpu_s: float

    @classmethod
    def of(cls, walls: Iterable[float], cpus: Iterable[float] = (math.nan,)) -> Cost:
        ordered = sorted(walls)
        return cls(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], statistics.median(cpus))


def main() -> None:
    asked = arguments()
    asked.add_argument("--no-hapi", action="store_true")
    wanted = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.folder) as scratch:
        rows, sizes = at_sizes(wanted, Path(scratch), tuple(questions()), by_all_clients)
        if not wanted.no_hapi:
            rows.append(beside_hapi(Path(scratch)))
    write("questions", SEED, sizes, rows, RUNS)


def arguments() -> argparse.ArgumentParser:
    """Those of a benchmark at several sizes."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--patients", type=int, nargs="+", default=SIZES)
    asked.add_argument("--folder", type=Path)
    asked.add_argument("--keep", type=Path)
    asked.add_argument("--no-spark", action="store_true")
    return asked


def at_sizes(
    wanted: argparse.Namespace,
    scratch: Path,
    names: Sequence[str],
    more: Callable[[int, Path], list[Measured]] = lambda patients, lake: [],
) -> tuple[list[Measured], dict[str, Any]]:
    """The rows of these ready questions, and of what `more` measures of a lake, at each size; the sizes."""
    rows: list[Measured] = []
    sizes: dict[str, Any] = {}
    costs: dict[int, dict[str, Cost]] = {}
    for patients in sorted(wanted.patients):
        folder = (wanted.keep or scratch) / str(patients)
        loaded = made(patients, folder)
        sizes[f"{patients} patients"] = {k: loaded[k] for k in ("resources", "bytes", "rows")}
        rows += loading(patients, loaded)
        costs[patients] = measured(patients, folder, rows, names, spark=not wanted.no_spark)
        rows += more(patients, folder / "lake")
        if not wanted.keep:
            shutil.rmtree(folder)
    return rows + growth(costs), sizes


def made(patients: int, folder: Path) -> dict[str, Any]:
    """A lake and naive Parquet of so many patients; what loading took."""
    told = folder / "loaded.json"
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        told.write_bytes(orjson.dumps(_told("questions_lake", str(patients), str(SEED), str(folder))))
    loaded: dict[str, Any] = orjson.loads(told.read_bytes())
    return loaded


def loading(patients: int, loaded: Mapping[str, Any]) -> list[Measured]:
    at = f"{patients:,} patients"
    return [
        Measured(f"{at}: loading, to publishing", loaded["timed_resources"] / loaded["wall_s"], "resources/s"),
        Measured(f"{at}: loading, to publishing", loaded["timed_bytes"] / 1e6 / loaded["wall_s"], "MB/s"),
        Measured(f"{at}: loading, to publishing, CPU", loaded["timed_resources"] / loaded["cpu_s"], "resources/CPU s"),
        Measured(f"{at}: compacting all of it once", loaded["compact_s"], "s"),
        Measured(f"{at}: loading, peak memory", loaded["peak_mb"], "MB"),
        Measured(
            f"{at}: size on disk", loaded["lake_bytes"] / 1e6, "MB", "naive Parquet, without the resources",
            loaded["naive_bytes"] / 1e6, loaded["lake_bytes"] / loaded["naive_bytes"],
        ),
    ]  # fmt: skip


def sql_of(wanted: Question, generation: Generation) -> str:
    """All rows."""
    return dialect.sql(compile_question(read_question(wanted.document), TODAY, generation.column_types))


def as_asked(wanted: Question, generation: Generation) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The SQL as the API asks it, for one row more than it gives, and what is known of its columns."""
    columns = generation.column_types
    made = compile_question(read_question(wanted.document), TODAY, columns, ROWS + 1, as_json=True)
    return dialect.sql(made), texts_of(wanted, columns, as_json=True)


def measured(
    patients: int, folder: Path, rows: list[Measured], names: Sequence[str], *, spark: bool
) -> dict[str, Cost]:
    """Adds the rows of one size. Gives what each of the ready questions costs the engine, by name."""
    generation = Lake(folder / "lake").current()
    assert generation is not None
    found: dict[str, Cost] = {}
    with (
        spilling() as spill,
        closing(connect(generation, spill=spill)) as ours,
        closing(by_hand(folder)) as theirs,
    ):
        with closing(connect(generation, memory_limit_mb=CHECK_MEMORY_MB)) as roomy:
            counts = {name: checked(name, generation, roomy, theirs) for name in names}
        for name in names:
            wanted = question(name)
            by_hand_in_order = f"SELECT * FROM ({QUERIES[name]}) ORDER BY 1, 2 LIMIT {ROWS + 1}"  # else it ends early
            cost, peer = timed(ours, *as_asked(wanted, generation)), timed(theirs, by_hand_in_order)
            rows += beside(patients, name, counts[name], cost, peer)
            found[name] = cost
        mixed = Cost.of([once(ours, *as_asked(one, generation))[0] for one in mixture() for _ in range(2)][1::2])
    rows.append(
        Measured(
            f"{patients:,} patients: {MIXED} founding questions of other codes, ages, modalities, p95", mixed.p95_s,
            "s", "", None, None, *_goal(patients == TOP, "<= 0.5 s", mixed.p95_s <= 0.5),
        )
    )  # fmt: skip
    if spark:
        with Spark(generation) as peer_spark:
            for name in names:
                if patients > SPARK_ALL and name != FOUNDING:
                    continue
                walls, cpus = peer_spark.asked(question(name), TODAY, counts[name])
                rows.append(against_spark(patients, name, found[name], Cost.of(walls, cpus)))
    return found


def by_hand(folder: Path) -> Any:
    return naive_questions.connect(folder / "naive", memory_limit_mb=NAIVE_MEMORY_MB)


def checked(name: str, generation: Generation, ours: Any, theirs: Any) -> int:
    """How many rows the answer has. Raises AssertionError when the person's SQL has others."""
    answers = [_digest(ours, sql_of(question(name), generation)), _digest(theirs, QUERIES[name])]
    assert answers[0] == answers[1], f"{name}: rows and digest {answers[0]}, by the person's SQL {answers[1]}"
    return int(answers[0][0])


def _digest(connection: Any, query: str) -> tuple[int, int]:
    """The number of rows, and a sum of digests that does not depend on their order."""
    width = len(connection.execute(f"DESCRIBE {query}").fetchall())
    names = ", ".join(f"c{n}" for n in range(width))
    text = " || '|' || ".join(f"coalesce(c{n}::VARCHAR, '-')" for n in range(width))
    found = connection.execute(f"SELECT count(*), sum(hash({text})) FROM ({query}) answer({names})").fetchone()
    return int(found[0]), int(found[1] or 0)


def once(connection: Any, query: str, known: Sequence[tuple[str, str]] = ()) -> tuple[float, float]:
    """Seconds and CPU seconds until the rows that the API gives at most are there, as JSON; infinite where the memory
    that one question may use is too little. `known` of its columns, as the API has it."""
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        _, cursor, lists = executed(connection, query, as_json=True, known=known)
        rows_of(cursor, ROWS, sys.maxsize, lists)
    except duckdb.OutOfMemoryException:
        return math.inf, math.inf
    return time.perf_counter() - wall, time.process_time() - cpu


def timed(connection: Any, query: str, known: Sequence[tuple[str, str]] = ()) -> Cost:
    """Of RUNS, after one that is not counted."""
    runs = [once(connection, query, known) for _ in range(RUNS + 1)][1:]
    return Cost.of([wall for wall, _ in runs], [cpu for _, cpu in runs])


def beside(patients: int, name: str, count: int, cost: Cost, peer: Cost) -> list[Measured]:
    what, hand = f"{patients:,} patients: {name} ({count:,} rows)", "SQL by hand, naive Parquet"
    if math.isinf(cost.cpu_s):
        return [Measured(f"{what}, more memory than a question may use", cost.cpu_s, "s", hand, peer.cpu_s, met=False)]
    top, ratio = (name, patients) == (FOUNDING, TOP), peer.cpu_s / cost.cpu_s
    return [
        Measured(f"{what}, CPU", cost.cpu_s, "s", hand, peer.cpu_s, ratio, *_goal(top, ">= 60x", ratio >= 60)),
        Measured(f"{what}, median", cost.median_s, "s", hand, peer.median_s, peer.median_s / cost.median_s),
        Measured(
            f"{what}, p95", cost.p95_s, "s", hand, peer.p95_s, peer.p95_s / cost.p95_s,
            *_goal(top, "<= 0.15 s", cost.p95_s <= 0.15),
        ),
    ]  # fmt: skip


def against_spark(patients: int, name: str, cost: Cost, peer: Cost) -> Measured:
    top, ratio = (name, patients) == (FOUNDING, TOP), peer.cpu_s / cost.cpu_s
    return Measured(
        f"{patients:,} patients: {name}, CPU", cost.cpu_s, "s", "Spark local[2], the same files, warm", peer.cpu_s,
        ratio, *_goal(top, ">= 300x", ratio >= 300),
    )  # fmt: skip


def _goal(applies: bool, goal: str, met: bool) -> tuple[str, bool | None]:
    return (goal, met) if applies else ("", None)


def about(code: str, **values: Any) -> Question:
    """The founding question about another diagnosis, with other values of its parameters."""
    document = orjson.loads(orjson.dumps(question(FOUNDING).document))
    document["criteria"]["all"][1]["condition"]["codes"] = {"system": SCT, "code": code}
    document["parameters"].pop("condition")
    for name, value in values.items():
        document["parameters"][name]["default"] = value
    return read_question(document)


def mixture() -> list[Question]:
    """The founding question about diagnoses, ages and modalities by the seed: common ones and rare ones."""
    chance = random.Random(SEED)
    return [
        about(
            str(900_000_000 + int(5000 ** chance.random())),
            older_than_years=chance.randrange(20, 80),
            within_years=chance.randrange(1, 10),
            modality=chance.choice(("CT", "MR", "US", "PT")),
        )
        for _ in range(MIXED)
    ]


def by_all_clients(patients: int, root: Path) -> list[Measured]:
    return [row for clients in (1, CLIENTS) for row in by_clients(patients, root, clients)]


def by_clients(patients: int, root: Path, clients: int) -> list[Measured]:
    """Each client asks every question RUNS times; in processes that end or wait as those of the API do."""
    told = _told("questions_clients", str(root), str(clients), str(RUNS), str(SEED))
    who = f"{clients} client{'s' if clients > 1 else ''}, in processes as of the API"
    rows = [Measured(f"{patients:,} patients: {who}, peak memory of the largest", told["peak_mb"], "MB")]
    for name, seconds in told["seconds"].items():
        cost = Cost.of(seconds)
        what = f"{patients:,} patients: {name}, {who}{', refused' if name in told['refused'] else ''}"
        rows += [Measured(f"{what}, median", cost.median_s, "s"), Measured(f"{what}, p95", cost.p95_s, "s")]
    return rows


def _told(module: str, *words: str) -> Any:
    """What another module of the benchmark tells, in a process of its own, so that its memory can be known."""
    command = [sys.executable, "-m", f"bench.{module}", *words]
    return orjson.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def growth(costs: Mapping[int, Mapping[str, Cost]]) -> list[Measured]:
    """By which power of the number of patients each question's CPU grows, between sizes: 1 is linear."""
    rows = []
    sizes = sorted(costs)
    for small, large in pairwise(sizes):
        for name in costs[small]:
            if math.isinf(costs[large][name].cpu_s):
                continue
            power = math.log(costs[large][name].cpu_s / costs[small][name].cpu_s) / math.log(large / small)
            rows.append(
                Measured(
                    f"{name}: growth of CPU from {small:,} to {large:,} patients", power, "power", goal="<= 1",
                    met=power <= 1.05,
                )
            )  # fmt: skip
    return rows


def beside_hapi(scratch: Path) -> Measured:
    """The founding question about a common cancer as searches of a server, and by the engine over the same patients."""
    folder, asked = scratch / "hapi", about(BREAST_CANCER)
    made(HAPI_PATIENTS, folder)
    generation = Lake(folder / "lake").current()
    assert generation is not None
    with closing(connect(generation)) as ours:
        answer = ours.execute(sql_of(asked, generation)).fetchall()
        cost = timed(ours, *as_asked(asked, generation))
    walls = founding_by_search(scratch, f"{SCT}|{BREAST_CANCER}", Population(HAPI_PATIENTS, SEED), answer, RUNS)
    peer = statistics.median(walls)
    return Measured(
        f"{HAPI_PATIENTS:,} patients: {FOUNDING} of breast cancer ({len(answer)} rows), median", cost.median_s, "s",
        "searches of HAPI FHIR JPA", peer, peer / cost.median_s,
    )  # fmt: skip


if __name__ == "__main__":
    main()
