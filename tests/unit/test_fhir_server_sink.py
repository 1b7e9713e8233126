from __future__ import annotations

import re
from typing import Any

import httpx
import orjson
import pytest
import respx
from fhir.resources.R4B.bundle import Bundle

from bridge.errors import RefusedByServer, RejectedInput, SinkUnavailable
from bridge.model import StoredResource, StudyState
from bridge.sinks.fhir_server import FhirServerSink
from bridge.translate.identifiers import Issuers
from tests.builders import STUDY, a_translator, headers

URL = "http://ehr/fhir"


def a_state(study: str = STUDY, system: str = "http://mrn", **attributes: Any) -> StudyState:
    translator = a_translator(endpoints={"a": "http://pacs/dw"}, issuers=Issuers({}, system))
    result = translator.translate(study, {"a": (headers(study=study, **attributes),)})
    assert result.patient is not None
    contents = [result.resources[0], result.patient, result.resources[1]]
    stored = tuple(StoredResource(c["resourceType"], c["id"], 1, 0.0, n + 1, c) for n, c in enumerate(contents))
    return StudyState(study, 3, stored, {})


class Server:
    """A FHIR server small enough for a test: PUT in transactions, read, Patient search by identifier."""

    def __init__(self, mock: respx.MockRouter) -> None:
        self.resources: dict[str, Any] = {}
        self.bundles: list[Any] = []
        mock.post(URL).mock(side_effect=self.transaction)
        mock.get(f"{URL}/Patient").mock(side_effect=self.search)
        mock.get(url__regex=re.escape(URL) + r"/\w+/.+").mock(side_effect=self.read)

    def transaction(self, request: httpx.Request) -> httpx.Response:
        bundle = orjson.loads(request.content)
        Bundle.model_validate(bundle)
        self.bundles.append(bundle)
        for entry in bundle["entry"]:
            self.resources[entry["request"]["url"]] = entry["resource"]
        entries = [{"response": {"status": "200 OK"}} for _ in bundle["entry"]]
        return httpx.Response(200, json={"resourceType": "Bundle", "type": "transaction-response", "entry": entries})

    def search(self, request: httpx.Request) -> httpx.Response:
        system, value = request.url.params["identifier"].replace("\\,", ",").split("|")
        found = [
            {"resource": r}
            for r in self.resources.values()
            if r["resourceType"] == "Patient" and {"system": system, "value": value} in r["identifier"]
        ]
        return httpx.Response(200, json={"resourceType": "Bundle", "type": "searchset", "entry": found})

    def read(self, request: httpx.Request) -> httpx.Response:
        found = self.resources.get(str(request.url).removeprefix(f"{URL}/"))
        return httpx.Response(200, json=found | {"meta": {"versionId": "7"}}) if found else httpx.Response(404)

    def patient(self, id_: str, value: str = "P1") -> None:
        identifier = [{"system": "http://mrn", "value": value}]
        self.resources[f"Patient/{id_}"] = {"resourceType": "Patient", "id": id_, "identifier": identifier}

    def study(self) -> Any:
        (found,) = [r for r in self.resources.values() if r["resourceType"] == "ImagingStudy"]
        return found


@pytest.fixture
def server() -> Any:
    with respx.mock(assert_all_called=False) as mock:
        yield Server(mock)


def test_a_study_is_one_transaction_with_its_endpoint(server: Server) -> None:
    assert FhirServerSink("ehr", URL).deliver([a_state()]) == [None]
    (bundle,) = server.bundles
    assert [e["resource"]["resourceType"] for e in bundle["entry"]] == ["Endpoint", "ImagingStudy"]
    assert all(e["request"]["method"] == "PUT" for e in bundle["entry"])


def test_the_same_state_again_sends_nothing(server: Server) -> None:
    sink = FhirServerSink("ehr", URL)
    sink.deliver([a_state()])
    sink.deliver([a_state()])
    assert len(server.bundles) == 1
    FhirServerSink("ehr", URL).deliver([a_state()])  # a new process knows only what the server tells
    assert [e["resource"]["resourceType"] for e in server.bundles[-1]["entry"]] == ["Endpoint"]


def test_the_subject_is_the_one_patient_that_has_the_identifier(server: Server) -> None:
    server.patient("ehr-1")
    FhirServerSink("ehr", URL).deliver([a_state()])
    assert server.study()["subject"]["reference"] == "Patient/ehr-1"
    assert server.resources["Patient/ehr-1"] == {
        "resourceType": "Patient",
        "id": "ehr-1",
        "identifier": [{"system": "http://mrn", "value": "P1"}],
    }


def test_without_a_match_the_subject_is_the_identifier_itself(server: Server) -> None:
    FhirServerSink("ehr", URL).deliver([a_state()])
    subject = server.study()["subject"]
    assert "reference" not in subject
    assert subject["identifier"]["value"] == "P1"


def test_an_identifier_without_a_system_is_never_searched(server: Server) -> None:
    server.patient("ehr-1")
    FhirServerSink("ehr", URL).deliver([a_state(system="")])
    assert "reference" not in server.study()["subject"]


def test_two_patients_with_one_identifier_are_parked_not_chosen_between(server: Server) -> None:
    server.patient("one")
    server.patient("two")
    (outcome,) = FhirServerSink("ehr", URL).deliver([a_state()])
    assert isinstance(outcome, RejectedInput)
    assert server.bundles == []


def test_patients_are_created_only_where_that_is_configured(server: Server) -> None:
    FhirServerSink("ehr", URL, patients="create").deliver([a_state()])
    kinds = [e["resource"]["resourceType"] for e in server.bundles[0]["entry"]]
    assert kinds == ["Endpoint", "Patient", "ImagingStudy"]
    assert server.study()["subject"]["reference"].startswith("Patient/")


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 412, 429, 500, 502, 503, 301])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with respx.mock(assert_all_called=False) as mock:
        mock.get(f"{URL}/Patient").mock(return_value=httpx.Response(200, json={"resourceType": "Bundle"}))
        mock.get(url__regex=".*").mock(return_value=httpx.Response(404))
        mock.post(URL).mock(return_value=httpx.Response(status, headers={"Retry-After": "17"}))
        one, two = FhirServerSink("ehr", URL).deliver([a_state(), a_state(STUDY + ".2")])
    assert isinstance(one, SinkUnavailable)
    assert isinstance(two, SinkUnavailable)
    assert one.retry_after_s == 17


def test_what_is_refused_is_parked_with_codes_and_without_values() -> None:
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [
            {"severity": "error", "code": "invalid", "diagnostics": "SECRET", "expression": ["ImagingStudy.series"]}
        ],
    }
    with respx.mock(assert_all_called=False) as mock:
        mock.get(f"{URL}/Patient").mock(return_value=httpx.Response(200, json={"resourceType": "Bundle"}))
        mock.get(url__regex=".*").mock(return_value=httpx.Response(404))
        mock.post(URL).mock(return_value=httpx.Response(422, json=outcome))
        (found,) = FhirServerSink("ehr", URL).deliver([a_state()])
    assert isinstance(found, RefusedByServer)
    assert "ImagingStudy.series" in str(found)
    assert "SECRET" not in str(found)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("refused"), "cannot be reached"),
        (httpx.ReadTimeout("slow"), "timeout_s"),
        (httpx.Response(200, html="<html>login</html>"), "not FHIR JSON"),
    ],
)
def test_a_wrong_address_is_told_in_words(answer: Any, said: str) -> None:
    with respx.mock(assert_all_called=False) as mock:
        how = {"side_effect": answer} if isinstance(answer, Exception) else {"return_value": answer}
        mock.route().mock(**how)
        (found,) = FhirServerSink("ehr", URL).deliver([a_state()])
    assert isinstance(found, SinkUnavailable)
    assert said in str(found)


def test_special_characters_of_an_identifier_are_escaped(server: Server) -> None:
    server.patient("ehr-1", value="P,1")
    FhirServerSink("ehr", URL).deliver([a_state(PatientID="P,1")])
    assert server.study()["subject"]["reference"] == "Patient/ehr-1"
