"""How far an archive without a log was followed: a day, and digests of the studies seen since (no values)."""

from __future__ import annotations

import hashlib
from base64 import b85decode, b85encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from bridge.sources.identifier import Match

DIGEST_BYTES = 6
MAXIMUM_SEEN = 20_000
"""Digests kept; of a window with more studies some are named at every look."""


@dataclass(frozen=True)
class Position:
    """`reached` is the first day that was not looked at, or while `polling` the day of the last look.

    `seen` are digests of the studies as the last look found them.
    """

    reached: date
    polling: bool = False
    seen: frozenset[bytes] = frozenset()

    @classmethod
    def parse(cls, text: str | None) -> Position | None:
        """The position that `text` states, or None when it is none (the archive is then followed from the start)."""
        mode, _, rest = (text or "").partition(" ")
        day, _, seen = rest.partition(" ")
        try:
            content = b85decode(seen)
            digests = (content[i : i + DIGEST_BYTES] for i in range(0, len(content), DIGEST_BYTES))
            return cls(date.fromisoformat(day), {"from": False, "at": True}[mode], frozenset(digests))
        except (ValueError, KeyError):
            return None

    @property
    def text(self) -> str:
        seen = b85encode(b"".join(sorted(self.seen)[:MAXIMUM_SEEN])).decode()
        return f"{'at' if self.polling else 'from'} {self.reached.isoformat()} {seen}"


def digest(match: Match, keywords: Sequence[str], extra: str = "") -> bytes:
    """What a study looks like: other content, another digest, but for one change in 2**48."""
    content = b"\x1f".join([match.raw(k) for k in keywords] + [extra.encode()])
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def digests(values: Iterable[bytes]) -> frozenset[bytes]:
    """As many as a position keeps."""
    return frozenset(sorted(values)[:MAXIMUM_SEEN])
