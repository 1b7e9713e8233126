"""Pseudonyms: HMAC-SHA256 of what they stand for, under a key of the installation and the project.

The same value has the same pseudonym in every table, answer and generation of a project, and nobody without the key
can make or undo one. Each is offered twice: in Python, and as a DuckDB expression for views.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bridge.errors import ConfigError

KEY_FILE = "pseudonyms.key"
KEY_BYTES = 32
MOST_DAYS = 365
INNER, OUTER = "pseudonym_inner", "pseudonym_outer"
_INNER_PAD = 0x36


def read_secret(folder: Path) -> bytes:
    """The installation's secret, made at first use, readable by its owner alone.

    Raises ConfigError when others could read it or it is damaged: pseudonyms under another key would be other ones.
    """
    path = folder / KEY_FILE
    if not path.exists():
        _make(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path}: readable by others; chmod 600 it")
    secret = path.read_bytes()
    if len(secret) != KEY_BYTES:
        raise ConfigError(f"{path}: damaged: {KEY_BYTES} bytes are expected; restore it from the backup")
    return secret


def _make(path: Path) -> None:
    """Written beside and linked into place, so that of two processes one wins and both read a whole key."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with suppress(FileExistsError):
        os.link(part, path)
    part.unlink()


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms of one project. `kind` keeps apart what happens to have the same value: a patient's and an
    encounter's id."""

    key: bytes = field(repr=False)

    @classmethod
    def of_project(cls, secret: bytes, project: str) -> Pseudonyms:
        return cls(hmac.digest(secret, f"project:{project}".encode(), "sha256"))

    def id(self, kind: str, value: str) -> str:
        """32 hexadecimal digits: a valid FHIR id."""
        return self._digest(kind, value)[:32]

    def number(self, kind: str, value: str) -> str:
        """16 upper-case hexadecimal digits: fits the DICOM value representation SH (PS3.5 6.2)."""
        return self._digest(kind, value)[:16].upper()

    def uid(self, kind: str, value: str) -> str:
        """A DICOM UID made from a UUID (PS3.5 B.2): 2.25. and its 128 bits as a decimal number, below
        2**127, which the engine writes 30 times faster. The same for a UID that FHIR writes as urn:oid:."""
        h = self._digest(kind, value.replace("urn:oid:", ""))
        return f"2.25.{int(f'1{h[1:12]}8{h[13:16]}8{h[17:32]}', 16)}"

    def integer(self, kind: str, value: int) -> int:
        """The pseudonym of an integer key (cohort.keys): 60 bits too. Half the hashing of the others, as joins by keys
        make many: what is hashed begins with the secret, and 60 of 256 bits tell nothing of how it would go on."""
        padded = bytes(b ^ _INNER_PAD for b in self.key.ljust(64, b"\0"))
        return int(hashlib.sha256(padded + f"key|{kind}|{value}".encode()).hexdigest()[:15], 16)

    def days(self, person: str) -> int:
        """By how many days the dates of a person are moved back: 1 to 365."""
        return 1 + int(self._digest("days", person)[:8], 16) % MOST_DAYS

    def _digest(self, kind: str, value: str) -> str:
        return hmac.new(self.key, f"{kind}|{value}".encode(), hashlib.sha256).hexdigest()

    def id_sql(self, kind: str, value: str) -> str:
        return f"left({self._digest_sql(kind, value)}, 32)"

    def number_sql(self, kind: str, value: str) -> str:
        return f"upper(left({self._digest_sql(kind, value)}, 16))"

    def uid_sql(self, kind: str, value: str) -> str:
        h = self._digest_sql(kind, f"replace({value}, 'urn:oid:', '')")
        return f"('2.25.' || ('0x1' || {h}[2:12] || '8' || {h}[14:16] || '8' || {h}[18:32])::HUGEINT)"

    def integer_sql(self, kind: str, value: str) -> str:
        text = f"encode('key|{kind}|' || {value})"
        return f"('0x' || left(sha256(getvariable('{INNER}') || {text}), 15))::BIGINT"

    def days_sql(self, person: str) -> str:
        return f"(1 + ('0x' || left({self._digest_sql('days', person)}, 8))::BIGINT % {MOST_DAYS})::INTEGER"

    def _digest_sql(self, kind: str, value: str) -> str:
        """RFC 2104: H(key ^ opad, H(key ^ ipad, text)). The key stands in variables, so no SQL text has it."""
        text = f"encode('{kind}|' || {value})"
        return f"sha256(getvariable('{OUTER}') || unhex(sha256(getvariable('{INNER}') || {text})))"

    def variables(self) -> dict[str, str]:
        """The engine's variables that the expressions need: name → hexadecimal digits."""
        padded = self.key.ljust(64, b"\0")
        return {name: bytes(b ^ pad for b in padded).hex() for name, pad in ((INNER, _INNER_PAD), (OUTER, 0x5C))}
