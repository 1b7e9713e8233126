from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pydicom.data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from bridge.errors import InvalidFile
from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers, PersonName
from tests.builders import a_dataset, as_file, write_file


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_every_encoding_gives_what_pydicom_gives(tmp_path: Path, syntax: str) -> None:
    issuer = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    dataset = a_dataset(transfer_syntax=syntax, IssuerOfPatientIDQualifiersSequence=[issuer])
    file = written(tmp_path / "a.dcm", as_file(dataset))
    assert read_headers(file) == Headers.from_dataset(dcmread(file))


BUNDLED = sorted(p for p in Path(pydicom.data.__file__).parent.rglob("*") if p.suffix in (".dcm", ".DCM"))


@pytest.mark.parametrize("file", BUNDLED, ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore")
def test_pydicoms_own_files_are_read_as_pydicom_reads_them(file: Path) -> None:
    try:
        found = read_headers(file)
    except InvalidFile as error:
        assert "truncated" in file.name or str(error).startswith(("not a DICOM", "truncated", "damaged"))
        return
    expected = Headers.from_dataset(dcmread(file, stop_before_pixels=True, force=True))
    assert {**found, "SOPClassUID": ()} == {**expected, "SOPClassUID": ()}
    assert expected.get("SOPClassUID") in (None, found.get("SOPClassUID"))


def test_sequences_of_undefined_length_are_read_and_unwanted_ones_passed_over(tmp_path: Path) -> None:
    dataset = a_dataset(
        IssuerOfPatientIDQualifiersSequence=[item(UniversalEntityID="1.2.3")],
        ReferencedImageSequence=[item(PurposeOfReferenceCodeSequence=[item(CodeValue="1")])],
    )
    for keyword in ("IssuerOfPatientIDQualifiersSequence", "ReferencedImageSequence"):
        dataset[keyword].is_undefined_length = True
        dataset[keyword].value[0].is_undefined_length_sequence_item = True
    found = read_headers(written(tmp_path / "a.dcm", as_file(dataset)))
    assert found.item("IssuerOfPatientIDQualifiersSequence").text("UniversalEntityID") == "1.2.3"


def test_encapsulated_pixel_data_must_have_its_end(tmp_path: Path) -> None:
    dataset = a_dataset(transfer_syntax=JPEGBaseline8Bit, PixelData=None)
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"\xff\xd8\xff\xd9"
    empty_table = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + empty_table + fragment
    whole = as_file(dataset) + pixels + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert read_headers(written(tmp_path / "whole.dcm", whole)).text("Modality") == "CT"
    with pytest.raises(InvalidFile, match="truncated"):
        read_headers(written(tmp_path / "cut.dcm", whole[:-8]))


def test_every_cut_of_a_file_with_pixel_data_is_seen(tmp_path: Path) -> None:
    content = as_file(a_dataset())
    for end in range(len(content)):
        try:
            read_headers(written(tmp_path / "cut.dcm", content[:end]))
        except InvalidFile:
            continue
        # a cut exactly between two top-level elements leaves a well-formed file: only there may it pass
        dataset = dcmread(tmp_path / "cut.dcm", force=True)
        assert "PixelData" not in dataset


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_gives_a_reading_or_a_clear_refusal_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(as_file(a_dataset(IssuerOfPatientIDQualifiersSequence=[item(UniversalEntityID="1.2.3")])))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("fuzz") / "a.dcm"
    try:
        found = read_headers(written(file, bytes(content)))
    except InvalidFile as error:
        assert str(error)
        return
    assert isinstance(found, Headers)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"This is a letter, not an image.\n" * 20, "not a DICOM file"),
        (b"\0" * 4000, "not a DICOM file"),
        (b"\0" * 128 + b"DICM", None),
        (b"PK\x03\x04" + b"\0" * 300, "not a DICOM file"),
    ],
)
def test_what_is_no_dicom_file_is_told(tmp_path: Path, content: bytes, reason: str | None) -> None:
    file = written(tmp_path / "x", content)
    if reason is None:
        assert not read_headers(file)
        return
    with pytest.raises(InvalidFile, match=reason):
        read_headers(file)


def test_deep_nesting_is_refused_not_followed(tmp_path: Path) -> None:
    head = as_file(a_dataset(PixelData=None))
    opened = struct.pack("<HH2sHI", 0x0099, 0x0010, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(InvalidFile, match="nested deeper"):
        read_headers(written(tmp_path / "deep.dcm", head + opened * 20_000))


def test_a_deflate_bomb_is_refused(tmp_path: Path) -> None:
    whole = as_file(a_dataset(transfer_syntax=DeflatedExplicitVRLittleEndian))
    start = whole.index(b"DICM") + 4
    meta = start + 12 + struct.unpack_from("<I", whole, start + 8)[0]
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeezer.compress(b"\0" * 60_000_000) + squeezer.flush()
    with pytest.raises(InvalidFile, match="inflates"):
        read_headers(written(tmp_path / "bomb.dcm", whole[:meta] + bomb))


def test_a_text_longer_than_allowed_is_refused_by_its_keyword(tmp_path: Path) -> None:
    file = written(
        tmp_path / "long.dcm",
        as_file(a_dataset(transfer_syntax=ImplicitVRLittleEndian, ReasonForTheRequestedProcedure="x" * 70_000)),
    )
    with pytest.raises(InvalidFile, match="ReasonForTheRequestedProcedure"):
        read_headers(file)


def test_a_header_without_preamble_is_read(tmp_path: Path) -> None:
    whole = as_file(a_dataset())
    start = whole.index(b"DICM") + 4
    meta = start + 12 + struct.unpack_from("<I", whole, start + 8)[0]
    assert read_headers(written(tmp_path / "old.dcm", whole[meta:])).text("Modality") == "CT"


@pytest.mark.parametrize("term", ["utf_7", "utf_16", "idna", "base64"])
def test_only_dicoms_own_character_sets_count(tmp_path: Path, term: str) -> None:
    content = as_file(a_dataset(SpecificCharacterSet="ISO_IR 100", PatientName="+ADw-script+AD4-"))
    file = written(tmp_path / "a.dcm", content.replace(b"ISO_IR 100", term.encode().ljust(10)))
    assert "<" not in read_headers(file).name("PatientName").alphabetic


def test_control_characters_do_not_survive(tmp_path: Path) -> None:
    content = as_file(a_dataset(StudyDescription="Eins\x1b[31mZwei"))
    assert read_headers(written(tmp_path / "a.dcm", content)).text("StudyDescription") == "Eins[31mZwei"


NAMES = {
    "chrArab.dcm": ("قباني^لنزار", "", ""),
    "chrFren.dcm": ("Buc^Jérôme", "", ""),
    "chrFrenMulti.dcm": ("Buc^Jérôme", "", ""),
    "chrGerm.dcm": ("Äneas^Rüdiger", "", ""),
    "chrGreek.dcm": ("Διονυσιος", "", ""),
    "chrH31.dcm": ("Yamada^Tarou", "山田^太郎", "やまだ^たろう"),
    "chrH32.dcm": ("ﾔﾏﾀﾞ^ﾀﾛｳ", "山田^太郎", "やまだ^たろう"),
    "chrHbrw.dcm": ("שרון^דבורה", "", ""),
    "chrI2.dcm": ("Hong^Gildong", "洪^吉洞", "홍^길동"),
    "chrKoreanMulti.dcm": ("김희중", "", ""),
    "chrRuss.dcm": ("Люкceмбypг", "", ""),
    "chrX1.dcm": ("Wang^XiaoDong", "王^小東", ""),
    "chrX2.dcm": ("Wang^XiaoDong", "王^小东", ""),
}


@pytest.mark.parametrize("file", sorted(NAMES))
def test_names_in_every_character_set_come_out_right(file: str) -> None:
    path = Path(pydicom.data.__file__).parent / "charset_files" / file
    assert read_headers(path).name("PatientName") == PersonName(*NAMES[file])


def test_short_values_are_shared_among_files_and_long_ones_are_not_remembered(tmp_path: Path) -> None:
    paths = [write_file(tmp_path / f"{n}.dcm", instance=n, StudyDescription="long " * 26) for n in (1, 2)]
    first, second = map(read_headers, paths)
    assert first["PatientID"] is second["PatientID"]
    assert first["StudyDescription"] == second["StudyDescription"] == ("long " * 25 + "long",)
    assert first["StudyDescription"] is not second["StudyDescription"]
    assert (first["InstanceNumber"], second["InstanceNumber"]) == ((1,), (2,))
