"""A million entries of a DICOM server's change feed about a thousand studies: what reading them costs, and no more.

    make bench-feed            checks every answer before it times it; medians of five runs of each API version

The floor, in the same run: the same answers parsed by orjson and thrown away. The server is one in memory that has
its answers ready, so that nothing but the bridge is timed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson

from bench.results_file import Measured, write
from bridge.code_tables import code_tables, dicom_columns
from bridge.errors import ProjectError
from bridge.model import StudyState
from bridge.ports import STUDY_QUEUE
from bridge.sources.dicom_server import DicomServer
from bridge.sources.dicom_server_sequences import SPAN
from bridge.sources.dicom_server_times import ROWS
from bridge.state import State
from bridge.sync import Pipeline, Timing
from bridge.translate.site import Site
from bridge.translate.study import Translator

ENTRIES, STUDIES, RUNS, SEED = 1_000_000, 1_000, 5, 0
SIDE_BY_SIDE = 20
"""Studies that arrive at the same time, instance by instance in turn."""

READ_BACK = 3
"""Instances in each study's metadata: reading is measured by bench.pipeline."""

START = datetime(2024, 3, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=10)


def main() -> None:
    rows: list[Measured] = []
    for version in ("v1", "v2"):
        server = Server(version)
        floor = statistics.median(floor_seconds(server) for _ in range(RUNS))
        runs = [one_run(server, version) for _ in range(RUNS)]
        wall, cpu, marks, writes = (statistics.median(values) for values in zip(*runs, strict=True))
        rows += [
            Measured(f"{version} feed to marks", ENTRIES / wall, "entries/s"),
            Measured(
                f"{version} feed to marks", 1e6 * cpu / ENTRIES, "us CPU/entry", "orjson, parsing alone",
                1e6 * floor / ENTRIES, cpu / floor,
            ),
            Measured(f"{version} marks", marks, "rows", goal=f"= {STUDIES:,}", met=marks == STUDIES),
            Measured(f"{version} FHIR writes", writes, "deliveries", goal=f"= {STUDIES:,}", met=writes == STUDIES),
        ]  # fmt: skip
    sizes = {"entries": ENTRIES, "studies": STUDIES, "side_by_side": SIDE_BY_SIDE, "state": "SQLite on disk"}
    write("feed", SEED, sizes, rows, RUNS)


class Server(httpx.BaseTransport):
    """A DICOM server that answers without work: its feed lies ready in the pages that will be asked for."""

    def __init__(self, version: str) -> None:
        size = SPAN if version == "v1" else ROWS
        self.pages: dict[tuple[str, int], bytes] = dict(_pages(version, size))
        self._latest = orjson.dumps(_entry(ENTRIES))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path, asked = request.url.path, request.url.params
        if path.endswith("/latest"):
            return httpx.Response(200, content=self._latest)
        if path.endswith("/changefeed"):
            offset = int(asked["offset"])
            if asked["limit"] == "1":
                return httpx.Response(200, content=orjson.dumps([_entry(offset + 1)]))
            return httpx.Response(200, content=self.pages[asked.get("startTime", ""), offset])
        if path.endswith("/metadata"):
            return httpx.Response(200, content=orjson.dumps(_metadata(path.split("/")[3])))
        return httpx.Response(400)


def _pages(version: str, size: int) -> Iterator[tuple[tuple[str, int], bytes]]:
    """Every page under what it is asked by. By time a page begins with the last entry of the one before, which is
    skipped."""
    for first in range(1, ENTRIES + 1, size):
        content = orjson.dumps([_entry(n) for n in range(first, min(first + size, ENTRIES + 1))])
        if version == "v1":
            yield ("", first - 1), content
        elif first == 1:
            yield ("1970-01-01T00:00:00.0000000Z", 0), content
        else:
            yield (f"{_moment(first - 1):%Y-%m-%dT%H:%M:%S.%f}0Z", 1), content
    if version == "v2":
        yield (f"{_moment(ENTRIES):%Y-%m-%dT%H:%M:%S.%f}0Z", 1), b"[]"


def _moment(number: int) -> datetime:
    return START + number * STEP


def _study_of(number: int) -> int:
    per_block = ENTRIES // STUDIES * SIDE_BY_SIDE
    return (number - 1) // per_block * SIDE_BY_SIDE + (number - 1) % SIDE_BY_SIDE + 1


def _entry(number: int) -> dict[str, Any]:
    study = f"1.2.826.0.1.3680043.10.1561.{_study_of(number)}"
    return {
        "sequence": number,
        "partitionName": "Microsoft.Default",
        "studyInstanceUid": study,
        "seriesInstanceUid": f"{study}.1",
        "sopInstanceUid": f"{study}.1.{number}",
        "action": "Create",
        "timestamp": f"{_moment(number):%Y-%m-%dT%H:%M:%S.%f}+00:00",
        "state": "Current",
    }


def _metadata(study: str) -> list[dict[str, Any]]:
    return [
        {
            "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
            "00080018": {"vr": "UI", "Value": [f"{study}.1.{n}"]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "00100020": {"vr": "LO", "Value": [f"P{study.rpartition('.')[2]}"]},
            "0020000D": {"vr": "UI", "Value": [study]},
            "0020000E": {"vr": "UI", "Value": [f"{study}.1"]},
        }
        for n in range(READ_BACK)
    ]


class CountingSink:
    """Stands for a FHIR server; counts what it is given."""

    name, batch_size, wants_rows = "ehr", 50, False

    def __init__(self) -> None:
        self.delivered = 0

    def deliver(self, states: Sequence[StudyState]) -> list[ProjectError | None]:
        self.delivered += len(states)
        return [None] * len(states)


def floor_seconds(server: Server) -> float:
    """CPU seconds to parse every page and keep nothing."""
    started = time.process_time()
    for content in server.pages.values():
        orjson.loads(content)
    return time.process_time() - started


def one_run(server: Server, version: Any) -> tuple[float, float, int, int]:
    """Wall and CPU seconds from the first entry to the last mark, and the marks; then every study is read and
    delivered: how often."""
    now = _moment(ENTRIES).timestamp() + 3600
    source = DicomServer("cloud", "http://dicom.example", api_version=version, clock=lambda: now, transport=server)
    sink = CountingSink()
    translator = Translator(Site(code_tables()), ("cloud",), {}, dicom_columns())
    with tempfile.TemporaryDirectory() as folder:
        state = State(f"sqlite:///{Path(folder) / 'state.sqlite'}")
        wall, cpu = time.perf_counter(), time.process_time()
        follow(source, state, now)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        marks = len(state.items(queue=STUDY_QUEUE, limit=ENTRIES))
        timing = Timing(quiet_s=0.0, max_wait_s=0.0)
        pipeline = Pipeline(state, {"cloud": source}, {"ehr": sink}, translator, timing, lambda: now, lambda: 0.0)
        while pipeline.translate("bench/study", limit=50) or pipeline.deliver("ehr", "bench/ehr"):
            pass
        assert state.items() == []
        state.close()
    source.close()
    return wall, cpu, marks, sink.delivered


def follow(source: DicomServer, state: State, now: float) -> None:
    """As the poll loop does: every page's marks and its position are committed together."""
    while True:
        page = source.changes(state.position("cloud"))
        assert not page.rejected
        assert not page.resweep
        state.commit_page("cloud", page, now, 0.0, 0.0)
        if page.caught_up:
            return


if __name__ == "__main__":
    main()
