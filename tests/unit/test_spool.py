from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import pytest

from bridge.sources import spool as spool_module
from bridge.sources.spool import Kept, Outcome, Spool

STUDY = "1.2.3"


def keep(spool: Spool, content: bytes = b"content", instance: str = "1.2.3.1", study: str = STUDY) -> Kept:
    part = spool.part()
    part.write_bytes(content)
    return spool.keep(part, study, instance, hashlib.sha256(content).hexdigest())


def test_an_object_whose_file_was_taken_away_is_kept_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = keep(spool)
    first.path.unlink()
    again = keep(spool)
    assert again == Kept(first.path, Outcome.NEW)
    assert again.path.read_bytes() == b"content"
    assert keep(spool).outcome is Outcome.DUPLICATE


def test_an_object_whose_study_folder_was_taken_away_is_kept_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = keep(spool)
    shutil.rmtree(first.path.parent.parent)
    assert keep(spool) == Kept(first.path, Outcome.NEW)
    assert first.path.read_bytes() == b"content"


def test_content_that_was_taken_away_is_in_no_conflict_with_other_content(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    keep(spool).path.unlink()
    assert keep(spool, b"other").outcome is Outcome.NEW
    assert keep(spool).outcome is Outcome.CONFLICT


def test_the_folder_of_a_study_is_durable_before_anybody_is_told_whoever_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    first_waits, first_goes_on = threading.Event(), threading.Event()
    synced: dict[str, list[Path]] = {"first": [], "second": []}
    sync_folder = spool_module.sync_folder

    def watched(folder: Path) -> None:
        name = threading.current_thread().name
        if name == "first":
            first_waits.set()
            assert first_goes_on.wait(10)
        sync_folder(folder)
        synced[name].append(folder)

    monkeypatch.setattr(spool_module, "sync_folder", watched)
    threads = [
        threading.Thread(target=keep, args=(spool, b"content", f"1.2.3.{number}"), name=name)
        for number, name in enumerate(synced)
    ]
    threads[0].start()
    assert first_waits.wait(10)
    threads[1].start()
    threads[1].join(10)
    (study,) = spool.studies.glob("*/*")
    assert set(synced["second"]) == {study, study.parent, spool.studies}
    first_goes_on.set()
    threads[0].join(10)
    assert synced["first"] == [study]


def test_a_folder_made_again_is_made_durable_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, synced = Spool(tmp_path), list[Path]()
    monkeypatch.setattr(spool_module, "sync_folder", synced.append)
    study = keep(spool).path.parent
    synced.clear()
    keep(spool, instance="1.2.3.2")
    assert synced == [study]
    shutil.rmtree(study)
    synced.clear()
    keep(spool)
    assert set(synced) == {study, study.parent, spool.studies}


def test_the_spool_itself_is_durable_once_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = list[Path]()
    monkeypatch.setattr(spool_module, "sync_folder", synced.append)
    Spool(tmp_path / "spool" / "receiver")
    assert set(synced) == {tmp_path, tmp_path / "spool", tmp_path / "spool" / "receiver"}
