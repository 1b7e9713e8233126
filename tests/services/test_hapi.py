"""The HAPI FHIR peer does what tests of the bridge rely on, R4 and R5."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.fault_proxy import running_fault_proxy
from tests.services.fhir_client import FhirClient
from tests.services.hapi import HapiPeer, running_hapi
from tests.services.hapi_build import BUILD_S

FHIR_JSON = {"Content-Type": "application/fhir+json"}


def patient(value: str) -> dict[str, Any]:
    identifier = [{"system": "http://hospital.example/mrn", "value": value}]
    return {"resourceType": "Patient", "id": str(uuid.uuid5(uuid.NAMESPACE_URL, value)), "identifier": identifier}


def study(subject: str) -> dict[str, Any]:
    return {
        "resourceType": "ImagingStudy",
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, subject)),
        "status": "available",
        "subject": {"reference": subject},
    }


def transaction(peer: HapiPeer, *entries: dict[str, Any]) -> httpx.Response:
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}
    return httpx.post(peer.url, json=bundle, headers=FHIR_JSON, timeout=60)


@pytest.fixture(params=["hapi_r4", "hapi_r5"])
def hapi(request: pytest.FixtureRequest) -> HapiPeer:
    peer: HapiPeer = request.getfixturevalue(request.param)
    return peer


def test_it_keeps_our_ids_counts_versions_and_finds_by_identifier(hapi: HapiPeer) -> None:
    sent = patient("A-1")
    hapi.put(sent)
    hapi.put(sent | {"active": True})
    (found,) = hapi.search("Patient", identifier="http://hospital.example/mrn|A-1")
    assert found["id"] == sent["id"]
    assert hapi.versions("Patient", sent["id"]) == 2


def test_an_update_of_another_version_than_the_named_one_is_refused(hapi: HapiPeer) -> None:
    sent = patient("A-2")
    hapi.put(sent)
    url = f"{hapi.url}/Patient/{sent['id']}"
    answer = httpx.put(url, json=sent | {"active": True}, headers=FHIR_JSON | {"If-Match": 'W/"7"'}, timeout=60)
    assert answer.status_code == 409  # FHIR R4 http 3.1.0.1.6 asks for 412
    assert hapi.versions("Patient", sent["id"]) == 1


def test_a_conditional_create_in_a_transaction_happens_once(hapi: HapiPeer) -> None:
    request = {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=http://hospital.example/mrn|A-3"}
    resource = {k: v for k, v in patient("A-3").items() if k != "id"}
    for _ in range(2):
        answer = transaction(hapi, {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": resource, "request": request})
        assert answer.status_code == 200, answer.text
    assert len(hapi.search("Patient", identifier="http://hospital.example/mrn|A-3")) == 1


def test_a_reference_to_nothing_is_refused(hapi: HapiPeer) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        hapi.put(study("Patient/of-nowhere"))


def test_the_validator_tells_what_is_wrong_and_does_not_hold_unknown_code_systems_against_us(hapi: HapiPeer) -> None:
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "1"}]}
    procedure = {"procedure": [{"concept": code}]} if hapi.version == "R5" else {"procedureCode": [code]}
    right = study("Patient/1") | procedure
    assert not [issue for issue in hapi.validate(right) if issue[0] in ("error", "fatal")]
    found = hapi.validate({k: v for k, v in right.items() if k != "status"})
    assert ("error", "ImagingStudy", "Validation_VAL_Profile_Minimum") in found
    assert ("error", "", "processing") in hapi.validate(patient("A-4") | {"gender": "nonsense"})


def test_links_of_pages_read_through_a_proxy_lead_back_to_it(hapi_r4: HapiPeer) -> None:
    ids = [hapi_r4.put(patient(value))["id"] for value in ("A-6", "A-7", "A-8")]
    with running_fault_proxy(hapi_r4.url, seed=1) as proxy:
        client = FhirClient(proxy.url)
        assert len(client.search("Patient", _id=",".join(ids), _count="1")) == 3
        client.close()
        assert proxy.counts["forwarded"] >= 3


@pytest.mark.timeout(BUILD_S)
def test_it_can_refuse_our_ids_and_transactions(tmp_path: Path) -> None:
    with running_hapi(tmp_path, client_ids="NOT_ALLOWED", transactions=False) as peer:
        refused = httpx.put(f"{peer.url}/Patient/a-9", json=patient("A-9") | {"id": "a-9"}, trust_env=False)
        assert refused.status_code == 404
        request = {"method": "POST", "url": "Patient"}
        assert transaction(peer, {"resource": patient("A-9"), "request": request}).status_code == 400
        assert peer.search("Patient") == []


@pytest.mark.timeout(BUILD_S)
def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with running_hapi(tmp_path, client_ids="ANY") as peer:
        peer.put(patient("A-5") | {"id": "5"})
        peer.kill()
        peer.start()
        assert peer.search("Patient", _id="5")
        peer.restart()
        assert peer.search("Patient", _id="5")
