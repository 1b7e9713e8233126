"""The drill: a bridge is saved while it works, loses everything, is restored, and made true until nothing differs."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bridge import config
from bridge.backup import back_up, restore
from bridge.config import Settings
from bridge.state import State
from bridge.verify_command import parts
from cohort.lake import Lake
from cohort.store.place import place_of
from tests.builders import STUDY, headers
from tests.fhir_fake import FhirFake
from tests.unit.test_reconcile import STUDIES, Hospital

BACKUPS = 4


def opened(settings: Settings, server: FhirFake, before: Hospital | None = None) -> Hospital:
    """A bridge on what the settings name; after another one: with the archives as they are now."""
    hospital = Hospital(State(settings.database_url), server, Lake(place_of(settings)))
    if before is not None:
        hospital.a, hospital.b, hospital.now = before.a, before.b, before.now
        hospital.pipeline.sources = {"a": before.a, "b": before.b}
    return hospital


def silent(_what: str) -> None:
    return None


def whole(settings: Settings) -> bool:
    return not any(one.damaged or one.error for one in parts(settings))


def clinical(number: int) -> dict[str, object]:
    """A line of somebody else's, which the state does not have."""
    content = {"resourceType": "Condition", "id": f"c{number}", "subject": {"reference": "Patient/p"}}
    line = {"kind": "resource", "origin": "ehr", "type": "Condition", "id": f"c{number}", "revision": 1}
    return line | {"deleted": False, "resource": content}


def conditions(lake: Lake) -> int:
    lake.publish(datetime.now(UTC))
    found = lake.current()
    assert found is not None
    return found.tables["condition"].rows


def drill(site: Callable[[str], Settings], folder: Path) -> None:
    """`site` gives settings whose data folder, database and bucket are empty, by a name."""
    server, settings = FhirFake(), site("data")
    hospital = opened(settings, server)
    stop, rounds, loaded, at_least = threading.Event(), [0], [0], list[int]()

    def traffic() -> None:
        """Studies come, are delivered and published, clinical data is loaded, while the backup is made."""
        while not stop.is_set():
            rounds[0] += 1
            hospital.a.put(headers(study=f"{STUDY}.{100 + rounds[0]}"), headers(study=STUDIES[0], instance=rounds[0]))
            hospital.run(3)
            with hospital.real_lake.loading() as loading:
                loading([clinical(loaded[0])])
            loaded[0] += 1
            hospital.real_lake.publish(datetime.now(UTC))

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        for number in range(BACKUPS):
            before = rounds[0]
            at_least.append(loaded[0])
            back_up(settings, folder / f"backup-{number}", silent)
            while rounds[0] == before and thread.is_alive():
                time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
    assert rounds[0] > BACKUPS
    hospital.a.put(headers(study=f"{STUDY}.999"))
    hospital.withdraw(STUDIES[2])
    hospital.run(20)
    hospital.state.close()
    shutil.rmtree(settings.data_dir)
    for number in (0, BACKUPS - 1):
        assert whole(config.embedded(folder / f"backup-{number}"))
        restored = site(f"restored-{number}")
        restore(restored, folder / f"backup-{number}", hospital.now, silent)
        again = opened(restored, server, hospital)
        again.run(3000)
        report = again.reconcile(whole=True)
        assert report.agrees, report.as_json()
        assert again.studies(f"{STUDY}.999")
        assert again.study_status(STUDIES[2]) == "entered-in-error"
        assert {c.compared["studies"] for c in report.comparisons if c.right == "lake"} == {rounds[0] + 5}
        assert at_least[number] <= conditions(again.real_lake) <= loaded[0]
        again.state.close()
        assert whole(restored)
