# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A training run of a second, for tests; as a script, one of the processes of such runs.

    python -m torch.distributed.run --nproc_per_node 2 tests/training/tiny_run.py FOLDER CUT [CUT ...]

A CUT such as 4x1 is the images of a forward pass in a process, by the passes that a step accumulates; 4x1-bare is of
images without priors, 4x1-fsdp asks the Trainer for FSDP, 4x1-muon steps with Muon, and 4x1-unshared does so without
sharing the work between processes. Process 0 leaves weights and logs of each in FOLDER/CUT.pt.
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments, Teacher

FINDINGS = ["Effusion", "Mass", "Nodule"]
GREY = ([0.5] * 3, [0.25] * 3)


def tiny_model(**settings):
    """3 findings, 32 × 32 pixels, a grid of 2 × 2 patches; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ClarityConfig(
            id2label=dict(enumerate(FINDINGS)),
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=48,
            image_size=32,
            class_attention_layers=2,
            cam_size=16,
            cam_groups=4,
            **{"background_loss_weight": 0.1} | settings,
        )
        return ClarityForMultiLabelLocalization(config)


def random_rows(count):
    """Rows of noise: a third of the labels and every third prior unannotated, the first image without any label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count, len(FINDINGS)), generator=generator).float()
    labels[labels == 2] = torch.nan
    labels[0] = torch.nan
    priors = torch.rand(count, 1, 4, 4, generator=generator)
    priors[::3] = torch.nan
    pixels = torch.randn(count, 3, 32, 32, generator=generator)
    return [{"pixel_values": pixels[i], "labels": labels[i], "anatomical_prior": priors[i]} for i in range(count)]


class ChannelClassifier(nn.Module):
    """A teacher of nine weights, which counts its calls."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(id2label=dict(enumerate(FINDINGS)))
        self.weight = nn.Parameter(10 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))
        self.calls = 0

    def forward(self, pixel_values):
        self.calls += 1
        return SimpleNamespace(logits=pixel_values.mean((2, 3)) @ self.weight)


def tiny_teacher():
    return Teacher(ChannelClassifier(), FINDINGS, *GREY, *GREY)


def tiny_trainer(folder, rows, model=None, teacher=None, callbacks=None, compute_metrics=None, **arguments):
    """A trainer with plain SGD, every part of the loss in, nothing saved and every step logged."""
    defaults = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "optim": "sgd",
        "learning_rate": 0.2,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "save_strategy": "no",
        "logging_steps": 1,
        "background_warmup_epochs": 0.0,
    }
    return ClarityDistillationTrainer(
        model=tiny_model() if model is None else model,
        args=ClarityTrainingArguments(output_dir=str(folder), **defaults | arguments),
        train_dataset=rows,
        eval_dataset=rows,
        teacher=teacher,
        callbacks=callbacks,
        compute_metrics=compute_metrics,
    )


def run_cut(folder, cut):
    """Four steps over 16 images with a teacher, cut as above; process 0 saves what the tests compare."""
    size, _, kind = cut.partition("-")
    batch_size, accumulation = (int(part) for part in size.split("x"))
    rows = random_rows(16)
    if kind == "bare":
        rows = [{name: row[name] for name in ("pixel_values", "labels")} for row in rows]
    muon = {"optim": "adamw_torch_fused", "matrix_optimizer": "muon", "learning_rate": 0.01}
    trainer = tiny_trainer(
        folder,
        rows,
        teacher=tiny_teacher(),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=4,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ else None,
        background_warmup_epochs=1.0,
        ddp_find_unused_parameters=False,  # every weight takes part in every loss
        fsdp=kind == "fsdp" or None,
        **(muon if kind in ("muon", "unshared") else {}),
    )
    if kind == "unshared":
        for group in trainer.create_optimizer().param_groups:
            group["replicated"] = False
    trainer.train()
    states = [trainer.optimizer.state[weight] for weight in trainer.model.parameters()]
    momentum = [state["momentum_buffer"] for state in states if state.get("momentum_buffer") is not None]
    flat = torch.cat([tensor.detach().flatten() for tensor in [*trainer.model.parameters(), *momentum]])
    copies = trainer.accelerator.gather(flat[None])
    if trainer.is_world_process_zero():
        state = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
        result = {
            "processes": trainer.args.world_size,
            "distributed_type": trainer.accelerator.distributed_type.value,
            "weights": state,
            "logs": trainer.state.log_history,
            "copies": copies,  # of weights and momentum, a row for each process
        }
        torch.save(result, Path(folder) / f"{cut}.pt")
    return trainer


def main(folder, *cuts):
    """The runs of a process, one after the other."""
    for cut in cuts:
        trainer = run_cut(folder, cut)
    trainer.accelerator.end_training()  # a process that leaves its group open may abort the other as it exits


if __name__ == "__main__":
    main(*sys.argv[1:])
