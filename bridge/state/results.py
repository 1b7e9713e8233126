"""AI results by their run, and their reviews: kept as they came, for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from bridge.model import KeptResult
from bridge.ports import STUDY_QUEUE
from bridge.state.resources import Resources
from bridge.state.schema import ai_result, ai_result_review


class Results(Resources):
    """What is kept marks its study, so that the translation attaches it; whether the study is known or not."""

    def keep_result(self, result: KeptResult, now: float, quiet_s: float, max_wait_s: float) -> bool:
        """Keeps a result under its run. Result: False when there is one of this run already, which stays as it is."""
        row = {"run_id": result.run_id, "study_instance_uid": result.study_instance_uid, "content": result.content}
        statement = self._insert(ai_result).values(row | {"received_at": now}).on_conflict_do_nothing()
        statement = statement.returning(ai_result.c.run_id)
        with self._db.write() as connection:
            new = connection.execute(statement).first() is not None
            if new:
                self._mark(connection, STUDY_QUEUE, [result.study_instance_uid], now, quiet_s, max_wait_s)
        return new

    def add_review(self, result: KeptResult, review: bytes, now: float) -> bool:
        """Adds a review behind those that `result` has. Result: False when another one came between."""
        row = {"run_id": result.run_id, "number": len(result.reviews) + 1, "content": review, "received_at": now}
        try:
            with self._db.write() as connection:
                connection.execute(self._insert(ai_result_review).values(row))
                self._mark(connection, STUDY_QUEUE, [result.study_instance_uid], now, 0.0, 0.0)
        except IntegrityError:
            return False
        return True

    def ai_result(self, run_id: str) -> KeptResult | None:
        """The result of a run with its reviews; None when there is none."""
        with self._db.read() as connection:
            rows = connection.execute(select(ai_result).where(ai_result.c.run_id == run_id)).all()
            return next(iter(self._with_reviews(connection, rows)), None)

    def ai_results(self, study_instance_uid: str) -> tuple[KeptResult, ...]:
        """All results of a study, in order of run_id."""
        mine = select(ai_result).where(ai_result.c.study_instance_uid == study_instance_uid)
        with self._db.read() as connection:
            rows = connection.execute(mine.order_by(ai_result.c.run_id)).all()
            return tuple(self._with_reviews(connection, rows))

    def _with_reviews(self, connection: Connection, rows: Sequence[Any]) -> list[KeptResult]:
        reviews = self._reviews(connection, [row.run_id for row in rows])
        return [KeptResult(r.run_id, r.study_instance_uid, r.content, tuple(reviews[r.run_id])) for r in rows]

    def _reviews(self, connection: Connection, run_ids: Sequence[str]) -> dict[str, list[bytes]]:
        """Run → its reviews in the order they came."""
        reviews: dict[str, list[bytes]] = {run_id: [] for run_id in run_ids}
        if reviews:
            known = select(ai_result_review).where(ai_result_review.c.run_id.in_(list(reviews)))
            for one in connection.execute(known.order_by(ai_result_review.c.run_id, ai_result_review.c.number)):
                reviews[one.run_id].append(one.content)
        return reviews
