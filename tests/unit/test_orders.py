"""What a study was made for: order numbers, the visit, procedures and reasons."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.translate.identifiers import AeTitle, Issuers
from tests.builders import headers
from tests.studies import a_code, item, study_of, translated

RIS = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
LOCAL = item(LocalNamespaceEntityID="RIS")


def kinds(references: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    found = [r["identifier"] for r in references]
    return [
        (i["type"].get("coding", [{"code": i["type"].get("text")}])[0]["code"], i.get("system", ""), i["value"])
        for i in found
    ]


def test_every_number_of_every_order_is_a_reference_once_and_in_order() -> None:
    request = item(
        AccessionNumber="B2",
        IssuerOfAccessionNumberSequence=[RIS],
        PlacerOrderNumberImagingServiceRequest="P1",
        OrderPlacerIdentifierSequence=[LOCAL],
        FillerOrderNumberImagingServiceRequest="F1",
        RequestedProcedureID="RP1",
    )
    one = headers(instance=1, RequestAttributesSequence=[request, item(AccessionNumber="B3")])
    two = headers(instance=2, RequestAttributesSequence=[item(AccessionNumber="B3"), request])
    site = Issuers({"RIS": "http://ris/order"}, requested_procedure_id_system="http://ris/procedure")
    study = study_of(translated(one, two, issuers=site))
    assert kinds(study["basedOn"]) == [
        ("ACSN", "", "A1"),
        ("ACSN", "", "B3"),
        ("ACSN", "urn:oid:1.2.3", "B2"),
        ("PLAC", "http://ris/order", "P1"),
        ("FILL", "", "F1"),
        ("Requested Procedure ID", "http://ris/procedure", "RP1"),
    ]
    assert {r["type"] for r in study["basedOn"]} == {"ServiceRequest"}
    assert [i["value"] for i in study["identifier"][1:]] == ["A1", "B3", "B2"]


def test_a_document_names_its_orders_in_the_referenced_requests() -> None:
    note = headers(Modality="SR", AccessionNumber="", ReferencedRequestSequence=[item(AccessionNumber="B7")])
    assert kinds(study_of(translated(note))["basedOn"]) == [("ACSN", "", "B7")]


def test_a_number_that_is_known_with_its_issuer_is_not_repeated_without() -> None:
    request = item(AccessionNumber="A1", IssuerOfAccessionNumberSequence=[RIS])
    study = study_of(translated(headers(RequestAttributesSequence=[request])))
    assert kinds(study["basedOn"]) == [("ACSN", "urn:oid:1.2.3", "A1")]


def test_an_accession_number_without_issuer_has_the_system_of_who_sent_it_then_the_sites() -> None:
    site = Issuers({}, accession_system="http://h/acc", ae_titles={"CT1": AeTitle(accession_system="http://ct/acc")})
    sent, other = headers(StationAETitle="CT1"), headers(StationAETitle="CT2")
    foreign = headers(StationAETitle="CT1", IssuerOfAccessionNumberSequence=[LOCAL])
    assert kinds(study_of(translated(sent, issuers=site))["basedOn"]) == [("ACSN", "http://ct/acc", "A1")]
    assert kinds(study_of(translated(other, issuers=site))["basedOn"]) == [("ACSN", "http://h/acc", "A1")]
    assert kinds(study_of(translated(foreign, issuers=site))["basedOn"]) == [("ACSN", "", "A1")]


def test_a_study_id_is_an_identifier_only_where_the_site_has_a_system_for_it() -> None:
    one = headers(StudyID="17")
    assert len(study_of(translated(one))["identifier"]) == 2
    known = study_of(translated(one, issuers=Issuers({}, study_id_system="http://h/study")))
    assert known["identifier"][-1] == {"system": "http://h/study", "value": "17"}


@pytest.mark.parametrize(
    ("issuer", "system"),
    [([RIS], "urn:oid:1.2.3"), ([LOCAL], None), ([], "http://h/visit"), (None, "http://h/visit")],
)
def test_an_admission_is_a_visit_number_of_its_issuer(issuer: Any, system: str | None) -> None:
    site = Issuers({}, admission_id_system="http://h/visit")
    one = headers(AdmissionID="V1", IssuerOfAdmissionIDSequence=issuer)
    encounter = study_of(translated(one, issuers=site))["encounter"]
    assert encounter["type"] == "Encounter"
    assert encounter["identifier"]["type"]["coding"][0]["code"] == "VN"
    assert (encounter["identifier"].get("system"), encounter["identifier"]["value"]) == (system, "V1")


@pytest.mark.parametrize("entity", ["not an oid", "1.02.3", "1.2.3 4"])
def test_a_malformed_entity_gives_no_system(entity: str) -> None:
    issuer = item(UniversalEntityID=entity, UniversalEntityIDType="ISO")
    (reference,) = study_of(translated(headers(IssuerOfAccessionNumberSequence=[issuer])))["basedOn"]
    assert "system" not in reference["identifier"]


def test_procedures_and_reasons_of_several_requests_are_each_there_once() -> None:
    chest, head = a_code("24627-2", "LN", "CT Chest"), a_code("24725-4", "LN", "CT Head")
    why = a_code("233604007", "SCT", "Pneumonia")
    requests = [
        item(RequestedProcedureCodeSequence=[code], ReasonForRequestedProcedureCodeSequence=[why])
        for code in (head, chest)
    ]
    study = study_of(translated(*(headers(instance=i, RequestAttributesSequence=requests) for i in (1, 2))))
    assert [c["coding"][0]["code"] for c in study["procedureCode"]] == ["24627-2", "24725-4"]
    assert [c["text"] for c in study["reasonCode"]] == ["Pneumonia"]


def test_what_was_performed_counts_before_what_was_requested() -> None:
    done, asked = a_code("1", "LN", "done"), a_code("2", "LN", "asked")
    one = headers(ProcedureCodeSequence=[done], RequestedProcedureCodeSequence=[asked])
    assert [c["text"] for c in study_of(translated(one))["procedureCode"]] == ["done"]


def test_a_reason_in_words_stands_where_no_code_does() -> None:
    one = headers(RequestAttributesSequence=[item(ReasonForTheRequestedProcedure="cough  since May")])
    assert study_of(translated(one))["reasonCode"] == [{"text": "cough since May"}]


def test_the_location_is_the_department_else_where_the_step_was_performed() -> None:
    assert study_of(translated(headers(PerformedLocation="CT 2")))["location"] == {"display": "CT 2"}
    both = headers(PerformedLocation="CT 2", InstitutionalDepartmentName="Radiology")
    assert study_of(translated(both))["location"] == {"display": "Radiology"}
