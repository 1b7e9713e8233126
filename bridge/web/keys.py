"""Private keys that the bridge signs with, and their public half for whoever checks (RFC 7515, 7517, 7518, 7638)."""

from __future__ import annotations

import hashlib
import logging
import stat
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from bridge.web.owner import Owner

log = logging.getLogger("bridge.web")

KEY_BYTES = 65_536
RSA_BITS = 2048

ALLOWED = "allowed: a private key as PEM without a password or as JWK, RSA of 2048 bits or more, or EC on curve P-384"

PUBLIC = {"RS384": ("e", "kty", "n"), "ES384": ("crv", "kty", "x", "y")}
"""Algorithm = the members of a JWK that make the public key (RFC 7518 6.2.1, 6.3.1), as RFC 7638 3.2 orders them."""


@dataclass(frozen=True)
class SigningKey:
    """A private key, the one algorithm it is for ("RS384" or "ES384"), and the name it is registered under."""

    key_id: str
    algorithm: str
    _private: RSAPrivateKey | EllipticCurvePrivateKey = field(repr=False)

    def signed(self, claims: Mapping[str, Any], headers: Mapping[str, str]) -> str:
        """A JWT in its compact form (RFC 7519), with `typ`, `alg` and `kid` in its header."""
        return jwt.encode(
            dict(claims), self._private, algorithm=self.algorithm, headers={"kid": self.key_id, **headers}
        )

    def public(self) -> dict[str, str]:
        """The public half as a JWK to register (RFC 7517)."""
        return _public(self.algorithm, self._private) | {"alg": self.algorithm, "kid": self.key_id, "use": "sig"}


def signing_key(owner: Owner, path: Path, *, key_id: str = "", algorithm: str = "") -> SigningKey:
    """The key in a PEM or JWK file (settings smart.key, smart.key_id, smart.algorithm).

    Result  its name is `key_id`, else the `kid` of the JWK, else its thumbprint (RFC 7638)
    Raises  ConfigError, naming the setting; what the file holds is not part of the message
    """
    private, named = _read(owner, path)
    if isinstance(private, RSAPrivateKey) and private.key_size >= RSA_BITS:
        found = "RS384"
    elif isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP384R1):
        found = "ES384"
    else:
        raise owner.misconfigured(f"smart.key: not a key that can sign; {ALLOWED}")
    if algorithm not in ("", found):
        raise owner.misconfigured(f"smart.algorithm: the key in smart.key is for {found}, not for {algorithm}")
    return SigningKey(key_id or named or _thumbprint(_public(found, private)), found, private)


def _read(owner: Owner, path: Path) -> tuple[object, str]:
    """The private key in a file and the name it has there."""
    try:
        with path.open("rb") as file:
            content = file.read(KEY_BYTES + 1)
        others = path.stat().st_mode & stat.S_IROTH
    except OSError as error:
        raise owner.misconfigured(f"smart.key: cannot be read ({error.strerror})") from None
    if others:
        log.warning("%s: smart.key: every user of this machine can read the file: chmod 600", owner)
    try:
        if len(content) > KEY_BYTES:
            raise ValueError
        return _parsed(content)
    except (ValueError, TypeError, KeyError, jwt.InvalidKeyError, UnsupportedAlgorithm):
        raise owner.misconfigured(f"smart.key: not a readable private key; {ALLOWED}") from None


def _parsed(content: bytes) -> tuple[object, str]:
    if not content.lstrip().startswith(b"{"):
        return load_pem_private_key(content, password=None), ""
    jwk: dict[str, Any] = orjson.loads(content)
    named = jwk.get("kid", "")
    private = RSAAlgorithm.from_jwk(jwk) if jwk["kty"] == "RSA" else ECAlgorithm.from_jwk(jwk)
    return private, named if isinstance(named, str) else ""


def _public(algorithm: str, private: RSAPrivateKey | EllipticCurvePrivateKey) -> dict[str, str]:
    jwk: dict[str, Any] = (
        RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
        if isinstance(private, RSAPrivateKey)
        else ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    )
    return {member: jwk[member] for member in PUBLIC[algorithm]}


def _thumbprint(public: Mapping[str, str]) -> str:
    digest = hashlib.sha256(orjson.dumps(dict(public))).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")
