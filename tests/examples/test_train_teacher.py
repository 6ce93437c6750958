# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/train_teacher.py: from nothing to a folder that is a teacher, and on from where it was stopped."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    TimmWrapperConfig,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from clarity_hf import FINDINGS, ClarityImageProcessor
from clarity_hf.data.phantoms import draw_phantom, write_phantoms
from clarity_hf.data.sources import open_source
from clarity_hf.data.transforms import FilmTransform
from clarity_hf.training import Teacher
from clarity_hf.training.runs import parse_arguments

SCRIPT = Path(__file__).parents[2] / "examples" / "train_teacher.py"
SETTINGS = [
    *("--size", "atto", "--image_size", "32", "--phantom_count", "24", "--min_positives", "1", "--use_cpu"),
    *("--per_device_train_batch_size", "40", "--per_device_eval_batch_size", "100", "--logging_steps", "1"),
    *("--bf16", "False", "--dataloader_num_workers", "0", "--disable_tqdm", "True"),
    *("--lr_scheduler_type", "constant", "--warmup_steps", "0"),  # so that the few steps move
]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_teacher_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def call(script, folder, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train_teacher.py", "--output_dir", str(folder), *SETTINGS, *more])
        script.main()


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A folder of forty small films in the layout of the release."""
    folder = tmp_path_factory.mktemp("data") / "few-films"
    write_phantoms(folder, 40, size=64)
    return folder


@pytest.fixture(scope="module")
def first_run(script, release, tmp_path_factory):
    """Folder of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    call(script, folder, "--data_dir", str(release), "--max_steps", "2")
    return folder


# The run -------------------------------------------------------------------------------------------------------------


def test_the_folder_is_a_teacher_that_sees_what_it_was_trained_on(first_run, script):
    processor = AutoImageProcessor.from_pretrained(first_run)
    assert isinstance(processor, ClarityImageProcessor)
    assert list(processor.image_mean) == script.IMAGENET_DEFAULT_MEAN
    assert list(processor.image_std) == script.IMAGENET_DEFAULT_STD
    student = ClarityImageProcessor(size={"height": 32, "width": 32})
    teacher = Teacher.from_pretrained(str(first_run), FINDINGS, student)
    assert teacher.size == (32, 32)
    row = {"image": draw_phantom(0, 32).image, "labels": np.zeros(14)}
    trained_on = script.FilmTransform(
        script.build_processor(script.ScriptArguments(image_size=32)), prior="none"
    )(row)["pixel_values"]
    model = AutoModelForImageClassification.from_pretrained(first_run).eval()
    with torch.no_grad():
        expected = model(trained_on[None]).logits
    seen = FilmTransform(student, prior="none")(row)["pixel_values"]
    torch.testing.assert_close(teacher(seen[None]), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(processor(row["image"], return_tensors="pt").pixel_values[0], trained_on)


def test_the_run_leaves_history_card_and_no_pickle(first_run, release):
    splits = open_source(str(release)).splits()
    state = json.loads((first_run / "trainer_state.json").read_text())
    evaluations = [entry for entry in state["log_history"] if "eval_auroc" in entry]
    assert [entry["step"] for entry in evaluations] == [1, 2]  # an epoch is one step
    assert all(math.isfinite(entry["eval_loss"]) for entry in evaluations)
    card = ModelCard.load(first_run / "README.md")
    assert card.data.license == "apache-2.0"
    assert f"Trained on {len(splits['train'])} films of few-films;" in card.text
    assert f"{len(splits['validation'])} validation films" in card.text
    best = max(entry["eval_auroc"] for entry in evaluations)
    assert f"Mean AUROC {best:.3f}" in card.text
    assert all(f"| {finding} | " in card.text for finding in FINDINGS)
    assert str(first_run.parent) not in card.content
    assert str(release.parent) not in card.content
    names = {path.name for path in first_run.iterdir() if path.is_file()}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    assert "model.safetensors" in names


def test_a_second_call_goes_on_where_the_first_stopped(first_run, script, release, capsys):
    before = load_file(first_run / "model.safetensors")
    call(script, first_run, "--data_dir", str(release), "--max_steps", "3")
    out = capsys.readouterr().out
    assert f"resuming from {first_run / 'checkpoint-2'}" in out
    assert out.strip().splitlines()[-1].startswith(f"saved {first_run}: validation AUROC 0.")
    state = json.loads((first_run / "checkpoint-3" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [1, 2, 3]
    after = load_file(first_run / "checkpoint-3" / "model.safetensors")
    assert any(not torch.equal(after[name], before[name]) for name in before)
    best = load_file(Path(state["best_model_checkpoint"]) / "model.safetensors")
    saved = load_file(first_run / "model.safetensors")
    assert all(torch.equal(best[name], saved[name]) for name in best)


# The loss ------------------------------------------------------------------------------------------------------------


def tiny_convnext(findings=("Mass", "Nodule"), **settings):
    torch.manual_seed(0)
    config = ConvNextV2Config(
        hidden_sizes=[8] * 4,
        depths=[1] * 4,
        id2label=dict(enumerate(findings)),
        label2id={finding: index for index, finding in enumerate(findings)},
        **settings,
    )
    return ConvNextV2ForImageClassification(config)


def film_rows(count):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count, 2), generator=generator).float()
    labels[labels == 2] = torch.nan
    labels[0] = torch.nan
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    return [{"pixel_values": pixels[index], "labels": labels[index]} for index in range(count)]


def plain_trainer(script, folder, rows, **settings):
    defaults = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_grad_norm": 0.0,
        "save_strategy": "no",
        "max_steps": 1,
        "logging_steps": 1,
    }
    return Trainer(
        model=tiny_convnext(),
        args=TrainingArguments(output_dir=str(folder), **defaults | settings),
        train_dataset=rows,
        eval_dataset=rows,
        compute_loss_func=script.annotated_loss,
    )


def test_a_step_is_the_same_however_its_films_are_accumulated(script, tmp_path):
    """8 × 1, 2 × 4 and 1 × 8 films, unannotated labels in unequal numbers."""
    rows, start = film_rows(8), tiny_convnext().state_dict()
    weights, losses = [], []
    for batch_size, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = plain_trainer(
            script,
            tmp_path,
            rows,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
        )
        trainer.train()
        weights.append(trainer.model.state_dict())
        losses.append(trainer.state.log_history[0]["loss"])
    assert (weights[0]["classifier.weight"] - start["classifier.weight"]).abs().max() > 1e-3
    for other in weights[1:]:
        for name, tensor in other.items():
            torch.testing.assert_close(tensor, weights[0][name], rtol=1e-5, atol=1e-6)
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-4)


def test_the_loss_is_a_mean_over_images_of_what_is_annotated(script, tmp_path):
    rows = film_rows(5)
    trainer = plain_trainer(script, tmp_path, rows, per_device_eval_batch_size=5)
    found = trainer.evaluate()["eval_loss"]
    with torch.no_grad():
        logits = trainer.model.eval()(torch.stack([row["pixel_values"] for row in rows])).logits.double()
    labels = torch.stack([row["labels"] for row in rows]).double()
    scores = logits.sigmoid()
    losses = -(labels * scores.log() + (1 - labels) * (1 - scores).log())
    assert labels.isnan().sum() >= 3
    assert found == pytest.approx((losses.nansum(1) / 2).mean().item(), rel=1e-4)


# The model -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "millions"), [("atto", 3.4), ("pico", 8.6), ("nano", 15.0)])
def test_sizes_are_the_papers(script, size, millions):
    """Parameters without the head, from the paper's table (ImageNet's head taken off 3.7, 9.1 and 15.6 M)."""
    with torch.device("meta"):
        depths, widths = script.SIZES[size]
        model = ConvNextV2ForImageClassification(ConvNextV2Config(depths=depths, hidden_sizes=widths, num_labels=14))
    head = sum(parameter.numel() for parameter in model.classifier.parameters())
    assert (model.num_parameters() - head) / 1e6 == pytest.approx(millions, abs=0.05)


def test_muon_takes_the_pointwise_convolutions_of_the_blocks_and_adamw_the_rest(script, tmp_path):
    model = script.build_model(script.ScriptArguments(size="atto"), ["A", "B"], np.array([0.5, 0.5]))
    args = TrainingArguments(output_dir=str(tmp_path), learning_rate=2e-3, weight_decay=0.1, use_cpu=True)
    optimizer = script.build_optimizer(model, args)
    names = {id(weight): name for name, weight in model.named_parameters()}
    hidden = [names[id(w)] for group in optimizer.param_groups if "ns_steps" in group for w in group["params"]]
    assert len(hidden) == 2 * sum(model.config.depths)
    assert all(".pwconv" in name for name in hidden)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    undecayed = [w for group in optimizer.param_groups if group["weight_decay"] == 0 for w in group["params"]]
    assert {names[id(weight)].rsplit(".", 2)[-2] for weight in undecayed} >= {"grn", "layernorm", "pwconv1", "dwconv"}
    assert all(max(weight.shape) == weight.numel() for weight in undecayed)


def test_a_new_model_starts_at_the_prevalence_of_its_films(script):
    prevalence = np.array([0.25, 0.5, 0.001])
    model = script.build_model(script.ScriptArguments(size="atto"), ["A", "B", "C"], prevalence)
    assert model.classifier.bias.tolist() == pytest.approx([-math.log(3), 0, -math.log(99)], abs=1e-5)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label == {0: "A", 1: "B", 2: "C"}


def test_a_checkpoint_of_transformers_gets_a_head_for_the_findings(script, tmp_path):
    start = tiny_convnext(("cat", "dog", "bird"))
    start.save_pretrained(tmp_path)
    arguments = script.ScriptArguments(model=str(tmp_path), drop_path_rate=0.2)
    model = script.build_model(arguments, ["Mass", "Nodule"], np.array([0.0, 1.0]))
    assert model.classifier.weight.shape == (2, 8)
    assert model.classifier.bias.tolist() == pytest.approx([-math.log(99), math.log(99)], abs=1e-4)
    assert model.config.drop_path_rate == 0.2
    body, before = model.convnextv2.state_dict(), start.convnextv2.state_dict()
    assert all(torch.equal(body[name], before[name]) for name in before)


def test_a_head_for_the_same_findings_is_kept(script, tmp_path):
    start = tiny_convnext()
    torch.nn.init.normal_(start.classifier.bias)
    start.save_pretrained(tmp_path)
    arguments = script.ScriptArguments(model=str(tmp_path))
    model = script.build_model(arguments, ["Mass", "Nodule"], np.zeros(2))
    assert torch.equal(model.classifier.bias, start.classifier.bias)
    model = script.build_model(arguments, ["Nodule", "Mass"], np.zeros(2))
    assert model.classifier.bias.tolist() == pytest.approx([-math.log(99)] * 2, abs=1e-4)


@pytest.fixture
def timm_checkpoint(tmp_path):
    """As a timm repository: weights without the wrapper's prefix, the original's preprocessing in the config."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder = tmp_path / "convnextv2_atto.fcmae"
    folder.mkdir()
    model = timm.create_model("test_convnext2", num_classes=0)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    config = {
        "architecture": "test_convnext2",
        "num_classes": 0,
        "pretrained_cfg": {
            "input_size": [3, 160, 160],
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "license": "cc-by-nc-4.0",
            "num_classes": 0,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model


def test_a_checkpoint_of_timm_is_trained_saved_and_loaded_as_a_teacher(script, timm_checkpoint, release, tmp_path):
    folder, original = timm_checkpoint
    out = tmp_path / "out"
    command = ["--model", str(folder), "--data_dir", "phantom", str(release), "--drop_path_rate", "0.1"]
    command += ["--num_train_epochs", "1"]
    call(script, out, *command)
    student = ClarityImageProcessor(size={"height": 32, "width": 32})
    teacher = Teacher.from_pretrained(str(out), FINDINGS, student)
    assert teacher.size == (32, 32)  # its own, not the original's 160
    expected = (student.image_std[0] / np.array(script.IMAGENET_DEFAULT_STD)).tolist()
    assert teacher.scale.flatten().tolist() == pytest.approx(expected)
    weights = teacher.model.timm_model.state_dict()
    before = original.state_dict()
    assert all((weights[name] - before[name]).abs().max() < 1e-2 for name in before)  # steps from where it started
    card = ModelCard.load(out / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert "films of phantom and few-films;" in card.text
    assert "validation films of\nfew-films" in card.text

    # Called again it has nothing to train: what it saves is what the Trainer's own loading made of the checkpoint. The
    # wrapper's keys must survive that, as a lost prefix would only warn.
    saved = load_file(Path(get_last_checkpoint(out)) / "model.safetensors")
    assert any(not torch.equal(saved[name], before[name]) for name in before)
    (out / "model.safetensors").unlink()
    call(script, out, *command)
    again = load_file(out / "model.safetensors")
    assert again.keys() == saved.keys()
    assert all(torch.equal(again[name], saved[name]) for name in saved)


def test_a_model_without_a_linear_head_is_refused(script):
    model = tiny_convnext()
    model.classifier = torch.nn.Identity()
    with pytest.raises(ValueError, match="must end in a linear layer with a bias, got ConvNextV2ForImage"):
        script.classifier_of(model)


def test_stochastic_depth_is_refused_where_there_is_none(script):
    from transformers import ResNetConfig

    assert script.drop_path_settings(ResNetConfig(), 0.0) == {}
    with pytest.raises(ValueError, match=r"must be 0 for resnet, got 0\.1"):
        script.drop_path_settings(ResNetConfig(), 0.1)
    wrapped = TimmWrapperConfig(architecture="convnextv2_atto", model_args={"depth": 3})
    assert script.drop_path_settings(wrapped, 0.1) == {"model_args": {"depth": 3, "drop_path_rate": 0.1}}


# The licence ---------------------------------------------------------------------------------------------------------


def test_random_weights_have_the_projects_licence(script):
    assert script.licence_of_weights(None)[0] == "apache-2.0"


def test_published_convnextv2_weights_are_not_for_commercial_use_whatever_their_card_says(script, tmp_path):
    tiny_convnext().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    licence, note = script.licence_of_weights(str(tmp_path))
    assert licence == "cc-by-nc-4.0"
    assert tmp_path.name in note
    assert "CC-BY-NC-4.0" in note
    assert str(tmp_path) not in note


@pytest.mark.parametrize("licence", ["apache-2.0", "cc-by-nc-4.0"])
def test_a_teacher_of_this_script_hands_its_licence_on(script, tmp_path, licence):
    tiny_convnext().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(f"---\nlicense: {licence}\ntags: [{script.TAG}]\n---\n")
    assert script.licence_of_weights(str(tmp_path))[0] == licence


def test_other_weights_have_the_licence_that_is_found_or_none(script, tmp_path):
    config = {"architecture": "resnet18", "model_type": "timm_wrapper", "pretrained_cfg": {"license": "mit"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert script.licence_of_weights(str(tmp_path))[0] == "mit"
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": {}}))
    licence, note = script.licence_of_weights(str(tmp_path))
    assert licence == "unknown"
    assert "look it up" in note


def test_the_teacher_of_the_packaged_checkpoint_is_what_the_script_accepts(script):
    path = SCRIPT.parent / "starter" / "teacher.yaml"
    words = [str(path), "--use_cpu", "True", "--bf16", "False"]
    stage, args = parse_arguments((script.ScriptArguments, TrainingArguments), script.DEFAULTS, words)
    assert (stage.size, stage.matrix_optimizer) == ("nano", "muon")
    assert args.output_dir == "runs/starter/teacher"
