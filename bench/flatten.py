"""ViewDefinition → zstd Parquet, from 100 MB of NDJSON for each of three resource types: MB per second of CPU.

    make bench-flatten             the rows of every engine are compared on a sample before anything is timed

In the same run: DuckDB parsing two columns and nothing else (what no reading of JSON can beat here), our evaluator and
pysof on a sample, Spark on two threads over the whole file, warm. pysof and Spark are left out where they cannot run.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import orjson

from bench.flatten_data import MAKERS, VIEWS, write
from bench.results_file import ROOT, Measured
from bench.results_file import write as write_results
from cohort.dialects import spark as spark_dialect
from cohort.elements import R4
from cohort.engine.views import rows_sql
from cohort.view import View
from cohort.view_sql import compile_view
from tests.services.spark_session import running_spark

SEED, RUNS, SIZE, SAMPLE = 20260101, 5, 100_000_000, 4_000
PEER = ROOT / ".venv-bench" / "pysof"
PEER_PACKAGES = ("pysof==0.2.6",)
SYSTEM_LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
Rows = list[str]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = {name: folder / f"{name}.ndjson" for name in VIEWS}
        counts = {name: write(file, MAKERS[name], SEED, SIZE) for name, file in files.items()}
        samples = {name: sample(file) for name, file in files.items()}
        pysof = pysof_python()
        check(samples, pysof, folder)
        rows = [row for name in VIEWS for row in measured(name, files[name], samples[name], pysof, folder)]
    write_results("flatten", SEED, {"bytes": SIZE, "sample": SAMPLE, "resources": counts}, rows, RUNS)


def measured(name: str, file: Path, part: Path, pysof: Path | None, folder: Path) -> list[Measured]:
    mb, part_mb, out = file.stat().st_size / 1e6, part.stat().st_size / 1e6, folder / "out.parquet"
    query = f"COPY ({rows_sql(VIEWS[name], file)}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)"
    columns = "columns={id: 'VARCHAR', status: 'VARCHAR'}"
    parse = f"SELECT count(id), count(status) FROM read_json('{file}', format='newline_delimited', {columns})"
    ours, ceiling = mb / median(lambda: duckdb_s(query)), mb / median(lambda: duckdb_s(parse))
    evaluator = part_mb / median(lambda: evaluator_s(VIEWS[name], part))
    rows = [
        Measured(name, ours, "MB/CPU s", "DuckDB parsing alone", ceiling, ours / ceiling, ">= 400", ours >= 400),
        Measured(name, ours, "MB/CPU s", f"our evaluator, {SAMPLE} resources", evaluator, ours / evaluator),
    ]
    if pysof:
        peer = part_mb / median(lambda: pysof_run(pysof, VIEWS[name], part, folder)[0])
        rows.append(Measured(name, ours, "MB/CPU s", "pysof 0.2.6", peer, ours / peer, ">= 50x", ours / peer >= 50))
    spark = mb / spark_s(VIEWS[name], file, folder)
    rows.append(
        Measured(name, ours, "MB/CPU s", "Spark local[2], warm", spark, ours / spark, ">= 4x", ours / spark >= 4)
    )
    return rows


def median(seconds: Callable[[], float]) -> float:
    return statistics.median(seconds() for _ in range(RUNS))


def duckdb_s(query: str) -> float:
    """CPU seconds on one thread."""
    with duckdb.connect(config={"threads": 1, "preserve_insertion_order": False}) as connection:
        started = time.process_time()
        connection.execute(query)
        return time.process_time() - started


def evaluator_s(definition: dict[str, Any], file: Path) -> float:
    started, view = time.process_time(), View(definition)
    with file.open("rb") as lines:
        for line in lines:
            view.rows(orjson.loads(line))
    return time.process_time() - started


def spark_s(definition: dict[str, Any], file: Path, folder: Path) -> float:
    """CPU seconds of Spark's process for one write, after one that warms it."""
    query = spark_dialect.sql(compile_view(definition, R4).relation(str(file)))
    with running_spark() as spark:
        process = spark.session._jvm.java.lang.ProcessHandle.current().pid()
        seconds = []
        for n in range(3):
            started = cpu_s(process)
            spark.session.sql(query).write.option("compression", "zstd").parquet(str(folder / f"spark{file.stem}{n}"))
            seconds.append(cpu_s(process) - started)
    return min(seconds[1:])


def cpu_s(process: int) -> float:
    """User and system seconds of a process (proc(5), fields 14 and 15, in hundredths)."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def check(samples: dict[str, Path], pysof: Path | None, folder: Path) -> None:
    """Every engine gives the same rows of every sample."""
    with running_spark() as spark:
        for name, file in samples.items():
            view = View(VIEWS[name])
            wanted = sorted(comparable(r) for line in file.open("rb") for r in view.rows(orjson.loads(line)))
            relation = compile_view(VIEWS[name], R4).relation(str(file))
            names, found = spark.run(relation)
            assert sorted(comparable(dict(zip(names, r, strict=True))) for r in found) == wanted, f"Spark: {name}"
            with duckdb.connect() as connection:
                cursor = connection.execute(rows_sql(VIEWS[name], file))
                found = cursor.fetchall()
            assert sorted(comparable(dict(zip(names, r, strict=True))) for r in found) == wanted, f"DuckDB: {name}"
            if pysof:
                _, lines = pysof_run(pysof, VIEWS[name], file, folder)
                assert sorted(comparable(json.loads(line)) for line in lines) == wanted, f"pysof: {name}"


def comparable(row: dict[str, Any]) -> str:
    """pysof writes a decimal that is whole as text."""
    numbers = {k for k, v in row.items() if isinstance(v, int | float) or (k == "value" and v is not None)}
    plain = {k: float(v) if k in numbers else v for k, v in row.items() if v is not None}
    return json.dumps(plain, sort_keys=True)


def sample(file: Path) -> Path:
    part = file.with_name(f"sample-{file.name}")
    with file.open("rb") as lines:
        part.write_bytes(b"".join(line for _, line in zip(range(SAMPLE), lines, strict=False)))
    return part


def pysof_run(python: Path, definition: dict[str, Any], file: Path, folder: Path) -> tuple[float, Rows]:
    view, out = folder / "view.json", folder / "pysof.ndjson"
    view.write_text(json.dumps(definition), "utf-8")
    command = [str(python), str(ROOT / "bench" / "peer_pysof.py"), str(view), str(file), str(out)]
    done = subprocess.run(command, capture_output=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"]), out.read_text("utf-8").splitlines()


def pysof_python() -> Path | None:
    """pysof in an environment of its own. Its wheel's libssl and libcrypto want a newer glibc than Debian 12 has: there
    the system's take their place."""
    python = PEER / "bin" / "python"
    if not python.exists():
        venv.create(PEER, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
        for library in PEER.glob("lib/python*/site-packages/pysof.libs/lib*.so.3"):
            system = SYSTEM_LIBRARIES / f"{library.name.partition('-')[0]}.so.3"
            if system.exists():
                shutil.copyfile(system, library)
    works = subprocess.run([str(python), "-c", "import pysof"], capture_output=True, check=False)
    return python if works.returncode == 0 else None


if __name__ == "__main__":
    main()
