"""Real objects, each with the verdict it must have: what is not named here is accepted without a finding."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pydicom.data
import pytest
from pydicom import dcmread

from bridge.sources.preflight import Scan, Verdict, preflight
from bridge.translate.headers import Headers
from tests.shared import CORPUS, NO_CORPUS, corpus_files

BUNDLED = Path(pydicom.data.__file__).parent
OBJECTS = [
    p
    for p in sorted(BUNDLED.rglob("*"))
    if p.is_file() and (p.suffix in (".dcm", ".DCM") or ("dicomdirtests" in p.parts and p.suffix != ".txt"))
]

NO_STUDY = "StudyInstanceUID is missing"
NO_PIXELS = "PixelData is missing"
QUARANTINED = {
    "*chrSQEncoding.dcm": NO_STUDY,
    "*chrSQEncoding1.dcm": NO_STUDY,
    "*palettes_*.dcm": NO_STUDY,
    "*JPEGLSNearLossless_*.dcm": NO_STUDY,
    "*SC_rgb_jls_lossy_*.dcm": NO_STUDY,
    "*UN_sequence.dcm": NO_STUDY,
    "*empty_charset_LEI.dcm": NO_STUDY,
    "*meta_missing_tsyntax.dcm": NO_STUDY,
    "*no_meta_group_length.dcm": NO_STUDY,
    "*priv_SQ.dcm": NO_STUDY,
    "dcmjs_test_no-meta-length-test.dcm": "StudyInstanceUID is not a UID",
    "pydicom-data_data_bad_sequence.dcm": "StudyInstanceUID is not a UID",
    "*chrJapMulti.dcm": NO_PIXELS,
    "*chrJapMultiExplicitIR6.dcm": NO_PIXELS,
    "*chrKoreanMulti.dcm": NO_PIXELS,
    "*TINY_ALPHA_PT000000_ST000000_SE000000_IM*": NO_PIXELS,
    "mercure_getdcmtags_test_dcm": "PixelData is shorter than Rows, Columns and frames say",
    "*MR_truncated.dcm": "truncated: (7FE0,0010) PixelData",
    "*rtplan_truncated.dcm": "truncated: (300A,00B0) BeamSequence",
    "*lossless_too_short.dcm": "truncated: (7FE0,0010) PixelData has no end",
    "*DICOMDIR-nooffset": "truncated: a sequence item",
    "*test_files_no_meta.dcm": "not a DICOM file",
    "*TINY_ALPHA_README": "not a DICOM file",
}
"""Pattern of the path (`/` as `_`) → how the reason begins."""

BIG_ENDIAN = "is in big endian"
BARE = "has no preamble"
OTHER_INSTANCE = "MediaStorageSOPInstanceUID is missing, or is not"
WITH_FINDINGS = {
    "*_expb.dcm": BIG_ENDIAN,
    "*_expb_*.dcm": BIG_ENDIAN,
    "*[bB]ig_[eE]ndian.dcm": BIG_ENDIAN,
    "*bigendian.dcm": BIG_ENDIAN,
    "*BigEnd.dcm": BIG_ENDIAN,
    "*BigEndian.dcm": BIG_ENDIAN,
    "*DICOMDIR-bigEnd": BIG_ENDIAN,
    "*EndNoMeta.dcm": BARE,
    "*rtstruct.dcm": BARE,
    "*OT-PAL-8-face.dcm": BARE,
    "*_dfl": "has bytes after its deflated data set",
    "*image_dfl.dcm": "has bytes after its deflated data set",
    "dcmjs_test_sample-dicom.dcm": OTHER_INSTANCE,
    "*rtdose.dcm": OTHER_INSTANCE,
    "*rtdose_1frame.dcm": OTHER_INSTANCE,
    "*rtplan.dcm": OTHER_INSTANCE,
    "pynetdicom_*_RTImageStorage.dcm": OTHER_INSTANCE,
    "pynetdicom_*_bad_meta.dcm": "MediaStorageSOPClassUID is missing, or is not",
    "dcmqi_*pm-example-slice.dcm": "LongitudinalTemporalInformationModified has value representation SH instead of CS",
    "dicomParser_*_IM00001.fragmented_no_bot_jpeg_baseline.50.dcm": "SpecificCharacterSet is a misspelt",
    "dicomParser_*_IM00001.implicit_little_endian.dcm": "SpecificCharacterSet is a misspelt",
    "*J2K_pixelrep_mismatch.dcm": "(0009,0010) has value representation UN instead of LO",
    "*MR_small_padded.dcm": "PixelData is longer than",
    "*SC_rgb_jpeg.dcm": "TransferSyntaxUID is not how",
    "*badVR.dcm": "NumberOfFrames is not a number",
    "*rtdose_rle*.dcm": "SOPClassUID has value representation UN",
    "*explicit_VR-UN.dcm": "SOPClassUID has value representation UN",
}
"""Pattern of the path (`/` as `_`) → how one of the findings begins."""


def check(path: Path, root: Path) -> None:
    scan, name = preflight(path), str(path.relative_to(root)).replace("/", "_")
    reason = next((r for pattern, r in QUARANTINED.items() if fnmatch(name, pattern)), "")
    finding = next((f for pattern, f in WITH_FINDINGS.items() if fnmatch(name, pattern)), "")
    expected = Verdict.QUARANTINE if reason else Verdict.FINDINGS if finding else Verdict.ACCEPT
    assert scan.verdict is expected, (name, scan.findings)
    assert scan.reason.startswith(reason), (name, scan.reason)
    assert reason or not finding or any(said.startswith(finding) for said in told(scan)), (name, scan.findings)


def told(scan: Scan) -> list[str]:
    return [f"{f.keyword} {f.problem}".strip() for f in scan.findings]


@pytest.mark.parametrize("path", OBJECTS, ids=lambda p: p.name)
def test_pydicoms_own_files_have_the_verdict_they_must_have(path: Path) -> None:
    check(path, BUNDLED)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)
def test_every_file_of_the_corpus_has_the_verdict_it_must_have() -> None:
    for path in corpus_files():
        check(path, CORPUS)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=NO_CORPUS)
@pytest.mark.filterwarnings("ignore")
def test_every_file_of_the_corpus_that_is_not_quarantined_is_read_as_pydicom_reads_it() -> None:
    compared = 0
    for path in corpus_files():
        scan = preflight(path)
        if scan.verdict is Verdict.QUARANTINE:
            continue
        expected = Headers.from_dataset(dcmread(path, stop_before_pixels=True, force=True))
        assert {**scan.headers, "SOPClassUID": ()} == {**expected, "SOPClassUID": ()}, path
        compared += 1
    assert compared > 400
