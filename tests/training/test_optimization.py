# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which weights decay, and which layer learns how fast."""

import importlib.util
from pathlib import Path

import pytest
from transformers import TrainerCallback

from clarity_hf.training.optimization import decaying_parameters, layer_of, parameter_groups

_spec = importlib.util.spec_from_file_location("tiny_run", Path(__file__).with_name("tiny_run.py"))
tiny_run = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_run)
random_rows, tiny_model, tiny_trainer = tiny_run.random_rows, tiny_run.tiny_model, tiny_run.tiny_trainer


def rates(model, **settings):
    """Learning rate and weight decay of every parameter by name."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = parameter_groups(model, model.config.num_hidden_layers, learning_rate=1.0, weight_decay=0.1, **settings)
    return {names[id(weight)]: (group["lr"], group["weight_decay"]) for group in groups for weight in group["params"]}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("clarity.embeddings.class_tokens", 0),
        ("clarity.embeddings.class_positions", 0),
        ("embeddings.patch_positions", 0),
        ("module.clarity.embeddings.patch_projection.weight", 0),
        ("clarity.layers.0.mlp.fc1.weight", 1),
        ("layers.11.attention.q_proj.bias", 12),
        ("clarity.layernorm.weight", 13),
        ("segment_cam.cam.weight", 13),
        ("class_token_head.attention.layer_scale", 13),
    ],
)
def test_tokens_and_positions_are_layer_0_and_heads_the_last(name, layer):
    assert layer_of(name, num_layers=12) == layer


def test_each_layer_learns_slower_than_the_one_above():
    found = rates(tiny_model(), layer_decay=0.5)  # two blocks: layers 0 to 3
    assert found["segment_cam.mix.weight"] == (1.0, 0.1)
    assert found["clarity.layernorm.weight"] == (1.0, 0.0)
    assert found["clarity.layers.1.mlp.fc1.weight"] == (0.5, 0.1)
    assert found["clarity.layers.0.mlp.fc1.bias"] == (0.25, 0.0)
    assert found["clarity.embeddings.class_tokens"] == (0.125, 0.0)
    assert found["clarity.embeddings.patch_positions"] == (0.125, 0.0)
    assert found["clarity.embeddings.patch_projection.weight"] == (0.125, 0.1)


def test_every_trained_parameter_is_in_one_group_and_the_heads_come_first():
    model = tiny_model()
    model.clarity.layernorm.requires_grad_(False)
    groups = parameter_groups(model, 2, 1.0, 0.1, 0.5)
    grouped = [id(weight) for group in groups for weight in group["params"]]
    trained = [id(weight) for weight in model.parameters() if weight.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert groups[0]["lr"] == 1.0


def test_matrices_decay_and_biases_norms_tokens_and_positions_do_not():
    model = tiny_model()
    decaying = set(decaying_parameters(model))
    assert "clarity.layers.0.attention.q_proj.weight" in decaying
    assert "segment_cam.mix.weight" in decaying
    assert all(weight.ndim >= 2 for name, weight in model.named_parameters() if name in decaying)
    assert not [name for name in decaying if "tokens" in name or "positions" in name]


class Rates(TrainerCallback):
    """Keeps the learning rates of every step."""

    def __init__(self):
        self.seen = []

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.seen.append([group["lr"] for group in optimizer.param_groups])


def test_the_trainer_keeps_the_ratio_of_the_layers_through_its_schedule(tmp_path):
    callback = Rates()
    trainer = tiny_trainer(
        tmp_path,
        random_rows(8),
        callbacks=[callback],
        layer_decay=0.5,
        max_steps=4,
        lr_scheduler_type="cosine",
        warmup_steps=2,
    )
    trainer.train()
    optimizer = trainer.optimizer
    lowest = {id(weight) for group in optimizer.param_groups[-1:] for weight in group["params"]}
    assert id(trainer.model.clarity.embeddings.class_tokens) in lowest
    moving = [step for step in callback.seen if step[0] > 0]
    assert len(moving) >= 3
    for step in moving:
        assert step[-1] / step[0] == pytest.approx(0.125)
        assert step[0] == max(step)
