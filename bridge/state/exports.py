"""Exports that were asked for, and what has become of them. Their files are not kept here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import orjson
from sqlalchemy import delete, func, insert, select, update

from bridge.follow.ports import EXPORT_QUEUE, ExportFile, ExportJob
from bridge.ports import Claim
from bridge.state.changes import Changes
from bridge.state.schema import export_job, resource, work


class Exports(Changes):
    """Export jobs over one database."""

    def add_export(self, job: ExportJob, most: int, now: float) -> ExportJob | None:
        """The job as of the newest revision there is, waiting to be written; None when there are `most` already."""
        with self._db.write() as connection:
            self._db.one_after_another(connection)
            if connection.execute(select(func.count()).select_from(export_job)).scalar_one() >= most:
                return None
            newest = select(resource.c.revision, resource.c.last_updated).order_by(resource.c.revision.desc()).limit(1)
            row = connection.execute(newest).one_or_none()
            if row is not None:
                job = replace(job, revision=row.revision, transaction_time=row.last_updated)
            values = asdict(job) | {"resource_types": orjson.dumps(job.resource_types), "files": b"[]"}
            connection.execute(insert(export_job).values(**values))
            self._mark(connection, EXPORT_QUEUE, [job.id], now, 0.0, 0.0)
        return job

    def export(self, id_: str) -> ExportJob | None:
        """One job; None when there is none (any more)."""
        with self._db.read() as connection:
            row = connection.execute(select(export_job).where(export_job.c.id == id_)).one_or_none()
        return None if row is None else _job(row)

    def exports(self) -> list[ExportJob]:
        """Every job, oldest first."""
        with self._db.read() as connection:
            return [_job(row) for row in connection.execute(select(export_job).order_by(export_job.c.created_at))]

    def export_written(self, id_: str, written: int) -> bool:
        """Notes how far a job is; False when it was removed."""
        with self._db.write() as connection:
            noted = update(export_job).where(export_job.c.id == id_).values(written=written)
            return connection.execute(noted).rowcount == 1

    def finish_export(self, claim: Claim, files: Sequence[ExportFile], error: str, now: float) -> None:
        """The job is done, with its files or the error. Raises LeaseLost."""
        with self._db.write() as connection:
            self._done(connection, claim, now)
            ended = update(export_job).where(export_job.c.id == claim.key)
            plain = orjson.dumps([asdict(file) for file in files])
            connection.execute(ended.values(files=plain, error=error, finished_at=now))

    def remove_export(self, id_: str) -> bool:
        """Forgets a job; False when there is none. Whoever writes it finds out."""
        with self._db.write() as connection:
            connection.execute(delete(work).where(work.c.queue == EXPORT_QUEUE, work.c.key == id_))
            return connection.execute(delete(export_job).where(export_job.c.id == id_)).rowcount == 1


def _job(row: Any) -> ExportJob:
    plain = dict(row._mapping)
    plain["resource_types"] = tuple(orjson.loads(row.resource_types))
    plain["files"] = tuple(ExportFile(**file) for file in orjson.loads(row.files))
    return ExportJob(**plain)
