"""What reports that readers sent say of AI results: of each report the newest version that came."""

from __future__ import annotations

from sqlalchemy import func, select

from bridge.model import KeptReport
from bridge.ports import STUDY_QUEUE
from bridge.state.results import Results
from bridge.state.schema import reader_report


class ReaderReports(Results):
    """By the report's own name. What is kept marks its study, so that the translation sees it."""

    def keep_report(self, report: KeptReport, now: float) -> bool:
        """Keeps a report in place of its earlier versions. Result: False when nothing changed: it is kept already, or a
        later version is."""
        known = select(reader_report).where(reader_report.c.key == report.key)
        with self._db.write() as connection:
            before = connection.execute(known.with_for_update()).first()
            if before is not None and (before.as_of > report.as_of or before.content == report.content):
                return False
            row = {
                "key": report.key,
                "study_instance_uid": report.study_instance_uid,
                "as_of": report.as_of,
                "content": report.content,
                "received_at": now,
            }
            statement = self._insert(reader_report).values(row)
            changed = {name: statement.excluded[name] for name in row if name != "key"}
            later = statement.excluded.as_of >= reader_report.c.as_of
            connection.execute(
                statement.on_conflict_do_update(index_elements=[reader_report.c.key], set_=changed, where=later)
            )
            studies = {report.study_instance_uid, *([before.study_instance_uid] if before is not None else ())}
            self._mark(connection, STUDY_QUEUE, sorted(studies), now, 0.0, 0.0)
        return True

    def reader_reports(self, study_instance_uid: str) -> tuple[KeptReport, ...]:
        """All reports that readers sent of a study, by their names."""
        mine = select(reader_report).where(reader_report.c.study_instance_uid == study_instance_uid)
        with self._db.read() as connection:
            rows = connection.execute(mine.order_by(reader_report.c.key)).all()
        return tuple(KeptReport(r.key, r.study_instance_uid, r.as_of, r.content) for r in rows)

    def other_reports(self, report: KeptReport) -> int:
        """How many reports are kept of the study beside this one."""
        here = reader_report.c.study_instance_uid == report.study_instance_uid
        counted = select(func.count()).where(here, reader_report.c.key != report.key)
        with self._db.read() as connection:
            return int(connection.execute(counted).scalar_one())
