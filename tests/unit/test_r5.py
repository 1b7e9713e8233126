from __future__ import annotations

from copy import deepcopy
from typing import Any

import orjson
import pytest
from fhir.resources import get_fhir_model_class

from bridge.errors import RejectedInput
from bridge.translate.r5 import to_r5
from tests.builders import STUDY, a_translator, headers

DCM = "http://dicom.nema.org/resources/ontology/DCM"
ACCESSION = {
    "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
    "value": "A1",
}


def translated(*instances: Any) -> dict[str, Any]:
    translator = a_translator(endpoints={"a": "http://pacs/dicom-web"})
    result = translator.translate(STUDY, {"a": list(instances)})
    return {r["resourceType"]: r for r in (result.patient, *result.resources) if r is not None}


def a_study(**elements: Any) -> dict[str, Any]:
    """A study as R4 has it; an element given as None is left out."""
    made = {
        "resourceType": "ImagingStudy",
        "id": "s",
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
        "status": "available",
        "subject": {"reference": "Patient/p"},
    } | elements
    return {k: v for k, v in made.items() if v is not None}


def a_series(modality: str, **elements: Any) -> dict[str, Any]:
    return {"uid": "1.2.3.4", "modality": {"system": DCM, "code": modality}} | elements


def r5(resource: dict[str, Any]) -> dict[str, Any]:
    """`to_r5`, held to what is true of every conversion: valid, the input untouched, the same bytes every time."""
    before = deepcopy(resource)
    made = to_r5(resource)
    assert resource == before
    assert orjson.dumps(made) == orjson.dumps(to_r5(deepcopy(resource)))
    get_fhir_model_class(made["resourceType"]).model_validate(deepcopy(made))
    return made


def test_a_translated_study_and_all_that_belongs_to_it_are_valid_r5() -> None:
    made = translated(
        headers(BodyPartExamined="CHEST", Laterality="L", NameOfPhysiciansReadingStudy="Leser^Lia"),
        headers(series=2, Modality="SR", BodyPartExamined="FICTIVE PART"),
    )
    study, endpoint, patient = r5(made["ImagingStudy"]), r5(made["Endpoint"]), r5(made["Patient"])
    assert [c["coding"][0]["code"] for c in study["modality"]] == ["CT", "SR"]
    assert [i["system"] for i in study["identifier"]] == ["urn:dicom:uid"]
    assert study["basedOn"] == [{"type": "ServiceRequest", "identifier": ACCESSION}]
    assert "interpreter" in made["ImagingStudy"]
    assert "interpreter" not in study
    chest, other = study["series"]
    assert chest["bodySite"]["concept"]["coding"][0]["code"] == "43799004"
    assert chest["laterality"]["coding"][0]["code"] == "7771000"
    assert other["bodySite"] == {"concept": {"text": "FICTIVE PART"}}
    assert endpoint["connectionType"][0]["coding"][0]["code"] == "dicom-wado-rs"
    assert endpoint["payload"] == [
        {"type": made["Endpoint"]["payloadType"], "mimeType": made["Endpoint"]["payloadMimeType"]}
    ]
    assert patient == made["Patient"]


def test_elements_stand_in_the_order_of_r5() -> None:
    study = r5(translated(headers(StudyDescription="CT"))["ImagingStudy"])
    assert list(study) == [
        "resourceType", "id", "identifier", "status", "modality", "subject", "started", "basedOn", "endpoint",
        "numberOfSeries", "numberOfInstances", "description", "series",
    ]  # fmt: skip


def test_modalities_that_r4_leaves_out_are_listed_each_once() -> None:
    study = a_study(
        modality=[{"system": DCM, "code": "MR"}],
        series=[a_series("SR"), a_series("MR", uid="1.2.5"), a_series("MR", uid="1.2.6"), a_series("KO", uid="1.2.7")],
    )
    assert [c["coding"][0]["code"] for c in r5(study)["modality"]] == ["KO", "MR", "SR"]
    assert [c["coding"][0]["code"] for c in r5(a_study(series=[a_series("SR")]))["modality"]] == ["SR"]


def test_a_study_without_series_keeps_its_modality() -> None:
    made = r5(a_study(status="registered", modality=[{"system": DCM, "code": "CT"}], numberOfSeries=0))
    assert made["modality"] == [{"coding": [{"system": DCM, "code": "CT"}]}]
    assert made["numberOfSeries"] == 0
    assert "series" not in made


def test_an_accession_number_no_order_names_yet_becomes_an_order() -> None:
    other = ACCESSION | {"system": "urn:oid:1.9"}
    known = {"type": "ServiceRequest", "reference": "ServiceRequest/1", "identifier": ACCESSION}
    made = r5(
        a_study(identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1"}, ACCESSION, other], basedOn=[known])
    )
    assert made["basedOn"] == [known, {"type": "ServiceRequest", "identifier": other}]
    assert made["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:1"}]


def test_codes_and_references_become_codeable_references() -> None:
    made = r5(
        a_study(
            procedureCode=[{"text": "CT"}],
            procedureReference={"reference": "Procedure/1"},
            reasonCode=[{"text": "cough"}],
            reasonReference=[
                {"reference": "Condition/1"}, {"reference": "Media/1"}, {"reference": "http://h/fhir/Media/2"},
                {"type": "Media", "identifier": {"value": "m"}},
            ],
        )
    )  # fmt: skip
    assert made["procedure"] == [{"concept": {"text": "CT"}}]
    assert made["partOf"] == [{"reference": "Procedure/1"}]
    assert made["reason"] == [{"concept": {"text": "cough"}}, {"reference": {"reference": "Condition/1"}}]
    assert not {"procedureCode", "procedureReference", "reasonCode", "reasonReference"} & set(made)


def test_extensions_are_carried_over() -> None:
    extension = [{"url": "http://h/x", "valueString": "v"}]
    study = a_study(
        extension=extension, _description={"extension": extension}, series=[a_series("CT", extension=extension)]
    )
    made = r5(study)
    assert made["extension"] == extension
    assert made["_description"] == {"extension": extension}
    assert made["series"][0]["extension"] == extension


def test_instances_are_shared_not_copied() -> None:
    instances = [{"uid": f"1.2.{n}", "sopClass": {"system": "urn:ietf:rfc:3986"}} for n in range(3)]
    assert r5(a_study(series=[a_series("CT", instance=instances)]))["series"][0]["instance"] is instances


@pytest.mark.parametrize("resource", [{"resourceType": "Media"}, {"resourceType": "Endpoint", "status": "test"}])
def test_what_r5_has_no_word_for_is_refused(resource: dict[str, Any]) -> None:
    with pytest.raises(RejectedInput, match="R5"):
        to_r5(resource)
