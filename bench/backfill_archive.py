"""A real Orthanc full of small CT studies."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from tests.dicom_files import dicom_bytes
from tests.services.orthanc_server import OrthancServer, running_orthanc

ROOT_UID = "1.2.826.0.1.3680043.10.1561.8"
SERIES, INSTANCES_EACH = 2, 100
SETTINGS = {"StorageCompression": False, "SaveJobs": False}
UPLOADS = 2
"""Studies sent side by side, each as one ZIP file."""


@contextmanager
def archive_of(folder: Path, studies: int) -> Iterator[OrthancServer]:
    """Orthanc with so many studies; what the folder holds already is not sent again. Its log of changes is empty: only
    who lists its studies learns of them, as in an archive that was full long before."""
    folder.mkdir(parents=True, exist_ok=True)
    with running_orthanc(folder.resolve(), SETTINGS) as orthanc, orthanc.client() as client:
        held = int(client.get("/statistics").raise_for_status().json()["CountStudies"])

        def send(number: int) -> None:
            client.post("/instances", content=_zipped(number)).raise_for_status()

        with ThreadPoolExecutor(UPLOADS) as pool:
            list(pool.map(send, range(held, studies)))
        client.delete("/changes").raise_for_status()
        yield orthanc


def statistics_of(orthanc: OrthancServer) -> tuple[int, int]:
    """How many studies and instances it says to hold."""
    with orthanc.client() as client:
        told = client.get("/statistics").raise_for_status().json()
    return int(told["CountStudies"]), int(told["CountInstances"])


def _zipped(number: int) -> bytes:
    """The study of this number: written once for each series, then only UID and number of the instance change."""
    study, buffer = f"{ROOT_UID}.{1_000_000 + number}", BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for series in range(1, SERIES + 1):
            first = f"{study}.{series}.{10_000}"
            content = dicom_bytes(
                study, f"{study}.{series}", first, SeriesNumber=series, PatientID=f"P{number // 2:07}",
                AccessionNumber=f"A{number:07}", StudyDate=f"2024{1 + number % 12:02}{1 + number % 28:02}",
            )  # fmt: skip
            for n in range(INSTANCES_EACH):
                uid, number_of = f"{study}.{series}.{10_000 + n}", b"IS\6\0%d "
                one = content.replace(first.encode(), uid.encode())
                file.writestr(f"{series}-{n}.dcm", one.replace(number_of % 10_000, number_of % (10_000 + n)))
    return buffer.getvalue()
