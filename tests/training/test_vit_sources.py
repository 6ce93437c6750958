# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Sources: folders, files, modules and every layout give the same weights; pickles and other blocks are refused."""

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
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


def test_heads_are_compared_if_the_source_has_a_config(tmp_path):
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
    with pytest.raises(FileNotFoundError, match="No such file"):
        initialize_from_vit(clarity(), tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"No \.safetensors file in"):
        initialize_from_vit(clarity(), tmp_path)


@pytest.mark.parametrize("source", [SwinConfig(), nn.Linear(2, 2)], ids=["config", "module"])
def test_a_config_from_other_than_a_plain_vit_is_refused(source):
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


# Layouts


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
