from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from bridge.errors import SourceUnavailable
from bridge.sources.retention import Retention
from bridge.sources.scu import Peer, Sender, Sent
from bridge.sources.spool import is_trimmed
from tests.builders import STUDY, a_dataset
from tests.unit.test_receiver import Rig


@dataclass
class Archive:
    """Remembers what it was sent; `status` is what it answers, None: it is away."""

    status: int | None = 0
    sent: list[Path] = field(default_factory=list)

    def send(self, paths: Sequence[Path]) -> list[Sent]:
        if self.status is None:
            raise SourceUnavailable("away")
        self.sent += paths
        return [Sent(path, self.status) for path in paths]


class RetainingRig(Rig):
    """A receiver whose retention works when told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.retention: Retention
        super().__init__(folder, retention=partial(self._made, settings))
        self.retention.stop()

    def _made(self, settings: dict[str, Any], root: Path, spool: Any) -> Retention:
        replayed = lambda: self.state.replayed_files("rx")  # noqa: E731
        self.retention = Retention("rx", root, spool, self._store, lambda: 4e9, replayed=replayed, **settings)
        return self.retention

    def waiting(self) -> int:
        return sum(len(list((self.folder / "spool" / name).iterdir())) for name in ("to-forward", "to-drop"))


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def rig(tmp_path: Path, archive: Archive) -> Iterator[RetainingRig]:
    made = RetainingRig(tmp_path, forwarder=archive, drop_pixel_data=True)
    yield made
    made.close()


def test_pixel_data_is_dropped_once_the_object_is_forwarded(rig: RetainingRig, archive: Archive) -> None:
    archive.status = None
    assert rig.send(a_dataset()) == [0]
    with pytest.raises(SourceUnavailable):
        rig.retention.work()
    (file,) = rig.files()
    assert not is_trimmed(file)
    before = rig.receiver.read(STUDY)
    archive.status = 0
    rig.retention.work()
    assert archive.sent == [file]
    assert is_trimmed(file)
    assert "PixelData" not in dcmread(file)
    assert rig.receiver.read(STUDY).instances == before.instances
    assert rig.waiting() == 0


def test_a_dropped_object_is_neither_new_nor_changed_nor_taken_again(rig: RetainingRig) -> None:
    rig.send(a_dataset())
    rig.retention.work()
    assert rig.receiver.changes(None).files == ()
    assert rig.send(a_dataset()) == [0]
    assert len(rig.files()) == 1
    assert len(rig.receiver.read(STUDY).instances) == 1


def test_nothing_is_dropped_before_its_time(tmp_path: Path) -> None:
    rig = RetainingRig(tmp_path, drop_pixel_data=True, retain_s=4e9)
    rig.send(a_dataset())
    rig.retention.work()
    (file,) = rig.files()
    assert not is_trimmed(file)
    assert rig.waiting() == 1
    rig.close()


def test_what_the_archive_refuses_is_parked_kept_whole_and_can_be_replayed(rig: RetainingRig, archive: Archive) -> None:
    archive.status = 0xC000
    rig.send(a_dataset())
    rig.retention.work()
    (file,) = rig.files()
    assert not is_trimmed(file)
    (item,) = rig.state.items(parked=True)
    assert "C000" in item.error
    archive.status = 0
    rig.state.replay(item.queue, item.key, 2.0)
    rig.retention.work()
    assert is_trimmed(file)
    assert rig.state.items(parked=True) == []
    assert rig.waiting() == 0


def test_what_waits_outlives_the_process(tmp_path: Path, archive: Archive) -> None:
    rig = RetainingRig(tmp_path, forwarder=archive)
    rig.send(a_dataset(), a_dataset(instance=2))
    rig.close()
    again = RetainingRig(tmp_path, forwarder=archive)
    again.retention.work()
    assert len({path.name for path in archive.sent}) == 2
    assert again.waiting() == 0
    again.close()


def test_objects_reach_another_receiver_bit_for_bit(tmp_path: Path) -> None:
    other = Rig(tmp_path / "other")
    rig = RetainingRig(tmp_path / "first", forwarder=Sender(Peer("127.0.0.1", other.port, "BRIDGE")))
    assert rig.send(a_dataset(), a_dataset(instance=2)) == [0, 0]
    rig.retention.work()
    assert other.receiver.settled()
    assert [f.name for f in other.files()] == [f.name for f in rig.files()]
    rig.close()
    other.close()
