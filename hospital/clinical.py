"""The hospital's facts as clinical FHIR R4 resources."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from hospital.codes import ATC, DRUGS, IMAGING, LOINC
from hospital.plan import ISSUER_OID, Hospital, PatientRecord, StudyRecord

Json = dict[str, Any]
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_GENDER = {"M": "male", "F": "female", "O": "other"}
RADIOLOGY = [
    {"coding": [{"system": LOINC, "code": "LP29684-5", "display": "Radiology"}]},
    {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]},
]


def resources(hospital: Hospital) -> dict[str, Iterator[Json]]:
    """Resource type → its resources, every one labelled as synthetic test data (HTEST)."""
    return {
        "Patient": (_patient(p) for p in hospital.patients),
        "Condition": _conditions(hospital),
        "MedicationRequest": _medications(hospital),
        "Encounter": _encounters(hospital),
        "Observation": _observations(hospital),
        "Procedure": _procedures(hospital),
        "DiagnosticReport": _reports(hospital),
    }


def patient_id(mrn: str) -> str:
    return f"pat-{mrn.lower()}"


def _resource(kind: str, id_: str, day: date, **elements: Any) -> Json:
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActReason", "code": "HTEST"}
    meta = {"lastUpdated": f"{day.isoformat()}T12:00:00Z", "security": [label]}
    return {"resourceType": kind, "id": id_, "meta": meta} | {k: v for k, v in elements.items() if v is not None}


def _coded(system: str, code: str, display: str) -> Json:
    return {"coding": [{"system": system, "code": code, "display": display}], "text": display}


def _subject(mrn: str) -> Json:
    return {"reference": f"Patient/{patient_id(mrn)}"}


def _patient(person: PatientRecord) -> Json:
    names: list[Json] = [{"use": "official", "family": person.name.family, "given": [person.name.given]}]
    for text, code in ((person.name.ideographic, "IDE"), (person.name.phonetic, "SYL")):
        if text:
            family, _, given = text.partition("^")
            extension = [{"url": REPRESENTATION, "valueCode": code}]
            names.append({"use": "usual", "family": family, "given": [given], "extension": extension})
    identifier = {
        "type": {"coding": [{"system": V2_0203, "code": "MR"}]},
        "system": f"urn:oid:{ISSUER_OID}",
        "value": person.mrn,
    }
    return _resource(
        "Patient",
        patient_id(person.mrn),
        person.deceased or person.birth_date,
        identifier=[identifier],
        active=True,
        name=names,
        gender=_GENDER[person.gender],
        birthDate=person.birth_date.isoformat(),
        deceasedDateTime=person.deceased.isoformat() if person.deceased else None,
    )


def _conditions(hospital: Hospital) -> Iterator[Json]:
    for one in hospital.conditions:
        status = {"coding": [{"system": f"{_TERMINOLOGY}/condition-ver-status", "code": one.verification}]}
        clinical = {"coding": [{"system": f"{_TERMINOLOGY}/condition-clinical", "code": "active"}]}
        yield _resource(
            "Condition",
            one.id,
            one.recorded,
            clinicalStatus=None if one.verification == "entered-in-error" else clinical,
            verificationStatus=status,
            code=_coded(one.system, one.code, one.display),
            subject=_subject(one.mrn),
            onsetDateTime=one.onset or None,
            recordedDate=one.recorded.isoformat(),
        )


_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"


def _medications(hospital: Hospital) -> Iterator[Json]:
    for one in hospital.medications:
        name, dosage = DRUGS[one.code]
        yield _resource(
            "MedicationRequest",
            one.id,
            one.authored,
            status=one.status,
            intent=one.intent,
            medicationCodeableConcept=_coded(ATC, one.code, name),
            subject=_subject(one.mrn),
            authoredOn=one.authored.isoformat(),
            dosageInstruction=[{"text": dosage}],
        )


def _encounters(hospital: Hospital) -> Iterator[Json]:
    for number, study in enumerate(hospital.studies, 1):
        kind = ("AMB", "IMP", "EMER")[number % 3]
        yield _resource(
            "Encounter",
            f"enc-{number:06}",
            study.day,
            status="finished",
            **{"class": {"system": f"{_TERMINOLOGY}/v3-ActCode", "code": kind}},
            subject=_subject(study.mrn),
            period={"start": f"{study.day.isoformat()}T06:00:00Z", "end": f"{study.day.isoformat()}T20:00:00Z"},
        )


def _observations(hospital: Hospital) -> Iterator[Json]:
    category = [{"coding": [{"system": f"{_TERMINOLOGY}/observation-category", "code": "laboratory"}]}]
    for one in hospital.labs:
        quantity = {"value": one.value, "unit": one.unit, "system": "http://unitsofmeasure.org", "code": one.unit}
        yield _resource(
            "Observation",
            one.id,
            one.day,
            status="final",
            category=category,
            code=_coded(LOINC, one.code, one.display),
            subject=_subject(one.mrn),
            effectiveDateTime=one.day.isoformat(),
            valueQuantity=quantity,
        )


def _procedures(hospital: Hospital) -> Iterator[Json]:
    for number, study in enumerate(hospital.studies, 1):
        yield _resource(
            "Procedure",
            f"proc-{number:06}",
            study.day,
            status="completed",
            code=_coded("http://snomed.info/sct", "363679005", "Imaging (procedure)"),
            subject=_subject(study.mrn),
            performedDateTime=study.day.isoformat(),
        )


def _reports(hospital: Hospital) -> Iterator[Json]:
    for number, study in enumerate(hospital.studies, 1):
        if study.report:
            yield _report(hospital, number, study)


def _report(hospital: Hospital, number: int, study: StudyRecord) -> Json:
    imaging = IMAGING[study.kind]
    text = f"SYNTHETIC REPORT. {imaging.description}. {imaging.text}"
    issued = min(study.day + timedelta(days=1), hospital.today)
    accession = {"type": {"coding": [{"system": V2_0203, "code": "ACSN"}]}, "value": study.accession}
    by_uid = {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{study.uid}"}}
    attachment = {"contentType": "text/plain", "data": base64.b64encode(text.encode()).decode()}
    return _resource(
        "DiagnosticReport",
        f"rep-{number:06}",
        issued,
        status=study.report_status,
        category=RADIOLOGY,
        code=_coded(LOINC, imaging.loinc, imaging.description),
        subject=_subject(study.mrn),
        effectiveDateTime=study.day.isoformat(),
        issued=f"{issued.isoformat()}T09:00:00Z",
        imagingStudy=[by_uid] if study.report == "uid" else None,
        basedOn=[{"type": "ServiceRequest", "identifier": accession}] if study.report == "accession" else None,
        conclusion=text if number % 5 else None,
        presentedForm=[attachment],
    )
