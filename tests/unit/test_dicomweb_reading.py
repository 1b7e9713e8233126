"""Reading and counting one study: whole, in parts where the whole is refused, and gone only when it is proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from bridge.errors import SourceUnavailable
from bridge.sources import dicomweb, wado_metadata
from bridge.sources.dicomweb import DicomWeb
from tests.dicom_files import study_bytes
from tests.dicomweb_fake import TODAY, FakeDicomWeb, Quirks, connect
from tests.feed import follow

STUDY, OTHER = "1.2.3.1", "1.2.3.2"
PATIENT = "Müller^Geheim"


@pytest.fixture
def fake() -> FakeDicomWeb:
    return FakeDicomWeb()


@pytest.fixture
def source(fake: FakeDicomWeb) -> Iterator[DicomWeb]:
    source = connect(fake)
    yield source
    source.close()


def store(fake: FakeDicomWeb, study: str = STUDY, series: int = 2, instances: int = 3) -> None:
    for content in study_bytes(
        study, series=series, instances=instances, SpecificCharacterSet="ISO_IR 192", PatientName=PATIENT
    ):
        fake.store(content)


def refused(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("http://u:p@x") from ConnectionRefusedError(111, "Connection refused")


def times_out(_request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("http://u:p@x")


def cut(_request: httpx.Request) -> httpx.Response:
    raise httpx.RemoteProtocolError("http://u:p@x")


def answers(code: int, content: bytes = b"", headers: dict[str, str] | None = None) -> Callable[..., httpx.Response]:
    return lambda _request: httpx.Response(code, stream=httpx.ByteStream(content), headers=headers)


FAULTS = [
    (refused, "connection refused"),
    (times_out, "no answer within 60 s"),
    (cut, "connection was cut"),
    (answers(401), "HTTP 401: username or password not accepted"),
    (answers(403), "HTTP 403"),
    (answers(302, headers={"Location": "http://elsewhere.example/"}), "HTTP 302: redirects are not followed"),
    (answers(429), "HTTP 429: too many requests"),
    (answers(500), "HTTP 500"),
    (answers(503), "HTTP 503"),
    (answers(200, b"<html>Sign in</html>"), "JSON list"),
    (answers(200, b"--x", {"Content-Type": 'multipart/related; type="application/dicom+xml"'}), "XML instead of JSON"),
    (answers(200, b'[{"0020000D"'), "ends before the array does"),
    (answers(200, b'{"0020000D": {}}'), "JSON list"),
    (answers(200, b""), "JSON list"),
    (answers(200, b"\x1f\x8b garbage", {"Content-Encoding": "gzip"}), "compression is damaged"),
    (answers(200, b"[]", {"Content-Encoding": "gzip, gzip"}), "packed in another way"),
]
STEPS: dict[str, Callable[[DicomWeb], object]] = {
    "changes": lambda source: source.changes(None),
    "read": lambda source: source.read(STUDY),
    "inventory": lambda source: list(source.inventory()),
    "count": lambda source: source.count([STUDY]),
}


@pytest.mark.parametrize(("fault", "message"), FAULTS)
@pytest.mark.parametrize("step", STEPS)
def test_every_failure_is_source_unavailable_and_says_what_to_do(
    fake: FakeDicomWeb, source: DicomWeb, step: str, fault: Callable[..., httpx.Response], message: str
) -> None:
    store(fake)
    fake.faults[""] = fault
    with pytest.raises(SourceUnavailable, match=message) as caught:
        STEPS[step](source)
    assert str(caught.value).startswith("source pacs: ")
    assert "u:p" not in str(caught.value)


def test_the_wrong_password_is_told(fake: FakeDicomWeb) -> None:
    source = connect(fake, password="wrong")
    with pytest.raises(SourceUnavailable, match="HTTP 401"):
        source.read(STUDY)
    source.close()


def test_a_study_is_read_in_one_request(fake: FakeDicomWeb, source: DicomWeb) -> None:
    store(fake)
    found = source.read(STUDY)
    assert (len(found.instances), found.held, found.rejected) == (6, 6, ())
    assert fake.requests == [f"/studies/{STUDY}/metadata"]
    assert found.instances[0].name("PatientName").alphabetic == PATIENT


@pytest.mark.parametrize("code", [206, 400, 406, 413, 500, 501, 502, 504])
@pytest.mark.parametrize("levels", [("series", "instance"), ("instance",)])
def test_a_study_refused_as_a_whole_is_read_in_parts(
    fake: FakeDicomWeb, source: DicomWeb, code: int, levels: tuple[str, ...]
) -> None:
    store(fake)
    store(fake, OTHER)
    fake.quirks.metadata_levels, fake.quirks.metadata_refusal = levels, code
    found = source.read(STUDY)
    assert {h.text("SOPInstanceUID") for h in found.instances} == {
        f"{STUDY}.{s}.{i}" for s in (1, 2) for i in (1, 2, 3)
    }
    assert (found.held, found.rejected) == (6, ())


def test_metadata_too_large_to_read_at_once_is_read_in_parts(
    fake: FakeDicomWeb, source: DicomWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(fake, instances=20)
    size = len(fake.handle_request(_request(source, f"/studies/{STUDY}/metadata")).content)
    monkeypatch.setattr("bridge.sources.web_client.ARRAY_BYTES", size - 1)
    assert source.read(STUDY).held == 40


def _request(source: DicomWeb, path: str) -> httpx.Request:
    headers = {"Authorization": "Basic cmVhZGVyOmNvcnJlY3QgaG9yc2U=", "Accept": "application/dicom+json"}
    return httpx.Request("GET", f"https://dicomweb.example/rs{path}", headers=headers)


@pytest.mark.parametrize("code", [401, 403, 429, 503])
def test_a_refusal_that_parts_would_meet_as_well_is_not_tried_again(
    fake: FakeDicomWeb, source: DicomWeb, code: int
) -> None:
    store(fake)
    fake.faults[f"/studies/{STUDY}/metadata"] = answers(code)
    with pytest.raises(SourceUnavailable, match=f"HTTP {code}"):
        source.read(STUDY)
    assert len(fake.requests) == 1


def test_a_broken_instance_is_rejected_and_the_others_stand(fake: FakeDicomWeb, source: DicomWeb) -> None:
    store(fake)
    broken = f"{STUDY}.2.3"
    fake.faults[f"/studies/{STUDY}/metadata"] = answers(500)
    fake.faults[f"/studies/{STUDY}/series/{STUDY}.2/metadata"] = answers(500)
    fake.faults[f"/studies/{STUDY}/series/{STUDY}.2/instances/{broken}"] = answers(500)
    found = source.read(STUDY)
    assert len(found.instances) == found.held == 5
    (rejection,) = found.rejected
    assert rejection.key == f"pacs/{STUDY}/{broken}"
    assert rejection.error == "the archive gives no metadata of this instance: HTTP 500"
    assert source.count([STUDY]) != {STUDY: found.held}, "comparing counts must have it read again"


def test_a_series_and_an_instance_without_a_uid_are_rejected_and_the_others_stand(
    fake: FakeDicomWeb, source: DicomWeb
) -> None:
    store(fake)
    fake.quirks.metadata_levels = ("instance",)
    fake.held[STUDY]["../.."] = {f"{STUDY}.9": fake.held[STUDY][f"{STUDY}.2"][f"{STUDY}.2.3"]}
    fake.held[STUDY][f"{STUDY}.2"]["no uid"] = {"00080018": {"vr": "UI"}}
    found = source.read(STUDY)
    assert len(found.instances) == found.held == 6
    assert sorted((r.key, r.error) for r in found.rejected) == [
        (f"pacs/{STUDY}/instances", "SOPInstanceUID is missing or not a UID in the archive's list"),
        (f"pacs/{STUDY}/series", "SeriesInstanceUID is missing or not a UID in the archive's list"),
    ]


def test_a_gateway_that_fails_at_an_instance_rejects_nothing(fake: FakeDicomWeb, source: DicomWeb) -> None:
    store(fake)
    fake.quirks.metadata_levels = ("instance",)
    fake.faults[f"/studies/{STUDY}/series/{STUDY}.2/instances/{STUDY}.2.3"] = answers(502)
    with pytest.raises(SourceUnavailable, match="HTTP 502"):
        source.read(STUDY)


def test_a_series_deleted_while_its_study_is_read_is_just_not_there(fake: FakeDicomWeb, source: DicomWeb) -> None:
    store(fake)
    fake.quirks.metadata_levels = ("series",)
    searched: list[None] = []

    def meanwhile() -> None:
        searched.append(None)
        if len(searched) == 2:
            fake.delete(STUDY, f"{STUDY}.2")

    fake.between = meanwhile
    found = source.read(STUDY)
    assert (found.held, found.rejected) == (3, ())


def test_more_single_instances_than_are_read_one_by_one_are_told(
    fake: FakeDicomWeb, source: DicomWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wado_metadata, "MOST_SINGLE", 2)
    store(fake)
    fake.quirks.metadata_levels = ("instance",)
    with pytest.raises(SourceUnavailable, match="more instances than are read one by one"):
        source.read(STUDY)


@pytest.mark.parametrize("code", [404, 410, 204])
def test_a_study_is_gone_only_if_the_search_says_so_too(fake: FakeDicomWeb, source: DicomWeb, code: int) -> None:
    store(fake)
    store(fake, OTHER)
    fake.faults[f"/studies/{STUDY}/metadata"] = answers(code)
    assert source.read(STUDY).held == 6
    fake.delete(STUDY)
    assert source.read(STUDY).held == 0


@pytest.mark.parametrize("quirks", [Quirks(), Quirks(ignores_study_uid=True), Quirks(none_is=404)], ids=repr)
def test_a_study_whose_metadata_nobody_may_see_is_not_withdrawn(quirks: Quirks) -> None:
    fake = FakeDicomWeb(quirks)
    source = connect(fake)
    store(fake)
    fake.quirks.metadata_levels, fake.quirks.metadata_refusal = (), 404
    with pytest.raises(SourceUnavailable, match="no metadata of a study that the archive lists"):
        source.read(STUDY)
    source.close()


def test_a_study_is_not_gone_while_only_its_parts_cannot_be_listed(fake: FakeDicomWeb, source: DicomWeb) -> None:
    store(fake)
    fake.faults[f"/studies/{STUDY}/"] = answers(404)
    with pytest.raises(SourceUnavailable, match="no metadata of a study that the archive lists"):
        source.read(STUDY)


def test_everything_answering_404_withdraws_nothing(fake: FakeDicomWeb, source: DicomWeb) -> None:
    fake.faults[""] = answers(404)
    for step in STEPS.values():
        with pytest.raises(SourceUnavailable, match="check that url"):
            step(source)


def test_a_refused_study_that_the_search_does_not_list_is_retried_not_withdrawn(
    fake: FakeDicomWeb, source: DicomWeb
) -> None:
    fake.faults[f"/studies/{STUDY}/metadata"] = answers(500)
    with pytest.raises(SourceUnavailable, match="HTTP 500"):
        source.read(STUDY)


def test_metadata_that_is_no_object_or_of_another_study_is_rejected(fake: FakeDicomWeb, source: DicomWeb) -> None:
    content = (
        b'[7, {"0020000D": {"vr": "UI", "Value": ["1.2.3.1"]}, "00280030": {"vr": "DS", "Value": [NaN, null]}},'
        b' {"0020000D": {"vr": "UI", "Value": ["9.9"]}}, {"00080018": {"vr": "UI", "Value": "1.2"}}]'
    )
    fake.faults[f"/studies/{STUDY}/metadata"] = answers(200, content)
    found = source.read(STUDY)
    assert (len(found.instances), found.held) == (2, 4)
    assert [(r.error, r.evidence) for r in found.rejected] == [
        ("an instance's metadata is not an object", {"position": 1}),
        ("StudyInstanceUID is not that of the study asked for", {"position": 3}),
    ]


def test_metadata_of_another_study_alone_is_a_wrong_answer(fake: FakeDicomWeb, source: DicomWeb) -> None:
    content = b'[{"0020000D": {"vr": "UI", "Value": ["9.9"]}}]'
    fake.faults[f"/studies/{STUDY}/metadata"] = answers(200, content)
    with pytest.raises(SourceUnavailable, match="of another study"):
        source.read(STUDY)


COUNTS = [
    Quirks(),
    Quirks(omits_counts=True),
    Quirks(omits_counts=True, omits_series_counts=True),
    Quirks(takes_no_lists=True),
    Quirks(ignores_study_uid=True, cap=1),
    Quirks(ignores_study_uid=True, ignores_offset=True, omits_counts=True, omits_series_counts=True, none_is=404),
    Quirks(cap=2, omits_counts=True),
]


@pytest.mark.parametrize("quirks", COUNTS, ids=repr)
def test_counts_are_true_whatever_the_search_leaves_out(quirks: Quirks) -> None:
    fake = FakeDicomWeb(quirks)
    source = connect(fake)
    for n in range(6):
        store(fake, f"1.2.3.{n}", series=n % 2 + 1, instances=n + 1)
    asked = [f"1.2.3.{n}" for n in range(8)]
    assert source.count(asked) == {uid: fake.count(uid) for uid in asked}
    assert dict(source.inventory()) == fake.truth()
    source.close()


def test_a_series_too_long_to_list_is_counted_by_its_metadata() -> None:
    fake = FakeDicomWeb(Quirks(omits_counts=True, omits_series_counts=True, ignores_offset=True, cap=60))
    source = connect(fake)
    fake.add(STUDY, instances=70)
    assert source.count([STUDY]) == {STUDY: 70}
    source.close()


def test_an_archive_that_takes_no_lists_is_asked_with_lists_once(fake: FakeDicomWeb, source: DicomWeb) -> None:
    fake.quirks.takes_no_lists = True
    uids = [f"1.2.3.{n}" for n in range(90)]
    for uid in uids:
        fake.add(uid)
    source.count(uids)
    assert sum("%2C" in request for request in fake.requests) == 1
    assert len(fake.requests) == 91


def test_a_gone_study_is_asked_for_alone_before_it_counts_as_gone(fake: FakeDicomWeb, source: DicomWeb) -> None:
    store(fake)
    assert source.count([STUDY, OTHER]) == {STUDY: 6, OTHER: 0}
    assert [r.partition("&")[0] for r in fake.requests] == [
        f"/studies?StudyInstanceUID={STUDY}%2C{OTHER}",
        f"/studies?StudyInstanceUID={OTHER}",
        f"/studies/{OTHER}/series?limit=200",
    ]


@pytest.fixture
def countless() -> FakeDicomWeb:
    return FakeDicomWeb(Quirks(omits_counts=True))


def test_where_searches_do_not_count_late_instances_are_found_in_turn(
    countless: FakeDicomWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "COUNTED_AGAIN", 3)
    source = connect(countless)
    uids = [f"1.2.3.{n}" for n in range(10)]
    for uid in uids:
        countless.add(uid)
    named, position, _ = follow(source)
    assert named == set(uids)
    for uid in uids:
        countless.add(uid, first=2)
    turns = []
    for _ in range(5):
        named, position, _ = follow(source, position)
        turns.append(named)
    assert [len(t) for t in turns] == [3, 3, 3, 1, 0]
    assert set().union(*turns) == set(uids)
    source.close()


def test_where_searches_do_not_count_many_new_studies_come_in_several_pages(
    countless: FakeDicomWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "COUNTED_NEW", 4)
    source = connect(countless, lookback_days=0)
    for n in range(10):
        countless.add(f"1.2.3.{n}")
    named, position, pages = follow(source)
    assert [len(p.studies) for p in pages] == [4, 4, 2]
    assert named == set(countless.held)
    assert follow(source, position)[0] == set()
    source.close()


def test_new_studies_that_wait_to_be_counted_are_not_lost_when_the_day_ends(
    countless: FakeDicomWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "COUNTED_NEW", 2)
    days = [0]
    source = connect(countless, clock=lambda: TODAY.timestamp() + 86_400 * days[0])
    _, position, _ = follow(source)
    for n in range(5):
        countless.add(f"1.2.3.{n}", "20240301")
    days[0] = 5
    assert follow(source, position)[0] == set(countless.held)
    source.close()


def test_a_study_that_is_refused_to_be_counted_stops_no_other(countless: FakeDicomWeb) -> None:
    source = connect(countless)
    countless.add(STUDY)
    countless.add(OTHER)
    countless.faults[f"/studies/{STUDY}/"] = answers(500)
    assert source.count([STUDY, OTHER]) == dict(source.inventory()) == {STUDY: 0, OTHER: 1}
    with pytest.raises(SourceUnavailable, match="HTTP 500"):
        source.read(STUDY)
    source.close()


@pytest.mark.parametrize("code", [401, 429, 503])
def test_an_archive_that_refuses_everybody_counts_nothing(countless: FakeDicomWeb, code: int) -> None:
    source = connect(countless)
    countless.add(STUDY)
    countless.faults[f"/studies/{STUDY}/"] = answers(code)
    for step in (lambda: source.count([STUDY]), lambda: list(source.inventory()), lambda: follow(source)):
        with pytest.raises(SourceUnavailable, match=f"HTTP {code}"):
            step()
    source.close()


def test_a_study_that_cannot_be_counted_now_is_named_and_stops_no_other(countless: FakeDicomWeb) -> None:
    source = connect(countless)
    countless.add(STUDY)
    countless.add(OTHER)
    countless.faults[f"/studies/{STUDY}/"] = answers(500)
    named, position, _ = follow(source)
    assert named == {STUDY, OTHER}
    countless.faults.clear()
    assert follow(source, position)[0] == {STUDY}
    source.close()
