from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.uid import UID

from bridge.sources.preflight import Verdict, preflight
from tests.builders import a_dataset, as_file, write_file


def test_a_good_object_is_accepted_with_its_headers(tmp_path: Path) -> None:
    scan = preflight(write_file(tmp_path / "a.dcm"))
    assert (scan.verdict, scan.findings, scan.reason) == (Verdict.ACCEPT, (), "")
    assert scan.headers.text("Modality") == "CT"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("uid", ["../../../tmp/x", "1.2." + "3" * 70, "1"])
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


def test_a_truncated_object_is_quarantined(tmp_path: Path) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(as_file(a_dataset())[:-1])
    scan = preflight(file)
    assert scan.verdict is Verdict.QUARANTINE
    assert "truncated" in scan.reason


def test_only_an_absent_file_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        preflight(tmp_path / "none.dcm")
