"""Tokens that read the images of one study for a while. Whoever holds one can do that and nothing else."""

from __future__ import annotations

import hmac
import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

KEY_BYTES = 32
MOST_CHARACTERS = 400


class Tokens:
    """Signed with a key of the data folder (HMAC, SHA-256), so that they outlive a restart; nothing is kept of them."""

    def __init__(self, key_file: Path) -> None:
        self._key = _key(key_file)

    def issue(self, study_instance_uid: str, expires_at: float) -> str:
        """A token for a study until `expires_at`, in seconds since the epoch."""
        said = f"{int(expires_at)}/{study_instance_uid}".encode()
        return (urlsafe_b64encode(self._mac(said) + said)).decode().rstrip("=")

    def study_of(self, token: str, now: float) -> str | None:
        """The study that a token opens; None of one that is over, or none of ours."""
        if len(token) > MOST_CHARACTERS or not token.isascii():
            return None
        try:
            content = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        mac, said = content[:KEY_BYTES], content[KEY_BYTES:]
        if not hmac.compare_digest(mac, self._mac(said)):
            return None
        expires, _, study = said.decode().partition("/")
        return study if now < int(expires) else None

    def _mac(self, said: bytes) -> bytes:
        return hmac.digest(self._key, b"images of a study\0" + said, sha256)


def _key(file: Path) -> bytes:
    """The key of this data folder; made when there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        found = file.read_bytes()
        if len(found) == KEY_BYTES:
            return found
        file.unlink()
        return _key(file)
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(key)
    return key
