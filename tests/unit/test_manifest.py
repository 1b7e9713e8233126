from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bridge.sources.manifest import Manifest, Verdict, association, associations
from bridge.sources.quota import OF_ONE_ADDRESS, OVERALL, Quota
from tests.builders import a_dataset
from tests.unit.test_receiver import Rig, echo_works, ends, established, manifests, wait_until


def test_a_manifest_is_written_when_the_first_object_comes_and_is_named_by_its_beginning(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, 1e9, {"peer": "127.0.0.1"})
    assert list(tmp_path.iterdir()) == []
    manifest.add(Verdict.ACCEPTED, 0, {"sop_instance_uid": "1.2.3"})
    (going_on,) = associations(tmp_path)
    assert (going_on["peer"], "how" in going_on) == ("127.0.0.1", False)
    assert going_on["started"].startswith("2001-09-09T01:46:40")
    manifest.end(1e9 + 60, "released")
    assert len(association(tmp_path, manifest.id)["objects"]) == 1


@pytest.mark.parametrize("objects", [0, 1])
def test_only_what_came_with_objects_is_fsynced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: int) -> None:
    synced = list[int]()
    monkeypatch.setattr(os, "fsync", synced.append)
    manifest = Manifest(tmp_path, 1e9, {})
    for _ in range(objects):
        manifest.add(Verdict.ACCEPTED, 0, {})
    manifest.end(1e9, "released")
    assert len(synced) == objects
    assert [m["received"] for m in associations(tmp_path)] == [objects]


class Clock:
    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


def test_one_address_takes_no_more_than_its_share_of_a_minute() -> None:
    clock = Clock()
    quota = Quota("rx", clock)
    assert sum(quota.take("10.0.0.1") for _ in range(1000)) == OF_ONE_ADDRESS
    assert quota.take("10.0.0.2")
    clock.now += 61
    assert quota.take("10.0.0.1")


def test_many_addresses_take_no_more_than_there_is_and_what_was_over_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    quota = Quota("rx", clock)
    assert sum(quota.take(f"10.0.{n // 250}.{n % 250}") for n in range(1000)) == OVERALL
    assert caplog.text == ""
    clock.now += 61
    assert quota.take("10.0.0.1")
    assert f"receiver rx: {1000 - OVERALL} associations without objects have no manifest" in caplog.text


def test_a_disk_that_takes_no_record_of_a_refused_connection_keeps_nobody_from_an_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    rig = Rig(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "_write", full)
        connection = socket.create_connection(("127.0.0.1", rig.port), timeout=10)
        connection.sendall(b"garbage")
        assert ends(connection) == b""
        wait_until(lambda: "a refused connection cannot be recorded: No space left on device" in caplog.text)
    assert echo_works(rig)
    rig.close()


def test_an_object_without_a_line_is_not_told_as_kept_and_taken_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    rig = Rig(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "_write", full)
        assert rig.send(a_dataset()) == [0xA700]
    assert rig.send(a_dataset()) == [0]
    assert len(rig.files()) == 1
    rig.close()


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, write = Manifest(tmp_path, 1e9, {}), os.write
    manifest.add(Verdict.ACCEPTED, 0, {"sop_instance_uid": "1"})
    with monkeypatch.context() as patched:
        patched.setattr("os.write", lambda descriptor, content: write(descriptor, content[:5]))
        with pytest.raises(OSError, match="No space"):
            manifest.add(Verdict.ACCEPTED, 0, {"sop_instance_uid": "2"})
    manifest.add(Verdict.ACCEPTED, 0, {"sop_instance_uid": "3"})
    manifest.end(1e9, "released")
    (found,) = associations(tmp_path)
    assert found["received"] == found["accepted"] == 2
    assert [o["sop_instance_uid"] for o in association(tmp_path, found["id"])["objects"]] == ["1", "3"]


def test_a_storm_of_empty_associations_leaves_few_manifests_and_what_brings_objects_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sources.quota.WINDOW_S", 1e9)
    rig = Rig(tmp_path, maximum_associations=4)
    release = b"\x05\0\0\0\0\x04\0\0\0\0"
    for _ in range(OF_ONE_ADDRESS + 20):
        connection = established(rig)
        connection.sendall(release)
        assert ends(connection)[:1] == b"\x06"
    assert rig.send(a_dataset()) == [0]
    wait_until(lambda: [m for m in manifests(rig) if m.get("received") == 1])
    rig.close()
    files = list(rig.receiver.manifests.rglob("*.ndjson"))
    assert len(files) == OF_ONE_ADDRESS + 1
    assert sum(m["received"] for m in manifests(rig)) == 1
