"""What the bridge knows of a study, as frozen values. Standard library only.

Names are DICOM keywords in snake_case. A date or time is still the DICOM text here; `bridge.translate`
turns it into FHIR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Resource = dict[str, Any]
"""One FHIR resource, or one part of it, as JSON."""

Row = dict[str, Any]
"""One row of a lake table: column name → JSON value."""


class Role(StrEnum):
    """A part of the work, which a process may have alone or with others."""

    POLL = "poll"
    """Follow the sources: receivers, changes, whole comparisons."""
    WORK = "work"
    """Read and translate studies."""
    DELIVER = "deliver"
    """Keep FHIR servers and the lake true."""
    SERVE = "serve"
    """FHIR API, cohort page, exports, Subscriptions."""


ALL_ROLES = frozenset(Role)


class ImagingStudyStatus(StrEnum):
    """FHIR R4 ImagingStudy.status, required binding."""

    REGISTERED = "registered"
    AVAILABLE = "available"
    CANCELLED = "cancelled"
    ENTERED_IN_ERROR = "entered-in-error"
    UNKNOWN = "unknown"


class EndpointStatus(StrEnum):
    """FHIR R4 Endpoint.status, required binding."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ERROR = "error"
    OFF = "off"
    ENTERED_IN_ERROR = "entered-in-error"
    TEST = "test"


class AdministrativeGender(StrEnum):
    """FHIR R4 Patient.gender, required binding."""

    MALE = "male"
    FEMALE = "female"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Remark:
    """Something in the input that was left out or repaired; the study goes on without it.

    Result  `keyword` the DICOM keyword, `problem` what was wrong (no value), `count` how many instances.
    """

    keyword: str
    problem: str
    count: int = 1


@dataclass(frozen=True)
class Rejection:
    """One input that cannot be used, with the evidence needed to find it again: a file, an instance, a feed entry.

    Result  `key` names it (a path, or source/study/instance), `error` says why, naming the attribute;
            `evidence` is technical detail without any patient value (size, UID, position).
    """

    key: str
    error: str
    evidence: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexedFile:
    """One DICOM file a source has read: where it lies and what it holds. `study_instance_uid` "" = not usable."""

    path: str
    size: int
    mtime_ns: int
    study_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class WadoEndpoint:
    """Where a study can be fetched by DICOMweb: FHIR Endpoint of type dicom-wado-rs.

    Result  `name` the source's name; `address` the service base without `/studies` and without trailing slash.
    """

    name: str
    address: str


@dataclass(frozen=True)
class StoredResource:
    """One resource version held in state. `content` is without meta; `deleted` has content None.

    Result  `version` counts from 1; `last_updated` is seconds since the epoch, UTC; `revision` grows over all
            resources of the store, so that later is always larger.
    """

    resource_type: str
    id: str
    version: int
    last_updated: float
    revision: int
    content: Resource | None

    @property
    def deleted(self) -> bool:
        return self.content is None


class ChangeAction(StrEnum):
    """What became of a resource in one change."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True)
class Change:
    """One change of one resource, without its content.

    Result  `revision` orders all changes of the store without a gap; a resource that was deleted and comes back is
            created; `study_instance_uid` "" for what belongs to no single study; `size` bytes of the content, 0 when
            deleted.
    """

    revision: int
    resource_type: str
    id: str
    version: int
    action: ChangeAction
    last_updated: float
    study_instance_uid: str = ""
    size: int = 0


@dataclass(frozen=True)
class Receipt:
    """What a sink made of a study when it was delivered last.

    Result  `reference` the absolute URL of its ImagingStudy there, "" after the bridge deleted it; `version_id` and
            `digest` (of what was sent) tell whether somebody changed it since; "" when the sink does not tell
    """

    reference: str
    version_id: str
    digest: str


@dataclass(frozen=True)
class StudyState:
    """Everything a sink needs to make its side match one study: the newest state, whole.

    Result  `revision` of the newest resource among them; `resources` ImagingStudy, Patient, Endpoints and those of
            AI results in the order they must exist (referenced first); `rows` table name → rows for `dicom_*` tables;
            `receipt` of the sink's last delivery.
    """

    study_instance_uid: str
    revision: int
    resources: tuple[StoredResource, ...]
    rows: Mapping[str, tuple[Row, ...]]
    receipt: Receipt | None = None

    def of_type(self, resource_type: str) -> tuple[StoredResource, ...]:
        return tuple(r for r in self.resources if r.resource_type == resource_type)


@dataclass(frozen=True)
class KeptResult:
    """One AI result as it is kept: in its JSON form, with its reviews in the order they came, and those that readers'
    reports are."""

    run_id: str
    study_instance_uid: str
    content: bytes
    reviews: tuple[bytes, ...] = ()
    reviews_by_report: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class KeptReport:
    """What a report that a reader sent says of AI results, as it is kept: by the report's own name; `as_of` in seconds
    since 1970."""

    key: str
    study_instance_uid: str
    as_of: float
    content: bytes


@dataclass(frozen=True)
class InstanceName:
    """One instance in an archive, as a retrieve request names it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


@dataclass(frozen=True)
class KeptDocument:
    """What was read of one document object of one source.

    Result  `digest` of the headers it was read for: another one means to read it again; `content` a Part 10 file
            without what is large and says nothing (pixel data); None when the source does not hold it any more
    """

    source: str
    name: InstanceName
    digest: str
    content: bytes | None
    reviews: tuple[bytes, ...] = ()
    """Of the result that the document is, in the order they came."""


@dataclass(frozen=True)
class Document:
    """A DICOM SR document of a result, as a Part 10 file."""

    sop_instance_uid: str
    content: bytes


@dataclass(frozen=True)
class ModelCall:
    """A call that a model answered. `content` is the digest of what it was called for, `results` how many it gave."""

    model: str
    version: str
    study_instance_uid: str
    content: str
    run_id: str
    results: int


@dataclass(frozen=True)
class StudyResult:
    """What the translation of one study made, to be committed in one transaction.

    Result  `patient` the Patient as this study describes it, under the id `patient_key`, weighed against the
            patient's other studies by `patient_rank` (the highest is believed); None keeps what is known.
            `resources` what else belongs to the study; `rejected` instances left out; `remarks` values left out.
    """

    study_instance_uid: str
    patient_key: str
    patient_rank: str
    patient: Resource | None
    resources: tuple[Resource, ...]
    rejected: tuple[Rejection, ...] = ()
    remarks: tuple[Remark, ...] = ()
