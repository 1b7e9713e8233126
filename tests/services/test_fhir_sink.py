"""The contract of delivery against real FHIR servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.fhir_sink import FhirSinkContract
from tests.services.fhir_peer import FhirPeer, running_fhir_server
from tests.services.hapi import HapiPeer, running_hapi


@pytest.fixture(scope="module")
def hapi_with_ids_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HapiPeer]:
    """HAPI that gives every resource its id and takes no transactions, whatever its CapabilityStatement says."""
    with running_hapi(tmp_path_factory.mktemp("hapi"), client_ids="NOT_ALLOWED", transactions=False) as found:
        yield found


@pytest.fixture(scope="module")
def medplum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirPeer]:
    with running_fhir_server(tmp_path_factory.mktemp("fhir")) as found:
        yield found


class TestHapiR4(FhirSinkContract):
    @pytest.fixture
    def peer(self, hapi_r4: HapiPeer) -> HapiPeer:
        return hapi_r4


class TestHapiR5(FhirSinkContract):
    @pytest.fixture
    def peer(self, hapi_r5: HapiPeer) -> HapiPeer:
        return hapi_r5


class TestMedplum(FhirSinkContract):
    @pytest.fixture
    def peer(self, medplum: FhirPeer) -> FhirPeer:
        return medplum

    @pytest.fixture(params=["a,b", "a$b", "a&b=c", "ä b%20"])  # its search does not know an escaped |
    def value(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


class TestHapiWithIdsOfItsOwn(FhirSinkContract):
    @pytest.fixture
    def peer(self, hapi_with_ids_of_its_own: HapiPeer) -> HapiPeer:
        return hapi_with_ids_of_its_own
