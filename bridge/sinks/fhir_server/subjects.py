"""Whose study it is: the Patient on the server that a study's subject refers to. The EHR owns Patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge.errors import ProjectError, RejectedInput, SinkUnavailable
from bridge.model import Resource
from bridge.sinks.fhir_server.capabilities import Capabilities
from bridge.sinks.fhir_server.client import Doubtful, FhirClient
from bridge.translate.same_patient import ELEMENTS, disagreements
from bridge.translate.uids import NAMESPACE

REPLACED_DEPTH = 5
"""How many merges are followed from a record that was replaced."""

BRIDGE_TAG: Resource = {"system": f"urn:uuid:{NAMESPACE}", "code": "made-from-dicom"}
"""Meta.tag of a Patient that the bridge made; no other Patient is ever written."""

_MATCH_GRADE = "http://hl7.org/fhir/StructureDefinition/match-grade"
_SEEN_OF_A_PATIENT = "identifier,name,gender,birthDate,active,link"


@dataclass(frozen=True)
class SubjectPolicy:
    """How a patient is found.

    Result  `patients` match: the one Patient with the identifier, else by identifier alone; create: made when there is
            none, if the identifier has a system: else it could not be told from another's; logical: by identifier
            alone, never looked up; match_operation: Patient/$match, a certain answer only;
            `identity_check` in which elements the server's Patient must not contradict the images
    """

    patients: str = "match"
    identity_check: tuple[str, ...] = ELEMENTS


@dataclass
class Found:
    """What became of one patient: a subject to refer to, a Patient to be made first, or an error."""

    subject: Resource = field(default_factory=dict)
    create: Resource | None = None
    update: Resource | None = None
    """The server's version of a Patient that the bridge made, to be brought up to date."""
    error: ProjectError | None = None


class Subjects:
    """Finds the subjects of a few studies with as few questions as it can."""

    def __init__(self, client: FhirClient, policy: SubjectPolicy) -> None:
        self._client, self._policy = client, policy

    def find(self, patients: Mapping[str, Resource], offered: Capabilities) -> dict[str, Found]:
        """our Patient id → what was found for it. Raises SinkUnavailable."""
        if self._policy.patients == "logical":
            return {key: Found(_logical(patient)) for key, patient in patients.items()}
        if self._policy.patients == "match_operation":
            return {key: self._match(patient, offered) for key, patient in patients.items()}
        hits = self._by_identifier([i for p in patients.values() for i in _searched(p)])
        return {key: self._judged(patient, hits) for key, patient in patients.items()}

    def _by_identifier(self, identifiers: Sequence[Resource]) -> list[Resource]:
        tokens = sorted({f"{escaped(i['system'])}|{escaped(i['value'])}" for i in identifiers})
        found = self._client.identified("Patient", tokens, _SEEN_OF_A_PATIENT)
        return list({str(p["id"]): p for p in found}.values())

    def _judged(self, patient: Resource, hits: Sequence[Resource]) -> Found:
        wanted = {(i["system"], i["value"]) for i in _searched(patient)}
        mine = [h for h in hits if wanted & {(i.get("system"), i.get("value")) for i in _identifiers(h)}]
        if not mine:
            create = patient if self._policy.patients == "create" and wanted else None
            return Found(_logical(patient), create=create)
        return self._one_of(patient, mine)

    def _one_of(self, patient: Resource, records: Sequence[Resource]) -> Found:
        try:
            survivors = {str(s["id"]): s for s in map(self._survivor, records)}
        except (RejectedInput, Doubtful) as error:
            return Found(error=error)
        if len(survivors) > 1:
            return Found(error=RejectedInput(_SEVERAL))
        return self._checked(patient, next(iter(survivors.values())))

    def _checked(self, patient: Resource, record: Resource) -> Found:
        if made_by_us(record):
            changed = any(patient.get(e) != record.get(e) for e in ("identifier", "name", "gender", "birthDate"))
            return Found(_literal(record, patient), update=record if changed else None)
        contradicted = disagreements(patient, record, self._policy.identity_check)
        if contradicted:
            return Found(error=RejectedInput(_CONFLICT.format(", ".join(f"Patient.{e}" for e in contradicted))))
        return Found(_literal(record, patient))

    def _survivor(self, record: Resource) -> Resource:
        """The record that a merged one was replaced by (FHIR R4 Patient.link.type replaced-by), however often."""
        seen = {str(record["id"])}
        for _ in range(REPLACED_DEPTH):
            following = _replaced_by(record)
            if not following:
                return record
            if following in seen:
                raise RejectedInput("Patient.link: records of this patient replace each other in a circle: mend them")
            seen.add(following)
            found = self._client.read(f"Patient/{following}")
            if found is None:
                raise RejectedInput("Patient.link: the record that replaces this patient's is not on the server")
            record = found
        raise RejectedInput(f"Patient.link: more than {REPLACED_DEPTH} records replace one another: mend them")

    def _match(self, patient: Resource, offered: Capabilities) -> Found:
        known = offered.of("Patient")
        if known is None or (offered.types is not None and not {"match", "patient-match"} & known.operations):
            raise SinkUnavailable(
                f"sink {self._client.name}: the server does not offer Patient/$match; set patients to another value"
            )
        parameters = [
            {"name": "resource", "resource": {k: v for k, v in patient.items() if k != "id"}},
            {"name": "onlyCertainMatches", "valueBoolean": True},
            {"name": "count", "valueInteger": 3},
        ]
        answer = self._client.operation("Patient/$match", {"resourceType": "Parameters", "parameter": parameters})
        entries = [e for e in answer.get("entry", []) if e.get("resource", {}).get("resourceType") == "Patient"]
        certain = [e["resource"] for e in entries if _grade(e) == "certain"]
        return self._one_of(patient, certain) if certain else Found(_logical(patient))


_SEVERAL = "Patient.identifier: the server has several patients with it; merge them, then replay"
_CONFLICT = (
    "{}: identity conflict: the server's record of this patient says otherwise than the images; correct one of them, "
    "then replay (identity_check)"
)


def made_by_us(record: Resource) -> bool:
    """Whether a Patient on the server is one that the bridge made from images."""
    tags = record.get("meta", {}).get("tag", [])
    return any((t.get("system"), t.get("code")) == (BRIDGE_TAG["system"], BRIDGE_TAG["code"]) for t in tags)


def escaped(value: str) -> str:
    """A token's part with the characters that FHIR search gives a meaning escaped (R4 search 3.1.1.4.0.2)."""
    for character in "\\,|$":
        value = value.replace(character, "\\" + character)
    return value


def _identifiers(patient: Resource) -> list[Resource]:
    found = patient.get("identifier", [])
    return [i for i in found if isinstance(i, dict) and i.get("value")] if isinstance(found, list) else []


def _searched(patient: Resource) -> list[Resource]:
    """Only identifiers with an authority: the same number means other people elsewhere."""
    return [i for i in _identifiers(patient) if i.get("system")]


def _logical(patient: Resource) -> Resource:
    identifiers = _searched(patient) or _identifiers(patient)
    if identifiers:
        return {"type": "Patient", "identifier": identifiers[0]}
    return {"type": "Patient", "display": "not identified in the images"}


def _literal(record: Resource, patient: Resource) -> Resource:
    subject: Resource = {"reference": f"Patient/{record['id']}", "type": "Patient"}
    named = _searched(patient)
    return subject | ({"identifier": named[0]} if named else {})


def _replaced_by(record: Resource) -> str:
    for link in record.get("link", []):
        if isinstance(link, dict) and link.get("type") == "replaced-by":
            reference = str(link.get("other", {}).get("reference", ""))
            kind, _, id_ = reference.partition("/_history")[0].rpartition("/")
            if kind.rpartition("/")[2] == "Patient" and id_:
                return id_
    return ""


def _grade(entry: Resource) -> str:
    extensions = entry.get("search", {}).get("extension", [])
    return next((str(x.get("valueCode")) for x in extensions if x.get("url") == _MATCH_GRADE), "")
