"""Attrition and comparison drawn. Needs matplotlib (the extra `plot`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from bridge.errors import ConfigError
from cohort.answer import Answer
from cohort.comparison import MEASURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "svg"]
MEDIA_TYPES = {"png": "image/png", "svg": "image/svg+xml"}
COLOURS = ("#2166ac", "#d6604d")
LABEL_CHARACTERS = 48


def attrition_plot(answer: Answer, kind: Format = "svg") -> bytes:
    """A bar of patients for each step of an attrition table, from top to bottom. Raises ConfigError when matplotlib
    is not installed."""
    figure = figure_of(8.0, 1.2 + 0.45 * len(answer.rows))
    axes = figure.add_subplot()
    labels = [_short(row[1]) for row in answer.rows]
    bars = axes.barh(range(len(labels)), [row[3] or 0 for row in answer.rows], color=COLOURS[0])
    axes.bar_label(bars, [f"{_count(row[3])} ({_count(row[2])})" for row in answer.rows], padding=3)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("patients (units) that remain")
    return written(figure, kind)


def comparison_plot(answer: Answer, names: tuple[str, str], kind: Format = "svg") -> bytes:
    """For each measure, the share of each cohort's patients that have a value. Raises ConfigError when matplotlib is
    not installed."""
    sizes = next(((row[2], row[3]) for row in answer.rows if row[0] == "patients"), (0, 0))
    measures = [m for m in MEASURES[1:] if any(row[0] == m for row in answer.rows)]
    rows = {m: [row for row in answer.rows if row[0] == m] for m in measures}
    figure = figure_of(9.0, 1.0 + sum(0.9 + 0.4 * len(rows[m]) for m in measures))
    heights = [1.5 + len(rows[m]) for m in measures]
    panels: Any = figure.subplots(len(measures), 1, squeeze=False, height_ratios=heights)[:, 0] if measures else []
    for axes, measure in zip(panels, measures, strict=True):
        for side, colour in enumerate(COLOURS):
            shares = [100 * (row[2 + side] or 0) / (sizes[side] or 1) for row in rows[measure]]
            places = [n + 0.4 * side - 0.2 for n in range(len(shares))]
            axes.barh(places, shares, 0.38, color=colour, label=f"{_short(names[side])} ({_count(sizes[side])})")
        axes.set_yticks(range(len(rows[measure])), [_short(row[1]) for row in rows[measure]])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_title(measure.replace("_", " "), loc="left", fontsize="medium")
    if measures:
        panels[0].legend(loc="lower right", fontsize="small")
        panels[-1].set_xlabel("percent of the cohort's patients")
    return written(figure, kind)


def _count(shown: int | None) -> str:
    """A count, or that it is too small to be shown."""
    return "few or none" if shown is None else str(shown)


def _short(text: object) -> str:
    """A label that matplotlib does not read as mathematics."""
    plain = str(text).replace("$", r"\$")
    return plain if len(plain) <= LABEL_CHARACTERS else plain[: LABEL_CHARACTERS - 1] + "…"


def figure_of(width: float, height: float) -> Figure:
    """An empty figure so many inches large. Raises ConfigError when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # the extra; without pyplot, so that threads do not disturb one another
    except ImportError:
        raise ConfigError("matplotlib is not installed: pip install 'imaging-bridge[plot]'") from None
    return Figure(figsize=(width, min(height, 60.0)), layout="constrained")


def written(figure: Figure, kind: Format) -> bytes:
    """PNG (110 dots per inch) or SVG, the same for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def plot_format(suffix: str) -> Format | None:
    """The format a file's suffix names.

    >>> plot_format(".svg"), plot_format(".pdf")
    ('svg', None)
    """
    formats: Sequence[Format] = ("png", "svg")
    return next((f for f in formats if suffix == f".{f}"), None)
