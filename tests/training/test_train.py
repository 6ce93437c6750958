# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The training recipe: what its arguments make of data, model and teacher, and what a run leaves."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification, ViTConfig, ViTModel

from clarity_hf import FINDINGS, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.configuration_clarity import TRAINING_DEFAULTS
from clarity_hf.phantoms import draw_phantom, write_phantoms
from clarity_hf.training import ClarityTrainingArguments
from clarity_hf.training import train as training
from clarity_hf.training.arguments import parse_arguments
from clarity_hf.training.recipes import open_recipe_sources
from clarity_hf.training.teacher_cache import cache_teacher_logits
from clarity_hf.training.train import TrainingRecipe, build_model, build_processor

SETTINGS = [
    *("--size", "ti16", "--image_size", "64", "--phantom_count", "48", "--min_positives", "1", "--use_cpu"),
    *("--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "50", "--logging_steps", "1"),
    *("--bf16", "False"),
]


def test_a_new_model_starts_at_the_prevalence_of_its_images():
    labels = np.zeros((4, 14))
    labels[0] = 1  # a quarter of the images has every finding
    labels[1, 5] = np.nan  # and a third of the annotated ones Nodule
    model = build_model(TrainingRecipe(size="ti16", image_size=32), FINDINGS, labels)
    bias = model.ranking_pooling.bias.tolist()
    assert bias[0] == pytest.approx(math.log(1 / 3), abs=1e-3)
    assert bias[5] == pytest.approx(math.log(1 / 2), abs=1e-3)


@pytest.mark.parametrize(("prior", "suppresses"), [("auto", True), ("atlas", True), ("none", False)])
def test_without_a_prior_a_new_model_suppresses_no_background(prior, suppresses):
    arguments = TrainingRecipe(size="ti16", image_size=32, prior=prior)
    model = build_model(arguments, FINDINGS, np.zeros((1, 14)))
    assert model.config.background_suppression is suppresses


def test_fields_of_the_config_are_changed_by_json_and_checked(tiny_checkpoint):
    labels = np.zeros((1, 14))
    for model in (None, str(tiny_checkpoint)):
        size = None if model else "ti16"
        arguments = TrainingRecipe(model=model, size=size, image_size=64, config='{"ranking_share": 0.1}')
        assert build_model(arguments, FINDINGS, labels).ranking_pooling.share == 0.1
        arguments.config = '{"ranking_share": 2}'
        with pytest.raises(ValueError, match="ranking_share"):
            build_model(arguments, FINDINGS, labels)


def test_a_checkpoint_is_continued_at_another_size(tiny_checkpoint):
    arguments = TrainingRecipe(model=str(tiny_checkpoint), image_size=96, drop_path_rate=0.1)
    model = build_model(arguments, FINDINGS, np.zeros((1, 14)))
    assert model.config.image_size == 96
    assert model.clarity.embeddings.patch_positions.shape == (1, 36, 48)
    assert model.clarity.layers[-1].drop_path.p == 0.1


def test_a_checkpoint_takes_other_findings_and_keeps_those_it_knows(tiny_checkpoint, capsys):
    arguments = TrainingRecipe(model=str(tiny_checkpoint), image_size=64, balance_positives=True)
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    model = build_model(arguments, ["Rib_Fracture", "Effusion"], labels)
    before = ClarityForMultiLabelLocalization.from_pretrained(str(tiny_checkpoint))
    own, old = (m.segment_cam.cam.weight for m in (model, before))
    torch.testing.assert_close(own[1], old[before.config.findings.index("Effusion")])
    assert model.config.positive_weights == [3.0, 1.0]
    assert "Rib_Fracture" in capsys.readouterr().out


def test_the_encoder_starts_from_a_vit_of_transformers(tmp_path, capsys):
    vit = ViTModel(
        ViTConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=64)
    )
    vit.save_pretrained(tmp_path)
    arguments = TrainingRecipe(init=str(tmp_path), image_size=96)
    model = build_model(arguments, FINDINGS, np.zeros((1, 14)))
    torch.testing.assert_close(
        model.clarity.embeddings.patch_projection.weight,
        vit.embeddings.patch_embeddings.projection.weight,
    )
    assert model.config.image_size == 96
    assert "resampled" in capsys.readouterr().out


def test_a_cache_of_logits_needs_a_teacher():
    with pytest.raises(ValueError, match="`teacher_cache` must come with --teacher, got cache alone"):
        TrainingRecipe(teacher_cache="cache")


@pytest.mark.parametrize("given", ["{pooling:linear}", "[1]", "linear"])
def test_a_config_that_is_no_json_object_is_named(given):
    with pytest.raises(ValueError, match=r"`config` must be a JSON object such as .*double quotes") as raised:
        TrainingRecipe(config=given)
    assert given in str(raised.value)


def test_a_checkpoint_is_not_initialised_a_second_time():
    with pytest.raises(ValueError, match="`init` must be left out with --model"):
        TrainingRecipe(model="clarity-s16-224", init="timm/vit_small_patch16_224.dino")


@pytest.mark.parametrize("start", [{"model": "clarity-s16-224"}, {"init": "timm/vit_small_patch16_224.dino"}])
def test_weights_that_are_given_have_their_size(start):
    with pytest.raises(ValueError, match="`size` must be left out with --model and --init, got ti16"):
        TrainingRecipe(size="ti16", **start)
    assert TrainingRecipe(**start).size is None
    assert TrainingRecipe().size == "s16"


@pytest.mark.parametrize("prior", ["atlas", "none"])
def test_masks_that_would_not_be_read_are_refused(prior):
    with pytest.raises(ValueError, match=f"`masks_dir` must come with --prior auto or masks, got --prior {prior}"):
        TrainingRecipe(masks_dir="masks", prior=prior)


def own_images(folder, count):
    """A table of phantoms, each of a patient of its own; Mass is empty but in the first."""
    lines = ["path,patient_id,Effusion,Mass"]
    for index in range(count):
        Image.fromarray(draw_phantom(index, 64).image).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{index},{index % 2},{'' if index else 1}")
    (folder / "own.csv").write_text("\n".join(lines) + "\n")
    return folder / "own.csv"


def test_data_without_validation_images_are_refused_before_the_first_step(tmp_path):
    options = ("--data_dir", own_images(tmp_path, 2), "--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match=r"must leave images for validation, got none of 2 in own. Add patients"):
        run(*options)


def test_an_empty_cell_may_mean_absent(tmp_path):
    recipe = TrainingRecipe(data_dir=[str(own_images(tmp_path, 2))], empty="negative")
    (source,) = open_recipe_sources(recipe, 64, 0).values()
    assert [list(row["labels"]) for row in source.train] == [[0, 1], [1, 0]]


def test_prior_masks_without_any_mask_is_refused(tmp_path):
    write_phantoms(tmp_path / "images", 20, seed=3, size=64)
    shutil.rmtree(tmp_path / "images" / "masks")
    options = ("--data_dir", tmp_path / "images", "--prior", "masks", "--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match="`prior` must be auto, atlas or none if no image has a mask, got masks"):
        run(*options)


def test_a_checkpoint_keeps_its_preprocessing_but_for_the_size(tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "own")
    own = {"image_mean": (0.4, 0.5, 0.6), "image_std": (0.1, 0.2, 0.3), "keep_ratio": False}
    ClarityImageProcessor(size={"height": 64, "width": 64}, **own).save_pretrained(folder)
    for side in (None, 96):
        processor = build_processor(TrainingRecipe(model=str(folder), image_size=side))
        assert {name: getattr(processor, name) for name in own} == own
        assert dict(processor.size) == {"height": side or 64, "width": side or 64}
    model = build_model(TrainingRecipe(model=str(folder)), FINDINGS, np.zeros((1, 14)))
    assert model.config.image_size == 64


def test_a_new_model_is_given_as_many_channels_as_it_has():
    processor = build_processor(TrainingRecipe(config='{"num_channels": 1}'))
    assert (processor.image_mean, processor.image_std) == ((0.5056,), (0.252,))
    assert dict(processor.size) == {"height": 224, "width": 224}
    assert processor(draw_phantom(0, 64).image, return_tensors="pt").pixel_values.shape == (1, 1, 224, 224)
    assert build_processor(TrainingRecipe()).image_mean == (0.5056,) * 3


def save_teacher(folder):
    """A ConvNeXtV2 of a few weights for the 14 findings."""
    names = dict(enumerate(FINDINGS))
    config = ConvNextV2Config(
        hidden_sizes=[8] * 4, depths=[1] * 4, id2label=names, label2id={name: i for i, name in names.items()}
    )
    ConvNextV2ForImageClassification(config).save_pretrained(folder)
    ClarityImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def run(*options):
    training.main([*SETTINGS, *map(str, options)])


def logged_parts(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {name for entry in history for name in entry if name.startswith("loss_")}


@pytest.mark.parametrize("augment", ["flip", "full"])
def test_cached_logits_distil_with_the_atlas_from_a_folder_of_images(tmp_path, monkeypatch, capsys, augment):
    write_phantoms(tmp_path / "images", 40, seed=3, size=64)
    shutil.rmtree(tmp_path / "images" / "masks")  # so that the atlas is the prior
    save_teacher(tmp_path / "teacher")
    options = (
        *(
            "--data_dir",
            tmp_path / "images",
            "--teacher",
            tmp_path / "teacher",
            "--teacher_cache",
            tmp_path / "logits",
        ),
        *("--augment", augment, "--max_steps", "2", "--output_dir", tmp_path / "out", "--layer_decay", "0.65"),
    )
    asked = {}

    def cache(*arguments, **settings):
        asked.update(settings)
        return cache_teacher_logits(*arguments, **settings)

    monkeypatch.setattr(training, "cache_teacher_logits", cache)
    run(*options)
    assert asked == {"views": ("identity", "mirror"), "batch_size": 50, "num_workers": 1}
    assert "saved" in capsys.readouterr().out
    assert logged_parts(tmp_path / "out") == {
        *("loss_class_token", "loss_patch", "loss_orthogonal", "loss_foreground", "loss_background"),
        *("loss_class_token_distillation", "loss_patch_distillation"),
    }
    assert list((tmp_path / "logits").rglob("*.safetensors"))
    assert not list(tmp_path.glob("out/*.bin"))


def test_images_are_streamed_from_a_folder(tmp_path, capsys):
    write_phantoms(tmp_path / "images", 40, seed=3, size=64)
    options = ("--data_dir", tmp_path / "images", "--streaming", "--max_steps", "3", "--output_dir", tmp_path / "out")
    classes = (TrainingRecipe, ClarityTrainingArguments)
    recipe, args = parse_arguments(classes, training.DEFAULTS, [*SETTINGS, *map(str, options)])
    metrics = training.train(recipe, args)
    assert f"saved {tmp_path / 'out'}: validation AUROC {metrics['validation_auroc']:.3f}" in capsys.readouterr().out
    assert "a stream of" in (tmp_path / "out" / "README.md").read_text()


def test_decoded_images_are_kept_and_a_run_resumes_with_another_folder_of_them(tmp_path, capsys):
    write_phantoms(tmp_path / "images", 20, seed=3, size=64)
    options = ("--data_dir", tmp_path / "images", "--output_dir", tmp_path / "out", "--save_steps", "1")
    options += ("--save_strategy", "steps", "--eval_strategy", "no", "--load_best_model_at_end", "False")
    run(*options, "--max_steps", "1", "--image_cache", tmp_path / "one")
    assert list((tmp_path / "one").rglob("*.safetensors"))
    run(*options, "--max_steps", "2", "--image_cache", tmp_path / "two")
    assert "resuming from" in capsys.readouterr().out


TRAINED = {"tiled_attention_rate": 0.85, "background_loss_weight": 0.2, "positive_weights": 2.0}
"""Settings that training alone reads, other than their defaults."""


def test_a_finished_run_leaves_no_settings_of_its_training_but_in_its_record(tmp_path):
    options = ("--config", json.dumps(TRAINED), "--drop_path_rate", "0.1", "--output_dir", tmp_path)
    options += ("--save_strategy", "steps", "--save_steps", "1", "--load_best_model_at_end", "False")
    run(*options, "--max_steps", "1")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in TRAINING_DEFAULTS} == TRAINING_DEFAULTS
    resumed = json.loads((tmp_path / "checkpoint-1" / "config.json").read_text())
    assert {name: resumed[name] for name in TRAINED} == TRAINED
    assert json.loads(json.loads((tmp_path / "run.json").read_text())["config"]) == TRAINED


def test_a_checkpoint_hands_no_settings_of_its_training_on(tiny_model, tmp_path):
    tiny_model.config.update(TRAINED | {"drop_path_rate": 0.1})
    tiny_model.save_pretrained(tmp_path)
    ClarityImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    labels = np.zeros((1, 14))
    model = build_model(TrainingRecipe(model=str(tmp_path)), FINDINGS, labels)
    assert {name: getattr(model.config, name) for name in TRAINING_DEFAULTS} == TRAINING_DEFAULTS
    model = build_model(TrainingRecipe(model=str(tmp_path), config='{"tiled_attention_rate": 0.3}'), FINDINGS, labels)
    assert model.config.tiled_attention_rate == 0.3
    assert model.config.background_loss_weight == 0


def test_validation_images_that_can_choose_no_epoch_give_a_warning(tmp_path, capsys):
    run("--max_steps", "1", "--min_positives", "99", "--output_dir", tmp_path / "out")
    assert "warning: no finding has 99 positives and a negative among the" in capsys.readouterr().out


def test_only_one_data_set_is_streamed(tmp_path):
    for name in ("one", "two"):
        write_phantoms(tmp_path / name, 20, seed=3, size=64)
    options = ("--data_dir", tmp_path / "one", tmp_path / "two", "--streaming", "--max_steps", "3")
    with pytest.raises(ValueError, match="`streaming` must be used with one data set"):
        run(*options, "--output_dir", tmp_path / "out")


def test_weights_that_a_changed_config_starts_at_random_are_printed(tiny_checkpoint, capsys):
    arguments = TrainingRecipe(model=str(tiny_checkpoint), config='{"num_hidden_layers": 3}')
    model = build_model(arguments, FINDINGS, np.zeros((1, 14)))
    assert len(model.clarity.layers) == 3
    said = capsys.readouterr().out
    assert "16 weights of the changed config are initialised: clarity.layers.2.attention.k_proj.bias, " in said


@pytest.mark.parametrize("config", [None, '{"num_hidden_layers": 3}'])
def test_a_checkpoint_that_lacks_its_own_weights_is_not_continued(tiny_checkpoint, tmp_path, config):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    del weights["class_token_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"got 1 missing: class_token_head.weight. Download the file again"):
        build_model(TrainingRecipe(model=str(folder), config=config), FINDINGS, np.zeros((1, 14)))
