"""Builds the FHIR servers that settings name. Part of the composition root."""

from __future__ import annotations

from collections.abc import Callable

from bridge.config import FhirServerSink as FhirServerSettings
from bridge.sign_in import fhir_server_sign_in
from bridge.sinks.fhir_server import FhirServerPolicy, FhirServerSink, SubjectPolicy


def fhir_server_sink(settings: FhirServerSettings, closed: list[Callable[[], None]]) -> FhirServerSink:
    """A server as settings have it, signed in. What is to be closed after use is added to `closed`."""
    policy = FhirServerPolicy(
        subjects=SubjectPolicy(settings.patients, settings.identity_check),
        orders=settings.orders,
        withdrawn=settings.withdrawn,
        recreate_deleted=settings.recreate_deleted,
        bundle_entries=settings.bundle_entries,
        bundle_bytes=settings.bundle_bytes,
    )
    signed_in = fhir_server_sign_in(settings)
    sink = FhirServerSink(
        settings.name,
        settings.url,
        policy=policy,
        auth=signed_in.auth,
        tls=signed_in.tls,
        timeout_s=settings.timeout_s,
    )
    closed += [signed_in.close, sink.close]
    return sink
