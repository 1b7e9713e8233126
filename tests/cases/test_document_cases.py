"""Every case of documents: DICOM JSON in, FHIR R4 out, as a person can read and review them."""

from __future__ import annotations

import json
from importlib.resources import files
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from bridge.code_tables import code_tables
from bridge.documents.attached import with_documents
from bridge.documents.document import Context
from bridge.documents.objects import kept_part
from bridge.model import InstanceName, KeptDocument, StudyResult, WadoEndpoint
from bridge.translate.r5 import to_r5
from bridge.translate.r5_selections import with_selections
from bridge.translate.site import Site
from tests.builders import STUDY, as_file
from tests.cases.test_ai_cases import _references
from tests.validity import told_wrong, told_wrong_in_both

CASES = {f.name: json.loads(f.read_text("utf-8")) for f in (files("mappings") / "document_cases").iterdir()}
CONTEXT = Context(Site(code_tables()), ("pacs",), {"pacs": WadoEndpoint("pacs", "http://pacs.example/dicom-web")})


def kept(plain: dict[str, Any]) -> KeptDocument:
    """A document as it is kept after it was read of the source `pacs`."""
    made = FileDataset(BytesIO(), Dataset.from_json(plain), file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    name = InstanceName(made.StudyInstanceUID, made.SeriesInstanceUID, made.SOPInstanceUID, made.SOPClassUID)
    return KeptDocument("pacs", name, "digest", kept_part(as_file(made), name))


def made(case: dict[str, Any]) -> list[dict[str, Any]]:
    study = StudyResult(STUDY, "", "", None, (case["imaging_study"],))
    result = with_documents(study, [kept(plain) for plain in case["documents"]], [], [], CONTEXT)
    assert result.rejected == result.remarks == ()
    return list(result.resources[1:])


@pytest.mark.parametrize("name", sorted(CASES))
def test_case(name: str) -> None:
    assert made(CASES[name]) == CASES[name]["fhir"]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_case_is_valid_in_both_versions_and_refers_only_to_what_there_is(name: str) -> None:
    case = CASES[name]
    known = {f"ImagingStudy/{case['imaging_study']['id']}", case["imaging_study"]["subject"]["reference"]}
    for resource in case["fhir"]:
        assert not told_wrong_in_both(resource)
        known.add(f"{resource['resourceType']}/{resource['id']}")
        r5 = to_r5(resource)
        for one in with_selections(r5) if resource["resourceType"] == "Observation" else (r5,):
            assert not told_wrong(one, "r5")
    assert {r for resource in case["fhir"] for r in _references(resource)} <= known


def test_there_are_cases() -> None:
    assert len(CASES) >= 7
