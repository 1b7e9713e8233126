"""Fixtures for tests against real peers. Every test in this folder is marked `service`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.services.dcmtk import Dcmtk
from tests.services.hapi import HapiPeer, running_hapi
from tests.services.hapi_build import BUILD_S
from tests.services.orthanc_server import OrthancServer, running_orthanc
from tests.services.spark_session import Spark, running_spark

HERE = Path(__file__).parent


HAPI, SPARK = "hapi", "spark"
HANGS_S = 300
"""A test that takes so long hangs: two run at once, beside their peers."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Two processes run these tests: those of one file, of HAPI, of Spark stay together, so that peers start once."""
    for item in items:
        shared, here = _shared(item), item.path.is_relative_to(HERE)
        if here:
            item.add_marker(pytest.mark.service)
            item.add_marker(pytest.mark.xdist_group(shared or item.path.name))
        if (here or shared == HAPI) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUILD_S if shared == HAPI else HANGS_S))


def _shared(item: pytest.Item) -> str:
    """Which peer of the whole session a test wants, by a fixture's name among its arguments or, for getfixturevalue,
    among its parameters."""
    callspec = getattr(item, "callspec", None)
    names = {*getattr(item, "fixturenames", ()), *map(str, callspec.params.values() if callspec else ())}
    return HAPI if names & {"hapi_r4", "hapi_r5"} else SPARK if "spark" in names else ""


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


@pytest.fixture(scope="session")
def hapi_r4(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HapiPeer]:
    """A HAPI FHIR R4 server for all tests: nobody may rely on its being empty, or stop it."""
    with running_hapi(tmp_path_factory.mktemp("hapi_r4"), "R4") as peer:
        yield peer


@pytest.fixture(scope="session")
def hapi_r5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HapiPeer]:
    """A HAPI FHIR R5 server for all tests: nobody may rely on its being empty, or stop it."""
    with running_hapi(tmp_path_factory.mktemp("hapi_r5"), "R5") as peer:
        yield peer


@pytest.fixture(scope="session")
def spark() -> Iterator[Spark]:
    """Spark on two threads of this machine."""
    with running_spark() as session:
        yield session
