"""The same studies by folder and by C-STORE, shuffled: byte-identical resources, no second version."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

import orjson
from pydicom import dcmread

from bridge.sources.folder import Folder
from bridge.sync import Pipeline, Timing
from hospital import generate
from tests.archive_fake import FakeSink
from tests.builders import a_translator
from tests.unit.test_receiver import Rig


def test_twice_in_shuffled_order_from_two_sources_is_once(tmp_path: Path) -> None:
    generate(tmp_path / "hospital", patients=24, today=date(2026, 11, 24))
    files = sorted((tmp_path / "hospital" / "dicom").rglob("*.dcm"))[:60]
    outcomes = [followed(tmp_path / str(seed), files, seed) for seed in (1, 2)]
    assert outcomes[0] == outcomes[1]


def followed(folder: Path, files: list[Path], seed: int) -> bytes:
    shuffled = random.Random(seed)
    rig = Rig(folder)
    now = [2e9]
    inbox = folder / "inbox"
    inbox.mkdir()
    sink = FakeSink("ehr")
    pipeline = Pipeline(
        state=rig.state,
        sources={"in": Folder("in", inbox, rig.state, lambda: now[0], settle_s=0), "rx": rig.receiver},
        sinks={"ehr": sink},
        translator=a_translator(order=("in", "rx")),
        timing=Timing(quiet_s=1),
        clock=lambda: now[0],
        random=lambda: 1.0,
    )
    pipeline.prepare()

    def drain() -> None:
        for _ in range(5):
            now[0] += 5
            while pipeline.poll("w") or pipeline.translate("w") or pipeline.deliver("ehr", "w"):
                pass

    def by_folder(round_: int) -> None:
        for number, file in enumerate(shuffled.sample(files, len(files))):
            (inbox / f"{round_}-{number}.dcm").write_bytes(file.read_bytes())

    def by_network() -> None:
        statuses = rig.send(*(dcmread(f) for f in shuffled.sample(files, len(files))))
        assert set(statuses) == {0}

    steps = [lambda: by_folder(1), by_network, by_network, lambda: by_folder(2)]
    if seed % 2:
        steps.reverse()
    for step in steps:
        step()
        drain()
    found = {(r.resource_type, r.id): r for state in sink.newest().values() for r in state.resources}
    assert {r.version for r in found.values()} == {1}
    assert rig.state.items(parked=True) == []
    rig.close()
    return orjson.dumps([found[key].content for key in sorted(found)], option=orjson.OPT_SORT_KEYS)
