"""From headers to serialised FHIR R4: from files, from DICOM JSON and from pydicom's datasets, beside dicom2fhir.

make bench-translate           checks every answer before it times; medians of five runs, the ways take turns

Studies of 500 instances are made of real CT slices, one of 530 KB and one of 4 KB; longer ones show how the cost of an
instance grows with their number.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydicom import dcmread

from bench.peer_environment import DICOM2FHIR, by_dicom2fhir
from bench.real_ct import LARGE, CtStudy, ct_study, small
from bench.results_file import Measured, write
from bench.turns import Cost, in_turns, timed
from bridge.cli import COLLECT_AFTER
from bridge.code_tables import code_tables, dicom_columns
from bridge.model import StudyResult
from bridge.ports import StudyHeaders
from bridge.sources.json_array import array_items
from bridge.sources.metadata import Metadata
from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers
from bridge.translate.site import Site
from bridge.translate.study import Translator
from tests.validity import told_wrong_in_both

SEED, RUNS, INSTANCES, GROWING = 0, 5, 500, (500, 5_000, 20_000)
CHUNK, LONGEST_ITEM = 65_536, 1_000_000
FILE_MS, JSON_MS, TIMES_PEER, GROWTH = 0.25, 0.05, 30, 0.15
TRANSLATOR = Translator(Site(code_tables(), maximum_instances=GROWING[-1]), ("a",), {}, dicom_columns())


def main() -> None:
    warnings.simplefilter("ignore")
    gc.set_threshold(COLLECT_AFTER)
    rows: list[Measured] = []
    for name, model in (("CT 530 KB", LARGE), ("CT 4 KB", small())):
        if not model.is_file():
            print(f"{name}: left out, {model.name} is not there", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            rows += rows_of(name, Path(scratch), ct_study(model, INSTANCES, Path(scratch) / "study"))
    with tempfile.TemporaryDirectory() as scratch:
        rows += growth_rows(Path(scratch))
    write("translate", SEED, {"instances": INSTANCES, "growing": GROWING}, rows, RUNS)


def rows_of(name: str, folder: Path, study: CtStudy) -> Iterator[Measured]:
    """Every way of one study beside what it stands on: the peer, and the same input read by others and not translated.

    The two peers are given the study as it is, in folders that hold nothing else.
    """
    content = study.metadata.read_bytes()
    items: list[Any] = orjson.loads(content)
    headers = from_files(study.files)
    checked(study, headers, from_json(content), from_objects(items), from_pydicom(study.files))
    as_files, as_json = folder / "as_files", folder / "as_json"
    for link, target in ((as_files / "study", study.files[0].parent), (as_json / "study.json", study.metadata)):
        link.parent.mkdir()
        link.symlink_to(target)
    cost = in_turns(
        {
            "files": of(study, lambda: serialised(study, from_files(study.files))),
            "json": of(study, lambda: serialised(study, from_json(content))),
            "objects": of(study, lambda: serialised(study, from_objects(items))),
            "pydicom": of(study, lambda: serialised(study, from_pydicom(study.files))),
            "headers": of(study, lambda: serialised(study, headers)),
            "orjson alone": of(study, lambda: [None for _ in array_items(chunks(content), LONGEST_ITEM)]),
            "pydicom alone": of(
                study, lambda: [str(dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in study.files]
            ),
            "peer, files": lambda: peer_cost(as_files),
            "peer, json": lambda: peer_cost(as_json),
        },
        RUNS,
    )
    ms = {way: found.cpu_ms for way, found in cost.items()}
    for way, what, times in (("files", "files", TIMES_PEER), ("json", "bytes of DICOM JSON", None)):
        ours, peers = 1000 / cost[way].wall_ms, 1000 / cost[f"peer, {way}"].wall_ms
        yield Measured(
            f"{name}: {what} to R4", ours, "instances/s", DICOM2FHIR, peers, ours / peers,
            f"{times} times the peer" if times else "", ours / peers >= times if times else None,
        )  # fmt: skip
    for way, what, peer, goal in (
        ("files", "files", "peer, files", FILE_MS),
        ("json", "bytes of DICOM JSON", "peer, json", JSON_MS),
        ("json", "bytes of DICOM JSON", "orjson alone", None),
        ("objects", "parsed DICOM JSON", "", JSON_MS),
        ("pydicom", "files by pydicom", "pydicom alone", None),
        ("headers", "headers", "", None),
    ):
        ratio, met = ms[way] / ms[peer] if peer else None, ms[way] <= goal if goal else None
        yield Measured(
            f"{name}: {what} to R4", ms[way], "CPU ms/instance", peer.replace("peer", DICOM2FHIR), ms.get(peer), ratio,
            f"<= {goal} ms" if goal else "", met,
        )  # fmt: skip


def growth_rows(folder: Path) -> Iterator[Measured]:
    """What an instance of longer and longer studies costs, of the small slice."""
    studies = {n: ct_study(small(), n, folder / str(n)) for n in GROWING}
    contents = {n: study.metadata.read_bytes() for n, study in studies.items()}
    ways: dict[str, Callable[[], Cost]] = {}
    for n, study in studies.items():
        checked(study, from_files(study.files), from_json(contents[n]))
        ways[f"files {n}"] = of(study, lambda s=study: serialised(s, from_files(s.files)))  # type: ignore[misc]
        ways[f"json {n}"] = of(study, lambda s=study, c=contents[n]: serialised(s, from_json(c)))  # type: ignore[misc]
    cost = in_turns(ways, RUNS)
    for way, what in (("files", "files"), ("json", "bytes of DICOM JSON")):
        first = cost[f"{way} {GROWING[0]}"].cpu_ms
        for n in GROWING[1:]:
            found = cost[f"{way} {n}"].cpu_ms
            yield Measured(
                f"CT 4 KB, study of {n:,}: {what} to R4", found, "CPU ms/instance", f"of {GROWING[0]}", first,
                found / first, f"within {GROWTH:.0%}", abs(found / first - 1) <= GROWTH,
            )  # fmt: skip


def checked(study: CtStudy, *ways: Sequence[Headers]) -> None:
    """Every way must give the same valid bytes, with every instance of the study and no other."""
    result = translated(study, ways[0])
    (made,) = result.resources
    uids = [instance["uid"] for series in made["series"] for instance in series["instance"]]
    assert made["numberOfInstances"] == len(uids) == len(study.instance_uids)
    assert frozenset(uids) == study.instance_uids
    assert not result.rejected
    if len(uids) <= INSTANCES:
        assert not [p for r in (made, result.patient) if r is not None for p in told_wrong_in_both(r)]
    assert {serialised(study, headers) for headers in ways} == {serialised(study, ways[0])}


def of(study: CtStudy, work: Callable[[], object]) -> Callable[[], Cost]:
    return timed(work, len(study.files))


def peer_cost(folder: Path) -> Cost:
    found = by_dicom2fhir(folder)
    assert not found.failed
    return Cost(found.cpu_ms, found.wall_ms)


def chunks(content: bytes) -> Iterator[bytes]:
    return (content[at : at + CHUNK] for at in range(0, len(content), CHUNK))


def from_files(files: Sequence[Path]) -> Sequence[Headers]:
    return [read_headers(path) for path in files]


def from_json(content: bytes) -> Sequence[Headers]:
    """As the answer of an archive is read: piece by piece, item by item."""
    return collected(array_items(chunks(content), LONGEST_ITEM)).instances


def from_objects(items: Sequence[Any]) -> Sequence[Headers]:
    return collected(iter(items)).instances


def collected(items: Iterator[Any]) -> StudyHeaders:
    metadata = Metadata("bench")
    for item in items:
        metadata.visit(item)
    return metadata.headers(None)


def from_pydicom(files: Sequence[Path]) -> Sequence[Headers]:
    return [Headers.from_dataset(dcmread(path, stop_before_pixels=True)) for path in files]


def translated(study: CtStudy, headers: Sequence[Headers]) -> StudyResult:
    return TRANSLATOR.translate(study.uid, {"a": headers})


def serialised(study: CtStudy, headers: Sequence[Headers]) -> bytes:
    result = translated(study, headers)
    return orjson.dumps([result.patient, *result.resources])


if __name__ == "__main__":
    main()
