"""Who the patient is: which authority an id has, what else identifies, what is nobody's."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import RejectedInput
from bridge.translate.headers import Headers
from bridge.translate.identifiers import AeTitle, Issuers
from tests.builders import headers
from tests.studies import item, patient_of, remarked, translated

SITE = Issuers(
    {"GH": "http://gh/mrn", "dns.example": "http://dns/mrn"},
    patient_id_system="http://default/mrn",
    ae_titles={"CT1": AeTitle(patient_id_system="http://ct1/mrn")},
    unknown_patient_ids=frozenset({"anon", "phantom"}),
)
ISO = item(UniversalEntityID="1.2.3", UniversalEntityIDType="ISO")


def main(found: dict[str, Any]) -> tuple[str | None, str, str | None]:
    first = found["identifier"][0]
    return first.get("system"), first["value"], first.get("assigner", {}).get("display")


@pytest.mark.parametrize(
    ("attributes", "system", "assigner"),
    [
        ({"IssuerOfPatientIDQualifiersSequence": [ISO], "IssuerOfPatientID": "GH"}, "urn:oid:1.2.3", "GH"),
        ({"IssuerOfPatientID": "GH", "StationAETitle": "CT1"}, "http://gh/mrn", "GH"),
        ({"StationAETitle": "CT1"}, "http://ct1/mrn", None),
        ({"PerformedStationAETitle": "CT1", "StationAETitle": "CT2"}, "http://ct1/mrn", None),
        ({"StationAETitle": "CT2"}, "http://default/mrn", None),
        ({"IssuerOfPatientID": "FOREIGN", "StationAETitle": "CT1"}, None, "FOREIGN"),
        ({"IssuerOfPatientIDQualifiersSequence": [item(LocalNamespaceEntityID="GH")]}, "http://gh/mrn", None),
        ({"IssuerOfPatientIDQualifiersSequence": [item(LocalNamespaceEntityID="OTHER")]}, None, "OTHER"),
        (
            {
                "IssuerOfPatientIDQualifiersSequence": [
                    item(UniversalEntityID="dns.example", UniversalEntityIDType="DNS")
                ]
            },
            "http://dns/mrn",
            None,
        ),
    ],
)
def test_the_authority_is_the_best_that_is_said_and_never_a_guess(
    attributes: dict[str, Any], system: str | None, assigner: str | None
) -> None:
    assert main(patient_of(translated(headers(**attributes), issuers=SITE))) == (system, "P1", assigner)


def test_the_sender_of_the_file_counts_before_the_station() -> None:
    sent = Headers({**headers(StationAETitle="CT9"), "SourceApplicationEntityTitle": ("CT1",)})
    assert main(patient_of(translated(sent, issuers=SITE)))[0] == "http://ct1/mrn"


def test_local_namespaces_without_a_system_keep_their_patients_apart() -> None:
    one, two = (
        translated(headers(IssuerOfPatientIDQualifiersSequence=[item(LocalNamespaceEntityID=name)])).patient_key
        for name in ("HOSPITAL A", "HOSPITAL B")
    )
    assert len({one, two, translated(headers()).patient_key}) == 3


@pytest.mark.parametrize("value", ["ANON", "anon", " Phantom "])
def test_an_id_that_is_nobodys_gives_a_patient_for_this_study_alone(value: str) -> None:
    result = translated(headers(PatientID=value), issuers=SITE)
    assert "identifier" not in patient_of(result)
    assert result.patient_key == translated(headers(PatientID=""), issuers=SITE).patient_key
    assert remarked(result) == ["PatientID"]


def test_a_phantom_among_the_instances_does_not_hide_whose_the_others_are() -> None:
    result = translated(headers(instance=1, PatientID="PHANTOM"), headers(instance=2), issuers=SITE)
    assert main(patient_of(result))[1] == "P1"


def test_other_ids_are_kept_with_an_authority_of_their_own_and_say_what_they_are() -> None:
    foreign = item(PatientID="F1", TypeOfPatientID="TEXT", IssuerOfPatientID="GH")
    wristband = item(PatientID="B1", TypeOfPatientID="BARCODE", IssuerOfPatientIDQualifiersSequence=[ISO])
    national = item(
        PatientID="N1",
        IssuerOfPatientIDQualifiersSequence=[
            item(UniversalEntityID="1.2.4", UniversalEntityIDType="ISO", IdentifierTypeCode="NI")
        ],
    )
    nobodys = [item(PatientID="X", TypeOfPatientID="TEXT"), item(PatientID="ANON", IssuerOfPatientID="GH")]
    one = headers(OtherPatientIDsSequence=[foreign, wristband, national, *nobodys, foreign])
    _, *others = patient_of(translated(one, issuers=SITE))["identifier"]
    assert [(i["value"], i["type"].get("text") or i["type"]["coding"][0]["code"]) for i in others] == [
        ("F1", "MR"),
        ("B1", "BARCODE"),
        ("N1", "NI"),
    ]


@pytest.mark.parametrize(
    ("born", "told", "expected"),
    [
        ("19700101", [], "1970-01-01"),
        ("20240301", [], "2024-03-01"),
        ("202403", [], "2024-03"),
        ("20240302", ["PatientBirthDate"], None),
        ("2025", ["PatientBirthDate"], None),
        ("19000101", ["PatientBirthDate"], None),
        ("18490101", ["PatientBirthDate"], None),
    ],
)
def test_a_birth_date_that_cannot_be_the_patients_is_left_out(born: str, told: list[str], expected: str | None) -> None:
    result = translated(headers(PatientBirthDate=born), dummy_birth_dates=frozenset({"19000101"}))
    assert patient_of(result).get("birthDate") == expected
    assert remarked(result) == told


@pytest.mark.parametrize("name", ["^^^^", "ANONYMOUS", "Anonymized", ""])
def test_a_name_that_is_nobodys_is_left_out(name: str) -> None:
    assert "name" not in patient_of(translated(headers(PatientName=name)))


def test_two_patients_are_told_apart_by_issuer_too() -> None:
    with pytest.raises(RejectedInput, match="different patients"):
        translated(headers(instance=1), headers(instance=2, IssuerOfPatientID="GH"))
