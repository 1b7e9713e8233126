"""From a folder of DICOM files to the FHIR API and the lake: rates, and latency from the last instance to visible.

    make bench-pipeline            checks every answer before it times; five runs, medians

Peers in the same run: dicom2fhir 0.1.25 on the same files (in an environment of its own), and pydicom reading the
headers alone, which no pipeline built on it can be faster than.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

import httpx
import orjson
from pydicom import dcmread

from bench.peer_environment import by_dicom2fhir
from bench.results_file import Measured, write
from bridge import config
from bridge.code_tables import code_tables, dicom_columns
from bridge.compose import Bridge
from bridge.sources.part10 import read_headers
from bridge.translate.site import Site
from bridge.translate.study import Translator
from cohort.sandbox import run_sql
from hospital import generate

SEED, PATIENTS, RUNS, QUIET_S = 20260101, 240, 5, 1.0
PORT = 18_973
WEB = f"http://127.0.0.1:{PORT}"


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        summary = generate(folder / "hospital", patients=PATIENTS, seed=SEED, today=date(2026, 11, 24))
        dicom = folder / "hospital" / "dicom"
        files = sorted(dicom.rglob("*.dcm"))
        runs = [one_run(folder / f"run{n}", dicom, summary.studies, summary.instances) for n in range(RUNS)]
        latencies = [latency(folder / f"latency{n}", files) for n in range(RUNS)]
        ours = statistics.median(translate_seconds(dicom) for _ in range(RUNS))
        floor = statistics.median(pydicom_seconds(files) for _ in range(RUNS))
        reader = statistics.median(reader_seconds(files) for _ in range(RUNS))
        peers = [by_dicom2fhir(dicom) for _ in range(RUNS)]
    peer, failed = statistics.median(one.wall_ms for one in peers), peers[0].failed
    our_ms = 1000 * ours / summary.instances
    n, whole = summary.instances, statistics.median(runs)
    fhir_s, lake_s = (statistics.median(values) for values in zip(*latencies, strict=True))
    rows = [
        Measured(
            "folder to FHIR API and lake", n / whole, "instances/s", "pydicom, headers alone", n / floor, floor / whole
        ),
        Measured("folder to FHIR API and lake", summary.studies / whole, "studies/s"),
        Measured(
            "files to serialised R4", our_ms, "ms/instance", f"dicom2fhir ({failed} studies failed)", peer,
            our_ms / peer, "1/30 of the peer", our_ms / peer <= 1 / 30,
        ),
        Measured("files to serialised R4", our_ms, "ms/instance", goal="<= 0.25 ms", met=our_ms <= 0.25),
        Measured(
            "header reader", n / reader, "files/s", "pydicom", n / floor, floor / reader, ">= 9,000", n / reader >= 9000
        ),
        Measured(
            "last instance stored to visible in FHIR", fhir_s, "s", "quiet period", QUIET_S, None, "quiet + 2 s",
            fhir_s <= QUIET_S + 2,
        ),
        Measured(
            "last instance stored to counted by a question", lake_s, "s", "quiet period", QUIET_S, None, "quiet + 5 s",
            lake_s <= QUIET_S + 5,
        ),
    ]  # fmt: skip
    sizes = {
        "patients": PATIENTS,
        "studies": summary.studies,
        "instances": n,
        "bytes": summary.bytes,
        "quiet_s": QUIET_S,
    }
    write("pipeline", SEED, sizes, rows, RUNS)


def settings(folder: Path, quiet_s: float) -> config.Settings:
    source = config.FolderSource(kind="folder", name="inbox", path=folder / "inbox", poll_s=0.2, settle_s=0)
    api = config.Api(port=PORT)
    return config.Settings(data_dir=folder / "data", quiet_s=quiet_s, sources=(source,), api=api)


def one_run(folder: Path, dicom: Path, studies: int, instances: int) -> float:
    """Seconds from start until FHIR and lake hold everything; both are asked, and checked."""
    shutil.copytree(dicom, folder / "inbox")
    started = time.perf_counter()
    with Bridge(settings(folder, 0.0)).running() as bridge, httpx.Client(base_url=WEB) as web:
        while counted(bridge) != (studies, instances) or total(web) != studies:
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        page = web.get("/fhir/ImagingStudy?_count=1000").json()
        assert sum(e["resource"]["numberOfInstances"] for e in page["entry"]) == instances
        generation = bridge.lake.current()
        assert generation is not None
        sql = "SELECT count(DISTINCT sop_instance_uid) FROM dicom_instance"
        assert run_sql(generation, sql).rows == ((instances,),)
    shutil.rmtree(folder)
    return seconds


def total(web: httpx.Client) -> int:
    return int(web.get("/fhir/ImagingStudy?_summary=count").json()["total"])


def counted(bridge: Bridge) -> tuple[int, int]:
    """Studies and instances in the lake's newest generation."""
    generation = bridge.lake.current()
    if generation is None:
        return 0, 0
    return generation.tables["imaging_study"].rows, generation.tables["dicom_instance"].rows


def latency(folder: Path, files: list[Path]) -> tuple[float, float]:
    """Seconds from the last file of a study to its being visible in the FHIR API and to a question."""
    study = [f for f in files if f.parent.parent == files[0].parent.parent]
    (folder / "inbox").mkdir(parents=True)
    with Bridge(settings(folder, QUIET_S)).running() as bridge, httpx.Client(base_url=WEB) as web:
        for number, file in enumerate(study):
            part = folder / "inbox" / f"{number}.part"
            shutil.copyfile(file, part)
            part.rename(part.with_suffix(".dcm"))
        stored = time.perf_counter()
        while total(web) != 1:
            time.sleep(0.01)
        fhir_s = time.perf_counter() - stored
        (entry,) = web.get("/fhir/ImagingStudy").json()["entry"]
        assert entry["resource"]["numberOfInstances"] == len(study)
        while counted(bridge) != (1, len(study)):
            time.sleep(0.01)
        return fhir_s, time.perf_counter() - stored


def translate_seconds(dicom: Path) -> float:
    """Every study's files to serialised resources, one thread."""
    translator = Translator(Site(code_tables()), ("a",), {}, dicom_columns())
    started = time.perf_counter()
    for folder in sorted(p for p in dicom.iterdir() if p.is_dir()):
        headers = [read_headers(file) for file in sorted(folder.rglob("*.dcm"))]
        result = translator.translate(headers[0].text("StudyInstanceUID"), {"a": headers})
        orjson.dumps([result.patient, *result.resources])
        assert result.resources[-1]["numberOfInstances"] == len(headers)
    return time.perf_counter() - started


def reader_seconds(files: list[Path]) -> float:
    started = time.perf_counter()
    for file in files:
        read_headers(file)
    return time.perf_counter() - started


def pydicom_seconds(files: list[Path]) -> float:
    started = time.perf_counter()
    for file in files:
        assert dcmread(file, stop_before_pixels=True).StudyInstanceUID
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
