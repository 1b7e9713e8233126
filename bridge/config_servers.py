"""Sections of the settings: `[[sinks]]` and `[[clinical]]`, FHIR servers. Part of `bridge.config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from bridge.connections import NAME, Address, ClientTls, OAuth, Smart, check_sign_in
from bridge.connections import Section as _Section

EXPORT_LEVEL = r"^(system|patient|group/[A-Za-z0-9.-]{1,64})$"


class _FhirServer(_Section):
    """A FHIR server, and how the bridge signs in there."""

    name: str = Field(pattern=NAME)
    url: Address = Field(description="The FHIR base, for example https://ehr.example/fhir")
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    oauth: OAuth | None = None
    smart: Smart | None = None
    tls: ClientTls | None = None

    def _may_go_unencrypted(self) -> bool:
        return False

    @model_validator(mode="after")
    def _signs_in_safely(self) -> _FhirServer:
        check_sign_in(
            self.url,
            username=self.username,
            password=self.password,
            bearer_token=self.bearer_token,
            oauth=self.oauth,
            smart=self.smart,
            tls=self.tls,
            allow_http=self._may_go_unencrypted(),
        )
        return self


class FhirServerSink(_FhirServer):
    """A FHIR R4 or R5 server that gets ImagingStudy, Endpoint and (by policy) Patient."""

    kind: Literal["fhir_server"]
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

    def _may_go_unencrypted(self) -> bool:
        return self.allow_http


class ClinicalServer(_FhirServer):
    """A FHIR server whose clinical data `cohort load --from-server NAME` takes by Bulk Data $export."""

    level: str = Field(
        default="system", pattern=EXPORT_LEVEL, description="system: everything; patient: all patients; group/ID"
    )
    types: tuple[Annotated[str, Field(pattern=r"^[A-Za-z]{1,64}$")], ...] = Field(
        default=(), description="Resource types; empty: all the server gives"
    )
    timeout_s: float = Field(default=60.0, ge=1, le=600)
