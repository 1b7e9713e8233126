"""The contract of delivery against fakes of every kind of server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.fhir_sink import FhirSinkContract
from tests.fhir_fake import FhirFake

KINDS: dict[str, dict[str, Any]] = {
    "everything": {},
    "R5": {"version": "5.0.0"},
    "batch alone": {"bundles": ("batch",)},
    "no bundles": {"bundles": ()},
    "ids by the server, conditional": {"client_ids": False},
    "ids by the server, not conditional": {"client_ids": False, "conditional": False, "if_match": False},
    "claims client ids and has none": {"client_ids": False, "says": {"updateCreate": True}},
    "claims bundles and has none": {"bundles": (), "claims": ("transaction", "batch")},
}


class TestFakes(FhirSinkContract):
    @pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
    def peer(self, request: pytest.FixtureRequest) -> FhirFake:
        return FhirFake(**request.param)

    @pytest.fixture
    def transport(self, peer: FhirFake) -> FhirFake:
        return peer
