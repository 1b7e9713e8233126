"""A backup of a bridge that runs, put back after everything was lost, is made true again until nothing differs."""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge import config
from bridge.backup import MANIFEST, back_up, restore
from bridge.cli import app
from bridge.errors import ConfigError
from bridge.sources.spool import Spool, data_set_digest
from bridge.state import State
from bridge.verify_command import parts
from tests.builders import STUDY, a_dataset, as_file, headers, write_file
from tests.fhir_fake import FhirFake
from tests.unit.test_reconcile import STUDIES, Hospital


def opened(folder: Path, server: FhirFake, before: Hospital | None = None) -> Hospital:
    """A bridge on a data folder; after another one: with the archives as they are now."""
    hospital = Hospital(State(f"sqlite:///{folder / 'state.sqlite'}"), server, folder)
    if before is not None:
        hospital.a, hospital.b, hospital.now = before.a, before.b, before.now
        hospital.pipeline.sources = {"a": before.a, "b": before.b}
    return hospital


def silent(_what: str) -> None:
    return None


def whole(data_dir: Path) -> bool:
    return not any(one.damaged or one.error for one in parts(config.embedded(data_dir)))


def keep(spool: Spool, instance: int) -> Path:
    dataset = a_dataset(instance=instance)
    part = spool.part()
    part.write_bytes(as_file(dataset))
    return spool.keep(part, STUDY, dataset.SOPInstanceUID, data_set_digest(part)).path


def test_the_drill_everything_is_lost_and_restored_to_no_difference(tmp_path: Path) -> None:
    server, data = FhirFake(), tmp_path / "data"
    hospital = opened(data, server)
    settings = config.embedded(data)
    stop, rounds = threading.Event(), [0]

    def traffic() -> None:
        """Studies come, are delivered and published while the backup is made."""
        while not stop.is_set():
            rounds[0] += 1
            hospital.a.put(headers(study=f"{STUDY}.{100 + rounds[0]}"), headers(study=STUDIES[0], instance=rounds[0]))
            hospital.run(3)
            hospital.real_lake.publish(datetime.now(UTC))

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        for number in range(4):
            before = rounds[0]
            back_up(settings, tmp_path / f"backup-{number}", silent)
            while rounds[0] == before and thread.is_alive():
                time.sleep(0.01)
    finally:
        stop.set()
        thread.join()
    assert rounds[0] > 4
    hospital.a.put(headers(study=f"{STUDY}.999"))
    hospital.withdraw(STUDIES[2])
    hospital.run(20)
    hospital.state.close()
    shutil.rmtree(data)
    for number in (0, 3):
        assert whole(tmp_path / f"backup-{number}")
        restored = config.embedded(tmp_path / f"restored-{number}")
        restore(restored, tmp_path / f"backup-{number}", hospital.now, silent)
        again = opened(restored.data_dir, server, hospital)
        again.run(3000)
        report = again.reconcile(whole=True)
        assert report.agrees, report.as_json()
        assert again.studies(f"{STUDY}.999")
        assert again.study_status(STUDIES[2]) == "entered-in-error"
        assert {c.compared["studies"] for c in report.comparisons if c.right == "lake"} == {rounds[0] + 5}
        again.state.close()
        assert whole(restored.data_dir)


def test_by_command_files_that_were_imported_are_there_again(tmp_path: Path) -> None:
    for number in range(3):
        write_file(tmp_path / "disc" / f"{number}.dcm", study=f"{STUDY}.{number}")

    def bridge(*words: object, data: str = "data", code: int = 0) -> str:
        done = CliRunner().invoke(app, [*map(str, words), "--data-dir", str(tmp_path / data)])
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    bridge("import", tmp_path / "disc")
    told = json.loads(bridge("backup", tmp_path / "saved", "--json"))
    assert (told["spool_files"], told["lake"]) == (3, "lake")
    shutil.rmtree(tmp_path / "data")
    assert "Start: bridge run" in bridge("restore", tmp_path / "saved")
    assert json.loads(bridge("status", "--json"))["resources"]["ImagingStudy"] == 3
    bridge("verify")
    report = json.loads(bridge("reconcile", "--json"))
    assert {c["right"]: c["compared"].get("studies") for c in report["comparisons"]}["lake"] == 3
    assert bridge("reconcile").count("agree") == len(report["comparisons"])
    assert "all agreed" in bridge("status")
    refused = CliRunner().invoke(app, ["restore", str(tmp_path / "saved"), "--data-dir", str(tmp_path / "data")])
    assert "move it away" in str(refused.exception)


def test_what_never_changes_is_linked_and_what_is_not_finished_left_out(tmp_path: Path) -> None:
    State(f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}").close()
    spool = Spool(tmp_path / "data" / "spool" / "studies")
    kept = keep(spool, 1)
    log = tmp_path / "data" / "spool" / "studies" / "associations" / "2026-01-01" / "a.ndjson"
    log.parent.mkdir(parents=True)
    log.write_text("{}\n")
    spool.part().write_bytes(b"half")
    back_up(config.embedded(tmp_path / "data"), tmp_path / "saved", silent)
    saved = tmp_path / "saved" / "spool" / "studies"
    assert sorted(p.name for p in saved.rglob("*") if p.is_file()) == sorted([kept.name, "a.ndjson"])
    assert next(saved.rglob("*.dcm")).stat().st_ino == kept.stat().st_ino
    with log.open("a") as more:
        more.write("{}\n")
    assert next(saved.rglob("a.ndjson")).read_text() == "{}\n"


def test_a_backup_that_was_interrupted_or_damaged_is_not_restored(tmp_path: Path) -> None:
    State(f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}").close()
    keep(Spool(tmp_path / "data" / "spool" / "in"), 1)
    back_up(config.embedded(tmp_path / "data"), tmp_path / "saved", silent)

    def refused() -> str:
        words = ["restore", str(tmp_path / "saved"), "--data-dir", str(tmp_path / "new")]
        return str(CliRunner().invoke(app, words).exception)

    manifest = (tmp_path / "saved" / MANIFEST).read_bytes()
    (tmp_path / "saved" / MANIFEST).unlink()
    assert "no whole backup" in refused()
    (tmp_path / "saved" / MANIFEST).write_bytes(manifest.replace(b'"format": 1', b'"format": 2'))
    assert "newer program" in refused()
    (tmp_path / "saved" / MANIFEST).write_bytes(manifest)
    (object_,) = (tmp_path / "saved" / "spool").rglob("*.dcm")
    object_.write_bytes(object_.read_bytes()[:-1] + b"\x55")
    assert "damaged" in refused()
    assert not (tmp_path / "new" / "state.sqlite").exists()


def test_a_backup_needs_a_new_folder_and_a_state_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no state"):
        back_up(config.embedded(tmp_path / "data"), tmp_path / "saved", silent)
    State(f"sqlite:///{tmp_path / 'data' / 'state.sqlite'}").close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ConfigError, match="new folder"):
        back_up(config.embedded(tmp_path / "data"), tmp_path / "full", silent)
    elsewhere = config.embedded(tmp_path / "data").model_copy(update={"state_url": "postgresql+psycopg://u@h/d"})
    with pytest.raises(ConfigError, match="its own tools"):
        back_up(elsewhere, tmp_path / "saved", silent)
