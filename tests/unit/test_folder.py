from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import SourceUnavailable
from bridge.ports import ChangePage
from bridge.sources.folder import Folder
from bridge.state import State
from tests.builders import STUDY, a_dataset, as_file, write_file

NOW = 4_000_000_000.0


class Rig:
    def __init__(self, tmp_path: Path, allow_empty: bool = False) -> None:
        self.root = tmp_path / "inbox"
        self.root.mkdir()
        self.state = State(f"sqlite:///{tmp_path / 's.sqlite'}")
        self.folder = Folder("inbox", self.root, self.state, lambda: NOW, allow_empty=allow_empty)

    def look(self) -> ChangePage:
        """One page, committed as the loops do."""
        page = self.folder.changes(self.state.position("inbox"))
        self.state.commit_page("inbox", page, NOW, 0, 0)
        return page

    def parked(self) -> dict[str, str]:
        return {i.key: i.error for i in self.state.items(parked=True)}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.state.close()


def test_new_changed_and_removed_files_name_their_studies(rig: Rig) -> None:
    other = STUDY + ".9"
    write_file(rig.root / "deep" / "er" / "1.dcm")
    file = write_file(rig.root / "2.dcm", study=other)
    assert rig.look().studies == {STUDY, other}
    assert rig.look().studies == frozenset()
    write_file(rig.root / "2.dcm", study=other, instance=2, StudyDescription="longer than before")
    assert rig.look().studies == {other}
    file.unlink()
    assert rig.look().studies == {other}
    assert rig.folder.read(other).held == 0
    assert dict(rig.folder.inventory()) == {STUDY: 1}


def test_a_file_that_becomes_part_of_another_study_marks_both(rig: Rig) -> None:
    write_file(rig.root / "1.dcm")
    rig.look()
    write_file(rig.root / "1.dcm", study=STUDY + ".9")
    assert rig.look().studies == {STUDY, STUDY + ".9"}


def test_what_cannot_be_used_is_parked_with_its_reason_and_the_rest_goes_on(rig: Rig) -> None:
    (rig.root / "letter.txt").write_text("Dear colleague, ...")
    (rig.root / "cut.dcm").write_bytes(as_file(a_dataset())[:-2])
    (rig.root / "empty.dcm").write_bytes(b"")
    write_file(rig.root / "nostudy.dcm", StudyInstanceUID=None)
    write_file(rig.root / "good.dcm")
    assert rig.look().studies == {STUDY}
    parked = rig.parked()
    assert parked["letter.txt"].startswith("not a DICOM file")
    assert parked["cut.dcm"].startswith("truncated: (7FE0,0010) PixelData")
    assert parked["empty.dcm"] == "the file is empty"
    assert parked["nostudy.dcm"].startswith("StudyInstanceUID")


def test_a_file_that_was_still_being_written_is_read_when_it_is_whole(rig: Rig) -> None:
    whole = as_file(a_dataset())
    (rig.root / "a.dcm").write_bytes(whole[:-2])
    rig.look()
    assert rig.parked()
    (rig.root / "a.dcm").write_bytes(whole)
    assert rig.look().studies == {STUDY}
    assert rig.parked() == {}


def test_a_fresh_file_is_left_alone_until_it_settles(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    file = write_file(rig.root / "a.dcm")
    os.utime(file, (NOW - 0.5, NOW - 0.5))
    assert rig.look().studies == frozenset()
    os.utime(file, (NOW - 5, NOW - 5))
    assert rig.look().studies == {STUDY}
    rig.state.close()


def test_a_parked_file_that_is_removed_is_forgotten(rig: Rig) -> None:
    (rig.root / "x.txt").write_text("x" * 500)
    write_file(rig.root / "good.dcm")
    rig.look()
    (rig.root / "x.txt").unlink()
    rig.look()
    assert rig.parked() == {}


def test_a_replayed_file_is_read_again(rig: Rig) -> None:
    (rig.root / "x.txt").write_text("x" * 500)
    rig.look()
    rig.state.replay("file:inbox", "x.txt", NOW)
    rig.look()
    assert list(rig.parked()) == ["x.txt"]


def test_hidden_unfinished_and_linked_files_are_passed_over(rig: Rig, tmp_path: Path) -> None:
    write_file(rig.root / ".hidden.dcm")
    write_file(rig.root / ".dir" / "a.dcm")
    write_file(rig.root / "a.dcm.part")
    outside = write_file(tmp_path / "outside.dcm")
    (rig.root / "link.dcm").symlink_to(outside)
    assert rig.look().studies == frozenset()


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.root.rmdir()
    with pytest.raises(SourceUnavailable, match="does not exist"):
        rig.folder.changes(None)
    rig.state.close()


def test_a_folder_emptied_all_at_once_is_taken_for_not_mounted(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    file = write_file(rig.root / "a.dcm")
    rig.look()
    file.unlink()
    with pytest.raises(SourceUnavailable, match="allow_empty"):
        rig.look()
    believing = Folder("inbox", rig.root, rig.state, lambda: NOW, allow_empty=True)
    assert believing.changes(rig.state.position("inbox")).gone == ("a.dcm",)
    rig.state.close()


def test_equal_copies_are_one_instance_and_unequal_ones_a_conflict(rig: Rig) -> None:
    write_file(rig.root / "1.dcm")
    write_file(rig.root / "2.dcm")
    write_file(rig.root / "3.dcm", StudyDescription="other")
    rig.look()
    found = rig.folder.read(STUDY)
    assert (len(found.instances), found.held) == (1, 3)
    assert [r.key for r in found.rejected] == ["inbox/3.dcm"]


def test_a_crash_between_reading_and_committing_reads_the_page_again(rig: Rig) -> None:
    write_file(rig.root / "1.dcm")
    rig.folder.changes(rig.state.position("inbox"))  # never committed
    assert rig.look().studies == {STUDY}


def test_many_files_come_in_pages(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.sources.folder.PAGE_FILES", 4)
    for n in range(1, 11):
        write_file(rig.root / f"{n}.dcm", instance=n)
    pages = [rig.look() for _ in range(3)]
    assert [len(p.files) for p in pages] == [4, 4, 2]
    assert [p.caught_up for p in pages] == [False, False, True]
    assert len(rig.folder.read(STUDY).instances) == 10


def test_a_media_directory_is_neither_study_nor_error(rig: Rig) -> None:
    write_file(rig.root / "DICOMDIR", SOPClassUID="1.2.840.10008.1.3.10", StudyInstanceUID=None)
    rig.look()
    assert rig.parked() == {}


def test_a_file_name_that_is_not_utf_8_is_parked_not_fatal(rig: Rig) -> None:
    (Path(os.fsdecode(os.fsencode(str(rig.root)) + b"/\xff\xfe.dcm"))).write_bytes(as_file(a_dataset()))
    write_file(rig.root / "good.dcm")
    assert rig.look().studies == {STUDY}
    assert "not UTF-8" in next(iter(rig.parked().values()))
