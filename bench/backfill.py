"""`bridge backfill` from a real Orthanc into FHIR and the lake, with one and with two processes, beside a plain script.

    make bench-backfill
    python -m bench.backfill --instances 20000 --subset 4000 --runs 1 --keep FOLDER     smaller; FOLDER keeps Orthancs

Rates are medians of five runs on a small archive; memory is that of one run on a large one, two processes on
PostgreSQL. Every run begins with empty state, lake and FHIR server, and with processes that have nothing to do; then
the studies are marked as `bridge backfill` does it, with no bound on how many are begun in a minute. It ends when the
FHIR server has all of them, and for the lake when nothing waits any more.

The FHIR server is a light one in memory (`bench.backfill_fhir`): a real one would be what is measured. The script
beside us lists Orthanc's studies, asks for the tags of each one's instances and PUTs a minimal ImagingStudy to the same
server, one after the other, without patients, state, lake, or anything that survives an error.

Before a time counts, the FHIR server's studies and instances must be those of Orthanc's statistics, each study written
once, and nothing parked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from bench.backfill_archive import INSTANCES_EACH, SERIES, archive_of, statistics_of
from bench.backfill_fhir import Counted, LightFhir, running_light_fhir
from bench.processes import Watched, watched
from bench.results_file import ROOT, Measured, write
from bridge.backfill_command import mark
from bridge.ports import BACKFILL_QUEUE, STUDY_QUEUE, SWEEP_QUEUE, sink_queue
from bridge.sources.orthanc import Orthanc
from bridge.state import State
from tests.services.bridge_process import BridgeProcess
from tests.services.orthanc_server import OrthancServer
from tests.services.postgresql import fresh_database, running_postgresql

RUNS, SUBSET, INSTANCES, SEED = 5, 20_000, 200_000, 0
A_DAY, FLAT, LATER_S, PATIENCE_S = 10_000_000, 0.2, 86_400.0, 3600.0
SOURCE, SINK = "pacs", "ehr"


@dataclass(frozen=True)
class Way:
    """How the bridge runs: one process with all roles, and so many more with the role `work`."""

    name: str
    postgresql: bool
    more: int


ONE, ONE_ON_POSTGRESQL, TWO = WAYS = (
    Way("one process on SQLite", False, 0),
    Way("one process on PostgreSQL", True, 0),
    Way("two processes on PostgreSQL", True, 1),
)
PEER = "one study after the other by a script"


@dataclass(frozen=True)
class Run:
    """Seconds since the epoch, what was brought over, and what every process used."""

    began: float
    in_fhir: float
    in_lake: float
    studies: int
    instances: int
    used: Watched

    @property
    def fhir_s(self) -> float:
        return self.in_fhir - self.began

    def cores(self, name: str) -> float:
        return self.used.cores(name, self.began, self.in_fhir)


def main() -> None:
    asked = _asked()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backfill-", dir=ROOT)))
        Path(scratch, ".gitignore").write_text("*\n", "utf-8")
        kept = (asked.keep or scratch).resolve()
        server = stack.enter_context(running_postgresql(durable=True))
        numbers = iter(range(1000))

        def run(way: Way, orthanc: OrthancServer) -> Run:
            name = f"run{next(numbers)}"
            return one_run(way, orthanc, scratch / name, fresh_database(server, name) if way.postgresql else "")

        runs: dict[Way, list[Run]] = {way: [] for way in WAYS}
        with archive_of(kept / f"orthanc-{asked.subset}", asked.subset // (SERIES * INSTANCES_EACH)) as orthanc:
            peers = []
            for _ in range(asked.runs):
                for way in WAYS:
                    runs[way].append(run(way, orthanc))
                    print(f"{way.name}: {runs[way][-1].fhir_s:.1f} s", flush=True)
                peers.append(by_script(orthanc))
                print(f"{PEER}: {peers[-1]:.1f} s", flush=True)
        with archive_of(kept / f"orthanc-{asked.instances}", asked.instances // (SERIES * INSTANCES_EACH)) as orthanc:
            print("large archive filled", flush=True)
            long = run(TWO, orthanc)
    rows = [row for way in WAYS for row in _rates(way, runs[way], peers)]
    rows += _day(long) + _memory(long)
    rows.append(Measured("load of the machine, one minute", os.getloadavg()[0], ""))
    sizes = {"instances": long.instances, "studies": long.studies, "instances_of_rates": asked.subset,
             "series_of_a_study": SERIES, "instances_of_a_series": INSTANCES_EACH}  # fmt: skip
    write("backfill", SEED, sizes, rows, asked.runs)


def one_run(way: Way, orthanc: OrthancServer, folder: Path, database: str) -> Run:
    """All that Orthanc holds, into an empty FHIR server and an empty lake."""
    folder.mkdir()
    with ExitStack() as stack:
        fhir = stack.enter_context(running_light_fhir())
        settings = f'state_url = "{database}"\n' if database else ""
        bridge = BridgeProcess(folder, _toml(orthanc, fhir), {}, settings=settings)
        stack.callback(bridge.close)
        state = State(database or f"sqlite:///{bridge.data_dir / 'state.sqlite'}")
        stack.callback(state.close)
        # the first sweep would mark the same studies as the command
        state.ensure(SWEEP_QUEUE, [SOURCE], time.time() + LATER_S)
        bridge.start()
        roots = {"bridge": bridge.pid, "FHIR server": fhir.pid, "Orthanc": orthanc.pid}
        for number in range(2, 2 + way.more):
            worker = bridge.beside("work")
            stack.callback(_ended, worker)
            roots[f"bridge {number}"] = worker.pid
        if way.more:
            bridge.wait_for("more workers", lambda: bridge.log.count("Roles        work") == way.more)
        if database:
            roots["PostgreSQL"] = _postmaster(database)
        wanted = statistics_of(orthanc)
        source = Orthanc(SOURCE, orthanc.url, username=orthanc.username, password=orthanc.password)
        stack.callback(source.close)
        used = stack.enter_context(watched(roots))
        began = time.time()
        assert mark(state, source, None, None, again=False, now=began) == (wanted[0], wanted[0])
        there: Counted = bridge.wait_for("all in FHIR", lambda: _whole(fhir, wanted), PATIENCE_S)
        bridge.wait_for("all in the lake", lambda: _nothing_waits(state), PATIENCE_S)
        in_lake = time.time()
        _check(state, fhir, bridge, wanted)
        return Run(began, there.last_at, in_lake, *wanted, used)


def by_script(orthanc: OrthancServer) -> float:
    """Seconds of the peer; what it leaves is counted as well."""
    with running_light_fhir() as fhir:
        command = [sys.executable, "-m", "bench.peer_backfill", orthanc.url, *orthanc.auth, fhir.url]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        there = fhir.counted()
    assert (there.studies, there.instances) == statistics_of(orthanc)
    return float(done.stdout.split()[1])


def _toml(orthanc: OrthancServer, fhir: LightFhir) -> str:
    return (
        f'[[sources]]\nkind = "orthanc"\nname = "{SOURCE}"\nurl = "{orthanc.url}"\n'
        f'username = "{orthanc.username}"\npassword = "{orthanc.password}"\n'
        f'[[sinks]]\nkind = "fhir_server"\nname = "{SINK}"\nurl = "{fhir.url}"\n'
    )


def _whole(fhir: LightFhir, wanted: tuple[int, int]) -> Counted | None:
    there = fhir.counted()
    return there if there.studies >= wanted[0] else None


def _nothing_waits(state: State) -> bool:
    queues = BACKFILL_QUEUE, STUDY_QUEUE, sink_queue(SINK), sink_queue("lake")
    return not any(state.items(queue=queue, limit=1) for queue in queues)


def _check(state: State, fhir: LightFhir, bridge: BridgeProcess, wanted: tuple[int, int]) -> None:
    there = fhir.counted()
    assert (there.studies, there.instances) == wanted, f"the FHIR server holds {there}, Orthanc {wanted}"
    assert there.written == there.studies, f"ImagingStudies were written {there.written} times"
    assert state.items(parked=True) == []
    sql = "SELECT count(*) AS n, count(DISTINCT sop_instance_uid) AS d FROM dicom_instance"
    bridge.wait_for("all in a generation", lambda: bridge.sql(sql) == [{"n": wanted[1], "d": wanted[1]}], PATIENCE_S)


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _postmaster(database: str) -> int:
    """The process id of the server: the parent of the one that answers."""
    engine = create_engine(database)
    with engine.connect() as connection:
        backend = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        found = int(Path(f"/proc/{backend}/stat").read_text("utf-8").rpartition(")")[2].split()[1])
    engine.dispose()
    return found


def _rates(way: Way, runs: Sequence[Run], peers: Sequence[float]) -> list[Measured]:
    instances, studies = runs[0].instances, runs[0].studies
    ours, theirs = statistics.median(r.fhir_s for r in runs), statistics.median(peers)
    lake = statistics.median(r.in_lake - r.began for r in runs)
    return [
        Measured(f"{way.name}: to the FHIR server", studies / ours, "studies/s", PEER, studies / theirs, theirs / ours),
        Measured(f"{way.name}: to the FHIR server", instances / ours, "instances/s", PEER, instances / theirs,
                 theirs / ours),
        Measured(f"{way.name}: to FHIR server and lake", instances / lake, "instances/s"),
        *(
            Measured(f"{way.name}: CPU of {name}", statistics.median(r.cores(name) for r in runs), "cores")
            for name in runs[0].used.samples[0].cpu_s
        ),
    ]  # fmt: skip


def _day(run: Run) -> list[Measured]:
    """What so many instances would take at the rate of this run, and who was busy."""
    rate = run.instances / run.fhir_s
    hours = A_DAY / rate / 3600
    used = {name: run.cores(name) for name in run.used.samples[0].cpu_s}
    together: dict[str, float] = {}
    for name, cores in used.items():
        party = "all of the bridge" if name.startswith("bridge") else name
        together[party] = together.get(party, 0.0) + cores
    del together["machine"]
    busiest = max(together, key=lambda party: together[party])
    what = f"{run.instances:,} instances, {TWO.name}"
    return [
        Measured(f"{what}: to the FHIR server", rate, "instances/s"),
        Measured(f"{what}: to the FHIR server", run.studies / run.fhir_s, "studies/s"),
        *(Measured(f"{what}: CPU of {name}", cores, "cores") for name, cores in used.items()),
        Measured(f"{A_DAY:,} instances at this rate; the busiest: {busiest}", hours, "h", goal="<= 24 h",
                 met=hours <= 24),
    ]  # fmt: skip


def _memory(run: Run) -> list[Measured]:
    rows = []
    for name in (n for n in run.used.samples[0].resident_mb if n.startswith("bridge")):
        second, last, most = run.used.fifths_mb(name, run.began, run.in_fhir)
        rows += [
            Measured(f"memory of {name}: last fifth of the run, beside the second", last, "MB", "second fifth", second,
                     last / second, f"within {FLAT:.0%}", abs(last / second - 1) <= FLAT),
            Measured(f"memory of {name}: most", most, "MB"),
        ]  # fmt: skip
    return rows


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=INSTANCES, help="of the large archive")
    parser.add_argument("--subset", type=int, default=SUBSET, help="of the small archive")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--keep", type=Path, help="folder of Orthancs that stay for the next time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
