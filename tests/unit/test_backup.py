"""A backup of a bridge that runs, put back after everything was lost, is made true again until nothing differs."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge import config
from bridge.backup import MANIFEST, back_up, restore
from bridge.cli import app
from bridge.errors import ConfigError
from bridge.follow.ports import ExportJob
from bridge.sources.spool import Spool, data_set_digest
from bridge.state import State
from tests.backup_drill import drill, silent
from tests.builders import STUDY, a_dataset, as_file, write_file


def keep(spool: Spool, instance: int) -> Path:
    dataset = a_dataset(instance=instance)
    part = spool.part()
    part.write_bytes(as_file(dataset))
    return spool.keep(part, STUDY, dataset.SOPInstanceUID, data_set_digest(part)).path


def test_the_drill_everything_is_lost_and_restored_to_no_difference(tmp_path: Path) -> None:
    drill(lambda name: config.embedded(tmp_path / name), tmp_path)


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
    (tmp_path / "saved" / MANIFEST).write_bytes(manifest.replace(b'"format": 2', b'"format": 3'))
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
    back_up(config.embedded(tmp_path / "data"), tmp_path / "saved", silent)
    elsewhere = config.embedded(tmp_path / "new").model_copy(update={"state_url": "postgresql+psycopg://u@h/d"})
    with pytest.raises(ConfigError, match="a state in SQLite"):
        restore(elsewhere, tmp_path / "saved", 0.0, silent)


def test_a_state_at_another_place_is_put_back_there(tmp_path: Path) -> None:
    def at(name: str) -> config.Settings:
        url = f"sqlite:///{tmp_path / name / 'elsewhere.sqlite'}"
        return config.embedded(tmp_path / name).model_copy(update={"state_url": url})

    state = State(at("data").database_url)
    state.agree("a name", "a value")
    state.close()
    back_up(at("data"), tmp_path / "saved", silent)
    restore(at("new"), tmp_path / "saved", 0.0, silent)
    again = State(at("new").database_url)
    assert again.agreed("a name") == "a value"
    again.close()


def test_everything_that_cannot_be_made_again_is_in_it_and_secrets_are_readable_by_their_owner_alone(
    tmp_path: Path,
) -> None:
    data, settings = tmp_path / "data", config.embedded(tmp_path / "data")
    state = State(settings.database_url)
    assert state.add_export(ExportJob("job", "http://b/$export", ("Patient",), 0.0, 0, 0.0, 0.0), 5, 0.0)
    state.close()
    kept = ("id", "image-token.key", "lake/pseudonyms.key", "lake/log/queries.ndjson", "inbox/incoming/block")
    made_again = ("exports/JOB/Patient.ndjson", "documents/pacs/0.dcm", "lake-cache/files/a.parquet", "lock")
    for name in (*kept, *made_again, "lake/outcomes.sqlite"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(name)
        (data / name).chmod(0o600 if name.endswith(".key") else 0o644)
    back_up(settings, tmp_path / "saved", silent)
    for key in (tmp_path / "saved").rglob("*.key"):
        key.chmod(0o644)  # copied by a tool that loses modes
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o700
    restored = config.embedded(tmp_path / "new")
    restore(restored, tmp_path / "saved", 0.0, silent)
    there = {str(p.relative_to(tmp_path / "new")): p for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert there.keys() == {*kept, "state.sqlite"} | {n for n in there if n.startswith("state.sqlite-")}
    assert all(there[name].read_text() == name for name in kept)
    assert {stat.S_IMODE(there[name].stat().st_mode) for name in kept if name.endswith(".key")} == {0o600}
    again = State(restored.database_url)
    assert again.exports() == []
    again.close()


def test_a_watched_folder_that_still_has_files_is_left_as_it_is(tmp_path: Path) -> None:
    settings = config.embedded(tmp_path / "data")
    State(settings.database_url).close()
    write_file(tmp_path / "data" / "inbox" / "old.dcm")
    back_up(settings, tmp_path / "saved", silent)
    restored = config.embedded(tmp_path / "new")
    write_file(tmp_path / "new" / "inbox" / "new.dcm")
    restore(restored, tmp_path / "saved", 0.0, silent)
    assert [p.name for p in (tmp_path / "new" / "inbox").iterdir()] == ["new.dcm"]
