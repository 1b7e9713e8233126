from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from bridge.errors import ConfigError, InvalidDicomValue, SourceUnavailable
from bridge.model import WadoEndpoint
from bridge.ports import ChangePage, ImagingSource
from bridge.sources import orthanc as orthanc_module
from bridge.sources.orthanc import Orthanc
from tests.dicom_files import dicom_bytes, study_bytes
from tests.orthanc_fake import PASSWORD, URL, USERNAME, FakeOrthanc

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def fake() -> FakeOrthanc:
    return FakeOrthanc()


@pytest.fixture
def source(fake: FakeOrthanc) -> Iterator[Orthanc]:
    source = connect(fake)
    yield source
    source.close()


def connect(fake: FakeOrthanc, password: str = PASSWORD) -> Orthanc:
    return Orthanc("pacs", URL, username=USERNAME, password=password, transport=fake)


def put(fake: FakeOrthanc, study: str = STUDY, **options: object) -> None:
    for content in study_bytes(study, **options):  # type: ignore[arg-type]
        fake.store(content)


def follow(source: Orthanc, position: str | None = None) -> tuple[set[str], str | None, list[ChangePage]]:
    """Everything up to the end of the log: the studies named, the position reached, the pages."""
    named: set[str] = set()
    pages: list[ChangePage] = []
    for _ in range(100):
        page = source.changes(position)
        position = page.position or position
        named |= page.studies
        pages.append(page)
        if page.caught_up:
            return named, position, pages
    raise AssertionError("the log never ends")


def test_it_is_an_imaging_source_with_its_endpoint() -> None:
    endpoint = WadoEndpoint("pacs", "http://orthanc.example:8042/dicom-web")
    source: ImagingSource = Orthanc("pacs", URL, endpoint=endpoint, poll_s=5, sweep_s=60)
    assert (source.name, source.endpoint, source.poll_s, source.sweep_s) == ("pacs", endpoint, 5, 60)


# The change log


def test_an_empty_log_is_caught_up_and_moves_nothing(source: Orthanc) -> None:
    page = source.changes(None)
    assert (page.studies, page.position, page.caught_up, page.resweep) == (frozenset(), "", True, False)


def test_a_new_study_is_named_once_by_its_uid(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    named, position, _ = follow(source)
    assert named == {STUDY}
    assert follow(source, position)[0] == set()


def test_a_position_works_in_a_new_object(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    put(fake, OTHER)
    restarted = connect(fake)
    assert follow(restarted, position)[0] == {OTHER}
    restarted.close()


def test_late_instances_name_their_study_again(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    put(fake, instances=1, first=3)
    assert follow(source, position)[0] == {STUDY}


def test_a_long_log_is_read_in_pages_none_missing(
    fake: FakeOrthanc, source: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orthanc_module, "PAGE", 7)
    studies = {f"1.2.5.{n}" for n in range(1, 12)}
    for study in studies:
        put(fake, study, series=2)
    named, _, pages = follow(source)
    assert named == studies
    assert len(pages) > 5
    assert not any(p.resweep for p in pages)


def test_reading_stops_and_resumes_between_any_two_pages(fake: FakeOrthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthanc_module, "PAGE", 4)
    for n in range(1, 6):
        put(fake, f"1.2.5.{n}")
    named: set[str] = set()
    position: str | None = None
    while True:
        source = connect(fake)
        page = source.changes(position)
        source.close()
        named |= page.studies
        position = page.position or position
        if page.caught_up:
            break
    assert named == {f"1.2.5.{n}" for n in range(1, 6)}


def test_many_instances_of_one_series_cost_three_requests(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake, instances=300)
    fake.log = [(n, e) for n, e in fake.log if e["ChangeType"] == "NewInstance"]
    assert follow(source)[0] == {STUDY}
    assert sorted(p.split("/")[1] for p in fake.requests) == ["changes", "instances", "series", "studies"]


def test_a_known_series_costs_one_request_for_a_late_instance(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    put(fake, instances=1, first=3)
    fake.requests.clear()
    follow(source, position)
    assert [p.split("/")[1] for p in fake.requests] == ["changes", "instances"]


def test_many_late_instances_of_a_known_series_cost_three_requests(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    put(fake, instances=300, first=3)
    fake.requests.clear()
    assert follow(source, position)[0] == {STUDY}
    assert [p.split("/")[1] for p in fake.requests] == ["changes", "instances", "series"]


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ("StableStudy", "Study"),
        ("StableSeries", "Series"),
        ("CompletedSeries", "Series"),
        ("ModifiedStudy", "Study"),
        ("AnonymizedStudy", "Study"),
        ("UpdatedMetadata", "Study"),
        ("UpdatedAttachment", "Instance"),
        ("ModifiedPatient", "Patient"),
        ("NeverHeardOf", "Series"),
    ],
)
def test_every_kind_of_change_names_the_study(fake: FakeOrthanc, source: Orthanc, change: str, level: str) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.add_change(change, next(r for r in fake.resources.values() if r.level == level))
    assert follow(source, position)[0] == {STUDY}


def test_a_changed_patient_names_all_its_studies(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    put(fake, OTHER)
    _, position, _ = follow(source)
    fake.add_change("UpdatedMetadata", fake.found("Patient", "TEST-1")[0])
    assert follow(source, position)[0] == {STUDY, OTHER}


def test_a_patient_that_is_merely_stable_does_not_name_its_older_studies(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.add_change("StablePatient", fake.found("Patient", "TEST-1")[0])
    named, moved, _ = follow(source, position)
    assert named == set()
    assert moved != position


def test_a_change_without_a_level_is_ignored_and_passed(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.add_change("JobSubmitted", fake.found("Study", STUDY)[0])
    fake.log[-1][1].update({"ResourceType": "Job", "Path": "/jobs/1"})
    named, moved, pages = follow(source, position)
    assert (named, pages[-1].rejected) == (set(), ())
    assert moved != position


def test_the_level_is_taken_from_the_path_when_it_is_not_said(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.add_change("StableStudy", fake.found("Study", STUDY)[0])
    del fake.log[-1][1]["ResourceType"]
    assert follow(source, position)[0] == {STUDY}


def test_what_was_deleted_meanwhile_names_nothing(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    put(fake, OTHER)
    log = list(fake.log)
    fake.delete("Study", OTHER)
    fake.log = log
    named, _, pages = follow(source)
    assert named == {STUDY}
    assert not any(p.rejected for p in pages)


def test_entries_that_vanished_with_their_study_are_not_a_reset(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    put(fake, OTHER)
    _, position, _ = follow(source)
    fake.delete("Study", OTHER)
    page = source.changes(position)
    assert (page.resweep, page.caught_up, page.studies) == (False, True, frozenset())
    put(fake, "1.2.3.3")
    named, _, pages = follow(source, position)
    assert named == {"1.2.3.3"}
    assert not any(p.resweep for p in pages)


def test_a_log_cleared_by_the_operator_is_not_a_reset(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.log = []
    assert not source.changes(position).resweep


@pytest.mark.parametrize("ahead", [0, 5])
def test_a_log_that_promises_more_but_gives_nothing_is_asked_again_later(
    fake: FakeOrthanc, source: Orthanc, ahead: int
) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.edits["changes"] = lambda found: {"Changes": [], "Done": False, "Last": found["Last"] + ahead}
    page = source.changes(position)
    assert (page.caught_up, page.position) == (True, "")


# A database that was replaced


def test_a_log_that_ends_before_the_position_means_compare_everything(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.reset()
    page = source.changes(position)
    assert page.resweep
    assert not page.caught_up
    assert follow(source, page.position)[0] == set()


def test_another_entry_under_the_same_number_means_compare_everything(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.reset()
    put(fake, OTHER)
    put(fake, "1.2.3.3")
    named, _, pages = follow(source, position)
    assert [p.resweep for p in pages].count(True) == 1
    assert pages[0].resweep
    assert named == {OTHER, "1.2.3.3"}


def test_a_database_reset_to_the_same_length_is_seen(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    _, position, _ = follow(source)
    fake.reset()
    put(fake, OTHER)
    _, _, pages = follow(source, position)
    assert pages[0].resweep
    assert not any(p.resweep for p in pages[1:])


@pytest.mark.parametrize("position", ["", "nonsense", "[]", '{"sequence": "x"}', '{"sequence": 5, "mark": 7}'])
def test_a_position_that_is_not_ours_starts_from_the_beginning(
    fake: FakeOrthanc, source: Orthanc, position: str
) -> None:
    put(fake)
    assert follow(source, position)[0] == {STUDY}


# Malformed entries


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "text",
        [],
        {"ChangeType": "NewStudy", "ResourceType": "Study"},
        {"ChangeType": "NewStudy", "ResourceType": "Study", "Seq": 2},
        {"ChangeType": "NewStudy", "ResourceType": "Study", "Seq": 2, "ID": "../../system"},
        {"ChangeType": "NewStudy", "ResourceType": "Study", "Seq": True, "ID": 7},
    ],
)
def test_a_malformed_entry_is_rejected_and_the_page_goes_on(fake: FakeOrthanc, source: Orthanc, entry: object) -> None:
    put(fake, instances=1)
    fake.log[1] = (2, entry)
    put(fake, OTHER)
    named, position, pages = follow(source)
    assert named == {STUDY, OTHER}
    assert sum(len(p.rejected) for p in pages) == 1
    assert "../" not in "".join(fake.requests)
    assert follow(source, position)[2][0].rejected == ()


def test_a_page_of_nothing_but_nonsense_does_not_hold_up_the_log(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.log, fake.last = [(1, None), (2, {"Seq": "x"})], 2
    _, position, pages = follow(source)
    assert len(pages[0].rejected) == 2
    fake.log = []
    put(fake)
    assert follow(source, position)[0] == {STUDY}


@pytest.mark.parametrize("uid", ["", "not a uid", "1" * 65])
def test_a_study_without_a_usable_uid_is_rejected_naming_the_keyword(
    fake: FakeOrthanc, source: Orthanc, uid: str
) -> None:
    put(fake)
    fake.found("Study", STUDY)[0].tags = {"StudyInstanceUID": uid}
    named, _, (page,) = follow(source)
    assert named == set()
    assert [r.error.split()[0] for r in page.rejected] == ["StudyInstanceUID"]
    assert uid == "" or uid not in page.rejected[0].error


@pytest.mark.parametrize(("folder", "key"), [("series", "ParentStudy"), ("instances", "ParentSeries")])
def test_a_resource_without_its_parent_is_rejected(fake: FakeOrthanc, source: Orthanc, folder: str, key: str) -> None:
    put(fake, instances=1)
    fake.log = [(n, e) for n, e in fake.log if e["Path"].startswith(f"/{folder}")]
    fake.edits[folder] = lambda found: {k: v for k, v in found.items() if k != key}
    named, _, (page,) = follow(source)
    assert named == set()
    assert key in page.rejected[0].error


def test_only_an_orthanc_id_goes_into_an_address(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    fake.add_change("UpdatedMetadata", fake.found("Patient", "TEST-1")[0])
    fake.edits["patients"] = lambda found: found | {"Studies": ["../../system", 7, None]}
    assert follow(source)[0] == {STUDY}
    assert "/system" not in fake.requests
    assert not any(".." in path for path in fake.requests)


# Reading a study


def test_a_study_is_read_whole(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake, series=2, instances=3, PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 192")
    found = source.read(STUDY)
    assert (found.held, len(found.instances), found.rejected) == (6, 6, ())
    assert {h.text("SOPInstanceUID") for h in found.instances} == {
        f"{STUDY}.{s}.{i}" for s in (1, 2) for i in (1, 2, 3)
    }
    assert found.instances[0].name("PatientName").alphabetic == "Müller^Jürgen"
    assert fake.requests == ["/tools/lookup", f"/dicom-web/studies/{STUDY}/metadata"]


def test_a_study_that_is_gone_has_nothing(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    fake.delete("Study", STUDY)
    assert (source.read(STUDY).held, source.read(STUDY).instances) == (0, ())


def test_a_study_deleted_while_it_is_read_has_nothing(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)

    def deleted(_request: httpx.Request) -> httpx.Response:
        fake.delete("Study", STUDY)
        return httpx.Response(404)

    fake.faults["/dicom-web"] = deleted
    assert source.read(STUDY).held == 0


@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(200, content=b"[]")])
def test_a_missing_dicomweb_plugin_is_not_a_missing_study(
    fake: FakeOrthanc, source: Orthanc, answer: httpx.Response
) -> None:
    put(fake)
    fake.faults["/dicom-web"] = lambda _: answer
    with pytest.raises(SourceUnavailable, match="is the DICOMweb plugin enabled"):
        source.read(STUDY)


def test_an_instance_that_is_not_an_object_is_rejected_and_counted(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    fake.edits["dicom-web"] = lambda found: [found[0], "damaged", found[1]]
    found = source.read(STUDY)
    assert (found.held, len(found.instances)) == (3, 2)
    assert [(r.key, r.evidence) for r in found.rejected] == [("pacs/metadata/2", {"position": 2})]


@pytest.mark.parametrize("uid", ["", "1.2.3/../../system", "1.2.3?x=y", "1.2.3 4", "٣.٤", "9" * 65])
def test_only_a_uid_goes_into_an_address(fake: FakeOrthanc, source: Orthanc, uid: str) -> None:
    with pytest.raises(InvalidDicomValue):
        source.read(uid)
    assert fake.requests == []


def test_a_study_under_two_patient_ids_is_one_study_with_all_instances(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PatientID="A"))
    fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.2", PatientID="B"))
    found = source.read(STUDY)
    assert follow(source)[0] == {STUDY}
    assert (found.held, found.rejected) == (2, ())
    assert {h.text("SOPInstanceUID") for h in found.instances} == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
    assert {h.text("PatientID") for h in found.instances} == {"A", "B"}
    assert list(source.inventory()) == [(STUDY, 2)]


def test_of_an_instance_under_two_patient_ids_one_is_kept_and_one_rejected(fake: FakeOrthanc, source: Orthanc) -> None:
    for patient in ("A", "B"):
        fake.store(dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", PatientID=patient))
    found = source.read(STUDY)
    assert (found.held, len(found.instances), len(found.rejected)) == (2, 1, 1)
    assert found.rejected[0].error.startswith("SOPInstanceUID")
    assert found == source.read(STUDY)


def test_both_ways_of_reading_give_the_same_headers(fake: FakeOrthanc, source: Orthanc) -> None:
    code = dicom_bytes(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", OperatorsName=["One^Operator", "Two^Operator"])
    fake.store(code)
    by_metadata = source.read(STUDY).instances[0]
    fake.store(dicom_bytes(STUDY, f"{STUDY}.2", f"{STUDY}.2.1", PatientID="OTHER"))
    by_tags = [h for h in source.read(STUDY).instances if h.text("SOPInstanceUID") == f"{STUDY}.1.1"]
    assert by_tags == [by_metadata]


# The inventory


def test_the_inventory_is_every_study_with_its_number_of_instances(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake, series=2, instances=3)
    put(fake, OTHER, instances=1)
    assert list(source.inventory()) == [(STUDY, 6), (OTHER, 1)]


def test_an_empty_archive_has_an_empty_inventory(source: Orthanc) -> None:
    assert list(source.inventory()) == []


@pytest.fixture
def short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthanc_module, "LISTED", {"studies": 5, "series": 4})
    monkeypatch.setattr(orthanc_module, "OVERLAP", 2)


@pytest.mark.usefixtures("short_lists")
@pytest.mark.parametrize("studies", [1, 2, 3, 4, 5, 6, 7, 8, 9, 30])
def test_a_long_inventory_counts_every_study_once(fake: FakeOrthanc, source: Orthanc, studies: int) -> None:
    wanted = {f"1.2.5.{n}": 2 * (n % 3 + 1) for n in range(1, studies + 1)}
    for study, instances in wanted.items():
        put(fake, study, series=2, instances=instances // 2)
    assert dict(source.inventory()) == wanted


@pytest.mark.usefixtures("short_lists")
@pytest.mark.parametrize("gone", [1, 2, 3, 5, 8, 12])
@pytest.mark.parametrize("when", [3, 5, 8, 11, 13, 15])
def test_studies_deleted_while_everything_is_listed_hide_no_other(
    fake: FakeOrthanc, source: Orthanc, gone: int, when: int
) -> None:
    studies = [f"1.2.5.{n}" for n in range(1, 25)]
    for study in studies:
        put(fake, study)
    asked = fake.handle_request

    def deleting(request: httpx.Request) -> httpx.Response:
        if len(fake.requests) == when:
            for study in studies[:gone]:
                fake.delete("Study", study)
        return asked(request)

    fake.handle_request = deleting  # type: ignore[method-assign]
    found = dict(source.inventory())
    assert {s: found.get(s) for s in studies[gone:]} == dict.fromkeys(studies[gone:], 2)


@pytest.mark.usefixtures("short_lists")
def test_a_study_stored_while_everything_is_listed_is_counted(fake: FakeOrthanc, source: Orthanc) -> None:
    for n in range(1, 8):
        put(fake, f"1.2.5.{n}")
    asked = fake.handle_request

    def storing(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/series" and not fake.found("Study", OTHER):
            put(fake, OTHER)
        return asked(request)

    fake.handle_request = storing  # type: ignore[method-assign]
    assert dict(source.inventory())[OTHER] == 2


# What can go wrong on the way


def refused(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("http://u:p@x") from ConnectionRefusedError(111, "Connection refused")


def times_out(_request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("http://u:p@x")


def no_connection(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("http://u:p@x")


def cut(_request: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("http://u:p@x")


def answers(code: int, content: bytes = b"", headers: dict[str, str] | None = None) -> Callable[..., httpx.Response]:
    return lambda _request: httpx.Response(code, content=content, headers=headers)


FAULTS = [
    (refused, "connection refused"),
    (times_out, "no answer within 60 s"),
    (no_connection, "no connection within 60 s"),
    (cut, "connection was cut"),
    (answers(401), "HTTP 401: username or password not accepted"),
    (answers(403), "HTTP 403"),
    (answers(302, headers={"Location": "http://elsewhere.example/"}), "HTTP 302: redirects are not followed"),
    (answers(429), "HTTP 429: too many requests"),
    (answers(500), "HTTP 500"),
    (answers(503), "HTTP 503"),
    (answers(200, b"<html>Sign in</html>"), "HTML|JSON list"),
    (answers(200, b"hello"), "JSON"),
    (answers(200, b""), "JSON"),
    (answers(200, b'"text"'), "did not answer as Orthanc does|JSON list"),
    (answers(200, b"\x1f\x8b garbage", {"Content-Encoding": "gzip"}), "compression is damaged"),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("step", ["changes", "read", "metadata", "inventory"])
def test_every_failure_is_source_unavailable_and_says_what_to_do(
    fake: FakeOrthanc, source: Orthanc, step: str, fault: Callable[..., httpx.Response], message: str
) -> None:
    put(fake)
    fake.faults["/dicom-web" if step == "metadata" else "/"] = fault
    with pytest.raises(SourceUnavailable, match=message) as caught:
        if step == "changes":
            source.changes(None)
        elif step == "inventory":
            list(source.inventory())
        else:
            source.read(STUDY)
    assert str(caught.value).startswith("source pacs: ")
    assert "http://" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [{}, {"Changes": [], "Done": True}, {"Changes": {}, "Last": 1}, {"Changes": [], "Last": "1"}, []],
)
def test_an_answer_without_its_list_is_not_an_orthanc(fake: FakeOrthanc, source: Orthanc, answer: object) -> None:
    fake.edits["changes"] = lambda _found: answer
    with pytest.raises(SourceUnavailable, match="did not answer as Orthanc does"):
        source.changes(None)


def test_no_changes_under_the_url_is_not_an_empty_log(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.faults["/changes"] = answers(404)
    with pytest.raises(SourceUnavailable, match=r"HTTP 404 for /changes"):
        source.changes(None)


@pytest.mark.parametrize("folder", ["studies", "series"])
def test_no_list_under_the_url_is_not_an_empty_archive(fake: FakeOrthanc, source: Orthanc, folder: str) -> None:
    put(fake)
    fake.faults[f"/{folder}"] = answers(404)
    with pytest.raises(SourceUnavailable):
        list(source.inventory())


def test_half_a_metadata_answer_is_not_a_study(fake: FakeOrthanc, source: Orthanc) -> None:
    put(fake)
    fake.faults["/dicom-web"] = answers(200, b'[{"0020000D": {"vr": "UI"}}, {"0020')
    with pytest.raises(SourceUnavailable, match="ends before"):
        source.read(STUDY)


def test_a_wrong_password_is_told_by_the_real_check(fake: FakeOrthanc) -> None:
    source = connect(fake, password="wrong")
    with pytest.raises(SourceUnavailable, match="username or password not accepted"):
        source.changes(None)
    source.close()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "999999"}, 3600.0),
        ({"Retry-After": "Fri, 01 Mar 2024 10:00:30 GMT", "Date": "Fri, 01 Mar 2024 10:00:00 GMT"}, 30.0),
        ({"Retry-After": "Fri, 01 Mar 2024 10:00:30 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wait_that_the_peer_asks_for_is_passed_on(
    fake: FakeOrthanc, source: Orthanc, headers: dict[str, str], seconds: float | None
) -> None:
    fake.faults["/"] = answers(503, headers=headers)
    with pytest.raises(SourceUnavailable) as caught:
        source.changes(None)
    assert caught.value.retry_after_s == seconds


def test_an_answer_too_large_is_refused_before_it_is_read_whole(
    fake: FakeOrthanc, source: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sources.orthanc_client.ANSWER_BYTES", 1 << 20)
    sent: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            yield b" " * 65_536

    fake.faults["/changes"] = lambda _request: httpx.Response(200, content=endless())
    with pytest.raises(SourceUnavailable, match="larger than 1 MiB"):
        source.changes(None)
    assert len(sent) < 100


def test_the_password_goes_to_no_other_address(fake: FakeOrthanc, source: Orthanc) -> None:
    hosts: list[str] = []

    def elsewhere(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://elsewhere.example/changes"})

    fake.faults["/"] = elsewhere
    with pytest.raises(SourceUnavailable):
        source.changes(None)
    assert hosts == ["orthanc.example"]


def test_addresses_are_not_logged(fake: FakeOrthanc, source: Orthanc, caplog: pytest.LogCaptureFixture) -> None:
    put(fake)
    with caplog.at_level("INFO"):
        follow(source)
        source.read(STUDY)
    assert caplog.text == ""


def test_an_url_that_is_no_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="url is not a valid address"):
        Orthanc("pacs", "http://orthanc.example:99999999")
