# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Methods to compare with: by hand on tiny networks, in the right frame, and leaving the model as it was."""

import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn
from transformers import (
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.boxes import boxes_from_map
from clarity_hf.evaluation.baselines import (
    AtlasSuppressionLocalizer,
    AttentionRolloutLocalizer,
    GradCamLocalizer,
    RandomMapLocalizer,
    attention_rollout,
    random_map,
    share_weights,
    with_map_fusion,
)
from clarity_hf.evaluation.localizers import ModelLocalizer

NAMES = {0: "Mass", 1: "Nodule", 2: "Edema"}
PLAIN = {"size": {"height": 32, "width": 32}, "do_normalize": False}


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Config:
    id2label = NAMES


class TwoChannels(nn.Module):
    """Channel 0 is the image's grey, channel 1 its negative, each averaged over 2 × 2 pixels; then a linear head."""

    config, device = Config(), torch.device("cpu")

    def __init__(self, weights):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, kernel_size=2, stride=2, bias=False)
        self.head = nn.Linear(2, 3, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2) / 12)
            self.head.weight.copy_(torch.tensor(weights))

    def forward(self, pixel_values):
        return Answer(self.head(self.layer(pixel_values).mean((-2, -1))))


@pytest.fixture
def square():
    """Image `(32, 32)`: 64 everywhere, 192 in rows 4 to 11 of columns 16 to 27."""
    image = np.full((32, 32), 64, dtype=np.uint8)
    image[4:12, 16:28] = 192
    return image


@pytest.fixture(scope="module")
def convnext():
    """A ConvNeXtV2 of a few thousand weights; an image of 64 has 2 × 2 cells in its last stage."""
    torch.manual_seed(0)
    config = ConvNextV2Config(depths=[1] * 4, hidden_sizes=[4, 8, 8, 16], id2label=NAMES, image_size=64)
    return ConvNextV2ForImageClassification(config).eval()


def test_grad_cam_by_hand(square):
    # Finding 0 weighs the grey by 2, finding 1 by -2; d(mean)/d(cell) is 1/256, which is the mean gradient.
    network = TwoChannels([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    localizer = GradCamLocalizer(network, ClarityImageProcessor(**PLAIN), target_layer=network.layer)
    output = localizer([square])
    grey = square[::2, ::2] / 255
    # The ReLU cuts nothing of the first map, whose minimum is taken off; all of the second, which is negative.
    np.testing.assert_allclose(output.maps[0, 0], 2 / 256 * (grey - grey.min()), atol=1e-7)
    assert not output.maps[0, 1:].any()
    np.testing.assert_allclose(output.scores[0], 1 / (1 + np.exp([-2 * grey.mean(), 2 * grey.mean(), 0])), atol=1e-6)
    (box,) = boxes_from_map(output.maps[0, 0], output.letterboxes[0], 0.5)
    np.testing.assert_allclose(box, [16, 4, 28, 12], atol=0.51)


def test_grad_cam_plus_plus_by_hand(square):
    network = TwoChannels([[512.0, 0.0], [0.0, -512.0], [0.0, 0.0]])
    localizer = GradCamLocalizer(
        network, ClarityImageProcessor(**PLAIN), target_layer=network.layer, method="gradcam++"
    )
    grey = square[::2, ::2] / 255
    gradient = 512 / 256  # in every cell
    alpha = gradient**2 / (2 * gradient**2 + grey.sum() * gradient**3 + 1e-6)
    weight = 256 * max(gradient, 0) * alpha
    output = localizer([square])
    np.testing.assert_allclose(output.maps[0, 0], weight * (grey - grey.min()), rtol=1e-4, atol=1e-6)
    assert not output.maps[0, 1].any()  # a negative gradient weighs nothing


def packages_map(network, processor, images, layer, method, finding):
    """What a user of the package gets: maps `(B, H, W)` in [0, 1]."""
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, pixel_values):
            return self.network(pixel_values).logits

    cam = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus}[method](Logits(), [layer])
    inputs = processor(images, return_tensors="pt").pixel_values.requires_grad_()
    try:
        return cam(inputs, [ClassifierOutputTarget(finding)] * len(images))
    finally:
        cam.activations_and_grads.release()


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_maps_are_the_packages_up_to_their_scale(method, convnext, image):
    processor = ClarityImageProcessor(size={"height": 128, "width": 128})
    layer = convnext.convnextv2.encoder.stages[2]  # 8 × 8
    localizer = GradCamLocalizer(convnext, processor, method=method, target_layer=layer)
    images = [image, image.T.copy(), image[::-1].copy()]
    maps = localizer(images).maps
    for finding in range(3):
        expected = packages_map(convnext, processor, images, layer, method, finding)
        for own, theirs in zip(maps[:, finding], expected, strict=True):
            assert own.max() > 0
            large = torch.nn.functional.interpolate(torch.from_numpy(own)[None, None], (128, 128), mode="bilinear")
            large = large[0, 0].numpy() / large.max().item()
            # Two bilinear steps instead of one smooth a little.
            assert np.abs(large - theirs).max() < 0.12
            assert np.corrcoef(large.ravel(), theirs.ravel())[0, 1] > 0.995


def test_unwanted_maps_stay_zero_and_wanted_ones_are_the_same(convnext, image):
    localizer = GradCamLocalizer(convnext, ClarityImageProcessor(size={"height": 64, "width": 64}))
    images = [image, image[::-1].copy()]
    every, some = localizer(images), localizer(images, [[2], [0, 2]])
    np.testing.assert_array_equal(some.scores, every.scores)
    for row, finding in np.ndindex(2, 3):
        wanted = finding in ([2], [0, 2])[row]
        np.testing.assert_array_equal(some.maps[row, finding], every.maps[row, finding] * wanted)
    assert some.maps.dtype == np.float32


def test_an_image_has_the_same_map_alone_and_in_a_batch(convnext, image):
    localizer = GradCamLocalizer(convnext, ClarityImageProcessor(size={"height": 64, "width": 64}))
    batch = localizer([image[::-1].copy(), image])
    alone = localizer([image])
    np.testing.assert_allclose(batch.maps[1], alone.maps[0], atol=1e-6)
    assert batch.letterboxes[1] == alone.letterboxes[0]


def test_one_forward_pass_serves_all_findings(convnext, image, monkeypatch):
    calls = []
    handle = convnext.register_forward_hook(lambda *_: calls.append(1))
    GradCamLocalizer(convnext, ClarityImageProcessor(size={"height": 64, "width": 64}))([image, image])
    handle.remove()
    assert calls == [1]


def test_gradients_come_also_where_the_caller_has_none(convnext, image):
    localizer = GradCamLocalizer(convnext, ClarityImageProcessor(size={"height": 64, "width": 64}))
    expected = localizer([image]).maps
    with torch.inference_mode():
        np.testing.assert_array_equal(localizer([image]).maps, expected)


def test_no_hook_is_left_behind(convnext, image):
    localizer = GradCamLocalizer(convnext, ClarityImageProcessor(size={"height": 64, "width": 64}))
    localizer([image])
    with pytest.raises(ValueError, match="`wanted` must have one entry per image"):
        localizer([image], [[0], [1]])
    broken = GradCamLocalizer(
        convnext, ClarityImageProcessor(size={"height": 64, "width": 64}), target_layer=convnext.classifier
    )
    with pytest.raises(ValueError, match=r"`target_layer` must give \(B, C, h, w\), got \(1, 3\)"):
        broken([image])
    assert not any(module._forward_hooks for module in convnext.modules())
    assert all(parameter.grad is None for parameter in convnext.parameters())


def test_findings_may_come_in_another_order(convnext, image):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    own = GradCamLocalizer(convnext, processor)([image])
    other = GradCamLocalizer(convnext, processor, ["Edema", "Mass"])
    assert other.findings == ("Edema", "Mass")
    output = other([image])
    np.testing.assert_array_equal(output.scores, own.scores[:, [2, 0]])
    np.testing.assert_array_equal(output.maps, own.maps[:, [2, 0]])


def test_a_map_covers_what_its_cells_cover(convnext, image):
    # 112 / 32 is 3.5: the last stage has 3 × 3 cells over the first 96 pixels.
    output = GradCamLocalizer(convnext, ClarityImageProcessor(size={"height": 112, "width": 112}))([image])
    assert output.letterboxes[0].input == (96, 96)
    assert output.letterboxes[0].content == (112, 84)
    even = GradCamLocalizer(convnext, ClarityImageProcessor(size={"height": 64, "width": 64}))([image])
    assert even.letterboxes[0].input == (64, 64)
    assert even.maps.shape == (1, 3, 14, 14)  # 2 × 2, seven times finer


def test_a_bright_spot_is_found_where_it_is_in_a_portrait_image():
    image = np.full((64, 32), 20, dtype=np.uint8)
    image[40:48, 8:16] = 250
    network = TwoChannels([[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    output = GradCamLocalizer(network, ClarityImageProcessor(**PLAIN), target_layer=network.layer)([image], [[0]])
    (box,) = boxes_from_map(output.maps[0, 0], output.letterboxes[0], 0.5)
    np.testing.assert_allclose(box, [8, 40, 16, 48], atol=2)


def test_a_classifier_is_loaded_with_its_own_preprocessing(convnext, image, tmp_path):
    convnext.save_pretrained(tmp_path)
    saved = ClarityImageProcessor(
        size={"height": 64, "width": 96}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], keep_ratio=False
    )
    saved.save_pretrained(tmp_path)
    localizer = GradCamLocalizer.from_pretrained(str(tmp_path), ["Edema", "Mass"], method="gradcam++")
    assert (localizer.name, localizer.findings) == ("Grad-CAM++", ("Edema", "Mass"))
    own, theirs = (p([image], return_tensors="pt").pixel_values for p in (localizer.image_processor, saved))
    torch.testing.assert_close(own, theirs)
    assert localizer.image_processor.letterbox((120, 90)) == saved.letterbox((120, 90))
    assert GradCamLocalizer.from_pretrained(str(tmp_path)).findings == ("Mass", "Nodule", "Edema")


def test_a_classifier_of_timm_is_taken(image):
    name = "convnextv2_atto"
    assert timm.is_model(name)
    config = TimmWrapperConfig(
        architecture=name,
        num_labels=3,
        id2label=NAMES,
        label2id={finding: index for index, finding in NAMES.items()},
        model_args={"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 16)},
    )
    localizer = GradCamLocalizer(
        TimmWrapperForImageClassification(config), ClarityImageProcessor(size={"height": 64, "width": 64})
    )
    output = localizer([image])
    assert output.maps.shape == (1, 3, 14, 14)
    assert output.maps.max() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "scorecam"}, r"`method` must be one of \['gradcam', 'gradcam\+\+'\], got 'scorecam'"),
        ({"findings": ["Mass", "Hernia"]}, r"`findings` must be known to the classifier, got \['Hernia'\]"),
    ],
)
def test_wrong_options_of_grad_cam_are_named(convnext, options, message):
    with pytest.raises(ValueError, match=message):
        GradCamLocalizer(convnext, ClarityImageProcessor(), **options)


def test_the_last_stage_of_an_efficientnet_of_timm_is_the_target_layer(image):
    config = TimmWrapperConfig(architecture="efficientnet_lite0", num_labels=2, id2label={0: "A", 1: "B"})
    network = TimmWrapperForImageClassification(config)
    localizer = GradCamLocalizer(network, ClarityImageProcessor(size={"height": 64, "width": 64}))
    assert localizer.target_layer is network.timm_model.blocks[-1]
    assert localizer([image]).maps.shape[:2] == (1, 2)


def test_a_network_without_stages_needs_a_target_layer():
    with pytest.raises(ValueError, match="`target_layer` must be given for TwoChannels, got None"):
        GradCamLocalizer(TwoChannels([[1.0, 0.0]] * 3), ClarityImageProcessor(**PLAIN))


def test_an_unused_target_layer_and_unknown_indices_are_named(convnext, image):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    with pytest.raises(ValueError, match="`target_layer` must run once in a forward pass, got 0 times"):
        GradCamLocalizer(convnext, processor, target_layer=nn.Conv2d(1, 1, 1))([image])
    with pytest.raises(ValueError, match="`wanted` must hold indices from 0 to 2, got 3"):
        GradCamLocalizer(convnext, processor)([image], [[3]])


def test_without_the_package_the_error_says_what_to_install(convnext, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ImportError, match=r"pip install 'clarity_hf\[baselines\]'"):
        GradCamLocalizer(convnext, ClarityImageProcessor())


@pytest.fixture
def processor():
    return ClarityImageProcessor(size={"height": 64, "width": 64})


def test_rollout_by_hand():
    # One head, one class token, two patches, two blocks; (A + 1) / 2 since rows sum to 1.
    first = np.array([[0.2, 0.6, 0.2], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    second = np.array([[0.4, 0.0, 0.6], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]])
    product = (second + np.eye(3)) / 2 @ ((first + np.eye(3)) / 2)
    rows = attention_rollout([torch.tensor(part, dtype=torch.float32)[None] for part in (first, second)], 1)
    np.testing.assert_allclose(rows, product[:1, 1:], atol=1e-6)
    # 0.7 · (0.3, 0.1) + 0.3 · (0, 0.75)
    np.testing.assert_allclose(rows, [[0.21, 0.295]], atol=1e-6)


def test_rollout_averages_heads():
    heads = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    np.testing.assert_allclose(attention_rollout([heads], 1), [[0.25]])


def test_rollout_of_the_model_is_the_full_product(tiny_model, processor, image):
    output = AttentionRolloutLocalizer(tiny_model, processor)([image, image[::-1].copy()])
    reference = share_weights(tiny_model)
    reference.set_attn_implementation("eager")
    with torch.inference_mode():
        inputs = processor([image, image[::-1].copy()], return_tensors="pt")
        attentions = reference(**inputs, output_attentions=True).attentions
    assert len(attentions) == 2
    for row in range(2):
        product = np.eye(14 + 16)
        for weights in attentions:
            mixed = weights[row].mean(0).double().numpy() + np.eye(30)
            product = mixed / mixed.sum(1, keepdims=True) @ product
        np.testing.assert_allclose(output.maps[row], 16 * product[:14, 14:].reshape(14, 4, 4), rtol=1e-4)


def test_rollout_leaves_the_model_as_it_was(tiny_model, processor, image):
    tiny_model.set_attn_implementation("sdpa")
    weights = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    before = ModelLocalizer(tiny_model, processor)([image])
    output = AttentionRolloutLocalizer(tiny_model, processor)([image])
    assert tiny_model.config._attn_implementation == "sdpa"
    after = ModelLocalizer(tiny_model, processor)([image])
    np.testing.assert_array_equal(before.maps, after.maps)
    np.testing.assert_allclose(output.scores, before.scores, atol=1e-5)
    assert output.letterboxes == before.letterboxes
    assert all(torch.equal(weights[name], value) for name, value in tiny_model.state_dict().items())


def test_a_copy_shares_weights_and_not_its_config(tiny_model):
    shared = share_weights(tiny_model)
    assert all(one is other for one, other in zip(tiny_model.parameters(), shared.parameters(), strict=True))
    shared.config.map_fusion = "cam"
    assert tiny_model.config.map_fusion == "geometric"
    assert shared.clarity.layers[0].attention.config is shared.config


def test_parts_of_the_map_alone(tiny_model, processor, image):
    with torch.inference_mode():
        full = tiny_model(**processor([image], return_tensors="pt"))
    cam = with_map_fusion(tiny_model, processor, "cam")
    attention = with_map_fusion(tiny_model, processor, "attention")
    plain = with_map_fusion(tiny_model, processor, "geometric")
    np.testing.assert_allclose(
        cam([image]).maps, torch.nn.functional.softplus(full.activation_maps).numpy(), atol=1e-6
    )
    np.testing.assert_allclose(attention([image]).maps, 16 * full.class_attention.numpy(), atol=1e-6)
    np.testing.assert_allclose(plain([image]).maps, np.sqrt(cam([image]).maps * attention([image]).maps), atol=1e-6)
    assert [part.name for part in (cam, attention, plain)] == ["CAM alone", "attention alone", "without suppression"]
    suppressed = with_map_fusion(tiny_model, processor, "cam", background_suppression=True)
    assert suppressed.name == "CAM alone, suppressed"
    assert suppressed([image]).maps.sum() < cam([image]).maps.sum()
    full_maps = with_map_fusion(tiny_model, processor, "geometric", background_suppression=True)
    np.testing.assert_allclose(full_maps([image]).maps, full.localization_maps.numpy(), atol=1e-6)


def test_a_fusion_that_the_model_cannot_have_is_refused(tiny_model, processor):
    with pytest.raises(ValueError, match="`map_fusion` must be one of"):
        with_map_fusion(tiny_model, processor, "product")
    config = tiny_model.config.to_dict()
    for name in ("segment_cam", "background_suppression"):
        config[name] = False
    bare = ClarityForMultiLabelLocalization(ClarityConfig.from_dict(config | {"map_fusion": "attention"}))
    with pytest.raises(ValueError, match="`map_fusion` must be 'attention'"):
        with_map_fusion(bare, processor, "cam")


def test_the_atlas_lies_over_the_image_and_not_over_the_padding(tiny_model, processor):
    # An image twice as high as wide fills the two middle columns of four.
    image = np.random.default_rng(0).integers(0, 255, (128, 64)).astype(np.uint8)
    plain = with_map_fusion(tiny_model, processor, "geometric")([image]).maps
    output = AtlasSuppressionLocalizer(tiny_model, processor)([image])
    factor = np.divide(output.maps[0], plain[0], out=np.full((14, 4, 4), np.nan), where=plain[0] > 0)
    floor = np.array(tiny_model.config.per_finding("suppression_floor"))
    some = np.isfinite(factor)
    edge = np.broadcast_to(floor[:, None], (14, 4))
    for column in (0, 3):
        np.testing.assert_allclose(factor[..., column][some[..., column]], edge[some[..., column]], rtol=1e-5)
    prior = (factor - floor[:, None, None]) / (1 - floor[:, None, None])
    inside = np.nanmean(prior, axis=0)
    assert inside[1:3, 1:3].min() > 0.4  # the middle of the thorax
    assert inside[1:3, 1:3].max() <= 1.0001


def test_a_random_map_makes_regions_between_0_and_1():
    drawn = random_map(np.random.default_rng(0))
    assert drawn.shape == (14, 14)
    assert (drawn.min(), drawn.max()) == (0, 1)
    neighbours = np.corrcoef(drawn[:, 1:].ravel(), drawn[:, :-1].ravel())[0, 1]
    assert neighbours > 0.5


def test_random_maps_depend_on_image_and_seed_alone(image):
    localizer = RandomMapLocalizer(["Mass", "Nodule"])
    other = image[::-1].copy()
    batch = localizer([other, image])
    np.testing.assert_array_equal(batch.maps[1], localizer([image]).maps[0])
    assert not np.array_equal(batch.maps[0], batch.maps[1])
    assert not np.array_equal(batch.maps[1, 0], batch.maps[1, 1])
    assert not np.array_equal(batch.maps[1], RandomMapLocalizer(["Mass", "Nodule"], seed=1)([image]).maps[0])
    assert batch.scores.tolist() == [[0.5, 0.5]] * 2
    box = batch.letterboxes[1]
    assert (box.input, box.content, box.top, box.left) == ((120, 90), (120, 90), 0, 0)
