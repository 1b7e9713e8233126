"""Who and what made a study: referrer, readers, performers, equipment, specimens, endpoints of series."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.translate.identifiers import Issuers
from tests.builders import STUDY, a_translator, headers
from tests.studies import a_code, item, remarked, series_of, study_of, translated

SCHEME = item(CodingSchemeDesignator="99STAFF", CodingSchemeUID="1.2.9")


def person(value: str, scheme: str = "99STAFF") -> Any:
    return item(PersonIdentificationCodeSequence=[a_code(value, scheme, "Dr. from the code")])


def test_people_have_the_identifier_of_their_identification_sequence() -> None:
    one = headers(
        CodingSchemeIdentificationSequence=[SCHEME],
        ReferringPhysicianName="Muster^Rita",
        ReferringPhysicianIdentificationSequence=[person("R1")],
        NameOfPhysiciansReadingStudy=["Reader^Rolf", "Reader^Rosa"],
        PhysiciansReadingStudyIdentificationSequence=[person("I1"), person("I2")],
        PerformingPhysicianIdentificationSequence=[person("P1")],
        OperatorsName="Tech^Toni",
        OperatorIdentificationSequence=[person("O1", "99OTHER")],
    )
    study = study_of(translated(one))
    identifier = {"system": "urn:oid:1.2.9", "value": "R1"}
    assert study["referrer"] == {"type": "Practitioner", "identifier": identifier, "display": "Rita Muster"}
    assert [(i["identifier"]["value"], i["display"]) for i in study["interpreter"]] == [
        ("I1", "Rolf Reader"),
        ("I2", "Rosa Reader"),
    ]
    first, second = study["series"][0]["performer"]
    assert first["function"]["coding"][0]["code"] == "PRF"
    assert (first["actor"]["identifier"]["value"], first["actor"]["display"]) == ("P1", "Dr. from the code")
    assert second["actor"] == {"display": "Toni Tech"}, "a scheme without a system identifies nobody"


def test_names_and_identifications_that_cannot_be_paired_are_not() -> None:
    one = headers(OperatorsName=["A^A", "B^B"], OperatorIdentificationSequence=[person("O1", "SCT")])
    result = translated(one)
    performers = study_of(result)["series"][0]["performer"]
    assert [p["actor"] for p in performers] == [{"display": "A A"}, {"display": "B B"}]
    assert remarked(result) == ["OperatorIdentificationSequence"]


@pytest.mark.parametrize(
    ("attributes", "actor"),
    [
        (
            {"ManufacturerModelName": "X1", "DeviceUID": "1.2.3", "DeviceSerialNumber": "9", "StationName": "CT1"},
            {
                "type": "Device",
                "identifier": {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"},
                "display": "Fictive Imaging X1 (CT1)",
            },
        ),
        ({"ManufacturerModelName": "X1"}, {"type": "Device", "display": "Fictive Imaging X1"}),
        ({"StationName": "CT1"}, None),
    ],
)
def test_equipment_is_a_performer_where_it_can_be_told_from_other_equipment(
    attributes: dict[str, str], actor: dict[str, Any] | None
) -> None:
    found = series_of(headers(**attributes))
    assert found.get("performer") == ([{"actor": actor}] if actor else None)


def test_a_serial_number_stands_with_its_manufacturer() -> None:
    (performer,) = series_of(headers(DeviceSerialNumber="9"))["performer"]
    assert performer["actor"]["identifier"]["value"] == "9"
    assert performer["actor"]["identifier"]["assigner"] == {"display": "Fictive Imaging"}


def test_specimens_are_logical_references_each_once() -> None:
    issuer = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")
    known = item(SpecimenIdentifier="S1", SpecimenUID="1.9.1", IssuerOfTheSpecimenIdentifierSequence=[issuer])
    local = item(SpecimenIdentifier="S2", SpecimenUID="1.9.2")
    bare = item(SpecimenIdentifier="S3")
    slides = [headers(instance=i, SpecimenDescriptionSequence=[local, known, bare]) for i in (1, 2)]
    found = [s["identifier"] for s in series_of(*slides)["specimen"]]
    assert [(i.get("system"), i["value"]) for i in found] == [
        (None, "S3"),
        ("urn:dicom:uid", "urn:oid:1.9.2"),
        ("urn:oid:1.2.3", "S1"),
    ]


def test_a_container_stands_for_specimens_without_id() -> None:
    slide = headers(ContainerIdentifier="C1", IssuerOfTheContainerIdentifierSequence=[item(LocalNamespaceEntityID="L")])
    (found,) = series_of(slide, issuers=Issuers({"L": "http://lab/container"}))["specimen"]
    assert found["identifier"] == {"system": "http://lab/container", "value": "C1"}


def test_a_series_that_only_some_archives_hold_says_which() -> None:
    translator = a_translator(endpoints={"a": "http://a/dw", "b": "http://b/dw"})
    both, one = headers(series=1), headers(series=2)
    study = study_of(translator.translate(STUDY, {"a": (both, one), "b": (both,)}))
    assert len(study["endpoint"]) == 2
    assert "endpoint" not in study["series"][0]
    assert study["series"][1]["endpoint"] == [study["endpoint"][0]]
