"""Sections of the settings: `[[sources]]`, the archives that are listened to. Part of `bridge.config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from bridge.connections import AE_TITLE, NAME, URL, Address, ClientTls, OAuth
from bridge.connections import Section as _Section

HOST_PORT = r"^[A-Za-z0-9_.:\[\]-]{1,253}:[0-9]{1,5}$"


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


Source = Annotated[
    FolderSource | ReceiverSource | OrthancSource | DicomServerSource | DicomWebSource | DimseSource,
    Field(discriminator="kind"),
]
