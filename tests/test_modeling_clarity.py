# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityModel, modeling_clarity
from clarity_hf.configuration_clarity import TRAINING_DEFAULTS
from clarity_hf.losses_clarity import evidence_loss, multilabel_classification_loss
from clarity_hf.modeling_clarity import ClarityRankingPooling, refine_by_affinity, tiled_attention_mask
from clarity_hf.packaged_checkpoints import checkpoint_names

NAN = math.nan
FINDINGS = 3
UNIT_EVIDENCE = torch.tensor(math.log(math.e - 1))  # its softplus is 1
SIZES = [(64, 64), (64, 96), (128, 32)]


def settings(**changes) -> dict:
    """A config of three blocks and three findings, a grid of 4 × 4 patches."""
    return {
        "num_labels": FINDINGS,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 64,
        "image_size": 64,
        "class_attention_layers": 2,
        "cam_size": 16,
        "cam_groups": 4,
    } | changes


def build(implementation: str = "eager", **changes) -> ClarityForMultiLabelLocalization:
    """An evaluating model, the same at each call, with weights large enough that attention is far from even."""
    torch.manual_seed(0)
    config = ClarityConfig(**settings(**changes))
    model = ClarityForMultiLabelLocalization._from_config(config, attn_implementation=implementation).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.normal_(std=0.3)
            elif name.endswith(("class_tokens", "positions", "class_token_head.weight")):
                parameter.normal_(std=0.5)
    return model


def images(count: int = 2, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def some_labels(count: int) -> torch.Tensor:
    """0, 1 and NaN in turn, so that images differ in how many findings are annotated."""
    return torch.tensor([0.0, 1.0, NAN, 1.0, 1.0, NAN, 0.0]).repeat(count)[: count * FINDINGS].view(count, FINDINGS)


def some_priors(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    """Soft priors; every third image has none."""
    priors = torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(1))
    priors[2::3] = NAN
    return priors


@torch.no_grad()
def outputs_of(model: nn.Module, pixel_values: torch.Tensor, **kwargs):
    return model(pixel_values=pixel_values, **kwargs)


def assert_same_outputs(actual, expected, atol: float = 1e-5):
    for name in ("logits", "localization_maps", "class_attention", "activation_maps", "foreground"):
        torch.testing.assert_close(
            actual[name], expected[name], atol=atol, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


# Class attention -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_class_attention_is_the_class_rows_of_eager_attention_averaged_over_heads_and_the_last_blocks(
    height, width, blocks
):
    outputs = outputs_of(build(class_attention_layers=blocks), images(2, height, width), output_attentions=True)
    attentions = torch.stack(outputs.attentions[-blocks:]).mean((0, 2))
    rows = attentions[:, :FINDINGS, FINDINGS:].unflatten(-1, (height // 16, width // 16))
    assert outputs.class_attention.shape == (2, FINDINGS, height // 16, width // 16)
    torch.testing.assert_close(outputs.class_attention, rows, atol=1e-5, rtol=0)
    assert rows.std() > 0.01  # far from even, or the comparison says little


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_sdpa_gives_what_eager_attention_gives(height, width):
    pixel_values = images(2, height, width)
    eager = outputs_of(build("eager", affinity_layers=1), pixel_values)
    assert_same_outputs(outputs_of(build("sdpa", affinity_layers=1), pixel_values), eager)


@pytest.mark.slow
def test_flex_attention_gives_what_eager_attention_gives():
    eager = build("eager")
    flex = build("flex_attention")
    assert flex.config._attn_implementation == "flex_attention"
    assert_same_outputs(outputs_of(flex, images()), outputs_of(eager, images()))


def test_the_attention_implementation_can_be_changed_on_a_model():
    model = build("eager")
    expected = outputs_of(model, images())
    model.set_attn_implementation("sdpa")
    assert model.clarity.layers[0].attention.config._attn_implementation == "sdpa"
    assert_same_outputs(outputs_of(model, images()), expected)


def test_scores_are_the_sigmoid_of_the_logits_under_the_calibration():
    found = outputs_of(build(score_slopes=[2.0, 0.5, 1.0], score_intercepts=[0.0, -1.0, 3.0]), images())
    mean = (found.class_token_logits + found.patch_logits) / 2
    torch.testing.assert_close(found.logits, mean * torch.tensor([2.0, 0.5, 1.0]) + torch.tensor([0.0, -1.0, 3.0]))
    torch.testing.assert_close(found.scores, found.logits.sigmoid())
    plain = outputs_of(build(), images())
    torch.testing.assert_close(plain.logits, mean)


def test_a_calibration_changes_no_loss():
    labels = torch.tensor([[1.0, 0.0, float("nan")]] * len(images()))
    plain, calibrated = build(), build(score_slopes=[2.0, 0.5, 1.0], score_intercepts=[0.0, -1.0, 3.0])
    losses = [model(images(), labels=labels).loss for model in (plain, calibrated)]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


def test_logits_are_in_float32_so_that_a_half_precision_model_keeps_the_order_of_its_scores():
    model = build(score_slopes=[2.0, 0.5, 1.0], score_intercepts=[0.0, -1.0, 3.0]).bfloat16()
    found = outputs_of(model, images().bfloat16())
    assert found.logits.dtype == torch.float32
    torch.testing.assert_close(found.scores, found.logits.sigmoid(), rtol=0, atol=0)


def test_a_tiled_image_is_cut_into_rectangles_and_its_patches_see_no_class_token():
    torch.manual_seed(0)
    mask = tiled_attention_mask(50, (8, 12), 3, 1.0)[:, 0]
    assert mask[:, :3].all()
    assert not mask[:, 3:, :3].any()
    counts = set()
    for patches in mask[:, 3:, 3:]:
        tiles = patches.unique(dim=0)  # what patches of one tile see is the same
        assert (tiles.sum(0) == 1).all()
        for tile in tiles.unflatten(1, (8, 12)):
            height, width = tile.any(1).sum().item(), tile.any(0).sum().item()
            assert tile.sum() == height * width
            assert height <= 4
            assert width <= 6
        counts.add(len(tiles))
    assert min(counts) >= 4
    assert max(counts) <= 25
    assert len(counts) > 3


def test_the_share_of_tiled_images_is_the_rate():
    torch.manual_seed(0)
    whole = tiled_attention_mask(2000, (4, 4), 1, 0.3).all((1, 2, 3)).float().mean()
    assert whole == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_patch_of_a_tiled_image_knows_nothing_of_the_other_tiles(implementation, monkeypatch):
    model = build(implementation, tiled_attention_rate=1.0, cam_groups=1).train()
    left = torch.zeros(1, 1, 3 + 16, 3 + 16, dtype=torch.bool)
    columns = torch.arange(16) % 4 < 2
    left[..., 3:, 3:] = columns[:, None] == columns
    left[..., :3, :] = True
    monkeypatch.setattr(modeling_clarity, "tiled_attention_mask", lambda *_: left)
    image = images(1)
    changed = image.clone()
    changed[..., 32:] = 0
    before, after = (outputs_of(model, pixels, output_hidden_states=True) for pixels in (image, changed))
    moved = (before.hidden_states[-1] - after.hidden_states[-1]).abs().amax(-1)[0]
    assert (moved[3:][columns] == 0).all()
    assert (moved[3:][~columns] > 0).all()
    assert (moved[:3] > 0).all()


def test_images_are_tiled_in_training_alone():
    plain, tiled = (build(tiled_attention_rate=rate) for rate in (0.0, 1.0))
    assert_same_outputs(outputs_of(plain, images()), outputs_of(tiled, images()), 0.0)
    assert (outputs_of(tiled.train(), images()).logits - outputs_of(plain.train(), images()).logits).abs().max() > 1e-4


def training_outputs(model, pixels, **inputs):
    """Outputs in training mode with the same random numbers at each call."""
    torch.manual_seed(3)
    return model.train()(pixels, **inputs)


def teaching(count: int) -> dict[str, torch.Tensor]:
    """Labels, priors and masks of findings."""
    random = torch.Generator().manual_seed(5)
    masks = torch.rand(count, FINDINGS, 16, 16, generator=random) * torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    prior = torch.rand(count, 1, 16, 16, generator=random)
    return {"labels": some_labels(count), "anatomical_prior": prior, "finding_masks": masks}


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_patch_dropout_that_keeps_all_patches_changes_no_output(rate):
    model = build(tiled_attention_rate=rate, evidence_loss_weight=0.5, affinity_layers=1)
    plain = training_outputs(model, images(), **teaching(2))
    model.clarity.patch_dropout = 0.01  # of 16 patches
    kept = training_outputs(model, images(), **teaching(2))
    assert kept.kept_patches.tolist() == [list(range(16))] * 2
    assert kept.loss_parts.keys() == plain.loss_parts.keys()
    for name, part in plain.loss_parts.items():
        torch.testing.assert_close(kept.loss_parts[name], part, rtol=1e-5, atol=1e-6, msg=name)
    torch.testing.assert_close(kept.logits, plain.logits, rtol=1e-5, atol=1e-5)
    for name in ("localization_maps", "activation_maps", "class_attention", "foreground"):
        assert kept[name].shape[2:] == (16, 1)
        torch.testing.assert_close(kept[name].flatten(), plain[name].flatten(), rtol=1e-4, atol=1e-5, msg=name)


def test_dropped_patches_priors_and_masks_have_no_say():
    model = build(evidence_loss_weight=0.5, background_loss_weight=0.5)
    model.clarity.patch_dropout = 0.5
    given = teaching(2) | {"pixels": images()}
    before = training_outputs(model, **given)
    assert before.kept_patches.shape == (2, 8)
    assert before.kept_patches[0].tolist() != before.kept_patches[1].tolist()
    kept = torch.zeros(2, 16).scatter(1, before.kept_patches, 1.0).view(2, 1, 4, 4)
    for name in ("pixels", "anatomical_prior", "finding_masks"):
        seen = F.interpolate(kept, given[name].shape[-2:])
        given[name] = torch.where(seen > 0, given[name], torch.full_like(given[name], 0.25))
    after = training_outputs(model, **given)
    torch.testing.assert_close(before.loss, after.loss, rtol=0, atol=0)
    torch.testing.assert_close(before.activation_maps, after.activation_maps, rtol=0, atol=0)
    given["pixels"] = torch.zeros_like(given["pixels"])
    assert training_outputs(model, **given).loss != before.loss


def test_patches_are_dropped_in_training_alone():
    model = build()
    plain = outputs_of(model, images())
    model.clarity.patch_dropout = 0.5
    outputs = outputs_of(model.eval(), images())
    assert outputs.kept_patches is None
    assert_same_outputs(plain, outputs, 0.0)


def test_hidden_states_are_the_embeddings_and_the_output_of_every_block():
    outputs = outputs_of(build(), images(), output_hidden_states=True)
    assert [tuple(states.shape) for states in outputs.hidden_states] == [(2, FINDINGS + 16, 48)] * 4
    encoded = outputs_of(build().clarity, images(), output_hidden_states=True)
    torch.testing.assert_close(encoded.hidden_states[-1][:, :FINDINGS], encoded.class_tokens)
    torch.testing.assert_close(build().clarity.layernorm(encoded.hidden_states[-1]), encoded.last_hidden_state)


# Training and precision ----------------------------------------------------------------------------------------------


def gradients(model: nn.Module, **inputs) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_leaves_the_gradients_as_they_are(reentrant):
    model = build("sdpa").train()
    inputs = {"pixel_values": images(), "labels": some_labels(2), "anatomical_prior": some_priors(2)}
    expected = gradients(model, **inputs)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    checkpointed = gradients(model, **inputs)
    for name, gradient in expected.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=0, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_a_batch_gives_the_loss_and_gradient_of_its_images_one_by_one():
    model = build("sdpa")
    inputs = {"pixel_values": images(6), "labels": some_labels(6), "anatomical_prior": some_priors(6)}
    whole = gradients(model, **inputs)
    loss = model(**inputs).loss
    singles = [{name: tensor[i : i + 1] for name, tensor in inputs.items()} for i in range(6)]
    torch.testing.assert_close(loss, torch.stack([model(**single).loss for single in singles]).mean())
    summed = [gradients(model, **single) for single in singles]
    for name, gradient in whole.items():
        mean = torch.stack([single[name] for single in summed]).mean(0)
        torch.testing.assert_close(gradient, mean, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_bfloat16_autocast_is_finite_and_near_float32():
    model = build("sdpa")
    expected = outputs_of(model, images())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images(), labels=some_labels(2), anatomical_prior=some_priors(2))
        outputs.loss.backward()
    assert outputs.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert (outputs.logits - expected.logits).abs().max() < 0.1
    error = (outputs.localization_maps - expected.localization_maps).abs().mean()
    assert error < 0.05 * expected.localization_maps.mean()


def test_a_bfloat16_model_is_near_float32():
    expected = outputs_of(build("sdpa"), images(2, 512, 512))
    outputs = outputs_of(build("sdpa").bfloat16(), images(2, 512, 512))
    assert outputs.class_token_logits.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.logits.float(), expected.logits, atol=0.1, rtol=0.05)


def test_stochastic_depth_is_active_in_training_only_and_rises_with_depth():
    model = build(drop_path_rate=0.5)
    rates = [layer.drop_path.p for layer in model.clarity.layers]
    assert rates == [0, 0.25, 0.5]
    assert_same_outputs(outputs_of(model, images()), outputs_of(build(), images()), atol=0)
    torch.manual_seed(0)
    training = outputs_of(model.train(), images())
    assert not torch.equal(training.logits, outputs_of(model, images()).logits)


def test_dropout_is_active_in_training_only():
    model = build(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    assert_same_outputs(outputs_of(model, images()), outputs_of(build(), images()), atol=0)
    training = outputs_of(model.train(), images())
    assert not torch.equal(training.logits, outputs_of(model, images()).logits)


# Compilers -----------------------------------------------------------------------------------------------------------


def test_the_graph_is_captured_without_breaks():
    model = build("sdpa", affinity_layers=1)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_same_outputs(outputs_of(compiled, images()), outputs_of(model, images()))


@pytest.mark.slow
def test_the_compiled_model_gives_what_the_model_gives():
    model = build("sdpa")
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)
    assert_same_outputs(outputs_of(compiled, images()), outputs_of(model, images()))


def test_the_exported_program_takes_any_number_of_images():
    model = build("sdpa")
    program = torch.export.export(
        model,
        (),
        kwargs={"pixel_values": images(2)},
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}},
    )
    for count in (1, 2, 5):
        assert_same_outputs(
            outputs_of(program.module(), images(count, seed=count)), outputs_of(model, images(count, seed=count))
        )


# Saving and loading --------------------------------------------------------------------------------------------------


def test_a_saved_model_is_config_and_safetensors_and_reloads_bit_for_bit(tmp_path):
    model = build("sdpa")
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert not loaded.training
    assert_same_outputs(outputs_of(loaded, images()), outputs_of(model, images()), atol=0)


def test_loading_with_other_findings_initialises_what_depends_on_their_number_and_nothing_else(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(
        tmp_path, num_labels=5, prevalence=0.2, ignore_mismatched_sizes=True
    )
    stds = {
        "clarity.embeddings.class_tokens": 0.02,
        "clarity.embeddings.class_positions": 0.02,
        "class_token_head.weight": 0.02,
        "segment_cam.cam.weight": 16**-0.5,
    }
    biases = {"class_token_head.bias", "ranking_pooling.bias"}
    for name, tensor in loaded.state_dict().items():
        if name in stds:
            assert 0.5 * stds[name] < tensor.std() < 1.5 * stds[name], name
        elif name in biases:
            torch.testing.assert_close(tensor, torch.full((5,), math.log(0.2 / 0.8)), msg=name)
        else:
            assert torch.equal(tensor, model.state_dict()[name]), name
    assert outputs_of(loaded, images()).logits.shape == (2, 5)


@pytest.mark.parametrize("origin", ["config", "checkpoint"])
def test_heads_are_initialised_in_a_new_model_and_where_a_checkpoint_lacks_them(tmp_path, origin):
    if origin == "checkpoint":
        build().clarity.save_pretrained(tmp_path)
        loaded, _ = ClarityForMultiLabelLocalization.from_pretrained(tmp_path, output_loading_info=True)
        for name, tensor in build().clarity.state_dict().items():
            assert torch.equal(loaded.clarity.state_dict()[name], tensor), name
    else:
        loaded = ClarityForMultiLabelLocalization(ClarityConfig(**settings()))
    torch.testing.assert_close(loaded.class_token_head.attention.layer_scale, torch.full((48,), 0.1))
    torch.testing.assert_close(loaded.segment_cam.norm_mix.weight, torch.ones(16))
    assert (loaded.segment_cam.mix.bias == 0).all()
    cam = loaded.segment_cam
    for convolution, std in (
        (cam.project, math.sqrt(2 / 16)),  # He et al., fan out
        (cam.mix, math.sqrt(2 / (16 * 9))),
        (cam.cam, 16**-0.5),
        (cam.foreground, 16**-0.5),
    ):
        assert 0.6 * std < convolution.weight.std().item() < 1.5 * std


def test_the_encoder_loads_from_a_checkpoint_with_heads(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    encoder = ClarityModel.from_pretrained(tmp_path)
    expected = outputs_of(model.clarity, images()).last_hidden_state
    torch.testing.assert_close(outputs_of(encoder, images()).last_hidden_state, expected, atol=1e-6, rtol=0)


def test_a_half_precision_file_whose_config_says_float32_loads_as_float32(tmp_path):
    build().half().save_pretrained(tmp_path)
    assert next(iter(load_file(tmp_path / "model.safetensors").values())).dtype == torch.float16
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}))
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert outputs_of(loaded, images()).logits.dtype == torch.float32


def test_a_copy_of_a_model_is_independent_of_it():
    model = build()
    expected = outputs_of(model, images())
    duplicate = copy.deepcopy(model)
    nn.init.zeros_(duplicate.segment_cam.cam.weight)
    assert_same_outputs(outputs_of(model, images()), expected, atol=0)


# Sizes and errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 80), (512, 512)])
def test_any_multiple_of_the_patch_is_a_size(height, width):
    outputs = outputs_of(build("sdpa"), images(1, height, width), labels=some_labels(1))
    assert outputs.localization_maps.shape == (1, FINDINGS, height // 16, width // 16)
    assert outputs.foreground.shape == (1, 1, height // 16, width // 16)
    assert outputs.loss.isfinite()


@pytest.mark.parametrize(("height", "width", "axis"), [(65, 64, "height"), (64, 56, "width"), (8, 64, "height")])
def test_a_size_that_the_patch_does_not_divide_is_refused(height, width, axis):
    with pytest.raises(ValueError, match=rf"`pixel_values {axis}` must be a multiple of `patch_size` \(16\), got \d+"):
        build()(images(1, height, width))


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 4, 64, 64), (3, 64, 64)])
def test_another_shape_of_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"`pixel_values` must be \(B, 3, H, W\), got"):
        build()(torch.zeros(shape))


def test_missing_images_are_refused():
    with pytest.raises(ValueError, match="`pixel_values` must be given"):
        build()(labels=some_labels(2))


@pytest.mark.parametrize("shape", [(2,), (2, FINDINGS + 1), (1, FINDINGS), (2, FINDINGS, 1)])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"`labels` must be \(B, F\) = \(2, 3\), got"):
        build()(images(2), labels=torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 1, 64, 64), (2, FINDINGS, 64, 64)])
def test_a_prior_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"`anatomical_prior` must be \(B, 1, H, W\) with B = 2, got"):
        build()(images(2), labels=some_labels(2), anatomical_prior=torch.zeros(shape))


def test_images_of_one_channel_are_taken_by_a_model_of_one_channel():
    model = build(num_channels=1)
    assert outputs_of(model, images()[:, :1]).logits.shape == (2, FINDINGS)


# Positions -----------------------------------------------------------------------------------------------------------


def test_positions_of_the_stored_grid_are_the_stored_ones():
    embeddings = build(image_size=224).clarity.embeddings
    assert embeddings.positions_for(14, 14) is embeddings.patch_positions


def test_resampled_positions_keep_what_is_constant_and_the_direction_of_what_is_not():
    embeddings = build().clarity.embeddings
    ramp = torch.arange(4.0).repeat_interleave(4)  # grows with the row
    with torch.no_grad():
        embeddings.patch_positions.fill_(0.7)
        embeddings.patch_positions[..., 0] = ramp
    positions = embeddings.positions_for(8, 6).unflatten(1, (8, 6))
    torch.testing.assert_close(positions[..., 1:], torch.full_like(positions[..., 1:], 0.7))
    rows = positions[0, :, 0, 0]
    assert (rows.diff() > 0).all()
    torch.testing.assert_close(positions[0, :, :, 0], rows[:, None].expand(8, 6))


@pytest.mark.parametrize("size", [128, (96, 48)])
def test_stored_positions_can_be_resampled_and_saved_for_another_size(tmp_path, size):
    model = build()
    height, width = (size, size) if isinstance(size, int) else size
    pixel_values = images(1, height, width)
    expected = outputs_of(model, pixel_values)
    model.clarity.resize_position_embeddings(size)
    assert model.config.patch_grid == (height // 16, width // 16)
    assert model.clarity.embeddings.patch_positions.requires_grad
    assert_same_outputs(outputs_of(model, pixel_values), expected)
    model.save_pretrained(tmp_path)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path)
    assert loaded.config.patch_grid == (height // 16, width // 16)
    assert_same_outputs(outputs_of(loaded, pixel_values), expected)


def test_a_refused_size_leaves_the_model_as_it_was():
    model = build()
    with pytest.raises(ValueError, match="must be a multiple of `patch_size`"):
        model.clarity.resize_position_embeddings(100)
    assert model.config.image_size == 64
    assert outputs_of(model, images()).logits.isfinite().all()


def test_patch_tokens_run_along_rows():
    embeddings = build().clarity.embeddings
    dark, lit = images(1, 64, 96) * 0, images(1, 64, 96) * 0
    lit[..., 32:48, 80:96] = 1  # the patch of row 2 and column 5
    changed = (embeddings(lit) - embeddings(dark)).abs().sum(-1)[0].nonzero().flatten().tolist()
    assert changed == [FINDINGS + 2 * 6 + 5]


# Class token head ----------------------------------------------------------------------------------------------------


def test_linear_pooling_is_a_dot_product_with_the_normalised_class_token():
    model = build(pooling="linear")
    encoded, head = outputs_of(model.clarity, images()), model.class_token_head
    logits = torch.einsum("bfd,fd->bf", encoded.last_hidden_state[:, :FINDINGS], head.weight) + head.bias
    torch.testing.assert_close(outputs_of(model, images()).class_token_logits, logits)
    assert head.attention is None


def test_mean_pooling_averages_the_class_token_before_the_final_layernorm():
    model = build(pooling="mean")
    nn.init.constant_(model.class_token_head.bias, 0.3)
    expected = outputs_of(model.clarity, images(), output_hidden_states=True).hidden_states[-1]
    logits = outputs_of(model, images()).class_token_logits
    torch.testing.assert_close(logits, expected[:, :FINDINGS].mean(-1) + 0.3)
    nn.init.zeros_(model.clarity.layernorm.weight)
    assert torch.equal(outputs_of(model, images()).class_token_logits, logits)
    assert model.class_token_head.weight is None


def test_attention_pooling_lets_class_tokens_attend_over_patches_alone():
    model = build(pooling="attention")
    head, pool = model.class_token_head, model.class_token_head.attention
    nn.init.uniform_(pool.layer_scale)
    tokens = outputs_of(model.clarity, images()).last_hidden_state
    class_tokens, patches = tokens[:, :FINDINGS], tokens[:, FINDINGS:]
    for projection in (pool.q_proj, pool.k_proj, pool.v_proj):
        nn.init.normal_(projection.bias)
    query, key, value = (
        F.linear(states, projection.weight, projection.bias).view(2, -1, 3, 16).transpose(1, 2)
        for projection, states in ((pool.q_proj, class_tokens), (pool.k_proj, patches), (pool.v_proj, patches))
    )
    attended = (query @ key.transpose(2, 3) / 4).softmax(-1) @ value
    pooled = class_tokens + pool.layer_scale * pool.o_proj(attended.transpose(1, 2).flatten(2))
    logits = (pooled * head.weight).sum(-1) + head.bias
    torch.testing.assert_close(outputs_of(model, images()).class_token_logits, logits)


@pytest.mark.parametrize("pooling", ["attention", "linear", "mean"])
def test_every_pooling_trains_all_its_weights(pooling):
    found = gradients(build(pooling=pooling).train(), pixel_values=images(), labels=torch.ones(2, FINDINGS),
                      anatomical_prior=torch.ones(2, 1, 64, 64))  # fmt: skip
    assert all(gradient.abs().sum() > 0 for name, gradient in found.items() if "k_proj.bias" not in name)


def test_logits_are_the_mean_of_both_logits():
    outputs = outputs_of(build(), images())
    torch.testing.assert_close(outputs.logits, (outputs.class_token_logits + outputs.patch_logits) / 2)


def test_without_segmentcam_the_class_tokens_alone_score_and_localize():
    model = build(segment_cam=False, map_fusion="attention", background_suppression=False)
    assert not [name for name, _ in model.named_parameters() if name.startswith(("segment_cam", "ranking_pooling"))]
    outputs = outputs_of(model, images(), labels=some_labels(2), anatomical_prior=some_priors(2))
    torch.testing.assert_close(outputs.logits, outputs.class_token_logits)
    patches = outputs.class_attention.shape[-2] * outputs.class_attention.shape[-1]
    torch.testing.assert_close(outputs.localization_maps, outputs.class_attention * patches)
    assert (outputs.patch_logits, outputs.activation_maps, outputs.foreground) == (None, None, None)
    assert set(outputs.loss_parts) == {"class_token", "orthogonal", "background"}


def test_a_model_without_segmentcam_trains_all_its_weights_and_survives_its_file(tmp_path):
    model = build(segment_cam=False, map_fusion="attention", background_suppression=False)
    found = gradients(model, pixel_values=images(), labels=some_labels(2))
    assert all(gradient.abs().sum() > 0 for name, gradient in found.items() if "k_proj.bias" not in name)
    model.save_pretrained(tmp_path)
    reloaded = ClarityForMultiLabelLocalization.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(outputs_of(reloaded, images()).logits, outputs_of(model.eval(), images()).logits)


def test_positive_weights_of_the_config_weigh_both_cross_entropies():
    weights = [1.0 + index for index in range(FINDINGS)]
    plain, weighted = build(), build(positive_weights=weights)
    labels = some_labels(2)
    outputs = outputs_of(weighted, images(), labels=labels)
    for name in ("class_token", "patch"):
        expected = multilabel_classification_loss(outputs[f"{name}_logits"], labels, torch.tensor(weights))
        torch.testing.assert_close(outputs.loss_parts[name], expected)
        assert outputs.loss_parts[name] > outputs_of(plain, images(), labels=labels).loss_parts[name]


@pytest.mark.parametrize("num_labels", [1, 3])
def test_any_number_of_findings_is_possible(num_labels):
    model = build(num_labels=num_labels)
    outputs = model(images(), labels=torch.ones(2, num_labels), anatomical_prior=some_priors(2))
    outputs.loss.backward()
    assert outputs.logits.shape == (2, num_labels)
    assert outputs.localization_maps.shape == (2, num_labels, 4, 4)
    assert (outputs.loss_parts["orthogonal"] == 0) == (num_labels == 1)


def test_both_biases_start_at_the_logit_of_the_prevalence():
    model = build(prevalence=[0.5, 0.1, 0.0])
    expected = torch.tensor([0.0, math.log(0.1 / 0.9), math.log(0.01 / 0.99)])
    torch.testing.assert_close(model.class_token_head.bias, expected)
    torch.testing.assert_close(model.ranking_pooling.bias, expected)
    assert (build().ranking_pooling.bias == 0).all()


# SegmentCAM ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 100])
def test_ranking_pooling_is_the_weighted_mean_of_sorted_scores_plus_bias(count):
    pooling = ClarityRankingPooling(ClarityConfig(**settings(num_labels=2)))
    pooling.bias.data = torch.tensor([0.5, -1.0])
    maps = torch.randn(3, 2, 1, count, generator=torch.Generator().manual_seed(count))
    decay = max(0.0, 1 - 1 / (0.3 * count))
    for image in range(3):
        for finding, bias in enumerate((0.5, -1.0)):
            scores = sorted(maps[image, finding].flatten().tolist(), reverse=True)
            weights = [decay**rank for rank in range(count)]
            mean = sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights)
            assert pooling(maps)[image, finding].item() == pytest.approx(mean + bias, abs=1e-5)


def test_a_smaller_ranking_share_weighs_the_highest_patches_more():
    maps = torch.tensor([3.0] + [0.0] * 99).view(1, 1, 10, 10)
    for share in (0.3, 0.05):
        decay = 1 - 1 / (share * 100)
        expected = 3 / sum(decay**rank for rank in range(100))
        pooling = ClarityRankingPooling(ClarityConfig(**settings(num_labels=1, ranking_share=share)))
        assert pooling(maps).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ranking_pooling_of_up_to_three_patches_is_their_maximum(count):
    maps = torch.randn(2, FINDINGS, 1, count)
    torch.testing.assert_close(ClarityRankingPooling(ClarityConfig(**settings()))(maps), maps.amax((2, 3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ranking_pooling_of_half_precision_has_the_weights_of_float32(dtype):
    pooling = ClarityRankingPooling(ClarityConfig(**settings()))
    maps = torch.randn(2, FINDINGS, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = pooling(maps.float())
    pooled = pooling.to(dtype)(maps)
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.float(), expected, atol=0, rtol=torch.finfo(dtype).eps)


def test_the_bias_comes_after_pooling_and_never_enters_the_activation_maps():
    model = build()
    before = outputs_of(model, images())
    assert model.segment_cam.cam.bias is None
    with torch.no_grad():
        model.ranking_pooling.bias += 2
    after = outputs_of(model, images())
    torch.testing.assert_close(after.patch_logits, before.patch_logits + 2)
    assert torch.equal(after.activation_maps, before.activation_maps)
    assert torch.equal(after.localization_maps, before.localization_maps)


def test_logits_do_not_depend_on_the_foreground():
    model = build()
    outputs = model(images())
    outputs.logits.sum().backward()
    assert model.segment_cam.foreground.weight.grad is None
    assert model.segment_cam.cam.weight.grad.abs().sum() > 0
    nn.init.normal_(model.segment_cam.foreground.weight)
    changed = outputs_of(model, images())
    assert torch.equal(changed.logits, outputs.logits)
    assert not torch.equal(changed.localization_maps, outputs.localization_maps)


# Maps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["geometric", "attention", "cam"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_maps_follow_the_formula_of_their_fusion(fusion, height, width):
    outputs = outputs_of(build(map_fusion=fusion, background_suppression=False), images(2, height, width))
    attention = outputs.class_attention * (height // 16) * (width // 16)
    evidence = (1 + outputs.activation_maps.exp()).log()
    expected = {"geometric": (attention * evidence) ** 0.5, "attention": attention, "cam": evidence}[fusion]
    torch.testing.assert_close(outputs.localization_maps, expected)
    assert expected.std() > 0


def test_background_suppression_keeps_each_findings_floor_outside_the_foreground():
    floors = [0.0, 0.25, 1.0]
    kept = outputs_of(build(background_suppression=False), images())
    suppressed = outputs_of(build(suppression_floor=floors), images())
    floor = torch.tensor(floors)[:, None, None]
    expected = kept.localization_maps * (floor + (1 - floor) * kept.foreground)
    torch.testing.assert_close(suppressed.localization_maps, expected)
    assert torch.equal(suppressed.localization_maps[:, 2], kept.localization_maps[:, 2])
    assert torch.equal(suppressed.logits, kept.logits)


def test_by_default_findings_at_the_rim_are_suppressed_less(tiny_model):
    even, evidence = torch.full((1, 14, 4, 4), 1 / 16), UNIT_EVIDENCE.expand(1, 14, 4, 4)
    maps = tiny_model.localize(even, evidence, torch.zeros(1, 1, 4, 4))
    by_name = dict(zip(tiny_model.config.findings, maps.amax((0, 2, 3)).tolist(), strict=True))
    assert by_name["Pneumothorax"] == pytest.approx(0.5)
    assert by_name["Cardiomegaly"] == pytest.approx(0.1)


@pytest.mark.parametrize("grid", [(4, 4), (14, 14), (32, 32), (8, 3)])
@pytest.mark.parametrize("fusion", ["geometric", "attention"])
def test_the_scale_of_maps_carries_between_sizes(grid, fusion):
    model = build(map_fusion=fusion, background_suppression=False)
    even = torch.full((1, FINDINGS, *grid), 1 / (grid[0] * grid[1]))
    maps = model.localize(even, UNIT_EVIDENCE.expand(1, FINDINGS, *grid), torch.ones(1, 1, *grid))
    torch.testing.assert_close(maps, torch.ones_like(maps))


def test_maps_are_not_negative_and_carry_no_gradient():
    outputs = build("sdpa", affinity_layers=2).train()(images())
    assert (outputs.localization_maps >= 0).all()
    assert not outputs.localization_maps.requires_grad
    assert outputs.activation_maps.requires_grad
    assert outputs.class_attention.requires_grad
    assert (outputs.activation_maps < 0).any()


# Affinity ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_refinement_is_a_product_with_the_renormalised_patch_block_of_eager_attention(blocks, height, width):
    model = build(affinity_layers=blocks)
    encoded = outputs_of(model.clarity, images(2, height, width), output_attentions=True)
    affinity = torch.stack(encoded.attentions[-blocks:]).mean((0, 2))[:, FINDINGS:, FINDINGS:]
    affinity = affinity / affinity.sum(-1, keepdim=True)
    maps = torch.rand(2, FINDINGS, height // 16, width // 16)
    expected = torch.einsum("bij,bfj->bfi", affinity, maps.flatten(2)).view_as(maps)
    assert len(encoded.affinity_states) == blocks
    torch.testing.assert_close(refine_by_affinity(maps, encoded.affinity_states), expected, atol=1e-6, rtol=0)


def test_refined_maps_are_the_refinement_of_the_fused_maps_before_suppression():
    fused = outputs_of(build(background_suppression=False), images()).localization_maps
    model = build(affinity_layers=2, suppression_floor=0.2)
    outputs = outputs_of(model, images())
    states = outputs_of(model.clarity, images()).affinity_states
    expected = refine_by_affinity(fused, states) * (0.2 + 0.8 * outputs.foreground)
    torch.testing.assert_close(outputs.localization_maps, expected)


def test_refinement_keeps_an_even_map_even():
    states = outputs_of(build(affinity_layers=2).clarity, images()).affinity_states
    torch.testing.assert_close(
        refine_by_affinity(torch.ones(2, FINDINGS, 4, 4), states), torch.ones(2, FINDINGS, 4, 4)
    )


# The whole of it, slowly ---------------------------------------------------------------------------------------------


def reference_outputs(weights: dict, config: ClarityConfig, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores and maps of one image `(3, H, W)`, head by head, patch by patch and finding by finding, in float64."""
    weights = {name: tensor.double() for name, tensor in weights.items()}
    findings, size, heads, patch = config.num_labels, config.hidden_size, config.num_attention_heads, config.patch_size
    height, width = image.shape[1] // patch, image.shape[2] // patch

    def linear(name, states):
        product = torch.stack([weights[f"{name}.weight"] @ state for state in states])
        return product + weights[f"{name}.bias"]

    def normalised(name, states):
        centred = states - states.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name, asking, asked):
        """The output, and each head's softmax over everything that is asked."""
        query, key, value = (
            linear(f"{name}.{letter}_proj", states) for letter, states in (("q", asking), ("k", asked), ("v", asked))
        )
        kept, parts = [], []
        for head in range(heads):
            own = slice(head * size // heads, (head + 1) * size // heads)
            scores = query[:, own] @ key[:, own].T / math.sqrt(size // heads)
            kept.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
            parts.append(kept[-1] @ value[:, own])
        return linear(f"{name}.o_proj", torch.cat(parts, -1)), kept

    def gelu(values):
        return values * (1 + torch.erf(values / math.sqrt(2))) / 2

    def grouped(name, features):
        for group in features.split(len(features) // config.cam_groups):  # in place, a group of channels after another
            group.copy_((group - group.mean()) / (group.var(unbiased=False) + 1e-5).sqrt())
        return features * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]

    kernel = weights["clarity.embeddings.patch_projection.weight"].flatten(1)
    tokens = list((weights["clarity.embeddings.class_tokens"] + weights["clarity.embeddings.class_positions"])[0])
    for row in range(height):
        for column in range(width):
            cut = image.double()[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch].flatten()
            place = weights["clarity.embeddings.patch_positions"][0, row * width + column]
            tokens.append(kernel @ cut + weights["clarity.embeddings.patch_projection.bias"] + place)
    states, class_rows = torch.stack(tokens), []
    for block in range(config.num_hidden_layers):
        name = f"clarity.layers.{block}"
        normed = normalised(f"{name}.layernorm_before", states)
        attended, matrices = attention(f"{name}.attention", normed, normed)
        states = states + attended
        mlp = gelu(linear(f"{name}.mlp.fc1", normalised(f"{name}.layernorm_after", states)))
        states = states + linear(f"{name}.mlp.fc2", mlp)
        if block >= config.num_hidden_layers - config.class_attention_layers:
            class_rows.append(sum(matrix[:findings, findings:] for matrix in matrices) / heads)
    class_attention = (sum(class_rows) / len(class_rows)).view(findings, height, width)
    final = normalised("clarity.layernorm", states)

    pooled, _ = attention("class_token_head.attention", final[:findings], final[findings:])
    pooled = final[:findings] + weights["class_token_head.attention.layer_scale"] * pooled
    by_token = (pooled * weights["class_token_head.weight"]).sum(-1) + weights["class_token_head.bias"]

    patches = final[findings:].T.reshape(size, height, width)
    project = weights["segment_cam.project.weight"][:, :, 0, 0]
    features = torch.einsum("cd,dhw->chw", project, patches) + weights["segment_cam.project.bias"][:, None, None]
    features = gelu(grouped("segment_cam.norm_project", features))
    padded, mixed = F.pad(features, (1, 1, 1, 1)), weights["segment_cam.mix.bias"][:, None, None].expand_as(features)
    for down in range(3):
        for right in range(3):
            shifted = padded[:, down : down + height, right : right + width]
            mixed = mixed + torch.einsum("cd,dhw->chw", weights["segment_cam.mix.weight"][:, :, down, right], shifted)
    features = gelu(grouped("segment_cam.norm_mix", mixed))
    activation = torch.einsum("fc,chw->fhw", weights["segment_cam.cam.weight"][:, :, 0, 0], features)
    foreground = torch.einsum("fc,chw->fhw", weights["segment_cam.foreground.weight"][:, :, 0, 0], features)
    foreground = 1 / (1 + (-foreground - weights["segment_cam.foreground.bias"]).exp())

    decay, by_patch, maps = max(0.0, 1 - 1 / (config.ranking_share * height * width)), [], []
    for finding, floor in enumerate(config.per_finding("suppression_floor")):
        ranked = sorted(activation[finding].flatten().tolist(), reverse=True)
        shares = [decay**rank for rank in range(len(ranked))]
        mean = sum(score * share for score, share in zip(ranked, shares, strict=True)) / sum(shares)
        by_patch.append(mean + weights["ranking_pooling.bias"][finding])
        evidence = (1 + activation[finding].exp()).log()
        fused = (height * width * class_attention[finding] * evidence).sqrt()
        maps.append(fused * (floor + (1 - floor) * foreground[0]))
    return {
        "logits": (by_token + torch.stack(by_patch)) / 2,
        "localization_maps": torch.stack(maps),
        "class_attention": class_attention,
        "activation_maps": activation,
        "foreground": foreground,
    }


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_outputs_equal_those_of_a_slow_reference(implementation):
    model = build(implementation, suppression_floor=[0.0, 0.3, 0.6], intermediate_size=96)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "layer_scale")) or "norm" in name:
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    outputs = outputs_of(model, images(2))
    for image, pixel_values in enumerate(images(2)):
        expected = reference_outputs(model.state_dict(), model.config, pixel_values)
        for name, values in expected.items():
            assert values.std() > 1e-3, name  # or the comparison says little
            torch.testing.assert_close(
                outputs[name][image].double(), values, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
            )


# Loss of the forward -------------------------------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_of_its_parts():
    model = build(orthogonal_loss_weight=0.5, foreground_loss_weight=0.25, background_loss_weight=2)
    outputs = outputs_of(model, images(), labels=some_labels(2), anatomical_prior=some_priors(2))
    parts = outputs.loss_parts
    assert list(parts) == ["class_token", "patch", "orthogonal", "foreground", "background"]
    expected = (
        parts["class_token"]
        + parts["patch"]
        + 0.5 * parts["orthogonal"]
        + 0.25 * parts["foreground"]
        + 2 * parts["background"]
    )
    torch.testing.assert_close(outputs.loss, expected)


def test_masks_of_findings_teach_evidence_and_attention_on_the_patch_grid():
    masks = torch.zeros(2, 3, 64, 64)
    masks[0, 1, :20, :40] = 1
    outputs = outputs_of(build(evidence_loss_weight=0.5), images(), labels=some_labels(2), finding_masks=masks)
    parts = outputs.loss_parts
    grid = outputs.class_attention.shape[-2:]
    covered = F.adaptive_avg_pool2d(masks, grid)
    expected = evidence_loss(outputs.activation_maps, outputs.class_attention, covered)
    torch.testing.assert_close(parts["evidence"], expected)
    without = sum(parts[name] * weight for name, weight in build().loss_weights().items() if name in parts)
    torch.testing.assert_close(outputs.loss, without + 0.5 * expected)


def test_masks_of_findings_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`finding_masks` must be \(B, F, H, W\) with \(B, F\) = \(2, 3\)"):
        outputs_of(build(), images(), labels=some_labels(2), finding_masks=torch.zeros(2, 1, 8, 8))


def test_each_classification_part_is_the_cross_entropy_of_its_own_logits():
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    outputs = outputs_of(build(), images(), labels=labels)
    for part in ("class_token", "patch"):
        expected = F.binary_cross_entropy_with_logits(outputs[f"{part}_logits"], labels)
        torch.testing.assert_close(outputs.loss_parts[part], expected)


def test_without_a_prior_the_foreground_and_background_cost_nothing():
    outputs = outputs_of(build(), images(), labels=some_labels(2))
    assert list(outputs.loss_parts) == ["class_token", "patch", "orthogonal"]


def test_without_labels_there_is_no_loss():
    outputs = outputs_of(build(), images())
    assert outputs.loss is None
    assert outputs.loss_parts is None


def test_a_prior_of_the_images_size_is_averaged_over_each_patch():
    model, labels = build(), torch.ones(1, FINDINGS)
    fine = some_priors(1)
    coarse = F.avg_pool2d(fine, 16)
    expected = outputs_of(model, images(1), labels=labels, anatomical_prior=coarse).loss
    torch.testing.assert_close(outputs_of(model, images(1), labels=labels, anatomical_prior=fine).loss, expected)


def test_the_background_loss_is_of_attention_and_evidence_alike():
    labels, prior = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), torch.zeros(2, 1, 4, 4)
    prior[..., :2] = 1
    outputs = outputs_of(build(), images(), labels=labels, anatomical_prior=prior)
    shares = [
        maps[..., 2:].sum((2, 3)) / maps.sum((2, 3))
        for maps in (outputs.class_attention, F.softplus(outputs.activation_maps))
    ]
    charges = [((share[0, 0] + share[0, 2]) / 2 + share[1, 2]) / 2 for share in shares]
    torch.testing.assert_close(outputs.loss_parts["background"], sum(charges) / 2)


def test_the_background_loss_of_attention_reaches_the_queries_of_the_kept_blocks_only():
    model = build(class_attention_layers=1, segment_cam=False, map_fusion="attention", background_suppression=False)
    prior = torch.zeros(2, 1, 64, 64)
    prior[..., :32] = 1
    part = model(images(), labels=torch.ones(2, FINDINGS), anatomical_prior=prior).loss_parts["background"]
    part.backward()
    assert model.clarity.layers[-1].attention.q_proj.weight.grad.abs().sum() > 0
    assert model.clarity.layers[-1].attention.v_proj.weight.grad is None


def test_the_background_loss_reaches_the_evidence_and_not_the_foreground():
    model = build()
    part = model(images(), labels=torch.ones(2, FINDINGS), anatomical_prior=some_priors(2)).loss_parts["background"]
    part.backward()
    assert model.segment_cam.cam.weight.grad.abs().sum() > 0
    assert model.segment_cam.foreground.weight.grad is None


def test_outputs_come_as_a_tuple_on_request_without_what_is_missing():
    model = build()
    outputs, values = outputs_of(model, images()), outputs_of(model, images(), return_dict=False)
    assert isinstance(values, tuple)
    assert len(values) == len(outputs.to_tuple())
    assert torch.equal(values[0], outputs.logits)
    assert torch.equal(values[1], outputs.localization_maps)


@pytest.mark.parametrize("missing", ["activation_maps", "foreground"])
def test_a_map_is_not_made_without_what_its_config_needs(missing):
    model = build()
    grid = torch.ones(1, FINDINGS, 4, 4)
    given = {"activation_maps": grid, "foreground": grid[:, :1]} | {missing: None}
    with pytest.raises(ValueError, match=f"`{missing}` must be given, got None"):
        model.localize(grid, **given)


CHANGES = [
    ("score_thresholds", 50),
    ("score_slopes", -1.0),
    ("score_intercepts", NAN),
    ("suppression_floor", [0.5] * (FINDINGS - 1)),
    ("map_thresholds", 1.0),
    ("map_fusion", "none"),
    ("pooling", "max"),
    ("class_attention_layers", 9),
    ("hidden_size", 50),
    ("ranking_share", 0.0),
]


@pytest.mark.parametrize(("name", "value"), CHANGES, ids=str)
@pytest.mark.parametrize("cls", [ClarityModel, ClarityForMultiLabelLocalization])
def test_a_config_changed_after_it_was_made_is_checked_when_the_model_is(cls, name, value):
    config = ClarityConfig(**settings())
    setattr(config, name, value)
    with pytest.raises(ValueError, match=f"`{name}` must"):
        cls(config)


@pytest.mark.parametrize("name", ["score_slopes", "score_intercepts", "suppression_floor"])
def test_a_config_changed_after_the_model_was_made_is_checked_when_it_is_used(name):
    model = build()
    setattr(model.config, name, NAN)
    with pytest.raises(ValueError, match=f"`{name}` must"):
        model(images())


def test_labels_of_other_conventions_are_refused_naming_nan():
    with pytest.raises(ValueError, match=r"`labels` must be in \[0, 1\] or NaN, got -1. .* as NaN"):
        build()(images(1), labels=torch.tensor([[1.0, 0.0, -1.0]]))


def test_a_prior_in_grey_levels_is_refused():
    with pytest.raises(ValueError, match=r"`anatomical_prior` must be in \[0, 1\] or NaN, got 255"):
        build()(images(1), labels=some_labels(1), anatomical_prior=torch.full((1, 1, 64, 64), 255.0))


@pytest.mark.parametrize(
    ("argument", "close"),
    [("anatomical_priors", "anatomical_prior"), ("label", "labels"), ("output_attention", "output_attentions")],
)
def test_a_misspelt_argument_is_refused_with_the_close_one(argument, close):
    with pytest.raises(TypeError, match=f"got `{argument}`. Did you mean `{close}`"):
        build()(images(1), **{argument: None})


def test_the_encoder_refuses_arguments_that_it_does_not_have():
    with pytest.raises(TypeError, match="got `interpolate_pos_encoding`"):
        build().clarity(images(1), interpolate_pos_encoding=True)
    with pytest.raises(TypeError, match="got `labels`"):
        build().clarity(images(1), labels=some_labels(1))


# Settings of training alone ------------------------------------------------------------------------------------------


def test_fields_of_training_change_nothing_of_an_evaluating_model():
    changed = {name: 0.5 for name in TRAINING_DEFAULTS} | {"positive_weights": [2.0, 1.0, 3.0]}
    one, other = outputs_of(build(), images()), outputs_of(build(**changed), images())
    for name in ("logits", "localization_maps", "scores"):
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


@pytest.mark.parametrize("name", checkpoint_names())
def test_packaged_checkpoints_have_no_settings_of_their_training(name):
    config = ClarityConfig.from_pretrained(name)
    assert {field: getattr(config, field) for field in TRAINING_DEFAULTS} == TRAINING_DEFAULTS


def test_the_power_of_a_map_is_taken_before_the_background_is_suppressed():
    plain, flat = build(background_suppression=False), build(background_suppression=False, map_power=0.5)
    with torch.inference_mode():
        expected = plain(images()).localization_maps.sqrt()
        torch.testing.assert_close(flat(images()).localization_maps, expected)
        suppressed = build(map_power=0.5, suppression_floor=0.2)(images())
    torch.testing.assert_close(suppressed.localization_maps, expected * (0.2 + 0.8 * suppressed.foreground))


def test_the_share_of_attention_weighs_the_geometric_fusion():
    outputs = build(background_suppression=False, map_attention_share=0.1)(images())
    attention = outputs.class_attention * outputs.class_attention[0, 0].numel()
    expected = attention**0.1 * F.softplus(outputs.activation_maps) ** 0.9
    torch.testing.assert_close(outputs.localization_maps, expected.detach())
