# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Model cards: metadata that the Hub takes, a run's own figures, nothing of the machine."""

import numpy as np
import pytest
from huggingface_hub import ModelCard

from clarity_hf import FINDINGS
from clarity_hf.reporting.model_card import write_model_card

METRICS = {"validation_auroc": 0.81234, "test_loss": 0.5} | {
    f"validation_auroc_{finding}": 0.7 + index / 100 for index, finding in enumerate(FINDINGS)
}


@pytest.fixture
def labels():
    """25 images: finding i has i positives, and one more that is not annotated."""
    labels = np.zeros((25, 14), dtype=np.float32)
    for finding in range(14):
        labels[:finding, finding] = 1
        labels[-1, finding] = np.nan
    return labels


def write(folder, model, labels, **changes):
    arguments = {
        "data": ["phantom"],
        "target": "phantom",
        "train_images": 20_000,
        "validation_labels": labels,
        "metrics": METRICS,
        "history": [
            {"loss": 0.9, "epoch": 0.5, "step": 5},
            {"eval_loss": 0.654321, "eval_auroc": 0.7, "epoch": 1.0, "step": 10},
            {"eval_loss": 0.5, "eval_auroc": float("nan"), "epoch": 2.0, "step": 20},
            {"train_loss": 0.6, "epoch": 2.0, "step": 20},
        ],
    } | changes
    path = write_model_card(folder, model, **arguments)
    return path, path.read_text(encoding="utf-8")


def table(text, heading):
    """Cells of the table under a heading, without its head."""
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_the_card_is_the_folders_readme_with_metadata_that_parses(tiny_model, labels, tmp_path):
    path, _ = write(tmp_path, tiny_model, labels)
    assert path == tmp_path / "README.md"
    data = ModelCard.load(path).data
    assert data.license == "apache-2.0"
    assert data.to_dict()["library_name"] == "transformers"
    assert data.pipeline_tag == "image-classification"
    assert "localization" in data.tags
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("roc_auc", 0.8123)
    assert result.dataset_name == "phantom (validation patients)"


def test_every_finding_has_its_row(tiny_model, labels, tmp_path):
    tiny_model.config.score_thresholds = [0.01 * (index + 1) for index in range(14)]
    _, text = write(tmp_path, tiny_model, labels)
    assert table(text, "Validation") == [
        [finding, str(index), f"{0.7 + index / 100:.3f}", f"{0.01 * (index + 1):.3f}"]
        for index, finding in enumerate(FINDINGS)
    ]


def test_every_evaluation_has_its_row(tiny_model, labels, tmp_path):
    _, text = write(tmp_path, tiny_model, labels)
    assert table(text, "Run") == [["1.00", "10", "0.654", "0.700"], ["2.00", "20", "0.500", "undefined"]]


def test_the_sizes_of_model_and_data_are_stated(tiny_model, labels, tmp_path):
    _, text = write(tmp_path, tiny_model, labels)
    assert "input 64 × 64." in text
    assert f"{tiny_model.num_parameters() / 1e6:.1f} M parameters" in text
    assert "20,000 images of phantom" in text
    assert " 25\nvalidation images" in text
    assert "Mean AUROC 0.812." in text
    assert "For research. Not a medical device" in text


def test_a_rectangular_input_is_stated_height_first(tiny_model, labels, tmp_path):
    tiny_model.clarity.resize_position_embeddings((64, 32))
    _, text = write(tmp_path, tiny_model, labels)
    assert "input 64 × 32." in text


def test_with_two_sources_the_evaluations_are_those_of_the_target(tiny_model, labels, tmp_path):
    history = [
        {"eval_phantom_loss": 0.1, "eval_phantom_auroc": 0.99, "epoch": 1.0, "step": 10},
        {"eval_nih_loss": 0.4, "eval_nih_auroc": 0.75, "epoch": 1.0, "step": 10},
    ]
    _, text = write(tmp_path, tiny_model, labels, data=["phantom", "nih"], target="nih", history=history)
    assert table(text, "Run") == [["1.00", "10", "0.400", "0.750"]]
    assert "images of phantom and nih;" in text
    assert "validation images of nih" in text


def test_undefined_figures_are_named_and_left_out_of_the_metadata(tiny_model, labels, tmp_path):
    metrics = METRICS | {"validation_auroc": float("nan"), "validation_auroc_Hernia": float("nan")}
    del metrics["validation_auroc_Edema"]
    path, text = write(tmp_path, tiny_model, labels, metrics=metrics)
    areas = {row[0]: row[2] for row in table(text, "Validation")}
    assert (areas["Hernia"], areas["Edema"], areas["Mass"]) == ("undefined", "undefined", "0.740")
    assert "Mean AUROC undefined." in text
    assert "nan" not in text.lower()
    assert not ModelCard.load(path).data.eval_results


def test_no_path_of_this_machine_is_in_the_card(tiny_model, labels, tmp_path):
    tiny_model.config._name_or_path = str(tmp_path / "start")
    _, text = write(tmp_path, tiny_model, labels)
    assert str(tmp_path) not in text
    assert "{{" not in text


def test_a_teacher_and_the_licence_question_are_named(tiny_model, labels, tmp_path):
    _, without = write(tmp_path, tiny_model, labels)
    _, taught = write(tmp_path, tiny_model, labels, teacher="convnextv2-nano-images")
    assert "No teacher" in without
    assert "Distilled from convnextv2-nano-images." in taught
    assert "CC-BY-NC-4.0" in taught


def test_a_card_says_that_no_epoch_could_be_chosen(tiny_model, labels, tmp_path):
    _, chosen = write(tmp_path, tiny_model, labels)
    _, text = write(tmp_path, tiny_model, labels, metrics=METRICS | {"validation_auroc": float("nan")})
    assert "the epoch and the thresholds were chosen on 25" in chosen
    assert "were chosen" not in text
    assert "the weights are those of the last step" in text
