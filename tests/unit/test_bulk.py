"""$export as a client, towards a server of ours that can do everything wrong."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from bridge.errors import ConfigError, SourceUnavailable
from bridge.web.auth import sign_in
from cohort import bulk
from cohort.bulk import BulkExport, Exported, ExportRequest, outcomes
from cohort.bulk_job import JobFolder
from cohort.clinical import load
from cohort.engine.duckdb import connect
from cohort.lake import Lake
from tests.web_server import Asked, Reply, WebServer, web_server

TIME = "2026-01-01T00:00:00.000Z"


def ndjson(*resources: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(r) + b"\n" for r in resources)


PATIENTS = ndjson({"resourceType": "Patient", "id": "a"}, {"resourceType": "Patient", "id": "b"})


@dataclass
class ExportServer:
    """A server with one export; `spoil` may answer instead, by the path and how often it was asked."""

    web: WebServer
    files: dict[str, bytes] = field(default_factory=lambda: {"patients": PATIENTS})
    manifest: dict[str, Any] = field(default_factory=dict)
    polls: int = 2
    spoil: Callable[[str, int], Reply | None] = lambda _path, _nth: None
    counts: dict[str, int] = field(default_factory=dict)

    def answer(self, asked: Asked) -> Reply:
        path = urlsplit(asked.path).path
        nth = self.counts[path] = self.counts.get(path, 0) + 1
        spoilt = self.spoil(path, nth)
        if spoilt is not None:
            return spoilt
        if path.endswith("$export"):
            return Reply(202, b"", {"Content-Location": f"{self.web.url}/fhir/status"})
        if path == "/fhir/status" and asked.method == "DELETE":
            return Reply(202, b"")
        if path == "/fhir/status":
            if nth <= self.polls:
                return Reply(202, b"", {"X-Progress": "50 %\x07" + "x" * 200, "Retry-After": "7"})
            listed = [
                {"type": "Patient", "url": f"{self.web.url}/files/{n}", "count": c.count(b"\n")}
                for n, c in self.files.items()
            ]
            whole = {"transactionTime": TIME, "requiresAccessToken": True, "output": listed, "error": []}
            return Reply(200, orjson.dumps(whole | self.manifest))
        if path.startswith("/files/"):
            return Reply(200, self.files[path.removeprefix("/files/")])
        return Reply(404)

    def paths(self) -> list[str]:
        return [urlsplit(a.path).path for a in self.web.asked]


@pytest.fixture
def server() -> Iterator[ExportServer]:
    with web_server() as web:
        made = ExportServer(web)
        web.answer = made.answer
        yield made


@dataclass
class Client:
    """What an import needs; `waited` are the seconds it would have slept, `told` what it said."""

    root: Path
    url: str
    waited: list[float] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def folder(self) -> JobFolder:
        return JobFolder(self.root, self.url, "system", ())

    def export(self, **request: Any) -> BulkExport:
        return BulkExport(
            ExportRequest(self.url, **request),
            self.folder(),
            auth=sign_in(self.url, bearer_token="secret"),
            timeout_s=5,
            told=lambda stage, _done, _of: self.told.append(stage),
            wait=self.waited.append,
        )

    def run(self, **request: Any) -> Exported:
        export = self.export(**request)
        try:
            return export.run()
        finally:
            export.close()


@pytest.fixture
def client(tmp_path: Path, server: ExportServer) -> Client:
    return Client(tmp_path / "imports", f"{server.web.url}/fhir")


def test_an_export_is_asked_waited_for_and_downloaded(client: Client, server: ExportServer) -> None:
    found = client.run(types=("Patient", "Condition"), since=TIME)
    assert [p.read_bytes() for p in found.output] == [PATIENTS]
    assert found.transaction_time.isoformat() == "2026-01-01T00:00:00+00:00"
    first = server.web.asked[0]
    asked = parse_qs(urlsplit(first.path).query)
    assert asked["_type"] == ["Patient,Condition"]
    assert asked["_since"] == [TIME]
    assert first.headers["prefer"] == "respond-async"
    assert first.headers["accept"] == "application/fhir+json"
    assert client.waited == [7.0, 7.0]
    assert client.told[0] == "The server works: 50 %" + "x" * 96
    assert all(a.headers.get("authorization") == "Bearer secret" for a in server.web.asked)


@pytest.mark.parametrize(
    ("level", "path"), [("system", "/$export"), ("patient", "/Patient/$export"), ("group/Ab-1", "/Group/Ab-1/$export")]
)
def test_each_level_has_its_address(client: Client, server: ExportServer, level: str, path: str) -> None:
    client.run(level=level)
    assert server.paths()[0] == f"/fhir{path}"


def test_after_a_kill_only_what_is_missing_is_asked_for(client: Client, server: ExportServer) -> None:
    server.files = {"one": PATIENTS, "two": PATIENTS}
    server.spoil = lambda path, nth: Reply(500) if path == "/files/two" and nth < 2 else None
    with pytest.raises(SourceUnavailable):
        client.run()
    before = len(server.web.asked)
    assert len(client.run().output) == 2
    assert server.paths()[before:] == ["/files/two"]


def test_a_finished_import_is_told_to_the_server_and_the_next_asks_for_what_changed(
    client: Client, server: ExportServer
) -> None:
    export = client.export()
    export.run()
    assert client.folder().since() == ""
    export.finish()
    export.close()
    assert server.web.asked[-1].method == "DELETE"
    assert client.folder().since() == TIME
    assert not list(client.folder().path.glob("*.ndjson"))
    assert client.folder().job() is None


def test_what_changed_and_what_was_deleted_comes_into_the_lake(
    client: Client, server: ExportServer, tmp_path: Path
) -> None:
    gone = {"resourceType": "Bundle", "type": "transaction"}
    entry = {"request": {"method": "DELETE", "url": "Patient/b"}}
    server.files["gone"] = ndjson(gone | {"entry": [entry]}, gone | {"entry": [{"request": {"method": "PUT"}}]})
    issue = {"severity": "error", "code": "processing", "diagnostics": "Jane Doe"}
    server.files["errors"] = ndjson({"resourceType": "OperationOutcome", "issue": [issue]})
    url = server.web.url
    server.manifest = {
        "output": [{"type": "Patient", "url": f"{url}/files/patients", "count": 2}],
        "deleted": [{"type": "Bundle", "url": f"{url}/files/gone"}],
        "error": [{"type": "OperationOutcome", "url": f"{url}/files/errors"}],
    }
    found = client.run()
    assert list(outcomes(found.errors)) == [(1, "error: processing")]
    lake = Lake(tmp_path / "lake")
    report = load(found.output, lake, found.transaction_time, deleted=found.deleted)
    generation = lake.publish(found.transaction_time)
    assert (report.counts, report.deleted, report.parked_lines) == ({"Patient": 2}, 1, 1)
    assert generation is not None
    assert connect(generation).execute("SELECT patient_id FROM patient").fetchall() == [("a",)]


def test_an_export_in_which_nothing_changed_is_loaded_too(client: Client, server: ExportServer, tmp_path: Path) -> None:
    server.files = {}
    found = client.run()
    report = load(found.output, Lake(tmp_path / "lake"), found.transaction_time, deleted=found.deleted)
    assert (report.counts, report.deleted, report.parked) == ({}, 0, ())


def test_a_file_with_another_number_of_lines_than_told_is_fetched_again(client: Client, server: ExportServer) -> None:
    short = PATIENTS.splitlines()[0]
    server.spoil = lambda path, nth: Reply(200, short) if path == "/files/patients" and nth < 3 else None
    assert client.run().output[0].read_bytes() == PATIENTS
    server.spoil = lambda path, _nth: Reply(200, short) if path == "/files/patients" else None
    client.folder().forget()
    with pytest.raises(SourceUnavailable, match="lines"):
        client.run()


def test_a_download_that_breaks_off_is_begun_again(client: Client, server: ExportServer) -> None:
    cut = Reply(200, PATIENTS[:20], {"Content-Length": str(len(PATIENTS))})
    server.spoil = lambda path, nth: cut if path == "/files/patients" and nth < 3 else None
    export = BulkExport(ExportRequest(client.url), client.folder(), timeout_s=1, wait=client.waited.append)
    assert export.run().output[0].read_bytes() == PATIENTS
    export.close()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(client: Client, server: ExportServer, status: int) -> None:
    busy = Reply(status, b"", {"Retry-After": "3"})
    server.polls = 0
    server.spoil = lambda path, nth: busy if path.endswith("$export") and nth < 3 else None
    assert client.run().output
    assert client.waited == [3.0, 3.0]


def test_packed_files_are_unpacked(client: Client, server: ExportServer) -> None:
    packed = Reply(200, gzip.compress(PATIENTS), {"Content-Encoding": "gzip"})
    server.spoil = lambda path, _nth: packed if path == "/files/patients" else None
    assert client.run().output[0].read_bytes() == PATIENTS


def test_credentials_stay_with_the_server(client: Client, server: ExportServer) -> None:
    with web_server() as elsewhere:
        elsewhere.answer = lambda _asked: Reply(200, PATIENTS)
        server.manifest = {"output": [{"type": "Patient", "url": f"{elsewhere.url}/x", "count": 2}]}
        client.run()
        assert "authorization" not in elsewhere.asked[0].headers


def test_files_without_a_need_for_a_token_are_asked_without(client: Client, server: ExportServer) -> None:
    server.manifest = {"requiresAccessToken": False}
    client.run()
    (download,) = [a for a in server.web.asked if a.path.startswith("/files/")]
    assert "authorization" not in download.headers


@pytest.mark.parametrize("url", ["http://ehr.example/fhir", "ftp://x", "https://", "http://127.0.0.1.evil.example/"])
def test_only_https_or_this_machine_is_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="from-server"):
        Client(tmp_path, url).run()


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ({"transactionTime": None}, "transactionTime"),
        ({"transactionTime": "2026-01-01"}, "transactionTime"),
        ({"requiresAccessToken": "yes"}, "requiresAccessToken"),
        ({"output": [{"type": "Patient"}]}, "without an address"),
        ({"output": [{"url": "http://evil.example/x"}]}, "neither https"),
        ({"output": [{"url": "file:///etc/passwd"}]}, "neither https"),
        ({"link": [{"relation": "next", "url": "https://evil.example/"}]}, "another server"),
    ],
)
def test_a_manifest_that_cannot_be_followed_is_told(
    client: Client, server: ExportServer, manifest: dict[str, Any], told: str
) -> None:
    server.manifest = manifest
    with pytest.raises(SourceUnavailable, match=told):
        client.run()


def test_a_manifest_in_pages_is_read_to_its_end(client: Client, server: ExportServer) -> None:
    url = server.web.url
    server.files["more"] = PATIENTS
    server.manifest = {
        "output": [{"type": "Patient", "url": f"{url}/files/patients"}],
        "link": [{"relation": "next", "url": f"{url}/fhir/page2"}],
    }
    page = orjson.dumps({"output": [{"type": "Patient", "url": f"{url}/files/more"}]})
    server.spoil = lambda path, _nth: Reply(200, page) if path == "/fhir/page2" else None
    assert len(client.run().output) == 2


def test_endless_pages_of_a_manifest_are_given_up(
    client: Client, server: ExportServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "MAXIMUM_FILES", 10)
    server.manifest = {"link": [{"relation": "next", "url": f"{server.web.url}/fhir/status"}]}
    with pytest.raises(SourceUnavailable, match="more than 10 files"):
        client.run()


@pytest.mark.parametrize(("status", "kept"), [(500, False), (404, False), (401, True)])
def test_an_export_the_server_gave_up_is_forgotten_but_not_one_we_may_not_see(
    client: Client, server: ExportServer, status: int, kept: bool
) -> None:
    server.spoil = lambda path, _nth: Reply(status) if path == "/fhir/status" else None
    with pytest.raises(SourceUnavailable, match=str(status)):
        client.run()
    assert (client.folder().job() is not None) == kept


def test_a_refused_request_and_a_missing_status_address_are_told(client: Client, server: ExportServer) -> None:
    server.spoil = lambda _path, _nth: Reply(400)
    with pytest.raises(ConfigError, match="refused"):
        client.run()
    server.spoil = lambda _path, _nth: Reply(202)
    with pytest.raises(SourceUnavailable, match="Content-Location"):
        client.run()
    server.spoil = lambda _path, _nth: Reply(202, b"", {"Content-Location": "https://evil.example/status"})
    with pytest.raises(SourceUnavailable, match="same server"):
        client.run()


def test_a_full_disk_ends_the_import_before_it_is_full(
    client: Client, server: ExportServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "FREE_BYTES", 2**62)
    with pytest.raises(SourceUnavailable, match="disk"):
        client.run()


def test_two_imports_of_one_kind_do_not_run_at_once(client: Client) -> None:
    with client.folder().alone(), pytest.raises(ConfigError, match="another process"), client.folder().alone():
        pass


@pytest.mark.parametrize("where", ["/fhir/status", "/files/one", "/files/two"])
def test_a_killed_command_goes_on_with_the_same_export(server: ExportServer, tmp_path: Path, where: str) -> None:
    server.files, server.polls = {"one": PATIENTS, "two": PATIENTS}, 0
    lake = tmp_path / "lake"
    command = [str(Path(sys.executable).parent / "cohort"), "load", "--lake", str(lake), "--json"]
    command += ["--from-server", f"{server.web.url}/fhir"]
    victims: list[subprocess.Popen[bytes]] = []
    started = threading.Event()

    def spoil(path: str, nth: int) -> Reply | None:
        if path == where and nth == 1:
            started.wait(30)
            victims[0].kill()
            victims[0].wait(30)
        return None

    server.spoil = spoil
    victims.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    started.set()
    assert victims[0].wait(60) == -9
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["counts"] == {"Patient": 4}
    assert server.counts["/fhir/$export"] == 1
    generation = Lake(lake).current()
    assert generation is not None
    assert generation.tables["patient"].rows == 2
    assert JobFolder(lake / "imports", f"{server.web.url}/fhir", "system", ()).since() == TIME
