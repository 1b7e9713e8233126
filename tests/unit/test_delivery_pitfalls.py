"""What goes wrong between bridges and FHIR servers in the field, each with its name: pitfalls of mapping and delivery,
and the hazards of servers."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.api.operations import status
from bridge.errors import Conflict
from bridge.model import Receipt
from bridge.sinks.fhir_server import SubjectPolicy
from bridge.sinks.fhir_server.subjects import escaped
from bridge.state import State
from tests.builders import STUDY, headers
from tests.contract.fhir_sink import MRN, a_patient, a_state, a_study, delivered
from tests.delivering import QUEUE, Delivery, counted, dangling, entries
from tests.fhir_fake import URL, FhirFake
from tests.unit.test_fhir_server_sink import a_sink, about, another, answering, timed_out, writes

OWN_IDS: dict[str, Any] = {"client_ids": False}
NEITHER: dict[str, Any] = {"client_ids": False, "conditional": False, "if_match": False}
KINDS = pytest.mark.parametrize("kind", [{}, OWN_IDS, NEITHER], ids=["our ids", "its ids", "nothing conditional"])
CREATE = {"subjects": SubjectPolicy("create")}


@pytest.fixture
def state(tmp_path: Path) -> Any:
    made = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield made
    made.close()


# --- 10: deletions ----------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("policy", ["status", "delete"])
def test_10_a_study_that_is_gone_is_withdrawn_by_policy_and_leaves_no_dangling_endpoint(
    state: State, kind: dict[str, Any], policy: str
) -> None:
    rig = Delivery(state, FhirFake(**kind), withdrawn=policy)
    rig.a.put(headers(), headers(study=f"{STUDY}.5"))
    rig.run()
    rig.withdraw(STUDY)
    assert [s["status"] for s in rig.studies(STUDY)] == (["entered-in-error"] if policy == "status" else [])
    assert not any({"endpoint", "series"} & set(s) for s in rig.studies(STUDY))
    assert rig.studies(f"{STUDY}.5")[0]["endpoint"]
    assert dangling(rig.server) == set()
    before = counted(rig.server)
    rig.again(STUDY)  # a replayed deletion is no news
    assert counted(rig.server) == before
    rig.a.put(headers())
    rig.run()
    assert [s["status"] for s in rig.studies(STUDY)] == ["available"]


def test_10_one_of_several_instances_that_is_gone_takes_nothing_else_along(state: State) -> None:
    rig = Delivery(state, FhirFake(), withdrawn="delete")
    rig.a.put(headers(instance=1), headers(instance=2), headers(instance=3))
    rig.run()
    del rig.a.studies[STUDY][f"{STUDY}.1.2"]
    rig.a.log.append(STUDY)
    rig.run()
    (study,) = rig.studies(STUDY)
    assert [i["uid"] for i in study["series"][0]["instance"]] == [f"{STUDY}.1.1", f"{STUDY}.1.3"]


def test_10_what_others_refer_to_is_withdrawn_by_its_status_where_it_cannot_be_deleted(state: State) -> None:
    rig = Delivery(state, FhirFake(), withdrawn="delete")
    rig.a.put(headers())
    rig.run()
    (study,) = rig.studies(STUDY)
    report = {"resourceType": "DiagnosticReport", "id": "r"}
    rig.server.put(report | {"imagingStudy": [{"reference": f"ImagingStudy/{study['id']}"}]})
    rig.withdraw(STUDY)
    assert [s["status"] for s in rig.studies(STUDY)] == ["entered-in-error"]
    assert dangling(rig.server) == set()
    assert rig.parked() == {}


@KINDS
def test_10_an_endpoint_that_somebody_deleted_is_made_again_within_the_hour(state: State, kind: dict[str, Any]) -> None:
    rig = Delivery(state, FhirFake(**kind))
    rig.a.put(headers())
    rig.run()
    (endpoint,) = rig.server.all("Endpoint")
    rig.server.delete(f"Endpoint/{endpoint['id']}")
    assert dangling(rig.server)
    rig.now += 3600
    rig.again(STUDY)
    assert dangling(rig.server) == set()


# --- 11: late, repeated, out of order ---------------------------------------------------------------------------------


@KINDS
def test_11_instances_late_repeated_and_out_of_order_make_one_resource_and_the_same(
    tmp_path: Path, kind: dict[str, Any]
) -> None:
    ends = []
    for seed in range(3):
        state = State(f"sqlite:///{tmp_path / str(seed)}.sqlite")
        rig = Delivery(state, FhirFake(**kind))
        arriving = [headers(series=s, instance=i) for s in (1, 2) for i in (1, 2, 3)] * 2
        random.Random(seed).shuffle(arriving)
        for instance in arriving:
            rig.a.put(instance)
            rig.run(random.Random(seed).choice([1, 6]))
        rig.run()
        (study,) = rig.studies(STUDY)
        assert (study["numberOfSeries"], study["numberOfInstances"]) == (2, 6)
        ends.append({k: v for k, v in study.items() if k not in ("id", "meta")})
        state.close()
    assert ends[0] == ends[1] == ends[2]


@KINDS
def test_11_what_is_unchanged_is_not_written(state: State, kind: dict[str, Any]) -> None:
    rig = Delivery(state, FhirFake(**kind), **CREATE)
    uids = [f"{STUDY}.{n}" for n in range(5)]
    rig.a.put(*(headers(study=uid) for uid in uids))
    rig.run()
    before = counted(rig.server)
    rig.again(*uids)
    rig.pipeline.sinks = {"ehr": rig.sink(rig.server)}  # nor by one that knows nothing yet
    rig.again(*uids)
    assert counted(rig.server) == before
    assert rig.state.depth()[0][0] == "poll"


# --- 15: size ---------------------------------------------------------------------------------------------------------


def test_15_a_study_too_large_goes_without_its_instances_and_the_rest_of_the_batch_whole(state: State) -> None:
    rig = Delivery(state, FhirFake())
    large, small = STUDY, f"{STUDY}.5"
    rig.a.put(*(headers(instance=n) for n in range(1, 60)), headers(study=small))
    rig.server.fault = lambda r: httpx.Response(413) if writes(r) and len(r.content) > 8000 else None
    rig.run()
    (study,), (other,) = rig.studies(large), rig.studies(small)
    assert (study["numberOfInstances"], study["series"][0]["numberOfInstances"]) == (59, 59)
    assert ("instance" in study["series"][0], "instance" in other["series"][0]) == (False, True)
    assert rig.parked() == {}


# --- 16: characters that a search gives a meaning ---------------------------------------------------------------------


@pytest.mark.parametrize("value", ["a,b", "a|b", "a$b", "a&b=c", "a%2Cb", "a+b", "a#b", "ä ?b"])
@pytest.mark.parametrize("kind", [{}, OWN_IDS], ids=["our ids", "its ids"])
def test_16_an_identifier_with_any_character_finds_its_patient_and_nobody_elses(
    state: State, kind: dict[str, Any], value: str
) -> None:
    rig = Delivery(state, FhirFake(**kind), **CREATE)
    for other in (value[0], value[-1], f"x{value}"):
        rig.server.put(a_patient(other))
    patients = len(rig.server.all("Patient"))
    rig.a.put(headers(PatientID=value), headers(study=f"{STUDY}.5", PatientID=value, instance=2))
    rig.run()
    (made,) = rig.server.search("Patient", f"{MRN}|{escaped(value)}")
    for uid in (STUDY, f"{STUDY}.5"):
        assert rig.studies(uid)[0]["subject"]["reference"] == f"Patient/{made['id']}"
    rig.pipeline.sinks = {"ehr": rig.sink(rig.server)}
    rig.again(STUDY)
    assert len(rig.server.all("Patient")) == patients + 1


def test_16_the_escape_itself_is_escaped_first() -> None:
    assert escaped("a\\,b|c$d") == "a\\\\\\,b\\|c\\$d"


# --- 19: races and errors ---------------------------------------------------------------------------------------------


@KINDS
def test_19_of_two_bridges_that_create_at_the_same_moment_one_study_and_one_patient_are_left(
    kind: dict[str, Any],
) -> None:
    server, study = FhirFake(**kind), a_state(a_study())
    server.fault = another(server, study, **CREATE)
    sink = a_sink(server, **CREATE)
    outcomes = [sink.deliver([study])[0] for _ in range(3)]
    assert isinstance(outcomes[-1], Receipt)
    assert len(server.all("ImagingStudy")) == 1
    assert len(server.all("Patient")) == 1


def test_19_a_conditional_create_that_made_nothing_is_not_taken_for_a_delivery() -> None:
    """HTTP 200 says that something is there already, not that it is ours."""
    uid, server = a_study(), FhirFake(client_ids=False)
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    theirs = {"resourceType": "ImagingStudy", "id": "1", "identifier": [identifier], "status": "registered"}

    def meanwhile(request: httpx.Request) -> None:
        if about(uid)(request) and not server.all("ImagingStudy"):
            server.put(theirs | {"note": [{"text": "theirs"}]})

    server.fault = meanwhile
    sink = a_sink(server)
    (outcome,) = sink.deliver([a_state(uid)])
    assert isinstance(outcome, Conflict)
    delivered(sink, a_state(uid))
    (study,) = server.all("ImagingStudy")
    assert (study["status"], study["note"]) == ("available", [{"text": "theirs"}])


@pytest.mark.parametrize("kind", [OWN_IDS, NEITHER])
def test_19_a_patient_that_the_ehr_registers_at_the_same_moment_is_neither_changed_nor_deleted(
    kind: dict[str, Any],
) -> None:
    server, study = FhirFake(**kind), a_state(a_study())

    def meanwhile(request: httpx.Request) -> None:
        if writes(request) and b'"Patient"' in request.content and "7" not in str(server.history):
            server._store("Patient", "7", a_patient("P1", name=[{"family": "Test"}]))

    server.fault = meanwhile
    sink = a_sink(server, **CREATE)
    outcomes = [sink.deliver([study])[0] for _ in range(3)]
    assert isinstance(outcomes[-1], Receipt)
    (patient,) = server.all("Patient")
    assert (patient["id"], server.versions("Patient", "7")) == ("7", 1)
    assert server.all("ImagingStudy")[0]["subject"]["reference"] == "Patient/7"


@pytest.mark.parametrize(
    ("code", "parked"),
    [(400, True), (404, True), (410, True), (422, True)]
    + [(s, False) for s in (301, 401, 403, 408, 409, 412, 425, 429, 500, 502, 503, 504)],
)
def test_19_only_what_is_refused_for_its_content_is_parked_and_all_else_arrives_later(
    state: State, code: int, parked: bool
) -> None:
    rig = Delivery(state, FhirFake())
    rig.a.put(headers())
    rig.server.fault = answering(code, about(STUDY))
    rig.run(7)
    assert (STUDY in rig.parked()) is parked
    assert rig.studies(STUDY) == []
    rig.server.fault = None
    rig.run(200)
    assert len(rig.studies(STUDY)) == (0 if parked else 1)


@pytest.mark.parametrize("code", [429, 503])
def test_19_a_server_that_says_how_long_to_wait_is_left_alone_for_so_long(state: State, code: int) -> None:
    rig = Delivery(state, FhirFake())
    rig.a.put(headers())
    rig.server.fault = answering(code, headers={"Retry-After": "45"})
    rig.run(6)
    asked = len(rig.server.requests)
    rig.run(39)
    assert len(rig.server.requests) == asked
    rig.server.fault = None
    rig.run(10)
    assert len(rig.studies(STUDY)) == 1


def test_19_a_refused_endpoint_is_told_of_the_studies_that_have_it_and_of_no_others(state: State) -> None:
    rig = Delivery(state, FhirFake())
    rig.a.put(headers())
    rig.b.put(headers(study=f"{STUDY}.5"))
    rig.server.fault = answering(422, lambda r: writes(r) and b'"resourceType":"Endpoint"' in r.content)
    rig.run()
    assert list(rig.parked()) == [STUDY]
    assert "HTTP 422" in rig.parked()[STUDY]
    assert len(rig.studies(f"{STUDY}.5")) == 1


def test_19_one_study_that_the_server_fails_to_read_holds_up_no_other(state: State) -> None:
    rig = Delivery(state, FhirFake())
    uids = [f"{STUDY}.{n}" for n in range(6)]
    rig.a.put(*(headers(study=uid) for uid in uids))
    rig.run()
    bad = rig.studies(uids[2])[0]["id"]
    rig.server.fault = answering(500, lambda r: r.method == "GET" and r.url.path.endswith(f"ImagingStudy/{bad}"))
    rig.a.put(*(headers(study=uid, instance=2) for uid in uids))
    rig.run(120)
    assert [rig.studies(uid)[0]["numberOfInstances"] for uid in uids] == [2, 2, 1, 2, 2, 2]
    assert [i.key for i in rig.state.items(queue=QUEUE)] == [uids[2]]
    rig.server.fault = None
    rig.run(60)
    assert rig.studies(uids[2])[0]["numberOfInstances"] == 2


# --- 20: what servers do otherwise ------------------------------------------------------------------------------------


class StampsSource(FhirFake):
    """Writes a meta.source of its own, with a new fragment for every request, as HAPI does."""

    def _store(self, kind: str, id_: str, body: Any) -> tuple[int, Any, str]:
        code, stored, where = super()._store(kind, id_, body)
        stored["meta"]["source"] = f"http://stamped.example#{len(self.requests)}"
        return code, stored, where


@pytest.mark.parametrize("policy", ["status", "delete"])
def test_20_a_server_that_rewrites_meta_source_gets_updates_and_withdrawals_all_the_same(
    state: State, policy: str
) -> None:
    rig = Delivery(state, StampsSource(), withdrawn=policy)
    rig.a.put(headers())
    rig.run()
    before = counted(rig.server)
    rig.again(STUDY)
    assert counted(rig.server) == before
    rig.a.put(headers(instance=2))
    rig.run()
    assert [s["numberOfInstances"] for s in rig.studies(STUDY)] == [2]
    rig.withdraw(STUDY)
    assert [s["status"] for s in rig.studies(STUDY)] == (["entered-in-error"] if policy == "status" else [])


@pytest.mark.parametrize("code", [400, 413, 422])
def test_20_a_server_that_takes_fewer_entries_in_a_bundle_gets_all_of_them(state: State, code: int) -> None:
    rig = Delivery(state, FhirFake())
    uids = [f"{STUDY}.{n}" for n in range(9)]
    rig.a.put(*(headers(study=uid) for uid in uids))
    rig.server.fault = answering(code, lambda r: len(entries(r.content)) > 3)
    rig.run()
    assert [len(rig.studies(uid)) for uid in uids] == [1] * 9
    assert rig.parked() == {}


def test_20_no_bundle_has_more_entries_or_bytes_than_the_site_allows(state: State) -> None:
    sizes: list[tuple[int, int]] = []
    rig = Delivery(state, FhirFake(), bundle_entries=4, bundle_bytes=6000)
    rig.server.after = lambda r: sizes.append((len(entries(r.content)), len(r.content))) if writes(r) else None
    uids = [f"{STUDY}.{n}" for n in range(12)]
    rig.a.put(*(headers(study=uid) for uid in uids))
    rig.run()
    assert [len(rig.studies(uid)) for uid in uids] == [1] * 12
    assert 1 < max(n for n, _ in sizes) <= 4
    assert max(size for _, size in sizes) <= 6000


@pytest.mark.parametrize(
    ("bundles", "claims"), [(("batch",), None), ((), None), ((), ("transaction", "batch")), ((), ("transaction",))]
)
@KINDS
def test_20_without_transactions_a_batch_is_sent_and_without_that_one_request_after_another(
    state: State, kind: dict[str, Any], bundles: tuple[str, ...], claims: tuple[str, ...] | None
) -> None:
    rig = Delivery(state, FhirFake(**kind, bundles=bundles, claims=claims))
    uids = [f"{STUDY}.{n}" for n in range(6)]
    rig.a.put(*(headers(study=uid) for uid in uids))
    rig.run()
    assert [len(rig.studies(uid)) for uid in uids] == [1] * 6
    assert rig.parked() == {}


# --- 22: nothing about patients in errors and logs --------------------------------------------------------------------

NAME, NUMBER, BORN, ORDER = "Zebrowski^Quentin", "MRN7788XX", "19430217", "ACC9911"
MARKS = ("Zebrowski", "Quentin", NUMBER, BORN, "1943", ORDER)


def _quoting(code: int) -> httpx.Response:
    """An answer that quotes what it was sent wherever it can."""
    issue = {
        "severity": "error", "code": NUMBER, "diagnostics": f"{NAME} {NUMBER}", "details": {"text": NAME},
        "expression": [f"Patient.identifier.where(value='{NUMBER}')", f"{NAME} 1943", None], "location": [NUMBER],
    }  # fmt: skip
    outcome = {"resourceType": "OperationOutcome", "id": NUMBER, "issue": [issue, NAME]}
    headers_ = {"Location": f"{URL}/Patient?identifier={NUMBER}", "X-Patient": "Zebrowski"}
    return httpx.Response(code, json=outcome, headers=headers_)


def _garbled(request: httpx.Request) -> httpx.Response:
    found: dict[str, Any] = {"resourceType": "Bundle", "entry": [NAME, {"resource": NAME}, {"resource": None}]}
    return httpx.Response(200, json=found | {"link": [NAME, {"relation": "next", "url": f"http://x.example/{NUMBER}"}]})


def _raising(kind: type[httpx.TransportError]) -> Callable[[httpx.Request], httpx.Response]:
    def fail(request: httpx.Request) -> httpx.Response:
        raise kind(f"{request.url} {NAME} {NUMBER}", request=request)

    return fail


FAILURES: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    **{
        f"HTTP {c}": (lambda _r, c=c: _quoting(c)) for c in (302, 400, 401, 403, 404, 409, 412, 413, 422, 429, 500, 503)
    },  # type: ignore[misc]
    "a page": lambda _r: httpx.Response(200, html=f"<html>{NAME} {NUMBER}</html>"),
    "no FHIR": lambda _r: httpx.Response(200, json={"patient": NAME}),
    "garbled": _garbled,
    "a timeout": _raising(httpx.ReadTimeout),
    "no connection": _raising(httpx.ConnectError),
    "a cut": _raising(httpx.RemoteProtocolError),
}
WHERE: dict[str, Callable[[httpx.Request], bool]] = {
    "everywhere": lambda _r: True,
    "searches": lambda r: r.url.path.endswith("_search") or r.url.query != b"",
    "writes": writes,
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", [{}, NEITHER | {"bundles": ()}], ids=["bundles", "single requests"])
def test_22_failing_deliveries_tell_nothing_about_a_patient(
    state: State, caplog: pytest.LogCaptureFixture, kind: dict[str, Any], failure: str
) -> None:
    caplog.set_level(logging.DEBUG)
    rig, told = Delivery(state, FhirFake(**kind), **CREATE), ""
    patient = {"PatientName": NAME, "PatientID": NUMBER, "PatientBirthDate": BORN, "AccessionNumber": ORDER}
    uids = [STUDY, f"{STUDY}.5"]
    for where in WHERE.values():
        rig.server.fault = lambda r, where=where: FAILURES[failure](r) if where(r) else None  # type: ignore[misc]
        rig.a.put(*(headers(study=uid, **patient) for uid in uids))
        rig.again(*uids)
        items = rig.state.items(queue=QUEUE)
        assert items or rig.studies(STUDY) or failure == "garbled", "neither failed nor delivered"
        told += str(items) + str(status(rig.state, rig.now))
    told += caplog.text
    assert not [mark for mark in MARKS if mark in told]
    assert "a bug of this program" not in told


@pytest.mark.parametrize("stated", [{"gender": "male"}, {"birthDate": "1943-02-18"}, {"name": [{"family": "Quentin"}]}])
def test_22_identity_conflicts_and_doubles_tell_nothing_about_a_patient(
    state: State, caplog: pytest.LogCaptureFixture, stated: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    rig = Delivery(state, FhirFake())
    patient = {"PatientName": NAME, "PatientID": NUMBER, "PatientBirthDate": BORN, "AccessionNumber": ORDER}
    rig.a.put(headers(**patient), headers(study=f"{STUDY}.5", **patient | {"PatientID": f"{NUMBER}-2"}))
    rig.server.put(a_patient(NUMBER, **stated))
    for _ in range(2):
        rig.server.put(a_patient(f"{NUMBER}-2"))
    rig.run()
    assert set(rig.parked()) == {STUDY, f"{STUDY}.5"}
    told = caplog.text + str(rig.state.items())
    assert not [mark for mark in MARKS if mark in told]


# --- hazards of servers -----------------------------------------------------------------------------------------------


@KINDS
def test_hazard_no_bundle_writes_or_creates_the_same_twice(state: State, kind: dict[str, Any]) -> None:
    """Servers drop one of two conditional entries of one key silently, make two of them, or refuse all."""
    keys: list[list[str]] = []

    def seen(request: httpx.Request) -> None:
        asked = [e["request"] for e in entries(request.content)]
        keys.append([f"{a['url']} {a.get('ifNoneExist', '')}" for a in asked if a["url"] != a.get("none")])

    rig = Delivery(state, FhirFake(**kind), **CREATE)
    rig.server.fault = seen  # type: ignore[assignment]
    rig.a.put(*(headers(study=f"{STUDY}.{n}", PatientID=f"P{n % 2}") for n in range(8)))
    rig.run()
    assert any(len(bundle) > 2 for bundle in keys)
    if kind != NEITHER:  # plain creates carry no key at all
        assert all(len(set(bundle)) == len(bundle) for bundle in keys)
    assert len(rig.server.all("Patient")) == 2
    assert len(rig.server.all("ImagingStudy")) == 8
    assert len(rig.server.all("Endpoint")) == 1


def test_hazard_a_study_given_twice_in_one_batch_is_written_once() -> None:
    server, uid = FhirFake(client_ids=False), a_study()
    outcomes = a_sink(server).deliver([a_state(uid), a_state(a_study()), a_state(uid)])
    assert outcomes[0] == outcomes[2]
    assert isinstance(outcomes[0], Receipt)
    assert len(server.all("ImagingStudy")) == 2


class NotAtomic(FhirFake):
    """Conditional creates look, then make: `meanwhile` happens between the two, as in servers under load."""

    meanwhile: Callable[[], None] | None = None

    def do(self, method: str, path: str, body: Any, asked: dict[str, str]) -> tuple[int, Any, str]:
        if method == "POST" and asked.get("ifNoneExist") and self.meanwhile is not None and path == "ImagingStudy":
            then, self.meanwhile = self.meanwhile, None
            found = self._store(path, str(next(self._ids)), body)
            then()
            return found
        return super().do(method, path, body, asked)


def test_hazard_concurrent_conditional_creates_end_as_one_study() -> None:
    server, study = NotAtomic(client_ids=False), a_state(a_study())
    other = a_sink(server)

    def beside() -> None:
        unseen = {"resourceType": "ImagingStudy", "identifier": server.all("ImagingStudy")[0]["identifier"]}
        server._store("ImagingStudy", "2000", unseen | {"status": "registered"})

    server.meanwhile = beside
    (outcome,) = a_sink(server).deliver([study])
    assert isinstance(outcome, Conflict)
    assert (
        len(server.all("ImagingStudy")) == 2
    )  # the later one is not ours to delete: it is told, and `dedupe` mends it
    duplicates = other.duplicates
    duplicates.repair(duplicates.find([study.study_instance_uid])[study.study_instance_uid])
    delivered(other, study)
    assert len(server.all("ImagingStudy")) == 1


@pytest.mark.parametrize("added", [{}, {"note": [{"text": "theirs"}]}])
def test_hazard_a_double_that_turns_up_later_is_taken_back_unless_others_added_to_it(added: dict[str, Any]) -> None:
    server, uid = FhirFake(client_ids=False), a_study()
    sink = a_sink(server)
    receipt = delivered(sink, a_state(uid))
    (ours,) = server.all("ImagingStudy")
    server._store("ImagingStudy", ours["id"], ours | added)
    server._store("ImagingStudy", "1", {k: v for k, v in ours.items() if k != "id"})
    (outcome,) = sink.deliver([a_state(uid, receipt)])
    assert isinstance(outcome, Conflict)
    assert len(server.all("ImagingStudy")) == (2 if added else 1)


class Caching(FhirFake):
    """Answers a search that was asked before from memory, unless it is told not to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.memory: dict[tuple[str, bytes], httpx.Response] = {}

    def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        if not path.endswith("_search"):
            return super()._answer(request, path)
        key = path, request.content
        if request.headers.get("cache-control") == "no-cache" or key not in self.memory:
            self.memory[key] = super()._answer(request, path)
        return self.memory[key]


@KINDS
def test_hazard_searches_answered_from_a_cache_hide_nothing_that_was_written(
    state: State, kind: dict[str, Any]
) -> None:
    rig = Delivery(state, Caching(**kind), **CREATE)
    for instance in (1, 2, 3):
        rig.a.put(headers(instance=instance), headers(study=f"{STUDY}.5", instance=instance))
        rig.run()
        rig.pipeline.sinks = {"ehr": rig.sink(rig.server)}
    assert [len(rig.studies(uid)) for uid in (STUDY, f"{STUDY}.5")] == [1, 1]
    assert len(rig.server.all("Patient")) == 1
    assert rig.parked() == {}


class LateIndex(FhirFake):
    """Searches find nothing that was written: their index is behind."""

    def _searched(self, kind: str, parameters: dict[str, str]) -> httpx.Response:
        return httpx.Response(200, json={"resourceType": "Bundle", "type": "searchset"})


@pytest.mark.parametrize("kind", [{}, NEITHER], ids=["our ids", "its ids"])
def test_hazard_an_index_that_is_behind_makes_no_second_study_of_one_that_was_delivered(
    state: State, kind: dict[str, Any]
) -> None:
    rig = Delivery(state, LateIndex(**kind))
    for instance in (1, 2, 3):
        rig.a.put(headers(instance=instance))
        rig.run()
    assert [s["numberOfInstances"] for s in rig.server.all("ImagingStudy")] == [3]
    assert rig.parked() == {}


@KINDS
def test_hazard_an_answer_that_is_lost_after_the_work_was_done_doubles_nothing(
    state: State, kind: dict[str, Any]
) -> None:
    rig = Delivery(state, FhirFake(**kind), **CREATE)
    lost = iter([True, False] * 100)
    rig.server.after = lambda r: timed_out(r) if writes(r) and next(lost) else None
    uids = [f"{STUDY}.{n}" for n in range(4)]
    rig.a.put(*(headers(study=uid) for uid in uids))
    rig.run(600)
    assert [len(rig.studies(uid)) for uid in uids] == [1] * 4
    assert len(rig.server.all("Patient")) == 1
    assert rig.parked() == {}
