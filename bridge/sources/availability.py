"""Instance Availability Notification (PS3.4 R): somebody says that an archive has a study. A hint, nothing more.

Whatever availability is claimed, the archive that has the AE title is asked what it holds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from bridge.errors import Unavailable
from bridge.model import Rejection
from bridge.ports import ChangePage
from bridge.sources.documents import Documents
from bridge.sources.services import (
    CommandField,
    Refused,
    Request,
    Response,
    Status,
    instance_uid,
    mandatory,
    mandatory_uid,
)

log = logging.getLogger("bridge.receiver")

INSTANCE_AVAILABILITY = "1.2.840.10008.5.1.4.33"
MAXIMUM_NOTIFICATIONS = 10_000
MAXIMUM_TITLES = 100
"""AE titles of one notification, and AE titles without a source that are told of."""


class Availability:
    """An IAN SCP. `hint(ae_title, study)` marks a study of the source that has an AE title, durably; False when none
    has it. `store` makes a page of changes durable: an AE title nobody knows is rejected with what to do.
    """

    sop_classes = frozenset({INSTANCE_AVAILABILITY})

    def __init__(
        self,
        root: Path,
        hint: Callable[[str, str], bool],
        store: Callable[[ChangePage], None],
        *,
        maximum_notifications: int = MAXIMUM_NOTIFICATIONS,
    ) -> None:
        self._waiting = Documents(root / "availability", maximum=maximum_notifications, maximum_bytes=1024)
        self._hint, self._store = hint, store
        self._lock = threading.Lock()
        self._unknown: set[str] = set()
        self._answered: set[str] = set()

    def handle(self, request: Request) -> Response:
        """Answers N-CREATE; success once the hints survive a crash."""
        if request.command_field != CommandField.N_CREATE:
            return Response(Status.UNRECOGNIZED_OPERATION)
        try:
            data_set = request.data_set or Dataset()
            study, titles = mandatory_uid(data_set, "StudyInstanceUID"), _titles(data_set)
        except Refused as refused:
            return refused.response
        with self._lock:
            notes = [{"ae_title": title, "study_instance_uid": study} for title in titles]
            for note in notes:
                self._waiting.put(_key(note), note)
            self._pass_on(notes)
        return Response(sop_instance_uid=instance_uid(request))

    def catch_up(self) -> None:
        """Passes on the hints that a crash or a busy database left."""
        with self._lock:
            self._pass_on(list(self._waiting))

    def _pass_on(self, notes: Iterable[dict[str, str]]) -> None:
        for note in notes:
            try:
                self._judge(note["ae_title"], note["study_instance_uid"])
            except Unavailable as error:
                log.warning("a study's availability is noted, the study is not marked yet: %s", error)
                return
            self._waiting.remove(_key(note))

    def _judge(self, title: str, study: str) -> None:
        key = f"availability/{title}"
        if self._hint(title, study):
            if title not in self._answered:
                self._store(ChangePage(frozenset(), "", caught_up=True, accepted=(key,)))
                self._answered.add(title)
            return
        if title in self._unknown:
            return
        if len(self._unknown) >= MAXIMUM_TITLES:
            log.warning("a notification names an AE title that no source has; there are too many of them to keep")
            return
        evidence: dict[str, str | int] = {"ae_title": title, "study_instance_uid": study}
        rejection = Rejection(key, _NO_SOURCE, evidence)
        self._store(ChangePage(frozenset(), "", caught_up=True, rejected=(rejection,)))
        self._unknown.add(title)


_NO_SOURCE = (
    "RetrieveAETitle: no source has this AE title: give it to the source whose archive has it. "
    "The next comparison with that archive finds its studies"
)


def _key(note: dict[str, str]) -> str:
    return f"{note['ae_title']}|{note['study_instance_uid']}"


def _titles(data_set: Dataset) -> list[str]:
    """Every AE title instances are retrieved from. An item without one stops no other. Raises Refused when none has."""
    found: set[str] = set()
    for series in mandatory(data_set, "ReferencedSeriesSequence"):
        for instance in series.get("ReferencedSOPSequence") or ():
            value = instance.get("RetrieveAETitle") or ()
            for title in [value] if isinstance(value, str) else value:
                found.add(str(title).strip())
    found.discard("")
    if not found:
        raise Refused(Status.MISSING_ATTRIBUTE, "RetrieveAETitle is missing: nobody could be asked")
    if any(len(title) > 16 or not title.isascii() or not title.isprintable() for title in found):
        raise Refused(Status.INVALID_ATTRIBUTE_VALUE, "RetrieveAETitle is not an AE title")
    if len(found) > MAXIMUM_TITLES:
        raise Refused(Status.RESOURCE_LIMITATION, f"more than {MAXIMUM_TITLES} AE titles")
    return sorted(found)
