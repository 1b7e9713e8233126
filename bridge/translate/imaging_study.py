"""A merged study → FHIR R4 ImagingStudy and Endpoint, as plain dicts with sorted content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from bridge.errors import InvalidDicomValue
from bridge.model import EndpointStatus, ImagingStudyStatus, Resource, WadoEndpoint
from bridge.translate.codes import DCM, LATERALITY, CodeTables, body_part, code_coding, coding, concept, modality_coding
from bridge.translate.dates import fhir_date_time, readable_time
from bridge.translate.headers import Headers, PersonName
from bridge.translate.identity import Issuers, accession_identifiers
from bridge.translate.merge import Remarks, Series, Study, agreed
from bridge.translate.names import display
from bridge.translate.uids import imaging_study_id, resource_id, sop_class_coding, study_identifier

_UNSIGNED_INT_MAX = 2**31 - 1
_CONNECTION_TYPE = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"


@dataclass(frozen=True)
class Site:
    """What a site decides about translation: its time zone, its issuers, its code tables."""

    tables: CodeTables
    zone: tzinfo | None = None
    issuers: Issuers = field(default_factory=lambda: Issuers({}))


def endpoint(wado: WadoEndpoint) -> Resource:
    """FHIR R4 Endpoint of type dicom-wado-rs: where a study can be fetched, as `{address}/studies/{uid}`."""
    id_ = resource_id("Endpoint", wado.name, wado.address)
    return {
        "resourceType": "Endpoint",
        "id": id_,
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{id_}"}],
        "status": EndpointStatus.ACTIVE.value,
        "connectionType": {"system": _CONNECTION_TYPE, "code": "dicom-wado-rs", "display": "DICOM WADO-RS"},
        "name": wado.name,
        "payloadType": [{"coding": [{"system": DCM, "code": "113014", "display": "Study"}]}],
        "payloadMimeType": ["application/dicom"],
        "address": wado.address,
    }


def imaging_study(
    study: Study, patient_id: str, endpoints: Sequence[Resource], site: Site, remarks: Remarks
) -> Resource:
    """FHIR R4 ImagingStudy of a merged study.

    From    PS3.3 C.7.2.1 General Study, C.7.3.1 General Series, SOP Common
    To      FHIR R4 ImagingStudy (4.0.1); the element order and every list are fixed, so same study, same bytes
    """
    modalities = {_modality(s.instances) for s in study.series}
    status, uid, instances = ImagingStudyStatus.AVAILABLE, study.study_instance_uid, study.instances
    made = _study_level(status, uid, instances, modalities, patient_id, endpoints, site, remarks)
    made["numberOfSeries"] = len(study.series)
    made["numberOfInstances"] = len(instances)
    made["series"] = [_series(s, site, remarks) for s in _in_order(study.series)]
    return made


def announced(
    study_instance_uid: str, steps: Sequence[Headers], cancelled: bool, patient_id: str, site: Site, remarks: Remarks
) -> Resource:
    """FHIR R4 ImagingStudy of a study that only procedure steps know of; `steps` from `as_instances`.

    To      status registered, or cancelled; no endpoint, no series
    """
    status = ImagingStudyStatus.CANCELLED if cancelled else ImagingStudyStatus.REGISTERED
    modalities = {_modality([step]) for step in steps}
    made = _study_level(status, study_instance_uid, steps, modalities, patient_id, (), site, remarks)
    return made | _NO_CONTENT


def withdrawn(previous: Resource, cancelled: bool = False) -> Resource:
    """The ImagingStudy of a study no archive holds any more, without endpoint and content.

    `available` would claim at least one instance; who refers to the study still finds it and its identifiers. What was
    held is in error now, unless every procedure step was discontinued (`cancelled`). Of what was only announced, and
    is no longer, nobody can tell what became: unknown.
    """
    kept = {k: v for k, v in previous.items() if k not in {"endpoint", "series"}}
    status = _WITHDRAWN.get(previous["status"], ImagingStudyStatus.ENTERED_IN_ERROR)
    return kept | {"status": ImagingStudyStatus.CANCELLED.value if cancelled else status.value} | _NO_CONTENT


_NO_CONTENT: Resource = {"numberOfSeries": 0, "numberOfInstances": 0}
_WITHDRAWN = {
    ImagingStudyStatus.REGISTERED: ImagingStudyStatus.UNKNOWN,
    ImagingStudyStatus.UNKNOWN: ImagingStudyStatus.UNKNOWN,
    ImagingStudyStatus.CANCELLED: ImagingStudyStatus.CANCELLED,
}


def _study_level(
    status: ImagingStudyStatus,
    study_instance_uid: str,
    instances: Sequence[Headers],
    modalities: set[str],
    patient_id: str,
    endpoints: Sequence[Resource],
    site: Site,
    remarks: Remarks,
) -> Resource:
    """Everything but the counts and the series."""
    accessions = accession_identifiers(instances, site.issuers)
    made: Resource = {
        "resourceType": "ImagingStudy",
        "id": imaging_study_id(study_instance_uid),
        "identifier": [study_identifier(study_instance_uid), *accessions],
        "status": status.value,
        "subject": {"reference": f"Patient/{patient_id}", "type": "Patient"},
    }
    values = _agreed(instances, remarks, *_STUDY_KEYWORDS)
    return made | _present(
        modality=_acquisition_modalities(modalities, site),
        started=_started(values, "Study", site, remarks),
        basedOn=[{"type": "ServiceRequest", "identifier": accession} for accession in accessions],
        referrer=_named(values.name("ReferringPhysicianName")),
        interpreter=[_named(n) for n in values.names("NameOfPhysiciansReadingStudy") if display(n)],
        endpoint=[{"reference": f"Endpoint/{e['id']}", "type": "Endpoint"} for e in endpoints],
        procedureCode=_concepts(instances, ("ProcedureCodeSequence", "RequestedProcedureCodeSequence"), site),
        location={"display": where} if (where := values.text("InstitutionalDepartmentName")) else None,
        reasonCode=_reasons(instances, site),
        description=_text(values, "StudyDescription"),
    )


_STUDY_KEYWORDS = (
    "StudyDate", "StudyTime", "TimezoneOffsetFromUTC", "ReferringPhysicianName", "NameOfPhysiciansReadingStudy",
    "InstitutionalDepartmentName", "StudyDescription",
)  # fmt: skip
_SERIES_KEYWORDS = (
    "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "TimezoneOffsetFromUTC",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "BodyPartExamined", "AnatomicRegionSequence",
    "Laterality", "PerformingPhysicianName", "OperatorsName",
)  # fmt: skip


def _agreed(instances: Sequence[Headers], remarks: Remarks, *keywords: str) -> Headers:
    found = {keyword: agreed(instances, keyword, remarks) for keyword in keywords}
    return Headers({keyword: value for keyword, value in found.items() if value})


def _present(**elements: object) -> Resource:
    return {name: value for name, value in elements.items() if value not in (None, "", [], {})}


def _acquisition_modalities(modalities: set[str], site: Site) -> list[Resource]:
    """R4 lists acquisition modalities only (CID 29), each once."""
    return [modality_coding(m, site.tables) for m in sorted(modalities) if site.tables.modality.get(m, ("", False))[1]]


def _modality(instances: Sequence[Headers]) -> str:
    value = agreed(instances, "Modality")
    text = str(value[0]) if value else ""
    return text.upper() if text and " " not in text else "OT"


def _in_order(series: Sequence[Series]) -> list[Series]:
    def place(one: Series) -> tuple[bool, int, str]:
        number = next((n for i in one.instances if (n := i.integer("SeriesNumber")) is not None), None)
        return number is None, number or 0, one.series_instance_uid

    return sorted(series, key=place)


def _series(series: Series, site: Site, remarks: Remarks) -> Resource:
    values = _agreed(series.instances, remarks, *_SERIES_KEYWORDS)
    if not values.text("Modality"):
        remarks.add("Modality", "is missing in a series; OT was taken")
    made: Resource = {"uid": series.series_instance_uid}
    made |= _present(number=_number(values, "SeriesNumber", remarks))
    made["modality"] = modality_coding(_modality(series.instances), site.tables)
    made |= _present(description=_text(values, "SeriesDescription"))
    made["numberOfInstances"] = len(series.instances)
    made |= _present(
        bodySite=_body_site(values, site, remarks),
        laterality=_laterality(series.instances, values, remarks),
        started=_started(values, "Series", site, remarks),
        performer=_performers(values),
    )
    made["instance"] = [_instance(i, remarks) for i in sorted(series.instances, key=_instance_place)]
    return made


def _instance_place(headers: Headers) -> tuple[bool, int, str]:
    number = headers.integer("InstanceNumber")
    return number is None, number or 0, headers.text("SOPInstanceUID")


def _instance(headers: Headers, remarks: Remarks) -> Resource:
    made: Resource = {
        "uid": headers.text("SOPInstanceUID"),
        "sopClass": sop_class_coding(headers.text("SOPClassUID")),
    }
    if (number := _number(headers, "InstanceNumber", remarks)) is not None:
        made["number"] = number
    if title := _title(headers):
        made["title"] = title
    return made


def _title(headers: Headers) -> str:
    """SR, KO: the concept name of the document; encapsulated: its title; presentation state: its label; image: type."""
    return (
        headers.item("ConceptNameCodeSequence").text("CodeMeaning")
        or _text(headers, "DocumentTitle")
        or _text(headers, "ContentLabel")
        or "\\".join(str(v) for v in headers.get("ImageType", ())).strip("\\")
    )


def _started(values: Headers, level: str, site: Site, remarks: Remarks) -> str | None:
    pairs = [(f"{level}Date", f"{level}Time")]
    if level == "Series":
        pairs.append(("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"))
    for day, clock in pairs:
        if not readable_time(values.text(clock)):
            remarks.add(clock, "is not a time (HHMMSS); the date alone was taken")
        try:
            found = fhir_date_time(
                values.text(day), values.text(clock), values.text("TimezoneOffsetFromUTC"), site.zone, day
            )
        except InvalidDicomValue:
            remarks.add(day, "is not a usable date; left out")
            continue
        if found:
            return found
    return None


def _number(headers: Headers, keyword: str, remarks: Remarks) -> int | None:
    if keyword not in headers:
        return None
    number = headers.integer(keyword)
    if number is None or not 0 <= number <= _UNSIGNED_INT_MAX:
        remarks.add(keyword, "is not a whole number from 0 to 2147483647; left out")
        return None
    return number


def _text(headers: Headers, keyword: str) -> str:
    return " ".join(headers.text(keyword).split())


def _named(name: PersonName) -> Resource | None:
    shown = display(name)
    return {"display": shown} if shown else None


def _performers(values: Headers) -> list[Resource]:
    found = []
    for keyword, function in (("PerformingPhysicianName", "PRF"), ("OperatorsName", "SPRF")):
        for name in values.names(keyword):
            if actor := _named(name):
                function_code = {"coding": [{"system": _PARTICIPATION, "code": function}]}
                found.append({"function": function_code, "actor": actor})
    return found


def _body_site(values: Headers, site: Site, remarks: Remarks) -> Resource | None:
    regions = values.items_of("AnatomicRegionSequence")
    if len(regions) == 1 and (known := code_coding(regions[0], site.tables)):
        return known
    found = body_part(_text(values, "BodyPartExamined"), site.tables)
    if found and "code" not in found:
        remarks.add("BodyPartExamined", "is not a defined term (PS3.16 Annex L); kept as display")
    return found


def _laterality(instances: Sequence[Headers], values: Headers, remarks: Remarks) -> Resource | None:
    value = values.text("Laterality").upper()
    if not value:
        sides = {h.text("ImageLaterality").upper() for h in instances}
        value = sides.pop() if len(sides) == 1 else ""
    if value and value not in LATERALITY and value != "U":
        remarks.add("Laterality", "is none of R, L, B, U; left out")
    return coding(LATERALITY[value]) if value in LATERALITY else None


def _concepts(instances: Sequence[Headers], keywords: Sequence[str], site: Site) -> list[Resource]:
    """The first of the sequences that any instance has, each distinct concept once; the study's own before orders'."""
    for keyword in keywords:
        found: dict[str, Resource] = {}
        for headers in instances:
            for holder in (headers, *headers.items_of("RequestAttributesSequence")):
                for item in holder.items_of(keyword):
                    if made := concept(item, site.tables):
                        found.setdefault(repr(made), made)
        if found:
            return [found[key] for key in sorted(found)]
    return []


def _reasons(instances: Sequence[Headers], site: Site) -> list[Resource]:
    coded = _concepts(instances, ("ReasonForRequestedProcedureCodeSequence",), site)
    if coded:
        return coded
    texts = {
        text
        for headers in instances
        for holder in (headers, *headers.items_of("RequestAttributesSequence"))
        if (text := _text(holder, "ReasonForTheRequestedProcedure"))
    }
    return [{"text": text} for text in sorted(texts)]
