"""Settings of whom AI results come from and go to: models that are called, archives that get documents. Part of
`bridge.config`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bridge.connections import AE_TITLE, NAME, Address, ClientTls, HttpPeer, Section

Listed = Annotated[str, Field(min_length=1, max_length=200)]


class StowArchive(HttpPeer):
    """An archive that gets the SR documents of AI results by STOW-RS."""

    name: str = Field(pattern=NAME)
    kind: Literal["stow"]
    url: Address = Field(description="The service base, without /studies")
    sources: tuple[str, ...] = Field(
        default=(), description="Only results of studies that one of these sources holds; empty: all"
    )
    rejection_notes: bool = Field(
        default=True, description="Documents of results that a reader rejected are rejected by a Key Object Selection"
    )
    timeout_s: float = Field(default=60.0, ge=1, le=3600)


class CStoreArchive(Section):
    """An archive that gets the SR documents of AI results by C-STORE."""

    kind: Literal["c_store"]
    name: str = Field(pattern=NAME)
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65_535)
    ae_title: str = Field(pattern=AE_TITLE, description="The archive's application entity title")
    calling_ae_title: str = Field(default="BRIDGE", pattern=AE_TITLE, description="What the archive knows us as")
    sources: tuple[str, ...] = Field(
        default=(), description="Only results of studies that one of these sources holds; empty: all"
    )
    rejection_notes: bool = Field(
        default=True, description="Documents of results that a reader rejected are rejected by a Key Object Selection"
    )
    tls: ClientTls | None = None
    timeout_s: float = Field(default=60.0, ge=1, le=3600)


class ModelRule(Section):
    """Which studies a model is called for: every condition that is given must hold, of one series where it is one of
    series."""

    modalities: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,16}$")], ...] = Field(
        min_length=1, description="Of a series: Modality. Not SR, as the bridge's own documents are"
    )
    body_sites: tuple[Listed, ...] = Field(
        default=(), description="Of a series: a code or a display of ImagingStudy.series.bodySite"
    )
    procedures: tuple[Listed, ...] = Field(
        default=(), description="Of the study: a code or a text of ImagingStudy.procedureCode"
    )
    sources: tuple[str, ...] = Field(default=(), description="Of the study: one of these sources holds it")
    minimum_instances: int = Field(default=1, ge=1, le=1_000_000, description="Of a series")

    @model_validator(mode="after")
    def _no_documents(self) -> ModelRule:
        if "SR" in self.modalities:
            raise ValueError("modalities: not SR: the bridge's own documents would call the model again")
        return self


class Model(HttpPeer):
    """A model that is called over HTTP when a study that matches its rule is complete."""

    name: str = Field(pattern=NAME)
    url: Address = Field(description="Where requests are POSTed")
    version: str = Field(min_length=1, max_length=64, description="Another version looks at a study again")
    rule: ModelRule
    stable_s: float = Field(default=60.0, ge=0, le=86_400, description="A study is complete when unchanged for so long")
    at_once: int = Field(default=2, ge=1, le=32, description="Calls at the same time")
    timeout_s: float = Field(default=300.0, ge=1, le=3600, description="Longest silence of a call")
    attempts: int = Field(default=8, ge=1, le=100, description="Calls that fail before the study waits for a person")
    maximum_bytes: int = Field(default=1_048_576, ge=1_000, le=67_108_864, description="Of an answer")
    token_minutes: float = Field(
        default=60.0, gt=0, le=1440, description="How long the token of a call reads its study's images"
    )
