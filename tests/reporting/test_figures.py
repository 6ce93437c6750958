# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures: a panel where a finding is defined, curves of hand-computed cases, the same file for the same figure."""

import sys

import numpy as np
import pytest

from clarity_hf.metrics.localization import PerFinding
from clarity_hf.reporting import figures as curves

FINDINGS = ("Mass", "Pleural_Thickening", "Hernia")
# Mass: one of two positives above the only negative, the other below. Thickening: perfect. Hernia: no positive.
SCORES = np.array([[0.9, 0.8, 0.1], [0.5, 0.2, 0.2], [0.2, 0.1, 0.3]])
LABELS = np.array([[1, 1, 0], [0, 0, 0], [1, 0, np.nan]], dtype=np.float64)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def curve(axes, colour=curves.BLUE):
    (line,) = (line for line in axes.lines if line.get_color() == colour)
    return np.column_stack(line.get_data()).tolist()


@pytest.mark.parametrize(
    ("kind", "panels"), [("roc", 2), ("precision_recall", 2), ("reliability", 3)]  # an ECE needs no positives
)
def test_a_finding_without_a_figure_has_no_panel(kind, panels):
    names = ["Mass", "Pleural Thickening", "Hernia"]
    assert titles(curves.finding_figure(kind, FINDINGS, SCORES, LABELS)) == names[:panels]


def test_a_roc_curve_is_the_one_computed_by_hand():
    mass, thickening = curves.finding_figure("roc", FINDINGS, SCORES, LABELS).axes
    assert curve(mass) == [[0, 0], [0, 0.5], [1, 0.5], [1, 1]]
    assert curve(thickening)[:2] == [[0, 0], [0, 1]]
    assert [text.get_text() for text in mass.texts] == ["AUROC 0.500"]


def test_precision_over_recall_is_the_one_computed_by_hand():
    mass = curves.finding_figure("precision_recall", FINDINGS, SCORES, LABELS).axes[0]
    assert curve(mass) == [[1, 2 / 3], [0.5, 0.5], [0.5, 1], [0, 1]]
    assert mass.lines[0].get_ydata() == pytest.approx([2 / 3, 2 / 3])  # a guess


def test_reliability_leaves_empty_bins_out():
    scores, labels = np.array([[0.05], [0.05], [0.95]]), np.array([[0.0], [1.0], [1.0]])
    (axes,) = curves.finding_figure("reliability", ("Mass",), scores, labels).axes
    assert np.array(curve(axes)) == pytest.approx(np.array([[0.05, 0.5], [0.95, 1.0]]))


def test_a_figure_without_any_curve_is_empty():
    figure = curves.finding_figure("roc", ("Mass",), np.zeros((2, 1)), np.zeros((2, 1)))
    assert figure.axes == []
    assert curves.figure_bytes(figure, "png").startswith(b"\x89PNG")


def test_published_figures_look_different_and_skip_unknown_levels():
    measured = {"ours": np.array([0.9, 0.5, 0.1]), "Fixed-box baseline": np.array([0.5, 0.2, 0.0])}
    figure = curves.boxes_figure((0.1, 0.3, 0.5), measured, {"Wang": {0.1: 0.5, 0.5: 0.1}})
    ours, fixed, wang = figure.axes[0].lines
    assert [line.get_linestyle() for line in (ours, fixed, wang)] == ["-", "--", ":"]
    assert wang.get_xdata().tolist() == [0.1, 0.5]
    assert wang.get_color() == curves.GREY
    own, published = (child for child in figure.axes[0].get_children() if type(child).__name__ == "Legend")
    titles = {
        legend.get_title().get_text(): [text.get_text() for text in legend.get_texts()] for legend in (own, published)
    }
    assert titles == {"on this data": ["ours", "Fixed-box baseline"], "published, on NIH's 984 boxes": ["Wang"]}


def test_boxes_per_finding_show_the_method_and_the_fixed_box():
    found, fixed = (
        PerFinding(np.array([5, 0]), np.array([shares, [np.nan, np.nan]]), np.array(shares), np.array(shares))
        for shares in ([0.8, 0.2], [0.4, 0.1])
    )
    figure = curves.boxes_per_finding_figure(("Mass", "Hernia"), (0.1, 0.5), found, fixed)
    assert titles(figure) == ["Mass"]
    assert curve(figure.axes[0]) == [[0.1, 0.8], [0.5, 0.2]]
    assert curve(figure.axes[0], curves.VERMILLION) == [[0.1, 0.4], [0.5, 0.1]]
    assert figure.axes[0].texts[0].get_text() == "5 boxes"


def test_a_long_curve_is_thinned_to_its_ends_and_its_shape():
    x = np.linspace(0, 1, 25_000)
    thin = np.column_stack(curves._thinned(x, x**2))
    assert len(thin) <= curves.CURVE_POINTS + 2
    assert thin[0].tolist() == [0, 0]
    assert thin[-1].tolist() == [1, 1]
    assert np.abs(np.interp(x, *thin.T) - x**2).max() < 1e-3


def test_the_same_figure_gives_the_same_file_and_matplotlib_keeps_its_state():
    def svg():
        return curves.figure_bytes(curves.finding_figure("roc", FINDINGS, SCORES, LABELS), "svg")

    assert svg() == svg()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[report\]'"):
        curves.finding_figure("roc", FINDINGS, SCORES, LABELS)
