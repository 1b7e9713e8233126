from __future__ import annotations

from collections.abc import Iterator

import pytest

from bridge.model import WadoEndpoint
from bridge.ports import ImagingSource
from bridge.sources import orthanc as orthanc_module
from bridge.sources.orthanc import Orthanc
from tests.feed import follow
from tests.orthanc_fake import URL, FakeOrthanc, connect

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def fake() -> FakeOrthanc:
    return FakeOrthanc()


@pytest.fixture
def source(fake: FakeOrthanc) -> Iterator[Orthanc]:
    source = connect(fake)
    yield source
    source.close()


def test_it_is_an_imaging_source_with_its_endpoint() -> None:
    endpoint = WadoEndpoint("pacs", "http://orthanc.example:8042/dicom-web")
    source: ImagingSource = Orthanc("pacs", URL, endpoint=endpoint, poll_s=5, sweep_s=60)
    assert (source.name, source.endpoint, source.poll_s, source.sweep_s) == ("pacs", endpoint, 5, 60)


# The change log


def test_an_empty_log_is_caught_up_and_moves_nothing(source: Orthanc) -> None:
    page = source.changes(None)
    assert (page.studies, page.position, page.caught_up, page.resweep) == (frozenset(), "", True, False)


def test_a_new_study_is_named_once_by_its_uid(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    named, position, _ = follow(source)
    assert named == {STUDY}
    assert follow(source, position)[0] == set()


def test_a_position_works_in_a_new_object(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.put(OTHER)
    restarted = connect(fake)
    assert follow(restarted, position)[0] == {OTHER}
    restarted.close()


def test_late_instances_name_their_study_again(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.put(STUDY, instances=1, first=3)
    assert follow(source, position)[0] == {STUDY}


def test_a_long_log_is_read_in_pages_none_missing(
    fake: FakeOrthanc, source: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orthanc_module, "PAGE", 7)
    studies = {f"1.2.5.{n}" for n in range(1, 12)}
    for study in studies:
        fake.put(study, series=2)
    named, _, pages = follow(source)
    assert named == studies
    assert len(pages) > 5
    assert not any(p.resweep for p in pages)


def test_reading_stops_and_resumes_between_any_two_pages(fake: FakeOrthanc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orthanc_module, "PAGE", 4)
    for n in range(1, 6):
        fake.put(f"1.2.5.{n}")
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
    fake.put(STUDY, instances=300)
    fake.log = [(n, e) for n, e in fake.log if e["ChangeType"] == "NewInstance"]
    assert follow(source)[0] == {STUDY}
    assert sorted(p.split("/")[1] for p in fake.requests) == ["changes", "instances", "series", "studies", "system"]


def test_a_known_series_costs_one_request_for_a_late_instance(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.put(STUDY, instances=1, first=3)
    fake.requests.clear()
    follow(source, position)
    assert [p.split("/")[1] for p in fake.requests] == ["changes", "instances"]


def test_many_late_instances_of_a_known_series_cost_three_requests(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.put(STUDY, instances=300, first=3)
    fake.requests.clear()
    assert follow(source, position)[0] == {STUDY}
    assert [p.split("/")[1] for p in fake.requests] == ["changes", "instances", "series"]


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ("ModifiedStudy", "Study"),
        ("AnonymizedStudy", "Study"),
        ("ModifiedSeries", "Series"),
        ("NewChildInstance", "Study"),
        ("UpdatedMetadata", "Study"),
        ("UpdatedAttachment", "Instance"),
        ("ModifiedPatient", "Patient"),
        ("NeverHeardOf", "Series"),
    ],
)
def test_every_kind_of_change_names_the_study(fake: FakeOrthanc, source: Orthanc, change: str, level: str) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.add_change(change, next(r for r in fake.resources.values() if r.level == level))
    assert follow(source, position)[0] == {STUDY}


def test_a_changed_patient_names_all_its_studies(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    fake.put(OTHER)
    _, position, _ = follow(source)
    fake.add_change("UpdatedMetadata", fake.found("Patient", "TEST-1")[0])
    assert follow(source, position)[0] == {STUDY, OTHER}


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ("NewPatient", "Patient"),
        ("StablePatient", "Patient"),
        ("StableSeries", "Series"),
        ("CompletedSeries", "Series"),
    ],
)
def test_what_is_said_besides_other_entries_names_no_study_and_is_passed(
    fake: FakeOrthanc, source: Orthanc, change: str, level: str
) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.add_change(change, next(r for r in fake.resources.values() if r.level == level))
    named, moved, pages = follow(source, position)
    assert named == set()
    assert not any(p.recount for p in pages)
    assert moved != position


def test_a_study_that_is_merely_stable_is_to_be_counted_only(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.add_change("StableStudy", fake.found("Study", STUDY)[0])
    named, _, (page,) = follow(source, position)
    assert (named, page.recount) == (set(), {STUDY})


def test_a_stable_study_with_a_late_instance_is_named(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.add_change("StableStudy", fake.found("Study", STUDY)[0])
    fake.put(STUDY, instances=1, first=3)
    named, _, (page,) = follow(source, position)
    assert (named, page.recount) == ({STUDY}, frozenset())


# A log that can be filtered


@pytest.fixture
def extended() -> FakeOrthanc:
    return FakeOrthanc(extended=True)


def test_only_an_orthanc_that_offers_it_is_asked_to_filter(fake: FakeOrthanc, extended: FakeOrthanc) -> None:
    asked = {}
    for server in (fake, extended):
        source = connect(server)
        server.put(STUDY)
        named, position, _ = follow(source)
        follow(source, position)
        assert named == {STUDY}
        assert server.requests.count("/system") == 1
        asked[server] = [dict(q) for q in server.queries if "since" in q]
        source.close()
    assert not any("type" in q for q in asked[fake])
    assert all("NewInstance" in q["type"].split(";") for q in asked[extended])


def test_a_filtered_log_shows_what_is_a_hint_and_hides_what_is_none(extended: FakeOrthanc) -> None:
    source = connect(extended)
    extended.put(STUDY)
    _, position, _ = follow(source)
    for change, level, uid in (("StableSeries", "Series", f"{STUDY}.1"), ("StableStudy", "Study", STUDY)):
        extended.add_change(change, extended.found(level, uid)[0])
    extended.add_change("StablePatient", extended.found("Patient", "TEST-1")[0])
    named, position, (page,) = follow(source, position)
    assert (named, page.recount) == (set(), {STUDY})
    extended.put(STUDY, instances=1, first=3)
    extended.add_change("ModifiedStudy", extended.found("Study", STUDY)[0])
    assert follow(source, position)[0] == {STUDY}
    source.close()


def test_hidden_entries_at_the_end_of_a_filtered_log_are_no_reset(extended: FakeOrthanc) -> None:
    source = connect(extended)
    extended.put(STUDY)
    _, position, _ = follow(source)
    for _ in range(3):
        extended.add_change("StablePatient", extended.found("Patient", "TEST-1")[0])
        named, position, pages = follow(source, position)
        assert named == set()
        assert not any(p.resweep for p in pages)
    extended.delete("Study", STUDY)
    _, position, pages = follow(source, position)
    assert not any(p.resweep for p in pages)
    extended.put(OTHER)
    assert follow(source, position)[0] == {OTHER}
    source.close()


def test_a_reset_is_seen_in_a_filtered_log(extended: FakeOrthanc) -> None:
    source = connect(extended)
    extended.put(STUDY)
    _, position, _ = follow(source)
    extended.reset()
    extended.put(OTHER)
    named, _, pages = follow(source, position)
    assert pages[0].resweep
    assert named == {OTHER}
    source.close()


def test_a_change_without_a_level_is_ignored_and_passed(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.add_change("JobSubmitted", fake.found("Study", STUDY)[0])
    fake.log[-1][1].update({"ResourceType": "Job", "Path": "/jobs/1"})
    named, moved, pages = follow(source, position)
    assert (named, pages[-1].rejected) == (set(), ())
    assert moved != position


def test_the_level_is_taken_from_the_path_when_it_is_not_said(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.add_change("ModifiedStudy", fake.found("Study", STUDY)[0])
    del fake.log[-1][1]["ResourceType"]
    assert follow(source, position)[0] == {STUDY}


def test_what_was_deleted_meanwhile_names_nothing(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    fake.put(OTHER)
    log = list(fake.log)
    fake.delete("Study", OTHER)
    fake.log = log
    named, _, pages = follow(source)
    assert named == {STUDY}
    assert not any(p.rejected for p in pages)


def test_entries_that_vanished_with_their_study_are_not_a_reset(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    fake.put(OTHER)
    _, position, _ = follow(source)
    fake.delete("Study", OTHER)
    page = source.changes(position)
    assert (page.resweep, page.caught_up, page.studies) == (False, True, frozenset())
    fake.put("1.2.3.3")
    named, _, pages = follow(source, position)
    assert named == {"1.2.3.3"}
    assert not any(p.resweep for p in pages)


def test_a_log_cleared_by_the_operator_is_not_a_reset(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.log = []
    assert not source.changes(position).resweep


@pytest.mark.parametrize("ahead", [0, 5])
def test_a_log_that_promises_more_but_gives_nothing_is_asked_again_later(
    fake: FakeOrthanc, source: Orthanc, ahead: int
) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.edits["changes"] = lambda found: {"Changes": [], "Done": False, "Last": found["Last"] + ahead}
    page = source.changes(position)
    assert (page.caught_up, page.position) == (True, "")


# A database that was replaced


def test_a_log_that_ends_before_the_position_means_compare_everything(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.reset()
    page = source.changes(position)
    assert page.resweep
    assert not page.caught_up
    assert follow(source, page.position)[0] == set()


def test_another_entry_under_the_same_number_means_compare_everything(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.reset()
    fake.put(OTHER)
    fake.put("1.2.3.3")
    named, _, pages = follow(source, position)
    assert [p.resweep for p in pages].count(True) == 1
    assert pages[0].resweep
    assert named == {OTHER, "1.2.3.3"}


def test_a_database_reset_to_the_same_length_is_seen(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    _, position, _ = follow(source)
    fake.reset()
    fake.put(OTHER)
    _, _, pages = follow(source, position)
    assert pages[0].resweep
    assert not any(p.resweep for p in pages[1:])


@pytest.mark.parametrize("position", ["", "nonsense", "[]", '{"sequence": "x"}', '{"sequence": 5, "mark": 7}'])
def test_a_position_that_is_not_ours_starts_from_the_beginning(
    fake: FakeOrthanc, source: Orthanc, position: str
) -> None:
    fake.put(STUDY)
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
    fake.put(STUDY, instances=1)
    fake.log[1] = (2, entry)
    fake.put(OTHER)
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
    fake.put(STUDY)
    assert follow(source, position)[0] == {STUDY}


@pytest.mark.parametrize("uid", ["", "not a uid", "1" * 65])
def test_a_study_without_a_usable_uid_is_rejected_naming_the_keyword(
    fake: FakeOrthanc, source: Orthanc, uid: str
) -> None:
    fake.put(STUDY)
    fake.found("Study", STUDY)[0].tags = {"StudyInstanceUID": uid}
    named, _, (page,) = follow(source)
    assert named == set()
    assert [r.error.split()[0] for r in page.rejected] == ["StudyInstanceUID"]
    assert uid == "" or uid not in page.rejected[0].error


@pytest.mark.parametrize(("folder", "key"), [("series", "ParentStudy"), ("instances", "ParentSeries")])
def test_a_resource_without_its_parent_is_rejected(fake: FakeOrthanc, source: Orthanc, folder: str, key: str) -> None:
    fake.put(STUDY, instances=1)
    fake.log = [(n, e) for n, e in fake.log if e["Path"].startswith(f"/{folder}")]
    fake.edits[folder] = lambda found: {k: v for k, v in found.items() if k != key}
    named, _, (page,) = follow(source)
    assert named == set()
    assert key in page.rejected[0].error


def test_only_an_orthanc_id_goes_into_an_address(fake: FakeOrthanc, source: Orthanc) -> None:
    fake.put(STUDY)
    fake.add_change("UpdatedMetadata", fake.found("Patient", "TEST-1")[0])
    fake.edits["patients"] = lambda found: found | {"Studies": ["../../system", 7, None]}
    assert follow(source)[0] == {STUDY}
    assert "/patients/../../system" not in fake.requests
    assert not any(".." in path for path in fake.requests)
