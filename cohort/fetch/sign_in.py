"""Builds from settings how the archives are asked: by origin, so that no credential goes to another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge.connections import FetchArchive
from bridge.errors import ConfigError
from bridge.web.answers import origin
from bridge.web.auth import ClientCredentials, sign_in
from bridge.web.owner import Owner
from bridge.web.tls import client_context, token_context
from cohort.fetch.wado import Access


def accesses(archives: Iterable[FetchArchive]) -> Mapping[tuple[str, str, int | None], Access]:
    """Origin → how it is asked. Raises ConfigError when a certificate cannot be used, or an origin is named twice."""
    made: dict[tuple[str, str, int | None], Access] = {}
    for archive in archives:
        where = origin(archive.url)
        if where in made:
            raise ConfigError(f"fetch: {where[0]}://{where[1]}:{where[2]} is named twice; give each origin one entry")
        made[where] = _access(archive)
    return made


def _access(archive: FetchArchive) -> Access:
    owner, files = Owner.source(f"fetch {archive.url}"), archive.tls
    tls = client_context(owner, ca=files.ca, certificate=files.certificate, key=files.key) if files else None
    if archive.oauth is None:
        auth = sign_in(
            archive.url,
            username=archive.username,
            password=archive.password.get_secret_value(),
            bearer_token=archive.bearer_token.get_secret_value(),
        )
        return Access(auth, tls, archive.timeout_s)
    tokens = ClientCredentials(
        owner,
        archive.url,
        token_url=archive.oauth.token_url,
        client_id=archive.oauth.client_id,
        client_secret=archive.oauth.client_secret.get_secret_value(),
        scope=archive.oauth.scope,
        resource=archive.oauth.resource,
        tls=tls,
        token_tls=token_context(owner, ca=files.ca) if files else None,
        timeout_s=archive.timeout_s,
    )
    return Access(tokens, tls, archive.timeout_s)
