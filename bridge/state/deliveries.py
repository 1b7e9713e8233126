"""What was delivered to which sink, and when each study is compared with it again."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from bridge.model import Receipt
from bridge.ports import Claim, sink_queue
from bridge.state.resources import Resources
from bridge.state.schema import delivered, study
from bridge.state.work import BATCH

_RECHECK = "sink:"
"""The cursor of the studies compared with a sink again; there is one for every sink that the state has seen."""


class Deliveries(Resources):
    """Receipts of sinks."""

    def receipts(self, sink: str, studies: Sequence[str]) -> dict[str, Receipt]:
        """study → the receipt of its last delivery, for those that have one."""
        found: dict[str, Receipt] = {}
        with self._db.read() as connection:
            for start in range(0, len(studies), BATCH):
                some = delivered.c.study_instance_uid.in_(studies[start : start + BATCH])
                rows = connection.execute(select(delivered).where(delivered.c.sink == sink, some))
                found |= {r.study_instance_uid: Receipt(r.reference, r.version_id, r.digest) for r in rows}
        return found

    def commit_delivered(self, sink: str, done: Sequence[tuple[Claim, Receipt | None]], now: float) -> None:
        """Ends the claims and keeps the receipts in one transaction. Where another has taken a claim over, the sink may
        have got the older of two states last: it is marked, and gets the newest again."""
        statement = self._insert(delivered)
        names = ("reference", "version_id", "digest", "delivered_at")
        statement = statement.on_conflict_do_update(
            index_elements=[delivered.c.sink, delivered.c.study_instance_uid],
            set_={name: statement.excluded[name] for name in names},
        )
        with self._db.write() as connection:
            held = self._finish(connection, [claim for claim, _ in done], now)
            rows = [
                {
                    "sink": sink, "study_instance_uid": claim.key, "delivered_at": now,
                    "reference": receipt.reference, "version_id": receipt.version_id, "digest": receipt.digest,
                }
                for claim, receipt in done
                if receipt is not None and claim.key in held
            ]  # fmt: skip
            if rows:
                connection.execute(statement, rows)
            lost = [claim.key for claim, _ in done if claim.key not in held]
            self._mark(connection, sink_queue(sink), lost, now, 0.0, 0.0)

    def delivered_to(self, sink: str, after: str, limit: int) -> list[str]:
        """Studies with a receipt of this sink, in order of UID, those after a UID."""
        mine = (delivered.c.sink == sink) & (delivered.c.study_instance_uid > after)
        statement = select(delivered.c.study_instance_uid).where(mine).order_by(delivered.c.study_instance_uid)
        with self._db.read() as connection:
            return list(connection.execute(statement.limit(limit)).scalars())

    def known_studies(self, after: str, limit: int) -> list[str]:
        """Studies that the state knows, in order of UID, those after a UID."""
        statement = select(study.c.study_instance_uid).where(study.c.study_instance_uid > after)
        with self._db.read() as connection:
            ordered = statement.order_by(study.c.study_instance_uid).limit(limit)
            return list(connection.execute(ordered).scalars())

    def deliveries(self) -> dict[str, int]:
        """sink → how many studies it has, by the receipts of those that give any; what was deleted there is not had."""
        had = select(delivered.c.sink, func.count()).where(delivered.c.reference != "")
        statement = had.group_by(delivered.c.sink).order_by(delivered.c.sink)
        with self._db.read() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    def introduce(self, sink: str, now: float) -> None:
        """Marks everything that is known for a sink that is new here; once."""
        place = f"{_RECHECK}{sink}"
        if self.position(place) is not None:
            return
        with self._db.write() as connection:
            self._mark_known(connection, sink, now)
            self._move(connection, place, "")

    def mark_known(self, sink: str, now: float) -> None:
        """Marks everything that is known for a sink: it has lost all."""
        with self._db.write() as connection:
            self._mark_known(connection, sink, now)

    def _mark_known(self, connection: Connection, sink: str, now: float) -> None:
        known = connection.execute(select(study.c.study_instance_uid)).scalars().all()
        self._mark(connection, sink_queue(sink), known, now, 0.0, 0.0)

    def commit_recheck(self, sink: str, share: float, now: float) -> None:
        """Marks the next share (0 to 1) of the studies delivered to a sink; round again after the last."""
        place = f"{_RECHECK}{sink}"
        with self._db.read() as connection:
            total = connection.execute(
                select(func.count()).select_from(delivered).where(delivered.c.sink == sink)
            ).scalar_one()
        number = min(total, math.ceil(total * share))
        due = self.delivered_to(sink, self.position(place) or "", number) if number else []
        with self._db.write() as connection:
            self._mark(connection, sink_queue(sink), due, now, 0.0, 0.0)
            self._move(connection, place, due[-1] if due and len(due) == number else "")
