"""What a site decides about translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from bridge.translate.codes import CodeTables
from bridge.translate.headers import Headers
from bridge.translate.identifiers import Issuers

MAXIMUM_INSTANCES = 10_000


@dataclass(frozen=True)
class Site:
    """A site's time zone, issuers, code tables and bounds.

    Result  `dummy_birth_dates` as DICOM writes them: what de-identification leaves, nobody's birthday;
            `maximum_instances` a study with more lists its series without their instances
    """

    tables: CodeTables
    zone: tzinfo | None = None
    issuers: Issuers = field(default_factory=lambda: Issuers({}))
    dummy_birth_dates: frozenset[str] = frozenset()
    maximum_instances: int = MAXIMUM_INSTANCES

    def zone_of(self, instances: Sequence[Headers]) -> tzinfo | None:
        """The zone of times that carry no offset: of the AE title these came from, else the site's."""
        if self.issuers.ae_titles:
            for headers in instances:
                if (zone := self.issuers.ae_title(headers).zone) is not None:
                    return zone
        return self.zone
