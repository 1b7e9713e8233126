"""A merged study → FHIR R4 ImagingStudy and Endpoint, as plain dicts with sorted content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.model import EndpointStatus, ImagingStudyStatus, Resource, WadoEndpoint
from bridge.translate.codes import DCM, modality_coding, schemes_of
from bridge.translate.headers import Headers
from bridge.translate.instances import text_of
from bridge.translate.merge import Remarks, Series, Study, agreed_of
from bridge.translate.orders import accession_numbers, encounter, order_identifiers, study_id
from bridge.translate.people import practitioners
from bridge.translate.procedures import procedure_codes, reasons
from bridge.translate.series import in_order, modality, series_element
from bridge.translate.site import Site
from bridge.translate.started import study_started
from bridge.translate.uids import imaging_study_id, resource_id, study_identifier

_CONNECTION_TYPE = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"


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
    study: Study, patient_id: str, endpoints: Mapping[str, Resource], site: Site, remarks: Remarks
) -> Resource:
    """FHIR R4 ImagingStudy of a merged study; `endpoints` source → its Endpoint.

    From    PS3.3 C.7.2.1 General Study, C.7.3.1 General Series, SOP Common
    To      FHIR R4 ImagingStudy (4.0.1); the element order and every list are fixed, so same study, same bytes
    """
    modalities = {modality(s.instances, site) for s in study.series}
    status, uid, instances = ImagingStudyStatus.AVAILABLE, study.study_instance_uid, study.instances
    offered = [endpoints[source] for source in study.sources if source in endpoints]
    made = _study_level(status, uid, instances, modalities, patient_id, offered, site, remarks)
    made["numberOfSeries"] = len(study.series)
    made["numberOfInstances"] = len(instances)
    listed = len(instances) <= site.maximum_instances
    if not listed:
        remarks.add("SOPInstanceUID", "more instances than maximum_instances: the series are listed without them")
    made["series"] = [
        series_element(s, _own_endpoints(s, study, endpoints), site, remarks, listed) for s in in_order(study.series)
    ]
    return made


def _own_endpoints(series: Series, study: Study, endpoints: Mapping[str, Resource]) -> list[Resource]:
    """References to the endpoints of a series, where the study has others too; [] where they are the study's."""
    offered = [source for source in study.sources if source in endpoints]
    own = [source for source in offered if source in series.sources]
    return _references([endpoints[source] for source in own]) if len(own) < len(offered) else []


def _references(endpoints: Sequence[Resource]) -> list[Resource]:
    return [{"reference": f"Endpoint/{e['id']}", "type": "Endpoint"} for e in endpoints]


def announced(
    study_instance_uid: str, steps: Sequence[Headers], cancelled: bool, patient_id: str, site: Site, remarks: Remarks
) -> Resource:
    """FHIR R4 ImagingStudy of a study that only procedure steps know of; `steps` from `as_instances`.

    To      status registered, or cancelled; no endpoint, no series
    """
    status = ImagingStudyStatus.CANCELLED if cancelled else ImagingStudyStatus.REGISTERED
    modalities = {modality([step], site) for step in steps}
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


def rejected_study(study: Study, status: ImagingStudyStatus, patient_id: str, site: Site, remarks: Remarks) -> Resource:
    """FHIR R4 ImagingStudy of a study of which rejection notes reject everything; `study.first` still describes it."""
    modalities = {modality([headers], site) for headers in study.first}
    uid = study.study_instance_uid
    return _study_level(status, uid, study.first, modalities, patient_id, (), site, remarks) | _NO_CONTENT


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
    orders = order_identifiers(instances, site.issuers)
    values = agreed_of(instances, remarks, *_KEYWORDS)
    schemes = schemes_of(values, site.tables)
    referrers = practitioners(
        values, "ReferringPhysicianName", "ReferringPhysicianIdentificationSequence", site, remarks, schemes
    )
    readers = "NameOfPhysiciansReadingStudy", "PhysiciansReadingStudyIdentificationSequence"
    where = text_of(values, "InstitutionalDepartmentName") or text_of(values, "PerformedLocation")
    identifiers = [study_identifier(study_instance_uid), *accession_numbers(orders)]
    elements: Resource = {
        "resourceType": "ImagingStudy",
        "id": imaging_study_id(study_instance_uid),
        "identifier": [*identifiers, *study_id(instances, site.issuers, remarks)],
        "status": status.value,
        "modality": _acquisition_modalities(modalities, site),
        "subject": {"reference": f"Patient/{patient_id}", "type": "Patient"},
        "encounter": encounter(values, site.issuers),
        "started": study_started(values, site.zone_of(instances), remarks),
        "basedOn": [{"type": "ServiceRequest", "identifier": one} for one in orders],
        "referrer": referrers[0] if referrers else None,
        "interpreter": practitioners(values, *readers, site, remarks, schemes),
        "endpoint": _references(endpoints),
        "procedureCode": procedure_codes(instances, site),
        "location": {"display": where} if where else None,
        "reasonCode": reasons(instances, site),
        "description": text_of(values, "StudyDescription"),
    }
    return {name: value for name, value in elements.items() if value not in (None, "", [])}


_KEYWORDS = (
    "StudyDate", "StudyTime", "TimezoneOffsetFromUTC", "ReferringPhysicianName",
    "ReferringPhysicianIdentificationSequence", "NameOfPhysiciansReadingStudy",
    "PhysiciansReadingStudyIdentificationSequence", "InstitutionalDepartmentName", "PerformedLocation",
    "StudyDescription", "AdmissionID", "IssuerOfAdmissionIDSequence", "CodingSchemeIdentificationSequence",
)  # fmt: skip


def _acquisition_modalities(modalities: set[str], site: Site) -> list[Resource]:
    """R4 lists acquisition modalities only (CID 29), each once."""
    return [modality_coding(m, site.tables) for m in sorted(modalities) if site.tables.modality.get(m, ("", False))[1]]
