"""The FHIR R4 search parameters of the types served here, and what a resource answers them with. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from bridge.model import Resource


class Kind(StrEnum):
    """FHIR R4 SearchParameter.type, as far as used here."""

    TOKEN = "token"  # noqa: S105  (a FHIR search type)
    REFERENCE = "reference"
    DATE = "date"
    STRING = "string"


@dataclass(frozen=True)
class IndexEntry:
    """One value a resource can be found by.

    Result  token: system and code; reference: `Type/id` as value; string: normalised value, the original as system;
            date: [low, high) in seconds since the epoch. A logical reference is found under `param:identifier`.
    """

    param: str
    system: str = ""
    value: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SearchParameter:
    """One R4 search parameter: name, type, the path it stands for, and the types a reference may lead to."""

    name: str
    kind: Kind
    expression: str
    entries: Callable[[Resource], Iterator[IndexEntry]]
    targets: tuple[str, ...] = ()


def index_entries(resource: Resource) -> tuple[IndexEntry, ...]:
    """Every entry of a resource, each once, in order."""
    known = PARAMETERS.get(resource["resourceType"], {})
    found = {entry: None for parameter in known.values() for entry in parameter.entries(resource)}
    return tuple(found)


_MARKS = re.compile(r"[̀-ͯ]")


def normal(text: str) -> str:
    """Text as string search compares it: without case, accents and repeated blanks (R4 search 3.1.1.4.8)."""
    return " ".join(_MARKS.sub("", unicodedata.normalize("NFKD", text)).casefold().split())


_DATE = re.compile(r"^(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?)?)?$")


def date_range(text: str) -> tuple[float, float] | None:
    """[low, high) in seconds since the epoch that a FHIR date of any precision covers; None if it is not one.

    A date without a time, or a time without a zone, counts in UTC.
    """
    match = _DATE.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        start = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), tzinfo=UTC)
        start += timedelta(seconds=int(second or 0))
        if hour is None:
            end = _after(start, month, day)
            return start.timestamp(), end.timestamp()
        shift = 0 if zone in (None, "Z") else _minutes(zone)
        low = start.timestamp() - shift * 60 + float(fraction or 0)
    except (ValueError, OverflowError):
        return None
    if fraction:
        return low, low + 10 ** -(len(fraction) - 1)
    return low, low + (1 if second else 60)


def _after(start: datetime, month: str | None, day: str | None) -> datetime:
    if day:
        return start + timedelta(days=1)
    if month:
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start.replace(year=start.year + 1)


def _minutes(zone: str) -> int:
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    if minutes > 14 * 60:
        raise ValueError
    return -minutes if zone[0] == "-" else minutes


def _each(resource: Resource, *path: str) -> Iterator[object]:
    """Every value at a path, through lists."""
    values: list[object] = [resource]
    for step in path:
        next_values: list[object] = []
        for value in values:
            if isinstance(value, dict) and step in value:
                found = value[step]
                next_values += found if isinstance(found, list) else [found]
        values = next_values
    yield from values


Entries = Callable[[Resource], Iterator[IndexEntry]]


def _codes(param: str, *paths: str) -> Entries:
    """code, Coding, CodeableConcept and Identifier elements as tokens."""

    def entries(resource: Resource) -> Iterator[IndexEntry]:
        for path in paths:
            for value in _each(resource, *path.split(".")):
                yield from _tokens(param, value)

    return entries


def _tokens(param: str, value: object) -> Iterator[IndexEntry]:
    if isinstance(value, str):
        yield IndexEntry(param, "", value)
    elif isinstance(value, bool):
        yield IndexEntry(param, "", "true" if value else "false")
    elif isinstance(value, dict):
        for coding in value.get("coding", [value]):
            code = coding.get("code", coding.get("value"))
            if code:
                yield IndexEntry(param, coding.get("system", ""), str(code))


def _uids(param: str, *path: str) -> Entries:
    """DICOM UIDs in elements of type id: found bare and as urn:oid under urn:dicom:uid."""

    def entries(resource: Resource) -> Iterator[IndexEntry]:
        for value in _each(resource, *path):
            yield IndexEntry(param, "urn:dicom:uid", str(value))

    return entries


def _references(param: str, *paths: str, types: Iterable[str] = ()) -> Entries:
    wanted = frozenset(types)

    def entries(resource: Resource) -> Iterator[IndexEntry]:
        for path in paths:
            for value in _each(resource, *path.split(".")):
                if not isinstance(value, dict):
                    continue
                reference = value.get("reference", "")
                if reference and (not wanted or reference.split("/")[0] in wanted):
                    yield IndexEntry(param, "", reference)
                if "identifier" in value:
                    yield from _tokens(f"{param}:identifier", value["identifier"])

    return entries


def _strings(param: str, *paths: str) -> Entries:
    def entries(resource: Resource) -> Iterator[IndexEntry]:
        for path in paths:
            for value in _each(resource, *path.split(".")):
                if isinstance(value, str):
                    yield IndexEntry(param, value, normal(value))

    return entries


def _dates(param: str, *path: str) -> Entries:
    def entries(resource: Resource) -> Iterator[IndexEntry]:
        for value in _each(resource, *path):
            covered = date_range(str(value))
            if covered is not None:
                yield IndexEntry(param, "", str(value), *covered)

    return entries


_NAME_PARTS = ("name.family", "name.given", "name.prefix", "name.suffix", "name.text")


def _of(*parameters: SearchParameter) -> Mapping[str, SearchParameter]:
    return {p.name: p for p in parameters}


_PEOPLE = ("Practitioner", "PractitionerRole")
_ORDERS = ("ServiceRequest", "CarePlan", "Appointment", "AppointmentResponse", "Task")
T, R, D, S = Kind.TOKEN, Kind.REFERENCE, Kind.DATE, Kind.STRING

PARAMETERS: Mapping[str, Mapping[str, SearchParameter]] = {
    "ImagingStudy": _of(
        SearchParameter("identifier", T, "ImagingStudy.identifier", _codes("identifier", "identifier")),
        SearchParameter("status", T, "ImagingStudy.status", _codes("status", "status")),
        SearchParameter("modality", T, "ImagingStudy.series.modality", _codes("modality", "series.modality")),
        SearchParameter("bodysite", T, "ImagingStudy.series.bodySite", _codes("bodysite", "series.bodySite")),
        SearchParameter("series", T, "ImagingStudy.series.uid", _uids("series", "series", "uid")),
        SearchParameter(
            "instance", T, "ImagingStudy.series.instance.uid", _uids("instance", "series", "instance", "uid")
        ),
        SearchParameter(
            "dicom-class",
            T,
            "ImagingStudy.series.instance.sopClass",
            _codes("dicom-class", "series.instance.sopClass"),
        ),
        SearchParameter("reason", T, "ImagingStudy.reasonCode", _codes("reason", "reasonCode")),
        SearchParameter("started", D, "ImagingStudy.started", _dates("started", "started")),
        SearchParameter(
            "patient",
            R,
            "ImagingStudy.subject.where(resolve() is Patient)",
            _references("patient", "subject", types=["Patient"]),
            ("Patient",),
        ),
        SearchParameter(
            "subject", R, "ImagingStudy.subject", _references("subject", "subject"), ("Patient", "Device", "Group")
        ),
        SearchParameter("basedon", R, "ImagingStudy.basedOn", _references("basedon", "basedOn"), _ORDERS),
        SearchParameter(
            "endpoint",
            R,
            "ImagingStudy.endpoint | ImagingStudy.series.endpoint",
            _references("endpoint", "endpoint", "series.endpoint"),
            ("Endpoint",),
        ),
        SearchParameter(
            "encounter", R, "ImagingStudy.encounter", _references("encounter", "encounter"), ("Encounter",)
        ),
        SearchParameter("referrer", R, "ImagingStudy.referrer", _references("referrer", "referrer"), _PEOPLE),
        SearchParameter(
            "interpreter", R, "ImagingStudy.interpreter", _references("interpreter", "interpreter"), _PEOPLE
        ),
        SearchParameter(
            "performer",
            R,
            "ImagingStudy.series.performer.actor",
            _references("performer", "series.performer.actor"),
            (*_PEOPLE, "Organization", "CareTeam", "Device", "Patient", "RelatedPerson"),
        ),
    ),
    "Patient": _of(
        SearchParameter("identifier", T, "Patient.identifier", _codes("identifier", "identifier")),
        SearchParameter("gender", T, "Patient.gender", _codes("gender", "gender")),
        SearchParameter("active", T, "Patient.active", _codes("active", "active")),
        SearchParameter("birthdate", D, "Patient.birthDate", _dates("birthdate", "birthDate")),
        SearchParameter("name", S, "Patient.name", _strings("name", *_NAME_PARTS)),
        SearchParameter("family", S, "Patient.name.family", _strings("family", "name.family")),
        SearchParameter("given", S, "Patient.name.given", _strings("given", "name.given")),
    ),
    "DiagnosticReport": _of(
        SearchParameter("identifier", T, "DiagnosticReport.identifier", _codes("identifier", "identifier")),
        SearchParameter("status", T, "DiagnosticReport.status", _codes("status", "status")),
        SearchParameter("category", T, "DiagnosticReport.category", _codes("category", "category")),
        SearchParameter("code", T, "DiagnosticReport.code", _codes("code", "code")),
        SearchParameter("conclusion", T, "DiagnosticReport.conclusionCode", _codes("conclusion", "conclusionCode")),
        SearchParameter("date", D, "DiagnosticReport.effective as dateTime", _dates("date", "effectiveDateTime")),
        SearchParameter("issued", D, "DiagnosticReport.issued", _dates("issued", "issued")),
        SearchParameter(
            "patient",
            R,
            "DiagnosticReport.subject.where(resolve() is Patient)",
            _references("patient", "subject", types=["Patient"]),
            ("Patient",),
        ),
        SearchParameter(
            "subject", R, "DiagnosticReport.subject", _references("subject", "subject"), ("Patient", "Device", "Group")
        ),
        SearchParameter(
            "based-on", R, "DiagnosticReport.basedOn", _references("based-on", "basedOn"), ("ServiceRequest",)
        ),
        SearchParameter(
            "encounter", R, "DiagnosticReport.encounter", _references("encounter", "encounter"), ("Encounter",)
        ),
        SearchParameter("performer", R, "DiagnosticReport.performer", _references("performer", "performer"), _PEOPLE),
        SearchParameter(
            "results-interpreter",
            R,
            "DiagnosticReport.resultsInterpreter",
            _references("results-interpreter", "resultsInterpreter"),
            _PEOPLE,
        ),
        SearchParameter("result", R, "DiagnosticReport.result", _references("result", "result"), ("Observation",)),
    ),
    "DocumentReference": _of(
        SearchParameter(
            "identifier",
            T,
            "DocumentReference.masterIdentifier | DocumentReference.identifier",
            _codes("identifier", "identifier"),
        ),
        SearchParameter("status", T, "DocumentReference.status", _codes("status", "status")),
        SearchParameter("type", T, "DocumentReference.type", _codes("type", "type")),
        SearchParameter("category", T, "DocumentReference.category", _codes("category", "category")),
        SearchParameter("format", T, "DocumentReference.content.format", _codes("format", "content.format")),
        SearchParameter(
            "contenttype",
            T,
            "DocumentReference.content.attachment.contentType",
            _codes("contenttype", "content.attachment.contentType"),
        ),
        SearchParameter("date", D, "DocumentReference.date", _dates("date", "date")),
        SearchParameter(
            "patient",
            R,
            "DocumentReference.subject.where(resolve() is Patient)",
            _references("patient", "subject", types=["Patient"]),
            ("Patient",),
        ),
        SearchParameter(
            "subject", R, "DocumentReference.subject", _references("subject", "subject"), ("Patient", "Device", "Group")
        ),
        SearchParameter(
            "encounter",
            R,
            "DocumentReference.context.encounter",
            _references("encounter", "context.encounter"),
            ("Encounter",),
        ),
        SearchParameter(
            "related",
            R,
            "DocumentReference.context.related",
            _references("related", "context.related"),
            ("ImagingStudy", "ServiceRequest"),
        ),
        SearchParameter("author", R, "DocumentReference.author", _references("author", "author"), _PEOPLE),
        SearchParameter(
            "authenticator",
            R,
            "DocumentReference.authenticator",
            _references("authenticator", "authenticator"),
            _PEOPLE,
        ),
    ),
    "Observation": _of(
        SearchParameter("identifier", T, "Observation.identifier", _codes("identifier", "identifier")),
        SearchParameter("status", T, "Observation.status", _codes("status", "status")),
        SearchParameter("category", T, "Observation.category", _codes("category", "category")),
        SearchParameter("code", T, "Observation.code", _codes("code", "code")),
        SearchParameter(
            "value-concept",
            T,
            "Observation.value as CodeableConcept",
            _codes("value-concept", "valueCodeableConcept"),
        ),
        SearchParameter("date", D, "Observation.effective as dateTime", _dates("date", "effectiveDateTime")),
        SearchParameter(
            "patient",
            R,
            "Observation.subject.where(resolve() is Patient)",
            _references("patient", "subject", types=["Patient"]),
            ("Patient",),
        ),
        SearchParameter(
            "subject", R, "Observation.subject", _references("subject", "subject"), ("Patient", "Device", "Group")
        ),
        SearchParameter("encounter", R, "Observation.encounter", _references("encounter", "encounter"), ("Encounter",)),
        SearchParameter("based-on", R, "Observation.basedOn", _references("based-on", "basedOn"), ("ServiceRequest",)),
        SearchParameter("part-of", R, "Observation.partOf", _references("part-of", "partOf"), ("ImagingStudy",)),
        SearchParameter(
            "derived-from", R, "Observation.derivedFrom", _references("derived-from", "derivedFrom"), ("ImagingStudy",)
        ),
        SearchParameter("device", R, "Observation.device", _references("device", "device"), ("Device",)),
        SearchParameter(
            "has-member", R, "Observation.hasMember", _references("has-member", "hasMember"), ("Observation",)
        ),
        SearchParameter("performer", R, "Observation.performer", _references("performer", "performer"), _PEOPLE),
    ),
    "Device": _of(
        SearchParameter("identifier", T, "Device.identifier", _codes("identifier", "identifier")),
        SearchParameter("status", T, "Device.status", _codes("status", "status")),
        SearchParameter("type", T, "Device.type", _codes("type", "type")),
        SearchParameter("manufacturer", S, "Device.manufacturer", _strings("manufacturer", "manufacturer")),
        SearchParameter("device-name", S, "Device.deviceName.name", _strings("device-name", "deviceName.name")),
    ),
    "Provenance": _of(
        SearchParameter(
            "target", R, "Provenance.target", _references("target", "target"), ("DiagnosticReport", "Observation")
        ),
        SearchParameter("agent", R, "Provenance.agent.who", _references("agent", "agent.who"), ("Device", *_PEOPLE)),
        SearchParameter("recorded", D, "Provenance.recorded", _dates("recorded", "recorded")),
    ),
    "Endpoint": _of(
        SearchParameter("identifier", T, "Endpoint.identifier", _codes("identifier", "identifier")),
        SearchParameter("status", T, "Endpoint.status", _codes("status", "status")),
        SearchParameter("connection-type", T, "Endpoint.connectionType", _codes("connection-type", "connectionType")),
        SearchParameter("payload-type", T, "Endpoint.payloadType", _codes("payload-type", "payloadType")),
        SearchParameter("name", S, "Endpoint.name", _strings("name", "name")),
        SearchParameter(
            "organization",
            R,
            "Endpoint.managingOrganization",
            _references("organization", "managingOrganization"),
            ("Organization",),
        ),
    ),
}
"""resource type → parameter name → definition: what the bridge's resources can be asked by."""
