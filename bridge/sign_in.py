"""Builds from settings how the bridge signs in to FHIR servers. Part of the composition root."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from bridge.ai_peers import Model, StowArchive
from bridge.config import ClinicalServer, FhirServerSink, Settings
from bridge.connections import ClientTls, Smart
from bridge.web.answers import check_address
from bridge.web.auth import ClientCredentials, sign_in
from bridge.web.keys import SigningKey, signing_key
from bridge.web.owner import Owner
from bridge.web.smart import BackendServices
from bridge.web.tls import client_context, token_context


@dataclass(frozen=True)
class SignIn:
    """What one HTTP client needs: who it says it is, whom it trusts. `close` ends the connections of its own."""

    auth: httpx.Auth | None
    tls: ssl.SSLContext | None
    close: Callable[[], None] = lambda: None


def fhir_server_sign_in(settings: FhirServerSink) -> SignIn:
    """How a sink signs in. Raises ConfigError when an address, a key or a certificate cannot be used."""
    return _server_sign_in(Owner.sink(settings.name), settings)


def clinical_sign_in(settings: ClinicalServer) -> SignIn:
    """How the import of clinical data signs in. Raises ConfigError as `fhir_server_sign_in` does."""
    return _server_sign_in(Owner.source(settings.name), settings)


def archive_sign_in(settings: StowArchive) -> SignIn:
    """How documents are stored. Raises ConfigError as `fhir_server_sign_in` does."""
    return _server_sign_in(Owner.archive(settings.name), settings)


def model_sign_in(settings: Model) -> SignIn:
    """How a model is called. Raises ConfigError as `fhir_server_sign_in` does."""
    return _server_sign_in(Owner.model(settings.name), settings)


def _server_sign_in(owner: Owner, settings: FhirServerSink | ClinicalServer | StowArchive | Model) -> SignIn:
    check_address(owner, settings.url)
    tls = client_tls(owner, settings.tls)
    smart = settings.smart if isinstance(settings, FhirServerSink | ClinicalServer) else None
    if smart is not None:
        services = BackendServices(
            owner,
            settings.url,
            client_id=smart.client_id,
            key=_smart_key(owner, smart),
            scope=smart.scope,
            token_url=smart.token_url,
            jku=smart.jku,
            tls=tls,
            token_tls=token_tls(owner, settings.tls),
            timeout_s=settings.timeout_s,
        )
        return SignIn(services, tls, services.close)
    if settings.oauth is not None:
        tokens = ClientCredentials(
            owner,
            settings.url,
            token_url=settings.oauth.token_url,
            client_id=settings.oauth.client_id,
            client_secret=settings.oauth.client_secret.get_secret_value(),
            scope=settings.oauth.scope,
            resource=settings.oauth.resource,
            tls=tls,
            token_tls=token_tls(owner, settings.tls),
            timeout_s=settings.timeout_s,
        )
        return SignIn(tokens, tls, tokens.close)
    auth = sign_in(
        settings.url,
        username=settings.username,
        password=settings.password.get_secret_value(),
        bearer_token=settings.bearer_token.get_secret_value(),
    )
    return SignIn(auth, tls)


def signing_keys(settings: Settings) -> list[SigningKey]:
    """The keys towards all servers, each once. Raises ConfigError when one cannot be used, or two have one name."""
    found: dict[str, SigningKey] = {}
    owned = [(Owner.sink(s.name), s.smart) for s in settings.sinks]
    owned += [(Owner.source(s.name), s.smart) for s in settings.clinical]
    for owner, smart in owned:
        if smart is None:
            continue
        key = _smart_key(owner, smart)
        other = found.setdefault(key.key_id, key)
        if other.public() != key.public():
            raise owner.misconfigured("smart.key_id: another server has it for another key; give each key its own")
    return list(found.values())


def client_tls(owner: Owner, tls: ClientTls | None) -> ssl.SSLContext | None:
    """The TLS settings towards a peer; None: the system's authorities, and no certificate of ours."""
    return None if tls is None else client_context(owner, ca=tls.ca, certificate=tls.certificate, key=tls.key)


def token_tls(owner: Owner, tls: ClientTls | None) -> ssl.SSLContext | None:
    """The TLS settings towards a token endpoint that is not on the peer itself."""
    return None if tls is None else token_context(owner, ca=tls.ca)


def _smart_key(owner: Owner, smart: Smart) -> SigningKey:
    return signing_key(owner, smart.key, key_id=smart.key_id, algorithm=smart.algorithm)
