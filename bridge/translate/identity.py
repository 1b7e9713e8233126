"""Who the patient of a study is: DICOM identity attributes → FHIR identifiers and Patient (PS3.3 C.7.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.errors import InvalidDicomValue, RejectedInput
from bridge.model import AdministrativeGender, Resource
from bridge.translate.dates import fhir_date
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers, entity_name, entity_system, identifier
from bridge.translate.merge import Remarks, agreed_of, distinct
from bridge.translate.names import human_names
from bridge.translate.site import Site
from bridge.translate.uids import resource_id

_GENDER = {"M": AdministrativeGender.MALE, "F": AdministrativeGender.FEMALE, "O": AdministrativeGender.OTHER}
_IDENTITY = (
    "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "SourceApplicationEntityTitle",
    "StationAETitle", "PerformedStationAETitle",
)  # fmt: skip
_MACHINE_READ = frozenset({"RFID", "BARCODE"})


def patient_identifier(headers: Headers, issuers: Issuers) -> Resource | None:
    """PatientID with its authority: qualifiers, else the issuer by the site's map; where the object names neither, what
    the site says of whoever sent or made it, else the site's default.

    From    PS3.3 C.7.1.1 PatientID, IssuerOfPatientID, IssuerOfPatientIDQualifiersSequence; of other ids
            TypeOfPatientID
    To      FHIR R4 Patient.identifier; None when PatientID is empty, or one that the site says identifies nobody
    """
    value = headers.text("PatientID")
    if not value or value.casefold() in issuers.unknown_patient_ids:
        return None
    qualifiers, issuer = headers.item("IssuerOfPatientIDQualifiersSequence"), headers.text("IssuerOfPatientID")
    system = entity_system(qualifiers, issuers) or issuers.systems.get(issuer, "")
    if not system and not issuer and not qualifiers:
        system = issuers.ae_title(headers).patient_id_system or issuers.patient_id_system
    kind = " ".join(qualifiers.text("IdentifierTypeCode").split())
    medium = headers.text("TypeOfPatientID").upper()
    made = identifier(kind or "MR", system, value, issuer or ("" if system else entity_name(qualifiers)))
    if not kind and medium in _MACHINE_READ:
        made["type"] = {"text": medium}  # what a reader reads off a tag: nothing says that it is a record number
    return made


def one_patient(instances: Sequence[Headers], issuers: Issuers) -> Resource | None:
    """The identifier all instances of a study agree on; None when none has a PatientID.

    Raises  RejectedInput when they name different patients: whose study it is is never guessed
    """
    found = [i for i in (patient_identifier(h, issuers) for h in distinct(instances, *_IDENTITY)) if i is not None]
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
    study_instance_uid: str, instances: Sequence[Headers], site: Site, remarks: Remarks
) -> tuple[str, Resource]:
    """(id, Patient) as these instances describe the patient.

    The id follows from the identifier, so that one patient's studies share it; without a PatientID it follows
    from the study: unknown patients are never taken for one another.
    """
    main = one_patient(instances, site.issuers)
    key = resource_id("Patient", _identity_key(main)) if main else resource_id("Patient of", study_instance_uid)
    if main is None and any(headers.text("PatientID") for headers in instances):
        remarks.add("PatientID", "is one that identifies nobody; taken as absent")
    made: Resource = {"resourceType": "Patient", "id": key}
    identifiers = ([main] if main else []) + _other_identifiers(instances, main, site.issuers)
    if identifiers:
        made["identifier"] = identifiers
    values = agreed_of(instances, remarks, "PatientName", "PatientSex", "PatientBirthDate", "StudyDate")
    if names := human_names(values.name("PatientName")):
        made["name"] = names
    if gender := _gender(values, remarks):
        made["gender"] = gender.value
    if born := _birth_date(values, site, remarks):
        made["birthDate"] = born
    return key, made


def _identity_key(main: Resource) -> str:
    issuer = main.get("system") or "issuer:" + main.get("assigner", {}).get("display", "")
    return f"{issuer}|{main['value']}"


def _other_identifiers(instances: Sequence[Headers], main: Resource | None, issuers: Issuers) -> list[Resource]:
    """OtherPatientIDsSequence items that have an authority of their own; without one they identify nobody."""
    known = {_identity_key(main)} if main else set()
    own = Issuers(issuers.systems, unknown_patient_ids=issuers.unknown_patient_ids)
    found: dict[str, Resource] = {}
    for headers in distinct(instances, "OtherPatientIDsSequence"):
        for item in headers.items_of("OtherPatientIDsSequence"):
            other = patient_identifier(item, own)
            if other and other.get("system") and _identity_key(other) not in known:
                found.setdefault(_identity_key(other), other)
    return [found[key] for key in sorted(found)]


def _gender(headers: Headers, remarks: Remarks) -> AdministrativeGender | None:
    value = headers.text("PatientSex").upper()
    if value and value not in _GENDER:
        remarks.add("PatientSex", "is none of M, F, O; left out")
    return _GENDER.get(value)


def _birth_date(values: Headers, site: Site, remarks: Remarks) -> str | None:
    """PatientBirthDate, if it can be the patient's: not the dummy of a de-identification, not after the study."""
    text = values.text("PatientBirthDate")
    if text in site.dummy_birth_dates:
        remarks.add("PatientBirthDate", "is a dummy of de-identification; left out")
        return None
    try:
        born = fhir_date(text, "PatientBirthDate")
    except InvalidDicomValue:
        remarks.add("PatientBirthDate", "is not a usable date; left out")
        return None
    try:
        studied = fhir_date(values.text("StudyDate"), "StudyDate")
    except InvalidDicomValue:
        studied = None  # remarked where the study began
    if born and studied:
        precision = min(len(born), len(studied))
        if born[:precision] > studied[:precision]:
            remarks.add("PatientBirthDate", "lies after the study; left out")
            return None
    return born
