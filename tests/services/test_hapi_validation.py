"""What the bridge makes of a corpus of real DICOM passes HAPI's own validator, offline and against its definitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bridge.translate.r5 import to_r5
from tests.cases.test_cases import CASES
from tests.corpus import Corpus
from tests.services.hapi import HapiPeer
from tests.shared import CORPUS, NO_CORPUS

Resource = dict[str, Any]

AS_MADE: dict[str, Callable[[Resource], Resource]] = {"hapi_r4": dict, "hapi_r5": to_r5}
"""Fixture of a server → how a resource of the bridge is told to it."""

NEWER_THAN_HAPI = {"DOC", "RWV"}
"""Codes of PS3.16 Annex D (CID 33) that the edition of DCM among HAPI's definitions lacks."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    made = Corpus(tmp_path_factory.mktemp("corpus"), endpoint="https://pacs.example/dicom-web")
    yield made
    made.state.close()


def element(resource: Any, location: str) -> Any:
    """What is at `ImagingStudy.series[0].modality`."""
    for name, index in re.findall(r"\.(\w+)(?:\[(\d+)\])?", location):
        resource = resource[name][int(index)] if index else resource[name]
    return resource


def errors_of(peer: HapiPeer, resource: Resource) -> list[tuple[str, str, str]]:
    """Type, location and code of what the validator holds to be wrong."""
    found = []
    for severity, location, code in peer.validate(resource):
        if severity not in ("error", "fatal"):
            continue
        if code == "Terminology_PassThrough_TX_Message" and element(resource, location).get("code") in NEWER_THAN_HAPI:
            continue
        found.append((str(resource["resourceType"]), location, code))
    return found


@pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)
@pytest.mark.parametrize("server", AS_MADE)
def test_every_resource_made_of_the_corpus_is_valid(
    server: str, corpus: Corpus, request: pytest.FixtureRequest
) -> None:
    peer: HapiPeer = request.getfixturevalue(server)
    made = {kind: corpus.resources(kind) for kind in ("Patient", "Endpoint", "ImagingStudy")}
    assert len(made["ImagingStudy"]) > 80
    assert len(made["Patient"]) > 60
    assert made["Endpoint"]
    told = [AS_MADE[server](resource) for resources in made.values() for resource in resources]
    with ThreadPoolExecutor(2) as threads:
        found = [error for errors in threads.map(lambda r: errors_of(peer, r), told) for error in errors]
    assert found == []


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_mapping_case_is_valid(name: str, hapi_r4: HapiPeer) -> None:
    assert [error for resource in CASES[name]["fhir"].values() for error in errors_of(hapi_r4, resource)] == []
