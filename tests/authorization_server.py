"""A FHIR server of a test that admits bearer tokens alone, and the SMART authorization server that gives them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fhir_fake import FhirFake, over_http
from tests.web_server import Asked, Reply, WebServer, web_server

CLIENT_ID = "bridge"
SCOPE = "system/Patient.rs system/ImagingStudy.cruds system/Endpoint.cruds"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def private_pem(algorithm: str, *, bits: int = 2048, curve: ec.EllipticCurve | None = None) -> bytes:
    """A new private key for RS384 or ES384."""
    key: Any = (
        rsa.generate_private_key(65537, bits)
        if algorithm == "RS384"
        else ec.generate_private_key(curve or ec.SECP384R1())
    )
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def key_file(folder: Path, algorithm: str) -> Path:
    path = folder / f"{algorithm}.pem"
    path.write_bytes(private_pem(algorithm))
    path.chmod(0o600)
    return path


@dataclass
class AuthorizationServer:
    """Checks assertions as SMART App Launch 2.2 asks and remembers every jti.

    `registered` are public JWKs by kid. `refused` holds why each refusal was made; clients are told the RFC 6749 code.
    `end` makes every token given so far worthless.
    """

    registered: dict[str, dict[str, Any]] = field(default_factory=dict)
    lifetime_s: float = 300.0
    scope: str = SCOPE
    url: str = ""
    refused: list[str] = field(default_factory=list)
    assertions: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    given: int = 0
    _live: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)

    def end(self) -> None:
        self._live.clear()

    def admits(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme == "Bearer" and token in self._live

    def answer(self, asked: Asked) -> Reply:
        form = {name: values[0] for name, values in parse_qs(asked.content.decode()).items()}
        if asked.headers.get("content-type") != "application/x-www-form-urlencoded":
            return self._refuse("invalid_request", "content type")
        if set(form) != {"scope", "grant_type", "client_assertion_type", "client_assertion"}:
            return self._refuse("invalid_request", "members")
        if form["grant_type"] != "client_credentials" or form["client_assertion_type"] != ASSERTION_TYPE:
            return self._refuse("unsupported_grant_type", "grant")
        problem = self._problem(form["client_assertion"])
        if problem:
            return self._refuse("invalid_client", problem)
        if not form["scope"].startswith("system/"):
            return self._refuse("invalid_scope", "scope")
        self.given += 1
        token = secrets.token_urlsafe(24)
        self._live.add(token)
        content = {"access_token": token, "token_type": "bearer", "expires_in": self.lifetime_s, "scope": self.scope}
        return Reply(content=orjson.dumps(content), headers={"Cache-Control": "no-store"})

    def _problem(self, assertion: str) -> str:
        try:
            header = jwt.get_unverified_header(assertion)
            if header.get("typ") != "JWT" or header.get("alg") not in ("RS384", "ES384"):
                return "header"
            key = jwt.PyJWK(self.registered[header["kid"]], header["alg"])
            claims = jwt.decode(
                assertion,
                key,
                algorithms=[header["alg"]],
                audience=self.url,
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )
        except (jwt.PyJWTError, KeyError) as error:
            return type(error).__name__
        if not claims["iss"] == claims["sub"] == CLIENT_ID:
            return "client"
        if claims["exp"] > time.time() + 300:
            return "exp"
        if claims["jti"] in self._seen:
            return "jti"
        self._seen.add(claims["jti"])
        self.assertions.append((header, claims))
        return ""

    def _refuse(self, code: str, why: str) -> Reply:
        self.refused.append(why)
        return Reply(400, orjson.dumps({"error": code, "error_description": f"QUOTED {why}"}))


class FhirServer:
    """A FHIR server that shows its SMART configuration to everybody. `changes` replace parts of it."""

    def __init__(self, tokens: AuthorizationServer, **changes: Any) -> None:
        self.tokens, self.changes = tokens, changes
        self.fake = FhirFake()
        self._answer = over_http(self.fake)

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/fhir/.well-known/smart-configuration":
            return Reply(content=orjson.dumps(self.configuration()))
        if not self.tokens.admits(asked.headers.get("authorization", "")):
            return Reply(401, b"{}")
        return self._answer(asked)

    def configuration(self) -> dict[str, Any]:
        return {
            "token_endpoint": self.tokens.url,
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        } | self.changes


@dataclass
class Site:
    """Both servers as they run; `url` is the FHIR base."""

    fhir: FhirServer
    tokens: AuthorizationServer
    fhir_web: WebServer
    token_web: WebServer

    @property
    def url(self) -> str:
        return f"{self.fhir_web.url}/fhir"


@contextmanager
def running_site(*registered: dict[str, Any], **changes: Any) -> Iterator[Site]:
    """A FHIR server and its authorization server at another origin, until the block ends."""
    tokens = AuthorizationServer({key["kid"]: key for key in registered})
    fhir = FhirServer(tokens, **changes)
    with web_server() as token_web, web_server() as fhir_web:
        tokens.url = f"{token_web.url}/token"
        token_web.answer, fhir_web.answer = tokens.answer, fhir.answer
        yield Site(fhir, tokens, fhir_web, token_web)
