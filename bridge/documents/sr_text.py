"""The content of a structured report as plain text, as people read it: headings, and lines of what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from bridge.findings.sr_tree import ContentItem

MOST_CHARACTERS = 200_000
MOST_DEPTH = 32

CONCLUSIONS = frozenset({
    "19005-8 LN", "55110-1 LN", "55112-7 LN", "121072 DCM", "121073 DCM", "121076 DCM", "121077 DCM", "121110 DCM",
    "121111 DCM",
})  # fmt: skip
"""Impressions, conclusions and summaries (PS3.16 CID 7001, 7002): headings, and their items where these stand alone."""


def whole(root: ContentItem) -> str:
    """All of a document below its title; without what says who observed it and on whom."""
    return "\n".join(_lines(root, 0)).strip()[:MOST_CHARACTERS]


def conclusion(root: ContentItem) -> str:
    """The text of its impressions, conclusions and summaries; "" where it has none."""
    return "\n".join(_inside(root, CONCLUSIONS, 0)).strip()[:MOST_CHARACTERS]


def _inside(item: ContentItem, names: Collection[str], depth: int) -> Iterator[str]:
    for child in item.children():
        if child.name in names:
            yield from _lines(child, depth) if child.value_type == "CONTAINER" else filter(None, [_value(child)])
        elif depth < MOST_DEPTH and child.value_type == "CONTAINER":
            yield from _inside(child, names, depth + 1)


def _lines(item: ContentItem, depth: int) -> Iterator[str]:
    for child in item.children():
        if child.relationship in ("HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD"):
            continue
        name = (child.name_code or {}).get("display", "")
        if child.value_type == "CONTAINER":
            below = list(_lines(child, depth + 1)) if depth < MOST_DEPTH else []
            if below:
                yield from [name, *below, ""] if name else below
            continue
        if value := _value(child):
            alone = child.value_type == "TEXT" and child.name in _PLAIN
            yield value if alone or not name else f"{name}: {value}"
        if depth < MOST_DEPTH:
            yield from _lines(child, depth + 1)


def _value(item: ContentItem) -> str:
    """What an item says, where that is words: no references to images and no coordinates."""
    if item.value_type == "TEXT":
        return item.words
    if item.value_type == "CODE":
        return str(item.code["display"]) if item.code else ""
    if item.value_type == "NUM" and (measured := item.measured) is not None:
        unit = measured["unit"]["code"]
        return f"{measured['value']:.14g}" + ("" if unit == "1" else f" {unit}")
    return ""


_PLAIN = frozenset({"121071 DCM", "121073 DCM", "121077 DCM", "121111 DCM", "59776-5 LN", "19005-8 LN", "55110-1 LN"})
"""Finding, impression and the like as names of sentences: repeated before each they would only be in the way."""
