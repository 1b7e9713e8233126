"""How far a DICOMweb archive has been followed: the days done, and what the newest studies looked like."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

FIRST_WIDTH_DAYS, MOST_WIDTH_DAYS = 8, 512


@dataclass(frozen=True)
class Seen:
    """How a study looked: its fingerprint, and its number of instances if that is known."""

    fingerprint: str
    instances: int | None


@dataclass(frozen=True)
class Position:
    """An opaque cursor, without any patient's value.

    Result  every study before `day` has been named; `width_days` how many days the next step back in time takes;
            `seen` the studies of `day` and later as they were, None while older days are still to be named;
            `counted` the study whose instances were counted last, where the archive does not count them itself.
    """

    day: date | None = None
    width_days: int = FIRST_WIDTH_DAYS
    seen: Mapping[str, Seen] | None = None
    counted: str = ""

    @classmethod
    def parse(cls, text: str | None) -> Position:
        """The position from its text; the start for None and for what is no position of ours."""
        try:
            plain = json.loads(text or "{}")
            day, seen = plain.get("day"), plain.get("seen")
            return cls(
                date.fromisoformat(day) if day is not None else None,
                min(max(int(plain.get("width_days", FIRST_WIDTH_DAYS)), 1), MOST_WIDTH_DAYS),
                _unpacked(seen) if seen is not None else None,
                str(plain.get("counted", "")),
            )
        except (ValueError, TypeError, AttributeError, zlib.error):
            return cls()

    @property
    def text(self) -> str:
        plain: dict[str, Any] = {"day": self.day.isoformat() if self.day else None, "width_days": self.width_days}
        if self.seen is not None:
            plain |= {"seen": _packed(self.seen), "counted": self.counted}
        return json.dumps(plain, separators=(",", ":"))


def _packed(seen: Mapping[str, Seen]) -> str:
    """Sorted lines of UID, fingerprint and count, compressed: about 30 characters a study."""
    lines = (f"{uid} {s.fingerprint} {'' if s.instances is None else s.instances}" for uid, s in sorted(seen.items()))
    return base64.b64encode(zlib.compress("\n".join(lines).encode(), 6)).decode()


def _unpacked(packed: str) -> dict[str, Seen]:
    lines = zlib.decompress(base64.b64decode(packed, validate=True)).decode().splitlines()
    parts = [line.split(" ") for line in lines]
    return {uid: Seen(fingerprint, int(count) if count else None) for uid, fingerprint, count in parts}
