"""Which attributes the instances of a study have, counted path by path, whatever the bridge makes of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAXIMUM_PATHS = 5_000
"""So many attributes of a study are told by name; the others are counted."""

MAXIMUM_VALUES = 3
MAXIMUM_PRIVATE = 10_000

Path = tuple[str, ...]
"""Keywords through sequences, without the numbers of items; `(gggg,eeee)` for what has no keyword."""


@dataclass
class Occurrence:
    """An attribute in one instance. In several items of a sequence it is one, its digest of them all.

    Result  `tags` for the order; `length` bytes, of the longest; `digest` of its beginning and its length, None where
            it is not compared (sequences, pixel data, private); `value`
            the first one, when asked for; `private` tags of a private block, which is told as one attribute
    """

    tags: tuple[int, ...]
    vr: str
    length: int
    digest: int | None
    value: str = ""
    private: set[int] = field(default_factory=set)


@dataclass
class Counted:
    """An attribute over the instances of a study: how many have it, whether their values differ, some of them."""

    tags: tuple[int, ...]
    vr: str
    length: int
    digest: int | None
    instances: int = 0
    differs: bool = False
    values: dict[str, None] = field(default_factory=dict)
    private: set[int] = field(default_factory=set)


class Occurrences:
    """Adds up instances, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._counted: dict[Path, Counted] = {}
        self.instances = 0
        self.unlisted = 0
        """Occurrences of attributes past MAXIMUM_PATHS, over all instances."""

    def add(self, found: Mapping[Path, Occurrence]) -> None:
        """One more instance."""
        self.instances += 1
        for path, one in found.items():
            counted = self._counted.get(path)
            if counted is None:
                if len(self._counted) >= MAXIMUM_PATHS:
                    self.unlisted += 1
                    continue
                counted = self._counted[path] = Counted(one.tags, one.vr, one.length, one.digest)
            counted.instances += 1
            counted.length = max(counted.length, one.length)
            counted.differs = counted.differs or counted.digest != one.digest
            if one.value and len(counted.values) < MAXIMUM_VALUES:
                counted.values[one.value] = None
            if one.private and len(counted.private) < MAXIMUM_PRIVATE:
                counted.private |= one.private

    def all(self) -> dict[Path, Counted]:
        """Path → what was counted, in the order of the tags."""
        return dict(sorted(self._counted.items(), key=lambda pair: (pair[1].tags, pair[0])))
