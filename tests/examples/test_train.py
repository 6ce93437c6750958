# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/train.py: from nothing to a folder that the pipeline loads, and on from where it was stopped."""

import dataclasses
import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification, ViTConfig, ViTModel, pipeline

import clarity_hf
from clarity_hf import FINDINGS, ClarityImageProcessor
from clarity_hf.data.phantoms import draw_phantom, write_phantoms
from clarity_hf.training.runs import parse_arguments
from clarity_hf.training.teacher_cache import cache_teacher_logits

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"
SETTINGS = [
    *("--size", "ti16", "--image_size", "64", "--phantom_count", "48", "--min_positives", "1", "--use_cpu"),
    *("--per_device_train_batch_size", "8", "--per_device_eval_batch_size", "50", "--logging_steps", "1"),
    *("--bf16", "False"),
]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Folder and output of three steps through the launcher, as the docstring of the example has it."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"),
            *(str(SCRIPT), "--output_dir", str(folder), *SETTINGS, "--max_steps", "3"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_it_ends_with_the_folder_and_its_auroc(first_run):
    folder, out = first_run
    last = out.strip().splitlines()[-1]
    assert last.startswith(f"saved {folder}: validation AUROC 0.")
    assert last.endswith("(200 films)")
    assert "resuming from" not in out


def test_the_folder_loads_in_the_pipeline(first_run):
    folder, _ = first_run
    localizer = pipeline(clarity_hf.TASK, model=str(folder), device="cpu")
    findings = localizer(draw_phantom(0, 64).image)
    assert {finding["label"] for finding in findings} == set(clarity_hf.FINDINGS)
    thresholds = localizer.model.config.score_thresholds
    assert len(thresholds) == 14
    assert len(set(thresholds)) > 1  # chosen, no longer the default
    assert all(0 < threshold < 1 for threshold in thresholds)
    assert localizer.image_processor.size["height"] == 64


def test_the_run_leaves_its_history_and_a_card(first_run):
    folder, _ = first_run
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    assert [entry["step"] for entry in state["log_history"] if "loss_background" in entry] == [1, 2, 3]
    evaluations = [entry for entry in state["log_history"] if "eval_auroc" in entry]
    assert [entry["step"] for entry in evaluations] == [3]
    card = ModelCard.load(folder / "README.md")
    assert "48 films of phantom" in card.text
    assert card.data.eval_results[0].metric_value == pytest.approx(evaluations[0]["eval_auroc"], abs=1e-3)
    assert str(folder) not in card.content


def test_a_second_call_goes_on_where_the_first_stopped(first_run, script, monkeypatch, capsys):
    folder, _ = first_run
    before = load_file(folder / "model.safetensors")
    command = ["train.py", "--output_dir", str(folder), *SETTINGS, "--max_steps", "5"]
    # In this process: a second launch would cost another ten seconds of imports.
    in_process = ["--dataloader_num_workers", "0"]
    monkeypatch.setattr(sys, "argv", command + in_process)
    script.main()
    out = capsys.readouterr().out
    assert f"resuming from {folder / 'checkpoint-3'}" in out
    state = json.loads((folder / "checkpoint-5" / "trainer_state.json").read_text())
    assert state["global_step"] == 5
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3, 4, 5]
    after = load_file(folder / "checkpoint-5" / "model.safetensors")
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_a_new_model_starts_at_the_prevalence_of_its_films(script):
    labels = np.zeros((4, 14))
    labels[0] = 1  # a quarter of the films has every finding
    labels[1, 5] = np.nan  # and a third of the annotated ones Nodule
    model = script.build_model(script.ScriptArguments(size="ti16", image_size=32), FINDINGS, labels)
    bias = model.ranking_pooling.bias.tolist()
    assert bias[0] == pytest.approx(math.log(1 / 3), abs=1e-3)
    assert bias[5] == pytest.approx(math.log(1 / 2), abs=1e-3)


@pytest.mark.parametrize(("prior", "suppresses"), [("auto", True), ("atlas", True), ("none", False)])
def test_without_a_prior_a_new_model_suppresses_no_background(script, prior, suppresses):
    arguments = script.ScriptArguments(size="ti16", image_size=32, prior=prior)
    model = script.build_model(arguments, FINDINGS, np.zeros((1, 14)))
    assert model.config.background_suppression is suppresses


def test_fields_of_the_config_are_changed_by_json_and_checked(script, tiny_checkpoint):
    labels = np.zeros((1, 14))
    for model in (None, str(tiny_checkpoint)):
        size = None if model else "ti16"
        arguments = script.ScriptArguments(model=model, size=size, image_size=64, config='{"ranking_share": 0.1}')
        assert script.build_model(arguments, FINDINGS, labels).ranking_pooling.share == 0.1
        arguments.config = '{"ranking_share": 2}'
        with pytest.raises(ValueError, match="ranking_share"):
            script.build_model(arguments, FINDINGS, labels)


def test_a_checkpoint_is_continued_at_another_size(script, tiny_checkpoint):
    arguments = script.ScriptArguments(model=str(tiny_checkpoint), image_size=96, drop_path_rate=0.1)
    model = script.build_model(arguments, FINDINGS, np.zeros((1, 14)))
    assert model.config.image_size == 96
    assert model.clarity.embeddings.patch_positions.shape == (1, 36, 48)
    assert model.clarity.layers[-1].drop_path.p == 0.1


def test_a_checkpoint_takes_other_findings_and_keeps_those_it_knows(script, tiny_checkpoint, capsys):
    arguments = script.ScriptArguments(model=str(tiny_checkpoint), image_size=64, balance_positives=True)
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    model = script.build_model(arguments, ["Rib_Fracture", "Effusion"], labels)
    before = script.ClarityForMultiLabelLocalization.from_pretrained(str(tiny_checkpoint))
    own, old = (m.segment_cam.cam.weight for m in (model, before))
    torch.testing.assert_close(own[1], old[before.config.findings.index("Effusion")])
    assert model.config.positive_weights == [3.0, 1.0]
    assert "Rib_Fracture" in capsys.readouterr().out


def test_the_encoder_starts_from_a_vit_of_transformers(script, tmp_path, capsys):
    vit = ViTModel(
        ViTConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=64)
    )
    vit.save_pretrained(tmp_path)
    arguments = script.ScriptArguments(init=str(tmp_path), image_size=96)
    model = script.build_model(arguments, FINDINGS, np.zeros((1, 14)))
    torch.testing.assert_close(
        model.clarity.embeddings.patch_projection.weight,
        vit.embeddings.patch_embeddings.projection.weight,
    )
    assert model.config.image_size == 96
    assert "resampled" in capsys.readouterr().out


def test_another_runs_folder_is_not_resumed(script, first_run):
    folder, _ = first_run
    args = script.ClarityTrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match=r"differs in \['image_size'"):
        script.last_checkpoint(args, dataclasses.asdict(script.ScriptArguments(image_size=512)))


def test_a_cache_of_logits_refuses_random_crops(script):
    with pytest.raises(ValueError, match="`teacher_cache` must come with --teacher and --augment flip or none"):
        script.ScriptArguments(teacher="folder", teacher_cache="cache")


def test_a_checkpoint_is_not_initialised_a_second_time(script):
    with pytest.raises(ValueError, match="`init` must be left out with --model"):
        script.ScriptArguments(model="clarity-s16-224", init="facebook/dino-vits16")


@pytest.mark.parametrize("start", [{"model": "clarity-s16-224"}, {"init": "facebook/dino-vits16"}])
def test_weights_that_are_given_have_their_size(script, start):
    with pytest.raises(ValueError, match="`size` must be left out with --model and --init, got ti16"):
        script.ScriptArguments(size="ti16", **start)
    assert script.ScriptArguments(**start).size is None
    assert script.ScriptArguments().size == "s16"


@pytest.mark.parametrize("prior", ["atlas", "none"])
def test_masks_that_would_not_be_read_are_refused(script, prior):
    with pytest.raises(ValueError, match=f"`masks_dir` must come with --prior auto or masks, got --prior {prior}"):
        script.ScriptArguments(masks_dir="masks", prior=prior)


def test_masks_alone_are_no_prior_for_films_without_any(script, tmp_path, monkeypatch):
    write_phantoms(tmp_path / "films", 20, seed=3, size=64)
    shutil.rmtree(tmp_path / "films" / "masks")
    options = ("--data_dir", tmp_path / "films", "--prior", "masks", "--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match="`prior` must be auto, atlas or none where no film has a mask, got masks"):
        run(script, monkeypatch, *options)


def test_a_checkpoint_keeps_its_preprocessing_but_for_the_size(script, tiny_checkpoint, tmp_path):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "own")
    own = {"image_mean": (0.4, 0.5, 0.6), "image_std": (0.1, 0.2, 0.3), "keep_ratio": False}
    ClarityImageProcessor(size={"height": 64, "width": 64}, **own).save_pretrained(folder)
    for side in (None, 96):
        processor = script.build_processor(script.ScriptArguments(model=str(folder), image_size=side))
        assert {name: getattr(processor, name) for name in own} == own
        assert dict(processor.size) == {"height": side or 64, "width": side or 64}
    model = script.build_model(script.ScriptArguments(model=str(folder)), FINDINGS, np.zeros((1, 14)))
    assert model.config.image_size == 64


def test_a_new_model_is_given_as_many_channels_as_it_has(script):
    processor = script.build_processor(script.ScriptArguments(config='{"num_channels": 1}'))
    assert (processor.image_mean, processor.image_std) == ((0.5056,), (0.252,))
    assert dict(processor.size) == {"height": 224, "width": 224}
    assert processor(draw_phantom(0, 64).image, return_tensors="pt").pixel_values.shape == (1, 1, 224, 224)
    assert script.build_processor(script.ScriptArguments()).image_mean == (0.5056,) * 3


def save_teacher(folder):
    """A ConvNeXtV2 of a few weights for the 14 findings."""
    names = dict(enumerate(FINDINGS))
    config = ConvNextV2Config(
        hidden_sizes=[8] * 4, depths=[1] * 4, id2label=names, label2id={name: i for i, name in names.items()}
    )
    ConvNextV2ForImageClassification(config).save_pretrained(folder)
    ClarityImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def run(script, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["train.py", *SETTINGS, *map(str, options)])
    script.main()


def logged_parts(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {name for entry in history for name in entry if name.startswith("loss_")}


def test_cached_logits_distil_with_the_atlas_from_a_folder_of_films(script, tmp_path, monkeypatch, capsys):
    write_phantoms(tmp_path / "films", 40, seed=3, size=64)
    shutil.rmtree(tmp_path / "films" / "masks")  # so that the atlas is the prior
    save_teacher(tmp_path / "teacher")
    options = (
        *("--data_dir", tmp_path / "films", "--teacher", tmp_path / "teacher", "--teacher_cache", tmp_path / "logits"),
        *("--augment", "flip", "--max_steps", "2", "--output_dir", tmp_path / "out", "--layer_decay", "0.65"),
    )
    asked = {}

    def cache(*arguments, **settings):
        asked.update(settings)
        return cache_teacher_logits(*arguments, **settings)

    monkeypatch.setattr(script, "cache_teacher_logits", cache)
    run(script, monkeypatch, *options)
    assert asked == {"batch_size": 50, "num_workers": 1}
    assert "saved" in capsys.readouterr().out
    assert logged_parts(tmp_path / "out") == {
        *("loss_class_token", "loss_patch", "loss_orthogonal", "loss_foreground", "loss_background"),
        *("loss_class_token_distillation", "loss_patch_distillation"),
    }
    assert list((tmp_path / "logits").rglob("*.safetensors"))
    assert not list(tmp_path.glob("out/*.bin"))


def test_films_are_streamed_from_a_folder(script, tmp_path, monkeypatch, capsys):
    write_phantoms(tmp_path / "films", 40, seed=3, size=64)
    options = ("--data_dir", tmp_path / "films", "--streaming", "--max_steps", "3", "--output_dir", tmp_path / "out")
    run(script, monkeypatch, *options)
    assert "saved" in capsys.readouterr().out
    assert "a stream of" in (tmp_path / "out" / "README.md").read_text()


def test_only_one_data_set_is_streamed(script, tmp_path, monkeypatch):
    for name in ("one", "two"):
        write_phantoms(tmp_path / name, 20, seed=3, size=64)
    options = ("--data_dir", tmp_path / "one", tmp_path / "two", "--streaming", "--max_steps", "3")
    with pytest.raises(ValueError, match="`streaming` must be of one data set"):
        run(script, monkeypatch, *options, "--output_dir", tmp_path / "out")


STAGES = sorted(path for path in (SCRIPT.parent / "starter").glob("*.yaml") if path.stem != "teacher")


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_a_stage_of_the_packaged_checkpoint_is_what_the_script_accepts_and_goes_on_from_the_one_before(script, path):
    classes = (script.ScriptArguments, script.ClarityTrainingArguments)
    stage, args = parse_arguments(classes, script.DEFAULTS, [str(path), "--use_cpu", "True", "--bf16", "False"])
    assert args.matrix_optimizer == "muon"
    assert Path(args.output_dir).name == path.stem
    place = STAGES.index(path)
    if place == 0:
        assert stage.model is None
    else:
        assert Path(stage.model).parts[:3] == ("runs", "starter", STAGES[place - 1].stem)
