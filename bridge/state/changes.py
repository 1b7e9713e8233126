"""Every change of every resource in one order, and what was held at any point of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, and_, func, select

from bridge.model import Change, ChangeAction, StoredResource
from bridge.state.resources import Resources, stored
from bridge.state.schema import resource, resource_version
from bridge.state.work import BATCH

_before = resource_version.alias("before")


class Changes(Resources):
    """The history of all resources by revision. Revisions have no gaps, and one is seen only after all smaller ones."""

    def latest_revision(self) -> int:
        """The newest revision, 0 before the first."""
        with self._db.read() as connection:
            return int(connection.execute(select(func.max(resource_version.c.revision))).scalar() or 0)

    def latest_change(self) -> Change | None:
        """The newest change, None before the first."""
        with self._db.read() as connection:
            row = connection.execute(
                changes_statement().order_by(resource_version.c.revision.desc()).limit(1)
            ).one_or_none()
        return None if row is None else change(row)

    def changes(self, since: int, limit: int, resource_type: str = "") -> list[Change]:
        """The next changes after a revision, oldest first; of one resource type where it is given."""
        statement = changes_statement().where(resource_version.c.revision > since)
        if resource_type:
            statement = statement.where(resource_version.c.resource_type == resource_type)
        with self._db.read() as connection:
            found = connection.execute(statement.order_by(resource_version.c.revision).limit(limit))
            return [change(row) for row in found]

    def versions(self, changes: Sequence[Change]) -> list[StoredResource]:
        """The resource versions that these changes made, in the same order."""
        found: dict[int, StoredResource] = {}
        with self._db.read() as connection:
            for start in range(0, len(changes), BATCH):
                wanted = [change.revision for change in changes[start : start + BATCH]]
                rows = connection.execute(select(resource_version).where(resource_version.c.revision.in_(wanted)))
                found |= {row.revision: stored(row) for row in rows}
        return [found[change.revision] for change in changes]

    def held_at(self, revision: int, resource_type: str, since: float) -> Iterator[Change]:
        """The last change up to a revision of every resource of a type that changed since a time; by id.

        What is held now and later changes nothing of the answer.
        """
        newer = resource_version.alias("newer")
        newest = (
            select(func.max(newer.c.version))
            .where(newer.c.resource_type == resource_version.c.resource_type, newer.c.id == resource_version.c.id)
            .where(newer.c.revision <= revision)
            .correlate(resource_version)
            .scalar_subquery()
        )
        statement = (
            changes_statement()
            .where(resource_version.c.resource_type == resource_type, resource_version.c.version == newest)
            .where(resource_version.c.last_updated >= since)
            .order_by(resource_version.c.id)
            .limit(BATCH)
        )
        last = ""
        while True:
            with self._db.read() as connection:
                page = [change(row) for row in connection.execute(statement.where(resource_version.c.id > last))]
            yield from page
            if len(page) < BATCH:
                return
            last = page[-1].id

    def time_of(self, revision: int) -> float:
        """When a revision was made, in seconds since the epoch; 0 for revision 0. Later ones were not made earlier."""
        with self._db.read() as connection:
            statement = select(resource_version.c.last_updated).where(resource_version.c.revision == revision)
            return float(connection.execute(statement).scalar() or 0.0)


def changes_statement() -> Select[Any]:
    version = resource_version.c
    same = and_(_before.c.resource_type == version.resource_type, _before.c.id == version.id)
    owner = and_(resource.c.resource_type == version.resource_type, resource.c.id == version.id)
    return select(
        version.revision, version.resource_type, version.id, version.version, version.last_updated,
        resource.c.study_instance_uid, func.length(version.content).label("size"),
        _before.c.version.label("before"), func.length(_before.c.content).label("size_before"),
    ).select_from(
        resource_version.outerjoin(_before, and_(same, _before.c.version == version.version - 1)).join(resource, owner)
    )  # fmt: skip


def change(row: Any) -> Change:
    action = ChangeAction.UPDATED
    if row.size is None:
        action = ChangeAction.DELETED
    elif row.before is None or row.size_before is None:
        action = ChangeAction.CREATED
    return Change(
        row.revision, row.resource_type, row.id, row.version, action, row.last_updated,
        row.study_instance_uid or "", row.size or 0,
    )  # fmt: skip
