# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of an evaluation: ROC, precision-recall, reliability, and the share of boxes found.

One panel per finding, all in one scale, so that findings can be compared by eye. Figures are made with matplotlib's
objects alone: no window, no global state. matplotlib is optional: `pip install 'clarity_hf[report]'`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from clarity_hf.metrics.classification import (
    auroc_per_finding,
    average_precision_per_finding,
    calibration_error_per_finding,
    reliability,
)
from clarity_hf.metrics.image_driven import COMPARED_LEVELS, Froc
from clarity_hf.metrics.localization import LEVELS, PerFinding

from .localization_tables import ANY_REGION, FIXED_BOX_NAME, LARGEST_REGION, Localized
from .published_figures import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREY, PALE = "#0072B2", "#D55E00", "#6b7280", "#d1d5db"
"""Colours of the method, the fixed-box baseline, published figures, and guide lines."""

OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of other methods, in their order; with those above, the colour-blind safe palette of Okabe and Ito."""

CURVE_POINTS = 400
"""Largest number of points of a curve; a screen shows no more."""

COLUMNS, PANEL_INCHES = 5, 2.1

CAPTIONS = {
    "boxes": "Share of boxes found, mean over findings; map thresholds tuned alike for every method, any region may "
    "match. Solid and dashed: on this data. Dotted and grey: published on NIH's 984 boxes, not on this data.",
    "boxes_largest": "Share of boxes found where only the largest region of a map is predicted, thresholds tuned for "
    "it.",
    "froc": "FROC: share of annotated boxes found over false boxes per image, for the findings with annotated boxes, "
    "as all score thresholds move together. Dots: the model's own thresholds.",
    "boxes_per_finding": "Share of boxes found per finding, map thresholds tuned, any region, whatever the score; "
    "dashed: the fixed-box baseline.",
    "roc": "ROC curves. Dashed: chance.",
    "precision_recall": "Precision over recall. Dashed: chance, whose precision is the share of images with the "
    "finding.",
    "reliability": "Reliability: share of images with the finding over the mean score of a bin of scores; a point's "
    "area grows with the images in its bin. On the dashed line a score is a probability.",
}
"""Figures of a report, in the order of the index, and their captions."""

_STYLE: dict[Any, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "axes.labelcolor": "#111827",
    "svg.hashsalt": "clarity_hf",  # the same figure gives the same file
}


def report_figures(localized: Localized, curve: Froc | None) -> dict[str, dict[str, bytes]]:
    """All figures that the records allow: SVG and PNG by format, by the keys of `CAPTIONS`; None for no FROC curve."""
    evaluated = localized.evaluated
    figures = {kind: finding_figure(kind, evaluated.findings, evaluated.scores, evaluated.labels) for kind in _CURVES}
    if localized.has_boxes:
        fixed, tuned = localized.fixed_box.found(), localized.tuned.found()
        for name, rule in (("boxes", ANY_REGION), ("boxes_largest", LARGEST_REGION)):
            measured = {evaluated.name: localized.method.tuned()[rule].found().macro, FIXED_BOX_NAME: fixed.macro}
            measured |= {other: boxes.tuned()[rule].found().macro for other, boxes in localized.baselines.items()}
            figures[name] = boxes_figure(LEVELS, measured, PUBLISHED if rule == ANY_REGION else {})
        figures["boxes_per_finding"] = boxes_per_finding_figure(evaluated.findings, LEVELS, tuned, fixed)
    if curve is not None:
        figures["froc"] = froc_figure(curve)
    return {name: {kind: figure_bytes(one, kind) for kind in ("svg", "png")} for name, one in figures.items()}


def require_matplotlib() -> None:
    """Raise an ImportError with the pip command if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("Figures need matplotlib. Run pip install 'clarity_hf[report]'.") from error


def finding_figure(kind: str, findings: Sequence[str], scores: np.ndarray, labels: np.ndarray) -> Figure:
    """Curves of a kind of `_CURVES` with their figure, one panel per finding that has one.

    `"precision_recall"` is beside the share of positives, the precision of chance; `"reliability"` is the share of
    images with the finding over their mean score in ten bins, the area of a point growing with the images in its bin.
    `scores` and `labels` are `(n, F)`.
    """
    draw_curve, measure, text, xlabel, ylabel = _CURVES[kind]

    def draw(axes: Axes, finding: int) -> None:
        known = ~np.isnan(labels[:, finding])
        draw_curve(axes, labels[known, finding] == 1, scores[known, finding])

    return _panels(findings, measure(scores, labels), text, draw, xlabel, ylabel)


def _draw_roc(axes: Axes, present: np.ndarray, scores: np.ndarray) -> None:
    false_rate, true_rate, _ = roc_curve(present, scores)
    axes.plot((0, 1), (0, 1), color=PALE, linewidth=1, linestyle="--")
    axes.plot(*_thinned(false_rate, true_rate), color=BLUE, linewidth=1.4)


def _draw_precision_recall(axes: Axes, present: np.ndarray, scores: np.ndarray) -> None:
    precision, recall, _ = precision_recall_curve(present, scores)
    axes.plot((0, 1), (present.mean(),) * 2, color=PALE, linewidth=1, linestyle="--")
    axes.plot(*_thinned(recall, precision), color=BLUE, linewidth=1.4, drawstyle="steps-post")


def _draw_reliability(axes: Axes, present: np.ndarray, scores: np.ndarray) -> None:
    bins = reliability(scores, present.astype(np.float64))
    filled = np.asarray(bins["count"]) > 0
    mean, share, count = (np.asarray(bins[key])[filled] for key in ("mean_score", "share_present", "count"))
    axes.plot((0, 1), (0, 1), color=PALE, linewidth=1, linestyle="--")
    axes.plot(mean, share, color=BLUE, linewidth=1)
    axes.scatter(mean, share, s=4 + 60 * count / count.sum(), color=BLUE, linewidths=0)


_CURVES: dict[str, tuple[Callable[..., None], Callable[..., np.ndarray], str, str, str]] = {
    "roc": (_draw_roc, auroc_per_finding, "AUROC {:.3f}", "1 − specificity", "sensitivity"),
    "precision_recall": (_draw_precision_recall, average_precision_per_finding, "AP {:.3f}", "recall", "precision"),
    "reliability": (_draw_reliability, calibration_error_per_finding, "ECE {:.3f}", "mean score", "share present"),
}
"""How a curve is drawn, the figure written into its panel and how it is written, and the names of the axes."""


def boxes_figure(
    levels: Sequence[float], measured: Mapping[str, np.ndarray], published: Mapping[str, Mapping[float, float]]
) -> Figure:
    """T(IoU): the share of annotated boxes found over the L rising `levels` of IoU.

    `measured` has the shares `(L,)` in [0, 1] of each method by name, NaN where undefined, the evaluated method first;
    the fixed-box baseline is dashed. `published` has shares by level of each publication: thin and grey.
    """
    figure = _figure((7.6, 4.2))
    import matplotlib

    with matplotlib.rc_context(_STYLE | {"font.size": 9.0}):
        axes = figure.subplots()
        axes.grid(axis="y", color="#e5e7eb")
        axes.set_axisbelow(True)
        _draw_measured(axes, levels, measured)
        shown = len(axes.lines)
        for (name, shares), marker in zip(published.items(), cycle("sD^vP*Xh"), strict=False):
            known = [level for level in levels if level in shares]
            style: dict[str, Any] = {"color": GREY, "alpha": 0.8, "linewidth": 0.8, "linestyle": ":"}
            axes.plot(known, [shares[level] for level in known], marker=marker, markersize=4, label=name, **style)
        axes.set(xlabel="IoU above which a box is found", ylabel="share of boxes found", ylim=(0, 1.02))
        axes.set_xticks(list(levels))
        beside: dict[str, Any] = {"frameon": False, "alignment": "left", "borderaxespad": 0.0}
        own, others = axes.lines[:shown], axes.lines[shown:]
        here = axes.legend(handles=own, bbox_to_anchor=(1.02, 1), loc="upper left", title="on this data", **beside)
        if published:
            axes.add_artist(here)
            beside |= {"title": "published, on NIH's 984 boxes", "fontsize": 8}
            axes.legend(handles=others, bbox_to_anchor=(1.02, 0.0), loc="lower left", **beside)
    return figure


def _draw_measured(axes: Axes, levels: Sequence[float], measured: Mapping[str, np.ndarray]) -> None:
    """The evaluated method thick, and what was measured beside it."""
    colours = cycle(OTHERS)
    for order, (name, shares) in enumerate(measured.items()):
        own, fixed = order == 0, name == FIXED_BOX_NAME
        axes.plot(
            levels,
            shares,
            color=BLUE if own else VERMILLION if fixed else next(colours),
            linewidth=2.2 if own else 1.4,
            linestyle="--" if fixed else "-",
            marker="o",
            markersize=4 if own else 3,
            label=name,
            zorder=4 if own else 3,
        )


def boxes_per_finding_figure(
    findings: Sequence[str], levels: Sequence[float], found: PerFinding, fixed: PerFinding
) -> Figure:
    """T(IoU) at rising levels, one panel per finding with boxes, beside the fixed-box baseline (dashed)."""

    def draw(axes: Axes, finding: int) -> None:
        axes.plot(levels, fixed.shares[finding], color=VERMILLION, linewidth=1.2, linestyle="--")
        axes.plot(levels, found.shares[finding], color=BLUE, linewidth=1.4)

    counts = np.where(found.counts > 0, found.counts, np.nan)
    return _panels(findings, counts, "{:.0f} boxes", draw, "IoU", "share found")


def froc_figure(curve: Froc) -> Figure:
    """FROC: share of annotated boxes found over false boxes per image, a curve per IoU; dots: own thresholds."""
    figure = _figure((4.6, 3.2))
    axes = figure.subplots()
    for column, (level, colour) in enumerate(zip(COMPARED_LEVELS, (BLUE, VERMILLION, GREY), strict=True)):
        false, found = curve.false_boxes[:, column], curve.sensitivity[:, column]
        axes.plot(false, found, color=colour, label=f"IoU > {level:g}")
        axes.plot(false[curve.at_threshold], found[curve.at_threshold], "o", color=colour)
    axes.set(xlabel="false boxes per image", ylabel="annotated boxes found", ylim=(0, 1))
    axes.set_xlim(left=0)
    axes.legend(frameon=False, loc="upper left")
    return figure


def figure_bytes(figure: Figure, format: str) -> bytes:
    """A figure as `"svg"` or `"png"` (150 dots per inch): the same bytes for the same figure, without a date."""
    import matplotlib

    stream = BytesIO()
    metadata = {"Date": None} if format == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": _STYLE["svg.hashsalt"]}):
        figure.savefig(stream, format=format, dpi=150, bbox_inches="tight", metadata=metadata)
    return stream.getvalue()


def _panels(
    findings: Sequence[str], values: np.ndarray, text: str, draw: Callable[[Axes, int], None], xlabel: str, ylabel: str
) -> Figure:
    """A square panel for each finding with a value, which is written above it, both axes from 0 to 1."""
    titles = {
        i: (findings[i].replace("_", " "), text.format(values[i])) for i in np.flatnonzero(~np.isnan(values)).tolist()
    }
    columns = min(COLUMNS, max(1, len(titles)))
    rows = max(1, math.ceil(len(titles) / columns))
    figure = _figure((columns * PANEL_INCHES, rows * (PANEL_INCHES + 0.25)))
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        for place, (finding, (name, value)) in enumerate(titles.items()):
            axes = figure.add_subplot(rows, columns, place + 1)
            draw(axes, finding)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
            axes.set_title(name, pad=15)
            axes.text(0.5, 1.03, value, ha="center", color="#374151", transform=axes.transAxes)
            axes.set_xticks((0, 0.5, 1), ("0", ".5", "1"))
            axes.set_yticks((0, 0.5, 1), ("0", ".5", "1"))
        if titles:
            figure.supxlabel(xlabel, fontsize=9)
            figure.supylabel(ylabel, fontsize=9)
    return figure


def _figure(inches: tuple[float, float]) -> Figure:
    require_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `CURVE_POINTS` of a curve's points, evenly along its length, both ends among them."""
    if len(x) <= CURVE_POINTS:
        return x, y
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.searchsorted(length, np.linspace(0, length[-1], CURVE_POINTS))
    index = np.unique(np.concatenate([[0], np.minimum(wanted, len(x) - 1), [len(x) - 1]]))
    return x[index], y[index]
