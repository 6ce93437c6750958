# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The `evaluate` metric of training: names, batches, threads and processes."""

import inspect
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from transformers import EvalPrediction

from clarity_hf.evaluation.trainer_metrics import MultilabelAuroc
from clarity_hf.metrics.classification import auroc_per_finding, mean_auroc

NAN = np.nan


def images(seed, count=200, findings=5, steps=None):
    """Probabilities `(n, F)` and labels with NaN that depend on them; scores of few `steps` have many ties."""
    generator = np.random.default_rng(seed)
    scores = generator.uniform(size=(count, findings))
    if steps:
        scores = np.round(scores * steps) / steps
    labels = (generator.uniform(size=scores.shape) < scores**2).astype(float)
    labels[generator.uniform(size=labels.shape) < 0.2] = NAN
    return scores, labels


SCORES = [[0.1, 0.4], [0.4, 0.9], [0.35, 0.2], [0.8, 0.1]]
LABELS = [[0, 0], [0, 1], [1, 0], [1, NAN]]
EXPECTED = {"auroc": 0.875, "auroc_Mass": 0.75, "auroc_Nodule": 1.0}


def test_the_metric_names_its_findings(tmp_path):
    metric = MultilabelAuroc(["Mass", "Nodule"], cache_dir=str(tmp_path))
    assert metric.compute(predictions=SCORES, references=LABELS) == pytest.approx(EXPECTED)


def test_the_metric_gathers_batches(tmp_path):
    metric = MultilabelAuroc(["Mass", "Nodule"], cache_dir=str(tmp_path))
    for start in (0, 2):
        metric.add_batch(predictions=SCORES[start : start + 2], references=LABELS[start : start + 2])
    assert metric.compute() == pytest.approx(EXPECTED)


def test_the_metric_lists_rare_findings_but_leaves_them_out_of_the_mean(tmp_path):
    metric = MultilabelAuroc(["Mass", "Nodule"], min_positives=2, cache_dir=str(tmp_path))
    expected = EXPECTED | {"auroc": EXPECTED["auroc_Mass"]}
    assert metric.compute(predictions=SCORES, references=LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_the_metric_takes_arrays_as_a_trainer_has_them(dtype, tmp_path):
    scores, labels = images(10)
    scores = scores.astype(dtype)
    metric = MultilabelAuroc(list("abcde"), cache_dir=str(tmp_path))
    result = metric.compute(predictions=scores, references=labels.astype(np.float32))
    np.testing.assert_array_equal(list(result.values())[1:], auroc_per_finding(scores, labels))


def test_the_metric_does_not_tie_scores_that_differ(tmp_path):
    metric = MultilabelAuroc(["Mass"], cache_dir=str(tmp_path))
    assert metric.compute(predictions=[[1 - 1e-9], [1 - 2e-9]], references=[[1], [0]])["auroc"] == 1


def test_a_trainers_logits_have_the_auroc_of_their_sigmoid(tmp_path):
    scores, labels = images(11, findings=2)
    prediction = EvalPrediction(predictions=np.log(scores / (1 - scores)), label_ids=labels)
    areas = MultilabelAuroc(["Mass", "Nodule"], cache_dir=str(tmp_path)).of_prediction(prediction)
    assert areas["auroc"] == pytest.approx(mean_auroc(scores, labels))


def test_the_metric_refuses_other_columns_than_its_findings(tmp_path):
    metric = MultilabelAuroc(["Mass"], cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="`predictions` must have 1 columns, one per finding, got 2"):
        metric.compute(predictions=SCORES, references=LABELS)


def test_the_metric_gathers_two_threads(tmp_path):
    def run(process):
        metric = MultilabelAuroc(
            ["Mass", "Nodule"],
            num_process=2,
            process_id=process,
            experiment_id="two",
            cache_dir=str(tmp_path),
            timeout=60,
        )
        rows = slice(2 * process, 2 * process + 2)
        metric.add_batch(predictions=SCORES[rows], references=LABELS[rows])
        return metric.compute()

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(run, range(2))
    assert first == pytest.approx(EXPECTED)
    assert second is None


def gathered(process, cache, scores, labels):
    """The metric in one of two processes, fed image by image."""
    names, shared = ["Mass", "Nodule"], {"experiment_id": "two", "cache_dir": cache, "timeout": 250}
    metric = MultilabelAuroc(names, num_process=2, process_id=process, **shared)
    for row in range(2 * process, 2 * process + 2):
        metric.add_batch(predictions=scores[row : row + 1], references=labels[row : row + 1])
    return metric.compute()


def test_the_metric_gathers_two_processes_offline(tmp_path):
    code = [
        "import json",
        "from clarity_hf.evaluation.trainer_metrics import *",
        inspect.getsource(gathered),
        f"nan = float('nan')\nprint(json.dumps(gathered(1, {str(tmp_path)!r}, {SCORES}, {LABELS})))",
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "\n".join(code)]
    with subprocess.Popen(command, env=os.environ | offline, stdout=subprocess.PIPE, text=True) as second:
        first = gathered(0, str(tmp_path), SCORES, LABELS)
        assert json.loads(second.communicate(timeout=250)[0].splitlines()[-1]) is None
    assert first == pytest.approx(EXPECTED)
