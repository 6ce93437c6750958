# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Localization as `evaluate.Metric` modules: figures by hand, batches, and two processes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clarity_hf.metrics.localization import best_overlaps, filled_boxes
from clarity_hf.metrics.localization_metrics import (
    ChexlocalizeMiou,
    HamMaskIou,
    MaxBoxAcc,
    MaxBoxAccV2,
    PointingGame,
    TIobb,
    TIou,
    WangLocalization,
)
from clarity_hf.metrics.protocol import max_box_acc_v2, t_iou, wang_protocol
from clarity_hf.metrics.records import MAP_THRESHOLDS, AnnotationRecord, ImageRecord

NAMES = ["Mass", "Nodule"]
TARGET, FAR = [0, 0, 10, 10], [60, 60, 70, 70]
NAN = np.nan


def shifted(x):
    """IoU (10 − x) / (10 + x) with `TARGET`."""
    return [x, 0, 10 + x, 10]


def mask(*box):
    return filled_boxes(np.array([box]), (4, 4))


# Per metric: how it is made, its columns, and all that it says.
CASES = {
    "t_iou": (
        lambda **kwargs: TIou(NAMES, levels=(0.3, 0.5), **kwargs),
        {
            "predictions": [[shifted(2), FAR], [], [shifted(5)], [TARGET]],
            "references": [[TARGET], [TARGET], [TARGET, FAR], [TARGET]],
            "findings": [0, 0, 0, 1],
        },
        {
            **{"t_iou_0.3": 0.75, "t_iou_0.3_pooled": 0.6, "t_iou_0.3_Mass": 0.5, "t_iou_0.3_Nodule": 1.0},
            **{"t_iou_0.5": 0.625, "t_iou_0.5_pooled": 0.4, "t_iou_0.5_Mass": 0.25, "t_iou_0.5_Nodule": 1.0},
            **{"count_Mass": 4, "count_Nodule": 1},
        },
    ),
    "t_iobb": (
        lambda **kwargs: TIobb(NAMES, levels=(0.5,), **kwargs),
        {
            "predictions": [[[0, 0, 2, 2]], [shifted(5)]],
            "references": [[TARGET], [TARGET]],
            "findings": [0, 0],
        },
        {
            **{"t_iobb_0.5": 0.5, "t_iobb_0.5_pooled": 0.5, "t_iobb_0.5_Mass": 0.5, "t_iobb_0.5_Nodule": NAN},
            **{"count_Mass": 2, "count_Nodule": 0},
        },
    ),
    "wang": (
        lambda **kwargs: WangLocalization(NAMES, levels=(0.5,), iobb_levels=(0.9,), **kwargs),
        {
            "predictions": [[shifted(2), FAR, [0, 0, 4, 5]], [FAR, shifted(5)]],
            "references": [[TARGET], [TARGET, FAR]],
            "findings": [0, 1],
        },
        {
            **{"wang_iou_0.5": 0.75, "wang_iou_0.5_pooled": 2 / 3, "wang_iou_0.5_Mass": 1, "wang_iou_0.5_Nodule": 0.5},
            **{"wang_iou_false_boxes_0.5": 1.5, "wang_iou_false_boxes_0.5_pooled": 1.5},
            **{"wang_iou_false_boxes_0.5_Mass": 2, "wang_iou_false_boxes_0.5_Nodule": 1},
            **{"wang_iobb_0.9": 0.75, "wang_iobb_0.9_pooled": 2 / 3},
            **{"wang_iobb_0.9_Mass": 1, "wang_iobb_0.9_Nodule": 0.5},
            **{"wang_iobb_false_boxes_0.9": 1.5, "wang_iobb_false_boxes_0.9_pooled": 1.5},
            **{"wang_iobb_false_boxes_0.9_Mass": 2, "wang_iobb_false_boxes_0.9_Nodule": 1},
            **{"count_Mass": 1, "count_Nodule": 2},
        },
    ),
    "mask_iou": (
        lambda **kwargs: HamMaskIou(NAMES, levels=(0.4,), **kwargs),
        {
            "predictions": [mask(0, 0, 2, 2), mask(0, 0, 0, 0)],
            "references": [mask(0, 0, 4, 2), mask(0, 0, 4, 4)],
            "findings": [1, 1],
        },
        {
            **{"mask_iou": 0.25, "mask_iou_pooled": 0.25, "mask_iou_Mass": NAN, "mask_iou_Nodule": 0.25},
            **{"mask_iou_above_0.4": 0.5, "mask_iou_above_0.4_pooled": 0.5, "mask_iou_above_0.4_Mass": NAN},
            **{"mask_iou_above_0.4_Nodule": 0.5, "count_Mass": 0, "count_Nodule": 2},
        },
    ),
    "miou": (
        lambda **kwargs: ChexlocalizeMiou(NAMES, cutoffs=[0.5, 0.2], **kwargs),
        {
            "predictions": [mask(0, 0, 2, 2), mask(0, 0, 4, 4), mask(0, 0, 0, 0), mask(0, 0, 4, 4)],
            "references": [mask(0, 0, 4, 2), mask(0, 0, 4, 4), mask(0, 0, 4, 4), mask(0, 0, 4, 1)],
            "findings": [0, 0, 0, 1],
            "scores": [0.5, 0.49, 0.9, 0.3],
        },
        {
            **{"miou": 0.375, "miou_pooled": 0.375, "miou_Mass": 0.5, "miou_Nodule": 0.25},
            **{"count_Mass": 1, "count_Nodule": 1},
        },
    ),
    "hit_rate": (
        lambda **kwargs: PointingGame(NAMES, **kwargs),
        {
            "predictions": [[5, 5], [10, 5], [65, 65]],
            "references": [[TARGET], [TARGET], [TARGET, FAR]],
            "findings": [0, 0, 1],
        },
        {
            **{"hit_rate": 0.75, "hit_rate_pooled": 2 / 3, "hit_rate_Mass": 0.5, "hit_rate_Nodule": 1},
            **{"count_Mass": 2, "count_Nodule": 1},
        },
    ),
    "max_box_acc": (
        lambda **kwargs: MaxBoxAcc(NAMES, **kwargs),
        {
            "predictions": [[[TARGET], []], [[FAR], [shifted(5)]], [[], [[0, 0, 10, 5]]]],
            "references": [[TARGET], [TARGET], [TARGET]],
            "findings": [0, 0, 1],
        },
        {
            **{"max_box_acc": 0.75, "max_box_acc_pooled": 1 / 3, "max_box_acc_Mass": 0.5, "max_box_acc_Nodule": 1.0},
            **{"count_Mass": 2, "count_Nodule": 1},
        },
    ),
    "max_box_acc_v2": (
        lambda **kwargs: MaxBoxAccV2(NAMES, **kwargs),
        {
            "predictions": [[[FAR, TARGET], []], [[FAR], [shifted(5)]]],
            "references": [[TARGET], [TARGET]],
            "findings": [0, 0],
        },
        {
            **{"max_box_acc_v2": 0.5, "max_box_acc_v2_pooled": 0.5, "max_box_acc_v2_Mass": 0.5},
            **{"max_box_acc_v2_Nodule": NAN, "count_Mass": 2, "count_Nodule": 0},
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_as_computed_by_hand(case, tmp_path):
    make, columns, expected = CASES[case]
    assert make(cache_dir=str(tmp_path)).compute(**columns) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("case", CASES)
def test_batches_and_processes_are_gathered(case, tmp_path):
    make, columns, expected = CASES[case]
    rows = len(columns["findings"])

    def run(process):
        metric = make(num_process=2, process_id=process, experiment_id="two", cache_dir=str(tmp_path), timeout=60)
        for row in range(process, rows, 2):
            metric.add_batch(**{name: column[row : row + 1] for name, column in columns.items()})
        return metric.compute()

    # The processes meet in locked files and nowhere else, so that two threads stand for them.
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(run, range(2))
    assert first == pytest.approx(expected, nan_ok=True)
    assert second is None


def test_arrays_are_taken_as_lists(tmp_path):
    make, columns, expected = CASES["t_iou"]
    arrays = {
        name: [np.array(boxes, dtype=np.float64).reshape(-1, 4) for boxes in columns[name]]
        for name in ("predictions", "references")
    }
    metric = make(cache_dir=str(tmp_path))
    assert metric.compute(**arrays, findings=np.array(columns["findings"])) == pytest.approx(expected)


def test_the_metrics_agree_with_the_protocols_on_records(tmp_path):
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 50, (30, len(MAP_THRESHOLDS) + 3, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(20, 50, corners.shape)], axis=-1)[:, :, None]
    records = [
        ImageRecord(
            *(str(row), str(row), (100, 100), np.zeros(2), np.zeros(2), np.zeros(2), ()),
            (
                AnnotationRecord(
                    *(row % 2, found[0], NONE, tuple(found[3:]), np.zeros(len(MAP_THRESHOLDS)), False),
                    (found[1], found[2]),
                    np.array([[best_overlaps(found[0], one).max() for one in found[3:]]] * 2),
                ),
            ),
        )
        for row, found in enumerate(boxes)
    ]
    columns = {"references": [found[0] for found in boxes], "findings": [row % 2 for row in range(30)]}
    half = MAP_THRESHOLDS.index(0.5) + 3
    found = TIou(NAMES, cache_dir=str(tmp_path)).compute(predictions=[one[half] for one in boxes], **columns)
    expected = t_iou(records, [0.5, 0.5])
    for column, level in enumerate(expected.levels):
        assert found[f"t_iou_{level:g}"] == pytest.approx(expected.macro[column])
        assert found[f"t_iou_{level:g}_pooled"] == pytest.approx(expected.pooled[column])
    assert found["t_iou_0.1"] > found["t_iou_0.3"] > 0
    regions = [list(one[3:]) for one in boxes]
    second = MaxBoxAccV2(NAMES, cache_dir=str(tmp_path)).compute(predictions=regions, **columns)
    assert second["max_box_acc_v2_pooled"] == pytest.approx(max_box_acc_v2(records).pooled)
    assert second["max_box_acc_v2"] == pytest.approx(max_box_acc_v2(records).macro)
    both = [np.concatenate([one[1], one[2]]) for one in boxes]
    wang = WangLocalization(NAMES, cache_dir=str(tmp_path)).compute(predictions=both, **columns)
    theirs = wang_protocol(records)
    assert wang["wang_iou_0.2_Mass"] == pytest.approx(theirs.iou.found((0.2,)).shares[0, 0])
    assert wang["wang_iobb_false_boxes_0.25_Nodule"] == pytest.approx(theirs.false_boxes_iobb[1, 1])


NONE = np.zeros((0, 4))


def test_an_unknown_finding_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`findings` must be indices of the 2 findings, got 0 to 2"):
        TIou(NAMES, cache_dir=str(tmp_path)).compute(
            predictions=[[], []], references=[[TARGET], [TARGET]], findings=[0, 2]
        )


def test_every_row_has_the_same_thresholds(tmp_path):
    with pytest.raises(ValueError, match=r"`predictions` must have boxes at the same thresholds .* got \[1, 2\]"):
        MaxBoxAcc(NAMES, cache_dir=str(tmp_path)).compute(
            predictions=[[[], []], [[]]], references=[[TARGET], [TARGET]], findings=[0, 0]
        )


def test_there_is_one_cutoff_a_finding():
    with pytest.raises(ValueError, match=r"`cutoffs` must be \(2,\), got \(3,\)"):
        ChexlocalizeMiou(NAMES, cutoffs=[0.1, 0.2, 0.3])
