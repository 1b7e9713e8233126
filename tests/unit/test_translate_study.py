from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from fhir.resources.R4B.endpoint import Endpoint
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.patient import Patient
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from bridge.errors import RejectedInput
from bridge.model import ImagingStudyStatus, StudyResult
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers
from tests.builders import STUDY, a_dataset, a_translator, headers


def item(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def translated(*instances: Headers, **kwargs: Any) -> StudyResult:
    return a_translator(**kwargs).translate(STUDY, {"a": instances})


def the_study(result: StudyResult) -> dict[str, Any]:
    (found,) = (r for r in result.resources if r["resourceType"] == "ImagingStudy")
    ImagingStudy.model_validate(found)
    return found


def the_patient(result: StudyResult) -> dict[str, Any]:
    assert result.patient is not None
    Patient.model_validate(result.patient)
    return result.patient


def test_a_study_becomes_an_imaging_study_with_every_element_dicom_fills() -> None:
    procedure = item(CodeValue="24627-2", CodingSchemeDesignator="LN", CodeMeaning="CT Chest")
    reason = item(CodeValue="233604007", CodingSchemeDesignator="SCT", CodeMeaning="Pneumonia")
    study = the_study(
        translated(
            headers(
                ReferringPhysicianName="Muster^Rita^^Dr.",
                NameOfPhysiciansReadingStudy="Reader^Rolf",
                ProcedureCodeSequence=[procedure],
                RequestAttributesSequence=[item(ReasonForRequestedProcedureCodeSequence=[reason])],
                SeriesDate="20240301",
                SeriesTime="0930",
                SeriesDescription="axial  5mm",
                BodyPartExamined="CHEST",
                Laterality="L",
                PerformingPhysicianName="Doer^Dora",
                OperatorsName="Tech^Toni",
            ),
            endpoints={"a": "http://pacs/dicom-web"},
        )
    )
    assert study["identifier"][0] == {"use": "official", "system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}
    assert study["identifier"][1]["value"] == "A1"
    assert study["basedOn"][0]["identifier"]["value"] == "A1"
    assert study["status"] == "available"
    assert [m["code"] for m in study["modality"]] == ["CT"]
    assert study["started"] == "2024-03-01T09:15:00+01:00"
    assert study["referrer"] == {"display": "Dr. Rita Muster"}
    assert study["interpreter"] == [{"display": "Rolf Reader"}]
    assert study["procedureCode"][0]["coding"][0]["system"] == "http://loinc.org"
    assert study["reasonCode"][0]["coding"][0]["code"] == "233604007"
    assert study["description"] == "CT chest"
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (1, 1)
    series = study["series"][0]
    assert series["started"] == "2024-03-01T09:30:00+01:00"
    assert series["description"] == "axial 5mm"
    assert series["bodySite"]["system"] == "http://snomed.info/sct"
    assert series["laterality"]["code"] == "7771000"
    assert [p["function"]["coding"][0]["code"] for p in series["performer"]] == ["PRF", "SPRF"]
    assert series["instance"][0] == {
        "uid": f"{STUDY}.1.1",
        "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"},
        "number": 1,
        "title": "ORIGINAL\\PRIMARY\\AXIAL",
    }


def test_the_endpoint_is_the_service_base_and_the_study_refers_to_it() -> None:
    result = translated(headers(), endpoints={"a": "http://pacs/dicom-web"})
    endpoint = result.resources[0]
    Endpoint.model_validate(endpoint)
    assert endpoint["address"] == "http://pacs/dicom-web"
    assert the_study(result)["endpoint"][0]["reference"] == f"Endpoint/{endpoint['id']}"


def test_the_order_of_instances_does_not_change_a_byte() -> None:
    instances = [headers(series=s, instance=i) for s in (1, 2, 3) for i in range(1, 8)]
    expected = orjson.dumps(translated(*instances).resources)
    for seed in range(5):
        random.Random(seed).shuffle(instances)
        assert orjson.dumps(translated(*instances).resources) == expected


def test_a_study_in_two_archives_is_one_study_with_both_endpoints() -> None:
    one, two = headers(instance=1), headers(instance=2)
    translator = a_translator(endpoints={"a": "http://a/dw", "b": "http://b/dw"})
    study = the_study(translator.translate(STUDY, {"a": (one,), "b": (one, two)}))
    assert study["numberOfInstances"] == 2
    assert len(study["endpoint"]) == 2


def test_values_that_differ_take_the_most_common_and_are_remarked() -> None:
    result = translated(*(headers(instance=i, StudyDescription="odd" if i == 1 else "usual") for i in (1, 2, 3)))
    assert the_study(result)["description"] == "usual"
    assert [r.keyword for r in result.remarks] == ["StudyDescription"]


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "../../x", "1.2." + "3" * 70])
def test_an_instance_without_a_place_is_rejected_and_the_rest_goes_on(keyword: str, value: str | None) -> None:
    good = headers(instance=1)
    plain = headers(instance=2).as_json()
    plain.pop(keyword)
    bad = Headers.from_json(plain | ({keyword: [value]} if value else {}))
    result = translated(good, bad)
    assert the_study(result)["numberOfInstances"] == 1
    (rejection,) = result.rejected
    assert rejection.error.startswith(keyword)


def test_a_study_without_any_usable_instance_is_rejected_as_a_whole() -> None:
    with pytest.raises(RejectedInput, match="SOPInstanceUID"):
        translated(Headers({k: v for k, v in headers().items() if k != "SOPInstanceUID"}))


def test_two_patients_in_one_study_are_never_guessed_between() -> None:
    with pytest.raises(RejectedInput, match="PatientID") as caught:
        translated(headers(instance=1, PatientID="SECRET1"), headers(instance=2, PatientID="SECRET2"))
    assert "SECRET" not in str(caught.value)


def test_the_first_archive_says_who_the_patient_is() -> None:
    snapshots = {"b": (headers(PatientID="OLD"),), "a": (headers(PatientID="NEW"),)}
    result = a_translator(order=("a", "b")).translate(STUDY, snapshots)
    assert the_patient(result)["identifier"][0]["value"] == "NEW"


def test_the_same_id_from_two_issuers_is_two_patients() -> None:
    qualifiers = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    one = the_patient(translated(headers(IssuerOfPatientIDQualifiersSequence=[qualifiers])))
    two = the_patient(translated(headers(IssuerOfPatientID="OTHER")))
    three = the_patient(translated(headers(), issuers=Issuers({}, "http://mrn")))
    assert one["identifier"][0]["system"] == "urn:oid:1.2.3"
    assert "system" not in two["identifier"][0]
    assert three["identifier"][0]["system"] == "http://mrn"
    assert len({one["id"], two["id"], three["id"]}) == 3


def test_a_known_issuer_gets_the_sites_system() -> None:
    found = the_patient(translated(headers(IssuerOfPatientID="GH"), issuers=Issuers({"GH": "http://gh/mrn"})))
    assert found["identifier"][0]["system"] == "http://gh/mrn"


def test_unknown_patients_are_never_taken_for_one_another() -> None:
    other = STUDY + ".77"
    one = a_translator().translate(STUDY, {"a": (headers(PatientID=""),)})
    two = a_translator().translate(other, {"a": (headers(study=other, PatientID=""),)})
    assert one.patient_key != two.patient_key
    assert "identifier" not in the_patient(one)


@pytest.mark.parametrize(
    ("sex", "birth", "gender", "born"),
    [
        ("M", "19700300", "male", "1970-03"),
        ("x", "soon", None, None),
        ("", "", None, None),
        ("O", "1970", "other", "1970"),
    ],
)
def test_sex_and_birth_date_pass_only_while_their_meaning_is_certain(
    sex: str, birth: str, gender: str | None, born: str | None
) -> None:
    plain = headers().as_json() | {"PatientSex": [sex], "PatientBirthDate": [birth]}
    found = the_patient(translated(Headers.from_json(plain)))
    assert (found.get("gender"), found.get("birthDate")) == (gender, born)


def test_names_keep_their_three_representations() -> None:
    found = the_patient(translated(headers(PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")))
    assert [n["family"] for n in found["name"]] == ["Yamada", "山田", "やまだ"]
    assert [n["extension"][0]["valueCode"] for n in found["name"]] == ["ABC", "IDE", "SYL"]


def test_a_series_without_modality_is_other_and_remarked() -> None:
    result = translated(headers(Modality=None))
    assert the_study(result)["series"][0]["modality"]["code"] == "OT"
    assert "modality" not in the_study(result)
    assert [r.keyword for r in result.remarks] == ["Modality"]


def test_documents_have_their_own_titles_and_are_no_acquisition() -> None:
    title = item(CodeValue="113000", CodingSchemeDesignator="DCM", CodeMeaning="Of Interest")
    note = headers(
        series=2, Modality="KO", SOPClassUID=KeyObjectSelectionDocumentStorage, ConceptNameCodeSequence=[title]
    )
    study = the_study(translated(headers(), note))
    assert [m["code"] for m in study["modality"]] == ["CT"]
    assert study["series"][1]["instance"][0]["title"] == "Of Interest"


def test_an_unknown_body_part_keeps_its_words_and_gets_no_code() -> None:
    result = translated(headers(BodyPartExamined="LEFT BIG TOE AREA"))
    assert the_study(result)["series"][0]["bodySite"] == {"display": "LEFT BIG TOE AREA"}


def test_a_retired_code_becomes_snomed_ct_and_an_unknown_scheme_keeps_only_its_words() -> None:
    retired = item(CodeValue="T-D3000", CodingSchemeDesignator="SRT", CodeMeaning="Chest")
    local = item(CodeValue="X1", CodingSchemeDesignator="99LOCAL", CodeMeaning="Our exam")
    study = the_study(translated(headers(AnatomicRegionSequence=[retired], ProcedureCodeSequence=[local])))
    assert study["series"][0]["bodySite"]["system"] == "http://snomed.info/sct"
    assert study["procedureCode"] == [{"text": "Our exam"}]


def test_several_orders_are_several_references() -> None:
    orders = [item(AccessionNumber="B2"), item(AccessionNumber="B3")]
    study = the_study(translated(headers(RequestAttributesSequence=orders)))
    assert [i["identifier"]["value"] for i in study["basedOn"]] == ["A1", "B2", "B3"]


@pytest.mark.parametrize("number", ["-1", "9999999999", "one"])
def test_a_number_fhir_cannot_hold_is_left_out_and_remarked(number: str) -> None:
    plain = headers().as_json() | {"InstanceNumber": [number]}
    result = translated(
        Headers.from_dicom_json({"00200013": {"vr": "IS", "Value": [number]}}) and Headers.from_json(plain)
    )
    assert "number" not in the_study(result)["series"][0]["instance"][0]
    assert [r.keyword for r in result.remarks] == ["InstanceNumber"]


def test_a_withdrawn_study_keeps_its_identity_and_loses_what_can_no_longer_be_fetched() -> None:
    result = translated(headers(), endpoints={"a": "http://pacs/dicom-web"})
    (gone,) = a_translator().withdraw(STUDY, result.resources).resources
    ImagingStudy.model_validate(gone)
    assert gone["status"] == ImagingStudyStatus.ENTERED_IN_ERROR
    assert gone["identifier"] == the_study(result)["identifier"]
    assert "endpoint" not in gone
    assert "series" not in gone
    assert gone["numberOfInstances"] == 0


def test_rows_carry_acquisition_attributes_with_units_in_their_names() -> None:
    found = a_translator().rows(STUDY, {"a": (headers(instance=1), headers(instance=2, KVP=100))})
    (study,) = found["dicom_study"]
    assert study["sources"] == "a"
    assert study["number_of_instances"] == 2
    (series,) = found["dicom_series"]
    assert series["slice_thickness_mm"] == 2.5
    assert series["pixel_spacing_row_mm"] == 0.5
    assert series["pixel_spacing_column_mm"] == 0.75
    assert sorted(r["kvp_kv"] for r in found["dicom_instance"]) == [100.0, 120.0]
    assert found["dicom_instance"][0]["image_type"] == "ORIGINAL\\PRIMARY\\AXIAL"


def test_enhanced_images_give_their_shared_functional_groups() -> None:
    measures = item(PixelMeasuresSequence=[item(SliceThickness=1.25, PixelSpacing=[0.4, 0.4])])
    plain = a_dataset(SliceThickness=None, PixelSpacing=None, SharedFunctionalGroupsSequence=[measures])
    (row,) = a_translator().rows(STUDY, {"a": (Headers.from_dataset(plain),)})["dicom_instance"]
    assert (row["slice_thickness_mm"], row["pixel_spacing_row_mm"]) == (1.25, 0.4)
