"""Whatever happened on a DICOM server and whenever it was looked at: in the end the bridge holds what it holds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from bridge.errors import SourceUnavailable
from bridge.sources import dicom_server
from tests.dicom_server.archive import TICKS, Fault, SimulatedArchive
from tests.dicom_server.connecting import connect

STUDIES = [f"1.2.3.{n}" for n in range(1, 9)]
PARTITIONS = ["Microsoft.Default", "north"]


@dataclass
class Mirror:
    """What a reader holds that reads a study whenever it is named, and compares everything after a reset."""

    archive: SimulatedArchive
    version: str
    position: str | None = None
    held: dict[str, dict[str, str]] = field(default_factory=dict)
    resets: int = 0

    def __post_init__(self) -> None:
        self.source = connect(self.archive, self.version)

    def poll(self, chance: random.Random) -> None:
        for _ in range(100):
            try:
                page = self.source.changes(self.position)
                repeat = chance.random() < 0.1
                for study in page.studies:
                    self.read(study)
                if page.resweep:
                    self.resets += 1
                    for study in {*self.held, *(uid for uid, _ in self.source.inventory())}:
                        self.read(study)
            except SourceUnavailable:
                continue
            if not repeat:  # else: as after a crash before the page was committed
                self.position = page.position or self.position
                if page.caught_up:
                    return
        raise AssertionError("the feed never ends")

    def read(self, study: str) -> None:
        found = self.source.read(study)
        self.held.pop(study, None)
        if found.held:
            self.held[study] = {h.text("SOPInstanceUID"): h.text("PatientID") for h in found.instances}

    def restart(self) -> None:
        self.source.close()
        self.source = connect(self.archive, self.version)


def truth(archive: SimulatedArchive) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for key, version in sorted(archive.held.items()):
        found.setdefault(key[1], {}).setdefault(key[3], str(version.dataset().PatientID))
    return found


def something_happens(archive: SimulatedArchive, chance: random.Random, late: bool) -> None:
    study, partition = chance.choice(STUDIES), chance.choice(PARTITIONS)
    late_s = chance.choice([0, 0, 0, 5.5, 40]) if late else 0.0
    match chance.randrange(9):
        case 0 | 1 | 2:
            first = chance.randrange(1, 30)
            archive.put(study, partition, late_s, instances=chance.choice([1, 3, 40]), first=first)
        case 3 if archive.keys(study, partition):
            archive.update(study, partition, late_s, PatientID=f"P{chance.randrange(1000)}")
        case 4 if archive.keys(study, partition):
            archive.delete(study, partition, late_s=late_s)
        case 5 if keys := archive.keys(study, partition):
            archive.delete(study, partition, instance=chance.choice(keys)[3], late_s=late_s)
        case 6:
            archive.skip(chance.choice([1, 99, 100, 101, 1000]))
        case 7:
            archive.now += chance.choice([1, 70, 100_000]) * TICKS
        case 8 if chance.random() < 0.1:
            archive.now += TICKS
            archive.reset()
            archive.put(chance.choice(STUDIES), instances=2)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("seed", range(25))
def test_any_history_ends_in_what_the_server_holds(monkeypatch: pytest.MonkeyPatch, seed: int, version: str) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(dicom_server, "STEPS", chance.choice([1, 2, 20]))
    archive = SimulatedArchive(partitions=True)
    archive.step_s = chance.choice([0.0, 0.01, 1.0])
    mirror = Mirror(archive, version)
    for _ in range(60):
        something_happens(archive, chance, late=version == "v2")
        if chance.random() < 0.2:
            archive.faults.append(Fault(chance.choice(["changefeed?", "latest", "metadata"]), 503, times=1))
        if chance.random() < 0.3:
            mirror.poll(chance)
        if chance.random() < 0.1:
            mirror.restart()
    archive.faults.clear()
    mirror.poll(chance)
    assert mirror.held == truth(archive)
    before = mirror.position
    mirror.source.close()
    mirror.restart()
    assert not mirror.source.changes(before).studies
    mirror.source.close()
