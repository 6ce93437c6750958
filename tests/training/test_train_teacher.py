# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The teacher's recipe: its loss, what model it trains and how, and under which licence."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    ResNetConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    Trainer,
    TrainingArguments,
)

from clarity_hf.training import train_teacher as teacher
from clarity_hf.training.train_teacher import TeacherRecipe

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


def image_rows(count):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count, 2), generator=generator).float()
    labels[labels == 2] = torch.nan
    labels[0] = torch.nan
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    return [{"pixel_values": pixels[index], "labels": labels[index]} for index in range(count)]


def plain_trainer(folder, rows, **settings):
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
        compute_loss_func=teacher.annotated_loss,
    )


def test_a_step_is_the_same_however_its_images_are_accumulated(tmp_path):
    """8 × 1, 2 × 4 and 1 × 8 images, unannotated labels in unequal numbers."""
    rows, start = image_rows(8), tiny_convnext().state_dict()
    weights, losses = [], []
    for batch_size, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = plain_trainer(
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


def test_the_loss_is_a_mean_over_images_of_what_is_annotated(tmp_path):
    rows = image_rows(5)
    trainer = plain_trainer(tmp_path, rows, per_device_eval_batch_size=5)
    found = trainer.evaluate()["eval_loss"]
    with torch.no_grad():
        logits = trainer.model.eval()(torch.stack([row["pixel_values"] for row in rows])).logits.double()
    labels = torch.stack([row["labels"] for row in rows]).double()
    scores = logits.sigmoid()
    losses = -(labels * scores.log() + (1 - labels) * (1 - scores).log())
    assert labels.isnan().sum() >= 3
    assert found == pytest.approx((losses.nansum(1) / 2).mean().item(), rel=1e-4)


def test_it_is_the_loss_of_the_trainer(monkeypatch, tmp_path):
    class Stopped(Exception):
        pass

    def stop(trainer, recipe):
        assert trainer.compute_loss_func is teacher.annotated_loss
        raise Stopped

    monkeypatch.setattr(teacher, "fit", stop)
    args = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    with pytest.raises(Stopped):
        teacher.train_teacher(TeacherRecipe(size="atto", image_size=32, phantom_count=4), args)


# The model -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "millions"), [("atto", 3.4), ("pico", 8.6), ("nano", 15.0)])
def test_sizes_are_the_papers(size, millions):
    """Parameters without the head, from the paper's table (ImageNet's head taken off 3.7, 9.1 and 15.6 M)."""
    with torch.device("meta"):
        depths, widths = teacher.SIZES[size]
        model = ConvNextV2ForImageClassification(ConvNextV2Config(depths=depths, hidden_sizes=widths, num_labels=14))
    head = sum(parameter.numel() for parameter in model.classifier.parameters())
    assert (model.num_parameters() - head) / 1e6 == pytest.approx(millions, abs=0.05)


def test_muon_takes_the_pointwise_convolutions_of_the_blocks_and_adamw_the_rest(tmp_path):
    model = teacher.build_model(TeacherRecipe(size="atto"), ["A", "B"], np.array([0.5, 0.5]))
    args = TrainingArguments(output_dir=str(tmp_path), learning_rate=2e-3, weight_decay=0.1, use_cpu=True)
    optimizer = teacher.build_optimizer(model, args)
    names = {id(weight): name for name, weight in model.named_parameters()}
    hidden = [names[id(w)] for group in optimizer.param_groups if "ns_steps" in group for w in group["params"]]
    assert len(hidden) == 2 * sum(model.config.depths)
    assert all(".pwconv" in name for name in hidden)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    undecayed = [w for group in optimizer.param_groups if group["weight_decay"] == 0 for w in group["params"]]
    assert {names[id(weight)].rsplit(".", 2)[-2] for weight in undecayed} >= {"grn", "layernorm", "pwconv1", "dwconv"}
    assert all(max(weight.shape) == weight.numel() for weight in undecayed)


def test_a_new_model_starts_at_the_prevalence_of_its_images():
    prevalence = np.array([0.25, 0.5, 0.001])
    model = teacher.build_model(TeacherRecipe(size="atto"), ["A", "B", "C"], prevalence)
    assert model.classifier.bias.tolist() == pytest.approx([-math.log(3), 0, -math.log(99)], abs=1e-5)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label == {0: "A", 1: "B", 2: "C"}


def test_a_checkpoint_of_transformers_gets_a_head_for_the_findings(tmp_path):
    start = tiny_convnext(("cat", "dog", "bird"))
    start.save_pretrained(tmp_path)
    arguments = TeacherRecipe(model=str(tmp_path), drop_path_rate=0.2)
    model = teacher.build_model(arguments, ["Mass", "Nodule"], np.array([0.0, 1.0]))
    assert model.classifier.weight.shape == (2, 8)
    assert model.classifier.bias.tolist() == pytest.approx([-math.log(99), math.log(99)], abs=1e-4)
    assert model.config.drop_path_rate == 0.2
    body, before = model.convnextv2.state_dict(), start.convnextv2.state_dict()
    assert all(torch.equal(body[name], before[name]) for name in before)


def test_a_head_for_the_same_findings_is_kept(tmp_path):
    start = tiny_convnext()
    torch.nn.init.normal_(start.classifier.bias)
    start.save_pretrained(tmp_path)
    arguments = TeacherRecipe(model=str(tmp_path))
    model = teacher.build_model(arguments, ["Mass", "Nodule"], np.zeros(2))
    assert torch.equal(model.classifier.bias, start.classifier.bias)
    model = teacher.build_model(arguments, ["Nodule", "Mass"], np.zeros(2))
    assert model.classifier.bias.tolist() == pytest.approx([-math.log(99)] * 2, abs=1e-4)


def timm_checkpoint(folder):
    """timm's EfficientNet for tests with a head of five classes."""
    torch.manual_seed(0)
    config = TimmWrapperConfig(architecture="test_efficientnet", num_labels=5)
    TimmWrapperForImageClassification(config).save_pretrained(folder)
    return str(folder)


def test_a_fine_tuned_timm_model_is_saved_with_our_findings(tmp_path):
    model = teacher.build_model(
        TeacherRecipe(model=timm_checkpoint(tmp_path / "start")), ["Mass", "Nodule"], np.zeros(2)
    )
    model.save_pretrained(tmp_path / "saved")
    config = AutoConfig.from_pretrained(tmp_path / "saved")
    assert config.id2label == {0: "Mass", 1: "Nodule"}


def test_frozen_stages_keep_their_weights_and_statistics_in_training(tmp_path):
    model = teacher.build_model(TeacherRecipe(model=timm_checkpoint(tmp_path)), ["Mass", "Nodule"], np.zeros(2))
    teacher.freeze_stages(model, 2)
    before = {name: value.clone() for name, value in model.timm_model.state_dict().items()}
    model.train()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    model(torch.randn(2, 3, 64, 64)).logits.square().sum().backward()
    optimizer.step()
    kept = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")
    for name, value in model.timm_model.state_dict().items():
        if name.startswith(kept):
            assert torch.equal(value, before[name]), name
    changed = [name for name, value in model.timm_model.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("blocks.2.") and "running_mean" in name for name in changed)
    assert any(name.startswith("blocks.2.") and name.endswith("weight") for name in changed)


@pytest.mark.parametrize("count", [-1, 99])
def test_stages_that_are_not_there_are_refused(tmp_path, count):
    model = teacher.build_model(TeacherRecipe(model=timm_checkpoint(tmp_path)), ["Mass", "Nodule"], np.zeros(2))
    with pytest.raises(ValueError, match="`frozen_stages` must be between 0 and the"):
        teacher.freeze_stages(model, count)
    with pytest.raises(ValueError, match="Only timm models with `blocks` have any"):
        teacher.freeze_stages(tiny_convnext(), 1)


def test_a_model_without_a_linear_head_is_refused():
    model = tiny_convnext()
    model.classifier = torch.nn.Identity()
    with pytest.raises(ValueError, match="must end in a linear layer with a bias, got ConvNextV2ForImage"):
        teacher.classifier_of(model)


def test_stochastic_depth_is_refused_for_models_without_it():
    assert teacher.drop_path_settings(ResNetConfig(), 0.0) == {}
    with pytest.raises(ValueError, match=r"must be 0 for resnet, got 0\.1"):
        teacher.drop_path_settings(ResNetConfig(), 0.1)
    wrapped = TimmWrapperConfig(architecture="convnextv2_atto", model_args={"depth": 3})
    assert teacher.drop_path_settings(wrapped, 0.1) == {"model_args": {"depth": 3, "drop_path_rate": 0.1}}


# The licence ---------------------------------------------------------------------------------------------------------


def test_random_weights_have_the_projects_licence():
    assert teacher.licence_of_weights(None)[0] == "apache-2.0"


def test_published_convnextv2_weights_are_not_for_commercial_use_whatever_their_card_says(tmp_path):
    tiny_convnext().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    licence, note = teacher.licence_of_weights(str(tmp_path))
    assert licence == "cc-by-nc-4.0"
    assert tmp_path.name in note
    assert "CC-BY-NC-4.0" in note
    assert str(tmp_path) not in note


@pytest.mark.parametrize("licence", ["apache-2.0", "cc-by-nc-4.0"])
def test_a_teacher_of_this_recipe_hands_its_licence_on(tmp_path, licence):
    tiny_convnext().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(f"---\nlicense: {licence}\ntags: [{teacher.TAG}]\n---\n")
    assert teacher.licence_of_weights(str(tmp_path))[0] == licence


def test_other_weights_have_the_licence_found_or_an_unknown_one(tmp_path):
    config = {"architecture": "resnet18", "model_type": "timm_wrapper", "pretrained_cfg": {"license": "mit"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert teacher.licence_of_weights(str(tmp_path))[0] == "mit"
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": {}}))
    licence, note = teacher.licence_of_weights(str(tmp_path))
    assert licence == "unknown"
    assert "look it up" in note
