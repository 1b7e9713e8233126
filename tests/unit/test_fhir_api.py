from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.api.fhir import fhir_app
from bridge.follow.topics import TOPICS
from bridge.ports import ChangePage, StudyHeaders
from bridge.state import State
from tests.builders import STUDY, a_translator, headers
from tests.validity import told_wrong

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # starlette asks for another HTTP client than the one this project is bound to
    from fastapi.testclient import TestClient

BASE = "http://h/fhir"


def store(state: State, study: str, now: float, **attributes: Any) -> None:
    state.commit_page("a", ChangePage(frozenset([study]), "1", True), now, 0, 0)
    (claim,) = state.claim("study", now, 30, 1, "w")
    found = tuple(headers(study=study, instance=i, **attributes) for i in (1, 2))
    state.commit_snapshot(claim, "a", state.hinted(study)["a"], StudyHeaders(found, 2), now)
    translator = a_translator(endpoints={"a": "http://pacs/dicom-web"})
    state.commit_study(claim, translator.translate(study, state.snapshots(study)), [], [], now)


class Api:
    def __init__(self, state: State) -> None:
        self.state = state
        self.client = TestClient(fhir_app(state, BASE), raise_server_exceptions=False)

    def get(self, path: str, status: int = 200, **headers: str) -> Any:
        response = self.client.get(path.removeprefix(BASE), headers=headers)
        return self.checked(response, status)

    def checked(self, response: httpx.Response, status: int) -> Any:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/fhir+json; charset=utf-8"
        found = response.json()
        assert told_wrong(found, "r4") == []
        if status >= 400:
            assert found["resourceType"] == "OperationOutcome"
        return found

    def ids(self, path: str) -> list[str]:
        return [e["resource"]["id"] for e in self.get(path).get("entry", []) if e["search"]["mode"] == "match"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    state = State(f"sqlite:///{tmp_path_factory.mktemp('api') / 's.sqlite'}")
    store(
        state, STUDY, 1_700_000_000.0, BodyPartExamined="CHEST", ReferringPhysicianName="Muster^Rita",
        IssuerOfPatientID="X",
    )  # fmt: skip
    store(
        state,
        STUDY + ".2",
        1_700_000_100.0,
        Modality="MR",
        StudyDate="20230615",
        PatientID="P,2|x",
        AccessionNumber="B2",
    )
    yield Api(state)
    state.close()


def only(api: Api, kind: str, study: str = STUDY) -> Any:
    (found,) = [r for r in api.state.study_resources(study) if r.resource_type == kind]
    return found


def test_the_capability_statement_is_valid_and_tells_every_search_parameter(api: Api) -> None:
    found = api.get("/metadata")
    assert found["fhirVersion"] == "4.0.1"
    by_type = {r["type"]: {p["name"] for p in r["searchParam"]} for r in found["rest"][0]["resource"]}
    wanted = (
        "identifier patient subject started modality series instance dicom-class bodysite basedon endpoint status "
        "reason referrer interpreter performer encounter _id _lastUpdated"
    )
    assert set(wanted.split()) <= by_type["ImagingStudy"]
    (rest,) = found["rest"]
    assert rest["operation"][0]["name"] == "export"
    operations = {r["type"]: [o["name"] for o in r.get("operation", [])] for r in rest["resource"]}
    assert (operations["Patient"], operations["Subscription"]) == (["export"], ["status", "events"])
    (subscription,) = [r for r in rest["resource"] if r["type"] == "Subscription"]
    assert [e["valueCanonical"] for e in subscription["extension"]] == list(TOPICS)


def test_read_and_vread_carry_version_and_time(api: Api) -> None:
    id_ = only(api, "ImagingStudy").id
    response = api.client.get(f"/ImagingStudy/{id_}")
    found = api.checked(response, 200)
    assert found["meta"] == {"versionId": "1", "lastUpdated": "2023-11-14T22:13:20.000Z"}
    assert response.headers["etag"] == 'W/"1"'
    assert api.client.get(f"/ImagingStudy/{id_}", headers={"If-None-Match": 'W/"1"'}).status_code == 304
    assert api.get(f"/ImagingStudy/{id_}/_history/1") == found
    history = api.get(f"/ImagingStudy/{id_}/_history")
    assert (history["type"], history["total"]) == ("history", 1)


def test_a_deleted_resource_is_gone_but_its_history_stays(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    store(state, STUDY, 1.0, PatientID="OLD")
    api = Api(state)
    old = only(api, "Patient").id
    store(state, STUDY, 2.0, PatientID="NEW")
    api.get(f"/Patient/{old}", 410)
    api.get(f"/Patient/{old}/_history/2", 410)
    history = api.get(f"/Patient/{old}/_history")
    assert [e["request"]["method"] for e in history["entry"]] == ["DELETE", "POST"]
    assert old not in api.ids("/Patient")
    state.close()


def hits() -> list[Any]:
    uid = f"urn:dicom:uid%7Curn:oid:{STUDY}"
    return [
        (f"identifier={uid}", f"identifier={uid}9"),
        (f"identifier=urn:dicom:uid%7C{STUDY}", "identifier=urn:dicom:uid%7C1.9"),
        ("identifier=A1", "identifier=a1"),
        ("identifier=%7CA1", "identifier=urn:x%7CA1"),
        ("modality=CT", "modality=MR"),
        ("modality=http://dicom.nema.org/resources/ontology/DCM%7CCT", "modality=http://x%7CCT"),
        ("modality=US,CT", "modality=US,CR"),
        ("modality:not=MR", "modality:not=CT"),
        ("status=available", "status=cancelled"),
        ("started=2024-03-01", "started=2024-03-02"),
        ("started=2024-03", "started=2023-03"),
        ("started=ge2024", "started=lt2024"),
        ("started=sa2024-02-28&started=eb2024-03-02", "started=gt2024-03-01T10:00:00%2B01:00"),
        ("started=2024-03-01T08:15:00Z", "started=2024-03-01T09:15:00Z"),
        (f"series={STUDY}.1", f"series={STUDY}.7"),
        (f"instance={STUDY}.1.2", f"instance={STUDY}.1.3"),
        ("dicom-class=urn:oid:1.2.840.10008.5.1.4.1.1.2", "dicom-class=urn:oid:1.2.840.10008.5.1.4.1.1.4"),
        ("bodysite=http://snomed.info/sct%7C", "bodysite=123"),
        ("bodysite:missing=false", "bodysite:missing=true"),
        ("basedon:identifier=A1", "basedon:identifier=B2"),
        ("referrer:missing=true", "referrer:missing=false"),
        ("reason:missing=true", "reason=1"),
        ("encounter:missing=true", "encounter=Encounter/1"),
        ("interpreter:missing=true", "interpreter=Practitioner/1"),
        ("performer:missing=true", "performer=Practitioner/1"),
        ("endpoint:missing=false", "endpoint=Endpoint/1"),
        ("patient.identifier=P1", "patient.identifier=P9"),
        ("patient:Patient.name=test", "patient.name=nobody"),
        ("patient.birthdate=1970", "patient.birthdate=1971"),
        ("_lastUpdated=le2023-11-14T22:13:20Z", "_lastUpdated=gt2024"),
    ]


@pytest.mark.parametrize(("hit", "miss"), hits())
def test_every_search_parameter_finds_and_does_not_find(api: Api, hit: str, miss: str) -> None:
    id_ = only(api, "ImagingStudy").id
    assert id_ in api.ids(f"/ImagingStudy?{hit}")
    assert id_ not in api.ids(f"/ImagingStudy?{miss}")


def test_references_are_found_by_type_and_id_or_id_alone(api: Api) -> None:
    patient, study = only(api, "Patient").id, only(api, "ImagingStudy").id
    for query in (f"patient={patient}", f"patient=Patient/{patient}", f"subject:Patient={patient}", f"_id={study}"):
        assert api.ids(f"/ImagingStudy?{query}") == [study]


def test_values_with_special_characters_are_one_value(api: Api) -> None:
    id_ = only(api, "Patient", STUDY + ".2").id
    assert api.ids("/Patient?identifier=" + quote("P\\,2\\|x")) == [id_]
    assert api.ids("/Patient?identifier=P,2") == []


def test_patient_and_endpoint_parameters(api: Api) -> None:
    patient = only(api, "Patient").id
    endpoint = only(api, "Endpoint").id
    for query in ("family=TES", "given:exact=Eva", "name:contains=es", "gender=female", "birthdate=1970-01-01"):
        assert patient in api.ids(f"/Patient?{query}")
    assert patient not in api.ids("/Patient?given:exact=eva")
    for query in ("connection-type=dicom-wado-rs", "name=a", "status=active", "payload-type=113014"):
        assert api.ids(f"/Endpoint?{query}") == [endpoint]


def test_includes_bring_each_referenced_resource_once(api: Api) -> None:
    bundle = api.get("/ImagingStudy?_include=ImagingStudy:patient&_include=ImagingStudy:endpoint")
    modes = [(e["resource"]["resourceType"], e["search"]["mode"]) for e in bundle["entry"]]
    assert modes.count(("ImagingStudy", "match")) == 2
    assert modes.count(("Patient", "include")) == 2
    assert modes.count(("Endpoint", "include")) == 1
    back = api.get("/Patient?identifier=P1&_revinclude=ImagingStudy:patient")
    assert [e["search"]["mode"] for e in back["entry"]] == ["match", "include"]


def test_pages_are_whole_and_stay_so_while_others_arrive(tmp_path: Path) -> None:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    for n in range(25):
        store(state, f"{STUDY}.{n}", 1000.0 + n // 3)
    api = Api(state)
    for sort in ("", "&_sort=-started", "&_sort=_id", "&_sort=-_lastUpdated"):
        seen: list[str] = []
        path = f"/ImagingStudy?_count=7{sort}&status=available"
        while path:
            bundle = api.get(path)
            seen += [e["resource"]["id"] for e in bundle["entry"]]
            links = {link["relation"]: link["url"] for link in bundle["link"]}
            assert links["self"].startswith(BASE)
            path = links.get("next", "")
        assert len(seen) == len(set(seen)) == 25
    first = api.get("/ImagingStudy?_count=7")
    store(state, f"{STUDY}.0", 5000.0, StudyDescription="changed")
    store(state, f"{STUDY}.99", 6000.0)
    rest = api.get(next(link["url"] for link in first["link"] if link["relation"] == "next") + "&_count=50")
    ids = {e["resource"]["id"] for e in (*first["entry"], *rest["entry"])}
    assert len(ids) == 26
    state.close()


def test_counting_alone_brings_no_entries(api: Api) -> None:
    for query in ("_summary=count", "_count=0"):
        bundle = api.get(f"/ImagingStudy?{query}")
        assert bundle["total"] == 2
        assert "entry" not in bundle


def test_elements_are_cut_and_the_resource_says_so(api: Api) -> None:
    (entry, _) = api.get("/ImagingStudy?_elements=started")["entry"]
    assert set(entry["resource"]) == {"resourceType", "id", "meta", "started", "status", "subject"}
    assert entry["resource"]["meta"]["tag"][0]["code"] == "SUBSETTED"


def test_a_search_can_be_posted(api: Api) -> None:
    response = api.client.post("/ImagingStudy/_search", data={"modality": "CT"})
    assert api.checked(response, 200)["total"] == 1
    text = api.client.post("/ImagingStudy/_search", content=b"modality=CT", headers={"Content-Type": "text/plain"})
    api.checked(text, 415)


def test_an_unknown_parameter_is_told_or_refused(api: Api) -> None:
    bundle = api.get("/ImagingStudy?colour=blue")
    assert bundle["entry"][-1]["search"]["mode"] == "outcome"
    assert "colour" not in bundle["link"][0]["url"]
    api.get("/ImagingStudy?colour=blue", 400, Prefer="handling=strict")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ImagingStudy/none", 404),
        ("/Medication/1", 404),
        ("/ImagingStudy/" + "x" * 65, 400),
        ("/ImagingStudy/a%20b", 400),
        ("/ImagingStudy?started=yesterday", 400),
        ("/ImagingStudy?_count=-1", 400),
        ("/ImagingStudy?_sort=colour", 400),
        ("/ImagingStudy?_cursor=abc", 400),
        ("/ImagingStudy?_cursor=WyJfaWQiLDEsMl0=", 400),
        ("/ImagingStudy?modality:exact=CT", 400),
        ("/ImagingStudy?identifier=a%7Cb%7Cc", 400),
        ("/ImagingStudy?_include=Patient:link", 400),
        ("/ImagingStudy?modality=%00", 400),
        ("/ImagingStudy?modality=" + "x" * 5000, 400),
        ("/ImagingStudy?" + "&".join(["modality=CT"] * 150), 400),
        ("/ImagingStudy?" + "&".join(["modality=CT"] * 5000), 400),
        ("/ImagingStudy?modality=" + ",".join(["CT"] * 150), 400),
        ("/no/such/route/here", 404),
        ("/ImagingStudy?modality=CT'%20OR%20'1'='1", 200),
    ],
)
def test_every_error_is_an_operation_outcome(api: Api, path: str, status: int) -> None:
    api.get(path, status)


def test_writes_and_other_formats_are_refused(api: Api) -> None:
    api.checked(api.client.put("/ImagingStudy/1", json={}), 405)
    api.checked(api.client.delete("/ImagingStudy/1"), 405)
    api.get("/ImagingStudy", 406, Accept="application/fhir+xml")
    api.get("/ImagingStudy?_format=xml", 400)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["ImagingStudy", "Patient", "Endpoint"]),
    st.lists(
        st.tuples(
            st.one_of(
                st.text(max_size=12),
                st.sampled_from(
                    ["identifier", "started", "_count", "_sort", "_cursor", "patient.name", "modality:not"]
                ),
            ),
            st.text(max_size=20),
        ),
        max_size=6,
    ),
)
def test_no_query_string_breaks_the_server(api: Api, kind: str, pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote(n.encode('utf-8', 'replace'))}={quote(v.encode('utf-8', 'replace'))}" for n, v in pairs)
    response = api.client.get(f"/{kind}?{query}")
    assert response.status_code in (200, 400)
    api.checked(response, response.status_code)
