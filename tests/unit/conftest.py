"""The synthetic hospital's lake, made once for all tests that only read it."""

from __future__ import annotations

import pytest

from tests.hospital_lake import HospitalLake, hospital_lake


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> HospitalLake:
    """Nobody may change it: `copy` gives a lake of one's own."""
    return hospital_lake(tmp_path_factory.mktemp("hospital"))
