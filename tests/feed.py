"""Follows what a source says has changed, as the poll loop does."""

from __future__ import annotations

from bridge.ports import ChangePage, ImagingSource

PAGES = 400


def follow(source: ImagingSource, position: str | None = None) -> tuple[set[str], str | None, list[ChangePage]]:
    """Everything until the source is caught up: the studies named, the position reached, the pages."""
    named: set[str] = set()
    pages: list[ChangePage] = []
    for _ in range(PAGES):
        page = source.changes(position)
        position = page.position or position
        named |= page.studies
        pages.append(page)
        if page.caught_up:
            return named, position, pages
    raise AssertionError("the source is never caught up")
