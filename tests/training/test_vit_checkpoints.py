# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Reading: folders, files and modules give the same weights, their configs the architecture; pickles are refused."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    SwinConfig,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from clarity_hf import ClarityConfig, ClarityModel
from clarity_hf.training.initialization import config_from_vit, initialize_from_vit

timm = pytest.importorskip("timm")

_spec = importlib.util.spec_from_file_location("tiny_vits", Path(__file__).with_name("tiny_vits.py"))
tiny_vits = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_vits)
EXACT, SIZES, TIMM_SIZES = tiny_vits.EXACT, tiny_vits.SIZES, tiny_vits.TIMM_SIZES
assert_same_weights, clarity, dinov2 = tiny_vits.assert_same_weights, tiny_vits.clarity, tiny_vits.dinov2
images, randomised, timm_vit, tokens_of = (
    tiny_vits.images,
    tiny_vits.randomised,
    tiny_vits.timm_vit,
    tiny_vits.tokens_of,
)
vit = tiny_vits.vit


@pytest.mark.parametrize("build", [vit, dinov2, lambda: vit(ViTForImageClassification)], ids=["vit", "dinov2", "head"])
@pytest.mark.parametrize("as_file", [False, True], ids=["folder", "file"])
def test_saved_models_of_transformers_give_the_same_weights(tmp_path, build, as_file):
    source = build()
    source.save_pretrained(tmp_path)
    direct, read = clarity(), clarity()
    expected = initialize_from_vit(direct, source)
    report = initialize_from_vit(read, tmp_path / "model.safetensors" if as_file else str(tmp_path))
    assert_same_weights(read, direct)
    assert report.matched == expected.matched
    assert report.eps == expected.eps
    assert set(report.unused) == set(expected.unused)


def test_a_folder_of_the_timm_wrapper_gives_the_same_weights(tmp_path):
    config = TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=TIMM_SIZES)
    source = randomised(TimmWrapperModel(config))
    source.save_pretrained(tmp_path)
    direct = clarity()
    initialize_from_vit(direct, source.timm_model)
    for place in (str(tmp_path), f"hf-hub:{tmp_path}", tmp_path / "model.safetensors", source):
        model = clarity()
        assert initialize_from_vit(model, place).eps == (1e-6, 1e-6)
        assert_same_weights(model, direct)
    configs = [config_from_vit(place, class_attention_layers=1).to_dict() for place in (tmp_path, source)]
    assert configs[0] == configs[1]


def test_a_folder_as_timm_writes_it_loads_too(tmp_path):
    from timm.models import save_for_hf

    source = randomised(timm.create_model("test_vit"))
    save_for_hf(source, tmp_path, safe_serialization=True)
    model = ClarityModel(config_from_vit(tmp_path, id2label={0: "Mass"}, class_attention_layers=1)).eval()
    initialize_from_vit(model, tmp_path, class_token_noise=0)
    assert config_from_vit(tmp_path).to_dict() == config_from_vit(source).to_dict()
    pixels = images(160, 160)
    torch.testing.assert_close(tokens_of(model, pixels), tokens_of(source, pixels), **EXACT)


def test_a_lone_safetensors_file_needs_no_config(tmp_path):
    save_file(timm_vit().state_dict(), tmp_path / "weights.safetensors")
    direct, model = clarity(), clarity()
    initialize_from_vit(direct, timm_vit())
    initialize_from_vit(model, tmp_path)
    assert_same_weights(model, direct)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"config\.json or one \.safetensors file"):
        initialize_from_vit(model, tmp_path)


def test_heads_are_compared_where_the_source_tells_them(tmp_path):
    changes = {"num_heads": 6}
    for source in (timm_vit(**changes), nn.Sequential(timm_vit(**changes))):
        with pytest.raises(ValueError, match="num_attention_heads=6"):
            initialize_from_vit(clarity(), source)
    vit(num_attention_heads=6).save_pretrained(tmp_path)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match="num_attention_heads=6"):
            initialize_from_vit(clarity(), place)
    initialize_from_vit(clarity(), timm_vit(**changes).state_dict())  # it cannot be seen there


def test_pickles_are_refused(tmp_path):
    torch.save(vit().state_dict(), tmp_path / "pytorch_model.bin")
    for place in (tmp_path / "pytorch_model.bin", tmp_path):
        with pytest.raises(ValueError, match=r"safetensors, got \['pytorch_model.bin'\].*Pickles can run code"):
            initialize_from_vit(clarity(), place)
    vit().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Pickles can run code"):
        initialize_from_vit(clarity(), tmp_path)


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"map names to tensors, got something else under \['state_dict'\]"):
        initialize_from_vit(clarity(), {"state_dict": {}})
    with pytest.raises(TypeError, match="got int"):
        initialize_from_vit(clarity(), 3)
    with pytest.raises(FileNotFoundError, match="must be a file that exists"):
        initialize_from_vit(clarity(), tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"must hold a \.safetensors file, got none"):
        initialize_from_vit(clarity(), tmp_path)


@pytest.mark.parametrize("source", [SwinConfig(), nn.Linear(2, 2)], ids=["config", "module"])
def test_no_config_comes_from_what_is_no_plain_vit(source):
    with pytest.raises(ValueError, match="must be a ViT with plain blocks"):
        config_from_vit(source)


def test_a_config_has_the_architecture_of_the_source(tmp_path):
    config = ViTConfig(**{**SIZES, "intermediate_size": 48, "qkv_bias": False, "layer_norm_eps": 1e-5})
    config.save_pretrained(tmp_path)
    for source in (config, tmp_path, ViTModel(config), str(tmp_path)):
        built = config_from_vit(source, class_attention_layers=2, image_size=64)
        assert {name: getattr(built, name) for name in SIZES} == {**SIZES, "image_size": 64}
        assert (built.intermediate_size, built.qkv_bias, built.layer_norm_eps) == (48, False, 1e-5)
        assert built.class_attention_layers == 2
    built = config_from_vit(timm_vit(), class_attention_layers=1)
    assert {name: getattr(built, name) for name in SIZES} == SIZES
    assert (built.intermediate_size, built.layer_norm_eps, built.hidden_act) == (48, 1e-6, "gelu")


def test_the_config_of_a_packaged_checkpoint_is_its_own():
    config = config_from_vit("clarity-s16-224", image_size=512)
    assert config.patch_grid == (32, 32)
    original = ClarityConfig.from_pretrained("clarity-s16-224")
    assert config.score_thresholds == original.score_thresholds
    assert config.findings == original.findings
