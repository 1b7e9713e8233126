"""Translating everything again after the translation changed: from what is kept of each study, part by part."""

from __future__ import annotations

from sqlalchemy import func, select

from bridge.ports import RETRANSLATE_QUEUE, STUDY_QUEUE, Claim
from bridge.state.agreed import Agreed
from bridge.state.schema import setting, work

_TRANSLATION, _PLACE = "translation", "retranslate"
_PAUSE_S = 1.0


class Retranslation(Agreed):
    """Which translation makes what is held: that of the process that started last."""

    def translation(self) -> str | None:
        """The fingerprint of the translation that all processes are to use; None before the first began."""
        return self.agreed(_TRANSLATION)

    def begin_retranslation(self, fingerprint: str, now: float) -> bool:
        """Notes by what studies are translated from now on. Result: whether those known must be translated again."""
        some = bool(self.known_studies("", 1))
        with self._db.write() as connection:
            known = select(setting.c.value).where(setting.c.name == _TRANSLATION)
            before = connection.execute(known).scalar()
            if before == fingerprint:
                return False
            statement = self._insert(setting).values(name=_TRANSLATION, value=fingerprint)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[setting.c.name], set_={"value": statement.excluded.value}
                )
            )
            if not some:
                return False
            self._move(connection, _PLACE, "")
            self._mark(connection, RETRANSLATE_QUEUE, ["all"], now, 0.0, 0.0)
            return True

    def commit_retranslation(self, claim: Claim, studies: int, now: float) -> None:
        """Marks the next so many studies, less those that wait anyway: what changes meanwhile does not wait for all."""
        waiting = select(func.count()).where(work.c.queue == STUDY_QUEUE, work.c.parked.is_(False))
        with self._db.read() as connection:
            room = max(0, studies - connection.execute(waiting).scalar_one())
        due = self.known_studies(self.position(_PLACE) or "", room) if room else []
        with self._db.write() as connection:
            self._mark(connection, STUDY_QUEUE, due, now, 0.0, 0.0)
            if due:
                self._move(connection, _PLACE, due[-1])
            if len(due) < room:
                self._done(connection, claim, now)
                return
        self.reschedule(claim, now + _PAUSE_S)
