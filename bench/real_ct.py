"""Studies of one real CT file many times over, as files and as the DICOM JSON that an archive would serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset

from tests.shared import CORPUS

LARGE = CORPUS / "dicomParser" / "testImages_CT1_UNC.explicit_little_endian.dcm"
"""A slice of a clinical scanner: 530 KB, 256 attributes, 179 of them private."""

_SMALL = "dicomdirtests/77654033/CT2/17106"
_ROOT_UID = "1.2.826.0.1.3680043.9.8"
_PIXEL_DATA = "7FE00010"


@dataclass(frozen=True)
class CtStudy:
    """The study: `files` in a folder of their own, and `metadata`, a file with an array of the same instances."""

    uid: str
    instance_uids: frozenset[str]
    files: tuple[Path, ...]
    metadata: Path


def small() -> Path:
    """A real slice without most of its pixels, 4 KB, 183 attributes, 99 of them private. It comes with pydicom."""
    return Path(str(get_testdata_file(_SMALL)))


def ct_study(model: Path, instances: int, folder: Path) -> CtStudy:
    """So many instances of a file, each with what differs from slice to slice: its UID, number, place, moment, dose."""
    dataset = dcmread(model)
    described = {k: v for k, v in dataset.to_json_dict().items() if k != _PIXEL_DATA}
    (folder / "files").mkdir(parents=True)
    listed, uids, files = [], [], []
    for number in range(1, instances + 1):
        changed = _slice(number)
        listed.append(described | {tag: {"vr": vr, "Value": values} for tag, (vr, values) in changed.items()})
        uids.append(str(changed["00080018"][1][0]))
        files.append(_written(dataset, changed, folder / "files" / f"{number:05}.dcm"))
    metadata = folder / "metadata.json"
    metadata.write_bytes(orjson.dumps(listed))
    return CtStudy(str(dataset.StudyInstanceUID), frozenset(uids), tuple(files), metadata)


def _slice(number: int) -> dict[str, tuple[str, list[Any]]]:
    """Tag → (value representation, values) of what differs."""
    moment = f"{9 + number // 3600:02}{number // 60 % 60:02}{number % 60:02}.250000"
    return {
        "00080018": ("UI", [f"{_ROOT_UID}.{number}"]),
        "00080032": ("TM", [moment]),
        "00080033": ("TM", [moment]),
        "00181151": ("IS", [200 + number % 7]),
        "00200013": ("IS", [number]),
        "00200032": ("DS", [-158.135803, -179.035797, number * 1.25]),
        "00201041": ("DS", [number * 1.25]),
    }


def _written(dataset: FileDataset, changed: dict[str, tuple[str, list[Any]]], path: Path) -> Path:
    for tag, (vr, values) in changed.items():
        dataset.add_new(int(tag, 16), vr, [str(v) for v in values] if vr in ("IS", "DS") else values[0])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path
