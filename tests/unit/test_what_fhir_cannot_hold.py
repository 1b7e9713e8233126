"""Text that FHIR's string, code and uri cannot hold never reaches a resource, whatever it was read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from bridge.sources.part10 import read_headers
from bridge.translate.headers import Headers
from tests.builders import STUDY, a_translator, headers, write_file
from tests.validity import told_wrong_in_both


def dicom_json(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def item(**attributes: str) -> Dataset:
    made = Dataset()
    with disable_value_validation():
        for keyword, value in attributes.items():
            setattr(made, keyword, value)
    return made


def resources(instance: Headers) -> dict[str, Any]:
    result = a_translator().translate(STUDY, {"a": [instance]})
    made = {r["resourceType"]: r for r in (*result.resources, result.patient) if r is not None}
    assert [p for r in made.values() for p in told_wrong_in_both(r)] == []
    return made


def test_control_characters_are_left_out_alike_from_json_a_dataset_and_a_file(tmp_path: Path) -> None:
    dirty = {"PatientID": "P\x01\x851", "StudyDescription": "CT\x1b\x0c chest", "PatientName": "Test\x02^Eva\x0c"}
    vrs = {"PatientID": "LO", "StudyDescription": "LO", "PatientName": "PN"}
    from_json = Headers.from_dicom_json({k: dicom_json(vrs[k], v) for k, v in dirty.items()})
    assert from_json.text("PatientID") == "P1"
    assert from_json.text("StudyDescription") == "CT\n chest"
    assert from_json.name("PatientName").alphabetic == "Test^Eva\n"
    for other in (headers(**dirty), read_headers(write_file(tmp_path / "a.dcm", **dirty))):
        assert {k: other[k] for k in dirty} == dict(from_json)
    made = resources(Headers({**headers(), **from_json}))
    assert made["Patient"]["identifier"][0]["value"] == "P1"
    assert made["Patient"]["name"][0]["text"] == "Eva Test"
    assert made["ImagingStudy"]["description"] == "CT chest"


def test_line_ends_and_tabs_stay_in_prose() -> None:
    prose = " one\r\n\ttwo\x0bthree "
    assert Headers.from_dicom_json({"ReasonForTheRequestedProcedure": dicom_json("LO", prose)}) == {
        "ReasonForTheRequestedProcedure": ("one\r\n\ttwothree",)
    }


@pytest.mark.parametrize(("keyword", "vr"), [("SOPInstanceUID", "UI"), ("InstanceNumber", "IS"), ("KVP", "DS")])
def test_a_uid_or_a_number_never_becomes_another_one(keyword: str, vr: str) -> None:
    (kept,) = Headers.from_dicom_json({keyword: dicom_json(vr, "1.2\x013")})[keyword]
    assert kept == "1.2\x013"


@pytest.mark.parametrize("code", ["A  1", "A\t1", "A\n1"])
def test_a_code_with_other_than_single_blanks_is_only_its_meaning(code: str) -> None:
    procedure = item(CodeValue=code, CodingSchemeDesignator="LN", CodeMeaning="CT")
    assert resources(headers(ProcedureCodeSequence=[procedure]))["ImagingStudy"]["procedureCode"] == [{"text": "CT"}]


def test_no_system_is_made_of_what_is_no_uri() -> None:
    authority = item(UniversalEntityID="1.2 3", UniversalEntityIDType="ISO", IdentifierTypeCode="M  R")
    (found,) = resources(headers(IssuerOfPatientIDQualifiersSequence=[authority]))["Patient"]["identifier"]
    assert "system" not in found
    assert found["type"]["coding"][0]["code"] == "M R"
    scheme = item(CodingSchemeUID="1.2\t3")
    procedure = item(CodeValue="1", CodingSchemeDesignator="99X", CodeMeaning="CT")
    procedure.CodingSchemeIdentificationSequence = [scheme]
    assert resources(headers(ProcedureCodeSequence=[procedure]))["ImagingStudy"]["procedureCode"] == [{"text": "CT"}]
