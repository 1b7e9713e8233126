"""Settings of a connection to an HTTP peer: its address, TLS, and how the bridge signs in. Part of `bridge.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from bridge.web.answers import loopback

NAME = r"^[a-z][a-z0-9_-]{0,39}$"
AE_TITLE = r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"
URL = r"^https?://[^\s/?#@]+(:\d+)?(/[^\s?#]*)?$"


def _usable_address(value: str) -> str:
    """An address whose port exists. Raises ValueError, which becomes a ConfigError."""
    try:
        urlsplit(value).port  # noqa: B018  (reading it checks it)
    except ValueError:
        raise ValueError("an http:// or https:// address with a port from 1 to 65535") from None
    return value


def _encrypted(value: str) -> str:
    if value and not value.startswith("https:"):
        raise ValueError("an https:// address")
    return value


Address = Annotated[str, Field(pattern=URL), AfterValidator(_usable_address)]
AddressOrNone = Annotated[str, Field(pattern=f"^$|{URL}"), AfterValidator(_usable_address)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClientTls(Section):
    """TLS 1.2 or newer towards a peer."""

    ca: Path | None = Field(default=None, description="PEM file of who is trusted; empty: the system's authorities")
    certificate: Path | None = Field(default=None, description="PEM file of our own certificate")
    key: Path | None = Field(default=None, description="PEM file of its key")


class OAuth(Section):
    """OAuth2 client credentials (RFC 6749 4.4)."""

    token_url: Address = Field(description="The token endpoint")
    client_id: str = Field(min_length=1)
    client_secret: SecretStr
    scope: str = ""
    resource: str = Field(default="", description="Some servers want it instead of scope")


class Smart(Section):
    """SMART Backend Services (SMART App Launch 2.2): a signed assertion instead of a secret."""

    client_id: str = Field(min_length=1, description="As the server registered us")
    key: Path = Field(description="Private key, PEM or JWK: RSA of 2048 bits or more, or EC on P-384")
    key_id: str = Field(default="", description="kid; empty: the one in the JWK, else the key's thumbprint (RFC 7638)")
    algorithm: Literal["", "RS384", "ES384"] = Field(default="", description="Empty: the one that the key is for")
    scope: str = Field(min_length=1, description="For example: system/Patient.rs system/ImagingStudy.cruds")
    token_url: AddressOrNone = Field(
        default="", description="Empty: the server names it in .well-known/smart-configuration"
    )
    jku: Annotated[AddressOrNone, AfterValidator(_encrypted)] = Field(
        default="", description="Where our public keys are published, if the server wants it said"
    )


def check_sign_in(
    url: str,
    *,
    username: str,
    password: SecretStr,
    bearer_token: SecretStr,
    oauth: OAuth | None,
    smart: Smart | None,
    tls: ClientTls | None,
    allow_http: bool,
) -> None:
    """Raises ValueError where credentials are unclear, or would travel in the clear to another machine."""
    ways = {
        "username and password": bool(username),
        "bearer_token": bool(bearer_token.get_secret_value()),
        "oauth": oauth is not None,
        "smart": smart is not None,
    }
    given = [way for way, there in ways.items() if there]
    if len(given) > 1:
        raise ValueError(f"give one way to sign in, not {' and '.join(given)}; allowed: one of {', '.join(ways)}")
    if password.get_secret_value() and not username:
        raise ValueError("password needs username")
    if tls is not None and not url.lower().startswith("https:"):
        raise ValueError("tls needs an https:// address in url")
    addresses = {"url": url} if given else {}
    addresses |= {"oauth.token_url": oauth.token_url} if oauth is not None else {}
    addresses |= {"smart.token_url": smart.token_url} if smart is not None and smart.token_url else {}
    for setting, address in addresses.items():
        if address.lower().startswith("http:") and not loopback(address) and not allow_http:
            raise ValueError(
                f"{setting}: credentials would travel unencrypted; use https://, "
                "or set allow_http = true where the network itself is protected"
            )


class HttpPeer(Section):
    """A peer that is asked by HTTP, and how the bridge signs in there."""

    url: Address
    username: str = ""
    password: SecretStr = SecretStr("")
    bearer_token: SecretStr = SecretStr("")
    oauth: OAuth | None = None
    tls: ClientTls | None = None
    allow_http: bool = Field(default=False, description="Credentials may go unencrypted to other machines")

    @model_validator(mode="after")
    def _signs_in_safely(self) -> HttpPeer:
        check_sign_in(
            self.url,
            username=self.username,
            password=self.password,
            bearer_token=self.bearer_token,
            oauth=self.oauth,
            smart=None,
            tls=self.tls,
            allow_http=self.allow_http,
        )
        return self


class FetchArchive(HttpPeer):
    """How `cohort fetch` asks the archives of one origin (scheme, host and port of `url`)."""

    url: Address = Field(description="The WADO-RS base; credentials go to its scheme, host and port alone")
    timeout_s: float = Field(default=60.0, ge=1, le=3600, description="Longest silence of the archive")
