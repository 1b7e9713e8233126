"""Runs FHIR searches on the index: every criterion a subquery, keyset paging, nothing built from strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Float, String, and_, cast, false, func, literal, not_, or_, select, tuple_

from bridge.model import StoredResource
from bridge.state.resources import Resources, stored
from bridge.state.schema import resource, resource_index, resource_version
from bridge.translate.search_parameters import Kind, normal
from bridge.translate.search_query import Criterion, DateRange, SearchQuery, Token

index = resource_index
_NEVER = 1e18


class Search(Resources):
    """Search over current resources; deleted ones are never found."""

    def search(self, query: SearchQuery) -> tuple[list[tuple[StoredResource, float | str]], bool]:
        """(resources of this page with their sort keys, whether more follow)."""
        key = _sort_key(query)
        statement = select(resource_version, key.label("sort_key")).select_from(_current()).where(*_conditions(query))
        order = (key.desc(), resource.c.id.desc()) if query.descending else (key.asc(), resource.c.id.asc())
        if query.after is not None:
            here, there = tuple_(key, resource.c.id), tuple_(literal(query.after[0]), literal(query.after[1]))
            statement = statement.where(here < there if query.descending else here > there)
        with self._db.read() as connection:
            rows = connection.execute(statement.order_by(*order).limit(query.count + 1)).all()
        return [(stored(row), row.sort_key) for row in rows[: query.count]], len(rows) > query.count

    def search_total(self, query: SearchQuery) -> int:
        """How many resources match."""
        statement = select(func.count()).select_from(resource).where(*_conditions(query))
        with self._db.read() as connection:
            return int(connection.execute(statement).scalar_one())

    def referring(self, resource_type: str, param: str, targets: Sequence[str], limit: int) -> list[StoredResource]:
        """Current resources of a type whose reference parameter names one of the targets (`Type/id`)."""
        ids = select(index.c.id).where(
            index.c.resource_type == resource_type, index.c.param == param, index.c.value.in_(targets)
        )
        statement = (
            select(resource_version)
            .select_from(_current())
            .where(resource.c.resource_type == resource_type, resource.c.deleted.is_(False), resource.c.id.in_(ids))
            .order_by(resource.c.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return [stored(row) for row in connection.execute(statement)]


def _current() -> Any:
    return resource.join(
        resource_version,
        and_(
            resource.c.resource_type == resource_version.c.resource_type,
            resource.c.id == resource_version.c.id,
            resource.c.version == resource_version.c.version,
        ),
    )


def _sort_key(query: SearchQuery) -> ColumnElement[Any]:
    if query.sort == "_lastUpdated":
        return resource.c.last_updated
    if query.sort == "_id":
        return resource.c.id
    bound = func.max(index.c.low) if query.descending else func.min(index.c.low)
    lowest = (
        select(bound)
        .where(index.c.resource_type == query.resource_type, index.c.param == query.sort, index.c.id == resource.c.id)
        .correlate(resource)
        .scalar_subquery()
    )
    return func.coalesce(lowest, cast(literal(-_NEVER if query.descending else _NEVER), Float))


def _conditions(query: SearchQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [
        resource.c.resource_type == query.resource_type,
        resource.c.deleted.is_(False),
    ]
    found += [resource.c.id.in_(alternatives) for alternatives in query.ids]
    found += [_date(resource.c.last_updated, resource.c.last_updated, wanted) for wanted in query.last_updated]
    found += [_criterion(query.resource_type, criterion) for criterion in query.criteria]
    return found


def _criterion(resource_type: str, criterion: Criterion) -> ColumnElement[bool]:
    param = f"{criterion.param}:identifier" if criterion.modifier == "identifier" else criterion.param
    ids = select(index.c.id).where(index.c.resource_type == resource_type, index.c.param == param)
    if criterion.chain is not None:
        inner = select(literal(f"{criterion.target}/", String) + index.c.id).where(
            index.c.resource_type == criterion.target, index.c.param == criterion.chain.param, _any(criterion.chain)
        )
        return resource.c.id.in_(ids.where(index.c.value.in_(inner)))
    if criterion.modifier == "missing":
        there = resource.c.id.in_(ids)
        return not_(there) if criterion.values == ("true",) else there
    if criterion.modifier == "not":
        return not_(resource.c.id.in_(ids.where(_any(criterion))))
    return resource.c.id.in_(ids.where(_any(criterion)))


def _any(criterion: Criterion) -> ColumnElement[bool]:
    return or_(false(), *(_value(criterion, value) for value in criterion.values))


def _value(criterion: Criterion, value: Token | DateRange | str) -> ColumnElement[bool]:
    if isinstance(value, Token):
        conditions = []
        if value.code:
            conditions.append(index.c.value == value.code)
        if value.system is not None:
            conditions.append(index.c.system == value.system)
        return and_(*conditions)
    if isinstance(value, DateRange):
        return _date(index.c.low, index.c.high, value)
    if criterion.kind is Kind.REFERENCE:
        return index.c.value == value
    if criterion.modifier == "exact":
        return index.c.system == value
    if criterion.modifier == "contains":
        return index.c.value.contains(normal(value), autoescape=True)
    return index.c.value.startswith(normal(value), autoescape=True)


def _date(low: Any, high: Any, wanted: DateRange) -> ColumnElement[bool]:
    """R4 search 3.1.1.4.5: how the range of a resource compares with the range of a value."""
    inside = and_(low >= wanted.low, high <= wanted.high)
    conditions: dict[str, ColumnElement[bool]] = {
        "eq": inside,
        "ne": not_(inside),
        "gt": high > wanted.high,
        "lt": low < wanted.low,
        "ge": or_(high > wanted.high, inside),
        "le": or_(low < wanted.low, inside),
        "sa": low >= wanted.high,
        "eb": high <= wanted.low,
        "ap": and_(low < wanted.high, high > wanted.low),
    }
    return conditions[wanted.prefix]
