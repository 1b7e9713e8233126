"""Which model has answered for which content of which study."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from bridge.model import KeptResult, ModelCall
from bridge.ports import Claim, Wait
from bridge.state.results import Results
from bridge.state.schema import model_call


class ModelCalls(Results):
    """Calls that were answered, with what they gave."""

    def answered_calls(self, model: str, version: str, study_instance_uid: str) -> frozenset[str]:
        """Digests of the contents of a study that this version of a model has answered for."""
        mine = (model_call.c.model == model) & (model_call.c.version == version)
        of_study = mine & (model_call.c.study_instance_uid == study_instance_uid)
        with self._db.read() as connection:
            return frozenset(connection.execute(select(model_call.c.content).where(of_study)).scalars())

    def commit_answer(
        self, claim: Claim, call: ModelCall | None, results: Sequence[KeptResult], now: float, wait: Wait
    ) -> None:
        """Keeps what a model answered, notes the call and ends the claim, all at once. Without a call to note, the
        claim is left to the caller. Raises LeaseLost."""
        with self._db.write() as connection:
            if call is not None:
                self._done(connection, claim, now)
                row = {name: getattr(call, name) for name in ModelCall.__dataclass_fields__}
                connection.execute(self._insert(model_call).on_conflict_do_nothing(), [row | {"answered_at": now}])
            else:
                self._still_held(connection, claim)
            if results:
                self._keep(connection, results, now, wait.quiet_s, wait.max_wait_s)
