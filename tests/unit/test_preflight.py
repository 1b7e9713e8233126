from __future__ import annotations

import os
import random
import struct
from io import BytesIO
from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread
from pydicom.uid import UID

from bridge.sources.part10 import Reading
from bridge.sources.preflight import Finding, Scan, Verdict, judged, preflight
from bridge.sources.window import Window
from bridge.translate.headers import Headers
from tests.builders import a_dataset, as_file, write_file
from tests.raw_elements import (
    CT,
    DEFLATED,
    IMPLICIT,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    element,
    identity,
    image,
    implicit,
    item,
    part10,
)

CT_SMALL = Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm"
RLE = "1.2.840.10008.1.2.5"


def scan_of(content: bytes) -> Scan:
    """What `preflight` says of a file of these bytes."""
    reading = Reading(whole=True)
    reading.read(Window.over(content))
    return judged(reading)


def sequence(value: bytes, length: int | None = None) -> bytes:
    return element(0x00991010, b"SQ", value, length)


def nested(depth: int) -> bytes:
    """So many sequences, one in another, none with a length."""
    opened, closed = sequence(item(length=UNDEFINED), UNDEFINED), ITEM_END + SEQUENCE_END
    return opened * depth + closed * depth


def nested_with_lengths(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = sequence(item(value))
    return value


def test_a_good_object_is_accepted_with_its_headers(tmp_path: Path) -> None:
    scan = preflight(write_file(tmp_path / "a.dcm"))
    assert (scan.verdict, scan.findings, scan.reason) == (Verdict.ACCEPT, (), "")
    assert scan.headers.text("Modality") == "CT"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("uid", ["../../../tmp/x", "1.2." + "3" * 70, "1", "1.2\0.3.4", "1.2..3"])
@pytest.mark.filterwarnings("ignore")
def test_an_object_with_an_unusable_uid_is_quarantined_and_the_uid_is_not_quoted(
    tmp_path: Path, keyword: str, uid: str
) -> None:
    dataset = a_dataset(**{keyword: uid})
    dataset.file_meta.MediaStorageSOPClassUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    file = tmp_path / "a.dcm"
    file.write_bytes(as_file(dataset))
    scan = preflight(file)
    assert scan.verdict is Verdict.QUARANTINE
    assert scan.reason.startswith(keyword)
    assert uid == "1" or uid not in scan.reason


def test_a_line_end_is_no_part_of_a_uid() -> None:
    assert scan_of(part10(identity(study="1.2.3\n"))).reason.startswith("StudyInstanceUID")


def test_a_missing_uid_is_told_by_its_keyword(tmp_path: Path) -> None:
    scan = preflight(write_file(tmp_path / "a.dcm", SeriesInstanceUID=None))
    assert (scan.verdict, scan.findings[0].keyword) == (Verdict.QUARANTINE, "SeriesInstanceUID")


def test_a_leading_zero_in_a_uid_is_a_finding() -> None:
    scan = scan_of(part10(identity(study="1.2.03.4")))
    assert scan.verdict is Verdict.FINDINGS
    assert scan.findings == (Finding("StudyInstanceUID", "has a component with a leading zero"),)


def test_only_an_absent_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        preflight(tmp_path / "none.dcm")


def test_what_is_no_regular_file_is_quarantined_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert preflight(tmp_path / "pipe").reason == preflight(tmp_path).reason == "not a regular file"


# Truncation


def test_no_cut_of_a_real_image_is_taken_for_the_whole() -> None:
    content = CT_SMALL.read_bytes()
    padding = content.rindex(b"\xfc\xff\xfc\xffOB")  # after the pixels, DataSetTrailingPadding: no loss without it
    cuts = [*range(0, len(content), 37), padding]
    assert len(cuts) == 1061
    accepted = [cut for cut in cuts if scan_of(content[:cut]).verdict is not Verdict.QUARANTINE]
    assert accepted == [padding]


def test_no_cut_between_two_elements_of_an_image_is_taken_for_the_whole() -> None:
    content = as_file(a_dataset())
    verdicts = {scan_of(content[:cut]).verdict for cut in range(len(content))}
    assert verdicts == {Verdict.QUARANTINE}


HEADLESS_PIXELS = item() + item(b"\1\2\3\4")


@pytest.mark.parametrize(
    ("content", "verdict", "reason"),
    [
        (image(bytes(32)), Verdict.ACCEPT, ""),
        (image(bytes(30)), Verdict.QUARANTINE, "PixelData is shorter"),
        (image(b""), Verdict.QUARANTINE, "PixelData is shorter"),
        (image(bytes(32), frames=2), Verdict.QUARANTINE, "PixelData is shorter"),
        (image(bytes(64), frames=2), Verdict.ACCEPT, ""),
        (image(bytes(40)), Verdict.FINDINGS, ""),
        (image(HEADLESS_PIXELS + SEQUENCE_END, RLE, undefined=True), Verdict.ACCEPT, ""),
        (image(HEADLESS_PIXELS, RLE, undefined=True), Verdict.QUARANTINE, "has no end"),
        (image(item() + item(b"\1\2", length=90) + SEQUENCE_END, RLE, undefined=True), Verdict.QUARANTINE, "no end"),
        (image(item() + b"\1\2\3\4\5\6\7\1" + SEQUENCE_END, RLE, undefined=True), Verdict.QUARANTINE, "damaged"),
        (image(HEADLESS_PIXELS + SEQUENCE_END, undefined=True), Verdict.FINDINGS, ""),
        (image(bytes(32), RLE), Verdict.FINDINGS, ""),
        (part10(identity(CT), sop_class=CT), Verdict.QUARANTINE, "PixelData is missing"),
        (part10(identity(CT) + element(0x7FE00010, b"OW", bytes(8))), Verdict.QUARANTINE, "PixelData has no Rows"),
        (part10(identity("1.2.840.10008.5.1.4.1.1.104.1")), Verdict.QUARANTINE, "EncapsulatedDocument is missing"),
    ],
)
def test_pixels_must_be_there_to_their_end(content: bytes, verdict: Verdict, reason: str) -> None:
    scan = scan_of(content)
    assert scan.verdict is verdict
    assert reason in scan.reason


# Structure and bounds


@pytest.mark.parametrize("depth", [33, 240, 10_000, 100_000])
def test_sequences_nested_too_deep_are_refused(depth: int) -> None:
    assert "nested deeper than 32" in scan_of(part10(identity() + nested(depth))).reason


def test_sequences_nested_to_the_bound_are_accepted() -> None:
    for made in (nested, nested_with_lengths):
        assert scan_of(part10(identity() + made(32))).verdict is Verdict.ACCEPT
    assert "nested deeper than 32" in scan_of(part10(identity() + nested_with_lengths(33))).reason


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (sequence(item() * 1_000_000, UNDEFINED), "more than 100000 sequence items"),
        (sequence(item() * 1_000_000), "more than 100000 sequence items"),
        (element(0x00991010, b"UN", item() * 1_000_000), "more than 100000 sequence items"),
        (element(0x7FE00010, b"OB", item() * 1_000_000, UNDEFINED), "more than 100000 sequence items"),
        (b"".join(element(0x00990000 + n, b"LO") for n in range(60_000)) * 10, "more than 200000 data elements"),
        (sequence(item(element(0x00991010, b"LO") * 600_000)), "more than 200000 data elements"),
        (element(0x00080119, b"UC", b"\\" * 5_000_000), "LongCodeValue is longer than 65536 bytes"),
        (element(0x00420011, b"OB", b"", 0xFFFFFFFE), "truncated"),
        (element(0x00991010, b"SQ", b"", 0xFFFFFFFE), "truncated"),
        (sequence(b"", UNDEFINED), "truncated"),
        (sequence(item(length=UNDEFINED), UNDEFINED), "truncated"),
        (sequence(item(length=0xFFFFFFFE), UNDEFINED), "truncated"),
        (sequence(item(element(0x00100010, b"PN", b"A^B ", 40))), "truncated"),
        (sequence(item(b"", 40) + bytes(20)), "truncated"),
        (sequence(element(0x00100010, b"PN", b"A^B ")), "damaged"),
        (element(0x00100010, b"ZZ", b"A^B "), "damaged"),
        (SEQUENCE_END, "not a data element"),
    ],
    ids=range(17),
)
def test_what_is_past_a_bound_or_damaged_is_quarantined(bomb: bytes, reason: str) -> None:
    scan = scan_of(part10(identity() + bomb))
    assert scan.verdict is Verdict.QUARANTINE
    assert reason in scan.reason


def test_a_huge_private_value_is_jumped_over(tmp_path: Path) -> None:
    file = tmp_path / "huge.dcm"
    file.write_bytes(part10(identity() + element(0x00991010, b"OB", b"", 1_000_000_000)))
    os.truncate(file, file.stat().st_size + 1_000_000_000)
    assert preflight(file).verdict is Verdict.ACCEPT


def test_a_deflate_bomb_is_refused_and_a_small_header_is_not() -> None:
    assert scan_of(part10(identity(), DEFLATED)).verdict is Verdict.ACCEPT
    assert scan_of(part10(identity() + sequence(b""), DEFLATED)).verdict is Verdict.ACCEPT
    bomb = part10(identity() + element(0x00991010, b"OB", bytes(60_000_000)), DEFLATED)
    assert "inflates to more than" in scan_of(bomb).reason
    whole = part10(identity() + element(0x00991010, b"OB", random.Random(1).randbytes(200_000)), DEFLATED)
    assert scan_of(whole).verdict is Verdict.ACCEPT
    assert "truncated" in scan_of(whole[:-5]).reason
    assert scan_of(whole + b"more").findings == (Finding("", "has bytes after its deflated data set"),)


def test_sequences_that_do_not_say_what_they_are_are_entered_as_far_as_they_can_be_known() -> None:
    deep = implicit(0x00991010, item(b""))
    for _ in range(40):
        deep = implicit(0x00991010, item(deep))
    assert "nested deeper" in scan_of(part10(identity() + element(0x00991011, b"UN", deep[8:]))).reason
    for value in (item(b"no element at all"), item(b"", 4) + bytes(7)):
        scan = scan_of(part10(identity() + element(0x00991011, b"UN", value + b" " * (len(value) % 2))))
        assert scan.findings == (Finding("(0099,1011)", "begins as a sequence but is not a whole one"),)
    name = implicit(0x00080100, b"A1") + implicit(0x00080104, b"Name")
    wanted = element(0x00081032, b"UN", item(name))
    assert scan_of(part10(identity() + wanted)).headers.item("ProcedureCodeSequence").text("CodeValue") == "A1"


# What is odd but certain


@pytest.mark.parametrize(
    ("more", "keyword", "problem"),
    [
        (element(0x00200010, b"SH", b"ABC"), "StudyID", "has an odd length"),
        (element(0x00200010, b"SH", b"AB") * 2, "StudyID", "occurs twice"),
        (element(0x00100010, b"PN", b"A^B "), "PatientName", "is out of order"),
        (element(0x00200010, b"LO", b"AB"), "StudyID", "has value representation LO instead of SH"),
        (element(0x00200013, b"IS", b"1x"), "InstanceNumber", "is not a number"),
        (element(0x00200013, b"IS", b"9" * 4000), "InstanceNumber", "is not a number"),
        (element(0x00280030, b"DS", b"inf\\nan "), "PixelSpacing", "is not a number"),
        (element(0x00200010, b"SH", b"A\x07B "), "StudyID", "has control characters"),
        (element(0x00200010, b"SH", b"A\xffB "), "StudyID", "has bytes outside its character set"),
        (element(0x00280010, b"US", b"\1\0\2"), "Rows", "has a length that its value representation cannot have"),
        (element(0x00280010, b"OB", b"\1\0"), "Rows", "has value representation OB instead of US"),
        (element(0x00020010, b"UI", b"1.2 "), "TransferSyntaxUID", "of group 0000 or 0002 stands in the data set"),
        (element(0x00000900, b"US", b"\0\0"), "Status", "of group 0000 or 0002 stands in the data set"),
        (element(0x00991010, b"LO", b"A\x07BCDEFGHI"), "(0099,1010)", "has characters that its value representation"),
        (bytes(40), "", "ends in zeros that are no data element"),
    ],
    ids=range(15),
)
def test_what_is_odd_is_accepted_and_told(more: bytes, keyword: str, problem: str) -> None:
    scan = scan_of(part10(identity() + more))
    assert scan.verdict is Verdict.FINDINGS
    assert any(f.keyword == keyword and f.problem.startswith(problem) for f in scan.findings)
    assert scan.headers.text("TransferSyntaxUID") == "1.2.840.10008.1.2.1"
    assert scan.headers.text("StudyInstanceUID") == "1.2.3"


@pytest.mark.parametrize(
    ("term", "verdict"),
    [
        ("ISO_IR 100", Verdict.ACCEPT),
        ("ISO 2022 IR 6\\ISO 2022 IR 87", Verdict.ACCEPT),
        ("\\ISO 2022 IR 87", Verdict.ACCEPT),
        ("ISO IR 100", Verdict.FINDINGS),
        ("ISO_IR 192\\ISO 2022 IR 87", Verdict.FINDINGS),
        ("utf_7", Verdict.FINDINGS),
        ("unicode_escape", Verdict.FINDINGS),
        ("idna", Verdict.FINDINGS),
    ],
)
def test_a_character_set_that_is_no_defined_term_is_told(term: str, verdict: Verdict) -> None:
    scan = scan_of(part10(identity(charset=term)))
    assert scan.verdict is verdict
    assert [f.keyword for f in scan.findings] == ["SpecificCharacterSet"] * (verdict is Verdict.FINDINGS)


def test_file_meta_that_says_something_else_than_the_data_set_is_told() -> None:
    content = part10(identity(), sop_class=CT)
    assert [f.keyword for f in scan_of(content).findings] == ["MediaStorageSOPClassUID"]
    wrong_length = content.replace(b"UL\4\0", b"UL\4\0\1", 1)[:-1]
    assert scan_of(wrong_length).verdict is Verdict.QUARANTINE
    assert "TransferSyntaxUID" in [f.keyword for f in scan_of(part10(identity(), IMPLICIT)).findings]


def test_a_bare_data_set_is_accepted_with_that_finding() -> None:
    scan = scan_of(identity())
    assert scan.verdict is Verdict.FINDINGS
    assert Finding("", "has no preamble and no DICM marker") in scan.findings


def test_findings_are_bounded_and_have_no_value() -> None:
    odd = b"".join(element(0x00991000 + n, b"LO", b"SECRET\x07VALUE") for n in range(5000))
    scan = scan_of(part10(identity() + odd))
    assert (scan.verdict, len(scan.findings)) == (Verdict.FINDINGS, 50)
    assert "SECRET" not in repr(scan)


def test_a_length_that_swallows_the_elements_after_it_is_damage() -> None:
    after = element(0x00991011, b"SS", b"\1\0") + element(0x00991012, b"UT", b"text") + element(0x00991013, b"LO")
    for vr, value in ((b"SL", b"\1\0\0\0"), (b"SH", b"ABCD"), (b"SH", b"")):
        content = part10(identity() + element(0x00991010, vr, value + after, len(value) + len(after)))
        assert "lie in it: its length is wrong" in scan_of(content).reason
    kept = element(0x00200010, b"SH", b"ABCD" + after)
    assert "lie in it" in scan_of(part10(identity() + kept)).reason


# Damage at random; the seeds make every run the same


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_bit_never_gives_other_headers_than_pydicom_reads_unless_it_is_told(seed: int) -> None:
    content, seeded = CT_SMALL.read_bytes(), random.Random(seed)
    elements, told = len(dcmread(CT_SMALL, stop_before_pixels=True)), 0
    header = content.index(b"\xe0\x7f\x10\x00OW")
    for _ in range(300):
        flipped = bytearray(content)
        bit = seeded.randrange(header * 8)
        flipped[bit // 8] ^= 1 << bit % 8
        scan = scan_of(bytes(flipped))
        told += scan.verdict is not Verdict.ACCEPT
        if scan.verdict is Verdict.ACCEPT:
            dataset = dcmread(BytesIO(flipped), stop_before_pixels=True)
            assert len(dataset) == elements, bit
            assert Headers.from_dataset(dataset) == scan.headers, bit
    assert told > 100


def test_no_input_raises() -> None:
    seeded = random.Random(2)
    code = element(0x00080100, b"SH", b"A1")
    whole = part10(identity() + element(0x00321064, b"SQ", item(code)) + sequence(item(code, UNDEFINED) + ITEM_END))
    seeds = [whole, part10(identity(), DEFLATED), image(HEADLESS_PIXELS + SEQUENCE_END, RLE, undefined=True)]
    verdicts = set()
    for _ in range(20_000):
        content = bytearray(seeded.choice(seeds))
        for _ in range(seeded.randint(1, 8)):
            at = seeded.randrange(128, len(content))
            chosen = seeded.randrange(4)
            if chosen == 0:
                content[at] = seeded.randrange(256)
            elif chosen == 1:
                content[at : at + 4] = struct.pack("<I", seeded.choice((0, 1, 0x7FFF, UNDEFINED, UNDEFINED - 1)))
            elif chosen == 2:
                content[at:at] = content[at - 20 : at]
            else:
                del content[at : at + seeded.randint(1, 12)]
        verdicts.add(scan_of(bytes(content)).verdict)
    assert verdicts == set(Verdict)
