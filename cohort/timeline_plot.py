"""A timeline drawn: a lane for each kind of event, time from left to right. Needs matplotlib (the extra `plot`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Literal

from bridge.errors import ConfigError
from cohort.timeline import Event, Kind, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]
MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}
DRAWN_EVENTS, ROWS_IN_A_LANE, LABEL_CHARACTERS = 1_000, 14, 34
WIDTH_INCHES, LANE_INCHES, ROW_INCHES = 13.0, 0.14, 0.23
FIRST_YEAR, LAST_YEAR = 1880, 2199
_CHARACTER = 0.0062
"""Width of a label's character as a share of the axis."""

_COLOURS = {
    Kind.CONDITION: "#b2182b", Kind.MEDICATION: "#762a83", Kind.PROCEDURE: "#5d5d5d", Kind.OBSERVATION: "#8c6d1f",
    Kind.STUDY: "#2166ac", Kind.FINDING: "#d6604d", Kind.REPORT: "#1b7837",
}  # fmt: skip
_NAMES = {kind: f"{kind.value.capitalize()}s" for kind in Kind} | {
    Kind.STUDY: "Imaging studies",
    Kind.FINDING: "Imaging findings",
}


@dataclass(frozen=True)
class _Place:
    event: Event
    start: date
    end: date
    row: int
    label: str


def drawn(timeline: Timeline, kind: Format = "png") -> bytes:
    """The timeline as PNG (110 dots per inch) or SVG. Events without a usable day are counted below it.

    Raises  ConfigError when matplotlib is not installed
    """
    figure = _figure(timeline)
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def _figure(timeline: Timeline) -> Figure:
    try:
        from matplotlib.figure import Figure  # the extra; without pyplot, so that threads do not disturb one another
    except ImportError:
        raise ConfigError("matplotlib is not installed: pip install 'imaging-bridge[plot]'") from None
    dated = [e for e in timeline.events if _drawable(e)][:DRAWN_EVENTS]
    lanes = {kind: [e for e in dated if e.kind is kind] for kind in Kind}
    first, last = _span(dated)
    places = {kind: _placed(events, first, last) for kind, events in lanes.items() if events}
    heights = {kind: 1 + max(p.row for p in placed) for kind, placed in places.items()}
    inches = 1.1 + sum(LANE_INCHES + ROW_INCHES * rows for rows in heights.values())
    figure = Figure(figsize=(WIDTH_INCHES, max(inches, 1.6)), layout="constrained")
    axes = figure.add_subplot()
    top = 0.0
    for number, (kind, placed) in enumerate(places.items()):
        height = heights[kind] + LANE_INCHES / ROW_INCHES
        if number % 2 == 0:
            axes.axhspan(top, top + height, color="#f4f4f4", zorder=0)
        _lane(axes, kind, placed, top + LANE_INCHES / ROW_INCHES / 2)
        top += height
    _frame(axes, timeline, places, heights, first, last)
    return figure


def _drawable(event: Event) -> bool:
    """It has a day within living memory: one typing error in a year must not squeeze all the rest."""
    return all(
        FIRST_YEAR <= int(day[:4]) <= LAST_YEAR for day in (event.day or "0000", event.until or event.day or "") if day
    )


def _span(events: Sequence[Event]) -> tuple[date, date]:
    """From the first to the last day, with room for the last labels."""
    days = [date.fromisoformat(d) for e in events for d in (e.day, e.until) if d]
    first, last = (min(days), max(days)) if days else (date(2000, 1, 1), date(2001, 1, 1))
    room = max((last - first).days // 4, 20)
    return first - timedelta(days=max(room // 15, 2)), last + timedelta(days=room)


def _placed(events: Sequence[Event], first: date, last: date) -> list[_Place]:
    """Every event in the first row of its lane in which its label does not touch the one before."""
    span = (last - first).days
    ends: list[date] = []
    found: list[_Place] = []
    for event in events:
        start = date.fromisoformat(str(event.day))
        end = max(date.fromisoformat(event.until), start) if event.until else start
        label = _label(event)
        taken = max(end, start + timedelta(days=int(span * (_CHARACTER * len(label) + 0.015))))
        row = next((n for n, until in enumerate(ends) if until <= start), len(ends))
        if row == len(ends) < ROWS_IN_A_LANE:
            ends.append(taken)
        elif row == len(ends):
            row, label = ROWS_IN_A_LANE - 1, ""
        else:
            ends[row] = taken
        found.append(_Place(event, start, end, row, label))
    return found


def _label(event: Event) -> str:
    shown = event.title
    if event.kind in (Kind.STUDY, Kind.FINDING) and event.detail:
        shown = f"{event.title} ({event.detail.partition(',')[0]})"
    if event.kind is Kind.OBSERVATION:
        shown = f"{event.title.partition(' [')[0]} {event.detail}"
    return shown if len(shown) <= LABEL_CHARACTERS else shown[: LABEL_CHARACTERS - 1] + "…"


def _lane(axes: Axes, kind: Kind, placed: Sequence[_Place], top: float) -> None:
    for place in placed:
        y = top + place.row + 0.5
        if place.end > place.start:
            axes.plot([place.start, place.end], [y, y], color=_COLOURS[kind], linewidth=3, solid_capstyle="butt")  # type: ignore[arg-type]
        unsure = place.event.status in ("preliminary", "cancelled", "stopped", "registered", "draft")
        fill = "white" if unsure else _COLOURS[kind]
        axes.plot([place.start], [y], "o", color=_COLOURS[kind], markerfacecolor=fill, markersize=5.5)  # type: ignore[arg-type]
        if place.label:
            text = axes.annotate(
                place.label,
                (place.start, y),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            text.set_parse_math(False)


def _frame(
    axes: Axes,
    timeline: Timeline,
    places: dict[Kind, list[_Place]],
    heights: dict[Kind, int],
    first: date,
    last: date,
) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    ticks, top = [], 0.0
    for kind in places:
        height = heights[kind] + LANE_INCHES / ROW_INCHES
        ticks.append(top + height / 2)
        top += height
    axes.set_yticks(ticks, [_NAMES[kind] for kind in places])
    axes.set_ylim(max(top, 1.0), 0)
    axes.set_xlim(first, last)  # type: ignore[arg-type]
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    title = axes.set_title(f"Patient {timeline.patient_id}", loc="left", fontsize=11)
    title.set_parse_math(False)
    undated = sum(not _drawable(e) for e in timeline.events)
    shown = sum(map(len, places.values()))
    left_out = len(timeline.events) - undated - shown
    notes = ["hollow: not final or not carried out", f"generation {timeline.generation}"]
    notes += [f"{undated} events without a usable date are not shown"] if undated else []
    notes += [f"{left_out} later events are not shown"] if left_out else []
    axes.set_xlabel("; ".join(notes), fontsize=8, loc="left", color="#555555")
