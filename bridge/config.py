"""Settings: one TOML file and the environment, read once. The only reader of the environment.

A string value may name environment variables as `${NAME}`; that is how secrets stay out of the file.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator

from bridge.ai_peers import CStoreArchive, Model, ModelRule, StowArchive
from bridge.connections import (
    AE_TITLE,
    NAME,
    URL,
    Address,
    AddressOrNone,
    ClientTls,
    FetchArchive,
    OAuth,
    Smart,
    check_sign_in,
)
from bridge.connections import Section as _Section
from bridge.errors import ConfigError
from bridge.web.answers import loopback

EXPORT_LEVEL = r"^(system|patient|group/[A-Za-z0-9.-]{1,64})$"
BUCKET = r"^(s3://[^\s/?#@]+(/[^\s?#]*)?)?$"
HOST_NAME = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
HOST_PORT = r"^[A-Za-z0-9_.:\[\]-]{1,253}:[0-9]{1,5}$"
SYSTEM = r"^([A-Za-z][A-Za-z0-9+.-]*:[!-~]+)?$"


class _Source(_Section):
    name: str = Field(pattern=NAME, description="Short name, shown in status and in Endpoint.name")
    poll_s: float = Field(default=2.0, ge=0.1, le=86_400, description="Seconds between looks for changes")
    sweep_s: float = Field(default=3600.0, ge=1, le=604_800, description="Seconds between comparisons of everything")


class FolderSource(_Source):
    """A folder of DICOM files, with its subfolders. What lies in it is what the archive holds."""

    kind: Literal["folder"]
    path: Path = Field(description="The folder; relative paths count from the configuration file")
    settle_s: float = Field(default=1.0, ge=0, le=3600, description="A file is read when unchanged for so long")
    allow_empty: bool = Field(
        default=False, description="Believe a folder that became empty all at once (else: taken for unmounted)"
    )


class ReceiverTls(_Section):
    """TLS 1.2 or newer for a receiver. With `client_ca`, callers must show a certificate of that authority."""

    certificate: Path = Field(description="PEM file")
    key: Path = Field(description="PEM file")
    client_ca: Path | None = Field(default=None, description="PEM file; callers must show a certificate of it")
    ae_titles: Mapping[str, str] = Field(
        default_factory=dict,
        description="Calling AE title = what its certificate must say: common name, DNS name or sha256:HEX",
    )

    @model_validator(mode="after")
    def _certificates_are_asked_for(self) -> ReceiverTls:
        if self.ae_titles and self.client_ca is None:
            raise ValueError("ae_titles needs client_ca: without it callers show no certificate")
        return self


class ForwardPeer(_Section):
    """An archive that received objects are forwarded to."""

    ae_title: str = Field(pattern=AE_TITLE)
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65_535)


class ReceiverSource(_Source):
    """A C-STORE receiver. What it has stored is kept in its spool under `data_dir`."""

    kind: Literal["receiver"]
    ae_title: str = Field(default="BRIDGE", pattern=AE_TITLE, description="Our application entity title")
    host: str = Field(default="127.0.0.1", description="Address to listen on; loopback until you change it")
    port: int = Field(default=11112, ge=1, le=65_535, description="TCP port to listen on")
    called_ae_titles: tuple[str, ...] = Field(default=(), description="Further titles we may be called by")
    calling_ae_titles: tuple[str, ...] = Field(
        default=(), description="Who may send; empty: callers on this machine only, or those that tls.ae_titles names"
    )
    promiscuous: bool = Field(default=False, description="Admit any calling and called title, from anywhere")
    tls: ReceiverTls | None = None
    maximum_associations: int = Field(default=64, ge=1, le=500)
    maximum_connections: int = Field(default=512, ge=16, le=10_000, description="That wait to ask for an association")
    peers: Mapping[str, Annotated[str, Field(pattern=HOST_PORT)]] = Field(
        default_factory=dict, description="AE title = host:port, where storage commitment is reported to"
    )
    commitment_retry_days: float = Field(default=7.0, gt=0, le=365, description="Days that a report is tried for")
    procedure_step_days: float = Field(
        default=30.0, gt=0, le=3650, description="Days after which a study that was only announced is unknown"
    )
    retention: Literal["keep", "drop_pixel_data"] = Field(
        default="keep", description="What stays of an object: all of it, or what stands before its pixel data"
    )
    retain_hours: float = Field(default=24.0, ge=0, le=87_600, description="Before pixel data is dropped")
    forward: ForwardPeer | None = Field(default=None, description="An archive that gets every object by C-STORE")
    manifest_days: float = Field(default=90.0, ge=1, le=36_500, description="Days that manifests are kept")
    maximum_object_bytes: int = Field(default=2_147_483_648, ge=1_048_576, description="Larger objects are refused")
    minimum_free_bytes: int = Field(default=1_073_741_824, ge=0, description="Below this free space: status A700")


class OrthancSource(_Source):
    """An Orthanc server with its DICOMweb plugin, followed through /changes."""

    kind: Literal["orthanc"]
    url: Address = Field(description="Root of the REST API, for example http://pacs.example:8042")
    username: str = ""
    password: SecretStr = SecretStr("")
    dicom_web: str = Field(default="/dicom-web", pattern=r"^/[^\s?#]*$", description="Path of the DICOMweb plugin")
    wado_rs: str = Field(
        default="",
        pattern=f"^$|{URL}",
        description="WADO-RS base that readers of FHIR use, if other than url + dicom_web",
    )
    timeout_s: float = Field(default=60.0, ge=1, le=3600)
    retrieve_ae_title: str = Field(default="", max_length=16, description="The name notifications have for it")
    verify_s: float = Field(
        default=60.0, ge=1, le=86_400, description="Seconds between passes that count a part of what is held"
    )


class DicomServerSource(_Source):
    """Microsoft's DICOM server, followed through its change feed."""

    kind: Literal["dicom_server"]
    url: Address = Field(description="The server, without the version: for example https://dicom.example")
    api_version: Literal["v1", "v2"] = Field(default="v2", description="Of the change feed and of DICOMweb")
    partitions: tuple[str, ...] = Field(default=(), description="Data partitions to follow; empty: all")
    oauth: OAuth | None = Field(default=None, description="How to sign in; without it: not at all")
    wado_rs: str = Field(
        default="", pattern=f"^$|{URL}", description="WADO-RS base for readers of FHIR, if other than url/version"
    )
    retrieve_ae_title: str = Field(default="", max_length=16, description="The name notifications have for it")
    verify_s: float = Field(
        default=300.0, ge=0, le=86_400, description="Seconds between passes that count a part of what is held; 0: none"
    )
    overlap_s: float = Field(default=60.0, ge=0, le=3600, description="How late an entry may appear in the v2 feed")
    poll_s: float = Field(default=5.0, ge=0.1, le=86_400, description="Seconds between looks for changes")
    sweep_s: float = Field(default=86_400.0, ge=1, le=604_800, description="Seconds between comparisons of everything")
    timeout_s: float = Field(default=60.0, ge=1, le=3600)


class DicomWebSource(_Source):
    """An archive that answers QIDO-RS and WADO-RS and has no feed: its newest days are asked for again and again."""

    kind: Literal["dicomweb"]
    url: Address = Field(description="The service base, without /studies")
    qido_prefix: str = Field(default="", pattern=r"^(/[^\s?#]*)?$", description="Path of QIDO-RS below url")
    wado_prefix: str = Field(default="", pattern=r"^(/[^\s?#]*)?$", description="Path of WADO-RS below url")
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    oauth: OAuth | None = None
    tls: ClientTls | None = None
    wado_rs: str = Field(default="", pattern=f"^$|{URL}", description="WADO-RS base for readers of FHIR, if another")
    retrieve_ae_title: str = Field(default="", max_length=16, description="The name notifications have for it")
    page_size: int = Field(default=200, ge=1, le=10_000, description="Studies asked for at once")
    lookback_days: int = Field(default=365, ge=0, le=36_500, description="How far back the first look goes")
    overlap_days: int = Field(default=1, ge=1, le=365, description="Days before the last look that are looked at again")
    poll_s: float = Field(default=30.0, ge=0.1, le=86_400, description="Seconds between looks for changes")
    sweep_s: float = Field(default=21_600.0, ge=1, le=604_800, description="Seconds between comparisons of everything")
    verify_s: float = Field(default=60.0, ge=1, le=86_400, description="Seconds between counts of a part of it")
    rereads_per_pass: int = Field(default=10, ge=0, le=1000, description="Studies read again with each count")
    timeout_s: float = Field(default=60.0, ge=1, le=3600)


class DimseSource(_Source):
    """An archive that speaks DIMSE: followed by C-FIND; its objects come by C-MOVE or C-GET where wanted."""

    kind: Literal["dimse"]
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65_535)
    ae_title: str = Field(pattern=AE_TITLE, description="The archive's application entity title")
    calling_ae_title: str = Field(default="BRIDGE", pattern=AE_TITLE, description="What the archive knows us as")
    tls: ClientTls | None = None
    wado_rs: str = Field(default="", pattern=f"^$|{URL}", description="WADO-RS base for readers of FHIR; empty: none")
    lookback_days: int = Field(default=30, ge=0, le=36_500, description="How far back the first look goes")
    window_days: int = Field(default=7, ge=1, le=365, description="Days asked for at once")
    overlap_days: int = Field(default=3, ge=1, le=365, description="Days before the last look that are looked at again")
    response_limit: int = Field(
        default=0, ge=0, description="Answers after which the archive stops; 0: it is found out"
    )
    retrieve: Literal["find", "move", "get"] = Field(
        default="find", description="Headers from queries, or from objects"
    )
    retrieve_policy: Literal["none", "one-per-series", "structured-reports-only", "all"] = Field(
        default="none", description="Which objects are retrieved"
    )
    receiver: str = Field(default="", description="For move: the receiver source that the archive sends to")
    move_timeout_s: float = Field(default=1800.0, ge=1, le=86_400, description="Longest silence during a retrieval")
    associations: int = Field(default=2, ge=1, le=32, description="At once")
    maximum_queries_per_s: float = Field(default=0.0, ge=0, description="0: no limit")
    allowed_hours: str = Field(default="", description="Such as 19:00-06:00, in time_zone; empty: always")
    poll_s: float = Field(default=60.0, ge=0.1, le=86_400, description="Seconds between looks for changes")
    sweep_s: float = Field(default=86_400.0, ge=1, le=604_800, description="Seconds between comparisons of everything")
    verify_s: float = Field(default=300.0, ge=1, le=86_400, description="Seconds between counts of a part of it")
    rereads_per_pass: int = Field(default=10, ge=0, le=1000, description="Studies read again with each count")
    timeout_s: float = Field(default=60.0, ge=1, le=3600)

    @model_validator(mode="after")
    def _what_is_retrieved(self) -> DimseSource:
        if (self.retrieve == "find") != (self.retrieve_policy == "none"):
            raise ValueError("retrieve = move or get needs a retrieve_policy other than none, and the other way round")
        if (self.retrieve == "move") != bool(self.receiver):
            raise ValueError("retrieve = move needs receiver, the name of a receiver source, and nothing else does")
        return self


class FhirServerSink(_Section):
    """A FHIR R4 or R5 server that gets ImagingStudy, Endpoint and (by policy) Patient."""

    kind: Literal["fhir_server"]
    name: str = Field(pattern=NAME)
    url: Address = Field(description="The FHIR base, for example https://ehr.example/fhir")
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    oauth: OAuth | None = None
    smart: Smart | None = None
    tls: ClientTls | None = None
    allow_http: bool = Field(default=False, description="Credentials may go unencrypted to other machines")
    patients: Literal["match", "create", "logical", "match_operation"] = Field(
        default="match",
        description="match: refer to the one Patient that has the identifier, else by identifier alone; create: make "
        "the Patient that is missing, if its identifier has a system; logical: by identifier alone; match_operation: "
        "ask Patient/$match",
    )
    identity_check: tuple[Literal["birthDate", "gender", "family"], ...] = Field(
        default=("birthDate", "gender", "family"),
        description="A Patient that contradicts the images in one of these is a conflict: the study is parked",
    )
    orders: tuple[Literal["ServiceRequest", "Encounter"], ...] = Field(
        default=("ServiceRequest", "Encounter"), description="Looked up, so that the study refers to them literally"
    )
    withdrawn: Literal["status", "delete"] = Field(
        default="status", description="A study no archive holds any more: entered-in-error, or deleted"
    )
    recreate_deleted: bool = Field(default=False, description="Make again what somebody deleted on the server")
    recheck_hours: float = Field(
        default=24.0, ge=0, le=8760, description="All that was delivered is compared anew once in so long; 0: never"
    )
    bundle_entries: int = Field(default=50, ge=1, le=500, description="Studies sent in one Bundle at most")
    bundle_bytes: int = Field(default=4_194_304, ge=10_000, le=1_073_741_824)
    timeout_s: float = Field(default=30.0, ge=1, le=600)

    @model_validator(mode="after")
    def _signs_in_safely(self) -> FhirServerSink:
        check_sign_in(
            self.url,
            username=self.username,
            password=self.password,
            bearer_token=self.bearer_token,
            oauth=self.oauth,
            smart=self.smart,
            tls=self.tls,
            allow_http=self.allow_http,
        )
        return self


class ClinicalServer(_Section):
    """A FHIR server whose clinical data `cohort load --from-server NAME` takes by Bulk Data $export."""

    name: str = Field(pattern=NAME)
    url: Address = Field(description="The FHIR base, for example https://ehr.example/fhir")
    level: str = Field(
        default="system", pattern=EXPORT_LEVEL, description="system: everything; patient: all patients; group/ID"
    )
    types: tuple[Annotated[str, Field(pattern=r"^[A-Za-z]{1,64}$")], ...] = Field(
        default=(), description="Resource types; empty: all the server gives"
    )
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    oauth: OAuth | None = None
    smart: Smart | None = None
    tls: ClientTls | None = None
    timeout_s: float = Field(default=60.0, ge=1, le=600)

    @model_validator(mode="after")
    def _signs_in_safely(self) -> ClinicalServer:
        check_sign_in(
            self.url,
            username=self.username,
            password=self.password,
            bearer_token=self.bearer_token,
            oauth=self.oauth,
            smart=self.smart,
            tls=self.tls,
            allow_http=False,
        )
        return self


Source = Annotated[
    FolderSource | ReceiverSource | OrthancSource | DicomServerSource | DicomWebSource | DimseSource,
    Field(discriminator="kind"),
]
Sink = Annotated[FhirServerSink, Field()]
Archive = Annotated[StowArchive | CStoreArchive, Field(discriminator="kind")]


class Api(_Section):
    host: str = Field(default="127.0.0.1", description="Address to listen on; loopback until you change it")
    port: int = Field(default=8080, ge=1, le=65_535)
    base_url: str = Field(default="", pattern=f"^$|{URL}", description="Public address, if other than host and port")
    monitoring_port: int = Field(
        default=0, ge=0, le=65_535, description="Of /healthz, /readyz and /metrics without the role serve; 0: none"
    )
    host_names: tuple[Annotated[str, Field(pattern=HOST_NAME)], ...] = Field(
        default=(), description="Further names that it is called by (Host header), besides host and that of base_url"
    )
    export_jobs: int = Field(default=10, ge=1, le=1000, description="Exports ($export) kept at once")
    export_hours: float = Field(default=24.0, gt=0, le=8760, description="Hours after which an export is removed")
    subscription_endpoints: tuple[Address, ...] = Field(
        default=(), description="Begins of the addresses that Subscriptions may notify; empty: no Subscriptions"
    )
    subscriptions: int = Field(default=50, ge=1, le=1000, description="Subscriptions at once")
    subscription_give_up_hours: float = Field(
        default=72.0, gt=0, le=8760, description="Hours of failures after which a Subscription is off"
    )
    export_bytes: int = Field(default=10_737_418_240, ge=1_048_576, description="Of the files of all exports")


def _known_zone(value: str) -> str:
    if value and value not in available_timezones():
        raise ValueError("an IANA time zone such as Europe/Vienna, or empty")
    return value


TimeZone = Annotated[str, AfterValidator(_known_zone)]
System = Annotated[str, Field(pattern=SYSTEM)]


class AeTitleIdentity(_Section):
    """What holds of the objects of one application entity, where they say nothing themselves."""

    patient_id_system: System = Field(default="", description="Identifier.system for its PatientIDs without issuer")
    accession_system: System = Field(default="", description="Identifier.system for its accession numbers")
    time_zone: TimeZone = Field(default="", description="IANA zone of its times without TimezoneOffsetFromUTC")


class Identity(_Section):
    """How DICOM ids become FHIR identifiers (PS3.3 C.7.1.1; never matched across issuers)."""

    patient_id_system: str = Field(
        default="", description="Identifier.system for a PatientID without issuer; empty: no system, never linked"
    )
    accession_system: str = Field(default="", description="Identifier.system for an AccessionNumber without issuer")
    issuers: Mapping[str, str] = Field(
        default_factory=dict, description="IssuerOfPatientID or local namespace = Identifier.system"
    )
    study_id_system: System = Field(default="", description="Identifier.system for StudyID; empty: it is left out")
    admission_id_system: System = Field(default="", description="Identifier.system for an AdmissionID without issuer")
    requested_procedure_id_system: System = Field(
        default="", description="Identifier.system for RequestedProcedureID; empty: it is left out"
    )
    unknown_patient_ids: tuple[str, ...] = Field(
        default=(
            "ANON", "ANONYMIZED", "ANONYMISED", "ANONYMOUS", "NONE", "PHANTOM", "UNKNOWN",
        ),
        description="PatientIDs that identify nobody, in any case: each study has a patient of its own",
    )  # fmt: skip
    dummy_birth_dates: tuple[str, ...] = Field(
        default=("19000101",), description="PatientBirthDates that de-identification leaves: left out"
    )
    ae_titles: Mapping[Annotated[str, Field(pattern=AE_TITLE)], AeTitleIdentity] = Field(
        default_factory=dict, description="AE title that sent or made an object = what holds of it"
    )


class Translation(_Section):
    """What a site decides about codes, and how much of a study is listed."""

    maximum_instances: int = Field(
        default=10_000, ge=0, le=1_000_000, description="A study of more lists its series without their instances"
    )
    unmapped_codes: Literal["text", "local", "leave_out"] = Field(
        default="text", description="Codes without a known system: their words, a Coding of local_code_system, nothing"
    )
    local_code_system: System = Field(
        default="", description="Coding.system for unmapped_codes = local; the scheme's designator is added to it"
    )
    coding_schemes: Mapping[str, System] = Field(
        default_factory=dict, description="CodingSchemeDesignator = Coding.system, for the site's own schemes"
    )
    code_maps: Path | None = Field(default=None, description="A folder of FHIR R4 ConceptMaps, each a .json file")

    @model_validator(mode="after")
    def _local_codes_have_a_system(self) -> Translation:
        if self.unmapped_codes == "local" and not self.local_code_system:
            raise ValueError("unmapped_codes = local needs local_code_system")
        return self


class LakeSettings(_Section):
    """Where the lake is: in a folder of data_dir, or in an S3-compatible store."""

    url: str = Field(default="", pattern=BUCKET, description="s3://BUCKET/PREFIX; empty: `lake` in data_dir")
    endpoint: AddressOrNone = Field(default="", description="Of the store; empty: AWS_ENDPOINT_URL_S3, else Amazon's")
    region: str = Field(default="", description="Empty: AWS_REGION, or as the profile says")
    access_key_id: str = Field(default="", description="Empty: environment, profile or role, as AWS's own tools do")
    secret_access_key: SecretStr = SecretStr("")
    cache_gb: float = Field(
        default=20.0, ge=0.1, le=100_000, description="Of the lake's files kept in data_dir, besides those in use"
    )

    @model_validator(mode="after")
    def _only_a_bucket_is_reached(self) -> LakeSettings:
        secret = self.secret_access_key.get_secret_value()
        if bool(self.access_key_id) != bool(secret):
            raise ValueError("access_key_id and secret_access_key belong together; allowed: both or neither")
        if not self.url and (self.endpoint or self.access_key_id):
            raise ValueError("endpoint and access_key_id need url = s3://BUCKET/PREFIX")
        if self.endpoint.lower().startswith("http:") and not loopback(self.endpoint):
            raise ValueError("endpoint: patients' data would travel unencrypted; use https://")
        return self


class Cohort(_Section):
    """What people who ask the cohort may see, until there are accounts: one setting for everybody."""

    small_cells: int = Field(
        default=10, ge=1, le=1000, description="Counts of fewer patients are hidden, others a multiple of it; 1: exact"
    )
    line_level: bool = Field(default=False, description="Rows about single patients may be seen; else counts alone")
    identifiers: Literal["pseudonyms", "identifiers"] = Field(
        default="pseudonyms",
        description="How rows name patients, studies, reports: by keyed pseudonyms, or as they are",
    )
    dates: Literal["shifted", "kept"] = Field(
        default="shifted", description="Under pseudonyms: dates moved back by 1 to 365 days, the same for one patient"
    )
    free_text: Literal["withheld", "shown"] = Field(
        default="withheld", description="Under pseudonyms: reports, conclusions, descriptions and other typed text"
    )
    project: str = Field(
        default="", max_length=100, description="Pseudonyms of one project cannot be linked to those of another"
    )
    log_days: float = Field(default=365.0, ge=1, le=36_500, description="Days that the log of questions is kept")
    readers: dict[str, str] = Field(
        default={}, description="Which reader a user of this machine is, by identifier: sees outcomes of own reports"
    )
    reader_reviewers: tuple[str, ...] = Field(
        default=(), description="Users of this machine who may see the outcomes of every reader's reports"
    )


class Log(_Section):
    """What `bridge run` writes to standard error."""

    format: Literal["text", "json"] = Field(default="text", description="Lines for people, or one JSON object for each")


class Traces(_Section):
    """Spans of OpenTelemetry. Needs the extra `otel`."""

    endpoint: AddressOrNone = Field(
        default="", description="OTLP over HTTP, as http://127.0.0.1:4318/v1/traces; empty: none are made"
    )
    share: float = Field(default=1.0, ge=0, le=1, description="Of the traces kept")


class Documents(_Section):
    """What reading one document object (SR, SEG, PDF) may take, in the process of its own that it is read in."""

    deadline_s: float = Field(default=30.0, ge=0.1, le=3600, description="Then its process is ended and it is parked")
    memory_mb: int = Field(default=1024, ge=256, le=65_536, description="Of address space; 200 are the program itself")


class Settings(_Section):
    """Everything that can be configured. Immutable; built once."""

    data_dir: Path = Field(default=Path("bridge-data"), description="State, spool and lake live here")
    state_url: str = Field(default="", description="SQLAlchemy URL of the state; empty: SQLite in data_dir")
    time_zone: TimeZone = Field(
        default="", description="IANA zone of times without TimezoneOffsetFromUTC; empty: such times become dates"
    )
    quiet_s: float = Field(default=3.0, ge=0, le=3600, description="A study is read when no change came for so long")
    max_wait_s: float = Field(default=60.0, ge=0, le=86_400, description="… but after so long at the latest")
    workers: int = Field(default=2, ge=1, le=64, description="Studies translated side by side")
    backfill_per_minute: float = Field(
        default=0.0, ge=0, le=1_000_000, description="Studies not known yet are begun at this rate at most; 0: no bound"
    )
    validate_resources: bool = Field(
        default=False, description="Check every resource with fhir.resources before storing"
    )
    reconcile_hours: float = Field(
        default=24.0,
        ge=0,
        le=8760,
        description="All is compared once in so long; 0: when asked for",
    )
    api: Api = Api()
    identity: Identity = Identity()
    translation: Translation = Translation()
    lake: LakeSettings = LakeSettings()
    documents: Documents = Documents()
    cohort: Cohort = Cohort()
    log: Log = Log()
    traces: Traces = Traces()
    sources: tuple[Source, ...] = ()
    sinks: tuple[Sink, ...] = ()
    archives: tuple[Archive, ...] = Field(default=(), description="Archives that get SR documents of AI results")
    models: tuple[Model, ...] = Field(default=(), description="Models that are called for new studies")
    clinical: tuple[ClinicalServer, ...] = ()
    fetch: tuple[FetchArchive, ...] = Field(default=(), description="How `cohort fetch` asks archives, by origin")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Settings:
        names = [s.name for s in (*self.sources, *self.sinks, *self.archives, *self.models, *self.clinical)] + ["lake"]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(
                "every source, sink, archive, model and clinical server needs a name of its own, and `lake` is taken; "
                f"twice: {', '.join(twice)}"
            )
        return self

    @model_validator(mode="after")
    def _moves_have_a_receiver(self) -> Settings:
        receivers = {s.name for s in self.sources if isinstance(s, ReceiverSource)}
        for source in self.sources:
            if isinstance(source, DimseSource) and source.receiver and source.receiver not in receivers:
                raise ValueError(f"sources: {source.name}: receiver must be the name of a source of kind receiver")
        return self

    @model_validator(mode="after")
    def _archives_and_models_name_sources(self) -> Settings:
        known = {s.name for s in self.sources}
        named = [(f"archives: {a.name}: sources", a.sources) for a in self.archives]
        named += [(f"models: {m.name}: rule.sources", m.rule.sources) for m in self.models]
        for setting, sources in named:
            if unknown := sorted(set(sources) - known):
                raise ValueError(f"{setting}: there is no source {', '.join(unknown)}")
        return self

    @property
    def zone(self) -> ZoneInfo | None:
        return ZoneInfo(self.time_zone) if self.time_zone else None

    @property
    def database_url(self) -> str:
        return self.state_url or f"sqlite:///{self.data_dir / 'state.sqlite'}"

    @property
    def lake_dir(self) -> Path:
        return self.data_dir / "lake"

    @property
    def lake_cache(self) -> Path:
        """What this machine keeps of a lake in a bucket."""
        return self.data_dir / "lake-cache"

    @property
    def export_dir(self) -> Path:
        return self.data_dir / "exports"

    @property
    def public_url(self) -> str:
        return self.api.base_url.rstrip("/") or f"http://{self.api.host}:{self.api.port}"


def embedded(data_dir: Path = Path("bridge-data")) -> Settings:
    """The settings of `bridge run` without a file: a watched folder, a loopback receiver, everything in data_dir."""
    return Settings(
        data_dir=data_dir,
        sources=(
            FolderSource(kind="folder", name="inbox", path=data_dir / "inbox"),
            ReceiverSource(kind="receiver", name="receiver"),
        ),
    )


def lake_cache() -> Path:
    """Where a person's own commands keep what they read of lakes in buckets: copies of patients' data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imaging-bridge" / "lake"


def load(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a TOML file; relative paths count from the file.

    Raises  ConfigError, naming the key, what was found and what is allowed
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. `bridge init` writes one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    expanded = _expand(raw, os.environ if environment is None else environment, path, ())
    return _rooted(parse(expanded, str(path)), path.parent)


def parse(raw: Mapping[str, Any], origin: str = "settings") -> Settings:
    """Settings from an already loaded mapping. Raises ConfigError as `load` does."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{origin}: {_explain(e)}" for e in error.errors())) from None


def _rooted(settings: Settings, root: Path) -> Settings:
    sources = tuple(_rooted_files(s, root) for s in settings.sources)
    sinks = tuple(_rooted_files(s, root) for s in settings.sinks)
    clinical = tuple(_rooted_files(s, root) for s in settings.clinical)
    rooted = {
        "sources": sources,
        "sinks": sinks,
        "clinical": clinical,
        "archives": tuple(_rooted_files(archive, root) for archive in settings.archives),
        "models": tuple(_rooted_files(model, root) for model in settings.models),
        "translation": _rooted_files(settings.translation, root),
        "fetch": tuple(_rooted_files(archive, root) for archive in settings.fetch),
    }
    return settings.model_copy(update={"data_dir": root / settings.data_dir, **rooted})


def _rooted_files(section: Any, root: Path) -> Any:
    """A section whose paths count from `root`, with those of its parts."""
    update: dict[str, Any] = {}
    for name, value in section:
        if isinstance(value, Path):
            update[name] = root / value
        elif isinstance(value, _Section):
            update[name] = _rooted_files(value, root)
    return section.model_copy(update=update)


def _expand(value: Any, environment: Mapping[str, str], path: Path, at: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {k: _expand(v, environment, path, (*at, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, environment, path, (*at, i)) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise ConfigError(f"{path}: {_key(at)}: the environment variable {name} is not set")
        return environment[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", variable, value)


_SECRET = re.compile(r"password|token|secret|oauth|state_url")
_ARCHIVE_KINDS: dict[str, type[BaseModel]] = {"c_store": CStoreArchive, "stow": StowArchive}
_KINDS: dict[str, type[BaseModel]] = {
    "folder": FolderSource,
    "receiver": ReceiverSource,
    "orthanc": OrthancSource,
    "dicom_server": DicomServerSource,
    "dicomweb": DicomWebSource,
    "dimse": DimseSource,
}
_PARTS: dict[str, type[BaseModel]] = {"oauth": OAuth, "smart": Smart}


def _explain(error: Any) -> str:
    """One pydantic error as: key: found …; allowed … ."""
    location = [part for part in error["loc"] if part not in _KINDS | _ARCHIVE_KINDS]
    key, kind, context = _key(location), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{key}: unknown setting.{_nearest(error)}"
    if kind == "missing":
        return f"{key}: missing. {_allowed(error)}"
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        found = f"found {context['tag']!r}; " if "tag" in context else "missing; "
        kinds = _ARCHIVE_KINDS if "archives" in location else _KINDS
        return f"{key}.kind: {found}allowed: {', '.join(sorted(kinds))}"
    found = "found a secret" if _SECRET.search(key) else f"found {error['input']!r}"
    if kind == "value_error" and not isinstance(error["input"], str | int | float):
        return f"{key}: {context['error']}"
    return f"{key}: {found}; allowed: {_allowed(error)}"


def _allowed(error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        known = {
            NAME: "a name of lower-case letters, digits, - and _ (at most 40)",
            AE_TITLE: "an AE title of 1 to 16 characters",
            BUCKET: "s3://BUCKET/PREFIX, or empty",
            HOST_NAME: "a host name or an IPv4 address, without a port",
            SYSTEM: "a URI such as http://hospital.example/mrn or urn:oid:1.2.3",
        }
        return known.get(
            context["pattern"], "an http:// or https:// address without query, or a path that starts with /"
        )
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return "This setting has no default; give it a value."
    return str(error["msg"]).replace("Input should be ", "")


def _nearest(error: Any) -> str:
    location = error["loc"]
    section: type[BaseModel] = Settings
    if "api" in location[:1]:
        section = Api
    elif "identity" in location[:1]:
        section = AeTitleIdentity if "ae_titles" in location else Identity
    elif "translation" in location[:1]:
        section = Translation
    elif "lake" in location[:1]:
        section = LakeSettings
    elif "log" in location[:1]:
        section = Log
    elif "traces" in location[:1]:
        section = Traces
    elif "sinks" in location[:1]:
        section = FhirServerSink
    elif "models" in location[:1]:
        section = ModelRule if "rule" in location else Model
    elif "fetch" in location[:1]:
        section = FetchArchive
    elif len(location) > 2 and location[2] in (kinds := _KINDS | _ARCHIVE_KINDS):
        section = kinds[location[2]]
    if len(location) > 1:
        section = _PARTS.get(location[-2], section)
    close = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    return f"{meant} Allowed: {', '.join(sorted(section.model_fields))}"


def _key(location: Any) -> str:
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out or "settings"
