# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The Trainer: its loss by hand, equal steps however they are cut, what it saves, stop and resume."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, TrainerCallback, TrainingArguments

from clarity_hf import ClarityDistillationTrainer, ClarityImageProcessor, Teacher
from clarity_hf.evaluation.trainer_metrics import MultilabelAuroc
from clarity_hf.losses_clarity import distillation_loss, map_distillation_loss
from clarity_hf.metrics.classification import auroc_per_finding

SCRIPT = Path(__file__).with_name("tiny_run.py")
_spec = importlib.util.spec_from_file_location("tiny_run", SCRIPT)
tiny_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_run)
tiny_model, tiny_teacher, tiny_trainer = tiny_run.tiny_model, tiny_run.tiny_teacher, tiny_run.tiny_trainer


@pytest.fixture(scope="module")
def rows():
    return tiny_run.random_rows(16)


def batch_of(rows):
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


def moved(model):
    """Largest step that a weight has taken from where `tiny_model` starts."""
    start = weights(tiny_model())
    return max((tensor - start[name]).abs().max().item() for name, tensor in weights(model).items())


def cross_entropy(logits, targets):
    """By its definition, in numpy."""
    share = 1 / (1 + np.exp(-logits))
    return -targets * np.log(share) - (1 - targets) * np.log(1 - share)


# The loss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "temperature"), [(0.3, 2.0), (1.0, 1.0), (0.5, 0.5)])
def test_the_loss_is_its_formula(tmp_path, rows, alpha, temperature):
    teacher = tiny_teacher()
    trainer = tiny_trainer(
        tmp_path,
        rows,
        teacher=teacher,
        distillation_alpha=alpha,
        distillation_temperature=temperature,
        background_warmup_epochs=2.0,
    )
    trainer.state.epoch = 0.5
    batch = batch_of(rows[:5])
    trainer.model.train()
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)

    labels = batch["labels"].double().numpy()
    taught = 1 / (1 + np.exp(-teacher(batch["pixel_values"]).double().numpy() / temperature))
    expected = 0.0
    for logits in (outputs.class_token_logits, outputs.patch_logits):
        logits = logits.detach().double().numpy()
        labelled = np.nansum(cross_entropy(logits, labels)) / (5 * 3)
        distilled = temperature**2 * cross_entropy(logits / temperature, taught).mean()
        expected += (1 - alpha) * labelled + alpha * distilled
    parts = {name: part.item() for name, part in outputs.loss_parts.items()}
    # The defaults' weights; a quarter of the background's after half of one of two epochs.
    expected += 0.1 * parts["orthogonal"] + 0.3 * parts["foreground"] + 0.25 * 0.1 * parts["background"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert parts["background"] > 0.01


@pytest.mark.parametrize("teacher", [None, tiny_teacher()])
def test_without_a_teacher_or_with_alpha_0_labels_alone_count(tmp_path, rows, teacher):
    trainer = tiny_trainer(tmp_path, rows, teacher=teacher, distillation_alpha=0.0 if teacher else 0.5)
    batch = batch_of(rows[:4])
    loss = trainer.compute_loss(trainer.model.train(), batch)
    assert loss.item() == pytest.approx(trainer.model(**batch).loss.item(), rel=1e-6)
    assert teacher is None or teacher.model.calls == 0


@pytest.mark.parametrize("online", [False, True])
def test_cached_logits_replace_the_teacher(tmp_path, rows, online):
    batch = batch_of(rows[:4])
    reference = tiny_trainer(tmp_path, rows, teacher=tiny_teacher())
    expected = reference.compute_loss(reference.model.train(), batch)
    asked = tiny_teacher()
    cached = batch | {"teacher_logits": asked(batch["pixel_values"])}
    teacher = tiny_teacher() if online else None
    trainer = tiny_trainer(tmp_path, rows, teacher=teacher)
    loss = trainer.compute_loss(trainer.model.train(), cached)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert "teacher_logits" in cached  # the batch is the caller's
    assert teacher is None or teacher.model.calls == 0


def test_without_segmentcam_the_teacher_teaches_the_class_tokens_alone(tmp_path, rows):
    model = tiny_model(segment_cam=False, map_fusion="attention", background_suppression=False)
    trainer = tiny_trainer(tmp_path, rows, model=model, teacher=tiny_teacher(), max_steps=1)
    trainer.train()
    logged = {name for name in trainer.state.log_history[0] if name.startswith("loss_")}
    assert logged == {"loss_class_token", "loss_class_token_distillation", "loss_orthogonal", "loss_background"}


def mapped_teacher():
    """A teacher with class activation maps, on a grid of 2 × 2; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        names = dict(enumerate(tiny_run.FINDINGS))
        config = TimmWrapperConfig(architecture="test_efficientnet", num_labels=3, id2label=names)
        return Teacher(
            TimmWrapperForImageClassification(config), tiny_run.FINDINGS, *tiny_run.GREY, *tiny_run.GREY, size=(64, 64)
        )


def test_the_students_maps_follow_the_teachers_and_its_logits_are_their_means(tmp_path, rows):
    batch = batch_of(rows[:4])
    plain = tiny_trainer(tmp_path, rows, teacher=mapped_teacher())
    followed = tiny_trainer(tmp_path, rows, teacher=mapped_teacher(), map_distillation_weight=0.7)
    expected = plain.compute_loss(plain.model.train(), batch)
    loss, outputs = followed.compute_loss(followed.model.train(), batch, return_outputs=True)
    maps = map_distillation_loss(outputs.activation_maps, mapped_teacher().activation_maps(batch["pixel_values"]))
    assert loss.item() == pytest.approx((expected + 0.7 * maps).item(), rel=1e-5)


def test_maps_cannot_be_followed_without_a_teacher(tmp_path, rows):
    with pytest.raises(ValueError, match=r"`map_distillation_weight` must be 0 without a teacher .* got 0\.7"):
        tiny_trainer(tmp_path, rows, map_distillation_weight=0.7)


def test_under_patch_dropout_the_teachers_maps_are_compared_at_the_patches_that_are_kept(tmp_path, rows):
    batch = batch_of(rows[:4])
    arguments = {"map_distillation_weight": 0.7, "patch_dropout_epochs": 1.0}
    plain = tiny_trainer(tmp_path, rows, teacher=mapped_teacher(), map_distillation_weight=0.7)
    all_kept = tiny_trainer(tmp_path, rows, teacher=mapped_teacher(), patch_dropout=0.1, **arguments)
    half_kept = tiny_trainer(tmp_path, rows, teacher=mapped_teacher(), patch_dropout=0.5, **arguments)
    expected = plain.compute_loss(plain.model.train(), batch)
    assert all_kept.compute_loss(all_kept.model.train(), batch).item() == pytest.approx(expected.item(), rel=1e-5)
    _, outputs = half_kept.compute_loss(half_kept.model.train(), batch, return_outputs=True)
    maps = mapped_teacher().activation_maps(batch["pixel_values"]).flatten(2)
    taken = torch.stack([maps[i][:, outputs.kept_patches[i]] for i in range(4)])[..., None]
    half_kept.log(logs := {"loss": 0.0})
    assert logs["loss_map"] == pytest.approx(map_distillation_loss(outputs.activation_maps, taken).item(), abs=1e-4)


def test_patches_are_dropped_in_the_first_epochs_alone(tmp_path, rows):
    seen = []

    class Record(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(model.clarity.patch_dropout)

    trainer = tiny_trainer(
        tmp_path, rows, callbacks=[Record()], num_train_epochs=2, patch_dropout=0.5, patch_dropout_epochs=1.25
    )
    trainer.train()
    assert seen == [0.5] * 5 + [0.0] * 3
    tiny_trainer(tmp_path, rows, trainer.model, max_steps=1).train()
    assert seen == [0.5] * 5 + [0.0] * 3
    assert trainer.model.clarity.patch_dropout == 0


def test_the_teacher_does_not_teach_images_with_an_inserted_finding(tmp_path, rows):
    batch = batch_of(rows[:4])
    batch["labels"] = torch.tensor([[math.nan] * 3, [0.0, 1.0, 0.0], [0.0] * 3, [1.0, 0.0, 0.0]])
    batch["finding_masks"] = torch.zeros(4, 3, 8, 8)
    batch["finding_masks"][0, 1, 2:5, 2:5] = 1
    trainer = tiny_trainer(
        tmp_path, rows, tiny_model(evidence_loss_weight=0.2), mapped_teacher(), map_distillation_weight=0.7
    )
    loss, outputs = trainer.compute_loss(trainer.model.train(), batch, return_outputs=True)
    maps = mapped_teacher().activation_maps(batch["pixel_values"])
    drawn = torch.tensor([True, False, False, False])
    expected = outputs.loss + 0.7 * map_distillation_loss(outputs.activation_maps, maps, drawn)
    for name in ("class_token", "patch"):
        taught = distillation_loss(outputs[f"{name}_logits"], maps.mean((2, 3)), left_out=drawn)
        expected = expected + 0.5 * (taught - outputs.loss_parts[name])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("warmup", "epoch", "share"), [(2.0, None, 0.0), (2.0, 0.5, 0.25), (2.0, 3.0, 1.0), (0.0, None, 1.0)]
)
def test_the_background_loss_rises_over_the_warm_up_of_training_alone(tmp_path, rows, warmup, epoch, share):
    trainer = tiny_trainer(tmp_path, rows, background_warmup_epochs=warmup)
    trainer.state.epoch = epoch
    batch = batch_of(rows[:4])
    model = trainer.model.eval()
    whole = model(**batch)
    assert trainer.compute_loss(model, batch).item() == pytest.approx(whole.loss.item(), rel=1e-6)
    model.config.background_loss_weight = 5.0  # so that it shows
    background = whole.loss_parts["background"].item()
    without = whole.loss.item() - 0.1 * background
    loss = trainer.compute_loss(model.train(), batch).item()
    assert loss == pytest.approx(without + share * 5 * background, rel=1e-5)


def test_rows_without_a_prior_train(tmp_path, rows):
    bare = [{name: row[name] for name in ("pixel_values", "labels")} for row in rows]
    trainer = tiny_trainer(tmp_path, bare, max_steps=1, background_warmup_epochs=1.0)
    trainer.train()
    assert "loss_background" not in trainer.state.log_history[0]
    assert moved(trainer.model) > 0


def test_parts_are_logged_by_name_as_their_mean_since_the_last_log(tmp_path, rows):
    teacher = tiny_teacher()
    # At a learning rate of 0 the two batches of an epoch are all data.
    trainer = tiny_trainer(
        tmp_path,
        rows[:8],
        teacher=teacher,
        learning_rate=0.0,
        logging_steps=2,
        max_steps=4,
        distillation_alpha=0.25,
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    trainer.model.train()
    batch = batch_of(rows[:8])
    outputs = trainer.model(**batch)
    taught = teacher(batch["pixel_values"])
    expected = dict(outputs.loss_parts) | {
        "class_token_distillation": distillation_loss(outputs.class_token_logits, taught),
        "patch_distillation": distillation_loss(outputs.patch_logits, taught),
    }
    assert len(logs) == 2
    for entry in logs:
        logged = {name.removeprefix("loss_"): value for name, value in entry.items() if name.startswith("loss_")}
        assert logged == pytest.approx({name: part.item() for name, part in expected.items()}, abs=1e-4)
        total = 0.75 * (logged["class_token"] + logged["patch"]) + 0.1 * logged["orthogonal"]
        total += 0.25 * (logged["class_token_distillation"] + logged["patch_distillation"])
        total += 0.3 * logged["foreground"] + 0.1 * logged["background"]
        assert entry["loss"] == pytest.approx(total, abs=5e-4)


# Steps ---------------------------------------------------------------------------------------------------------------


def test_a_step_is_the_same_however_its_images_are_accumulated(tmp_path, rows):
    """8 × 1, 2 × 4 and 1 × 8 images, with unannotated labels and missing priors in unequal numbers."""
    results = []
    for batch_size, accumulation in ((8, 1), (4, 2), (1, 8)):
        trainer = tiny_trainer(
            tmp_path,
            rows[:8],
            teacher=tiny_teacher(),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
        )
        trainer.train()
        assert moved(trainer.model) > 1e-2
        results.append(weights(trainer.model))
    for other in results[1:]:
        assert_same_weights(results[0], other, rtol=1e-5, atol=1e-6)


def test_gradient_checkpointing_takes_the_same_step(tmp_path, rows):
    results = []
    for checkpointing in (False, True):
        trainer = tiny_trainer(tmp_path, rows[:8], max_steps=2, gradient_checkpointing=checkpointing)
        trainer.train()
        assert trainer.model.is_gradient_checkpointing is checkpointing
        results.append(weights(trainer.model))
    assert moved(trainer.model) > 1e-2
    assert_same_weights(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dropout", [{}, {"patch_dropout": 0.5, "patch_dropout_epochs": 0.5}])
def test_a_compiled_model_takes_the_same_steps(tmp_path, rows, dropout):
    results = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        torch.compiler.reset()
        trainer = tiny_trainer(tmp_path, rows[:8], max_steps=2, teacher=tiny_teacher(), **options, **dropout)
        trainer.train()
        results.append(weights(trainer.model))
    assert moved(trainer.model) > 1e-2
    assert_same_weights(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "betas", "eps"),
    [({}, (0.9, 0.95), 1e-8), ({"adam_beta1": 0.8, "adam_beta2": 0.99, "adam_epsilon": 1e-6}, (0.8, 0.99), 1e-6)],
)
def test_adamw_beside_muon_has_the_betas_and_the_epsilon_of_the_arguments(tmp_path, rows, given, betas, eps):
    trainer = tiny_trainer(tmp_path, rows, optim="adamw_torch_fused", matrix_optimizer="muon", **given)
    groups = trainer.create_optimizer().param_groups
    adamws = [group for group in groups if "betas" in group]
    assert adamws
    assert len(adamws) < len(groups)  # the others are Muon's
    for group in adamws:
        assert (group["betas"], group["eps"]) == (betas, eps)


# Stop and resume -----------------------------------------------------------------------------------------------------


class ReadRows(torch.utils.data.Dataset):
    """Rows that remember in which order they were read."""

    def __init__(self, rows):
        self.rows, self.order = rows, []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.order.append(index)
        return self.rows[index]


class StopAfter(TrainerCallback):
    """Saves and stops, as a machine that is taken away does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not(tmp_path, rows):
    """Stopped inside the second of three epochs, with a decaying rate, AdamW's moments, both dropouts and warm-up."""
    settings = {
        "num_train_epochs": 3,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
        "background_warmup_epochs": 3.0,
        "patch_dropout": 0.5,
        "patch_dropout_epochs": 2.0,
    }

    def build(folder, callbacks=None):
        read = ReadRows(rows)
        model = tiny_model(hidden_dropout_prob=0.1)
        trainer = tiny_trainer(folder, read, model, tiny_teacher(), callbacks, **settings)
        return trainer, read

    def curve(trainer):
        history = trainer.state.log_history
        return [{k: v for k, v in entry.items() if k.startswith("loss") or k == "step"} for entry in history[:12]]

    whole, whole_read = build(tmp_path / "whole")
    whole.train()
    stopped, stopped_read = build(tmp_path / "stopped", [StopAfter(6)])
    stopped.train()
    assert stopped.state.global_step == 6
    resumed, resumed_read = build(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)

    assert resumed.state.global_step == 12
    assert curve(resumed) == curve(whole)
    assert len({entry["loss_patch"] for entry in curve(whole)}) > 6  # a curve, not a line
    # Steps 7 to 12 of four images each; what the stopped run read ahead is read again.
    assert resumed_read.order == whole_read.order[24:]
    assert stopped_read.order[:24] == whole_read.order[:24]
    assert_same_weights(weights(whole.model), weights(resumed.model), rtol=0, atol=0)


class WeightsAt(TrainerCallback):
    """Keeps the weights of one step."""

    def __init__(self, step):
        self.step, self.weights = step, None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.step:
            self.weights = weights(model)


def test_the_best_step_is_loaded_at_the_end(tmp_path, rows):
    figures = iter([0.6, 0.9, 0.7])
    kept = WeightsAt(2)
    trainer = tiny_trainer(
        tmp_path,
        rows[:8],
        callbacks=[kept],
        compute_metrics=lambda prediction: {"auroc": next(figures)},
        max_steps=3,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="auroc",
        greater_is_better=True,
    )
    trainer.train()
    assert trainer.state.best_metric == 0.9
    assert trainer.state.global_step == 3
    assert_same_weights(weights(trainer.model), kept.weights, rtol=0, atol=0)


# What it saves, measures and refuses ---------------------------------------------------------------------------------


def test_training_drops_the_calibration_of_the_logits_that_it_changes(tmp_path, rows):
    model = tiny_model(score_slopes=2.0, score_intercepts=-1.0, score_thresholds=0.3, map_thresholds=[0.3, 0.4, 0.5])
    trainer = tiny_trainer(tmp_path, rows[:8], model=model, max_steps=1)
    trainer.train()
    assert not model.config.has_calibration
    assert (model.config.score_thresholds, model.config.map_thresholds) == (0.5, 0.5)


def test_the_teacher_is_neither_saved_nor_trained(tmp_path, rows):
    teacher = tiny_teacher()
    before = teacher.model.weight.clone()
    trainer = tiny_trainer(tmp_path, rows[:8], teacher=teacher, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    folder = tmp_path / "checkpoint-1"
    saved = load_file(folder / "model.safetensors")
    assert saved.keys() == tiny_model().state_dict().keys()
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert len(optimized) == len(list(trainer.model.parameters()))
    assert id(teacher.model.weight) not in optimized
    assert torch.equal(teacher.model.weight, before)
    assert teacher.model.calls == 1


def test_weights_are_saved_as_safetensors_alone(tmp_path, rows):
    trainer = tiny_trainer(tmp_path, rows)
    trainer.save_model()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json"} <= names
    assert not [name for name in names if name.endswith((".pt", ".pth", ".ckpt")) or name == "pytorch_model.bin"]


def test_evaluation_returns_the_auroc_of_the_models_logits(tmp_path, rows):
    metric = MultilabelAuroc(tiny_run.FINDINGS)
    trainer = tiny_trainer(
        tmp_path,
        rows,
        compute_metrics=metric.of_prediction,
    )
    metrics = trainer.evaluate()
    batch = batch_of(rows)
    with torch.no_grad():
        outputs = trainer.model.eval()(**batch)
    areas = auroc_per_finding(outputs.logits.numpy(), batch["labels"].numpy())
    assert np.isfinite(areas).all()
    assert metrics["eval_auroc"] == pytest.approx(areas.mean(), abs=1e-9)
    assert metrics["eval_auroc_Mass"] == pytest.approx(areas[1], abs=1e-9)
    assert metrics["eval_loss"] == pytest.approx(outputs.loss.item(), rel=1e-4)


def test_evaluation_leaves_the_training_log_alone(tmp_path, rows):
    trainer = tiny_trainer(tmp_path, rows[:8], max_steps=1, eval_strategy="steps", eval_steps=1)
    trainer.train()
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluations) == 1
    assert not [name for name in evaluations[0] if name.startswith("loss")]


def test_plain_arguments_take_our_defaults_of_what_they_lack(tmp_path, rows):
    args = TrainingArguments(str(tmp_path / "run"), max_steps=1, use_cpu=True, report_to="none", weight_decay=0.25)
    logits = torch.tensor([1.0, -1.0, 0.0])
    taught = [row | {"teacher_logits": logits} for row in rows[:4]]
    trainer = ClarityDistillationTrainer(model=tiny_model(), args=args, train_dataset=taught)
    trainer.train()
    assert (args.distillation_alpha, args.distillation_temperature, args.weight_decay) == (0.5, 1.0, 0.25)
    [log] = [entry for entry in trainer.state.log_history if "train_loss" in entry]
    assert np.isfinite(log["train_loss"])
    batch = batch_of(rows[:4])
    with torch.no_grad():
        cached = trainer.compute_loss(trainer.model, batch | {"teacher_logits": logits.expand(4, -1)})
    assert cached.item() != pytest.approx(trainer.compute_loss(trainer.model, batch).item())


def test_teacher_logits_in_rows_survive_the_removal_of_unused_columns(tmp_path, rows):
    args = TrainingArguments(str(tmp_path / "run"), use_cpu=True, report_to="none")
    assert args.remove_unused_columns
    taught = [row | {"teacher_logits": torch.zeros(3), "name": "an image"} for row in rows[:4]]
    trainer = ClarityDistillationTrainer(model=tiny_model(), args=args, train_dataset=taught)
    [batch] = trainer.get_train_dataloader()
    assert "teacher_logits" in batch
    assert "name" not in batch


@pytest.mark.parametrize("as_name", [False, True], ids=["a loaded model", "a name"])
def test_a_classifier_of_transformers_is_a_teacher(tmp_path, rows, as_name):
    from transformers import ConvNextImageProcessor, ConvNextV2Config, ConvNextV2ForImageClassification

    names = dict(enumerate(["Hernia", *reversed(tiny_model().config.findings)]))
    config = ConvNextV2Config(hidden_sizes=[8] * 4, depths=[1] * 4, id2label=names)
    ConvNextV2ForImageClassification(config).save_pretrained(tmp_path / "teacher")
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(tmp_path / "teacher")
    loaded = ConvNextV2ForImageClassification.from_pretrained(tmp_path / "teacher")
    given = str(tmp_path / "teacher") if as_name else loaded
    args = TrainingArguments(str(tmp_path / "run"), max_steps=1, logging_steps=1, use_cpu=True, report_to="none")
    processor = ClarityImageProcessor()
    trainer = ClarityDistillationTrainer(
        model=tiny_model(), args=args, train_dataset=rows[:4], processing_class=processor, teacher=given
    )
    trainer.train()
    assert "loss_patch_distillation" in trainer.state.log_history[0]
    expected = Teacher.from_pretrained(str(tmp_path / "teacher"), tiny_model().config.findings, processor)
    pixels = batch_of(rows[:4])["pixel_values"]
    torch.testing.assert_close(trainer.teacher(pixels), expected(pixels))


@pytest.mark.parametrize(("steps", "every", "logged"), [(2, 25, [2]), (3, 2, [2, 3]), (4, 2, [2, 4])])
def test_a_run_that_is_shorter_than_its_logging_steps_logs_its_loss_at_the_end(tmp_path, rows, steps, every, logged):
    trainer = tiny_trainer(tmp_path, rows[:8], max_steps=steps, logging_steps=every)
    trainer.train()
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == logged


def test_a_run_without_logging_does_not_log(tmp_path, rows):
    trainer = tiny_trainer(tmp_path, rows[:8], max_steps=2, logging_strategy="no")
    trainer.train()
    assert not [entry for entry in trainer.state.log_history if "loss" in entry]
