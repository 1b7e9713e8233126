"""What a report of scores is asked to hold. Nothing here needs the extra `scores`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from bridge.errors import InvalidQuery

SLICES: Mapping[str, tuple[str, ...]] = {
    "site": ("site",),
    "scanner": ("manufacturer", "model_name"),
    "sex": ("sex",),
    "age": ("age_band",),
}
"""What can be sliced by → the columns whose words it is made of."""

REFERENCE_MONTHS = 3


@dataclass(frozen=True)
class Asked:
    """Which model and version ("" is any); by which of SLICES; drift by month and from a day on; whether versions are
    put beside each other. Raises InvalidQuery for a slice that there is not."""

    model: str = ""
    version: str = ""
    by: tuple[str, ...] = tuple(SLICES)
    drift: bool = False
    since: date | None = None
    versions: bool = False

    def __post_init__(self) -> None:
        for by in self.by:
            if by not in SLICES:
                raise InvalidQuery(f"scores: found a slice {by!r}; allowed: {', '.join(SLICES)}")

    @classmethod
    def of(
        cls,
        model: str,
        *,
        by: tuple[str, ...] = tuple(SLICES),
        drift: bool = False,
        since: date | None = None,
        versions: bool = False,
    ) -> Asked:
        """What MODEL or MODEL@VERSION asks.

        >>> Asked.of("nodules@2.1").version
        '2.1'
        """
        name, _, version = model.partition("@")
        return cls(name, version, by, drift, since, versions)
