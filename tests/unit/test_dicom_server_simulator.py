"""The simulator is only worth something if it refuses and answers as the published contract says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.dicom_server.archive import SimulatedArchive
from tests.dicom_server.connecting import URL
from tests.dicom_server.serving import InProcess

STUDY, OTHER = "1.2.3.1", "1.2.3.2"


@pytest.fixture
def archive() -> SimulatedArchive:
    return SimulatedArchive()


@pytest.fixture
def client(archive: SimulatedArchive) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=URL, transport=InProcess(archive)) as client:
        yield client


def sequences(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200
    return [entry["sequence"] for entry in answer.json()]


BAD_BOTH = [
    "limit=-1", "limit=0", "limit=blah", "offset=-1", "offset=92233720368547758070", "offset=blah",
    "includeMetadata=0", "includeMetadata=boolean", "includeMetadata=asdf",
]  # fmt: skip
BAD_V2 = [
    "startTime=2023-05-03T10:58:00", "endTime=2023-05-03", "startTime=yesterday", "startTime=2023-13-03T10:58:00Z",
    "startTime=2023-05-03T10:58:00Z&endTime=2023-05-03T10:58:00Z",
    "startTime=2023-05-03T10:58:01Z&endTime=2023-05-03T10:58:00Z",
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "query"),
    [("v1", q) for q in [*BAD_BOTH, "limit=101"]] + [("v2", q) for q in [*BAD_BOTH, *BAD_V2, "limit=201"]],
)
def test_parameters_that_the_server_does_not_take_are_refused(client: httpx.Client, version: str, query: str) -> None:
    assert client.get(f"/{version}/changefeed?{query}").status_code == 400


def test_a_limit_of_v1_is_a_span_and_its_default_is_ten(archive: SimulatedArchive, client: httpx.Client) -> None:
    archive.put(STUDY, instances=3)
    archive.skip(20)
    archive.put(OTHER, instances=1)
    assert sequences(client.get("/v1/changefeed")) == [1, 2, 3]
    assert sequences(client.get("/v1/changefeed?offset=3")) == []
    assert sequences(client.get("/v1/changefeed?offset=3&limit=21")) == [24]
    assert client.get("/v1/changefeed/latest").json()["sequence"] == 24


def test_v2_is_ordered_by_time_its_start_inclusive_its_end_exclusive(
    archive: SimulatedArchive, client: httpx.Client
) -> None:
    archive.put(STUDY, instances=3)
    archive.put(OTHER, instances=1, late_s=1.5)
    window = "startTime=2024-03-01T09:00:01Z&endTime=2024-03-01T09:00:02Z"
    assert sequences(client.get("/v2/changefeed")) == [1, 2, 4, 3]
    assert sequences(client.get(f"/v2/changefeed?{window}")) == [2, 4]
    assert sequences(client.get(f"/v2/changefeed?{window}&offset=1&limit=1")) == [4]
    assert client.get("/v2/changefeed/latest").json()["sequence"] == 3
    assert client.get("/v1/changefeed/latest").json()["sequence"] == 4


def test_an_empty_feed_has_no_newest_entry(client: httpx.Client) -> None:
    assert client.get("/v1/changefeed/latest").status_code == 204
    assert sequences(client.get("/v2/changefeed")) == []


def test_state_and_metadata_are_those_of_now(archive: SimulatedArchive, client: httpx.Client) -> None:
    archive.put(STUDY, instances=1)
    archive.delete(STUDY)
    deleted = client.get("/v1/changefeed").json()
    assert [e["state"] for e in deleted] == ["Deleted", "Deleted"]
    assert not any("metadata" in e for e in deleted)
    archive.put(STUDY, instances=1)
    archive.update(STUDY, PatientID="NEW-ID")
    entries = client.get("/v1/changefeed").json()
    assert [e["action"] for e in entries] == ["Create", "Delete", "Create", "Update"]
    assert [e["state"] for e in entries] == ["Replaced", "Replaced", "Replaced", "Current"]
    assert {e["metadata"]["00100020"]["Value"][0] for e in entries} == {"NEW-ID"}
    assert not any("metadata" in e for e in client.get("/v1/changefeed?includemetadata=false").json())


def test_entries_are_written_as_the_server_does_or_as_its_documentation_does(
    archive: SimulatedArchive, client: httpx.Client
) -> None:
    archive.put(STUDY, instances=1)
    (entry,) = client.get("/v1/changefeed?includeMetadata=false").json()
    assert entry == {
        "sequence": 1,
        "partitionName": "Microsoft.Default",
        "studyInstanceUid": STUDY,
        "seriesInstanceUid": f"{STUDY}.1",
        "sopInstanceUid": f"{STUDY}.1.1",
        "action": "Create",
        "timestamp": "2024-03-01T09:00:00+00:00",
        "state": "Current",
    }
    archive.pascal_case = True
    (entry,) = client.get("/v1/changefeed?includeMetadata=false").json()
    assert (entry["StudyInstanceUid"], entry["Action"], entry["State"]) == (STUDY, "create", "current")


def test_partitions_and_plain_paths_exclude_one_another(archive: SimulatedArchive, client: httpx.Client) -> None:
    archive.put(STUDY, "north", instances=1)
    archive.partitions_enabled = True
    assert [p["partitionName"] for p in client.get("/v2/partitions").json()] == ["Microsoft.Default", "north"]
    assert client.get(f"/v2/partitions/north/studies/{STUDY}/metadata").status_code == 200
    assert client.get(f"/v2/partitions/Microsoft.Default/studies/{STUDY}/metadata").status_code == 404
    assert client.get("/v2/partitions/south/studies").status_code == 400
    assert client.get("/v2/studies").status_code == 400
    archive.partitions_enabled = False
    assert client.get("/v2/partitions").status_code == 400
    assert client.get("/v2/partitions/north/studies").status_code == 400
    assert client.get("/v2/studies").status_code == 200


def test_a_search_shows_the_newest_first_and_nothing_is_204(archive: SimulatedArchive, client: httpx.Client) -> None:
    for number in range(1, 151):
        archive.put(f"1.2.5.{number}", instances=1)
    page: list[Any] = client.get("/v2/studies").json()
    assert len(page) == 100
    assert page[0] == {"0020000D": {"vr": "UI", "Value": ["1.2.5.150"]}}
    counted = client.get("/v2/studies?limit=1&includefield=NumberOfStudyRelatedInstances").json()
    assert counted[0]["00201208"]["Value"] == [1]
    assert client.get("/v2/studies?offset=150").status_code == 204
    assert client.get("/v2/studies?limit=201").status_code == 400
    assert client.get("/v2/studies?StudyInstanceUID=9.9").status_code == 204
    assert client.get("/v9/studies").status_code == 400
    series = client.get("/v2/studies/1.2.5.1/series?includefield=NumberOfSeriesRelatedInstances").json()
    assert series[0]["00201209"]["Value"] == [1]
