"""The loops following a DICOMweb archive that fails now and then: in the end FHIR says what the archive holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from bridge.state import State
from bridge.sync import Pipeline, Timing
from tests.archive_fake import FakeSink
from tests.builders import a_translator
from tests.dicomweb_fake import TODAY, FakeDicomWeb, Quirks, connect

HOUR = 3600.0


class Rig:
    """A pipeline with one archive and one sink; `failing` is the share of requests that are not answered."""

    def __init__(self, state: State, fake: FakeDicomWeb, chance: random.Random) -> None:
        self.state, self.fake, self.now, self.failing = state, fake, TODAY.timestamp(), 0.0
        self.ehr = FakeSink("ehr")

        def unanswered(request: httpx.Request) -> httpx.Response:
            if chance.random() < self.failing:
                return httpx.Response(chance.choice((500, 502, 503)))
            return fake.handle_request(request)

        clock = lambda: self.now  # noqa: E731
        self.source = connect(httpx.MockTransport(unanswered), clock=clock, verify_s=60, sweep_s=6 * HOUR, page_size=10)
        self.pipeline = Pipeline(
            state=state,
            sources={"pacs": self.source},
            sinks={"ehr": self.ehr},
            translator=a_translator(("pacs",)),
            timing=Timing(quiet_s=3, max_wait_s=60),
            clock=clock,
            random=lambda: 1.0,
        )
        self.pipeline.prepare()

    def run(self, seconds: float, steps: int = 10) -> None:
        for _ in range(steps):
            self.now += seconds / steps
            line = self.pipeline
            work = (line.poll, line.sweep, line.verify, line.backfill, line.translate)
            while any(step("w") for step in work) or self.pipeline.deliver("ehr", "w"):
                pass

    def told(self) -> dict[str, int]:
        """Study → number of instances, as the sink was told last; withdrawn studies are not in it."""
        found = {}
        for uid, state in self.ehr.newest().items():
            for resource in state.of_type("ImagingStudy"):
                if resource.content is not None and resource.content["status"] == "available":
                    found[uid] = resource.content["numberOfInstances"]
        return found

    def parked(self) -> list[str]:
        return [item.error for item in self.state.items() if item.parked]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield state
    state.close()


QUIRKS = [
    Quirks(ignores_offset=True, ignores_limit=True, ignores_dates=True, none_is=200),
    Quirks(omits_counts=True, takes_no_lists=True, cap=7),
    Quirks(metadata_levels=("instance",), newest_first=True),
]


@pytest.mark.parametrize("quirks", QUIRKS, ids=repr)
def test_whatever_happens_to_any_study_fhir_ends_true(state: State, quirks: Quirks) -> None:
    chance = random.Random(7)
    rig = Rig(state, FakeDicomWeb(quirks), chance)
    for n in range(14):
        study_date = None if n % 6 == 5 else f"{TODAY.date() - timedelta(days=n * n):%Y%m%d}"
        rig.fake.add(f"1.2.3.{n}", study_date, instances=n % 3 + 1)
    rig.failing = 0.1
    for round_number in range(3):
        rig.run(600, steps=6)
        old, deleted, new = f"1.2.3.{chance.randrange(14)}", f"1.2.3.{chance.randrange(14)}", f"1.2.4.{round_number}"
        if old in rig.fake.held:
            rig.fake.put(next(iter(rig.fake.held[old][f"{old}.1"].values())) | {"00080018": _uid(f"{old}.1.99")})
        if deleted in rig.fake.held:
            rig.fake.delete(deleted)
        rig.fake.add(new, f"{TODAY.date():%Y%m%d}", instances=2)
    rig.failing = 0.0
    rig.run(7 * HOUR, steps=8)
    assert rig.told() == rig.fake.truth()
    assert rig.parked() == []
    rig.source.close()


def _uid(value: str) -> dict[str, object]:
    return {"vr": "UI", "Value": [value]}


def test_an_archive_that_goes_blind_withdraws_nothing(state: State) -> None:
    """Its index is empty and its metadata fails: that is an outage, not the end of every study."""
    rig = Rig(state, FakeDicomWeb(), random.Random(1))
    for n in range(3):
        rig.fake.add(f"1.2.3.{n}")
    rig.run(120)
    told = rig.told()
    assert told == rig.fake.truth()
    for n in range(3):
        rig.fake.faults[f"/studies/1.2.3.{n}/metadata"] = lambda _request: httpx.Response(500)
    held, rig.fake.held = rig.fake.held, {}
    rig.run(7 * HOUR, steps=8)
    assert rig.told() == told
    rig.fake.held = held
    rig.fake.faults.clear()
    rig.run(HOUR)
    assert rig.told() == told
    rig.source.close()
