"""How long a ready question takes beside other people's bombs.

make bench-sandbox    a hospital of 600 patients; who has osteosarcoma and what was prescribed, alone, then while five
                      bombs at once are asked, each by a person of its own, again and again

Every answer is compared with what SQL counts before its time is taken. The goal: at most twice the time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

from bench.results_file import Measured, write
from bridge.errors import ProjectError
from cohort.catalogue import code_lists, read_question
from cohort.clinical import load
from cohort.desk import Caller, Desk
from cohort.generation import Generation
from cohort.lake import Lake
from cohort.privacy import Policy
from cohort.question import Question
from hospital import generate

PATIENTS, SEED, RUNS, GOAL = 600, 20260101, 15, 2.0
TODAY = date(2026, 11, 24)
QUESTION = {
    "name": "osteosarcoma-medications",
    "title": "Medications of patients with osteosarcoma",
    "description": "All medications prescribed for patients who have had a diagnosis of osteosarcoma.",
    "criteria": {"condition": {"codes": {"list": "osteosarcoma"}}},
    "return": {"unit": "patient", "columns": ["patient_id", "identifiers", "age_years", "medications"]},
}
COUNT = "SELECT count(DISTINCT patient_id) FROM condition WHERE code IN ({codes})"
BOMBS = (
    "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range + b.range) = 1",
    "SELECT max(s) FROM (SELECT string_agg(i::VARCHAR, ',') AS s FROM range(1000000000) t(i))",
    "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT length(max(s)) FROM t",
    "SELECT * FROM range(10000000000) t(i) ORDER BY hash(i)",
    "SELECT count(*) FROM range(10000000000) t(i) WHERE regexp_matches('aaaaaaaaaaaaaaaaaaaaaaa' || i, '(a+)+$')",
)


def asked(desk: Desk, generation: Generation, wanted: Question, expected: int) -> float:
    """Seconds that one question takes, with its turn and its log."""
    started = time.perf_counter()
    answer = desk.ask(generation, wanted, {}, TODAY, Caller("clinician", "api"))
    assert len(answer.rows) == expected
    return time.perf_counter() - started


def bombing(desk: Desk, generation: Generation, sql: str, who: str, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(ProjectError):
            desk.sql(generation, sql, Caller(who, "api"))
        over.wait(0.05)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder) / "hospital", patients=PATIENTS, seed=SEED, today=TODAY)
        lake = Lake(Path(folder) / "lake")
        load([Path(folder) / "hospital" / "clinical"], lake, datetime.now(UTC))
        generation = lake.publish(datetime.now(UTC))
        assert generation is not None
        desk = Desk(lake.root, Policy(small_cells=1, line_level=True, identifiers="identifiers"))
        wanted = read_question(QUESTION)
        codes = ", ".join(f"'{code}'" for _, code in code_lists()["osteosarcoma"])
        ((expected,),) = desk.sql(generation, COUNT.format(codes=codes), Caller("clinician", "api")).rows
        assert expected
        alone = [asked(desk, generation, wanted, expected) for _ in range(RUNS)]
        over = threading.Event()
        attackers = [
            threading.Thread(target=bombing, args=(desk, generation, sql, f"attacker {n}", over), daemon=True)
            for n, sql in enumerate(BOMBS)
        ]
        for attacker in attackers:
            attacker.start()
        time.sleep(3)
        beside = [asked(desk, generation, wanted, expected) for _ in range(RUNS)]
        over.set()
        for attacker in attackers:
            attacker.join(60)
    ratio = statistics.median(beside) / statistics.median(alone)
    worst = sorted(beside)[int(RUNS * 0.95)] / sorted(alone)[int(RUNS * 0.95)]
    rows = [
        Measured("question beside five bombs, median", statistics.median(beside), "s", "alone",
                 statistics.median(alone), ratio, f"<= {GOAL:g}", ratio <= GOAL),
        Measured("question beside five bombs, p95", sorted(beside)[int(RUNS * 0.95)], "s", "alone",
                 sorted(alone)[int(RUNS * 0.95)], worst, f"<= {GOAL:g}", worst <= GOAL),
    ]  # fmt: skip
    write("sandbox", SEED, {"patients": made.patients, "bombs": len(BOMBS)}, rows, RUNS)
    sys.exit(0 if all(row.met for row in rows) else 1)


if __name__ == "__main__":
    main()
