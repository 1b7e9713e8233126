"""The lake on a real S3 store: the contract, kills, faults on the way, a whole bridge, others who read the files."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pyarrow.fs
import pyarrow.parquet
import pytest

from bridge import config
from bridge.compose import Bridge
from bridge.errors import ConfigError, SinkUnavailable
from cohort.lake import Lake
from cohort.store.place import Access, in_bucket
from cohort.store.s3 import S3Store
from tests.builders import STUDY, write_file
from tests.contract.lake_store import (
    ROOT,
    KilledContract,
    LakeContract,
    Opened,
    StoreContract,
    fill,
    rows,
)
from tests.s3_places import KEY, REGION, SECRET, S3Peer
from tests.services.bridge_process import BridgeProcess
from tests.services.fault_proxy import Rates, running_fault_proxy
from tests.services.peers import free_port, missing, program
from tests.services.s3a_reading import s3a_jars
from tests.services.versitygw import running_versitygw
from tests.unit.test_lake import line


@pytest.fixture(scope="module")
def store() -> Iterator[S3Peer]:
    with running_versitygw() as peer:
        yield peer


@pytest.fixture
def url(store: S3Peer) -> str:
    return store.bucket()


class TestVersity(StoreContract, LakeContract, KilledContract):
    @pytest.fixture
    def opened(self, tmp_path: Path, store: S3Peer, url: str) -> Opened:
        return lambda machine: store.place(url, tmp_path / machine)

    @pytest.fixture
    def access(self, tmp_path: Path, store: S3Peer) -> dict[str, Any]:
        how = {"region": REGION, "access_key_id": KEY, "secret_access_key": SECRET}
        return {"endpoint": store.endpoint, "cache": str(tmp_path / "a")} | how


def through(endpoint: str, url: str, cache: Path) -> Lake:
    return Lake(in_bucket(url, Access(endpoint, REGION, KEY, SECRET, cache)))


def test_a_store_that_fails_now_and_then_gets_everything_once(store: S3Peer, url: str, tmp_path: Path) -> None:
    rates = Rates(unavailable=0.1, throttled=0.05, cut=0.05, halved=0.02)
    with running_fault_proxy(store.endpoint, 7, rates, retry_after_s=0) as proxy:
        lake = through(proxy.url, url, tmp_path / "a")
        for n in range(6):
            while True:
                try:
                    fill(lake, line("Patient", str(n)), line("Condition", str(n)))
                    break
                except SinkUnavailable:
                    continue
        assert proxy.counts["unavailable"] > 3
        assert proxy.counts["cut"] > 0
    sound = Lake(store.place(url, tmp_path / "b"))
    sound.publish(datetime(2026, 1, 1, tzinfo=UTC))
    assert rows(sound, "SELECT count(*), (SELECT count(*) FROM condition) FROM patient") == ((6, 6),)


def test_a_store_that_is_away_loses_nothing_and_shows_nothing_new(store: S3Peer, url: str, tmp_path: Path) -> None:
    with running_fault_proxy(store.endpoint, 7, retry_after_s=0) as proxy:
        lake, now = through(proxy.url, url, tmp_path / "a"), datetime(2026, 1, 1, tzinfo=UTC)
        fill(lake, line("Patient", "1"))
        lake.append([line("Patient", "2")])
        proxy.rates = Rates(unavailable=1.0)
        with pytest.raises(SinkUnavailable, match=r"\(HTTP 503\)"):
            lake.publish(now)
        with pytest.raises(SinkUnavailable):
            lake.append([line("Patient", "3")])
        proxy.rates = Rates()
        assert rows(lake, "SELECT count(*) FROM patient") == ((1,),)
        lake.publish(now)
        assert rows(lake, "SELECT count(*) FROM patient") == ((2,),)


def test_an_upload_that_is_cut_off_is_no_object(store: S3Peer, url: str, tmp_path: Path) -> None:
    with cutting(store.endpoint, after_bytes=3_000_000) as endpoint:
        lake = through(endpoint, url, tmp_path / "a")
        with pytest.raises(SinkUnavailable):
            lake.append([line("Patient", "1", note="x" * 4_000_000)])
        (tmp_path / "large").write_bytes(bytes(20_000_000))
        with pytest.raises(SinkUnavailable):
            lake.place.store.send(tmp_path / "large", "files/large.parquet")
    sound = Lake(store.place(url, tmp_path / "b"))
    assert sound.place.store.list("delta") == []
    assert sound.place.store.list("files") == []


class cutting:  # noqa: N801  (a context manager)
    """A way to a server that passes on so many bytes of each connection, then ends it."""

    def __init__(self, endpoint: str, after_bytes: int) -> None:
        self._target, self._left = urlsplit(endpoint), after_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection((str(self._target.hostname), self._target.port or 80))
            threading.Thread(target=_pass, args=(server, connection, 10**12), daemon=True).start()
            threading.Thread(target=_pass, args=(connection, server, self._left), daemon=True).start()


def _pass(source: socket.socket, target: socket.socket, most: int) -> None:
    try:
        while most > 0 and (some := source.recv(min(65_536, most))):
            target.sendall(some)
            most -= len(some)
    except OSError:
        pass
    finally:
        source.close()
        target.close()


def test_others_read_the_files_that_a_manifest_names(store: S3Peer, url: str, tmp_path: Path) -> None:
    lake = Lake(store.place(url, tmp_path))
    fill(lake, line("Patient", "p", gender="female"), line("Patient", "q"))
    fill(lake, line("Patient", "q", 2, gender="male"))
    endpoint, root = urlsplit(store.endpoint).netloc, url.removeprefix("s3://")
    files = pyarrow.fs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, endpoint_override=endpoint, scheme="http", region=REGION
    )
    read = lambda path: files.open_input_stream(f"{root}/{path}").read()  # noqa: E731
    manifest = orjson.loads(read(f"generations/{read('CURRENT').decode()}.json"))
    found = set()
    for layer in manifest["tables"]["patient"]["layers"]:
        frame = pyarrow.parquet.read_table(f"{root}/files/{layer['file']}", filesystem=files).to_pandas()
        if "gone" in layer:
            gone = pyarrow.parquet.read_table(f"{root}/files/{layer['gone']}", filesystem=files).to_pandas()
            frame = frame.drop(gone["row_number"])
        found |= set(zip(frame["patient_id"], frame["gender"], strict=True))
    assert found == {("p", "female"), ("q", "male")}


@pytest.mark.timeout(500)
def test_spark_reads_the_same_by_s3a(store: S3Peer, url: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("pyspark") is None:
        missing("pyspark (requirements-spark.lock)")
    program("java")
    s3a_jars()
    lake = Lake(store.place(url, tmp_path))
    fill(lake, line("Patient", "p", gender="female"), line("Patient", "q"))
    fill(lake, line("Patient", "q", 2, gender="male"))
    command = [sys.executable, "-m", "tests.services.s3a_reading", url, "patient", "patient_id,gender"]
    done = subprocess.run(command, env=os.environ | store.environment(), capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert orjson.loads(done.stdout.splitlines()[-1]) == [["p", "female"], ["q", "male"]]


@pytest.mark.timeout(200)
def test_a_bridge_fills_a_bucket_and_questions_are_asked_of_it(store: S3Peer, url: str, tmp_path: Path) -> None:
    for n in range(1, 6):
        write_file(tmp_path / "in" / f"{n}.dcm", study=f"{STUDY}.{n}", PatientID=f"P{n}")
    settings = (
        f'[[sources]]\nkind = "folder"\nname = "in"\npath = "{tmp_path / "in"}"\npoll_s = 0.3\nsettle_s = 0\n'
        f'[lake]\nurl = "{url}"\nendpoint = "{store.endpoint}"\nregion = "{REGION}"\n'
        f'access_key_id = "{KEY}"\nsecret_access_key = "${{LAKE_SECRET}}"\n'
    )
    bridge = BridgeProcess(tmp_path, settings, {"LAKE_SECRET": SECRET})
    elsewhere = Lake(store.place(url, tmp_path / "elsewhere"))
    counted = "SELECT count(*), count(DISTINCT patient_id) FROM imaging_study"

    def studies() -> int:
        return int(rows(elsewhere, counted)[0][0]) if elsewhere.current() else 0

    bridge.start()
    try:
        bridge.wait_for("five studies", lambda: studies() == 5)
        assert bridge.kill() == -9
        write_file(tmp_path / "in" / "6.dcm", study=f"{STUDY}.6", PatientID="P6")
        bridge.start()
        bridge.wait_for("the sixth", lambda: studies() == 6)
        assert bridge.stop() == 0
    finally:
        bridge.close()
    assert not (tmp_path / "data" / "lake" / "files").exists()
    assert SECRET not in bridge.log
    environment = os.environ | store.environment() | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [str(Path(sys.executable).with_name("cohort")), "sql", counted, "--format", "csv"]
    allowed = '[cohort]\nsmall_cells = 1\nline_level = true\nidentifiers = "identifiers"\n'
    (tmp_path / "asks.toml").write_text(allowed)
    command += ["--lake", url, "--config", str(tmp_path / "asks.toml")]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout.splitlines()[1:] == [b"6,6"]


@pytest.mark.timeout(200)
def test_a_bridge_starts_while_the_store_is_away_and_fills_the_lake_later(
    store: S3Peer, url: str, tmp_path: Path
) -> None:
    write_file(tmp_path / "in" / "1.dcm", study=STUDY)
    with running_fault_proxy(store.endpoint, 7, Rates(unavailable=1.0), retry_after_s=0) as proxy:
        source = {"kind": "folder", "name": "in", "path": str(tmp_path / "in"), "poll_s": 0.2, "settle_s": 0}
        lake = {
            "url": url, "endpoint": proxy.url, "region": REGION, "access_key_id": KEY, "secret_access_key": SECRET
        }  # fmt: skip
        raw = {"data_dir": str(tmp_path), "quiet_s": 0.1, "api": {"port": free_port()}, "sources": [source]}
        with Bridge(config.parse(raw | {"lake": lake})).running() as bridge:
            _until(lambda: proxy.counts["unavailable"] > 20)
            proxy.rates = Rates()
            elsewhere = Lake(store.place(url, tmp_path / "elsewhere"))
            _until(lambda: elsewhere.current() is not None and rows(elsewhere, "SELECT 1 FROM dicom_study") == ((1,),))
            assert not bridge.failed.is_set()


def test_a_store_that_ignores_conditions_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: S3Peer
) -> None:
    lake = Lake(store.place(store.bucket(), tmp_path))
    put = S3Store._put
    monkeypatch.setattr(S3Store, "_put", lambda self, key, content, **_condition: put(self, key, content))
    with pytest.raises(ConfigError, match="does not honour If-None-Match"):
        lake.check()


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)
