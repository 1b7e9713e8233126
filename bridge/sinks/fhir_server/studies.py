"""The ImagingStudy resources that a server has of studies: none, one, or by mistake several."""

from __future__ import annotations

from collections.abc import Sequence, Set

from bridge.errors import Conflict
from bridge.model import Resource
from bridge.sinks.fhir_server.client import FhirClient
from bridge.sinks.fhir_server.content import others_wrote
from bridge.sinks.fhir_server.races import age
from bridge.translate.uids import STUDY_UID_SYSTEM

_PREFIX = "urn:oid:"


class Studies:
    """Looks studies up by Study Instance UID (FHIR R4 ImagingStudy.identifier)."""

    def __init__(self, client: FhirClient) -> None:
        self._client = client

    @staticmethod
    def token(study_instance_uid: str) -> str:
        """The search token of a study's identifier."""
        return f"{STUDY_UID_SYSTEM}|{_PREFIX}{study_instance_uid}"

    def find(
        self, study_instance_uids: Sequence[str], elements: str = "identifier,status"
    ) -> dict[str, list[Resource]]:
        """study → what the server has of it; these elements and versions alone, where the server gives parts.

        Raises  SinkUnavailable
        """
        found: dict[str, list[Resource]] = {}
        tokens = [self.token(uid) for uid in study_instance_uids]
        for resource in self._client.identified("ImagingStudy", tokens, elements):
            for uid in _uids(resource):
                found.setdefault(uid, []).append(resource)
        return found

    def chosen(self, found: Sequence[Resource], mine: Set[str]) -> Resource | None:
        """The one of them that stays. What the bridge made besides it, under the ids `mine`, is deleted, unless others
        added to it.

        Raises  Conflict while there are several
        """
        if len(found) < 2:
            return found[0] if found else None
        for id_ in [str(r["id"]) for r in sorted(found, key=age)[1:] if str(r["id"]) in mine]:
            there = self._client.read(f"ImagingStudy/{id_}")
            if there is not None and not others_wrote(there):
                self._client.send("DELETE", f"ImagingStudy/{id_}")
        raise Conflict(
            "ImagingStudy.identifier: the server has several with this Study Instance UID; `bridge dedupe` shows them"
        )


def _uids(resource: Resource) -> set[str]:
    """The Study Instance UIDs of a resource, with or without the prefix that they should have."""
    identifiers = [
        i for i in resource.get("identifier", []) if isinstance(i, dict) and i.get("system") == STUDY_UID_SYSTEM
    ]
    return {str(i.get("value", "")).removeprefix(_PREFIX) for i in identifiers} - {""}
