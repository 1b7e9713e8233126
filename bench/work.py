"""The work table on SQLite and on PostgreSQL: marks, claims, takeovers and idleness; beside Procrastinate.

    make bench-work            five runs, medians; about a quarter of an hour

A million keys have a backlog of their own, as have 20,000: what is compared is working off 20,000 of either. Both
databases are durable (SQLite as the bridge opens it). Procrastinate works on the same PostgreSQL, one job for each key,
once for each backlog but the largest, which it takes too long to be given.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.peer_environment import PROCRASTINATE, by_procrastinate
from bench.processes import cpu_s
from bench.results_file import ROOT, Measured, write
from bridge.loops import IDLE_S
from bridge.ports import STUDY_QUEUE, sink_queue
from bridge.state import State
from tests.services.bridge_process import BridgeProcess
from tests.services.postgresql import fresh_database, running_postgresql

SEED, RUNS = 0, 5
BACKLOGS = (20_000, 100_000, 1_000_000)
WORKED_OFF = 20_000
PAGE, BATCH, FEW = 1_000, 100, 4
"""Keys marked at once (a page of changes), and claimed at once by a sink and by what reads studies."""

LEASE_S, IDLE_FOR_S, PEER_AT_MOST_S = 2.0, 20.0, 20.0
MARKS, KEYS, SLOWER, TAKEOVER_S, IDLE_SHARE = 10_000, 5_000, 1.2, 1.0, 0.02


def main() -> None:
    if sys.argv[1:2] == ["claimer"]:
        _claim_and_hang(sys.argv[2])
        return
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="work-", dir=ROOT) as scratch, running_postgresql(durable=True) as server:
        Path(scratch, ".gitignore").write_text("*\n", "utf-8")
        numbers = iter(range(1000))

        def sqlite() -> str:
            return f"sqlite:///{scratch}/{next(numbers)}.sqlite"

        def postgresql() -> str:
            return fresh_database(server, f"w{next(numbers)}")

        for name, database in (("SQLite", sqlite), ("PostgreSQL", postgresql)):
            marked, drained, few, waits = [], {n: [] for n in BACKLOGS}, [], []
            for _ in range(RUNS):
                for backlog in BACKLOGS:
                    state = State(database())
                    rate = marks_per_s(state, backlog)
                    if backlog == max(BACKLOGS):
                        marked.append(rate)
                    drained[backlog].append(keys_per_s(state, backlog))
                    if backlog == min(BACKLOGS):
                        few.append(studies_per_s(state))
                    state.close()
                waits.append(takeover_s(database()))
            rows += _rows(name, marked, drained, few, waits)
            rows.append(_idle(name, database(), Path(scratch)))
            print(f"{name} measured", flush=True)
        fastest = {r.what: r.value for r in rows}
        for backlog in BACKLOGS[:-1]:
            address = fresh_database(server, f"p{backlog}").replace("+psycopg", "")
            peer = by_procrastinate(address, backlog, PEER_AT_MOST_S)
            ours = fastest[f"PostgreSQL: claimed and done, backlog {backlog:,}"]
            rows.append(Measured(f"claimed and done, backlog {backlog:,}", ours, "keys/s", PROCRASTINATE,
                                 peer.per_s, ours / peer.per_s))  # fmt: skip
    rows.append(Measured("load of the machine, one minute", os.getloadavg()[0], ""))
    sizes = {"backlogs": list(BACKLOGS), "worked_off": WORKED_OFF, "page": PAGE, "batch": BATCH, "lease_s": LEASE_S}
    write("work", SEED, sizes, rows, RUNS)


def marks_per_s(state: State, keys: int) -> float:
    """So many keys of a sink marked once, page by page, and a page of them again after each ten."""
    began, marks = time.perf_counter(), 0
    for first in range(0, keys, PAGE):
        page = _keys(first, min(first + PAGE, keys))
        for _ in range(2 if first % (10 * PAGE) == 0 else 1):
            state.mark(sink_queue("ehr"), page, 1.0)
            marks += len(page)
    seconds = time.perf_counter() - began
    assert state.depth()[0][1] == keys
    return marks / seconds


def keys_per_s(state: State, backlog: int) -> float:
    """Claimed in batches and ended in one transaction with their receipts, as a sink's are."""
    seen: set[str] = set()
    began = time.perf_counter()
    while len(seen) < WORKED_OFF:
        claims = state.claim(sink_queue("ehr"), 2.0, 30.0, BATCH, "bench/sink")
        state.commit_delivered("ehr", [(claim, None) for claim in claims], 2.0)
        seen |= {claim.key for claim in claims}
    seconds = time.perf_counter() - began
    assert len(seen) == WORKED_OFF
    assert sum(row[1] for row in state.depth()) == backlog - WORKED_OFF
    return WORKED_OFF / seconds


def studies_per_s(state: State) -> float:
    """Claimed a few at a time, each ended in a transaction of its own: how studies are read."""
    keys = WORKED_OFF // 10
    state.mark(STUDY_QUEUE, _keys(0, keys), 1.0)
    done, began = 0, time.perf_counter()
    while claims := state.claim(STUDY_QUEUE, 2.0, 30.0, FEW, "bench/study"):
        for claim in claims:
            state.done(claim, 2.0)
        done += len(claims)
    seconds = time.perf_counter() - began
    assert done == keys
    return keys / seconds


def takeover_s(url: str) -> float:
    """From the end of the lease of a process that was killed until another, looking as often as loops do, has it."""
    state = State(url)
    state.mark(STUDY_QUEUE, ["1.2.3"], time.time())
    command = [sys.executable, "-m", "bench.work", "claimer", url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        ends_at = float(holder.stdout.readline())
        holder.send_signal(signal.SIGKILL)
    while not state.claim(STUDY_QUEUE, time.time(), LEASE_S, FEW, "bench/other"):
        time.sleep(IDLE_S)
    waited = time.time() - ends_at
    state.close()
    assert waited >= 0
    return waited


def idle_share(url: str, folder: Path) -> float:
    """How much of a core `bridge run` uses that has a folder to look at, a receiver and a lake, and nothing to do."""
    sources = '[[sources]]\nkind = "folder"\nname = "inbox"\npath = "inbox"\nallow_empty = true\n'
    folder.mkdir()
    (folder / "inbox").mkdir()
    bridge = BridgeProcess(folder, sources, {}, settings=f'state_url = "{url}"\n')
    try:
        bridge.start()
        time.sleep(5)
        before = cpu_s(bridge.pid)
        time.sleep(IDLE_FOR_S)
        return (cpu_s(bridge.pid) - before) / IDLE_FOR_S
    finally:
        bridge.close()


def _claim_and_hang(url: str) -> None:
    now = time.time()
    assert State(url).claim(STUDY_QUEUE, now, LEASE_S, FEW, "bench/killed")
    print(now + LEASE_S, flush=True)
    time.sleep(60)


def _keys(first: int, last: int) -> list[str]:
    return [f"1.2.826.0.1.3680043.10.1561.{n}" for n in range(first, last)]


def _rows(
    name: str, marked: Sequence[float], drained: dict[int, list[float]], few: Sequence[float], waits: Sequence[float]
) -> list[Measured]:
    marks, rates = statistics.median(marked), {n: statistics.median(found) for n, found in drained.items()}
    slower = rates[min(BACKLOGS)] / rates[max(BACKLOGS)]
    wait = max(waits)
    return [
        Measured(f"{name}: marks", marks, "marks/s", goal=f">= {MARKS:,}", met=marks >= MARKS),
        *(
            Measured(f"{name}: claimed and done, backlog {n:,}", rate, "keys/s", goal=f">= {KEYS:,}", met=rate >= KEYS)
            for n, rate in rates.items()
        ),
        Measured(f"{name}: slower by a backlog of {max(BACKLOGS):,}", slower, "times", goal=f"<= {SLOWER}",
                 met=slower <= SLOWER),
        Measured(f"{name}: claimed and done, each alone", statistics.median(few), "keys/s"),
        Measured(f"{name}: from a dead worker's lease end to the next claim, longest", wait, "s",
                 goal=f"<= {TAKEOVER_S:g}", met=wait <= TAKEOVER_S),
    ]  # fmt: skip


def _idle(name: str, url: str, scratch: Path) -> Measured:
    share = idle_share(url, scratch / f"idle-{name}")
    return Measured(f"{name}: `bridge run` with nothing to do", share, "of a core", goal=f"<= {IDLE_SHARE}",
                    met=share <= IDLE_SHARE)  # fmt: skip


if __name__ == "__main__":
    main()
