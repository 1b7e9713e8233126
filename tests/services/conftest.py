"""Fixtures for tests against real peers. Every test in this folder is marked `service`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.services.dcmtk import Dcmtk
from tests.services.orthanc_server import OrthancServer, running_orthanc

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.service)


@pytest.fixture(scope="session")
def dcmtk() -> Dcmtk:
    """DCMTK's programs."""
    return Dcmtk.installed()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[OrthancServer]:
    """An empty Orthanc with DICOMweb; start, stop, restart and reset_database are the test's to call."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    with running_orthanc(folder) as server:
        yield server
