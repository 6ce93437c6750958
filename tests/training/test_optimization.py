# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Which weights decay, which layer learns how fast, and Muon beside AdamW as one optimizer."""

import copy
import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from clarity_hf.training.optimization import (
    MuonWithAdamW,
    block_matrices,
    decaying_parameters,
    even_shares,
    layer_of,
    parameter_groups,
)

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


def two_layers():
    """A matrix and a bias, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in ((4, 3), (4,))]


def stepped(optimizers, matrix, bias, count):
    """Descend a fixed quadratic."""
    for _ in range(count):
        ((matrix - 1) ** 2).sum().add(((bias + 2) ** 2).sum()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def joined(matrix, bias, **settings):
    """Both parameters in two groups of different rates."""
    groups = [
        {"params": [bias], "lr": 0.02, "weight_decay": 0.0},
        {"params": [matrix], "lr": 0.01, "weight_decay": 0.1},
    ]
    return MuonWithAdamW(groups, [matrix], **settings)


@pytest.mark.parametrize("settings", [{}, {"betas": (0.5, 0.9), "eps": 0.1}, {"iterations": 2}])
def test_the_joint_optimizer_steps_as_torchs_muon_and_adamw_would_separately(settings):
    matrix, bias = two_layers()
    settings = dict(settings)
    stepped([joined(matrix, bias, **settings)], matrix, bias, 5)
    other, other_bias = two_layers()
    iterations = settings.pop("iterations", 5)
    muon = torch.optim.Muon(
        [other], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw", ns_steps=iterations
    )
    adamw = torch.optim.AdamW([other_bias], lr=0.02, weight_decay=0.0, **{"betas": (0.9, 0.95)} | settings)
    stepped([muon, adamw], other, other_bias, 5)
    torch.testing.assert_close(matrix, other, rtol=0, atol=0)
    torch.testing.assert_close(bias, other_bias, rtol=0, atol=0)


def test_a_stored_state_resumes_bit_for_bit():
    matrix, bias = two_layers()
    stepped([joined(matrix, bias)], matrix, bias, 6)
    other, other_bias = two_layers()
    first = joined(other, other_bias)
    stepped([first], other, other_bias, 3)
    second = joined(other, other_bias)
    second.load_state_dict(first.state_dict())
    stepped([second], other, other_bias, 3)
    torch.testing.assert_close(matrix, other, rtol=0, atol=0)
    torch.testing.assert_close(bias, other_bias, rtol=0, atol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_a_copy_with_its_weights_steps_as_the_original_would(copied):
    matrix, bias = two_layers()
    optimizer = joined(matrix, bias)
    stepped([optimizer], matrix, bias, 3)
    second, other, other_bias = copied((optimizer, matrix, bias))
    stepped([second], other, other_bias, 3)
    kept = two_layers()
    stepped([joined(*kept)], *kept, 3)
    torch.testing.assert_close([matrix, bias], kept, rtol=0, atol=0)  # the original stayed where it was
    stepped([optimizer], matrix, bias, 3)
    torch.testing.assert_close([other, other_bias], [matrix, bias], rtol=0, atol=0)


def test_the_state_of_both_is_in_the_one_optimizer_also_after_loading():
    matrix, bias = two_layers()
    optimizer = joined(matrix, bias)
    for _ in range(2):
        stepped([optimizer], matrix, bias, 1)
        assert "momentum_buffer" in optimizer.state[matrix]
        assert "exp_avg" in optimizer.state[bias]
        optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state[bias]["step"] == 2


def test_a_group_that_is_added_later_is_adamws():
    matrix, bias = two_layers()
    optimizer = joined(matrix, torch.nn.Parameter(torch.zeros(4)), betas=(0.5, 0.9))
    optimizer.add_param_group({"params": [bias], "lr": 0.02, "weight_decay": 0.0})
    stepped([optimizer], matrix, bias, 3)
    other, other_bias = two_layers()
    stepped([joined(other, other_bias, betas=(0.5, 0.9))], other, other_bias, 3)
    torch.testing.assert_close([matrix, bias], [other, other_bias], rtol=0, atol=0)


def test_a_scheduler_moves_the_rates_of_both_parts():
    matrix, bias = two_layers()
    optimizer = joined(matrix, bias)
    start = [matrix.detach().clone(), bias.detach().clone()]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    stepped([optimizer], matrix, bias, 2)
    torch.testing.assert_close([matrix.detach(), bias.detach()], start, rtol=0, atol=0)


def test_muon_optimizes_only_the_matrices_of_the_blocks():
    model = tiny_model()
    names = {id(weight): name for name, weight in model.named_parameters()}
    taken = {names[id(weight)] for weight in block_matrices(model)}
    per_block = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2")
    assert taken == {f"clarity.layers.{block}.{name}.weight" for block in range(2) for name in per_block}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_matrices_are_divided_into_shares_of_about_the_same_work(count):
    sizes = [(384, 384)] * 48 + [(1536, 384), (384, 1536)] * 12
    matrices = [torch.empty(size, device="meta") for size in sizes]
    shares = even_shares(matrices, count)
    assert sorted(id(matrix) for share in shares for matrix in share) == sorted(map(id, matrices))
    work = [sum(matrix.numel() * min(matrix.shape) for matrix in share) for share in shares]
    assert max(work) - min(work) <= 1536 * 384 * 384


def test_an_optimizer_without_any_matrix_for_muon_is_refused():
    matrix, bias = two_layers()
    with pytest.raises(ValueError, match="`matrices` must be among the parameters"):
        MuonWithAdamW([{"params": [bias], "lr": 0.1}], [matrix])


def test_the_trainer_uses_muon_on_request_and_every_weight_changes(tmp_path):
    muon = {"optim": "adamw_torch_fused", "matrix_optimizer": "muon", "muon_iterations": 4}
    settings = muon | {"learning_rate": 1e-2}
    trainer = tiny_trainer(tmp_path, random_rows(8), max_steps=2, **settings)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    assert isinstance(trainer.optimizer.optimizer, MuonWithAdamW)
    assert {group["ns_steps"] for group in trainer.optimizer.param_groups if "ns_steps" in group} == {4}
    still = [name for name, weight in trainer.model.named_parameters() if torch.equal(weight, before[name])]
    assert not still
