"""Several ImagingStudy resources of one study on a server: shown, and brought back to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from bridge.errors import Conflict
from bridge.model import Resource
from bridge.sinks.fhir_server.client import FhirClient
from bridge.sinks.fhir_server.races import age
from bridge.sinks.fhir_server.studies import Studies
from bridge.translate.uids import STUDY_UID_SYSTEM

Action = Literal["kept", "deleted", "taken out"]


@dataclass(frozen=True)
class Repaired:
    """What became of one of several. `taken out`: others refer to it, so it stays, in error and without the UID."""

    id: str
    action: Action


class Duplicates:
    """The repair of doubles. Not beside a running delivery to the same server."""

    def __init__(self, client: FhirClient, studies: Studies) -> None:
        self._client, self._studies = client, studies

    def find(self, study_instance_uids: Sequence[str]) -> Mapping[str, Sequence[Resource]]:
        """study → its resources, oldest first, for those that have several. Raises SinkUnavailable."""
        found = self._studies.find(study_instance_uids)
        return {uid: sorted(several, key=age) for uid, several in found.items() if len(several) > 1}

    def repair(self, several: Sequence[Resource]) -> list[Repaired]:
        """Leaves one: what others refer to is kept, else the oldest; the rest is deleted, or taken out where the
        server refuses to delete it because others refer to it.

        Raises  SinkUnavailable, RefusedByServer
        """
        oldest, *others = [str(r["id"]) for r in sorted(several, key=age)]
        referred = [id_ for id_ in others if not self._deleted(id_)]
        kept = oldest
        if referred and self._deleted(oldest):
            kept = referred.pop(0)
        for id_ in referred:
            self._take_out(id_)
        gone = {oldest, *others} - {kept, *referred}
        return [
            Repaired(id_, "kept" if id_ == kept else "deleted" if id_ in gone else "taken out")
            for id_ in (oldest, *others)
        ]

    def _deleted(self, id_: str) -> bool:
        try:
            self._client.send("DELETE", f"ImagingStudy/{id_}")
        except Conflict:
            return False
        return True

    def _take_out(self, id_: str) -> None:
        there = self._client.read(f"ImagingStudy/{id_}")
        if there is None:
            return
        study = {k: v for k, v in there.items() if k not in {"meta", "endpoint", "series", "identifier"}}
        others = [i for i in there.get("identifier", []) if i.get("system") != STUDY_UID_SYSTEM]
        study |= {"status": "entered-in-error", "numberOfSeries": 0, "numberOfInstances": 0}
        self._client.send(
            "PUT", f"ImagingStudy/{id_}", orjson.dumps(study | ({"identifier": others} if others else {}))
        )
