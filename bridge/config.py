"""Settings: one TOML file and the environment, read once. The only reader of the environment.

A string value may name environment variables as `${NAME}`; that is how secrets stay out of the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from bridge.ai_peers import CStoreArchive, Model, StowArchive
from bridge.config_errors import BUCKET, HOST_NAME, SYSTEM, explained, key_of
from bridge.config_servers import ClinicalServer, FhirServerSink
from bridge.config_sources import (
    DicomServerSource,
    DicomWebSource,
    DimseSource,
    FolderSource,
    OrthancSource,
    ReceiverSource,
    Source,
)
from bridge.connections import AE_TITLE, URL, Address, AddressOrNone, FetchArchive
from bridge.connections import Section as _Section
from bridge.errors import ConfigError
from bridge.web.answers import loopback

__all__ = [
    "AeTitleIdentity", "Api", "ClinicalServer", "Cohort", "DicomServerSource", "DicomWebSource", "DimseSource",
    "Documents", "FhirServerSink", "FolderSource", "Identity", "LakeSettings", "Log", "OrthancSource",
    "ReceiverSource", "Settings", "Source", "Traces", "Translation", "embedded", "lake_cache", "load", "parse",
]  # fmt: skip

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
    sinks: tuple[FhirServerSink, ...] = ()
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
        raise ConfigError("\n".join(f"{origin}: {explained(e, Settings)}" for e in error.errors())) from None


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
            raise ConfigError(f"{path}: {key_of(at)}: the environment variable {name} is not set")
        return environment[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", variable, value)
