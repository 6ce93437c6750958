# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The Trainer of CLARiTy: labels, anatomical priors and an optional teacher."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import DistributedType
from transformers import PreTrainedModel, Trainer, TrainerCallback

from clarity_hf.losses_clarity import distillation_loss, map_distillation_loss
from clarity_hf.modeling_clarity import at_patches
from clarity_hf.plain_card import replace_draft
from clarity_hf.teacher import Teacher

from .arguments import ClarityTrainingArguments
from .checkpoint_manifest import CheckpointManifestCallback, drop_pickle
from .optimization import MuonWithAdamW, block_matrices, decaying_parameters, parameter_groups

REPLICATING = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Kinds of distributed training in which every process holds all weights."""


class SetEpochCallback(TrainerCallback):
    """Sets the epoch of the training data, so that each epoch draws new crops and phantoms.

    Accelerate does so for some samplers only.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call `set_epoch` of the training data, if it has one."""
        dataset = kwargs["train_dataloader"].dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int((state.epoch or 0) + 1e-6))


class LogLastStepCallback(TrainerCallback):
    """Also logs the loss of the last steps, which a run shorter than `logging_steps` would not."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request a log at the end of the run, unless logging is off."""
        if state.global_step >= state.max_steps and args.logging_strategy != "no":
            control.should_log = True


class CardKeepingTrainer(Trainer):
    """[`transformers.Trainer`] whose output folder can be pushed to the Hub: with its own card, and without pickles.

    It also sets the epoch of the training data, logs the last step and writes manifests of checkpoints.

    Args:
        args, kwargs: As for [`transformers.Trainer`].
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for callback in (SetEpochCallback(), LogLastStepCallback(), CheckpointManifestCallback()):
            self.add_callback(callback)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the library's, without its pickle of the arguments in the output folder."""
        super().save_model(output_dir, _internal_call)
        if output_dir is None and self.args.should_save:
            drop_pickle(self.args.output_dir)

    def create_model_card(self, *args: Any, model_name: str | None = None, **kwargs: Any) -> None:
        """Keep an existing card or write the plain one for `push_to_hub`; only `model_name` is used."""
        if self.is_world_process_zero():
            findings = getattr(self.accelerator.unwrap_model(self.model).config, "findings", ())
            replace_draft(self.args.output_dir, self.hub_model_id or model_name or "model", findings)


class ClarityDistillationTrainer(CardKeepingTrainer):
    r"""[`transformers.Trainer`] for [`ClarityForMultiLabelLocalization`].

    The loss of a step, with z the two logits and α = 0 without a teacher:

    .. math:: L = \sum_{z} [(1-α) BCE(z, y) + α τ^2 BCE(z/τ, σ(z^t/τ))] + λ_o L_{orth} + λ_s L_{seg} + w(e) λ_b L_{bg}
        + λ_e L_{ev} + λ_m L_{map}

    w(e) rises linearly from 0 to 1 over `background_warmup_epochs`. In the first `patch_dropout_epochs` the blocks see
    a random part of each image's patches, and the losses of maps are those of these patches. Every part is logged by
    name, unweighted, as its mean since the last log.

    Args:
        teacher: A [`Teacher`], a loaded image classifier or the name of one, see [`Teacher.of`]; not part of the
            student's checkpoint or the optimizer. None to train on labels.
        args: [`ClarityTrainingArguments`], or [`transformers.TrainingArguments`], to which the defaults of the former
            are added: half of the loss is the teacher's.
        kwargs: As for [`transformers.Trainer`]; rows have `pixel_values`, `labels` and optionally `anatomical_prior`,
            `finding_masks` and `teacher_logits` `(F,)`, a teacher's cached logits for these pixels, which replace the
            teacher.

    Raises:
        OSError, TypeError, ValueError: As for [`Teacher.of`]; ValueError also for a `map_distillation_weight` above 0
            without a teacher.
    """

    loss_is_scaled_for_ga = False  # a mean over images: dividing by the accumulation steps is right

    def __init__(self, *args: Any, teacher: Teacher | PreTrainedModel | str | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for added in fields(ClarityTrainingArguments):
            if not hasattr(self.args, added.name):  # plain TrainingArguments
                setattr(self.args, added.name, added.default)
        self.teacher = None
        if teacher is not None:
            findings = self.accelerator.unwrap_model(self.model).config.findings
            self.teacher = Teacher.of(teacher, findings, self.processing_class).to(self.args.device)
        elif self.args.map_distillation_weight > 0:
            raise ValueError(
                "`map_distillation_weight` must be 0 without a teacher that runs in every step, got "
                f"{self.args.map_distillation_weight}. Give `teacher`: a cache has its logits, not its maps."
            )
        self._part_sums: dict[str, torch.Tensor] = {}
        self._part_counts: dict[str, int] = defaultdict(int)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the library's. Calibration and thresholds of the old weights are dropped."""
        self.accelerator.unwrap_model(self.model).config.drop_calibration("training changes the weights")
        try:
            return super().train(*args, **kwargs)
        finally:
            self.accelerator.unwrap_model(self.model).clarity.patch_dropout = 0.0

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, as in the class docstring; with `return_outputs` also the model's outputs."""
        inputs = dict(inputs)
        teacher_logits = inputs.pop("teacher_logits", None)
        if model.training:
            self.accelerator.unwrap_model(model).clarity.patch_dropout = self._patch_dropout()
        outputs = model(**inputs)
        parts = outputs.loss_parts
        loss = outputs.loss
        if model.training and "background" in parts:
            weight = self.accelerator.unwrap_model(model).config.background_loss_weight
            loss = loss - (1 - self._background_warmup()) * weight * parts["background"]
        alpha = self.args.distillation_alpha
        parts = dict(parts)
        # The teacher was not trained on drawn findings: images with them are left out of the distillation.
        drawn = inputs["finding_masks"].flatten(1).amax(-1) > 0 if "finding_masks" in inputs else None
        if self.teacher is not None and self.args.map_distillation_weight > 0:
            with self.compute_loss_context_manager():
                teacher_maps = self.teacher.activation_maps(inputs["pixel_values"])
            teacher_logits = teacher_maps.mean((2, 3))
            if outputs.kept_patches is not None:  # the maps are compared at the same patches
                grid = [side // self.model.config.patch_size for side in inputs["pixel_values"].shape[-2:]]
                teacher_maps = at_patches(F.interpolate(teacher_maps, grid), outputs.kept_patches)
            parts["map"] = map_distillation_loss(outputs.activation_maps, teacher_maps, drawn)
            loss = loss + self.args.map_distillation_weight * parts["map"]
        elif alpha > 0 and teacher_logits is None and self.teacher is not None:
            with self.compute_loss_context_manager():
                teacher_logits = self.teacher(inputs["pixel_values"])
        if alpha > 0 and teacher_logits is not None:
            for name in ("class_token", "patch"):
                logits = getattr(outputs, f"{name}_logits")
                if logits is not None:
                    taught = distillation_loss(logits, teacher_logits, self.args.distillation_temperature, drawn)
                    parts[f"{name}_distillation"] = taught
                    loss = loss + alpha * (taught - parts[name])
        if model.training:
            self._collect(parts)
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if "teacher_logits" not in self._signature_columns:  # an input of the loss, not of the model
            self._signature_columns.append("teacher_logits")

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Weights under weight decay, see [`decaying_parameters`]."""
        return decaying_parameters(model)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The library's optimizer, with a learning rate per layer if `layer_decay` is below 1, or Muon."""
        muon = self.args.matrix_optimizer == "muon"
        if self.optimizer is None and (muon or self.args.layer_decay < 1):  # type: ignore[has-type]
            model = self.model if model is None else model
            layers = self.accelerator.unwrap_model(model).config.num_hidden_layers
            groups = parameter_groups(
                model, layers, self.args.learning_rate, self.args.weight_decay, self.args.layer_decay
            )
            if muon:
                betas = (self.args.adam_beta1, self.args.adam_beta2)
                self.optimizer = MuonWithAdamW(
                    groups,
                    block_matrices(model),
                    betas,
                    self.args.adam_epsilon,
                    replicated=self.accelerator.distributed_type in REPLICATING,
                    iterations=self.args.muon_iterations,
                )
            else:
                optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
                self.optimizer = optimizer_class(groups, **settings)
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss to the training logs."""
        if "loss" in logs:
            for name, total in self._part_sums.items():
                # The mean over processes, as for the loss; every process logs.
                mean = self.accelerator.gather(total / self._part_counts[name]).mean()
                logs[f"loss_{name}"] = round(mean.item(), 4)
            self._part_sums.clear()
            self._part_counts.clear()
        super().log(logs, start_time)

    def _patch_dropout(self) -> float:
        early = (self.state.epoch or 0.0) < self.args.patch_dropout_epochs
        return self.args.patch_dropout if early else 0.0

    def _background_warmup(self) -> float:
        epochs = self.args.background_warmup_epochs
        return 1.0 if epochs == 0 else min(1.0, (self.state.epoch or 0.0) / epochs)

    def _collect(self, parts: dict[str, torch.Tensor]) -> None:
        for name, part in parts.items():
            self._part_sums[name] = self._part_sums.get(name, 0.0) + part.detach()
            self._part_counts[name] += 1
