"""What delivery to any FHIR server must do: run against the fake, and against real servers as service tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol
from uuid import uuid4

import httpx
import pytest

from bridge.errors import Conflict, RejectedInput
from bridge.model import Receipt, StoredResource, StudyState
from bridge.sinks.fhir_server import FhirServerPolicy, FhirServerSink, SubjectPolicy
from bridge.translate.identifiers import Issuers
from tests.builders import a_translator, headers

MRN = "http://hospital.example/mrn"


class Peer(Protocol):
    """A FHIR server as these tests see it."""

    url: str

    def put(self, resource: dict[str, Any]) -> dict[str, Any]:
        """The resource as the server has it then; under another id where it gives ids itself."""
        ...

    def search(self, kind: str, identifier: str) -> list[dict[str, Any]]: ...

    def versions(self, kind: str, id_: str) -> int: ...

    def delete(self, reference: str) -> None: ...


def a_study() -> str:
    """A Study Instance UID that no other test uses."""
    return f"2.25.{uuid4().int}"


def a_state(study: str, receipt: Receipt | None = None, instances: int = 1, **attributes: Any) -> StudyState:
    translator = a_translator(endpoints={"a": "http://pacs/dw"}, issuers=Issuers({}, MRN, "http://ris"))
    held = tuple(headers(study=study, instance=n + 1, **attributes) for n in range(instances))
    result = translator.translate(study, {"a": held})
    assert result.patient is not None
    contents = [result.resources[0], result.patient, result.resources[1]]
    stored = tuple(StoredResource(c["resourceType"], c["id"], 1, 0.0, n + 1, c) for n, c in enumerate(contents))
    return StudyState(study, 3, stored, {}, receipt)


def withdrawn(state: StudyState) -> StudyState:
    """The study after no archive holds it any more."""
    kept = []
    for stored in state.resources:
        content = stored.content or {}
        if stored.resource_type == "ImagingStudy":
            content = {k: v for k, v in content.items() if k not in {"series", "endpoint"}}
            content |= {"status": "entered-in-error", "numberOfSeries": 0, "numberOfInstances": 0}
        kept.append(replace(stored, content=content, version=stored.version + 1))
    return replace(state, resources=tuple(kept))


def delivered(sink: FhirServerSink, state: StudyState) -> Receipt:
    (outcome,) = sink.deliver([state])
    assert isinstance(outcome, Receipt), outcome
    return outcome


def studies(peer: Peer, study: str) -> list[dict[str, Any]]:
    return peer.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{study}")


def the_study(peer: Peer, study: str) -> dict[str, Any]:
    (found,) = studies(peer, study)
    return found


def a_patient(value: str, **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": str(uuid4()), "identifier": [{"system": MRN, "value": value}]} | elements


class FhirSinkContract:
    """Give a fixture `peer`; `transport` where the peer is not on the network."""

    @pytest.fixture
    def transport(self) -> httpx.BaseTransport | None:
        return None

    @pytest.fixture
    def mrn(self) -> str:
        return f"P-{uuid4().hex[:12]}"

    @pytest.fixture(params=["a,b", "a|b", "a$b", "a&b=c", "ä b%20"])
    def value(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(autouse=True)
    def closed(self) -> Iterator[None]:
        self.opened: list[FhirServerSink] = []
        yield
        for sink in self.opened:
            sink.close()

    def sink(self, peer: Peer, transport: httpx.BaseTransport | None, **policy: Any) -> FhirServerSink:
        made = FhirServerSink("ehr", peer.url, policy=FhirServerPolicy(**policy), transport=transport)
        self.opened.append(made)
        return made

    def test_a_study_arrives_with_its_endpoint_and_is_not_sent_again(self, peer: Peer, transport: Any) -> None:
        uid = a_study()
        sink = self.sink(peer, transport)
        receipt = delivered(sink, a_state(uid))
        study = the_study(peer, uid)
        assert receipt.reference == f"{peer.url}/ImagingStudy/{study['id']}"
        assert study["numberOfInstances"] == 1
        assert study["endpoint"][0]["reference"].startswith("Endpoint/")
        assert delivered(sink, a_state(uid, receipt)) == receipt
        assert delivered(self.sink(peer, transport), a_state(uid)) == receipt  # what a lost receipt said is read
        assert peer.versions("ImagingStudy", study["id"]) == 1

    def test_a_changed_study_is_one_new_version(self, peer: Peer, transport: Any) -> None:
        uid = a_study()
        sink = self.sink(peer, transport)
        first = delivered(sink, a_state(uid))
        second = delivered(sink, a_state(uid, first, instances=2))
        study = the_study(peer, uid)
        assert (study["numberOfInstances"], first.reference) == (2, second.reference)
        assert peer.versions("ImagingStudy", study["id"]) == 2

    def test_many_studies_of_one_batch_arrive_each_with_its_own_outcome(
        self, peer: Peer, transport: Any, mrn: str
    ) -> None:
        uids = [a_study() for _ in range(12)]
        peer.put(a_patient(mrn, gender="male"))
        states = [a_state(uid, PatientID=mrn if n == 5 else f"{mrn}-{n}") for n, uid in enumerate(uids)]
        outcomes = self.sink(peer, transport).deliver(states)
        assert [isinstance(o, Receipt) for o in outcomes] == [n != 5 for n in range(12)]
        assert isinstance(outcomes[5], RejectedInput)
        assert [len(studies(peer, uid)) for uid in uids] == [int(n != 5) for n in range(12)]

    def test_the_subject_is_the_ehrs_patient_which_stays_as_it_is(self, peer: Peer, transport: Any, mrn: str) -> None:
        patient = a_patient(mrn, gender="female", birthDate="1970-01-01", name=[{"text": "EHR"}])
        uid, patient = a_study(), peer.put(patient)
        delivered(self.sink(peer, transport, subjects=SubjectPolicy("create")), a_state(uid, PatientID=mrn))
        assert the_study(peer, uid)["subject"]["reference"] == f"Patient/{patient['id']}"
        assert peer.versions("Patient", patient["id"]) == 1

    def test_without_a_match_the_subject_is_the_identifier(self, peer: Peer, transport: Any, mrn: str) -> None:
        uid = a_study()
        delivered(self.sink(peer, transport), a_state(uid, PatientID=mrn))
        subject = the_study(peer, uid)["subject"]
        assert "reference" not in subject
        assert (subject["identifier"]["system"], subject["identifier"]["value"]) == (MRN, mrn)
        assert peer.search("Patient", identifier=f"{MRN}|{mrn}") == []

    def test_a_patient_registered_later_is_found_when_compared_again(
        self, peer: Peer, transport: Any, mrn: str
    ) -> None:
        uid, sink = a_study(), self.sink(peer, transport)
        receipt = delivered(sink, a_state(uid, PatientID=mrn))
        patient = peer.put(a_patient(mrn))
        delivered(sink, a_state(uid, receipt, PatientID=mrn))
        assert the_study(peer, uid)["subject"]["reference"] == f"Patient/{patient['id']}"

    def test_special_characters_of_an_identifier_find_the_patient(
        self, peer: Peer, transport: Any, mrn: str, value: str
    ) -> None:
        uid, patient = a_study(), peer.put(a_patient(f"{mrn}{value}"))
        delivered(self.sink(peer, transport), a_state(uid, PatientID=f"{mrn}{value}"))
        assert the_study(peer, uid)["subject"]["reference"] == f"Patient/{patient['id']}"

    def test_a_merged_patient_is_followed_to_the_one_that_replaces_it(
        self, peer: Peer, transport: Any, mrn: str
    ) -> None:
        uid, survivor = a_study(), peer.put(a_patient(f"{mrn}-new"))
        newer = survivor
        for value in (f"{mrn}-middle", mrn):
            link = {"other": {"reference": f"Patient/{newer['id']}"}, "type": "replaced-by"}
            newer = peer.put(a_patient(value, active=False, link=[link]))
        delivered(self.sink(peer, transport), a_state(uid, PatientID=mrn))
        assert the_study(peer, uid)["subject"]["reference"] == f"Patient/{survivor['id']}"

    def test_two_patients_with_one_identifier_are_parked(self, peer: Peer, transport: Any, mrn: str) -> None:
        uid = a_study()
        peer.put(a_patient(mrn))
        peer.put(a_patient(mrn))
        (outcome,) = self.sink(peer, transport).deliver([a_state(uid, PatientID=mrn)])
        assert isinstance(outcome, RejectedInput)
        assert mrn not in str(outcome)
        assert studies(peer, uid) == []

    @pytest.mark.parametrize(
        ("stated", "named"),
        [
            ({"birthDate": "1980-02-03"}, "Patient.birthDate"),
            ({"gender": "male"}, "Patient.gender"),
            ({"name": [{"family": "Other"}]}, "Patient.family"),
        ],
    )
    def test_an_identity_conflict_is_parked_and_names_the_element_alone(
        self, peer: Peer, transport: Any, mrn: str, stated: dict[str, Any], named: str
    ) -> None:
        uid = a_study()
        peer.put(a_patient(mrn, **stated))
        (outcome,) = self.sink(peer, transport).deliver([a_state(uid, PatientID=mrn)])
        assert isinstance(outcome, RejectedInput)
        assert named in str(outcome)
        assert not any(word in str(outcome) for word in (mrn, "Other", "Test", "1980", "1970"))
        relaxed = SubjectPolicy("match", ())
        delivered(self.sink(peer, transport, subjects=relaxed), a_state(uid, PatientID=mrn))

    def test_a_missing_patient_is_made_once_and_kept_true_by_policy(self, peer: Peer, transport: Any, mrn: str) -> None:
        one, two, sink = a_study(), a_study(), self.sink(peer, transport, subjects=SubjectPolicy("create"))
        outcomes = sink.deliver([a_state(one, PatientID=mrn), a_state(two, PatientID=mrn)])
        assert all(isinstance(o, Receipt) for o in outcomes)
        (patient,) = peer.search("Patient", identifier=f"{MRN}|{mrn}")
        assert {the_study(peer, uid)["subject"]["reference"] for uid in (one, two)} == {f"Patient/{patient['id']}"}
        delivered(sink, a_state(one, PatientID=mrn, PatientName="Corrected^Eva"))
        (patient,) = peer.search("Patient", identifier=f"{MRN}|{mrn}")
        assert patient["name"][0]["family"] == "Corrected"
        assert patient["meta"]["tag"][0]["code"] == "made-from-dicom"

    def test_an_order_that_the_server_knows_is_referred_to(self, peer: Peer, transport: Any, mrn: str) -> None:
        uid, patient, other = a_study(), peer.put(a_patient(mrn)), peer.put(a_patient(f"{mrn}-x"))
        for who, accession in ((patient, mrn), (other, f"{mrn}-x")):
            order = {"resourceType": "ServiceRequest", "id": str(uuid4()), "status": "active", "intent": "order"}
            order |= {"subject": {"reference": f"Patient/{who['id']}"}}
            order |= {"identifier": [{"system": "http://ris", "value": accession}]}
            peer.put(order)
        delivered(self.sink(peer, transport), a_state(uid, PatientID=mrn, AccessionNumber=mrn))
        (linked,) = the_study(peer, uid)["basedOn"]
        (order,) = peer.search("ServiceRequest", identifier=f"http://ris|{mrn}")
        assert linked["reference"] == f"ServiceRequest/{order['id']}"
        assert linked["identifier"]["value"] == mrn
        stranger = a_study()  # another patient's order is never taken for this one's
        delivered(self.sink(peer, transport), a_state(stranger, PatientID=mrn, AccessionNumber=f"{mrn}-x"))
        assert "reference" not in the_study(peer, stranger)["basedOn"][0]

    def test_what_others_add_to_a_study_stays(self, peer: Peer, transport: Any) -> None:
        uid, sink = a_study(), self.sink(peer, transport)
        delivered(sink, a_state(uid))
        tag = {"system": "http://hospital.example/tags", "code": "teaching"}
        there = the_study(peer, uid)
        peer.put(there | {"note": [{"text": "seen"}], "meta": {"tag": [tag]}, "description": "changed"})
        delivered(sink, a_state(uid))
        study = the_study(peer, uid)
        assert (study["note"], study["description"]) == ([{"text": "seen"}], "CT chest")
        assert study["meta"]["tag"] == [tag]

    def test_a_study_that_somebody_else_made_is_taken_over_not_doubled(self, peer: Peer, transport: Any) -> None:
        uid = a_study()
        identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
        theirs = {
            "resourceType": "ImagingStudy",
            "id": str(uuid4()),
            "identifier": [identifier],
            "status": "registered",
        }
        id_ = peer.put(theirs | {"subject": {"display": "somebody"}})["id"]
        delivered(self.sink(peer, transport), a_state(uid))
        study = the_study(peer, uid)
        assert (study["id"], study["status"]) == (id_, "available")

    def test_several_resources_of_one_study_wait_for_repair(self, peer: Peer, transport: Any) -> None:
        uid = a_study()
        identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
        for _ in range(2):
            theirs = {"resourceType": "ImagingStudy", "id": str(uuid4()), "identifier": [identifier]}
            peer.put(theirs | {"status": "available", "subject": {"display": "somebody"}})
        (outcome,) = self.sink(peer, transport).deliver([a_state(uid)])
        assert isinstance(outcome, Conflict)
        assert len(studies(peer, uid)) == 2

    def test_a_withdrawn_study_keeps_its_identifier_and_loses_its_endpoint(self, peer: Peer, transport: Any) -> None:
        uid, sink = a_study(), self.sink(peer, transport)
        receipt = delivered(sink, a_state(uid))
        delivered(sink, withdrawn(a_state(uid, receipt)))
        study = the_study(peer, uid)
        assert (study["status"], study["numberOfInstances"]) == ("entered-in-error", 0)
        assert not {"endpoint", "series"} & set(study)

    def test_a_withdrawn_study_is_deleted_by_policy_and_comes_back(self, peer: Peer, transport: Any) -> None:
        uid, sink = a_study(), self.sink(peer, transport, withdrawn="delete")
        receipt = delivered(sink, a_state(uid))
        gone = delivered(sink, withdrawn(a_state(uid, receipt)))
        assert studies(peer, uid) == []
        assert delivered(sink, withdrawn(a_state(uid, gone))) == gone
        delivered(sink, a_state(uid, gone))
        assert the_study(peer, uid)["status"] == "available"

    def test_what_somebody_deleted_is_not_made_again_silently(self, peer: Peer, transport: Any) -> None:
        uid, sink = a_study(), self.sink(peer, transport)
        receipt = delivered(sink, a_state(uid))
        peer.delete(receipt.reference.removeprefix(f"{peer.url}/"))
        (outcome,) = sink.deliver([a_state(uid, receipt)])
        assert isinstance(outcome, RejectedInput)
        assert "recreate_deleted" in str(outcome)
        delivered(self.sink(peer, transport, recreate_deleted=True), a_state(uid, receipt))
        assert the_study(peer, uid)["status"] == "available"

    def test_a_receipt_of_another_server_means_nothing(self, peer: Peer, transport: Any) -> None:
        uid = a_study()
        elsewhere = Receipt("http://old.example/fhir/ImagingStudy/1", "1", "x")
        delivered(self.sink(peer, transport), a_state(uid, elsewhere))
        assert len(studies(peer, uid)) == 1

    def test_a_large_batch_goes_in_bundles_of_the_size_allowed(self, peer: Peer, transport: Any) -> None:
        uids = [a_study() for _ in range(7)]
        sink = self.sink(peer, transport, bundle_entries=3)
        outcomes: Sequence[Any] = sink.deliver([a_state(uid) for uid in uids])
        assert all(isinstance(o, Receipt) for o in outcomes)
        assert all(len(studies(peer, uid)) == 1 for uid in uids)

    def test_several_resources_of_one_study_are_shown_and_brought_back_to_one(self, peer: Peer, transport: Any) -> None:
        uid, sink = a_study(), self.sink(peer, transport)
        identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
        for _ in range(3):
            theirs = {"resourceType": "ImagingStudy", "id": str(uuid4()), "identifier": [identifier]}
            peer.put(theirs | {"status": "available", "subject": {"display": "somebody"}})
        assert sink.duplicates.find([a_study()]) == {}
        several = sink.duplicates.find([uid])[uid]
        assert len(several) == 3
        repaired = sink.duplicates.repair(several)
        assert sorted(r.action for r in repaired) == ["deleted", "deleted", "kept"]
        delivered(sink, a_state(uid))
        assert the_study(peer, uid)["numberOfInstances"] == 1
