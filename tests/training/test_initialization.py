# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Initialisation: the encoder computes what its source computes; findings follow by name."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SwinConfig,
    TimmWrapperConfig,
    TimmWrapperModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityModel
from clarity_hf.training.initialization import adapt_findings, config_from_vit, initialize_from_vit

timm = pytest.importorskip("timm")

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
TIMM_SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "img_size": 32, "patch_size": 8}
CLARITY = {**SIZES, "intermediate_size": 48, "class_attention_layers": 1, "cam_size": 8, "cam_groups": 2}
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def randomised(module, seed=0):
    """Every weight drawn, LayerNorms, biases and LayerScales too, so that a swap of any two shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + (weight.ndim == 1) * 0.5)
    return module.eval()


def vit(cls=ViTModel, **changes):
    return randomised(cls(ViTConfig(**{**SIZES, "intermediate_size": 48, **changes})))


def dinov2(cls=Dinov2Model, **changes):
    return randomised(cls(Dinov2Config(**{**SIZES, "mlp_ratio": 2, **changes})))


def timm_vit(**changes):
    from timm.models.vision_transformer import VisionTransformer

    return randomised(VisionTransformer(**{**TIMM_SIZES, "num_classes": 2, **changes}))


def clarity(cls=ClarityModel, findings=("Mass",), seed=1, **changes):
    torch.manual_seed(seed)
    return cls(ClarityConfig(**{**CLARITY, "id2label": dict(enumerate(findings)), **changes})).eval()


def films(height=32, width=32, channels=3):
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(2))


def tokens_of(module, pixels):
    """Class and patch tokens after the final LayerNorm `(B, 1 + N, D)`."""
    with torch.no_grad():
        if hasattr(module, "forward_features"):
            return module.forward_features(pixels)
        return module(pixels).last_hidden_state


SOURCES = {"vit": (vit, 1e-12), "dinov2": (dinov2, 1e-6), "timm": (timm_vit, 1e-6)}


@pytest.mark.parametrize("name", SOURCES)
def test_with_one_finding_and_no_noise_the_encoder_is_the_source(name):
    build, eps = SOURCES[name]
    source = build()
    model = clarity(layer_norm_eps=eps)
    before = torch.random.get_rng_state()
    report = initialize_from_vit(model, source, class_token_noise=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(tokens_of(model, films()), tokens_of(source, films()), **EXACT)
    assert report.eps == (eps, eps)
    assert report.layout == ("timm" if name == "timm" else "transformers")
    assert report.initialised == report.resampled == report.zeroed == []


@pytest.mark.parametrize(
    ("build", "encoder"),
    [
        (lambda: vit(ViTForImageClassification), lambda module: module.vit),
        (lambda: dinov2(Dinov2ForImageClassification), lambda module: module.dinov2),
        (lambda: timm_vit(init_values=0.1), lambda module: module),
        (lambda: timm_vit(qkv_bias=False), lambda module: module),
        (lambda: timm_vit(no_embed_class=True), lambda module: module),
        (lambda: timm_vit(img_size=(16, 48)), lambda module: module),
        (lambda: vit(image_size=(48, 16)), lambda module: module),
    ],
    ids=["vit head", "dinov2 head", "timm LayerScale", "no qkv bias", "no class position", "timm wide", "vit tall"],
)
def test_variants_are_the_source_too(build, encoder):
    source = build()
    config = config_from_vit(source, id2label={0: "Mass"}, class_attention_layers=1)
    model = ClarityModel(config).eval()
    report = initialize_from_vit(model, source, class_token_noise=0)
    height, width = config.image_size if isinstance(config.image_size, tuple | list) else (32, 32)
    pixels = films(height, width)
    torch.testing.assert_close(tokens_of(model, pixels), tokens_of(encoder(source), pixels), **EXACT)
    assert report.resampled == report.initialised == []


def test_a_source_without_qkv_bias_gets_zeros_where_the_model_has_one():
    source = timm_vit(qkv_bias=False)
    model = randomised(clarity())
    report = initialize_from_vit(model, source, class_token_noise=0)
    torch.testing.assert_close(tokens_of(model, films()), tokens_of(source, films()), **EXACT)
    assert report.zeroed == [f"layers.{i}.attention.{part}_proj.bias" for i in range(2) for part in "qkv"]


@pytest.mark.parametrize(("height", "width"), [(48, 48), (16, 16), (24, 40)])
def test_positions_for_another_size_are_those_that_dinov2_interpolates(height, width):
    source = dinov2()
    model = clarity(image_size=(height, width))
    report = initialize_from_vit(model, source, class_token_noise=0)
    pixels = films(height, width)
    torch.testing.assert_close(tokens_of(model, pixels), tokens_of(source, pixels), **EXACT)
    assert report.resampled == ["embeddings.patch_positions"]


def test_resampling_is_bicubic_without_antialiasing_for_timm_too():
    source = timm_vit(img_size=64)
    model = clarity(image_size=(24, 40))
    initialize_from_vit(model, source)
    stored = source.pos_embed[:, 1:].detach().reshape(1, 8, 8, 24).permute(0, 3, 1, 2)
    expected = F.interpolate(stored, size=(3, 5), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 15, 24)
    torch.testing.assert_close(model.embeddings.patch_positions.detach(), expected)


def test_a_model_started_at_another_size_is_the_one_that_interpolates_on_the_fly():
    source, small, large = vit(), clarity(), clarity(image_size=64)
    initialize_from_vit(small, source)
    initialize_from_vit(large, source)
    torch.testing.assert_close(tokens_of(large, films(64, 64)), tokens_of(small, films(64, 64)), **EXACT)


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
    pixels = films(160, 160)
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


def test_class_tokens_are_noisy_copies_of_the_one():
    source = vit()
    findings = [f"finding {i}" for i in range(200)]
    model, same, other = (clarity(findings=findings) for _ in range(3))
    report = initialize_from_vit(model, source, generator=torch.Generator().manual_seed(7))
    initialize_from_vit(same, source, generator=torch.Generator().manual_seed(7))
    initialize_from_vit(other, source)
    assert_same_weights(same, model)
    for ours, theirs in (
        (model.embeddings.class_tokens, source.embeddings.cls_token),
        (model.embeddings.class_positions, source.embeddings.position_embeddings[:, :1]),
    ):
        noise = (ours - theirs).detach()
        assert noise.std().item() == pytest.approx(0.02, rel=0.05)
        assert noise.mean(1).abs().max() < 5 * 0.02 / 200**0.5
        assert len({tuple(token.tolist()) for token in ours[0]}) == 200
    assert not torch.equal(other.embeddings.class_tokens, model.embeddings.class_tokens)
    assert report.copied_to_classes == ["embeddings.class_tokens", "embeddings.class_positions"]


def test_without_a_class_position_only_the_noise_is_there():
    model = clarity(findings=["Mass", "Nodule"])
    initialize_from_vit(model, timm_vit(no_embed_class=True), class_token_noise=0)
    assert not model.embeddings.class_positions.any()


def test_register_tokens_are_left_out_and_reported():
    model = clarity()
    source = randomised(
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=4))
    )
    report = initialize_from_vit(model, source, class_token_noise=0)
    assert report.unused == ["embeddings.mask_token", "embeddings.register_tokens"]
    positions = source.embeddings.position_embeddings
    assert torch.equal(model.embeddings.patch_positions, positions[:, 1:])
    assert torch.equal(model.embeddings.class_positions, positions[:, :1])


@pytest.mark.parametrize("state_only", [False, True])
def test_positions_of_extra_tokens_are_left_out_and_reported(state_only):
    model, source = clarity(), timm_vit(reg_tokens=4)
    report = initialize_from_vit(model, source.state_dict() if state_only else source, class_token_noise=0)
    assert torch.equal(model.embeddings.patch_positions, source.pos_embed[:, 5:])
    assert torch.equal(model.embeddings.class_positions, source.pos_embed[:, :1])
    assert report.unused[:1] == ["reg_token"]
    assert report.unused[-1] == "position embeddings 1 to 4, of the extra tokens"


def test_a_source_without_class_token_leaves_the_models():
    model, source = clarity(), timm_vit(class_token=False, global_pool="avg")
    before = model.embeddings.class_tokens.detach().clone()
    report = initialize_from_vit(model, source)
    assert torch.equal(model.embeddings.class_tokens, before)
    assert torch.equal(model.embeddings.patch_positions, source.pos_embed)
    # After average pooling timm's final LayerNorm is another one.
    assert report.initialised == [
        "embeddings.class_tokens",
        "embeddings.class_positions",
        "layernorm.weight",
        "layernorm.bias",
    ]


def test_layer_scale_is_folded_and_reported():
    report = initialize_from_vit(clarity(), dinov2())
    layers = ("attention.o_proj", "mlp.fc2")
    assert sorted(report.folded) == sorted(
        f"layers.{i}.{layer}.{leaf}" for i in range(2) for layer in layers for leaf in ("weight", "bias")
    )


@pytest.mark.parametrize(("source_channels", "channels"), [(3, 1), (1, 3)])
def test_grey_films_embed_alike_over_one_channel_and_three(source_channels, channels):
    source = timm_vit(in_chans=source_channels)
    model = clarity(num_channels=channels)
    report = initialize_from_vit(model, source, class_token_noise=0)
    grey = films(channels=1)
    expected = tokens_of(source, grey.expand(-1, source_channels, -1, -1))
    torch.testing.assert_close(tokens_of(model, grey.expand(-1, channels, -1, -1)), expected, **EXACT)
    assert report.folded == ["embeddings.patch_projection.weight"]


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "attention"},
        {"pooling": "linear"},
        {"pooling": "mean"},
        {"segment_cam": False, "map_fusion": "attention", "background_suppression": False},
    ],
    ids=["attention", "linear", "mean", "no SegmentCAM"],
)
def test_every_weight_is_reported_once_and_heads_are_untouched(changes):
    model = clarity(ClarityForMultiLabelLocalization, findings=["Mass", "Nodule"], **changes)
    before = copy.deepcopy(model)
    report = initialize_from_vit(model, dinov2())
    kinds = ("matched", "resampled", "copied_to_classes", "folded", "zeroed", "initialised")
    names = [name for kind in kinds for name in getattr(report, kind)]
    assert sorted(names) == sorted(model.state_dict())
    assert report.initialised == [name for name in model.state_dict() if not name.startswith("clarity.")]
    for name in report.initialised:
        assert torch.equal(model.state_dict()[name], before.state_dict()[name])
    assert all(weight.isfinite().all() for weight in model(films()).values() if isinstance(weight, torch.Tensor))


def test_the_report_reads_as_text():
    model = clarity(ClarityForMultiLabelLocalization, image_size=64)
    assert str(initialize_from_vit(model, vit(ViTForImageClassification))) == (
        "Initialised from a ViT in the layout of transformers: 36 weights one to one.\n"
        "  resampled: 1 (clarity.embeddings.patch_positions)\n"
        "  copied_to_classes: 2 (clarity.embeddings.class_tokens, clarity.embeddings.class_positions)\n"
        "  initialised: 23 (class_token_head.weight, class_token_head.bias, class_token_head.attention.layer_scale, "
        "class_token_head.attention.q_proj.weight, class_token_head.attention.q_proj.bias, "
        "class_token_head.attention.k_proj.weight, … 17 more)\n"
        "  unused: 2 (classifier.weight, classifier.bias)\n"
        "  LayerNorm eps: 1e-06, the source's is 1e-12: set layer_norm_eps to take it over"
    )
    assert "the source's is unknown" in str(initialize_from_vit(model, vit().state_dict()))


def test_the_models_dtype_stays_and_half_precision_is_read():
    source = dinov2()
    model = clarity().to(torch.bfloat16)
    initialize_from_vit(model, source)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    half = clarity()
    initialize_from_vit(half, copy.deepcopy(source).half(), class_token_noise=0)
    weight, scale = (
        source.half().encoder.layer[0].attention.o_proj.weight.float(),
        source.encoder.layer[0].layer_scale1.lambda1.float(),
    )
    assert torch.equal(half.layers[0].attention.o_proj.weight, weight * scale[:, None])  # folded in float32


def test_the_source_stays_as_it_was():
    source = timm_vit()
    before = copy.deepcopy(source.state_dict())
    model = clarity()
    initialize_from_vit(model, source)
    randomised(model, seed=9)
    assert all(torch.equal(weight, before[name]) for name, weight in source.state_dict().items())


MISMATCHES = {
    "width": ({"hidden_size": 48}, "got hidden_size 24 (source 48). Build it from ClarityConfig(hidden_size=48)"),
    "depth": ({"num_hidden_layers": 3}, "ClarityConfig(num_hidden_layers=3)"),
    "MLP": ({"intermediate_size": 96}, "ClarityConfig(intermediate_size=96)"),
    "patch": ({"patch_size": 16}, "ClarityConfig(patch_size=16)"),
    "heads": ({"num_attention_heads": 6}, "ClarityConfig(num_attention_heads=6)"),
    "activation": ({"hidden_act": "relu"}, "ClarityConfig(hidden_act='relu')"),
    "two": ({"num_hidden_layers": 3, "intermediate_size": 96}, "num_hidden_layers=3, intermediate_size=96)"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_another_architecture_is_refused_with_the_config_that_fits(name):
    changes, message = MISMATCHES[name]
    model = clarity()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=re.escape(message)):
        initialize_from_vit(model, vit(**changes))
    assert_same_weights(model, before)
    initialize_from_vit(clarity(**changes), vit(**changes))  # what the message says helps


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


def test_a_qkv_bias_without_a_place_is_refused():
    with pytest.raises(ValueError, match=re.escape("ClarityConfig(qkv_bias=True)")):
        initialize_from_vit(clarity(qkv_bias=False), vit())


def test_channels_that_are_neither_equal_nor_one_are_refused():
    with pytest.raises(ValueError, match=re.escape("num_channels 3 (source 2)")):
        initialize_from_vit(clarity(), timm_vit(in_chans=2))


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


def test_sources_without_positions_or_with_missing_weights_are_refused():
    with pytest.raises(ValueError, match="absolute position embeddings"):
        initialize_from_vit(clarity(), timm_vit(pos_embed="none"))
    state = timm_vit().state_dict()
    state.pop("blocks.1.norm1.bias")
    with pytest.raises(ValueError, match=r"got none for 1 \(layers\.1\.layernorm_before\.bias\)"):
        initialize_from_vit(clarity(), state)
    state = timm_vit(img_size=(16, 24)).state_dict()
    with pytest.raises(ValueError, match="positions for a square grid of patches or for a known one, got 7"):
        initialize_from_vit(clarity(), state)
    initialize_from_vit(clarity(image_size=(16, 24)), state)  # the model's own grid has as many


def test_patches_that_are_not_square_convolutions_are_refused():
    with pytest.raises(ValueError, match="square patches, got 8 × 4"):
        initialize_from_vit(clarity(), timm_vit(patch_size=(8, 4)).state_dict())
    state = timm_vit().state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    with pytest.raises(ValueError, match=r"by a convolution, got a weight of shape \(24, 192\)"):
        initialize_from_vit(clarity(), state)


def test_pickles_are_refused(tmp_path):
    torch.save(vit().state_dict(), tmp_path / "pytorch_model.bin")
    for place in (tmp_path / "pytorch_model.bin", tmp_path):
        with pytest.raises(ValueError, match=r"safetensors, got \['pytorch_model.bin'\].*Pickles can run code"):
            initialize_from_vit(clarity(), place)
    vit().config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Pickles can run code"):
        initialize_from_vit(clarity(), tmp_path)


def test_other_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"layout of transformers, timm or clarity_hf, got keys such as \['weight'"):
        initialize_from_vit(clarity(), nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"map names to tensors, got something else under \['state_dict'\]"):
        initialize_from_vit(clarity(), {"state_dict": {}})
    with pytest.raises(TypeError, match="got int"):
        initialize_from_vit(clarity(), 3)
    with pytest.raises(FileNotFoundError, match="must be a file that exists"):
        initialize_from_vit(clarity(), tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"must hold a \.safetensors file, got none"):
        initialize_from_vit(clarity(), tmp_path)
    with pytest.raises(TypeError, match="must be a CLARiTy model, got Linear"):
        initialize_from_vit(nn.Linear(2, 2), vit())
    with pytest.raises(ValueError, match="`class_token_noise` must be at least 0, got -1"):
        initialize_from_vit(clarity(), vit(), class_token_noise=-1)


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


# CLARiTy checkpoints


def assert_same_weights(model, other):
    state, expected = model.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    assert [name for name, weight in state.items() if not torch.equal(weight, expected[name])] == []


def test_a_clarity_source_is_copied_whole(tmp_path):
    names = ["Mass", "Nodule"]
    source = randomised(clarity(ClarityForMultiLabelLocalization, findings=names))
    source.save_pretrained(tmp_path)
    for place in (source, source.state_dict(), tmp_path, tmp_path / "model.safetensors"):
        model = clarity(ClarityForMultiLabelLocalization, findings=names, seed=3)
        report = initialize_from_vit(model, place)
        assert_same_weights(model, source)
        assert report.matched == list(model.state_dict())
        assert report.layout == "clarity"
        assert report.unused == []
    encoder = clarity(findings=names)
    report = initialize_from_vit(encoder, source)
    assert_same_weights(encoder, source.clarity)
    assert "segment_cam.cam.weight" in report.unused
    headed = clarity(ClarityForMultiLabelLocalization, findings=names, seed=3)
    source.clarity.save_pretrained(tmp_path / "encoder")
    report = initialize_from_vit(headed, tmp_path / "encoder")
    assert_same_weights(headed.clarity, source.clarity)
    assert report.initialised == [name for name in headed.state_dict() if not name.startswith("clarity.")]


def test_findings_of_a_clarity_source_follow_by_name():
    source = randomised(clarity(ClarityForMultiLabelLocalization, findings=["Mass", "Nodule", "Edema"]))
    model = clarity(ClarityForMultiLabelLocalization, findings=["Hernia", "Nodule"], seed=3)
    own_bias = model.ranking_pooling.bias[0].item()
    report = initialize_from_vit(model, source)
    assert (report.findings.kept, report.findings.new, report.findings.dropped) == (
        ["Nodule"],
        ["Hernia"],
        ["Mass", "Edema"],
    )
    assert "Findings: 1 kept (Nodule); 1 new (Hernia); 2 dropped (Mass, Edema)" in str(report)
    assert torch.equal(model.segment_cam.cam.weight[1], source.segment_cam.cam.weight[1])
    assert torch.equal(model.clarity.embeddings.class_tokens[0, 1], source.clarity.embeddings.class_tokens[0, 1])
    assert model.ranking_pooling.bias[0].item() == own_bias
    with pytest.raises(ValueError, match="a class token for each of the 2 findings of the model, got 3 without names"):
        initialize_from_vit(model, source.state_dict())


def test_a_head_that_does_not_fit_stays_out_as_a_whole():
    source = randomised(clarity(ClarityForMultiLabelLocalization, cam_size=16))
    model = clarity(ClarityForMultiLabelLocalization, pooling="linear")
    before = copy.deepcopy(model)
    report = initialize_from_vit(model, source)
    assert report.initialised == [name for name in model.state_dict() if name.startswith("segment_cam.")]
    assert_same_weights(model.segment_cam, before.segment_cam)
    assert torch.equal(model.class_token_head.weight, source.class_token_head.weight)
    assert "class_token_head.attention.q_proj.weight" in report.unused


def test_a_non_square_clarity_source_is_resampled_from_its_grid():
    source = randomised(clarity(image_size=(16, 64)))  # 2 × 8, as many patches as 4 × 4
    for place in (source, source.state_dict()):
        same = clarity(image_size=(16, 64))
        assert initialize_from_vit(same, place).resampled == []
        assert_same_weights(same, source)
    square = clarity(image_size=32)
    assert initialize_from_vit(square, source).resampled == ["embeddings.patch_positions"]
    assert torch.allclose(square.embeddings.patch_positions, source.embeddings.positions_for(4, 4))


def test_other_depths_of_clarity_are_refused():
    with pytest.raises(ValueError, match=re.escape("ClarityConfig(num_hidden_layers=3)")):
        initialize_from_vit(clarity(), clarity(num_hidden_layers=3))


def test_resized_positions_are_those_interpolated_on_the_fly(tmp_path):
    model = randomised(clarity(ClarityForMultiLabelLocalization, findings=["Mass", "Nodule"]))
    expected = model(films(64, 64))
    model.clarity.resize_position_embeddings(64)
    assert model.config.image_size == 64
    model.save_pretrained(tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    for resized in (model, loaded):
        outputs = resized(films(64, 64))
        assert torch.equal(outputs.logits, expected.logits)
        assert torch.equal(outputs.localization_maps, expected.localization_maps)


def test_the_packaged_checkpoint_continues_at_512(tmp_path):
    model = ClarityForMultiLabelLocalization.from_pretrained("clarity-s16-224")
    pixels = films(512, 512)[:1]
    with torch.no_grad():
        expected = model(pixels)
    model.clarity.resize_position_embeddings(512)
    large = copy.deepcopy(model)
    for weight in large.parameters():
        weight.data.zero_()
    report = initialize_from_vit(large, "clarity-s16-224")
    assert report.resampled == ["clarity.embeddings.patch_positions"]
    assert len(report.matched) == len(large.state_dict()) - 1
    assert_same_weights(large, model)
    model.save_pretrained(tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    assert loaded.config.patch_grid == (32, 32)
    with torch.no_grad():
        outputs = loaded(pixels)
    torch.testing.assert_close(outputs.logits, expected.logits)
    assert outputs.localization_maps.shape == (1, 14, 32, 32)
    torch.testing.assert_close(outputs.localization_maps, expected.localization_maps)


# Other findings

NAMES = ["Mass", "Nodule", "Effusion"]
LISTS = {
    "score_thresholds": [0.1, 0.2, 0.3],
    "map_thresholds": [0.4, 0.5, 0.6],
    "suppression_floor": [0.7, 0.8, 0.9],
    "prevalence": [0.01, 0.02, 0.03],
}


def trained(**changes):
    return randomised(clarity(ClarityForMultiLabelLocalization, findings=NAMES, **{**LISTS, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "linear"},
        {"pooling": "mean"},
        {"segment_cam": False, "map_fusion": "attention", "background_suppression": False},
    ],
    ids=["attention", "linear", "mean", "no SegmentCAM"],
)
def test_the_same_findings_in_another_order_are_a_permutation(changes):
    model = trained(**changes)
    before = copy.deepcopy(model)
    rng = torch.random.get_rng_state()
    adapted, report = adapt_findings(model, ["Effusion", "Mass", "Nodule"])
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert (report.kept, report.new, report.dropped) == (["Effusion", "Mass", "Nodule"], [], [])
    order = [2, 0, 1]
    outputs, expected = adapted(films()), model(films())
    torch.testing.assert_close(outputs.logits, expected.logits[:, order], **EXACT)
    torch.testing.assert_close(outputs.localization_maps, expected.localization_maps[:, order], **EXACT)
    for name, values in LISTS.items():
        assert getattr(adapted.config, name) == [values[i] for i in order]
    assert adapted.config.findings == ["Effusion", "Mass", "Nodule"]
    assert adapted.config.label2id == {"Effusion": 0, "Mass": 1, "Nodule": 2}
    assert_same_weights(model, before)
    assert model.config.to_dict() == before.config.to_dict()


def test_dropping_and_adding_findings_keeps_the_known_rows():
    model = trained()
    adapted, report = adapt_findings(model, ["Hernia", "Nodule", "Fracture"])
    assert str(report) == "Findings: 1 kept (Nodule); 2 new (Hernia, Fracture); 2 dropped (Mass, Effusion)"
    old, new = model.state_dict(), adapted.state_dict()
    axes = {"clarity.embeddings.class_tokens": 1, "clarity.embeddings.class_positions": 1}
    axes |= {"class_token_head.weight": 0, "class_token_head.bias": 0}
    axes |= {"segment_cam.cam.weight": 0, "ranking_pooling.bias": 0}
    for name, weight in old.items():
        if name in axes:
            assert torch.equal(new[name].select(axes[name], 1), weight.select(axes[name], 1)), name
        else:
            assert torch.equal(new[name], weight), name
    for name in list(axes)[:2]:
        noise = new[name][0, [0, 2]] - old[name].mean(1)
        assert noise.std().item() == pytest.approx(0.02, rel=0.4)
        assert not torch.equal(noise[0], noise[1])
    assert new["ranking_pooling.bias"][0] == new["class_token_head.bias"][0] == 0  # of a prevalence of one half
    assert new["class_token_head.weight"][0].abs().max() <= 0.1  # fresh, of std 0.02
    assert new["segment_cam.cam.weight"][0].any()
    config = adapted.config
    assert config.score_thresholds == [0.5, 0.2, 0.5]
    assert config.suppression_floor == [0.5, 0.8, 0.1]  # Hernia is a finding at the rim
    assert config.prevalence == [0.5, 0.02, 0.5]


def test_one_finding_and_numbers_for_all_are_possible():
    model = trained(score_thresholds=0.3, suppression_floor=None)
    adapted, _ = adapt_findings(model, ["Effusion"])
    assert adapted.config.score_thresholds == 0.3
    assert adapted.config.suppression_floor is None
    assert adapted(films()).logits.shape == (2, 1)


def test_an_adapted_model_saves_and_loads(tmp_path):
    adapted, _ = adapt_findings(trained(), ["Hernia", "Nodule"])
    adapted.save_pretrained(tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    assert_same_weights(loaded, adapted)
    assert loaded.config.findings == ["Hernia", "Nodule"]
    assert loaded.config.score_thresholds == [0.5, 0.2]


def test_new_rows_come_from_the_generator():
    model = trained()
    names = ["Mass", "Hernia"]
    first, _ = adapt_findings(model, names, generator=torch.Generator().manual_seed(4))
    again, _ = adapt_findings(model, names, generator=torch.Generator().manual_seed(4))
    other, _ = adapt_findings(model, names)
    assert_same_weights(again, first)
    assert not torch.equal(other.class_token_head.weight[1], first.class_token_head.weight[1])
    assert not torch.equal(other.clarity.embeddings.class_tokens[0, 1], first.clarity.embeddings.class_tokens[0, 1])


def test_dtype_mode_and_attention_stay():
    model = trained().to(torch.bfloat16).train()
    model.set_attn_implementation("eager")
    adapted, _ = adapt_findings(model, ["Mass"])
    assert adapted.dtype == torch.bfloat16
    assert adapted.training
    assert adapted.config._attn_implementation == "eager"
    assert not adapt_findings(model.eval(), ["Mass"])[0].training


def test_findings_must_be_a_list_of_different_names():
    model = trained()
    with pytest.raises(TypeError, match="got the string 'Mass'"):
        adapt_findings(model, "Mass")
    for names in ([], ["Mass", "Mass"]):
        with pytest.raises(ValueError, match="at least one and each once"):
            adapt_findings(model, names)
