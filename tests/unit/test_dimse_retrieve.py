"""Objects of an archive by C-GET, and by C-MOVE to our own receiver. Over real TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError, SourceUnavailable
from bridge.ports import StudyHeaders
from bridge.sources.dimse import Dimse
from bridge.sources.dimse_retrieve import Retrieve, RetrievePolicy
from bridge.sources.peer import Peer
from tests.dicom_files import dicom_bytes, study_bytes
from tests.dimse_fake import AE_TITLE, FakeDimse, running_fake
from tests.receiving import receiving

STUDY = "1.2.826.0.1.3680043.10.1561.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


@pytest.fixture
def fake() -> Iterator[FakeDimse]:
    with running_fake() as fake:
        yield fake


@pytest.fixture
def pacs(fake: FakeDimse, tmp_path: Path) -> Iterator[Callable[..., Dimse]]:
    made: list[Dimse] = []

    def make(retrieve: Retrieve = Retrieve.GET, policy: RetrievePolicy = RetrievePolicy.ALL, **settings: Any) -> Dimse:
        peer = Peer("127.0.0.1", fake.port, AE_TITLE, timeout_s=10)
        settings = {"spool": tmp_path / "retrieved", "zone": UTC, "move_timeout_s": 10} | settings
        made.append(Dimse("pacs", peer, lambda: 0.0, retrieve=retrieve, retrieve_policy=policy, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def cached(tmp_path: Path) -> int:
    return len(list((tmp_path / "retrieved" / "studies").rglob("*.dcm")))


def diameters(found: StudyHeaders) -> list[float | None]:
    """An attribute that only files tell: it is not asked for by query."""
    return [h.number("ReconstructionDiameter") for h in found.instances]


def files(instances: int = 3, series: int = 1, first: int = 1) -> list[bytes]:
    return study_bytes(STUDY, series, instances, first, ReconstructionDiameter=350.0, SoftwareVersions="V1")


def test_every_object_is_fetched_once(fake: FakeDimse, pacs: Any, tmp_path: Path) -> None:
    fake.put(*files())
    source = pacs()
    found = source.read(STUDY)
    assert diameters(found) == [350.0] * 3
    assert (found.held, found.rejected, cached(tmp_path)) == (3, (), 3)
    assert source.read(STUDY) == pacs().read(STUDY)
    assert len(fake.retrieved) == 3


def test_only_what_is_new_is_fetched_and_what_is_gone_is_removed(fake: FakeDimse, pacs: Any, tmp_path: Path) -> None:
    fake.put(*files())
    source = pacs()
    source.read(STUDY)
    fake.retrieved.clear()
    fake.put(*files(instances=2, first=4))
    del fake.instances[f"{STUDY}.1.1"]
    assert len(source.read(STUDY).instances) == 4
    assert sorted(fake.retrieved) == [f"{STUDY}.1.4", f"{STUDY}.1.5"]
    assert cached(tmp_path) == 4
    fake.delete_study(STUDY)
    assert source.read(STUDY).held == 0
    assert cached(tmp_path) == 0


def test_one_per_series_speaks_for_its_series_where_it_is_certain(fake: FakeDimse, pacs: Any) -> None:
    fake.put(*files(series=2))
    found = pacs(policy=RetrievePolicy.ONE_PER_SERIES).read(STUDY)
    assert sorted(fake.retrieved) == [f"{STUDY}.1.1", f"{STUDY}.2.1"]
    assert [h.text("SoftwareVersions") for h in found.instances] == ["V1"] * 6
    assert [h.number("ReconstructionDiameter") for h in found.instances].count(350.0) == 2


def test_reports_alone_are_fetched(fake: FakeDimse, pacs: Any) -> None:
    fake.put(*files())
    fake.put(dicom_bytes(STUDY, f"{STUDY}.9", f"{STUDY}.9.1", SOPClassUID=REPORT, Modality="SR"))
    found = pacs(policy=RetrievePolicy.STRUCTURED_REPORTS_ONLY).read(STUDY)
    assert fake.retrieved == [f"{STUDY}.9.1"]
    assert len(found.instances) == 4


def test_nothing_is_fetched_without_a_policy(fake: FakeDimse, pacs: Any) -> None:
    fake.put(*files())
    assert len(pacs(policy=RetrievePolicy.NONE).read(STUDY).instances) == 3
    assert fake.retrieved == []


def test_what_is_not_sent_is_rejected_and_stands_in_by_its_query(fake: FakeDimse, pacs: Any) -> None:
    fake.put(*files())
    fake.withheld = {f"{STUDY}.1.2"}
    found = pacs().read(STUDY)
    assert diameters(found) == [350.0, None, 350.0]
    (rejection,) = found.rejected
    assert rejection.key == f"pacs/{STUDY}.1.2"
    assert rejection.evidence["status"] == "B000"
    assert rejection.evidence["named_as_failed"] == 1
    fake.withheld = set()
    assert pacs().read(STUDY).rejected == ()
    assert fake.retrieved.count(f"{STUDY}.1.1") == 1


def test_the_archive_knows_the_patient_better_than_an_object_fetched_before(fake: FakeDimse, pacs: Any) -> None:
    fake.put(*files(instances=1))
    source = pacs()
    source.read(STUDY)
    fake.instances[f"{STUDY}.1.1"].PatientID = "TEST-2"
    (headers,) = source.read(STUDY).instances
    assert headers.text("PatientID") == "TEST-2"
    assert headers.text("SoftwareVersions") == "V1"


def test_a_damaged_object_in_the_spool_is_fetched_again(fake: FakeDimse, pacs: Any, tmp_path: Path) -> None:
    fake.put(*files(instances=1))
    source = pacs()
    source.read(STUDY)
    (path,) = (tmp_path / "retrieved" / "studies").rglob("*.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    assert diameters(source.read(STUDY)) == [350.0]
    assert len(fake.retrieved) == 2


def test_a_large_series_is_fetched_whole_and_in_one_request(fake: FakeDimse, pacs: Any) -> None:
    fake.put(*files(instances=120))
    assert len(pacs().read(STUDY).instances) == 120
    assert len(fake.retrieved) == 120


def test_moved_objects_come_through_our_receiver(fake: FakeDimse, pacs: Any, tmp_path: Path) -> None:
    fake.put(*files())
    source = pacs(Retrieve.MOVE)
    with receiving(tmp_path / "receiver", source.takes) as receiver:
        fake.destinations["BRIDGE"] = ("127.0.0.1", receiver.port)
        found = source.read(STUDY)
        assert receiver.held() == {}
    assert diameters(found) == [350.0] * 3
    assert (found.rejected, cached(tmp_path)) == ((), 3)


def test_what_nobody_asked_for_is_the_receivers(fake: FakeDimse, pacs: Any, tmp_path: Path) -> None:
    source = pacs(Retrieve.MOVE)
    assert source.takes(AE_TITLE, "BRIDGE", STUDY) is None
    fake.put(*files())
    with receiving(tmp_path / "receiver", source.takes) as receiver:
        fake.destinations["BRIDGE"] = ("127.0.0.1", receiver.port)
        source.read(STUDY)
    assert source.takes("OTHER", "BRIDGE", STUDY) is not None
    assert source.takes(AE_TITLE, "", STUDY) is not None
    assert source.takes("OTHER", "OTHER", STUDY) is None
    assert source.takes(AE_TITLE, "BRIDGE", f"{STUDY}.9") is None


def test_an_unknown_move_destination_says_what_to_enter_where(fake: FakeDimse, pacs: Any) -> None:
    fake.put(*files())
    with pytest.raises(SourceUnavailable, match=r"to AE title BRIDGE .status A801.: have it entered there"):
        pacs(Retrieve.MOVE).read(STUDY)


def test_a_move_that_brings_nothing_is_the_instances_fault_once_the_way_is_proven(
    fake: FakeDimse, pacs: Any, tmp_path: Path
) -> None:
    other = f"{STUDY}.9"
    fake.put(*files(instances=1), *study_bytes(other, instances=1))
    fake.withheld = {f"{STUDY}.1.1"}
    source = pacs(Retrieve.MOVE)
    with receiving(tmp_path / "receiver", source.takes) as receiver:
        fake.destinations["BRIDGE"] = ("127.0.0.1", receiver.port)
        with pytest.raises(SourceUnavailable, match="moves nothing"):
            source.read(STUDY)
        assert source.read(other).rejected == ()
        assert len(source.read(STUDY).rejected) == 1


def test_retrieving_without_a_folder_stops_at_once(pacs: Any) -> None:
    with pytest.raises(ConfigError, match="folder"):
        pacs(spool=None)
