"""Makes the hospital of `bench.population` and loads it into a lake, in a process of its own whose memory is told.

python -m bench.questions_lake PATIENTS SEED FOLDER      FOLDER/lake, FOLDER/naive; JSON on standard output

What ends before its end goes on behind the last chunks that were published when it is started again.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from uuid import uuid4

import orjson

from bench.population import Population
from bench.population_files import naive, write
from cohort.clinical import load
from cohort.generation import Generation
from cohort.lake import Lake

PUBLISHED = 10
"""So many chunks of the population are loaded and published at once: NDJSON takes six times the room of the lake."""


@dataclass
class Loaded:
    """What was loaded: chunks of the population, resources and sets of DICOM rows, their bytes as NDJSON. Of these what
    was timed, loading and publishing, in seconds and CPU seconds. The seconds of compacting everything at the end; the
    peak memory of the process; the bytes of the newest generation and of the naive Parquet; rows of each table."""

    chunks: int = 0
    resources: int = 0
    bytes: int = 0
    timed_resources: int = 0
    timed_bytes: int = 0
    wall_s: float = 0
    cpu_s: float = 0
    compact_s: float = 0
    peak_mb: float = 0
    lake_bytes: int = 0
    naive_bytes: int = 0
    rows: dict[str, int] = field(default_factory=dict)


def main() -> None:
    patients, seed, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    lake, progress = Lake(folder / "lake"), folder / "progress.json"
    loaded = Loaded(**orjson.loads(progress.read_bytes())) if progress.exists() else Loaded()
    chunks = write(Population(patients, seed), folder, loaded.chunks)
    while waiting := list(islice(chunks, PUBLISHED)):
        _publish(lake, waiting, loaded)
        progress.write_bytes(orjson.dumps(asdict(loaded)))
    loaded.compact_s, _ = _timed(partial(lake.compact, datetime.now(UTC), everything=True))
    loaded.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert not lake.parked(1)
    naive(folder)
    generation = lake.current()
    assert generation is not None
    loaded.lake_bytes = sum(path.stat().st_size for path in _files(generation))
    loaded.naive_bytes = sum(path.stat().st_size for path in (folder / "naive").glob("*.parquet"))
    loaded.rows = {name: table.rows for name, table in generation.tables.items()}
    sys.stdout.buffer.write(orjson.dumps(asdict(loaded)))


def _publish(lake: Lake, waiting: Sequence[tuple[Path, list[Path]]], loaded: Loaded) -> None:
    files = [file for clinical, bridge in waiting for file in [*clinical.iterdir(), *bridge]]
    size, resources = sum(file.stat().st_size for file in files), sum(_lines(file) for file in files)
    wall_s, cpu_s = _timed(partial(_load, lake, waiting))
    loaded.chunks += len(waiting)
    loaded.resources, loaded.timed_resources = loaded.resources + resources, loaded.timed_resources + resources
    loaded.bytes, loaded.timed_bytes = loaded.bytes + size, loaded.timed_bytes + size
    loaded.wall_s, loaded.cpu_s = loaded.wall_s + wall_s, loaded.cpu_s + cpu_s


def _load(lake: Lake, waiting: Sequence[tuple[Path, list[Path]]]) -> None:
    """As `cohort load` and the bridge's sink do it, but that the bridge's lines are written already, and that all of it
    is compacted once, as after one `cohort load`."""
    load([clinical for clinical, _ in waiting], lake, datetime.now(UTC))
    for clinical, bridge in waiting:
        shutil.rmtree(clinical)
        for file in bridge:
            file.rename(lake.root / "delta" / f"{time.time_ns():020}-{uuid4().hex}.ndjson")
    lake.publish(datetime.now(UTC))


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _lines(file: Path) -> int:
    with file.open("rb") as raw:
        return sum(block.count(b"\n") for block in iter(lambda: raw.read(1 << 20), b""))


def _files(generation: Generation) -> set[Path]:
    layers = [layer for table in generation.tables.values() for layer in table.layers]
    return {path for layer in layers for path in layer.paths}


if __name__ == "__main__":
    main()
