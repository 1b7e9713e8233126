"""How fast headers come from files, from DICOM JSON and by C-FIND, beside the libraries and programs that do the same.

make bench-read                checks every answer before it times it; five runs, medians
python -m bench.read files     only the rows that need no Orthanc and no DCMTK
"""

from __future__ import annotations

import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from bench.objects import ROOT_UID, ct, enhanced_mr, mr, tiny
from bench.results_file import Measured, write
from bridge.code_tables import code_tables, dicom_columns
from bridge.sources.identifier import Match, encoded
from bridge.sources.json_array import array_items
from bridge.sources.part10 import read_headers
from bridge.sources.preflight import Verdict, preflight
from bridge.sources.scu import STUDY_ROOT_FIND, Association, Peer
from bridge.translate.headers import Headers
from bridge.translate.site import Site
from bridge.translate.study import Translator
from tests.services.orthanc_server import OrthancServer, running_orthanc
from tests.services.peers import program

RUNS, FILES, FRAMED_FILES, INSTANCES, STUDIES = 5, 100, 6, 500, 1000
QUERIES = 100
LAST_WANTED_TAG = 0x52009231
CHUNK, LONGEST_ITEM = 65_536, 1_000_000
SEED = 0
QUERY = ("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientID", "StudyDate", "NumberOfStudyRelatedInstances")


@dataclass(frozen=True)
class Cost:
    """Seconds for one item."""

    cpu: float
    wall: float


def cost(work: Callable[[], object], items: int) -> Cost:
    """The median of the runs, after one that is not counted."""
    work()
    runs = []
    for _ in range(RUNS):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        runs.append(((time.process_time() - cpu) / items, (time.perf_counter() - wall) / items))
    return Cost(*(statistics.median(values) for values in zip(*runs, strict=True)))


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [*file_rows(Path(scratch))]
        if "files" not in sys.argv:
            with running_orthanc(Path(scratch)) as orthanc:
                rows += [*json_rows(orthanc), *find_rows(orthanc)]
    sizes = {"files": FILES, "enhanced_files": FRAMED_FILES, "instances": INSTANCES, "studies": STUDIES}
    write("read", SEED, sizes, rows, RUNS)


def file_rows(folder: Path) -> Iterator[Measured]:
    framed = [enhanced_mr()] * FRAMED_FILES
    yield from rows_of("CT 530 KB", written(folder / "ct", map(ct, range(1, FILES + 1))), 9000)
    yield from rows_of("MR 27 KB", written(folder / "mr", map(mr, range(1, FILES + 1))), None)
    yield from rows_of("enhanced MR 670 KB", written(folder / "enhanced", framed), 5000)
    framed = [enhanced_mr(undefined_lengths=True)] * FRAMED_FILES
    yield from rows_of("enhanced MR, no lengths", written(folder / "undefined", framed), 5000)


def written(folder: Path, contents: Any) -> list[Path]:
    folder.mkdir()
    for number, content in enumerate(contents):
        (folder / f"{number}.dcm").write_bytes(content)
    return sorted(folder.iterdir())


def rows_of(what: str, files: Sequence[Path], goal: int | None) -> Iterator[Measured]:
    for path in files:
        expected, scan = Headers.from_dataset(dcmread(path, stop_before_pixels=True)), preflight(path)
        assert read_headers(path) == scan.headers == expected
        assert scan.verdict is Verdict.ACCEPT, scan.findings
    ours = cost(lambda: [read_headers(path) for path in files], len(files))
    judged = cost(lambda: [preflight(path) for path in files], len(files))
    stopping = cost(lambda: [dcmread(path, stop_before_pixels=True) for path in files], len(files))
    partly = cost(lambda: [stopped_early(path) for path in files], len(files))
    rate, met = 1 / ours.cpu, None if goal is None else 1 / ours.cpu >= goal
    yield Measured(
        f"headers, {what}", rate, "per CPU s", "pydicom stop_before_pixels", 1 / stopping.cpu, stopping.cpu / ours.cpu,
        f">= {goal:,}" if goal else "", met,
    )  # fmt: skip
    yield Measured(f"headers, {what}", rate, "per CPU s", "pydicom read_partial", 1 / partly.cpu, partly.cpu / ours.cpu)
    yield Measured(f"headers, {what}", 1 / ours.wall, "per s", "pydicom", 1 / stopping.wall, stopping.wall / ours.wall)
    yield Measured(f"preflight, {what}", 1 / judged.cpu, "per CPU s", "headers alone", rate, ours.cpu / judged.cpu)


def stopped_early(path: Path) -> Dataset:
    with path.open("rb", buffering=CHUNK) as file:
        return read_partial(file, stop_when=lambda tag, _vr, _length: tag >= LAST_WANTED_TAG)


def json_rows(orthanc: OrthancServer) -> Iterator[Measured]:
    """A study's metadata as Orthanc serves it, read as it arrives."""
    orthanc.upload([mr(number) for number in range(1, INSTANCES + 1)])
    with orthanc.client() as client:
        address = f"/dicom-web/studies/{ROOT_UID}/metadata"
        content = client.get(address).raise_for_status().content
        served = cost(lambda: client.get(address).raise_for_status(), INSTANCES)
    chunks = [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]
    headers = from_array(chunks)
    assert [h.integer("InstanceNumber") for h in sorted(headers, key=number_of)] == [*range(1, INSTANCES + 1)]
    assert headers == [Headers.from_dicom_json(item) for item in orjson.loads(content)]
    streamed = cost(lambda: from_array(chunks), INSTANCES)
    at_once = cost(lambda: [Headers.from_dicom_json(item) for item in orjson.loads(content)], INSTANCES)
    serialised = cost(lambda: as_resources(from_array(chunks)), INSTANCES)
    peer = "Orthanc, serving it (wall)"
    yield Measured(
        "headers, DICOM JSON as it arrives", 1 / streamed.cpu, "per CPU s", peer, 1 / served.wall,
        served.wall / streamed.cpu,
    )  # fmt: skip
    yield Measured(
        "headers, DICOM JSON at once", 1 / at_once.cpu, "per CPU s", "as it arrives", 1 / streamed.cpu,
        streamed.cpu / at_once.cpu,
    )  # fmt: skip
    milliseconds = 1000 * serialised.cpu
    yield Measured(
        "DICOM JSON to serialised R4", milliseconds, "CPU ms/instance", "its headers", 1000 * streamed.cpu,
        serialised.cpu / streamed.cpu, "<= 0.05 ms", milliseconds <= 0.05,
    )  # fmt: skip


def from_array(chunks: Sequence[bytes]) -> list[Headers]:
    return [Headers.from_dicom_json(item) for item in array_items(chunks, LONGEST_ITEM)]


def number_of(headers: Headers) -> int:
    return headers.integer("InstanceNumber") or 0


def as_resources(headers: Sequence[Headers]) -> bytes:
    result = TRANSLATOR.translate(ROOT_UID, {"a": headers})
    return orjson.dumps([result.patient, *result.resources])


TRANSLATOR = Translator(Site(code_tables()), ("a",), {}, dicom_columns())


def find_rows(orthanc: OrthancServer) -> Iterator[Measured]:
    """All studies by C-FIND, and one of them: our SCU, each match to Headers, beside findscu and pynetdicom."""
    orthanc.delete_study(ROOT_UID)
    orthanc.upload([tiny(number) for number in range(1, STUDIES + 1)])
    keys = dict(key.partition("=")[::2] for key in QUERY)
    peer = Peer("127.0.0.1", orthanc.dicom_port, orthanc.ae_title)
    with Association(peer, [STUDY_ROOT_FIND]) as ours, association(orthanc) as find:

        def all_of_them() -> list[str]:
            return [Match(m).headers().text("StudyInstanceUID") for m in ours.find(encoded(keys)).matches]

        one = encoded(keys | {"StudyInstanceUID": f"{ROOT_UID}.9.1"})
        assert len(set(all_of_them())) == len(set(find())) == STUDIES
        assert findscu(orthanc).count(b"(0020,000d)") >= STUDIES
        assert len(ours.find(one).matches) == 1
        mine, library = cost(all_of_them, STUDIES), cost(find, STUDIES)
        program_ = cost(lambda: findscu(orthanc), STUDIES)
        single = cost(lambda: [ours.find(one) for _ in range(QUERIES)], QUERIES)
    what = "C-FIND responses to headers"
    yield Measured(what, 1 / mine.wall, "per s", "findscu", 1 / program_.wall, program_.wall / mine.wall)
    yield Measured(what, 1 / mine.wall, "per s", "pynetdicom", 1 / library.wall, library.wall / mine.wall)
    ms = single.wall * 1000
    yield Measured("C-FIND of one study, Orthanc with Nagle's algorithm", ms, "ms", goal="<= 5", met=ms <= 5)


@contextmanager
def association(orthanc: OrthancServer) -> Iterator[Callable[[], list[str]]]:
    """A function that asks for all studies and gives their UIDs."""
    entity = AE("BENCH")
    entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
    opened = entity.associate("127.0.0.1", orthanc.dicom_port, ae_title=orthanc.ae_title)
    assert opened.is_established
    identifier = Dataset()
    for key in QUERY:
        keyword, _, value = key.partition("=")
        setattr(identifier, keyword, value)

    def find() -> list[str]:
        answers = opened.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind)
        return [str(found.StudyInstanceUID) for _, found in answers if found is not None]

    try:
        yield find
    finally:
        opened.release()


def findscu(orthanc: OrthancServer) -> bytes:
    keys = [part for key in QUERY for part in ("-k", key)]
    command = [str(program("findscu")), "-S", "-aec", orthanc.ae_title, *keys, "127.0.0.1", str(orthanc.dicom_port)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout


if __name__ == "__main__":
    main()
