"""Score cards and drift drawn, from what may be shown of them. Needs matplotlib (the extra `plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cohort.plots import COLOURS, Format, figure_of, written
from cohort.scores.card import Card, Target
from cohort.scores.drift import LARGE, MODERATE, Drift
from cohort.scores.judged import Count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#888888"
DRAWN_MEASURES = ("sensitivity", "specificity", "auroc")
LABEL_CHARACTERS = 40


def card_plot(card: Card, kind: Format = "svg") -> bytes:
    """ROC curve, precision-recall curve, calibration and confusion matrix. Raises ConfigError when matplotlib is not
    installed."""
    figure = figure_of(9.0, 8.4)
    (roc, precision), (calibration, confusion) = figure.subplots(2, 2)
    figure.suptitle(_plain(f"{_named(card.target)}: {_count(card.predictions)} predictions"), fontsize="medium")
    _roc(roc, card)
    _precision(precision, card)
    _calibration(calibration, card)
    _confusion(confusion, card)
    return written(figure, kind)


def slices_plot(cards: Sequence[Card], kind: Format = "svg") -> bytes:
    """Measures of the slices of one kind with their intervals. Raises ConfigError as `card_plot`."""
    figure = figure_of(10.0, 1.6 + 0.35 * len(cards))
    panels = figure.subplots(1, len(DRAWN_MEASURES), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, DRAWN_MEASURES, strict=True):
        for place, card in enumerate(cards):
            found = card.measures[measure]
            if found.low is not None and found.high is not None:
                axes.plot([found.low, found.high], [place, place], color=COLOURS[0], linewidth=2)
            if found.value is not None:
                axes.plot([found.value], [place], "o", color=COLOURS[0], markersize=5)
        axes.set_xlim(0, 1)
        axes.set_title(measure, fontsize="medium", loc="left")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    panels[0].set_yticks(range(len(cards)), [_plain(f"{c.value} ({_count(c.predictions)})") for c in cards])
    panels[0].invert_yaxis()
    return written(figure, kind)


def drift_plot(windows: Sequence[Drift], kind: Format = "svg") -> bytes:
    """Stability indices, and the change of measures with their intervals, from window to window. Raises ConfigError as
    `card_plot`."""
    figure = figure_of(10.0, 7.0)
    stability, measures = figure.subplots(2, 1, sharex=True)
    days = [f"{d.window.first_day:%Y-%m}" for d in windows]
    for what in sorted({shift.what for d in windows for shift in d.shifts}):
        found = [next((s.psi for s in d.shifts if s.what == what), None) for d in windows]
        _line(stability, found, what)
    for limit, name in ((MODERATE, "moderate"), (LARGE, "large")):
        stability.axhline(limit, color=GREY, linewidth=0.8, linestyle="--")
        stability.annotate(name, (0, limit), (2, 2), textcoords="offset points", fontsize="small", color=GREY)
    stability.set_ylabel("population stability index")
    stability.set_yscale("symlog", linthresh=LARGE, linscale=2)  # a new scanner gives ten times what is already large
    stability.set_ylim(bottom=0)
    for number, measure in enumerate(DRAWN_MEASURES):
        differences = [next((c.difference for c in d.changes if c.measure == measure), None) for d in windows]
        beside = 0.06 * (number - 1)
        _line(measures, [None if d is None else d.value for d in differences], measure, beside)
        colour = measures.lines[-1].get_color()
        for place, change in enumerate(differences):
            if change is not None and change.low is not None and change.high is not None:
                measures.plot([place + beside] * 2, [change.low, change.high], color=colour, linewidth=1)
    measures.axhline(0.0, color=GREY, linewidth=0.8)
    measures.set_ylabel("less that of the reference")
    measures.set_xticks(range(len(days)), days, rotation=45)
    for axes in (stability, measures):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if windows:
        reference = windows[0].reference
        title = f"{_named(windows[0].target)}; reference {reference.first_day} to {reference.last_day}"
        figure.suptitle(_plain(title), fontsize="medium")
    return written(figure, kind)


def _roc(axes: Axes, card: Card) -> None:
    points = [
        (1 - specificity, sensitivity)
        for point in card.curve
        if (specificity := _share(point.cells, "tn", "fp")) is not None
        and (sensitivity := _share(point.cells, "tp", "fn")) is not None
    ]
    _curve(axes, [(0.0, 0.0), *sorted(points), (1.0, 1.0)] if points else [])
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    _frame(axes, f"ROC, AUROC {_estimate(card, 'auroc')}", "1 - specificity", "sensitivity")


def _precision(axes: Axes, card: Card) -> None:
    points = [
        (recall, precision)
        for point in card.curve
        if (recall := _share(point.cells, "tp", "fn")) is not None
        and (precision := _share(point.cells, "tp", "fp")) is not None
    ]
    _curve(axes, points)
    _frame(axes, f"Precision and recall, AUPRC {_estimate(card, 'auprc')}", "sensitivity", "PPV")


def _calibration(axes: Axes, card: Card) -> None:
    points = []
    for b in card.calibration:
        mean, observed = (b.low + b.high) / 2 if b.mean_score is None else b.mean_score, b.observed
        if observed.value is None:
            continue
        points.append((mean, observed.value))
        if observed.low is not None and observed.high is not None:
            axes.plot([mean, mean], [observed.low, observed.high], color=COLOURS[0], linewidth=1)
    _curve(axes, points)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    _frame(axes, f"Calibration, Brier {_estimate(card, 'brier')}", "mean score", "share that came true")


def _confusion(axes: Axes, card: Card) -> None:
    cells = [[card.confusion["tp"], card.confusion["fn"]], [card.confusion["fp"], card.confusion["tn"]]]
    axes.imshow([[c.n or 0 for c in row] for row in cells], cmap="Blues", vmin=0)
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            axes.text(x, y, _count(cell), ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none"})
    axes.set_xticks([0, 1], ["positive", "negative"])
    axes.set_yticks([0, 1], ["confirmed", "refuted"])
    threshold = "" if card.threshold is None else f" at {card.threshold:g}"
    axes.set_title(f"What the model said{threshold}, what it was", loc="left", fontsize="medium")


def _curve(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    axes.plot([x for x, _ in points], [y for _, y in points], "o-", color=COLOURS[0], markersize=3, linewidth=1.2)


def _line(axes: Axes, values: Sequence[float | None], label: str, beside: float = 0.0) -> None:
    """A line over the windows, broken where there is no value."""
    numbers = [float("nan") if v is None else v for v in values]
    axes.plot([n + beside for n in range(len(numbers))], numbers, "o-", markersize=4, linewidth=1.2, label=label)


def _frame(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _share(cells: Mapping[str, Count], part: str, rest: str) -> float | None:
    counts = [cells[name].n or 0 for name in (part, rest)]
    return counts[0] / sum(counts) if sum(counts) else None


def _estimate(card: Card, name: str) -> str:
    found = card.measures[name]
    if found.value is None:
        return found.why
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.value:.3f}{interval}"


def _named(target: Target) -> str:
    return f"{target.model} {target.model_version}, {target.finding_code}"


def _count(count: Count) -> str:
    return "few or no" if count.n is None else f"{count.n:,}"


def _plain(text: str) -> str:
    """A label that matplotlib does not read as mathematics."""
    return (text if len(text) <= 3 * LABEL_CHARACTERS else f"{text[: 3 * LABEL_CHARACTERS - 1]}…").replace("$", r"\$")
