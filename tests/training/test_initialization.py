# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Initialisation: the encoder computes what its source computes; findings follow by name."""

import copy
import importlib.util
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTForImageClassification,
)

from clarity_hf import ClarityForMultiLabelLocalization, ClarityModel
from clarity_hf.training.initialization import config_from_vit, initialize_from_vit

pytest.importorskip("timm")

_spec = importlib.util.spec_from_file_location("tiny_vits", Path(__file__).with_name("tiny_vits.py"))
tiny_vits = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny_vits)
EXACT, SIZES = tiny_vits.EXACT, tiny_vits.SIZES
assert_same_weights, clarity, dinov2 = tiny_vits.assert_same_weights, tiny_vits.clarity, tiny_vits.dinov2
images, randomised, timm_vit, tokens_of = (
    tiny_vits.images,
    tiny_vits.randomised,
    tiny_vits.timm_vit,
    tiny_vits.tokens_of,
)
vit = tiny_vits.vit

SOURCES = {"vit": (vit, 1e-12), "dinov2": (dinov2, 1e-6), "timm": (timm_vit, 1e-6)}


@pytest.mark.parametrize("name", SOURCES)
def test_with_one_finding_and_no_noise_the_encoder_is_the_source(name):
    build, eps = SOURCES[name]
    source = build()
    model = clarity(layer_norm_eps=eps)
    before = torch.random.get_rng_state()
    report = initialize_from_vit(model, source, class_token_noise=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(tokens_of(model, images()), tokens_of(source, images()), **EXACT)
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
    pixels = images(height, width)
    torch.testing.assert_close(tokens_of(model, pixels), tokens_of(encoder(source), pixels), **EXACT)
    assert report.resampled == report.initialised == []


def test_a_source_without_qkv_bias_gets_zeros_where_the_model_has_one():
    source = timm_vit(qkv_bias=False)
    model = randomised(clarity())
    report = initialize_from_vit(model, source, class_token_noise=0)
    torch.testing.assert_close(tokens_of(model, images()), tokens_of(source, images()), **EXACT)
    assert report.zeroed == [f"layers.{i}.attention.{part}_proj.bias" for i in range(2) for part in "qkv"]


@pytest.mark.parametrize(("height", "width"), [(48, 48), (16, 16), (24, 40)])
def test_positions_for_another_size_are_those_that_dinov2_interpolates(height, width):
    source = dinov2()
    model = clarity(image_size=(height, width))
    report = initialize_from_vit(model, source, class_token_noise=0)
    pixels = images(height, width)
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
    torch.testing.assert_close(tokens_of(large, images(64, 64)), tokens_of(small, images(64, 64)), **EXACT)


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


def dinov3(**changes):
    """timm's DINOv3 ViT-S, made small: LayerScale, RoPE, registers, biases of its own."""
    import timm

    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "img_size": 32, "patch_size": 8}
    return randomised(timm.create_model("vit_small_patch16_dinov3_qkvb", pretrained=False, **{**sizes, **changes}))


@pytest.mark.parametrize("as_state", [False, True])
def test_of_timm_s_dinov3_everything_is_taken_but_rope_which_is_reported(as_state):
    source = dinov3(num_reg_tokens=0)
    config = config_from_vit(source, id2label={0: "Mass"}, class_attention_layers=1)
    model = ClarityModel(config).eval()
    own = model.embeddings.patch_positions.clone()
    report = initialize_from_vit(model, source.state_dict() if as_state else source, class_token_noise=0)
    assert report.rotary
    assert "rotary positions (RoPE) of the source are not supported" in str(report)
    assert report.initialised == ["embeddings.patch_positions"]
    assert torch.equal(model.embeddings.patch_positions, own)
    assert len(report.folded) == 8
    with torch.no_grad():  # without either's positions the encoders are the same
        model.embeddings.patch_positions.zero_()
        source.rope = None
        source.pos_embed = None
    torch.testing.assert_close(tokens_of(model, images()), tokens_of(source, images()), **EXACT)


def test_registers_of_dinov3_are_left_out_and_reported():
    report = initialize_from_vit(clarity(qkv_bias=True, layer_norm_eps=1e-5), dinov3())
    assert [name for name in report.unused if "reg_token" in name] == ["reg_token"]
    assert report.zeroed == [f"layers.{layer}.attention.k_proj.bias" for layer in range(2)]
    assert not initialize_from_vit(clarity(), vit()).rotary


def test_rad_dino_is_a_dinov2_with_patches_of_14(tmp_path):
    source = dinov2(image_size=42, patch_size=14)
    source.save_pretrained(tmp_path)
    model = ClarityModel(config_from_vit(tmp_path, id2label={0: "Mass"}, class_attention_layers=1)).eval()
    initialize_from_vit(model, tmp_path, class_token_noise=0)
    assert model.config.patch_grid == (3, 3)
    torch.testing.assert_close(tokens_of(model, images(42, 42)), tokens_of(source, images(42, 42)), **EXACT)


def test_medical_mae_is_a_state_dict_of_timm_with_or_without_its_decoder():
    source = timm_vit()
    state = dict(source.state_dict())
    decoder = {"mask_token": torch.zeros(1, 1, 24), "decoder_embed.weight": torch.zeros(8, 24)}
    decoder |= {"decoder_pos_embed": torch.zeros(1, 17, 8), "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8)}
    model = clarity()
    report = initialize_from_vit(model, state | decoder, class_token_noise=0)
    torch.testing.assert_close(tokens_of(model, images()), tokens_of(source, images()), **EXACT)
    assert {*decoder} <= {*report.unused}
    averaged = timm_vit(global_pool="avg").state_dict()  # as it is fine-tuned: the last norm is behind the average
    report = initialize_from_vit(clarity(), averaged)
    assert report.initialised == ["layernorm.weight", "layernorm.bias"]


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "eva02_small_patch14_224", "eva02_base_patch14_224"])
def test_eva_02_and_eva_x_are_refused_for_their_swiglu(name):
    import timm

    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 28}
    source = timm.create_model(name, pretrained=False, **sizes)
    model = clarity(patch_size=14, image_size=28)
    for place in (source, source.state_dict()):
        with pytest.raises(ValueError, match="must have MLPs of two layers, got SwiGLU"):
            initialize_from_vit(model, place)
    with pytest.raises(ValueError, match="got SwiGLU"):
        config_from_vit(source)


def test_dinov3_of_transformers_is_refused_for_timm_s():
    from transformers import DINOv3ViTConfig

    with pytest.raises(ValueError, match=r"got 'dinov3_vit'.*timm/vit_small_patch16_dinov3\.lvd1689m"):
        config_from_vit(DINOv3ViTConfig())


def test_layer_scale_is_folded_and_reported():
    report = initialize_from_vit(clarity(), dinov2())
    layers = ("attention.o_proj", "mlp.fc2")
    assert sorted(report.folded) == sorted(
        f"layers.{i}.{layer}.{leaf}" for i in range(2) for layer in layers for leaf in ("weight", "bias")
    )


@pytest.mark.parametrize(("source_channels", "channels"), [(3, 1), (1, 3)])
def test_grey_images_embed_alike_over_one_channel_and_three(source_channels, channels):
    source = timm_vit(in_chans=source_channels)
    model = clarity(num_channels=channels)
    report = initialize_from_vit(model, source, class_token_noise=0)
    grey = images(channels=1)
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
    assert all(weight.isfinite().all() for weight in model(images()).values() if isinstance(weight, torch.Tensor))


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
        "  LayerNorm eps: 1e-06, the source's is 1e-12: set layer_norm_eps to use the same"
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


def test_a_qkv_bias_without_a_place_is_refused():
    with pytest.raises(ValueError, match=re.escape("ClarityConfig(qkv_bias=True)")):
        initialize_from_vit(clarity(qkv_bias=False), vit())


def test_channels_that_are_neither_equal_nor_one_are_refused():
    with pytest.raises(ValueError, match=re.escape("num_channels 3 (source 2)")):
        initialize_from_vit(clarity(), timm_vit(in_chans=2))


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


def test_other_models_and_noise_below_zero_are_refused():
    with pytest.raises(TypeError, match="must be a CLARiTy model, got Linear"):
        initialize_from_vit(nn.Linear(2, 2), vit())
    with pytest.raises(ValueError, match="`class_token_noise` must be at least 0, got -1"):
        initialize_from_vit(clarity(), vit(), class_token_noise=-1)


# CLARiTy checkpoints


def test_a_clarity_source_is_copied_completely(tmp_path):
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


def test_a_head_that_does_not_fit_is_left_out_completely():
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
    expected = model(images(64, 64))
    model.clarity.resize_position_embeddings(64)
    assert model.config.image_size == 64
    model.save_pretrained(tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    for resized in (model, loaded):
        outputs = resized(images(64, 64))
        assert torch.equal(outputs.logits, expected.logits)
        assert torch.equal(outputs.localization_maps, expected.localization_maps)


def test_the_packaged_checkpoint_continues_at_512(tmp_path):
    model = ClarityForMultiLabelLocalization.from_pretrained("clarity-s16-224")
    pixels = images(512, 512)[:1]
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
