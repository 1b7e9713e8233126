"""A lake in a bucket is saved as a folder while others publish, and put back into an empty bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.errors import ConfigError, SinkUnavailable
from cohort.lake import Lake
from cohort.saved import put_back, save
from cohort.store.place import in_folder
from cohort.store.s3 import S3Store
from cohort.verified import checked
from tests.contract.lake_store import NOW, fill, rows
from tests.s3_places import S3Peer, running_moto
from tests.unit.test_lake import line

COUNTED = "SELECT count(*), (SELECT count(*) FROM condition) FROM patient"


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Peer]:
    with running_moto() as peer:
        yield peer


@pytest.fixture
def lake(moto: S3Peer, tmp_path: Path) -> Lake:
    return Lake(moto.place(moto.bucket(), tmp_path / "a"))


def once(monkeypatch: pytest.MonkeyPatch, key: str, do: Callable[[], object]) -> None:
    """`do` happens just before an object is read from a bucket for the first time."""
    read, left = S3Store.read, [do]

    def reading(store: S3Store, wanted: str) -> tuple[bytes, str]:
        if wanted.startswith(key) and left:
            left.pop()()
        return read(store, wanted)

    monkeypatch.setattr(S3Store, "read", reading)


def there_again(moto: S3Peer, saved: Path, tmp_path: Path) -> Lake:
    place = moto.place(moto.bucket(), tmp_path / "b")
    put_back(place.store, saved)
    lake = Lake(place)
    assert not [key for key, problem in checked(lake) if problem]
    lake.publish(NOW)
    return lake


def test_generations_names_and_what_is_not_published_are_there_again(moto: S3Peer, lake: Lake, tmp_path: Path) -> None:
    fill(lake, line("Patient", "1"))
    lake.keep("paper", "g000001")
    fill(lake, line("Patient", "2"))
    lake.append([line("Condition", "c")])
    with lake.loading() as loading:
        loading([line("Condition", "d")])
        loading([line("Condition", "e")])
    count = save(lake.place.store, tmp_path / "saved")
    folder = Lake(in_folder(tmp_path / "saved"))
    assert not [key for key, problem in checked(folder) if problem]
    assert count == sum(1 for p in (tmp_path / "saved").rglob("*") if p.is_file() and p.name != "CURRENT")
    again = there_again(moto, tmp_path / "saved", tmp_path)
    assert rows(again, COUNTED) == ((2, 3),)
    assert [one.names for one in again.generations()][-1] == ("paper",)


def test_what_is_published_while_the_delta_is_read_is_not_lost(
    moto: S3Peer, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, line("Patient", "1"))
    lake.append([line("Condition", "c")])
    with lake.loading() as loading:
        loading([line("Condition", "d")])
    once(monkeypatch, "delta/", lambda: lake.publish(NOW))
    save(lake.place.store, tmp_path / "saved")
    assert rows(there_again(moto, tmp_path / "saved", tmp_path), COUNTED) == ((1, 2),)


def test_a_generation_whose_manifest_went_is_passed_over_for_the_newest(
    moto: S3Peer, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake, line("Patient", "1"))

    def newer() -> None:
        fill(lake, line("Patient", "2"))
        lake.place.store.delete(["generations/g000001.json"])

    once(monkeypatch, "generations/g000001", newer)
    save(lake.place.store, tmp_path / "saved")
    assert rows(there_again(moto, tmp_path / "saved", tmp_path), COUNTED) == ((2, 0),)


def test_a_lake_whose_files_are_missing_cannot_be_saved(lake: Lake, tmp_path: Path) -> None:
    fill(lake, line("Patient", "1"))
    store = lake.place.store
    store.delete([store.list("files")[0].key])
    with pytest.raises(SinkUnavailable, match="back up again"):
        save(store, tmp_path / "saved")


def test_a_file_that_is_not_what_its_name_says_is_told(lake: Lake, tmp_path: Path) -> None:
    fill(lake, line("Patient", "1"))
    store = lake.place.store
    store.put(store.list("files")[0].key, b"other")
    with pytest.raises(SinkUnavailable, match="content that its name says"):
        save(store, tmp_path / "saved")


def test_a_lake_that_is_there_is_not_written_over(lake: Lake, tmp_path: Path) -> None:
    fill(lake, line("Patient", "1"))
    save(lake.place.store, tmp_path / "saved")
    with pytest.raises(ConfigError, match="another prefix"):
        put_back(lake.place.store, tmp_path / "saved")


def test_a_lake_that_never_published_is_saved_with_its_delta(moto: S3Peer, lake: Lake, tmp_path: Path) -> None:
    lake.append([line("Patient", "1")])
    assert save(lake.place.store, tmp_path / "saved") == 1
    assert rows(there_again(moto, tmp_path / "saved", tmp_path), COUNTED) == ((1, 0),)
