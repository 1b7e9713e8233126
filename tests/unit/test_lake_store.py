"""The contract of a lake's store on a folder and on moto, and what is particular to a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cohort
from bridge.errors import ConfigError, InvalidQuery, SinkUnavailable
from cohort.cli import app
from cohort.lake import Lake
from cohort.store.files import IN_USE_S
from cohort.store.place import Access, in_bucket, in_folder, place
from cohort.store.s3 import S3Store
from tests.contract.lake_store import NOW, LakeContract, Opened, StoreContract, fill, rows
from tests.s3_places import KEY, REGION, SECRET, S3Peer, running_moto
from tests.unit.test_cohort_api import client
from tests.unit.test_lake import line


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Peer]:
    with running_moto() as peer:
        yield peer


class TestFolder(StoreContract, LakeContract):
    test_who_was_slower_looks_again = None  # type: ignore[assignment]
    """Here publishers wait for one another."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Opened:
        return lambda _machine: in_folder(tmp_path / "lake")


class TestMoto(StoreContract, LakeContract):
    test_of_many_who_create_or_replace_one_succeeds = None  # type: ignore[assignment]
    test_two_who_publish_at_once_lose_nothing = None  # type: ignore[assignment]
    """moto looks and writes in two steps: a real store is asked (tests/services)."""

    @pytest.fixture
    def opened(self, tmp_path: Path, moto: S3Peer) -> Opened:
        url = moto.bucket()
        return lambda machine: moto.place(url, tmp_path / machine)


@pytest.fixture
def url(moto: S3Peer) -> str:
    return moto.bucket()


def files_of(lake: Lake, table: str) -> set[str]:
    found = lake.current()
    assert found is not None
    return {one.file.name for one in found.tables[table].layers}


def test_a_question_fetches_the_files_of_the_tables_it_names_alone(moto: S3Peer, url: str, tmp_path: Path) -> None:
    fill(Lake(moto.place(url, tmp_path / "a")), line("Patient", "p"), line("Condition", "c"))
    lake = Lake(moto.place(url, tmp_path / "b"))
    assert rows(lake, "SELECT count(*) FROM Condition") == ((1,),)
    assert {path.name for path in (tmp_path / "b" / "files").iterdir()} == files_of(lake, "condition")
    with pytest.raises(InvalidQuery, match="unknown table"):
        rows(lake, "SELECT count(*) FROM conditions")


def test_a_damaged_file_is_never_read(moto: S3Peer, url: str, tmp_path: Path) -> None:
    lake = Lake(moto.place(url, tmp_path / "a"))
    fill(lake, line("Patient", "p"))
    (name,) = files_of(lake, "patient")
    moto.place(url, tmp_path / "b").store.put(f"files/{name}", b"PAR1 something else PAR1")
    reader = Lake(moto.place(url, tmp_path / "c"))
    with pytest.raises(SinkUnavailable, match=f"{name} does not have the content"):
        rows(reader, "SELECT * FROM patient")
    assert not list((tmp_path / "c" / "files").iterdir())


def test_the_cache_gives_up_what_was_not_used_for_the_longest_time(moto: S3Peer, url: str, tmp_path: Path) -> None:
    lake = Lake(moto.place(url, tmp_path / "a"))
    fill(lake, line("Patient", "p"), line("Condition", "c"), line("Encounter", "e"))
    reader = Lake(moto.place(url, tmp_path / "b", cache_bytes=1))
    for table in ("patient", "condition"):
        rows(reader, f"SELECT * FROM {table}")
    held = {path.name: path for path in (tmp_path / "b" / "files").iterdir()}
    assert held.keys() == files_of(lake, "patient") | files_of(lake, "condition")
    for name in files_of(lake, "patient"):
        os.utime(held[name], (NOW.timestamp() - IN_USE_S,) * 2)
    rows(reader, "SELECT * FROM encounter")
    assert {path.name for path in (tmp_path / "b" / "files").iterdir()} == files_of(lake, "condition") | files_of(
        lake, "encounter"
    )
    assert rows(reader, "SELECT patient_id FROM patient") == (("p",),)


def test_a_generation_that_went_while_it_was_asked_is_told(moto: S3Peer, url: str, tmp_path: Path) -> None:
    lake = Lake(moto.place(url, tmp_path / "a"))
    fill(lake, line("Patient", "p"))
    found = Lake(moto.place(url, tmp_path / "b")).current()
    assert found is not None
    lake.place.store.delete([entry.key for entry in lake.place.store.list("files")])
    with pytest.raises(InvalidQuery, match="g000001: it is no longer kept"):
        found.fetch(["patient"])


def test_files_that_no_manifest_names_stay_for_a_day_where_other_machines_publish(
    moto: S3Peer, url: str, tmp_path: Path
) -> None:
    lake = Lake(moto.place(url, tmp_path / "a"))
    lake.place.store.put("files/of-somebody-slower.parquet", b"PAR1")
    fill(lake, line("Patient", "p"))
    held = {entry.key for entry in lake.place.store.list("files")}
    assert "files/of-somebody-slower.parquet" in held
    now = max(entry.modified for entry in lake.place.store.list("files"))
    lake._generations.forget_old(now + 2 * 86_400)
    assert "files/of-somebody-slower.parquet" not in {entry.key for entry in lake.place.store.list("files")}
    assert rows(lake, "SELECT count(*) FROM patient") == ((1,),)


def test_an_upload_that_was_never_finished_goes_after_a_day(moto: S3Peer, url: str, tmp_path: Path) -> None:
    client, bucket = moto.client(), url.split("/")[2]
    client.create_multipart_upload(Bucket=bucket, Key="the/lake/files/x.parquet")
    store = moto.place(url, tmp_path).store
    assert store.list("files") == []
    store.sweep(0.0)
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
    store.sweep(NOW.timestamp() + 10**9)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize(
    "address", ["s3://", "s3://Bad_Bucket/x", "s3:/bucket/x", "s3://bucket/../x", "s3://bucket/x?y", "s3://b/a b"]
)
def test_what_is_no_address_of_a_bucket_is_told(address: str) -> None:
    with pytest.raises(ConfigError, match="s3://BUCKET/PREFIX"):
        place(address)


def test_an_endpoint_that_is_not_encrypted_is_refused_unless_it_is_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        in_bucket("s3://bucket/lake", Access("http://s3.example", REGION, KEY, SECRET, tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example")
    with pytest.raises(ConfigError, match="unencrypted"):
        in_bucket("s3://bucket/lake", Access("", REGION, KEY, SECRET, tmp_path))
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    in_bucket("s3://bucket/lake", Access("", REGION, KEY, SECRET, tmp_path))
    in_bucket("s3://bucket/lake", Access("https://s3.example", REGION, KEY, SECRET, tmp_path))


def test_a_store_that_cannot_be_used_is_told_without_what_it_says(moto: S3Peer, tmp_path: Path) -> None:
    nowhere = Lake(moto.place("s3://no-such-bucket/lake", tmp_path / "a"))
    with pytest.raises(SinkUnavailable, match="no such bucket"):
        nowhere.append([line("Patient", "p")])
    silent = Lake(in_bucket("s3://bucket/lake", Access("http://127.0.0.1:9", REGION, KEY, SECRET, tmp_path / "b")))
    with pytest.raises(SinkUnavailable, match=r"cannot be reached for GetObject \(EndpointConnectionError\)"):
        silent.current()


def test_the_api_answers_503_while_the_store_is_away(
    moto: S3Peer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(moto.place(url, tmp_path))
    fill(lake, line("Patient", "p"))
    web = client(lake)
    asked = [("GET", "/cohort/api/generation", None), ("GET", "/cohort/api/tables", None)]
    asked.append(("POST", "/cohort/api/sql", {"sql": "SELECT * FROM patient"}))
    assert [web.request(how, where, json=body).status_code for how, where, body in asked] == [200] * 3
    told = SinkUnavailable("lake: the store answered GetObject with SlowDown (HTTP 503)")

    def away(*_: Any) -> None:
        raise told

    monkeypatch.setattr(S3Store, "read", away)
    answers = [web.request(how, where, json=body) for how, where, body in asked]
    assert [(a.status_code, a.json()["detail"]) for a in answers] == [(503, str(told))] * 3


def test_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cohort.store.s3", None)
    with pytest.raises(ConfigError, match=r"imaging-bridge\[s3\]"):
        in_bucket("s3://bucket/lake", Access(cache=tmp_path))


def test_commands_and_python_take_the_address_of_a_bucket(
    moto: S3Peer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (moto.environment() | {"XDG_CACHE_HOME": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "patients.ndjson").write_text('{"resourceType": "Patient", "id": "p", "gender": "female"}\n')
    allowed = tmp_path / "bridge.toml"
    allowed.write_text('[cohort]\nsmall_cells = 1\nline_level = true\nidentifiers = "identifiers"\n')
    run = CliRunner().invoke
    assert run(app, ["load", str(tmp_path / "patients.ndjson"), "--lake", url]).exit_code == 0
    asked = run(app, ["sql", "SELECT gender FROM patient", "--lake", url, "--format", "csv", "-c", str(allowed)])
    assert asked.exit_code == 0
    assert asked.stdout.split() == ["gender", "female"]
    assert "g000001" in run(app, ["generations", "list", "--lake", url]).stdout
    assert cohort.open(url, config=allowed).sql("SELECT patient_id FROM patient").rows == (("p",),)
    assert run(app, ["compact", "--lake", url]).exit_code == 0
    with pytest.raises(ConfigError, match="no data in"):
        cohort.open(moto.bucket())


def test_the_process_of_a_query_has_no_credentials(
    moto: S3Peer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(moto.place(url, tmp_path))
    fill(lake, line("Patient", "p"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    environments = []

    class Watched(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            environments.append(Path(f"/proc/{self.pid}/environ").read_bytes())

    monkeypatch.setattr(subprocess, "Popen", Watched)
    assert rows(lake, "SELECT patient_id FROM patient") == (("p",),)
    assert environments == [b""]
