"""Which of several equal resources stays: the same one for every bridge that looks, whoever made it."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.model import Resource


def one_of_several(found: Sequence[Resource]) -> Resource | None:
    """The one with the smallest id, numbers by their size; None of none.

    >>> one_of_several([{"id": "100"}, {"id": "99"}])
    {'id': '99'}
    """
    return min(found, key=age, default=None)


def age(resource: Resource) -> tuple[int, str]:
    """What resources are ordered by: servers count ids up."""
    id_ = str(resource.get("id"))
    return len(id_), id_
