"""Which archive has which documents of results."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from bridge.ports import Claim, send_queue
from bridge.state.results import Results
from bridge.state.schema import ai_result, stored_document

_INTRODUCED = "send:"
"""The cursor that says that an archive was told of all results that were there before it."""


class StoredDocuments(Results):
    """What was stored, by archive and SOP Instance UID."""

    def stored_documents(self, archive: str, study_instance_uid: str) -> frozenset[str]:
        """SOP Instance UIDs of the documents of a study that the archive has, or once had."""
        mine = (stored_document.c.archive == archive) & (stored_document.c.study_instance_uid == study_instance_uid)
        with self._db.read() as connection:
            return frozenset(connection.execute(select(stored_document.c.sop_instance_uid).where(mine)).scalars())

    def commit_stored(self, claim: Claim, archive: str, uids: Sequence[str], now: float, *, finished: bool) -> None:
        """Notes that the archive has these documents; ends the claim with it if `finished`. Raises LeaseLost."""
        rows = [
            {"archive": archive, "sop_instance_uid": uid, "study_instance_uid": claim.key, "stored_at": now}
            for uid in uids
        ]
        with self._db.write() as connection:
            if finished:
                self._done(connection, claim, now)
            else:
                self._still_held(connection, claim)
            if rows:
                connection.execute(self._insert(stored_document).on_conflict_do_nothing(), rows)

    def introduce_archive(self, archive: str, now: float) -> None:
        """Marks every study that has results for an archive that is new here; once."""
        place = f"{_INTRODUCED}{archive}"
        if self.position(place) is not None:
            return
        with self._db.write() as connection:
            known = connection.execute(select(ai_result.c.study_instance_uid).distinct()).scalars().all()
            self._mark(connection, send_queue(archive), known, now, 0.0, 0.0)
            self._move(connection, place, "")
