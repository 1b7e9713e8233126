"""Every attribute of a file is listed, however it is encoded; none makes the reading of the others fail."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from bridge.errors import InvalidFile
from bridge.sources import inventory
from bridge.sources.inventory import Listed, listed, printable, shown
from bridge.sources.part10 import read_headers
from bridge.sources.window import Window
from tests.builders import a_dataset, as_file, write_file
from tests.raw_elements import (
    DEFLATED,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    element,
    identity,
    implicit,
    item,
    part10,
    text,
)


def listing(path: Path, content: bytes, values: bool = True) -> Listed:
    path.write_bytes(content)
    return listed(path, values)


def names(found: Listed) -> set[str]:
    return {".".join(path) for path in found.attributes}


def an_item(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def test_every_element_of_a_file_is_listed_with_its_place_in_sequences(tmp_path: Path) -> None:
    inner = an_item(AccessionNumber="A7", RequestedProcedureCodeSequence=[an_item(CodeValue="C1")])
    path = write_file(tmp_path / "a.dcm", RequestAttributesSequence=[inner, an_item(AccessionNumber="A8")])
    found = listed(path, values=True)
    assert found.problem == ""
    assert found.headers == read_headers(path)
    assert names(found) >= {
        "TransferSyntaxUID", "MediaStorageSOPClassUID", "PatientName", "HighBit", "PixelData",
        "RequestAttributesSequence", "RequestAttributesSequence.AccessionNumber",
        "RequestAttributesSequence.RequestedProcedureCodeSequence.CodeValue",
    }  # fmt: skip
    assert found.attributes[("RequestAttributesSequence", "AccessionNumber")].value == "A7"
    assert found.attributes[("PatientName",)].value == "Test^Eva"
    assert found.attributes[("Rows",)].value == "2"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DEFLATED])
def test_the_encoding_makes_no_difference(tmp_path: Path, syntax: str) -> None:
    usual = listed(write_file(tmp_path / "a.dcm"), values=True)
    encoded, buffer = Dataset(), BytesIO()
    encoded.update(a_dataset())
    encoded.file_meta = a_dataset(transfer_syntax=syntax).file_meta
    encoded.save_as(buffer, enforce_file_format=True)
    other = listing(tmp_path / "b.dcm", buffer.getvalue())
    assert names(other) == names(usual)
    for path in (("PatientName",), ("Rows",), ("SliceThickness",), ("HighBit",)):
        assert other.attributes[path].value == usual.attributes[path].value


def test_pixel_data_is_its_size_and_values_are_only_told_when_asked_for(tmp_path: Path) -> None:
    content = as_file(a_dataset())
    assert listing(tmp_path / "a.dcm", content).attributes[("PixelData",)].value == ""
    assert listing(tmp_path / "a.dcm", content).attributes[("PixelData",)].length == 4
    told = listing(tmp_path / "a.dcm", content, values=False)
    assert {one.value for one in told.attributes.values()} == {""}


def test_private_elements_are_counted_by_their_creator(tmp_path: Path) -> None:
    block = element(0x00090010, b"LO", text("MAKER 1")) + element(0x00090011, b"LO", text("MAKER 2"))
    block += element(0x00091001, b"LO", text("SECRET")) + element(0x00091002, b"LO", text("SECRET"))
    hidden = item(element(0x00100010, b"PN", text("Hidden^Name")))
    block += element(0x00091101, b"SQ", hidden + SEQUENCE_END, UNDEFINED)
    found = listing(tmp_path / "a.dcm", part10(_among_identity(block)))
    private = {path[-1]: len(one.private) for path, one in found.attributes.items() if one.private}
    assert private == {"(0009,--) MAKER 1": 2, "(0009,--) MAKER 2": 1}
    assert "Hidden" not in repr(found.attributes)


def _among_identity(block: bytes) -> bytes:
    whole = identity()
    at = whole.index(struct.pack("<HH", 0x0020, 0x000D))
    return whole[:at] + block + whole[at:]


def test_undefined_lengths_empty_items_and_unknown_elements_are_gone_through(tmp_path: Path) -> None:
    inner = item(element(0x00080100, b"SH", text("C1")) + ITEM_END, UNDEFINED) + item()
    block = element(0x00081032, b"SQ", inner + SEQUENCE_END, UNDEFINED)
    unknown = item(implicit(0x00080100, text("C2")))
    block += element(0x00081110, b"UN", unknown + SEQUENCE_END, UNDEFINED)
    block += element(0x00180022, b"CS", b"")
    found = listing(tmp_path / "a.dcm", part10(_among_identity(block)))
    assert found.problem == ""
    assert found.attributes[("ProcedureCodeSequence", "CodeValue")].value == "C1"
    assert found.attributes[("ReferencedStudySequence", "CodeValue")].value == "C2"
    assert found.attributes[("ScanOptions",)].length == 0
    assert ("SeriesInstanceUID",) in found.attributes


def test_damage_in_what_is_not_kept_is_told_and_leaves_the_headers(tmp_path: Path) -> None:
    block = element(0x00081110, b"SQ", item(element(0x00080100, b"SH", b"C1", length=60)))
    found = listing(tmp_path / "a.dcm", part10(_among_identity(block)))
    assert found.problem.startswith("truncated")
    assert found.headers.text("SeriesInstanceUID") == "1.2.3.4"


def test_what_the_bridge_would_refuse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="not a DICOM file"):
        listing(tmp_path / "a.txt", b"a letter " * 50)
    with pytest.raises(InvalidFile, match="truncated"):
        listing(tmp_path / "a.dcm", as_file(a_dataset())[:-2])


def test_the_depth_and_the_length_of_what_is_told_are_bounded(tmp_path: Path) -> None:
    deep = an_item(CodeValue="C")
    for _ in range(20):
        deep = an_item(EquivalentCodeSequence=[deep])
    found = listed(write_file(tmp_path / "a.dcm", PatientComments="x" * 5000, ProcedureCodeSequence=[deep]), True)
    assert max(map(len, found.attributes)) == inventory.MAXIMUM_SEQUENCE_DEPTH + 1
    assert found.attributes[("PatientComments",)].value == "x" * (inventory.SHOWN_CHARACTERS - 1) + "…"


def test_what_is_shown_has_nothing_a_terminal_would_obey() -> None:
    assert shown("a\x1b[31mb\n\u202ec") == "a\ufffd[31mb\ufffd\ufffdc"
    assert printable("Eva Müller") == "Eva Müller"


WHOLE = as_file(a_dataset(ProcedureCodeSequence=[an_item(CodeValue="C1", CodeMeaning="Chest")]))


@given(st.lists(st.tuples(st.integers(132, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_damage_anywhere_is_refused_or_told(damage: list[tuple[int, int]]) -> None:
    content = bytearray(WHOLE)
    for place, value in damage:
        content[place] = value
    try:
        found = inventory._listed(Window.over(content), values=True)
    except InvalidFile:
        return
    assert all(len(one.value) <= inventory.SHOWN_CHARACTERS for one in found.attributes.values())
