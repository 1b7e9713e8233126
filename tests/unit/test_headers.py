"""What is kept of an instance: the same whatever it is read from, and of what is large only what says something."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from bridge.sources import elements
from bridge.sources.part10 import read_headers
from bridge.translate.dicom_json import InstanceReader
from bridge.translate.headers import Headers
from tests.builders import a_dataset, as_file
from tests.studies import a_code, item


def every_way(dataset: Dataset, path: Path) -> Headers:
    """The headers of a dataset, which are the same from a file, from DICOM JSON and from pydicom."""
    content = as_file(dataset)  # type: ignore[arg-type]
    path.write_bytes(content)
    found = read_headers(path)
    read = dcmread(BytesIO(content))
    assert Headers.from_dataset(read) == found
    of_file_meta = {"SourceApplicationEntityTitle", "TransferSyntaxUID"}
    described = read.to_json_dict()
    assert Headers.from_dicom_json(described) == Headers({k: v for k, v in found.items() if k not in of_file_meta})
    assert list(InstanceReader().headers(described)) == sorted(found.keys() - of_file_meta)
    return found


def a_frame(side: str, moment: str) -> Dataset:
    return item(
        FrameContentSequence=[item(FrameAcquisitionDateTime=moment)],
        FrameAnatomySequence=[item(FrameLaterality=side)],
        PixelMeasuresSequence=[item(SliceThickness=1.0)],
    )


FRAMES = [a_frame("L", "20240301093002"), a_frame("R", "20240301093001"), a_frame("L", "20240301093003")]


def test_frames_are_kept_as_what_differs_among_them(tmp_path: Path) -> None:
    found = every_way(a_dataset(PerFrameFunctionalGroupsSequence=FRAMES), tmp_path / "a.dcm")
    first, second = found.items_of("PerFrameFunctionalGroupsSequence")
    assert [one.item("FrameAnatomySequence").text("FrameLaterality") for one in (first, second)] == ["L", "R"]
    assert first.item("FrameContentSequence").text("FrameAcquisitionDateTime") == "20240301093001"
    assert set(second) == {"FrameAnatomySequence"}


def test_frames_that_say_nothing_of_use_leave_nothing(tmp_path: Path) -> None:
    frames = [item(PixelMeasuresSequence=[item(SliceThickness=1.0)])]
    assert "PerFrameFunctionalGroupsSequence" not in every_way(
        a_dataset(PerFrameFunctionalGroupsSequence=frames), tmp_path / "a.dcm"
    )


def test_frames_are_not_asked_for_what_is_said_of_all_of_them(tmp_path: Path) -> None:
    shared = [item(FrameAnatomySequence=[item(FrameLaterality="B")])]
    more: dict[str, Any] = {"SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": FRAMES}
    undated = every_way(a_dataset(**more), tmp_path / "a.dcm")
    dated = every_way(a_dataset(**more, AcquisitionDateTime="20240301"), tmp_path / "b.dcm")
    assert "PerFrameFunctionalGroupsSequence" in undated
    assert "PerFrameFunctionalGroupsSequence" not in dated


def test_functional_groups_of_very_many_frames_are_jumped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "MAXIMUM_FRAMES_BYTES", 200)
    path = tmp_path / "a.dcm"
    path.write_bytes(as_file(a_dataset(PerFrameFunctionalGroupsSequence=FRAMES, Exposure=5)))
    found = read_headers(path)
    assert "PerFrameFunctionalGroupsSequence" not in found
    assert found.integer("Exposure") == 5


def a_document(title: str, scheme: str = "DCM") -> Dataset:
    reference = item(SeriesInstanceUID="1.2", ReferencedSOPSequence=[item(ReferencedSOPInstanceUID="1.3")])
    return a_dataset(
        ConceptNameCodeSequence=[a_code(title, scheme, "Title")],
        CurrentRequestedProcedureEvidenceSequence=[
            item(StudyInstanceUID="1.1", ReferencedSeriesSequence=[reference]),
        ],
        ReferencedSeriesSequence=[reference],
    )


@pytest.mark.parametrize(
    ("title", "scheme", "kept"), [("113001", "DCM", True), ("113000", "DCM", False), ("113001", "99X", False)]
)
def test_references_are_kept_of_rejection_notes_only(tmp_path: Path, title: str, scheme: str, kept: bool) -> None:
    found = every_way(a_document(title, scheme), tmp_path / "a.dcm")
    assert ("CurrentRequestedProcedureEvidenceSequence" in found) is kept
    assert "ReferencedSeriesSequence" not in found


@pytest.mark.parametrize(("title", "kept"), [(b"CT1 ", "CT1"), (b"CT\xe9 ", None), (b"  ", None)])
def test_the_sender_is_read_from_the_file_meta_information(tmp_path: Path, title: bytes, kept: str | None) -> None:
    dataset = a_dataset()
    dataset.file_meta.SourceApplicationEntityTitle = "SENDER01"
    content = as_file(dataset).replace(b"AE\x08\x00SENDER01", b"AE\x08\x00" + title.ljust(8))
    (tmp_path / "a.dcm").write_bytes(content)
    found = read_headers(tmp_path / "a.dcm")
    assert (found.text("SourceApplicationEntityTitle") or None) == kept
    assert Headers.from_dataset(dcmread(BytesIO(content))) == found


@pytest.mark.parametrize("key", ["00080020", "StudyDate"])
def test_dicom_json_is_known_by_tag_and_by_keyword(key: str) -> None:
    assert Headers.from_dicom_json({key: {"vr": "DA", "Value": ["20240301"]}}).text("StudyDate") == "20240301"


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("0020000d", "1.2", {"StudyInstanceUID": ("1.2",)}),
        ("00200013", 7, {"InstanceNumber": (7,)}),
        ("00200013", "7", {"InstanceNumber": (7,)}),
        ("00200013", 7.0, {"InstanceNumber": (7,)}),
        ("00200013", 2**63, {"InstanceNumber": (str(2**63),)}),
        ("00180050", 2.5, {"SliceThickness": (2.5,)}),
        ("00180050", 2, {"SliceThickness": (2.0,)}),
        ("00180050", True, {"SliceThickness": (1.0,)}),
        ("00080050", 17, {"AccessionNumber": ("17",)}),
        ("00081030", "  CT \0", {"StudyDescription": ("CT",)}),
        ("00081030", "", {}),
        ("00081030", None, {}),
        ("00091001", "private", {}),
        ("zzzzzzzz", "x", {}),
    ],
)
def test_dicom_json_values_are_read_leniently(key: str, value: Any, kept: dict[str, Any]) -> None:
    assert dict(Headers.from_dicom_json({key: {"Value": [value]}})) == kept


def test_what_was_stored_before_an_attribute_was_wanted_stays_readable() -> None:
    stored = {"StudyInstanceUID": ["1.2"], "AnAttributeNoLongerWanted": ["x"], "SliceThickness": [2]}
    found = Headers.from_json(stored)
    assert found.text("StudyInstanceUID") == "1.2"
    assert found.number("SliceThickness") == 2.0


def test_what_instances_share_is_read_once_and_what_differs_is_not_mixed_up() -> None:
    reader = InstanceReader()
    first = reader.headers({"Modality": {"Value": ["CT"]}, "InstanceNumber": {"Value": [1]}})
    reader.headers({"InstanceNumber": {"Value": [2]}})
    last = reader.headers({"InstanceNumber": {"Value": [3]}, "Modality": {"Value": ["CT"]}})
    assert last["Modality"] is first["Modality"]
    assert last["InstanceNumber"] == (3,)


def test_instances_with_sequences_in_sequences_without_end_are_read() -> None:
    reader = InstanceReader()
    nested: dict[str, Any] = {"CodeValue": {"Value": ["1"]}}
    for _ in range(5000):
        nested = {"ProcedureCodeSequence": {"Value": [nested]}}
    read = [reader.headers({"Modality": {"Value": ["CT"]}} | nested) for _ in range(2)]
    assert [headers.text("Modality") for headers in read] == ["CT", "CT"]
