# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Layouts: the names of transformers, timm and DINO lead to the same weights; what has no place is refused."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ViTForImageClassification

from clarity_hf.training.initialization import config_from_vit, initialize_from_vit

timm = pytest.importorskip("timm")

_spec = importlib.util.spec_from_file_location("tiny_vits", Path(__file__).with_name("tiny_vits.py"))
tiny_vits = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_vits)
assert_same_weights, clarity, dinov2 = tiny_vits.assert_same_weights, tiny_vits.clarity, tiny_vits.dinov2
randomised, timm_vit, vit = tiny_vits.randomised, tiny_vits.timm_vit, tiny_vits.vit


def test_legacy_names_of_a_bare_state_dict_are_known(tmp_path):
    source = vit(ViTForImageClassification)
    source.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert "vit.encoder.layer.0.attention.attention.query.weight" in state
    direct, read = clarity(), clarity()
    initialize_from_vit(direct, source)
    report = initialize_from_vit(read, state)
    assert_same_weights(read, direct)
    assert report.eps == (None, 1e-6)
    assert report.unused == ["classifier.bias", "classifier.weight"]


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "student.backbone.", "model.encoder."])
def test_prefixes_are_stripped(prefix):
    state = {prefix + name: weight for name, weight in timm_vit().state_dict().items()} | {"head.x": torch.zeros(1)}
    direct, model = clarity(), clarity()
    initialize_from_vit(direct, timm_vit())
    report = initialize_from_vit(model, state)
    assert_same_weights(model, direct)
    assert report.unused == [f"{prefix}head.weight", f"{prefix}head.bias", "head.x"]


def test_of_a_dino_file_the_teacher_is_taken():
    teacher, student = timm_vit(), randomised(timm_vit(), seed=5)
    state = {f"student.backbone.{name}": weight for name, weight in student.state_dict().items()}
    state |= {f"teacher.backbone.{name}": weight for name, weight in teacher.state_dict().items()}
    direct, model = clarity(), clarity()
    initialize_from_vit(direct, teacher)
    report = initialize_from_vit(model, state)
    assert_same_weights(model, direct)
    assert "student.backbone.cls_token" in report.unused
    with pytest.raises(ValueError, match=r"must hold one ViT, got 2, under \['a\.', 'b\.'\]"):
        initialize_from_vit(model, {f"{x}.{name}": w for x in "ab" for name, w in teacher.state_dict().items()})


def test_other_layouts_are_refused():
    with pytest.raises(ValueError, match=r"layout of transformers, timm or clarity_hf, got keys such as \['weight'"):
        initialize_from_vit(clarity(), nn.Linear(2, 2))


def test_swiglu_is_refused_with_the_reason(tmp_path):
    source = dinov2(use_swiglu_ffn=True)
    source.save_pretrained(tmp_path)
    packed = timm_vit(mlp_layer=timm.layers.SwiGLUPacked)
    unpacked = timm_vit(mlp_layer=timm.layers.SwiGLU)
    file = load_file(tmp_path / "model.safetensors")
    for place in (source, source.state_dict(), tmp_path, file, packed, unpacked):
        with pytest.raises(ValueError, match="got SwiGLU"):
            initialize_from_vit(clarity(), place)
    with pytest.raises(ValueError, match="SwiGLU"):
        config_from_vit(source)


@pytest.mark.parametrize("changes", [{"qk_norm": True}, {"pre_norm": True}], ids=["block", "before blocks"])
def test_parts_that_would_change_the_function_are_refused(changes):
    with pytest.raises(ValueError, match=r"ClarityModel has no place for \((blocks\.0\.attn\.q|norm_pre)"):
        initialize_from_vit(clarity(), timm_vit(**changes))


def test_patches_that_are_not_square_convolutions_are_refused():
    with pytest.raises(ValueError, match="square patches, got 8 × 4"):
        initialize_from_vit(clarity(), timm_vit(patch_size=(8, 4)).state_dict())
    state = timm_vit().state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    with pytest.raises(ValueError, match=r"by a convolution, got a weight of shape \(24, 192\)"):
        initialize_from_vit(clarity(), state)
