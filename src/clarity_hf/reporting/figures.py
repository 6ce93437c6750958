# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures of an evaluation: ROC, precision-recall, reliability, and the share of boxes found.

A panel a finding, all in one scale, so that findings can be compared by eye. Figures are made with matplotlib's
objects alone: no window, no global state. matplotlib is optional: `pip install 'clarity_hf[report]'`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from clarity_hf.metrics.classification import reliability
from clarity_hf.metrics.image_driven import COMPARED_LEVELS, Froc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREY, PALE = "#0072B2", "#D55E00", "#6b7280", "#d1d5db"
"""The method, the constant box, what was published, and lines that only guide the eye."""

OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Baselines, in their order. With the colours above it is the palette of Okabe and Ito, told apart by everyone."""

CURVE_POINTS = 400
"""Points that a drawn curve keeps at most: a curve over 25,000 images has no more than a screen can show."""

COLUMNS, PANEL_INCHES = 5, 2.1

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


def require_matplotlib() -> None:
    """Say how to install matplotlib where it is missing.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`matplotlib` must be installed to draw figures, got none. Run pip install 'clarity_hf[report]'."
        ) from error


def roc_figure(findings: Sequence[str], scores: np.ndarray, labels: np.ndarray, areas: np.ndarray) -> Figure:
    """ROC curves, a panel a finding.

    Args:
        findings: The F names.
        scores: `(n, F)` in [0, 1].
        labels: `(n, F)`, 1 present, 0 absent, NaN not annotated (left out).
        areas: `(F,)` AUROC to write into the panels; a finding with NaN gets no panel.

    Returns:
        The figure; without panels where no finding has a curve.

    Raises:
        ImportError: matplotlib is not installed.
    """

    def draw(axes: Axes, finding: int) -> None:
        truth, score = _annotated(scores, labels, finding)
        false_rate, true_rate, _ = roc_curve(truth, score)
        axes.plot((0, 1), (0, 1), color=PALE, linewidth=1, linestyle="--")
        axes.plot(*_thinned(false_rate, true_rate), color=BLUE, linewidth=1.4)

    return _panels(_titles(findings, "AUROC {:.3f}", areas), draw, "1 − specificity", "sensitivity")


def precision_recall_figure(
    findings: Sequence[str], scores: np.ndarray, labels: np.ndarray, precisions: np.ndarray
) -> Figure:
    """Precision over recall, a panel a finding, beside the share of positives: the precision of a guess.

    Args:
        findings: The F names.
        scores: `(n, F)` in [0, 1].
        labels: `(n, F)`, 1, 0 or NaN.
        precisions: `(F,)` average precision to write into the panels; a finding with NaN gets no panel.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
    """

    def draw(axes: Axes, finding: int) -> None:
        truth, score = _annotated(scores, labels, finding)
        precision, recall, _ = precision_recall_curve(truth, score)
        axes.plot((0, 1), (truth.mean(),) * 2, color=PALE, linewidth=1, linestyle="--")
        axes.plot(*_thinned(recall, precision), color=BLUE, linewidth=1.4, drawstyle="steps-post")

    return _panels(_titles(findings, "AP {:.3f}", precisions), draw, "recall", "precision")


def reliability_figure(findings: Sequence[str], scores: np.ndarray, labels: np.ndarray, errors: np.ndarray) -> Figure:
    """Share of images that have a finding over the score they got, a panel a finding, in ten bins.

    A point's area grows with the number of images in its bin. On the diagonal a score is a probability.

    Args:
        findings: The F names.
        scores: `(n, F)` in [0, 1].
        labels: `(n, F)`, 1, 0 or NaN.
        errors: `(F,)` expected calibration error to write into the panels; a finding with NaN gets no panel.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
    """

    def draw(axes: Axes, finding: int) -> None:
        truth, score = _annotated(scores, labels, finding)
        bins = reliability(score, truth.astype(np.float64))
        filled = np.asarray(bins["count"]) > 0
        mean, share, count = (np.asarray(bins[key])[filled] for key in ("mean_score", "share_present", "count"))
        axes.plot((0, 1), (0, 1), color=PALE, linewidth=1, linestyle="--")
        axes.plot(mean, share, color=BLUE, linewidth=1)
        axes.scatter(mean, share, s=4 + 60 * count / count.sum(), color=BLUE, linewidths=0)

    return _panels(_titles(findings, "ECE {:.3f}", errors), draw, "mean score", "share present")


def boxes_figure(
    levels: Sequence[float],
    measured: Mapping[str, np.ndarray],
    published: Mapping[str, np.ndarray],
) -> Figure:
    """T(IoU): the share of annotated boxes found over the IoU that counts as found.

    Args:
        levels: The L levels of IoU, rising.
        measured: Per method the L shares in [0, 1], NaN where undefined: the evaluated method first, then what is
            compared with it; "constant box" and names that begin so are drawn dashed.
        published: Per publication the L shares on NIH's 984 boxes, NaN where none was given; drawn thin and grey, as
            figures of other images.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _figure((7.6, 4.2))
    import matplotlib

    with matplotlib.rc_context(_STYLE | {"font.size": 9.0}):
        axes = figure.subplots()
        axes.grid(axis="y", color="#e5e7eb")
        axes.set_axisbelow(True)
        _draw_measured(axes, levels, measured)
        shown = len(axes.lines)
        _draw_published(axes, levels, published)
        axes.set(xlabel="IoU above which a box is found", ylabel="share of boxes found", ylim=(0, 1.02))
        axes.set_xticks(list(levels))
        handles = axes.lines
        beside: dict[str, Any] = {"frameon": False, "alignment": "left", "borderaxespad": 0.0}
        here = axes.legend(
            handles=handles[:shown], bbox_to_anchor=(1.02, 1.0), loc="upper left", title="on this data", **beside
        )
        if published:
            axes.add_artist(here)
            title = "published, on NIH's 984 boxes"
            axes.legend(
                handles=handles[shown:],
                bbox_to_anchor=(1.02, 0.0),
                loc="lower left",
                title=title,
                fontsize=8,
                **beside,
            )
    return figure


def _draw_measured(axes: Axes, levels: Sequence[float], measured: Mapping[str, np.ndarray]) -> None:
    """The evaluated method thick, and what was measured beside it."""
    colours = _cycled(OTHERS)
    for order, (name, shares) in enumerate(measured.items()):
        constant = name.lower().startswith("constant box")
        axes.plot(
            levels,
            shares,
            color=BLUE if order == 0 else VERMILLION if constant else next(colours),
            linewidth=2.2 if order == 0 else 1.4,
            linestyle="--" if constant else "-",
            marker="o",
            markersize=4 if order == 0 else 3,
            label=name,
            zorder=4 if order == 0 else 3,
        )


def _draw_published(axes: Axes, levels: Sequence[float], published: Mapping[str, np.ndarray]) -> None:
    """Thin, dotted and grey, told apart by their markers; levels without a figure are passed over."""
    for (name, shares), marker in zip(published.items(), _cycled("sD^vP*Xh"), strict=False):
        known = ~np.isnan(shares)
        axes.plot(
            np.asarray(levels)[known],
            shares[known],
            color=GREY,
            alpha=0.8,
            linewidth=0.8,
            linestyle=":",
            marker=marker,
            markersize=4,
            label=name,
        )


def boxes_per_finding_figure(
    findings: Sequence[str], levels: Sequence[float], found: np.ndarray, constant: np.ndarray, boxes: np.ndarray
) -> Figure:
    """T(IoU), a panel a finding, beside the constant box (dashed).

    Args:
        findings: The F names.
        levels: The L levels of IoU, rising.
        found: `(F, L)` shares of the method in [0, 1], NaN for a finding without boxes, which gets no panel.
        constant: `(F, L)` shares of the constant box.
        boxes: `(F,)` number of annotated boxes.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
    """

    def draw(axes: Axes, finding: int) -> None:
        axes.plot(levels, constant[finding], color=VERMILLION, linewidth=1.2, linestyle="--")
        axes.plot(levels, found[finding], color=BLUE, linewidth=1.4)

    counts = np.where(np.isnan(found[:, 0]), np.nan, boxes)
    return _panels(_titles(findings, "{:.0f} boxes", counts), draw, "IoU", "share found")


def froc_figure(curve: Froc) -> Figure:
    """FROC: share of annotated boxes found over false boxes an image, a curve a level of IoU.

    Args:
        curve: Of [`froc`].

    Returns:
        The figure; dots mark the thresholds that users have.

    Raises:
        ImportError: matplotlib is not installed.
    """
    require_matplotlib()
    figure = _figure((4.6, 3.2))
    axes = figure.subplots()
    for column, (level, colour) in enumerate(zip(COMPARED_LEVELS, (BLUE, VERMILLION, GREY), strict=True)):
        false, found = curve.false_boxes[:, column], curve.sensitivity[:, column]
        axes.plot(false, found, color=colour, label=f"IoU > {level:g}")
        axes.plot(false[curve.at_threshold], found[curve.at_threshold], "o", color=colour)
    axes.set(xlabel="false boxes an image", ylabel="annotated boxes found", ylim=(0, 1))
    axes.set_xlim(left=0)
    axes.legend(frameon=False, loc="upper left")
    return figure


def figure_bytes(figure: Figure, format: str) -> bytes:
    """A figure as a file.

    Args:
        figure: Any of this module.
        format: `"svg"` or `"png"` (150 dots an inch).

    Returns:
        The same bytes for the same figure: no date is written.
    """
    import matplotlib

    stream = BytesIO()
    metadata = {"Date": None} if format == "svg" else None
    with matplotlib.rc_context({"svg.hashsalt": _STYLE["svg.hashsalt"]}):
        figure.savefig(stream, format=format, dpi=150, bbox_inches="tight", metadata=metadata)
    return stream.getvalue()


def _titles(findings: Sequence[str], figure: str, values: np.ndarray) -> dict[int, tuple[str, str]]:
    """Name and figure of every finding that has one, by its index."""
    defined = np.flatnonzero(~np.isnan(values)).tolist()
    return {i: (findings[i].replace("_", " "), figure.format(values[i])) for i in defined}


def _panels(
    titles: Mapping[int, tuple[str, str]], draw: Callable[[Axes, int], None], xlabel: str, ylabel: str
) -> Figure:
    """A square panel for each finding of `titles`, both axes from 0 to 1, axes named once for all."""
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


def _annotated(scores: np.ndarray, labels: np.ndarray, finding: int) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(labels[:, finding])
    return labels[known, finding] == 1, scores[known, finding]


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `CURVE_POINTS` of a curve's points, evenly along its length, both ends among them."""
    if len(x) <= CURVE_POINTS:
        return x, y
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.searchsorted(length, np.linspace(0, length[-1], CURVE_POINTS))
    index = np.unique(np.concatenate([[0], np.minimum(wanted, len(x) - 1), [len(x) - 1]]))
    return x[index], y[index]


def _cycled(values: Sequence[str]) -> Any:
    while True:
        yield from values
