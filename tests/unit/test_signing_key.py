from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from bridge.errors import ConfigError
from bridge.web.keys import signing_key
from bridge.web.owner import Owner
from tests.authorization_server import key_file, private_pem

EHR = Owner.sink("ehr")
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def as_jwk(pem: bytes, **more: Any) -> bytes:
    key: Any = load_pem_private_key(pem, None)
    jwk = ECAlgorithm.to_jwk(key, True) if hasattr(key, "curve") else RSAAlgorithm.to_jwk(key, True)
    return orjson.dumps(jwk | more)


def written(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("algorithm", ["RS384", "ES384"])
@pytest.mark.parametrize("form", ["pem", "jwk"])
def test_what_is_signed_is_verified_by_the_public_half(tmp_path: Path, algorithm: str, form: str) -> None:
    pem = private_pem(algorithm)
    key = signing_key(EHR, written(tmp_path, pem if form == "pem" else as_jwk(pem)), algorithm=algorithm)
    signed = key.signed({"sub": "bridge"}, {"jku": "https://bridge.example/jwks"})
    public = key.public()
    assert jwt.decode(signed, jwt.PyJWK(public), algorithms=[algorithm]) == {"sub": "bridge"}
    header = jwt.get_unverified_header(signed)
    assert header == {"typ": "JWT", "alg": algorithm, "kid": key.key_id, "jku": "https://bridge.example/jwks"}
    assert (public["kid"], public["alg"], public["use"]) == (key.key_id, algorithm, "sig")
    assert not PRIVATE_MEMBERS & set(public)
    assert "private" not in repr(key)


def test_a_key_is_named_by_the_setting_then_by_the_jwk_then_by_its_thumbprint(tmp_path: Path) -> None:
    pem = private_pem("ES384")
    path = written(tmp_path, as_jwk(pem, kid="of-the-file"))
    assert signing_key(EHR, path, key_id="of-the-setting").key_id == "of-the-setting"
    assert signing_key(EHR, path).key_id == "of-the-file"
    thumbprints = {signing_key(EHR, written(tmp_path, content)).key_id for content in (pem, as_jwk(pem))}
    assert len(thumbprints) == 1
    assert len(thumbprints.pop()) == 43


def test_the_thumbprint_is_that_of_the_standard(tmp_path: Path) -> None:
    from hashlib import sha256

    from jwt.utils import base64url_encode

    key = signing_key(EHR, key_file(tmp_path, "RS384"))
    public = key.public()
    members = f'{{"e":"{public["e"]}","kty":"RSA","n":"{public["n"]}"}}'
    assert key.key_id == base64url_encode(sha256(members.encode()).digest()).decode()


def _public_only(folder: Path) -> bytes:
    return orjson.dumps(signing_key(EHR, key_file(folder, "RS384")).public())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"SECRET", id="nonsense"),
        pytest.param(b"{SECRET", id="broken JSON"),
        pytest.param(b'{"kty": "oct", "k": "SECRET"}', id="a shared secret"),
        pytest.param(b'{"kty": "RSA", "n": "SECRET"}', id="half of it"),
        pytest.param(b'{"kty": ["RSA"]}', id="a list"),
        pytest.param(b"{}" + b" " * 70_000, id="too long"),
        pytest.param(private_pem("RS384", bits=1024), id="short RSA"),
        pytest.param(private_pem("ES384", curve=ec.SECP256R1()), id="P-256"),
        pytest.param(private_pem("RS384")[:-200], id="cut"),
        pytest.param(b"-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n", id="public"),
    ],
)
def test_a_key_that_cannot_be_used_is_told_by_its_setting(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match=r"sink ehr: smart\.key: not a .*allowed: a private key as PEM") as caught:
        signing_key(EHR, written(tmp_path, content))
    assert "SECRET" not in str(caught.value)


def test_a_public_jwk_is_no_key_to_sign_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"smart\.key: not a key that can sign"):
        signing_key(EHR, written(tmp_path, _public_only(tmp_path)))


def test_a_missing_file_and_another_algorithm_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"smart\.key: cannot be read"):
        signing_key(EHR, tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"smart\.algorithm: the key in smart\.key is for RS384, not for ES384"):
        signing_key(EHR, key_file(tmp_path, "RS384"), algorithm="ES384")


def test_a_key_that_everybody_can_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        signing_key(EHR, written(tmp_path, private_pem("ES384")))
        assert not caplog.records
        signing_key(EHR, written(tmp_path, private_pem("ES384"), 0o644))
    assert "sink ehr: smart.key: every user" in caplog.text
