"""How a folder is looked at: settled files, quick looks, folders that cannot be listed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import SourceUnavailable
from bridge.sources.tree import Tree
from bridge.state import State
from tests.builders import STUDY, a_dataset, as_file, write_file
from tests.folder_rig import NOW, FolderRig

OLD = NOW - 1e6


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FolderRig]:
    made = FolderRig(tmp_path)
    yield made
    made.state.close()


def test_a_file_from_the_future_settles_by_our_own_time(rig: FolderRig) -> None:
    file = write_file(rig.root / "a.dcm")
    os.utime(file, (NOW + 9e5, NOW + 9e5))
    assert rig.follow() == set()
    rig.now += 2
    assert rig.follow() == {STUDY}


def test_a_young_truncated_file_is_not_parked_before_it_stops_changing(rig: FolderRig) -> None:
    whole = as_file(a_dataset())
    file = rig.root / "a.dcm"
    for length in (40, 200, len(whole) - 2):
        file.write_bytes(whole[:length])
        os.utime(file, (rig.now, rig.now))
        rig.now += 2
        assert rig.follow() == set()
        assert rig.parked() == {}
    rig.now += 9
    rig.follow()
    assert list(rig.parked()) == ["a.dcm"]
    file.write_bytes(whole)
    assert rig.follow() == {STUDY}
    assert rig.parked() == {}


def test_a_file_that_shrinks_keeps_its_study_until_it_has_stopped_changing(rig: FolderRig) -> None:
    file = write_file(rig.root / "a.dcm")
    rig.follow()
    file.write_bytes(file.read_bytes()[:300])
    os.utime(file, (rig.now, rig.now))
    rig.now += 5
    rig.follow()
    assert dict(rig.folder.inventory()) == {STUDY: 1}
    rig.now += 6
    assert rig.follow() == {STUDY}
    assert dict(rig.folder.inventory()) == {}
    assert rig.parked()["a.dcm"].startswith("truncated")


def test_a_file_that_is_replaced_or_vanishes_between_listing_and_reading_is_met_at_the_next_look(
    rig: FolderRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sources.folder.PAGE_FILES", 1)
    for number in (1, 2, 3):
        write_file(rig.root / f"{number}.dcm", instance=number)
    rig.look()
    (rig.root / "2.dcm").unlink()
    (rig.root / "3.dcm").unlink()
    write_file(rig.root / "new.dcm", study=STUDY + ".9").rename(rig.root / "3.dcm")
    assert rig.follow() == {STUDY + ".9"}
    assert rig.follow() == set()
    assert dict(rig.folder.inventory()) == {STUDY: 1, STUDY + ".9": 1}


def test_a_renamed_file_is_the_same_study_again(rig: FolderRig) -> None:
    write_file(rig.root / "a.dcm")
    write_file(rig.root / "b.dcm", instance=2)
    rig.follow()
    (rig.root / "sub").mkdir()
    (rig.root / "a.dcm").rename(rig.root / "sub" / "c.dcm")
    assert rig.follow() == {STUDY}
    assert rig.held(STUDY) == {f"{STUDY}.1.1", f"{STUDY}.1.2"}


def test_the_index_is_read_once_and_not_at_every_look(rig: FolderRig) -> None:
    class Counting:
        def __init__(self, state: State) -> None:
            self.state, self.reads = state, 0

        def known_files(self, source: str) -> dict[str, tuple[int, int]]:
            self.reads += 1
            return self.state.known_files(source)

        def __getattr__(self, name: str) -> object:
            return getattr(self.state, name)

    index = Counting(rig.state)
    rig.folder._index = index
    write_file(rig.root / "a.dcm")
    for number in range(5):
        rig.follow()
        write_file(rig.root / f"{number}.dcm", instance=number + 2)
    assert index.reads == 1


class Quick:
    """A tree that takes every look but the first as a quick one."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bridge.sources.tree.SMALL", -1)
        monkeypatch.setattr("bridge.sources.tree.THOROUGH_SHARE", 1e-12)
        self.root, self.tree = root, Tree("inbox", root, {}, lambda: NOW, 1.0)

    def add(self, path: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")

    def look(self) -> tuple[set[str], set[str]]:
        found = self.tree.look()
        self.tree.remember(found.changed)
        self.tree.forget(found.gone)
        return set(found.changed), set(found.gone)


def test_a_quick_look_sees_what_comes_and_goes_but_not_what_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Quick(tmp_path, monkeypatch)
    for path in ("a", "b", "one/c", "one/two/d"):
        quick.add(path)
    assert quick.look() == ({"a", "b", "one/c", "one/two/d"}, set())
    assert quick.look() == (set(), set())
    quick.add("one/two/e")
    (tmp_path / "b").unlink()
    (tmp_path / "a").write_bytes(b"longer")
    assert quick.look() == ({"one/two/e"}, {"b"})
    monkeypatch.setattr("bridge.sources.tree.SMALL", 1000)
    assert quick.look() == ({"a"}, set())


def test_a_quick_look_sees_folders_come_go_and_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Quick(tmp_path, monkeypatch)
    for path in ("one/a", "one/two/b", "three/c"):
        quick.add(path)
    quick.look()
    (tmp_path / "one").rename(tmp_path / "three" / "one")
    assert quick.look() == ({"three/one/a", "three/one/two/b"}, {"one/a", "one/two/b"})
    assert quick.look() == (set(), set())


def test_what_was_not_taken_is_told_again_by_a_quick_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Quick(tmp_path, monkeypatch)
    quick.add("sub/a")
    assert set(quick.tree.look().changed) == {"sub/a"}
    assert set(quick.tree.look().changed) == set()
    quick.tree.again("sub/a")
    assert set(quick.tree.look().changed) == {"sub/a"}


def test_a_quick_look_does_not_believe_a_folder_time_that_is_hardly_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that counts in steps of two seconds: what came just after a listing left the time alone."""
    quick = Quick(tmp_path, monkeypatch)
    for age_s, seen in ((1.0, {"b"}), (60.0, set())):
        quick.tree = Tree("inbox", tmp_path, {}, lambda: NOW, 0.0)
        quick.add("a")
        os.utime(tmp_path, (NOW - age_s, NOW - age_s))
        quick.look()
        quick.add("b")
        os.utime(tmp_path, (NOW - age_s, NOW - age_s))
        assert quick.look() == (seen, set())
        (tmp_path / "b").unlink()


def test_a_broken_file_is_looked_at_again_by_quick_looks(rig: FolderRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.sources.tree.SMALL", -1)
    monkeypatch.setattr("bridge.sources.tree.THOROUGH_SHARE", 1e-12)
    file = rig.root / "a.dcm"
    file.write_bytes(as_file(a_dataset())[:300])
    os.utime(file, (NOW - 2, NOW - 2))
    rig.follow()
    assert rig.parked() == {}
    rig.now += 9
    rig.follow()
    assert list(rig.parked()) == ["a.dcm"]


def test_files_in_a_folder_that_can_no_longer_be_listed_are_not_taken_for_gone() -> None:
    """Permissions do not stop root, so that the look is taken as somebody else."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        root.chmod(0o755)
        for path in ("shut/a", "shut/inner/b", "open/c"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"x")
        tree = Tree("inbox", root, {}, lambda: NOW, 1.0)
        tree.remember(tree.look().changed)
        (root / "shut").chmod(0o000)
        try:
            os.seteuid(65534 if user == 0 else user)
            shut, again = tree.look(), tree.look()
        finally:
            os.seteuid(user)
            (root / "shut").chmod(0o755)
        assert (shut.gone, dict(shut.closed)) == ((), {"shut": "the folder cannot be listed: Permission denied"})
        assert (again.gone, again.closed, again.empty) == ((), {}, False)
        assert tree.look().opened == ("shut",)


def test_one_folder_that_cannot_be_listed_stops_nothing_else_and_loses_nothing(rig: FolderRig) -> None:
    """A path longer than the system takes stands for every such folder; permissions do not stop root."""
    deep = rig.root / ("d" * 200)
    write_file(deep / "inner.dcm", study=STUDY + ".9")
    assert rig.follow() == {STUDY + ".9"}
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("e" * 200, dir_fd=descriptor)
        inner = os.open("e" * 200, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    write_file(rig.root / "good.dcm")
    assert rig.follow() == {STUDY}
    (closed,) = rig.parked().values()
    assert closed == "the folder cannot be listed: File name too long"
    assert rig.follow() == set()
    assert dict(rig.folder.inventory()) == {STUDY: 1, STUDY + ".9": 1}
    deep.rename(rig.root / "d")
    assert rig.follow() == {STUDY + ".9"}


def test_a_folder_whose_name_is_not_utf_8_is_parked_and_stops_nothing_else(rig: FolderRig) -> None:
    strange = Path(os.fsdecode(os.fsencode(rig.root) + b"/\xff"))
    write_file(strange / "a.dcm", study=STUDY + ".9")
    write_file(rig.root / "good.dcm")
    assert rig.follow() == {STUDY}
    assert rig.parked() == {"\\udcff": "the folder's name is not UTF-8: rename the folder"}
    strange.rename(rig.root / "readable")
    assert rig.follow() == {STUDY + ".9"}
    assert rig.parked() == {}


def test_a_page_that_was_not_committed_is_read_again_after_the_folder_was_away(rig: FolderRig, tmp_path: Path) -> None:
    write_file(rig.root / "a.dcm")
    rig.folder.changes(rig.state.position("inbox"))
    rig.root.rename(tmp_path / "away")
    with pytest.raises(SourceUnavailable, match="does not exist"):
        rig.look()
    (tmp_path / "away").rename(rig.root)
    assert rig.follow() == {STUDY}


def test_a_media_directory_tells_that_the_copy_of_a_disc_is_not_whole(rig: FolderRig) -> None:
    def file_id(*parts: str) -> bytes:
        value = "\\".join(parts).encode()
        value += b" " * (len(value) % 2)
        return b"\x04\x00\x00\x15CS" + len(value).to_bytes(2, "little") + value

    directory = as_file(a_dataset(SOPClassUID="1.2.840.10008.1.3.10", StudyInstanceUID=None, PixelData=None))
    names = file_id("IMAGES", "IM1") + file_id("IMAGES", "IM2") + file_id("..", "..", "etc", "passwd")
    (rig.root / "DICOMDIR").write_bytes(
        directory + b"\x09\x00\x01\x00OB\0\0" + len(names).to_bytes(4, "little") + names
    )
    write_file(rig.root / "images" / "im1")
    rig.follow()
    assert rig.parked() == {"DICOMDIR": "1 of the 2 files that this DICOMDIR names are not here: copy them too"}
    write_file(rig.root / "IMAGES" / "IM2", instance=2)
    rig.follow()
    assert rig.parked() == {}
