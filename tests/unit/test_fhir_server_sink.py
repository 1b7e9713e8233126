"""What delivery makes of a FHIR server's failures, oddities and races."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import orjson
import pytest

from bridge.errors import Conflict, RefusedByServer, RejectedInput, SinkUnavailable
from bridge.model import Receipt, Resource, StudyState
from bridge.sinks.fhir_server import FhirServerPolicy, FhirServerSink, SubjectPolicy
from bridge.sinks.fhir_server.capabilities import capabilities
from tests.contract.fhir_sink import MRN, a_patient, a_state, a_study, delivered
from tests.fhir_fake import URL, Fault, FhirFake


def a_sink(server: httpx.BaseTransport, **policy: Any) -> FhirServerSink:
    return FhirServerSink("ehr", URL, policy=FhirServerPolicy(**policy), transport=server, pause=lambda _s: None)


def writes(request: httpx.Request) -> bool:
    return request.method in {"PUT", "POST", "DELETE"} and not request.url.path.endswith("/_search")


def answering(status: int, when: Callable[[httpx.Request], bool] = writes, **kwargs: Any) -> Fault:
    return lambda request: httpx.Response(status, **kwargs) if when(request) else None


def about(uid: str) -> Callable[[httpx.Request], bool]:
    """Requests that write a study, alone or with others."""
    return lambda request: writes(request) and f"urn:oid:{uid}".encode() in request.content


def studies(server: FhirFake, uid: str) -> list[Resource]:
    return server.search("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{uid}")


# --- the error table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 401, 403, 408, 425, 429, 500, 502, 503, 504])
def test_a_server_that_fails_for_all_is_left_alone_for_as_long_as_it_asks(status: int) -> None:
    server = FhirFake(fault=answering(status, headers={"Retry-After": "17"}))
    sink = a_sink(server)
    states = [a_state(a_study()) for _ in range(30)]
    try:
        outcomes: list[Any] = list(sink.deliver(states))
    except SinkUnavailable as error:
        outcomes = [error]
    assert all(isinstance(o, SinkUnavailable) for o in outcomes)
    assert outcomes[0].retry_after_s == 17
    assert len(server.requests) < 12  # thirty studies do not become thirty requests to a server that fails


def test_retry_after_may_be_a_date() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    dates = {"Date": format_datetime(now, True), "Retry-After": format_datetime(now + timedelta(seconds=90), True)}
    with pytest.raises(SinkUnavailable) as raised:
        a_sink(FhirFake(fault=answering(503, lambda _: True, headers=dates))).deliver([a_state(a_study())])
    assert raised.value.retry_after_s == 90


@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_is_refused_is_parked_with_codes_and_without_values(status: int) -> None:
    bad, good = a_study(), a_study()
    issue = {"severity": "error", "code": "invalid", "diagnostics": "SECRET", "expression": ["ImagingStudy.series"]}
    outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
    server = FhirFake(fault=answering(status, about(bad), json=outcome))
    refused, fine = a_sink(server).deliver([a_state(bad), a_state(good)])
    assert isinstance(refused, RefusedByServer)
    assert "invalid ImagingStudy.series" in str(refused)
    assert "SECRET" not in str(refused)
    assert isinstance(fine, Receipt)


@pytest.mark.parametrize("status", [403, 500])
def test_one_study_at_which_the_server_fails_is_tried_again_alone(status: int) -> None:
    bad, good = a_study(), a_study()
    server = FhirFake(fault=answering(status, about(bad)))
    outcomes = a_sink(server).deliver([a_state(bad), a_state(good)])
    assert [type(o) for o in outcomes] == [Conflict, Receipt]


@pytest.mark.parametrize("status", [409, 412])
def test_an_edit_conflict_is_read_and_tried_again(status: int) -> None:
    uid = a_study()
    server = FhirFake(fault=answering(status, about(uid)))
    (outcome,) = a_sink(server).deliver([a_state(uid)])
    assert isinstance(outcome, Conflict)
    server.fault = None
    delivered(a_sink(server), a_state(uid))


def test_a_study_changed_by_others_between_reading_and_writing_is_not_overwritten() -> None:
    uid, server = a_study(), FhirFake()
    sink = a_sink(server)
    receipt = delivered(sink, a_state(uid))
    (there,) = studies(server, uid)

    def meanwhile(request: httpx.Request) -> None:
        if about(uid)(request) and server.versions("ImagingStudy", there["id"]) == 1:
            server.put({**there, "note": [{"text": "just now"}]})

    server.fault = meanwhile
    (outcome,) = sink.deliver([a_state(uid, receipt, instances=2)])
    assert isinstance(outcome, Conflict)
    delivered(sink, a_state(uid, receipt, instances=2))
    (study,) = studies(server, uid)
    assert (study["note"], study["numberOfInstances"]) == ([{"text": "just now"}], 2)


def test_a_study_too_large_for_the_server_goes_without_its_instances_and_with_true_counts() -> None:
    uid, server = a_study(), FhirFake()
    sink = a_sink(server)
    server.fault = lambda r: httpx.Response(413) if writes(r) and b'"sopClass"' in r.content else None
    receipt = delivered(sink, a_state(uid, instances=3))
    (study,) = studies(server, uid)
    assert (study["numberOfInstances"], study["series"][0]["numberOfInstances"]) == (3, 3)
    assert "instance" not in study["series"][0]
    assert delivered(sink, a_state(uid, receipt, instances=3)) == receipt
    assert server.versions("ImagingStudy", study["id"]) == 1


def test_an_answer_that_never_comes_after_the_work_was_done_makes_no_second_study() -> None:
    uid = a_study()
    for kind in ({}, {"client_ids": False}, {"client_ids": False, "conditional": False}):
        server = FhirFake(**kind)
        sink = a_sink(server)
        server.after = lambda r: timed_out(r) if about(uid)(r) else None
        (outcome,) = sink.deliver([a_state(uid)])
        assert isinstance(outcome, SinkUnavailable)
        assert outcome.retry_after_s  # what is still under way must not be overtaken by a reading
        server.after = None
        delivered(sink, a_state(uid))
        (study,) = studies(server, uid)
        assert server.versions("ImagingStudy", study["id"]) == 1


def test_a_bundle_without_an_answer_is_not_followed_by_its_parts() -> None:
    server = FhirFake(client_ids=False, conditional=False)
    server.after = lambda r: timed_out(r) if b'"transaction"' in r.content else None
    states = [a_state(a_study()) for _ in range(3)]
    outcomes = a_sink(server).deliver(states)
    assert all(isinstance(o, SinkUnavailable) for o in outcomes)
    assert all(len(studies(server, s.study_instance_uid)) == 1 for s in states)


def timed_out(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("slow", request=request)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("refused"), "cannot be reached"),
        (httpx.ReadTimeout("slow"), "timeout_s"),
        (httpx.Response(200, html="<html>login</html>"), "not FHIR JSON"),
        (httpx.Response(200, json={"resourceType": "Bundle"}), "not a CapabilityStatement"),
        (httpx.Response(404), "no metadata"),
    ],
)
def test_a_wrong_address_is_told_in_words(answer: Any, said: str) -> None:
    def fault(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(SinkUnavailable, match=said):
        a_sink(FhirFake(fault=fault)).deliver([a_state(a_study())])


def test_a_busy_moment_and_a_lost_answer_are_bridged_without_giving_up() -> None:
    uid, server, waits = a_study(), FhirFake(), list[float]()
    lost = iter([False, True, False, False] * 50)
    busy = iter([429, None, None, 503, None] * 50)

    def fault(request: httpx.Request) -> httpx.Response | None:
        if not writes(request) and next(lost):
            raise httpx.ReadError("cut", request=request)
        status = next(busy)
        return httpx.Response(status, headers={"Retry-After": "1"}) if status else None

    server.fault = fault
    sink = FhirServerSink("ehr", URL, transport=server, pause=waits.append)
    delivered(sink, a_state(uid))
    (study,) = studies(server, uid)
    assert server.versions("ImagingStudy", study["id"]) == 1
    assert 1.0 in waits


def test_a_writing_whose_answer_was_lost_is_not_repeated_blindly() -> None:
    uid, server = a_study(), FhirFake(client_ids=False, conditional=False)

    def cut(request: httpx.Request) -> None:
        if about(uid)(request):
            raise httpx.ReadError("cut", request=request)

    server.after = cut
    with pytest.raises(SinkUnavailable):
        a_sink(server).deliver([a_state(uid)])
    server.after = None
    delivered(a_sink(server), a_state(uid))
    assert len(studies(server, uid)) == 1


# --- capabilities -----------------------------------------------------------------------------------------------------


def test_the_version_and_what_is_offered_are_read_from_the_capability_statement() -> None:
    can = capabilities(FhirFake(version="5.0.0", bundles=("batch",))._statement(), "sink ehr")
    study = can.of("ImagingStudy")
    assert (can.fhir_version, can.transaction, can.batch) == ("R5", False, True)
    assert study is not None
    assert study.update_create
    assert can.of("Goal") is None


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ({"resourceType": "CapabilityStatement", "fhirVersion": "3.0.2"}, "3.0.2"),
        ({"resourceType": "CapabilityStatement"}, "allowed"),
        (
            {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1", "rest": [{"resource": [{"type": "Goal"}]}]},
            "ImagingStudy",
        ),
    ],
)
def test_a_server_that_cannot_take_studies_is_told_so(statement: Resource, said: str) -> None:
    with pytest.raises(SinkUnavailable, match=said):
        capabilities(statement, "sink ehr")


def test_what_does_not_work_is_asked_once_only() -> None:
    server = FhirFake(client_ids=False, says={"updateCreate": True}, bundles=())
    sink = a_sink(server)
    for _ in range(3):
        delivered(sink, a_state(a_study()))
    refused = [r for r in server.requests if r.startswith("PUT ImagingStudy/")]
    assert len(refused) == 1


def test_an_r5_server_gets_r5() -> None:
    uid, server = a_study(), FhirFake(version="5.0.0")
    delivered(a_sink(server), a_state(uid))
    (study,) = studies(server, uid)
    assert study["modality"][0]["coding"][0]["code"] == "CT"


# --- races ------------------------------------------------------------------------------------------------------------


def another(server: FhirFake, state: StudyState, **policy: Any) -> Fault:
    """A second bridge that delivers the same study at the moment when the first one writes it."""
    other = a_sink(server, **policy)

    def fault(request: httpx.Request) -> httpx.Response | None:
        if about(state.study_instance_uid)(request):
            server.fault = None
            other.deliver([state])
        return None

    return fault


@pytest.mark.parametrize(
    "kind", [{}, {"client_ids": False}, {"client_ids": False, "conditional": False, "if_match": False}]
)
def test_two_bridges_that_race_leave_one_study_and_one_patient(kind: dict[str, Any]) -> None:
    server, policy = FhirFake(**kind), {"subjects": SubjectPolicy("create")}
    state = a_state(a_study())
    server.fault = another(server, state, **policy)
    sink, outcome = a_sink(server, **policy), None
    for _ in range(3):  # a conflict is tried again
        (outcome,) = sink.deliver([state])
        if isinstance(outcome, Receipt):
            break
    assert isinstance(outcome, Receipt)
    assert len(studies(server, state.study_instance_uid)) == 1
    assert len(server.search("Patient", identifier=f"{MRN}|P1")) == 1
    delivered(a_sink(server, **policy), state)


def test_of_several_the_one_that_others_refer_to_is_kept_and_no_reference_dangles() -> None:
    uid, server = a_study(), FhirFake()
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    for id_ in ("a", "b", "c", "d"):
        study = {"resourceType": "ImagingStudy", "id": id_, "identifier": [identifier], "status": "available"}
        server.put(study | {"series": [{"uid": "1"}], "endpoint": [{"reference": "Endpoint/x"}]})
    for id_ in ("b", "d"):
        report = {"resourceType": "DiagnosticReport", "id": f"of-{id_}"}
        server.put(report | {"imagingStudy": [{"reference": f"ImagingStudy/{id_}"}]})
    duplicates = a_sink(server).duplicates
    repaired = {r.id: r.action for r in duplicates.repair(duplicates.find([uid])[uid])}
    assert sorted(repaired.values()) == ["deleted", "deleted", "kept", "taken out"]
    assert {repaired["b"], repaired["d"]} == {"kept", "taken out"}
    (kept,) = studies(server, uid)
    (out,) = [s for s in server.all("ImagingStudy") if s["id"] != kept["id"]]
    assert (out["status"], out["numberOfInstances"]) == ("entered-in-error", 0)
    assert not {"identifier", "endpoint", "series"} & set(out)


# --- patients ---------------------------------------------------------------------------------------------------------


def test_logical_subjects_are_never_looked_up() -> None:
    uid, server = a_study(), FhirFake()
    server.put(a_patient("P1"))
    delivered(a_sink(server, subjects=SubjectPolicy("logical")), a_state(uid))
    (study,) = studies(server, uid)
    assert study["subject"]["identifier"]["value"] == "P1"
    assert not any("Patient" in r for r in server.requests)


def test_an_identifier_without_a_system_is_never_searched() -> None:
    uid, server = a_study(), FhirFake()
    state = a_state(uid, IssuerOfPatientID="UNKNOWN ISSUER")
    server.put({"resourceType": "Patient", "id": "x", "identifier": [{"value": "P1"}]})
    delivered(a_sink(server), state)
    (study,) = studies(server, uid)
    assert "reference" not in study["subject"]


def test_records_that_replace_each_other_in_a_circle_are_parked() -> None:
    server = FhirFake()
    for id_, other, value in (("one", "two", "P1"), ("two", "one", "P2")):
        link = {"other": {"reference": f"Patient/{other}"}, "type": "replaced-by"}
        server.put(a_patient(value) | {"id": id_, "link": [link]})
    (outcome,) = a_sink(server).deliver([a_state(a_study())])
    assert isinstance(outcome, RejectedInput)
    assert "circle" in str(outcome)


def _matching(server: FhirFake, *entries: Resource) -> Fault:
    server.says = {"operation": [{"name": "match"}]}
    bundle = {"resourceType": "Bundle", "type": "searchset", "entry": list(entries)}
    return lambda r: httpx.Response(200, json=bundle) if r.url.path.endswith("$match") else None


def _graded(patient: Resource, grade: str) -> Resource:
    extension = {"url": "http://hl7.org/fhir/StructureDefinition/match-grade", "valueCode": grade}
    return {"resource": patient, "search": {"mode": "match", "score": 0.9, "extension": [extension]}}


@pytest.mark.parametrize(("grade", "literal"), [("certain", True), ("probable", False)])
def test_the_match_operation_is_believed_when_it_is_certain(grade: str, literal: bool) -> None:
    uid, server = a_study(), FhirFake()
    server.fault = _matching(server, _graded(a_patient("P1") | {"id": "found"}, grade))
    delivered(a_sink(server, subjects=SubjectPolicy("match_operation")), a_state(uid))
    (study,) = studies(server, uid)
    assert (study["subject"].get("reference") == "Patient/found") is literal


def test_two_certain_matches_are_parked_and_a_server_without_the_operation_is_told() -> None:
    server = FhirFake()
    server.fault = _matching(server, _graded(a_patient("a"), "certain"), _graded(a_patient("b"), "certain"))
    sink = a_sink(server, subjects=SubjectPolicy("match_operation"))
    (outcome,) = sink.deliver([a_state(a_study())])
    assert isinstance(outcome, RejectedInput)
    with pytest.raises(SinkUnavailable, match="match"):
        a_sink(FhirFake(), subjects=SubjectPolicy("match_operation")).deliver([a_state(a_study())])


# --- pages, sizes, names ----------------------------------------------------------------------------------------------


def test_pages_are_followed_on_the_same_server_only() -> None:
    server, state = FhirFake(), a_state(a_study())
    page = {"resourceType": "Bundle", "type": "searchset"}
    asked: list[str] = []

    def fault(request: httpx.Request) -> httpx.Response | None:
        asked.append(str(request.url))
        if request.url.path.endswith("Patient/_search"):
            link = [{"relation": "next", "url": f"{URL}?page=2"}]
            return httpx.Response(200, json=page | {"link": link})
        if "page=2" in str(request.url):
            link = [{"relation": "next", "url": "http://evil.example/fhir?page=3"}]
            return httpx.Response(200, json=page | {"link": link})
        return None

    server.fault = fault
    with pytest.raises(SinkUnavailable, match="another server"):
        a_sink(server).deliver([state])
    assert any("page=2" in url for url in asked)
    assert not any("evil" in url for url in asked)


def test_searches_ask_for_what_is_there_now_and_keep_identifiers_out_of_addresses() -> None:
    server = FhirFake()
    seen: list[httpx.Request] = []
    server.fault = seen.append  # type: ignore[assignment]
    delivered(a_sink(server), a_state(a_study()))
    searches = [r for r in seen if r.url.path.endswith("_search")]
    assert searches
    assert all(r.headers["cache-control"] == "no-cache" and "P1" not in str(r.url) for r in searches)


def test_servers_that_take_no_search_by_post_are_asked_by_get() -> None:
    uid, server = a_study(), FhirFake()
    server.fault = answering(404, lambda r: r.url.path.endswith("_search"))
    delivered(a_sink(server), a_state(uid))
    assert len(studies(server, uid)) == 1


def test_bundles_stay_below_the_bytes_allowed() -> None:
    server, sizes = FhirFake(), []
    server.after = lambda r: sizes.append(len(r.content)) if r.url.path == "/fhir" else None
    outcomes = a_sink(server, bundle_bytes=20_000).deliver([a_state(a_study(), instances=30) for _ in range(6)])
    assert all(isinstance(o, Receipt) for o in outcomes)
    assert sizes
    assert max(sizes) <= 20_000


def test_what_is_sent_together_does_not_depend_on_one_that_is_refused() -> None:
    bad = a_study()
    server = FhirFake(fault=answering(422, about(bad)))
    uids = [a_study() for _ in range(5)]
    outcomes = a_sink(server).deliver([a_state(uid) for uid in (*uids[:2], bad, *uids[2:])])
    assert [isinstance(o, Receipt) for o in outcomes] == [True, True, False, True, True, True]
    assert all(server.versions("ImagingStudy", studies(server, uid)[0]["id"]) == 1 for uid in uids)


def test_a_server_without_endpoints_gets_the_study_without_them() -> None:
    uid, server = a_study(), FhirFake()

    def without(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith("metadata"):
            statement = server._statement()
            rest = statement["rest"][0]
            rest["resource"] = [r for r in rest["resource"] if r["type"] != "Endpoint"]
            return httpx.Response(200, content=orjson.dumps(statement))
        return None

    server.fault = without
    delivered(a_sink(server), a_state(uid))
    (study,) = studies(server, uid)
    assert "endpoint" not in study
