"""AI results by their run, and their reviews: kept as they came, for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from bridge.model import KeptResult
from bridge.ports import STUDY_QUEUE
from bridge.state.resources import Resources
from bridge.state.schema import ai_result, ai_result_review
from bridge.state.work import BATCH


class Results(Resources):
    """What is kept marks its study, so that the translation attaches it; whether the study is known or not."""

    def keep_result(self, result: KeptResult, now: float, quiet_s: float, max_wait_s: float) -> bool:
        """Keeps a result under its run. Result: False when there is one of this run already, which stays as it is."""
        return bool(self.keep_results([result], now, quiet_s, max_wait_s))

    def keep_results(
        self, results: Sequence[KeptResult], now: float, quiet_s: float, max_wait_s: float
    ) -> frozenset[str]:
        """Keeps results, each under its run. Result: the runs that are new; what was there stays as it is."""
        with self._db.write() as connection:
            return self._keep(connection, results, now, quiet_s, max_wait_s)

    def _keep(
        self, connection: Connection, results: Sequence[KeptResult], now: float, quiet_s: float, max_wait_s: float
    ) -> frozenset[str]:
        new: dict[str, str] = {}
        statement = self._insert(ai_result).on_conflict_do_nothing()
        statement = statement.returning(ai_result.c.run_id, ai_result.c.study_instance_uid)
        for start in range(0, len(results), BATCH):
            rows = [
                {
                    "run_id": r.run_id,
                    "study_instance_uid": r.study_instance_uid,
                    "content": r.content,
                    "received_at": now,
                }
                for r in results[start : start + BATCH]
            ]
            new |= {row.run_id: row.study_instance_uid for row in connection.execute(statement, rows)}
        if new:
            self._mark(connection, STUDY_QUEUE, new.values(), now, quiet_s, max_wait_s)
        return frozenset(new)

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

    def kept_contents(self, run_ids: Sequence[str]) -> dict[str, bytes]:
        """run_id → the result as it was kept, of those that are."""
        found: dict[str, bytes] = {}
        with self._db.read() as connection:
            for start in range(0, len(run_ids), BATCH):
                some = ai_result.c.run_id.in_(run_ids[start : start + BATCH])
                rows = connection.execute(select(ai_result.c.run_id, ai_result.c.content).where(some))
                found |= {row.run_id: row.content for row in rows}
        return found

    def result_counts(self, studies: Sequence[str]) -> dict[str, int]:
        """study → how many results are kept of it, of those that have any."""
        with self._db.read() as connection:
            some = select(ai_result.c.study_instance_uid, func.count()).where(
                ai_result.c.study_instance_uid.in_(studies)
            )
            return {row[0]: row[1] for row in connection.execute(some.group_by(ai_result.c.study_instance_uid))}

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
