"""What was read of the documents of studies, by source: replaced as the source changes, and known to be gone."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update

from bridge.model import InstanceName, KeptDocument
from bridge.state.results import Results
from bridge.state.schema import document


class KeptDocuments(Results):
    """Documents lie beside the snapshots. Of one that is gone its name is kept, so that what it said is taken back."""

    def documents(self, study_instance_uid: str) -> tuple[KeptDocument, ...]:
        """What was read of the documents of a study, by source and UID; of those that are gone, that they were."""
        mine = select(document).where(document.c.study_instance_uid == study_instance_uid)
        with self._db.read() as connection:
            rows = connection.execute(mine.order_by(document.c.source, document.c.sop_instance_uid)).all()
            reviews = self._reviews(connection, [row.sop_instance_uid for row in rows])
        return tuple(_kept(row, reviews[row.sop_instance_uid]) for row in rows)

    def document(self, sop_instance_uid: str) -> KeptDocument | None:
        """One document that a source holds, of several sources by name the first; None when none does."""
        here = select(document).where(document.c.sop_instance_uid == sop_instance_uid, document.c.content.is_not(None))
        with self._db.read() as connection:
            row = connection.execute(here.order_by(document.c.source).limit(1)).first()
            return None if row is None else _kept(row, self._reviews(connection, [sop_instance_uid])[sop_instance_uid])

    def commit_documents(
        self, source: str, study_instance_uid: str, read: Sequence[KeptDocument], gone: Sequence[str], now: float
    ) -> None:
        """Keeps what was read of a source's documents; those of the instances in `gone` it does not hold any more."""
        here = (document.c.source == source) & (document.c.study_instance_uid == study_instance_uid)
        with self._db.write() as connection:
            for uid in gone:
                lost = update(document).where(here, document.c.sop_instance_uid == uid)
                connection.execute(lost.values(content=None, digest="", read_at=now))
            for one in read:
                statement = self._insert(document).values(_row(one) | {"read_at": now})
                names = ("series_instance_uid", "sop_class_uid", "digest", "content", "read_at")
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=[
                            document.c.source, document.c.study_instance_uid, document.c.sop_instance_uid,
                        ],
                        set_={name: statement.excluded[name] for name in names},
                    )
                )  # fmt: skip


def _row(one: KeptDocument) -> dict[str, Any]:
    return {
        "source": one.source,
        "study_instance_uid": one.name.study_instance_uid,
        "series_instance_uid": one.name.series_instance_uid,
        "sop_instance_uid": one.name.sop_instance_uid,
        "sop_class_uid": one.name.sop_class_uid,
        "digest": one.digest,
        "content": None if one.content is None else zlib.compress(one.content, 1),
    }


def _kept(row: Any, reviews: Sequence[bytes]) -> KeptDocument:
    name = InstanceName(row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid, row.sop_class_uid)
    content = None if row.content is None else zlib.decompress(row.content)
    return KeptDocument(row.source, name, row.digest, content, tuple(reviews))
