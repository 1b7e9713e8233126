"""Hours of the day in which an archive may be asked, in the site's time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

from bridge.errors import ConfigError

_SPAN = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)$")


@dataclass(frozen=True)
class Hours:
    """Spans of a day, each from its first minute up to its last, which may lie on the next day. None: always.

    >>> Hours.parse("19:00-06:00", None).spans
    ((datetime.time(19, 0), datetime.time(6, 0)),)
    """

    spans: tuple[tuple[time, time], ...] = ()
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, text: str, zone: tzinfo | None) -> Hours:
        """Spans such as `19:00-06:00, 12:00-13:00`; "" is always. Raises ConfigError."""
        spans = []
        for part in filter(None, (p.strip() for p in text.split(","))):
            found = _SPAN.match(part)
            if not found or (found[3] == "24" and found[4] != "00"):
                raise ConfigError(f"allowed_hours: {part!r} is not a span such as 19:00-06:00")
            first, last = time(int(found[1]), int(found[2])), time(int(found[3]) % 24, int(found[4]))
            spans.append((first, last))
        return cls(tuple(spans), zone)

    def wait_s(self, now: float) -> float:
        """Seconds from `now` (since the epoch) until the archive may be asked; 0 when it may be."""
        if not self.spans:
            return 0.0
        local = datetime.fromtimestamp(now, self.zone)
        if any(_inside(local.time(), first, last) for first, last in self.spans):
            return 0.0
        openings = [self._next(local, first) for first, _ in self.spans]
        return max(1.0, min(opening.timestamp() - now for opening in openings))

    def _next(self, local: datetime, first: time) -> datetime:
        day = local.date() if first > local.time() else local.date() + timedelta(days=1)
        return datetime.combine(day, first, self.zone)


def _inside(now: time, first: time, last: time) -> bool:
    if first < last:
        return first <= now < last
    return now >= first or now < last  # over midnight; a span that ends where it begins is the whole day
