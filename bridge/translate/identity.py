"""Who the patient of a study is: DICOM identity attributes → FHIR identifiers and Patient (PS3.3 C.7.1.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.errors import InvalidDicomValue, RejectedInput
from bridge.model import AdministrativeGender, Resource
from bridge.translate.dates import fhir_date
from bridge.translate.headers import EMPTY, Headers
from bridge.translate.merge import Remarks, agreed
from bridge.translate.names import human_names
from bridge.translate.uids import resource_id

IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
_GENDER = {"M": AdministrativeGender.MALE, "F": AdministrativeGender.FEMALE, "O": AdministrativeGender.OTHER}
_ENTITY_PREFIX = {"ISO": "urn:oid:", "UUID": "urn:uuid:", "URI": ""}


@dataclass(frozen=True)
class Issuers:
    """How issuers become Identifier.system, for one site.

    Result  `systems` issuer name or local namespace → system; `patient_id_system` and `accession_system` for
            values without an issuer ("" = no system)
    """

    systems: Mapping[str, str]
    patient_id_system: str = ""
    accession_system: str = ""


def entity_system(item: Headers, issuers: Issuers) -> str:
    """The system of an HL7 v2 hierarchic designator (PS3.3 10.14); "" when it cannot be said without guessing."""
    entity, kind = item.text("UniversalEntityID"), item.text("UniversalEntityIDType").upper()
    if entity and kind in _ENTITY_PREFIX and not any(map(str.isspace, entity)):
        return entity if entity.startswith("urn:") else _ENTITY_PREFIX[kind] + entity
    return issuers.systems.get(entity) or issuers.systems.get(item.text("LocalNamespaceEntityID"), "")


def identifier(kind: str, system: str, value: str, assigner: str = "") -> Resource:
    """A FHIR Identifier with a v2-0203 type."""
    made: Resource = {"type": {"coding": [{"system": IDENTIFIER_TYPE, "code": kind}]}}
    if system:
        made["system"] = system
    made["value"] = value
    if assigner:
        made["assigner"] = {"display": assigner}
    return made


def patient_identifier(headers: Headers, issuers: Issuers) -> Resource | None:
    """PatientID with its authority: qualifiers, else the issuer by the site's map, else the site's default.

    From    PS3.3 C.7.1.1 PatientID, IssuerOfPatientID, IssuerOfPatientIDQualifiersSequence
    To      FHIR R4 Patient.identifier; None when PatientID is empty
    """
    value = headers.text("PatientID")
    if not value:
        return None
    qualifiers, issuer = headers.item("IssuerOfPatientIDQualifiersSequence"), headers.text("IssuerOfPatientID")
    system = entity_system(qualifiers, issuers) or issuers.systems.get(issuer, "")
    if not system and not issuer and not qualifiers:
        system = issuers.patient_id_system
    kind = " ".join(qualifiers.text("IdentifierTypeCode").split()) or "MR"
    return identifier(kind, system, value, issuer)


def one_patient(instances: Sequence[Headers], issuers: Issuers) -> Resource | None:
    """The identifier all instances of a study agree on; None when none has a PatientID.

    Raises  RejectedInput when they name different patients: whose study it is is never guessed
    """
    found = [i for i in (patient_identifier(h, issuers) for h in instances) if i is not None]
    keys = {_identity_key(i) for i in found}
    if len(keys) > 1:
        raise RejectedInput(
            "PatientID: the instances of this study name different patients. Correct the archive; "
            "the study is read again when it changes"
        )
    return found[0] if found else None


def other_patient(described: Headers, instances: Sequence[Headers], issuers: Issuers) -> bool:
    """Whether `described` names a patient other than the one these instances agree on."""
    one, main = patient_identifier(described, issuers), one_patient(instances, issuers)
    return one is not None and main is not None and _identity_key(one) != _identity_key(main)


def patient(
    study_instance_uid: str, instances: Sequence[Headers], issuers: Issuers, remarks: Remarks
) -> tuple[str, Resource]:
    """(id, Patient) as these instances describe the patient.

    The id follows from the identifier, so that one patient's studies share it; without a PatientID it follows
    from the study: unknown patients are never taken for one another.
    """
    main = one_patient(instances, issuers)
    key = resource_id("Patient", _identity_key(main)) if main else resource_id("Patient of", study_instance_uid)
    made: Resource = {"resourceType": "Patient", "id": key}
    identifiers = ([main] if main else []) + _other_identifiers(instances, main, issuers)
    if identifiers:
        made["identifier"] = identifiers
    agreed_headers = Headers(
        {keyword: agreed(instances, keyword, remarks) for keyword in ("PatientName", "PatientSex", "PatientBirthDate")}
    )
    if names := human_names(agreed_headers.name("PatientName")):
        made["name"] = names
    if gender := _gender(agreed_headers, remarks):
        made["gender"] = gender.value
    if born := _birth_date(agreed_headers, remarks):
        made["birthDate"] = born
    return key, made


def _identity_key(main: Resource) -> str:
    issuer = main.get("system") or "issuer:" + main.get("assigner", {}).get("display", "")
    return f"{issuer}|{main['value']}"


def _other_identifiers(instances: Sequence[Headers], main: Resource | None, issuers: Issuers) -> list[Resource]:
    """OtherPatientIDsSequence items that have an authority of their own; without one they identify nobody."""
    known = {_identity_key(main)} if main else set()
    found: dict[str, Resource] = {}
    for item in (i for h in instances for i in h.items_of("OtherPatientIDsSequence")):
        other = patient_identifier(item, Issuers(issuers.systems))
        if other and other.get("system") and _identity_key(other) not in known:
            found.setdefault(_identity_key(other), other)
    return [found[key] for key in sorted(found)]


def _gender(headers: Headers, remarks: Remarks) -> AdministrativeGender | None:
    value = headers.text("PatientSex").upper()
    if value and value not in _GENDER:
        remarks.add("PatientSex", "is none of M, F, O; left out")
    return _GENDER.get(value)


def _birth_date(headers: Headers, remarks: Remarks) -> str | None:
    try:
        return fhir_date(headers.text("PatientBirthDate"), "PatientBirthDate")
    except InvalidDicomValue as error:
        remarks.add(error.keyword, "is not a usable date; left out")
        return None


def accession_identifiers(instances: Sequence[Headers], issuers: Issuers) -> list[Resource]:
    """Every accession number of a study, its own and those of its orders, each once.

    From    PS3.3 C.7.2.1 AccessionNumber, IssuerOfAccessionNumberSequence; C.7.3.1 RequestAttributesSequence
    To      FHIR R4 Identifier, type ACSN
    """
    found: dict[str, Resource] = {}
    for headers in instances:
        for item in (headers, *headers.items_of("RequestAttributesSequence")):
            value = item.text("AccessionNumber")
            if not value:
                continue
            issuer = item.item("IssuerOfAccessionNumberSequence")
            system = entity_system(issuer, issuers) if issuer is not EMPTY else issuers.accession_system
            made = identifier("ACSN", system, value)
            found.setdefault(f"{system}|{value}", made)
    qualified = {i["value"] for i in found.values() if "system" in i}
    kept = {k: i for k, i in found.items() if "system" in i or i["value"] not in qualified}
    return [kept[key] for key in sorted(kept)]
