from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread

from bridge.config import parse
from bridge.connections import FetchArchive
from bridge.errors import ConfigError
from bridge.web.answers import origin
from bridge.web.auth import sign_in
from cohort.catalogue import question
from cohort.fetch import run as fetch_run
from cohort.fetch.folder import ImageFolder
from cohort.fetch.plan import Series, wanted
from cohort.fetch.run import ATTEMPTS, GIVEN_UP_SERIES, NOT_SENT, UNLISTED, Fetch, Report
from cohort.fetch.sign_in import accesses
from cohort.fetch.wado import ACCEPT_PLAIN, Access, WadoImages
from cohort.sandbox import run
from cohort.selection import Selection
from tests.builders import a_dataset, as_file
from tests.hospital_lake import TODAY, HospitalLake
from tests.wado_fake import WadoFake, multipart

BASE = "http://127.0.0.1:8042/dicom-web"


class Told:
    """Progress that counts."""

    def __init__(self) -> None:
        self.bytes, self.instances, self.problems = 0, 0, Counter[str]()

    def received(self, size: int) -> None:
        self.bytes += size

    def kept(self) -> None:
        self.instances += 1

    def refused(self, problem: str) -> None:
        self.problems[problem] += 1


class Rig:
    """An archive of the hospital's files and a folder to fetch into; waiting takes no time and is noted."""

    def __init__(self, hospital: HospitalLake, folder: Path, series: int = 4) -> None:
        self.wanted = wanted(Selection(hospital.generation, question("osteosarcoma-ct"), {}, TODAY, run))[:series]
        uids = {one.study_instance_uid for one in self.wanted}
        files = [
            f
            for f in hospital.dicom.rglob("*.dcm")
            if dcmread(f, specific_tags=["StudyInstanceUID"]).StudyInstanceUID in uids
        ]
        self.archive = WadoFake(files)
        self.folder, self.told, self.waits = ImageFolder(folder / "images"), Told(), list[float]()
        self.stop = threading.Event()
        self.auth: httpx.Auth | None = None

    def fetch(self, wanted: Sequence[Series] | None = None, parallel: int = 1) -> Report:
        access = {origin(BASE): Access(self.auth, transport=self.archive)}
        images = WadoImages(access, self.stop)
        with self.folder.exclusive():
            report = Fetch(images, self.folder, self.told, self.stop, self.waits.append).run(
                wanted or self.wanted, parallel
            )
            self.folder.write_index(self.wanted)
        images.close()
        return report

    def lines(self) -> list[dict[str, str]]:
        with (self.folder.root / "files.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    @property
    def instances(self) -> int:
        return sum(len(one.instances) for one in self.wanted)


@pytest.fixture
def rig(hospital: HospitalLake, tmp_path: Path) -> Rig:
    return Rig(hospital, tmp_path)


def whole(rig: Rig, report: Report) -> None:
    """Everything is here, byte for byte, and listed."""
    assert report.missing == [] and report.held == report.wanted == rig.instances
    for line in rig.lines():
        uids = line["study_instance_uid"], line["series_instance_uid"], line["sop_instance_uid"]
        assert (rig.folder.root / line["path"]).read_bytes() == rig.archive.held[uids]
    assert len(rig.lines()) == rig.instances
    assert list(rig.folder.root.rglob("*.part")) == []


def test_everything_comes_byte_for_byte_with_one_request_for_each_series(rig: Rig) -> None:
    whole(rig, rig.fetch(parallel=3))
    assert len(rig.archive.asked) == len(rig.wanted)
    assert rig.told.instances == rig.instances
    assert rig.told.bytes == sum(map(len, rig.archive.held.values()))


def test_files_are_named_by_digests_alone(rig: Rig) -> None:
    rig.fetch()
    digests = {hashlib.sha256(uid.encode()).hexdigest()[:32] for uids in rig.archive.held for uid in uids}
    for path in rig.folder.root.rglob("*.dcm"):
        assert {*path.relative_to(rig.folder.root).parts[:2], path.stem} <= digests


def test_what_is_here_is_not_asked_for_again(rig: Rig) -> None:
    rig.fetch()
    before = len(rig.archive.asked)
    whole(rig, rig.fetch())
    assert len(rig.archive.asked) == before


def test_what_is_missing_of_a_series_is_asked_for_alone(rig: Rig) -> None:
    rig.fetch()
    (rig.folder.root / rig.lines()[0]["path"]).unlink()
    rig.archive.asked.clear()
    whole(rig, rig.fetch())
    assert [path.rpartition("/instances/")[2] for path in rig.archive.asked] == [rig.lines()[0]["sop_instance_uid"]]


def test_an_answer_that_breaks_off_is_asked_for_again_and_no_part_of_a_file_stays(rig: Rig) -> None:
    broken: set[str] = set()

    def breaks_once(request: httpx.Request, files: Sequence[bytes]) -> httpx.Response | None:
        if request.url.path in broken:
            return None
        broken.add(request.url.path)
        return multipart(files, cut=sum(map(len, files)) // 2)

    rig.archive.instead = breaks_once
    whole(rig, rig.fetch())
    assert len(rig.waits) >= len(rig.wanted)


def test_a_message_that_ends_without_its_last_boundary_is_not_whole(rig: Rig) -> None:
    seen: set[str] = set()

    def cut_short(request: httpx.Request, files: Sequence[bytes]) -> httpx.Response | None:
        if request.url.path in seen:
            return None
        seen.add(request.url.path)
        answer = multipart(files)
        body = answer.read()[:-300]
        return httpx.Response(200, headers={"Content-Type": answer.headers["content-type"]}, content=body)

    rig.archive.instead = cut_short
    whole(rig, rig.fetch())


def test_it_waits_as_long_as_the_archive_asks(rig: Rig) -> None:
    refused = iter([True])

    def busy(_request: httpx.Request, _files: Sequence[bytes]) -> httpx.Response | None:
        return httpx.Response(503, headers={"Retry-After": "17"}) if next(refused, False) else None

    rig.archive.instead = busy
    whole(rig, rig.fetch())
    assert rig.waits == [17.0]


def test_pauses_grow_and_are_bounded() -> None:
    pauses = [fetch_run._pause(attempt, None) for attempt in range(1, 12)]
    assert all(0.5 * 2**n <= p <= 2**n for n, p in enumerate(pauses[:6]))
    assert max(pauses) <= fetch_run.LONGEST_WAIT_S


def test_an_archive_that_is_not_there_is_given_up_soon(rig: Rig) -> None:
    def unreachable(_request: httpx.Request, _files: Sequence[bytes]) -> httpx.Response:
        raise httpx.ConnectError("refused")

    rig.archive.instead = unreachable
    report = rig.fetch()
    assert report.held == 0
    assert len(rig.archive.asked) == ATTEMPTS * GIVEN_UP_SERIES
    assert all("cannot be reached" in one.reason for one in report.missing)
    assert report.missing[-1].reason.startswith("not tried")


@pytest.mark.parametrize(("status", "said"), [(401, "not accepted"), (403, "may not do this")])
def test_a_user_who_is_not_known_is_told_and_not_locked_out(rig: Rig, status: int, said: str) -> None:
    rig.archive.instead = lambda _request, _files: httpx.Response(status)
    report = rig.fetch()
    assert len(rig.archive.asked) == GIVEN_UP_SERIES
    assert said in report.missing[0].reason and rig.waits == []


def test_what_the_archive_does_not_have_is_told_and_the_rest_comes(rig: Rig) -> None:
    gone = next(iter(sorted(rig.archive.held)))
    content = rig.archive.held.pop(gone)
    report = rig.fetch()
    (missing,) = report.missing
    assert missing.instances == (gone[2],)
    assert missing.reason == NOT_SENT
    assert report.held == rig.instances - 1
    rig.archive.held[gone] = content
    whole(rig, rig.fetch())


def test_what_was_not_asked_for_is_left_out(rig: Rig) -> None:
    study, series = rig.wanted[0].study_instance_uid, rig.wanted[0].series_instance_uid
    strangers = [
        as_file(a_dataset("1.2.3")),
        as_file(a_dataset(study, StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID="1.2.3.4")),
        b"<html>no DICOM at all</html>",
    ]
    rig.archive.instead = lambda _request, files: multipart([*strangers, *files])
    report = rig.fetch([rig.wanted[0]])
    assert report.missing == []
    assert sum(report.refused.values()) == 3 and len(report.refused) == 3
    assert len(list(rig.folder.root.rglob("*.dcm"))) == len(rig.wanted[0].instances)


def test_an_instance_that_comes_unwrapped_is_taken(rig: Rig) -> None:
    rig.fetch()
    (rig.folder.root / rig.lines()[0]["path"]).unlink()
    headers = {"Content-Type": "application/dicom"}
    rig.archive.instead = lambda _request, files: httpx.Response(200, headers=headers, content=files[0])
    whole(rig, rig.fetch())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: httpx.Response(200, html="<html>log in</html>"), "something else than DICOM"),
        (lambda: httpx.Response(302, headers={"Location": "http://evil.example/"}), "redirects are not followed"),
        (
            lambda: httpx.Response(200, headers={"Content-Encoding": "br", "Content-Type": "application/dicom"}),
            "packed",
        ),
        (lambda: httpx.Response(200, headers={"Content-Type": "multipart/related"}), "no boundary"),
    ],
)
def test_an_answer_that_is_no_dicom_is_told(rig: Rig, answer: Callable[[], httpx.Response], said: str) -> None:
    rig.archive.instead = lambda _request, _files: answer()
    report = rig.fetch([rig.wanted[0]])
    assert said in report.missing[0].reason
    assert list(rig.folder.root.rglob("*.dcm")) == []


def test_a_gzipped_answer_is_read(rig: Rig) -> None:
    def zipped(_request: httpx.Request, files: Sequence[bytes]) -> httpx.Response:
        answer = multipart(files)
        headers = {"Content-Type": answer.headers["content-type"], "Content-Encoding": "gzip"}
        return httpx.Response(200, headers=headers, content=gzip.compress(answer.read()))

    rig.archive.instead = zipped
    whole(rig, rig.fetch())


def test_a_server_that_knows_no_transfer_syntax_star_is_asked_without(rig: Rig) -> None:
    def old(request: httpx.Request, _files: Sequence[bytes]) -> httpx.Response | None:
        return httpx.Response(406) if "transfer-syntax" in request.headers["accept"] else None

    rig.archive.instead = old
    whole(rig, rig.fetch())
    assert [r.headers["accept"] for r in rig.archive.requests[1:]] == [ACCEPT_PLAIN] * len(rig.wanted)


def test_an_object_larger_than_is_taken_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cohort.fetch.wado.MAXIMUM_OBJECT_BYTES", 500)
    report = rig.fetch([rig.wanted[0]])
    assert "larger than" in report.missing[0].reason
    assert list(rig.folder.root.rglob("*.part")) == []


def test_a_second_address_is_asked_for_what_the_first_does_not_have(rig: Rig) -> None:
    one = rig.wanted[0]
    other = Series(one.study_instance_uid, one.series_instance_uid, one.instances, (f"{BASE}/a", f"{BASE}/b"))
    rig.archive.instead = lambda request, _files: httpx.Response(404) if "/a/" in request.url.path else None
    assert rig.fetch([other]).missing == []


def test_what_has_no_address_or_no_instances_is_told(rig: Rig) -> None:
    one = rig.wanted[0]
    report = rig.fetch(
        [
            Series(one.study_instance_uid, one.series_instance_uid, one.instances, ()),
            Series("1.2", "1.2.3", {}, (BASE,)),
            Series("1.4", "1.4.1", {"1.4.1.1": ""}, ("ftp://x",)),
            Series("1.5", "../../../patients?", {"1.5.1.1": ""}, (BASE,)),
        ]
    )
    assert ["no active Endpoint" in report.missing[0].reason, report.missing[1].reason] == [True, UNLISTED]
    assert "not http" in report.missing[2].reason
    assert "UIDs" in report.missing[3].reason
    assert rig.archive.asked == []


def test_ended_in_the_middle_it_goes_on_from_there(rig: Rig) -> None:
    class Ending(Told):
        def kept(self) -> None:
            super().kept()
            if self.instances == 5:
                rig.stop.set()

    rig.told = Ending()
    report = rig.fetch()
    assert report.stopped and report.held == 5
    assert all(one.reason.startswith("it was ended") for one in report.missing)
    assert list(rig.folder.root.rglob("*.part")) == []
    rig.stop.clear()
    rig.told = Told()
    whole(rig, rig.fetch())
    assert rig.told.instances == rig.instances - 5


def test_a_full_disk_ends_it_and_leaves_no_part(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cohort.fetch.wado.os.write", full)
    with pytest.raises(OSError, match="No space left"):
        rig.fetch(parallel=3)
    assert rig.stop.is_set()
    assert list(rig.folder.root.rglob("*.part")) == []


def test_two_fetches_do_not_share_a_folder(rig: Rig) -> None:
    with rig.folder.exclusive(), pytest.raises(ConfigError, match="another `cohort fetch`"), rig.folder.exclusive():
        pass


def test_what_a_killed_process_left_is_removed(rig: Rig) -> None:
    rig.folder.part().write_bytes(b"half an object")
    whole(rig, rig.fetch())


def test_credentials_go_to_their_origin_alone(rig: Rig) -> None:
    rig.auth = sign_in("http://127.0.0.1:8042/elsewhere", username="u", password="p")
    rig.fetch([rig.wanted[0]])
    rig.auth = sign_in("http://127.0.0.1:9999/dicom-web", username="u", password="p")
    rig.fetch([rig.wanted[1]])
    assert ["authorization" in r.headers for r in rig.archive.requests] == [True, False]


def archives(*entries: Mapping[str, Any]) -> tuple[FetchArchive, ...]:
    return parse({"fetch": list(entries)}).fetch


def test_settings_are_kept_by_origin() -> None:
    oauth = {"token_url": "https://login.example/t", "client_id": "c", "client_secret": "s"}
    made = accesses(
        archives(
            {"url": "https://one.example/dicom-web", "bearer_token": "t", "timeout_s": 5},
            {"url": "https://two.example:8443/", "oauth": oauth},
            {"url": "http://127.0.0.1:8042"},
        )
    )
    assert set(made) == {("https", "one.example", 443), ("https", "two.example", 8443), ("http", "127.0.0.1", 8042)}
    assert made["https", "one.example", 443].timeout_s == 5
    assert made["http", "127.0.0.1", 8042].auth is None
    with pytest.raises(ConfigError, match="named twice"):
        accesses(archives({"url": "https://one.example/a"}, {"url": "https://ONE.example:443/b"}))
