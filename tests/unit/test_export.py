from __future__ import annotations

import tracemalloc
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from bridge.api import export
from bridge.api.fhir import fhir_app
from bridge.errors import StateUnavailable
from bridge.follow.export import Exporter, ExportLimits, groups
from bridge.model import Change, ChangeAction
from bridge.state import State
from cohort.clinical import load
from cohort.lake import Lake
from tests.unit.test_changefeed import commit, held, without_meta
from tests.unit.test_changefeed import state as state

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

BASE = "http://h/fhir"
ASYNC = {"Prefer": "respond-async"}


class Exports:
    """One API with its exporter, driven by hand; the clock moves only when told."""

    def __init__(self, state: State, folder: Path, jobs: int = 3, total_bytes: int = 10_000_000) -> None:
        self.state, self.folder, self.now = state, folder, 5000.0
        limits = ExportLimits(jobs, 3600.0, total_bytes)
        self.exporter = Exporter(state, folder, limits, lambda: self.now)
        router = export.router(state, BASE, folder, limits, lambda: self.now)
        self.client = TestClient(fhir_app(state, BASE, [router]), raise_server_exceptions=False)

    def ask(self, path: str = "/$export", status: int = 202, **headers: str) -> httpx.Response:
        response = self.client.get(path, headers=ASYNC | headers)
        assert response.status_code == status, response.text
        return response

    def started(self, path: str = "/$export") -> str:
        """The place of a new export's status, below the base."""
        return self.ask(path).headers["content-location"].removeprefix(BASE)

    def manifest(self, place: str) -> dict[str, Any]:
        while self.exporter.step("w"):
            pass
        response = self.client.get(place)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def lines(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        response = self.client.get(entry["url"].removeprefix(BASE))
        assert response.headers["content-type"] == "application/fhir+ndjson"
        found = [orjson.loads(line) for line in response.content.splitlines()]
        assert len(found) == entry["count"]
        return found

    def resources(self, manifest: dict[str, Any]) -> dict[tuple[str, str], Any]:
        found = [resource for entry in manifest["output"] for resource in self.lines(entry)]
        return {(r["resourceType"], r["id"]): without_meta(r) for r in found}


@pytest.fixture
def exports(state: State, tmp_path: Path) -> Exports:
    return Exports(state, tmp_path / "exports")


def test_an_export_goes_from_accepted_to_files(exports: Exports) -> None:
    for n in range(3):
        commit(exports.state, n, 1000.0 + n, f"p{n}")
    place = exports.started()
    waiting = exports.client.get(place)
    assert (waiting.status_code, waiting.headers["x-progress"], waiting.headers["retry-after"]) == (202, "waiting", "2")
    manifest = exports.manifest(place)
    assert exports.resources(manifest) == held(exports.state)
    assert [(o["type"], o["count"]) for o in manifest["output"]] == [
        ("Endpoint", 1),
        ("ImagingStudy", 3),
        ("Patient", 3),
    ]
    assert manifest["transactionTime"] == "1970-01-01T00:16:42.000Z"
    assert manifest["request"] == f"{BASE}/$export"
    assert (manifest["requiresAccessToken"], manifest["deleted"], manifest["error"]) == (False, [], [])


def test_an_export_shows_one_moment_whatever_comes_afterwards(exports: Exports) -> None:
    for n in range(3):
        commit(exports.state, n, 1000.0 + n, "p")
    then = held(exports.state)
    place = exports.started()
    commit(exports.state, 1, 2000.0, "q", description="changed")
    commit(exports.state, 7, 2001.0, "q")
    assert exports.resources(exports.manifest(place)) == then


def test_one_export_after_another_with_since_gives_the_whole(exports: Exports) -> None:
    copy: dict[tuple[str, str], Any] = {}
    since, now = "", 1000.0
    for turn in range(4):
        for n in range(3):
            now += 0.25
            commit(exports.state, n, now, f"p{turn}" if n == turn else "p", description=f"{turn // 2}")
        manifest = exports.manifest(exports.started(f"/$export?_since={since}" if since else "/$export"))
        copy |= exports.resources(manifest)
        for bundle in (b for entry in manifest["deleted"] for b in exports.lines(entry)):
            assert (bundle["resourceType"], bundle["type"]) == ("Bundle", "transaction")
            for entry in bundle["entry"]:
                kind, _, id_ = entry["request"]["url"].partition("/")
                assert entry["request"]["method"] == "DELETE"
                copy.pop((kind, id_), None)
        assert copy == held(exports.state)
        since = manifest["transactionTime"]
        exports.client.delete(f"{manifest['output'][0]['url'].removeprefix(BASE).rpartition('/')[0]}")


def test_types_and_the_level_of_patients_leave_out_the_rest(exports: Exports) -> None:
    commit(exports.state, 1, 1000.0)
    for path, kinds in (
        ("/$export?_type=Patient,Endpoint", ["Endpoint", "Patient"]),
        ("/$export?_type=Patient&_type=ImagingStudy", ["ImagingStudy", "Patient"]),
        ("/Patient/$export?_outputFormat=application/fhir%2Bndjson", ["ImagingStudy", "Patient"]),
    ):
        manifest = exports.manifest(exports.started(path))
        assert [o["type"] for o in manifest["output"]] == kinds
        assert manifest["request"] == BASE + path


def test_an_export_can_be_posted_as_parameters(exports: Exports) -> None:
    commit(exports.state, 1, 1000.0)
    parameters = [
        {"name": "_type", "valueString": "Patient"},
        {"name": "_since", "valueInstant": "1970-01-01T00:00:01Z"},
    ]
    for path in ("/$export", "/Patient/$export"):
        sent = {"resourceType": "Parameters", "parameter": parameters}
        response = exports.client.post(path, json=sent, headers=ASYNC | {"Content-Type": "application/fhir+json"})
        assert response.status_code == 202, response.text
        manifest = exports.manifest(response.headers["content-location"].removeprefix(BASE))
        assert [o["type"] for o in manifest["output"]] == ["Patient"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/$export", {"Prefer": ""}, 400),
        ("/$export", {"Accept": "application/fhir+xml"}, 406),
        ("/$export?_type=Medication", {}, 400),
        ("/Patient/$export?_type=Endpoint", {}, 400),
        ("/$export?_since=2024", {}, 400),
        ("/$export?_since=2024-01-01T00:00:00", {}, 400),
        ("/$export?_since=2024-13-01T00:00:00Z", {}, 400),
        ("/$export?_since=2024-01-01T00:00:00Z&_since=2024-01-01T00:00:00Z", {}, 400),
        ("/$export?_until=2024-01-01T00:00:00Z", {}, 400),
        ("/$export?_elements=id", {}, 400),
        ("/$export?_typeFilter=ImagingStudy%3Fstatus%3Davailable", {}, 400),
        ("/$export?_outputFormat=text/csv", {}, 400),
        ("/$export?" + "a=b&" * 200, {}, 400),
        ("/Group/1/$export", {}, 404),
        ("/_export/" + "0" * 32, {}, 404),
        ("/_export/..%2f..%2fstate.sqlite", {}, 404),
        ("/_export/" + "0" * 32 + "/Patient.ndjson", {}, 404),
    ],
)
def test_what_cannot_be_done_is_told(exports: Exports, path: str, headers: dict[str, str], status: int) -> None:
    outcome = exports.ask(path, status, **headers).json()
    assert outcome["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/fhir+json", 400),
        (b"[]", "application/fhir+json", 400),
        (b'{"resourceType":"Patient"}', "application/fhir+json", 400),
        (b'{"resourceType":"Parameters","parameter":[{"name":"_type"}]}', "application/fhir+json", 400),
        (b'{"resourceType":"Parameters","parameter":[{"name":"_type","valueInteger":1}]}', "application/json", 400),
        (b'{"resourceType":"Parameters","parameter":7}', "application/json", 400),
        (b"_type=Patient", "application/x-www-form-urlencoded", 415),
    ],
)
def test_a_body_that_is_no_parameters_is_refused(exports: Exports, body: bytes, content_type: str, status: int) -> None:
    response = exports.client.post("/$export", content=body, headers=ASYNC | {"Content-Type": content_type})
    assert response.status_code == status
    assert response.json()["resourceType"] == "OperationOutcome"


def test_a_cancelled_export_is_gone_with_its_files(exports: Exports) -> None:
    commit(exports.state, 1, 1000.0)
    place = exports.started()
    manifest = exports.manifest(place)
    assert exports.client.delete(place).status_code == 202
    for gone in (place, manifest["output"][0]["url"].removeprefix(BASE)):
        assert exports.client.get(gone).status_code == 404
    exports.now += 61
    exports.exporter.step("w")
    assert list(exports.folder.iterdir()) == []
    assert exports.client.delete(place).status_code == 404


def test_an_export_cancelled_while_it_is_written_leaves_nothing(exports: Exports) -> None:
    commit(exports.state, 1, 1000.0)
    place = exports.started()
    versions = exports.state.versions

    def cancelling(changes: Any) -> Any:
        exports.client.delete(place)
        return versions(changes)

    exports.state.versions = cancelling  # type: ignore[method-assign]
    assert exports.exporter.step("w") == 1
    assert list(exports.folder.iterdir()) == []
    assert exports.state.items(queue="export") == []


def test_exports_are_bounded_in_number_age_and_size(exports: Exports, state: State, tmp_path: Path) -> None:
    commit(state, 1, 1000.0)
    places = [exports.started() for _ in range(3)]
    full = exports.ask(status=429)
    assert full.headers["retry-after"] == "120"
    exports.manifest(places[0])
    exports.now += 3601
    assert exports.client.get(places[0]).status_code == 404
    exports.exporter.step("w")
    assert list(exports.folder.iterdir()) == []
    exports.started()
    small = Exports(state, tmp_path / "small", total_bytes=200)
    small.now = exports.now
    place = small.started()
    while small.exporter.step("w"):
        pass
    failed = small.client.get(place)
    assert failed.status_code == 500
    assert "export_bytes" in failed.json()["issue"][0]["diagnostics"]
    assert [p for p in small.folder.iterdir() if p.name.startswith(place[-32:])] == []


def test_a_killed_export_is_written_anew_as_of_the_same_moment(exports: Exports, state: State) -> None:
    commit(state, 1, 1000.0)
    then = held(state)
    place = exports.started()
    (claim,) = state.claim("export", exports.now, 30.0, 1, "dead/export")
    part = exports.folder / f"{claim.key}.part"
    part.mkdir(parents=True)
    (part / "Patient.ndjson").write_bytes(b'{"resourceType":"Pat')
    commit(state, 2, 2000.0)
    assert exports.client.get(place).status_code == 202
    exports.now += 31
    assert exports.resources(exports.manifest(place)) == then


def test_a_state_that_is_away_gives_the_export_back(exports: Exports, state: State) -> None:
    commit(state, 1, 1000.0)
    place = exports.started()
    versions = state.versions

    def away(_changes: Any) -> Any:
        raise StateUnavailable("state: away")

    state.versions = away  # type: ignore[method-assign]
    with pytest.raises(StateUnavailable):
        exports.exporter.step("w")
    state.versions = versions  # type: ignore[method-assign]
    exports.now += 10
    assert exports.resources(exports.manifest(place)) == held(state)


def test_a_disk_that_refuses_is_told(exports: Exports, state: State) -> None:
    commit(state, 1, 1000.0)
    exports.folder.write_text("a file where the folder should be")
    place = exports.started()
    exports.exporter.step("w")
    failed = exports.client.get(place)
    assert failed.status_code == 500
    assert "cannot be written" in failed.json()["issue"][0]["diagnostics"]


def test_the_cohort_reads_an_export(exports: Exports, state: State, tmp_path: Path) -> None:
    for n in range(3):
        commit(state, n, 1000.0 + n, f"p{n}")
    manifest = exports.manifest(exports.started())
    folder = exports.folder / manifest["output"][0]["url"].split("/")[-2]
    report = load([folder], Lake(tmp_path / "lake"), datetime.now(UTC))
    assert (report.counts, report.parked) == ({"Endpoint": 1, "ImagingStudy": 3, "Patient": 3}, ())


def test_groups_are_bounded_in_bytes_and_number() -> None:
    changes = [Change(n, "Patient", str(n), 1, ChangeAction.CREATED, 0.0, size=n) for n in range(1, 6)]
    assert [[c.size for c in group] for group in groups(changes, 5, 2)] == [[1, 2], [3], [4], [5]]
    assert list(groups([], 5, 2)) == []


def test_memory_does_not_grow_with_the_number_of_resources(state: State, tmp_path: Path) -> None:
    exports = Exports(state, tmp_path / "exports", total_bytes=100_000_000)
    text = "x" * 20_000
    peaks = []
    number = 0
    for more in (250, 1000):
        for _ in range(more):
            number += 1
            commit(state, number, 1000.0, description=text)
        place = exports.started()
        tracemalloc.start()
        exports.exporter.step("w")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        counts = {o["type"]: o["count"] for o in exports.client.get(place).json()["output"]}
        assert counts["ImagingStudy"] == number
    assert peaks[1] < 1.5 * peaks[0]
