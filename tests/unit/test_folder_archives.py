"""Zip and tar files in a watched folder: their members are files of the archive, whatever an archive tries."""

from __future__ import annotations

import io
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import InvalidFile
from bridge.sources.archive_file import drain, members
from bridge.sources.tar_stream import MAXIMUM_ATTRIBUTES_BYTES
from tests.builders import STUDY, a_dataset, as_file
from tests.folder_rig import FolderRig, tar_bytes, zip_bytes

OTHER = STUDY + ".9"


def instance(number: int, study: str = STUDY, **attributes: object) -> bytes:
    return as_file(a_dataset(study=study, instance=number, **attributes))


KINDS = {
    "a.zip": zip_bytes,
    "a.tar": lambda files: tar_bytes(files, "w"),
    "a.tar.gz": tar_bytes,
    "A.TGZ": lambda files: tar_bytes(files, "w:gz", tarfile.GNU_FORMAT),
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FolderRig]:
    made = FolderRig(tmp_path)
    yield made
    made.state.close()


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def put(rig: FolderRig, name: str, files: dict[str, bytes]) -> None:
    (rig.root / name).write_bytes(KINDS[name](files))


LONG = "/".join(["a folder with a long name"] * 8) + "/1.dcm"


def test_members_are_followed_as_files_are(rig: FolderRig, name: str) -> None:
    put(rig, name, {LONG: instance(1), "Bilder/ä.dcm": instance(2), "other.dcm": instance(1, OTHER)})
    assert rig.follow() == {STUDY, OTHER}
    assert rig.parked() == {}
    assert rig.held(STUDY) == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
    assert dict(rig.folder.inventory()) == {STUDY: 2, OTHER: 1}
    assert rig.follow() == set()
    rig.restart()
    assert rig.follow() == set()


def test_an_archive_that_changes_is_read_again_and_one_that_goes_takes_its_members_along(
    rig: FolderRig, name: str
) -> None:
    put(rig, name, {"1": instance(1), "2": instance(2)})
    (rig.root / "stays.dcm").write_bytes(instance(1, OTHER))
    rig.follow()
    put(rig, name, {"2": instance(2), "3": instance(3), "4": instance(4)})
    assert rig.follow() == {STUDY}
    assert rig.held(STUDY) == {f"{STUDY}.1.{n}" for n in (2, 3, 4)}
    rig.restart()
    (rig.root / name).unlink()
    assert rig.follow() == {STUDY}
    assert rig.held(STUDY) == set()
    assert dict(rig.folder.inventory()) == {OTHER: 1}


def test_pages_end_within_an_archive_and_a_crash_there_reads_it_again(
    rig: FolderRig, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sources.folder.PAGE_FILES", 2)
    put(rig, name, {str(n): instance(n) for n in range(1, 6)})
    assert len(rig.look().files) == 2
    rig.restart()
    assert rig.follow() == {STUDY}
    assert len(rig.held(STUDY)) == 5
    assert rig.follow() == set()


def test_an_archive_of_which_a_part_was_read_when_it_went_leaves_nothing(
    rig: FolderRig, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.sources.folder.PAGE_FILES", 2)
    (rig.root / "stays.dcm").write_bytes(instance(1, OTHER))
    rig.follow()
    put(rig, name, {str(n): instance(n) for n in range(1, 6)})
    rig.look()
    rig.restart()
    (rig.root / name).unlink()
    assert rig.follow() == {STUDY}
    assert dict(rig.folder.inventory()) == {OTHER: 1}


def test_members_that_cannot_be_used_are_parked_each_and_the_rest_goes_on(rig: FolderRig, name: str) -> None:
    files = {"cut.dcm": instance(1)[:-2], "letter.txt": b"Dear colleague" * 40, "empty": b"", "good.dcm": instance(1)}
    put(rig, name, files | {"inner.zip": b"PK", ".hidden": b"x", "half.part": b"x"})
    assert rig.follow() == {STUDY}
    parked = rig.parked()
    assert parked[f"{name}!cut.dcm"].startswith("truncated: (7FE0,0010) PixelData")
    assert parked[f"{name}!letter.txt"].startswith("not a DICOM file")
    assert parked[f"{name}!empty"] == "the file is empty"
    assert parked[f"{name}!inner.zip"].startswith("an archive in an archive is not opened")
    assert len(parked) == 4
    rig.state.replay("file:inbox", f"{name}!cut.dcm", rig.now)
    rig.follow()
    assert f"{name}!cut.dcm" in rig.parked()
    put(rig, name, files | {"cut.dcm": instance(2)})
    rig.follow()
    assert set(rig.parked()) == {f"{name}!letter.txt", f"{name}!empty"}


@pytest.mark.parametrize("bad", ["../up.dcm", "a/../../up.dcm", "/etc/up.dcm", "C:\\up.dcm", "..\\up.dcm"])
def test_a_name_that_leads_out_is_refused_and_never_shown(rig: FolderRig, name: str, bad: str) -> None:
    put(rig, name, {bad: instance(1), "good.dcm": instance(2)})
    rig.follow()
    assert rig.held(STUDY) == {f"{STUDY}.1.2"}
    assert rig.parked() == {f"{name}!#1": "its name leads out of the archive: refused"}
    assert {path.name for path in rig.root.parent.rglob("*.dcm")} == set()


def test_names_that_cannot_be_shown_and_second_names_get_a_number(rig: FolderRig) -> None:
    with tarfile.open(rig.root / "a.tar", "w") as archive:
        for number, name in enumerate(["x\x1b[2J", "n" * 600, "#7", "same", "same"], 1):
            entry = tarfile.TarInfo(name)
            entry.size = len(instance(number))
            archive.addfile(entry, io.BytesIO(instance(number)))
    rig.follow()
    assert set(rig.parked()) == {f"a.tar!#{n}" for n in (1, 2, 3, 5)}
    assert rig.held(STUDY) == {f"{STUDY}.1.4"}


def test_links_devices_and_sparse_members_of_a_tar_are_refused(rig: FolderRig) -> None:
    kinds = [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
    with tarfile.open(rig.root / "a.tar", "w") as archive:
        for number, kind in enumerate(kinds):
            entry = tarfile.TarInfo(f"{number}.dcm")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        good = tarfile.TarInfo("good.dcm")
        good.size = len(instance(1))
        archive.addfile(good, io.BytesIO(instance(1)))
    assert rig.follow() == {STUDY}
    assert [e.rpartition(": ")[2] for e in rig.parked().values()] == ["refused"] * 6


def test_a_symbolic_link_and_an_encrypted_member_of_a_zip_are_refused(rig: FolderRig) -> None:
    with zipfile.ZipFile(rig.root / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("link.dcm")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("packed.dcm", instance(1), zipfile.ZIP_LZMA)
        archive.writestr("good.dcm", instance(2))
    assert rig.follow() == {STUDY}
    assert set(rig.parked()) == {"a.zip!link.dcm", "a.zip!packed.dcm"}
    content = bytearray(zip_bytes({"secret.dcm": instance(1)}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (rig.root / "a.zip").write_bytes(content)
    rig.follow()
    assert rig.parked() == {"a.zip!secret.dcm": "encrypted: it cannot be read"}


def test_a_black_image_may_be_packed_well_but_a_bomb_is_refused(rig: FolderRig) -> None:
    black = instance(1, Rows=1000, Columns=1000, PixelData=bytes(1_000_000))
    bomb = instance(2, PixelData=bytes(20_000_000))
    (rig.root / "a.zip").write_bytes(zip_bytes({"black.dcm": black, "bomb.dcm": bomb}))
    rig.follow()
    assert rig.held(STUDY) == {f"{STUDY}.1.1"}
    assert rig.parked() == {"a.zip!bomb.dcm": "it unpacks to more than 200 times its size: refused"}


def test_an_archive_that_unpacks_to_more_than_the_bound_is_parked(tmp_path: Path, name: str) -> None:
    rig = FolderRig(tmp_path, maximum_unpacked_bytes=300_000)
    put(rig, name, {"1.dcm": instance(1), "2.dcm": instance(2, PixelData=bytes(1_000_000))})
    rig.follow()
    if name == "a.tar":
        assert rig.parked() == {}
    else:
        assert rig.parked()[name] == "it unpacks to more than 300000 bytes: refused"
    rig.state.close()


def test_a_cut_archive_is_parked_once_and_what_is_whole_in_it_is_used(rig: FolderRig, name: str) -> None:
    pixels = random.Random(1).randbytes(200_000)
    whole = KINDS[name]({"1.dcm": instance(1, PixelData=pixels), "2.dcm": instance(2, PixelData=pixels[::-1])})
    (rig.root / name).write_bytes(whole[: len(whole) * 3 // 4])
    rig.follow()
    if name == "a.zip":
        assert rig.parked() == {name: "damaged or truncated: its directory cannot be read"}
        assert rig.held(STUDY) == set()
    else:
        assert rig.held(STUDY) == {f"{STUDY}.1.1"}
        assert set(rig.parked()) == {name, f"{name}!2.dcm"}
        assert rig.parked()[name].startswith("truncated")
    (rig.root / name).write_bytes(whole)
    rig.follow()
    assert rig.parked() == {}
    assert rig.held(STUDY) == {f"{STUDY}.1.1", f"{STUDY}.1.2"}


def test_an_archive_still_being_written_is_not_parked(rig: FolderRig, name: str) -> None:
    whole = KINDS[name]({"1.dcm": instance(1, PixelData=random.Random(1).randbytes(50_000))})
    (rig.root / name).write_bytes(whole[: len(whole) // 2])
    os.utime(rig.root / name, (rig.now - 2, rig.now - 2))
    rig.follow()
    assert name not in rig.parked()
    (rig.root / name).write_bytes(whole)
    assert rig.follow() == {STUDY}
    assert rig.parked() == {}


def test_damage_within_a_zip_member_is_seen_by_its_checksum(rig: FolderRig) -> None:
    content = bytearray(zip_bytes({"bad.dcm": instance(1, PixelData=random.Random(1).randbytes(9000))}))
    content[5000] ^= 0xFF
    (rig.root / "a.zip").write_bytes(content)
    rig.follow()
    assert rig.parked()["a.zip!bad.dcm"].startswith("damaged")


def test_many_unusable_members_are_counted_not_parked_each(rig: FolderRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.sources.folder.LISTED_MEMBERS", 3)
    (rig.root / "a.zip").write_bytes(zip_bytes({f"{n}.txt": b"text" * 100 for n in range(10)}))
    rig.follow()
    assert len(rig.parked()) == 4
    assert rig.parked()["a.zip"] == "10 members cannot be used; the first 3 are listed with their reasons"


def test_too_many_members_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.sources.archive_file.MAXIMUM_MEMBERS", 3)
    (tmp_path / name).write_bytes(KINDS[name]({str(n): b"x" for n in range(4)}))
    with pytest.raises(InvalidFile, match="more than 3 members"):
        list(members(tmp_path / name))


def test_a_zip_directory_or_tar_attributes_past_their_bound_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    content = bytearray(zip_bytes({"1": b"x"}))
    end = content.rindex(b"PK\x05\x06")
    path.write_bytes(content[:end] + content[end : end + 12] + struct.pack("<II", 0x3FFFFFFF, 0) + b"\0\0")
    with pytest.raises(InvalidFile):
        list(members(path))
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = tarfile.XHDTYPE, MAXIMUM_ATTRIBUTES_BYTES + 1
    (tmp_path / "a.tar").write_bytes(entry.tobuf() + bytes(2048))
    with pytest.raises(InvalidFile, match="attributes are larger"):
        list(members(tmp_path / "a.tar"))


def test_a_plain_file_named_like_a_member_is_parked_with_what_to_do(rig: FolderRig) -> None:
    (rig.root / "x.zip!y.dcm").write_bytes(instance(1))
    (rig.root / "good.dcm").write_bytes(instance(1, OTHER))
    for _ in range(2):
        rig.follow()
        assert "rename it" in rig.parked()["x.zip!y.dcm"]
        rig.restart()


def test_one_pass_reads_all_wanted_members_and_stops_after_the_last(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_bytes({str(n): instance(n, PixelData=random.Random(n).randbytes(20_000)) for n in range(50)}))
    found = [member.name for member in members(path, frozenset({"3", "7"}))]
    assert found == ["3", "7"]
    content = bytearray(path.read_bytes())
    content[-1500:] = bytes(1500)
    path.write_bytes(content)
    assert [member.name for member in members(path, frozenset({"3", "7"}))] == ["3", "7"]


@pytest.mark.parametrize("name", KINDS)
def test_no_damage_raises_anything_but_our_errors(tmp_path: Path, name: str) -> None:
    chance = random.Random(7)
    whole = KINDS[name]({"1.dcm": instance(1), "sub/2.dcm": instance(2)})
    path = tmp_path / name
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(len(content))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        if chance.random() < 0.3:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            for member in members(path, None, 10_000_000):
                try:
                    drain(member)
                except InvalidFile:
                    continue
        except InvalidFile:
            continue


def test_studies_in_a_gzipped_tar_do_not_cost_a_pass_each(rig: FolderRig) -> None:
    """Shown by an archive that no pass could get through any more, while its size and time are those it had."""
    path = rig.root / "a.tgz"
    path.write_bytes(tar_bytes({"1": instance(1), "2": instance(2), "3": instance(1, OTHER)}))
    rig.follow()
    for restart in (False, True):
        if restart:
            rig.restart()
            rig.held(OTHER)
        whole, stat = path.read_bytes(), path.stat()
        path.write_bytes(bytes(len(whole)))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert rig.held(STUDY) == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        found = rig.folder.read(STUDY)
        assert found.held == 0
        assert [r.key for r in found.rejected] == ["inbox/a.tgz"]
        path.write_bytes(whole)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
