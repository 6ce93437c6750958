# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The image processor: images to `pixel_values`, outputs to boxes and maps in the image's pixels."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from PIL import Image
from torchvision.transforms.v2 import functional as tvF
from transformers import AutoImageProcessor
from transformers.image_utils import PILImageResampling

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.image_processing_clarity import IMAGE_MEAN, IMAGE_STD, _has_kernel_of_fours

BLACK = (0 - IMAGE_MEAN) / IMAGE_STD


@pytest.fixture
def processor():
    return ClarityImageProcessor(size={"height": 64, "width": 64})


def pixels(processor, image, **kwargs):
    return processor(image, return_tensors="pt", **kwargs).pixel_values


def half_bright(shape, dtype=np.uint8, high=255):
    image = np.zeros(shape, dtype)
    image[:, : shape[1] // 2] = high
    return image


# Images to pixel_values


def test_the_default_size_is_224(image):
    assert pixels(ClarityImageProcessor(), image).shape == (1, 3, 224, 224)


def test_the_three_channels_are_the_same_grey(processor, image):
    values = pixels(processor, image)
    assert values.dtype == torch.float32
    assert torch.equal(values[:, 0], values[:, 1])
    assert torch.equal(values[:, 0], values[:, 2])


def test_values_are_normalised_as_computed_by_hand(processor):
    values = pixels(processor, half_bright((64, 64), high=51))
    assert values[0, 0, 10, 5].item() == pytest.approx((51 / 255 - 0.5056) / 0.252, abs=1e-5)
    assert values[0, 0, 10, 60].item() == pytest.approx(-0.5056 / 0.252, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        ((128, 64), (slice(None), slice(16, 48))),
        ((64, 128), (slice(16, 48), slice(None))),
        ((64, 64), (slice(None), slice(None))),
    ],
    ids=["portrait", "landscape", "square"],
)
def test_the_image_is_centred_on_black(processor, shape, content):
    image = np.full(shape, 200, np.uint8)
    image[0, 0] = 199
    values = pixels(processor, image)[0, 0]
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[content] = True
    assert (values[inside] > 0).all()
    torch.testing.assert_close(values[~inside], torch.full_like(values[~inside], BLACK))


def test_squashing_leaves_no_padding(processor):
    image = np.full((128, 64), 200, np.uint8)
    image[0, 0] = 199
    assert (pixels(processor, image, keep_ratio=False) > 0).all()
    assert (pixels(ClarityImageProcessor(keep_ratio=False), image) > 0).all()


def test_16_bit_images_equal_their_8_bit_version(processor, image):
    deep = image.astype(np.uint16) * 257
    deep[0, 0], shallow = 65535, image.copy()
    shallow[0, 0] = 255
    difference = pixels(processor, deep) - pixels(processor, shallow)
    # 8-bit images are resized to whole grey values, one axis at a time.
    assert difference.abs().max() <= 1 / 255 / IMAGE_STD


@pytest.mark.parametrize("shape", [(256, 256), (131, 90), (90, 203), (97, 64), (64, 99), (50, 40)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixel_values_equal_torchvision_s_steps_one_by_one(processor, shape, dtype):
    grey = np.random.default_rng(0).integers(0, 256, shape, np.uint8).astype(dtype)
    top, left, (height, width) = (box := processor.letterbox(shape)).top, box.left, box.content
    resized = tvF.resize(torch.from_numpy(grey)[None], [height, width], antialias=True)
    expected = torch.zeros(1, 64, 64)
    expected[:, top : top + height, left : left + width] = resized
    expected = (expected / 255 - IMAGE_MEAN) / IMAGE_STD
    torch.testing.assert_close(pixels(processor, grey)[0], expected.expand(3, -1, -1), rtol=0, atol=1e-5)


def test_resizing_four_rows_at_a_time_changes_no_value(processor):
    rng = np.random.default_rng(0)
    for rows, columns, height, width in rng.integers(1, 300, (100, 4)).tolist():
        image = torch.from_numpy(rng.integers(0, 256, (1, rows, columns), np.uint8))
        if not _has_kernel_of_fours(image, processor.resample):
            pytest.skip("this processor has another kernel")
        by_fours = processor._resize_by_fours(image, height, width, processor.resample)
        assert torch.equal(by_fours, processor._resize_plainly(image, height, width, processor.resample))


def test_only_whole_grey_values_in_a_bilinear_resize_go_four_at_a_time(processor, monkeypatch):
    image = torch.zeros(1, 20, 20, dtype=torch.uint8)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert _has_kernel_of_fours(image, processor.resample)
    assert not _has_kernel_of_fours(image.float(), processor.resample)
    assert not _has_kernel_of_fours(image.to("meta"), processor.resample)
    assert not _has_kernel_of_fours(image, PILImageResampling.LANCZOS)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not _has_kernel_of_fours(image, processor.resample)


def test_every_container_gives_the_same_batch(processor, image):
    expected = pixels(processor, image)
    picture = Image.fromarray(image)
    for one in (picture, [image], (image,), [[picture]], torch.from_numpy(image.copy()), image[None, None]):
        torch.testing.assert_close(pixels(processor, one), expected)
    for two in ([image, picture], (image, image), [[image], [image]], np.stack([image[None], image[None]])):
        torch.testing.assert_close(pixels(processor, two), expected.expand(2, -1, -1, -1))


def test_images_of_different_sizes_are_one_batch(processor, image):
    assert pixels(processor, [image, image.T, image[:50]]).shape == (3, 3, 64, 64)


def test_paths_and_bytes_are_read(processor, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "image.png")
    expected = pixels(processor, image)
    torch.testing.assert_close(pixels(processor, tmp_path / "image.png"), expected)
    torch.testing.assert_close(pixels(processor, (tmp_path / "image.png").read_bytes()), expected)


@pytest.mark.parametrize("empty", [[], (), [[]]])
def test_no_image_is_refused(processor, empty):
    with pytest.raises(ValueError, match="`images` must hold at least one image"):
        processor(empty, return_tensors="pt")


def test_a_url_is_refused(processor):
    with pytest.raises(ValueError, match="got a URL"):
        processor("https://example.org/image.png", return_tensors="pt")


def test_size_may_change_per_call(processor, image):
    values = pixels(processor, image, size={"height": 96, "width": 32})
    assert values.shape == (1, 3, 96, 32)
    assert pixels(processor, image).shape == (1, 3, 64, 64)


def test_numpy_comes_back_where_asked(processor, image):
    values = processor(image, return_tensors="np").pixel_values
    assert isinstance(values, np.ndarray)
    assert values.shape == (1, 3, 64, 64)


def test_steps_can_be_left_out(processor, image):
    raw = pixels(processor, image, do_resize=False, do_rescale=False, do_normalize=False)
    assert raw.shape == (1, 3, 120, 90)
    np.testing.assert_array_equal(raw[0, 1], image)
    torch.testing.assert_close(pixels(processor, image, do_resize=False, do_normalize=False), raw / 255)
    unscaled = pixels(processor, image, do_resize=False, do_rescale=False)
    torch.testing.assert_close(unscaled, (raw - IMAGE_MEAN) / IMAGE_STD)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_flipped_views_are_taken(processor, image, dtype):
    flipped = image.astype(dtype)[::-1, ::-1]
    torch.testing.assert_close(pixels(processor, flipped), pixels(processor, flipped.copy()))


@pytest.mark.filterwarnings("error")
def test_read_only_images_are_taken_without_a_warning(processor, image):
    assert not image.flags.writeable
    assert pixels(processor, image, do_resize=False, do_normalize=False).shape == (1, 3, 120, 90)


def test_the_image_is_not_changed(processor, image):
    before = image.astype(np.float32)
    source = before.copy()
    pixels(processor, source, do_resize=False)
    np.testing.assert_array_equal(source, before)


# Files


def test_a_processor_survives_its_file(tmp_path, image):
    processor = ClarityImageProcessor(
        size={"height": 96, "width": 64}, keep_ratio=False, image_mean=[0.4] * 3, image_std=[0.2] * 3
    )
    processor.save_pretrained(tmp_path)
    for loader in (ClarityImageProcessor, AutoImageProcessor):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, ClarityImageProcessor)
        assert loaded.to_dict() == processor.to_dict()
        assert torch.equal(pixels(loaded, image), pixels(processor, image))
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert written["keep_ratio"] is False
    assert written["size"] == {"height": 96, "width": 64}


def test_the_auto_class_finds_the_checkpoint_s_processor(tiny_checkpoint):
    loaded = AutoImageProcessor.from_pretrained(tiny_checkpoint)
    assert isinstance(loaded, ClarityImageProcessor)
    assert dict(loaded.size) == {"height": 64, "width": 64}


# Geometry


@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("shape", [(500, 300), (300, 500), (411, 411), (1000, 701)])
def test_what_is_drawn_on_the_image_comes_back_within_a_pixel(shape, keep_ratio):
    processor = ClarityImageProcessor(size={"height": 224, "width": 224}, keep_ratio=keep_ratio)
    drawn = np.array([0.25 * shape[1], 0.5 * shape[0], 0.6 * shape[1], 0.8 * shape[0]]).round()
    x0, y0, x1, y1 = drawn.astype(int)
    image = np.zeros(shape, np.float32)
    image[y0:y1, x0:x1] = 1.0
    seen = pixels(processor, image, do_normalize=False)[0, 0].numpy()
    # The edges at sub-pixel precision: along the middle, the bright extent is the sum over the row or column.
    row, column = seen[round(0.65 * seen.shape[0])], seen[:, seen.shape[1] // 2]
    left, top = np.argmax(row > 0.5), np.argmax(column > 0.5)
    right, bottom = seen.shape[1] - np.argmax(row[::-1] > 0.5), seen.shape[0] - np.argmax(column[::-1] > 0.5)
    box = processor.letterbox(shape)
    back = box.to_image([left, top, right, bottom])
    pixel_of_input = [shape[1] / box.content[1], shape[0] / box.content[0]] * 2
    assert (np.abs(back - drawn) <= np.maximum(1.0, np.array(pixel_of_input) / 2 + 1e-6)).all()


def test_the_letterbox_of_an_unresized_image_is_the_image():
    box = ClarityImageProcessor(do_resize=False).letterbox((120, 90))
    np.testing.assert_array_equal(box.to_image([10, 20, 30, 40]), [10, 20, 30, 40])
    assert box.input == (120, 90)


# Outputs to boxes


def outputs(maps, logits=None):
    maps = torch.as_tensor(np.asarray(maps), dtype=torch.float32)
    logits = torch.full(maps.shape[:2], 4.0) if logits is None else torch.tensor(logits, dtype=torch.float32)
    settings = ClarityConfig(num_labels=maps.shape[1], box_components="largest", box_valleys=0.0).box_settings()
    settings = torch.tensor(settings, dtype=torch.float64).expand(len(maps), -1, -1)
    return SimpleNamespace(scores=logits.sigmoid(), localization_maps=maps, box_settings=settings)


def spot(row, column, height=1.0):
    grid = np.zeros((4, 4))
    grid[row, column] = height
    return grid


def test_boxes_are_in_pixels_of_the_image(processor):
    # An image of 100 × 200 fills rows 16 to 48 of 64 × 64; grid cell (1, 2) covers x 32–48, y 16–32 of it.
    (result,) = processor.post_process_localization(
        outputs([[spot(1, 2)]]), target_sizes=[(100, 200)], map_thresholds=0.5, upsampling=1
    )
    torch.testing.assert_close(result["boxes"], torch.tensor([[100.0, 0.0, 150.0, 50.0]]))
    assert result["boxes"].dtype == torch.float32
    assert result["labels"].tolist() == [0]
    assert result["labels"].dtype == torch.int64
    assert result["scores"].item() == pytest.approx(1 / (1 + np.exp(-4)))


@pytest.mark.parametrize("sizes", [[(100, 200), (200, 100)], torch.tensor([[100, 200], [200, 100]])])
def test_every_image_has_its_own_size(processor, sizes):
    results = processor.post_process_localization(
        outputs([[spot(1, 2)], [spot(1, 2)]]), target_sizes=sizes, upsampling=1
    )
    assert results[0]["boxes"].tolist() == [[100, 0, 150, 50]]
    assert results[1]["boxes"].tolist() == [[50, 50, 100, 100]]


def test_without_sizes_boxes_are_in_pixels_of_the_input(processor):
    (result,) = processor.post_process_localization(outputs([[spot(1, 2)]]), upsampling=1)
    assert result["boxes"].tolist() == [[32, 16, 48, 32]]


def test_thresholds_are_per_finding(processor):
    three = outputs([[spot(0, 0), spot(1, 1), spot(2, 2)]], logits=[[0.0, 0.0, 2.0]])
    (result,) = processor.post_process_localization(three, score_thresholds=[0.5, 0.51, 0.9], upsampling=1)
    assert result["labels"].tolist() == [0]  # scores .5, .5, .88
    torch.testing.assert_close(result["finding_scores"], torch.tensor([0.5, 0.5, 0.880797]))


def test_map_thresholds_are_per_finding(processor):
    grid = spot(1, 1) + spot(1, 2, 0.4)
    (result,) = processor.post_process_localization(outputs([[grid, grid]]), map_thresholds=[0.3, 0.5], upsampling=1)
    assert result["boxes"].tolist() == [[16, 16, 48, 32], [16, 16, 32, 32]]


def test_score_zero_boxes_every_finding(processor):
    low = outputs([[spot(i // 4, i % 4) for i in range(14)]], logits=[[-20.0] * 14])
    (result,) = processor.post_process_localization(low, score_thresholds=0)
    assert result["labels"].tolist() == list(range(14))
    assert processor.post_process_localization(low)[0]["boxes"].shape == (0, 4)


def test_a_present_finding_with_a_zero_map_has_no_box(processor):
    (result,) = processor.post_process_localization(outputs([[np.zeros((4, 4)), spot(3, 3)]]))
    assert result["labels"].tolist() == [1]
    assert len(result["finding_scores"]) == 2


def test_all_components_give_a_row_each(processor):
    (result,) = processor.post_process_localization(
        outputs([[spot(0, 0) + spot(3, 3, 0.9)]]), components="all", upsampling=1
    )
    assert result["boxes"].tolist() == [[0, 0, 16, 16], [48, 48, 64, 64]]
    assert result["labels"].tolist() == [0, 0]
    assert len(result["scores"]) == 2


def test_what_a_call_leaves_out_is_the_config_s():
    # The finding is 5 × 5 patches with a gap between two peaks, and a small region that is not a speck.
    torch.manual_seed(0)
    config = ClarityConfig(
        num_labels=3,
        score_thresholds=[0.0, 0.99, 0.3],
        map_thresholds=[0.3, 0.5, 0.7],
        box_valleys=[0.0, 0.5, 0.9],
        box_components="all",
        box_upsampling=4,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        class_attention_layers=1,
        intermediate_size=24,
    )
    model, processor = ClarityForMultiLabelLocalization(config).eval(), ClarityImageProcessor()
    images = [np.random.default_rng(seed).integers(0, 256, (300, 200 + seed)).astype(np.uint8) for seed in range(3)]
    with torch.inference_mode():
        found = model(**processor(images, return_tensors="pt"))
    sizes = [image.shape for image in images]
    shortest = processor.post_process_localization(found, target_sizes=sizes)
    longest = processor.post_process_localization(
        found, config.score_thresholds, config.map_thresholds, sizes, "all", 4, config.box_valleys
    )
    for short, long in zip(shortest, longest, strict=True):
        assert short["labels"].tolist() == long["labels"].tolist()
        torch.testing.assert_close(short["boxes"], long["boxes"], rtol=0, atol=0)
    assert {label for result in shortest for label in result["labels"].tolist()} == {0, 2}
    constant = processor.post_process_localization(found, 0.5, 0.5, sizes, "largest", 8, 0.0)
    assert [len(result["boxes"]) for result in constant] != [len(result["boxes"]) for result in shortest]


def test_every_image_is_drawn_by_its_own_settings(processor):
    two = outputs([[spot(0, 0) + spot(3, 3, 0.9)]] * 2)
    two.box_settings = two.box_settings.clone()
    two.box_settings[1, 0, 3] = 1.0  # of the second image every region
    first, second = processor.post_process_localization(two)
    assert [len(first["boxes"]), len(second["boxes"])] == [1, 2]


def test_outputs_that_do_not_say_by_what_to_draw_are_refused_unless_the_call_does(processor):
    bare = outputs([[spot(1, 2)]])
    del bare.box_settings
    with pytest.raises(ValueError, match=r"`outputs` must carry `box_settings`.*'valleys', 'upsampling'"):
        processor.post_process_localization(bare, 0.5, 0.5, components="all")
    (result,) = processor.post_process_localization(bare, 0.5, 0.5, components="all", upsampling=1, valleys=0.0)
    assert result["boxes"].tolist() == [[32, 16, 48, 32]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score_thresholds": [0.5, 0.5]}, r"`score_thresholds` must be one number or 1, got \(2,\)"),
        ({"map_thresholds": [0.5, 0.5]}, "`map_thresholds` must be one number or 1"),
        ({"target_sizes": [(10, 10), (10, 10)]}, r"`target_sizes` must have one .* per image \(1\), got 2"),
        ({"target_sizes": torch.zeros(0, 2)}, r"`target_sizes` must have one .* per image \(1\), got 0"),
        ({"map_thresholds": 1.5}, r"must be inside \(0, 1\), got 1.5"),
        ({"score_thresholds": 50}, r"`score_thresholds` must be in \[0, 1\], got 50. Pass a probability"),
        ({"score_thresholds": float("nan")}, r"`score_thresholds` must be in \[0, 1\], got nan"),
        ({"score_thresholds": -1}, r"`score_thresholds` must be in \[0, 1\], got -1"),
        ({"score_thresholds": True}, "`score_thresholds` must be a number or one per finding, got 'True'"),
        ({"score_thresholds": "0.5"}, "`score_thresholds` must be a number or one per finding, got '0.5'"),
        ({"map_thresholds": [0]}, r"`map_thresholds` must be inside \(0, 1\), got 0"),
        ({"valleys": np.array([2.0])}, r"`valleys` must be in \[0, 1\], got 2.0"),
    ],
)
def test_lengths_and_ranges_are_checked(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor.post_process_localization(outputs([[spot(0, 0)]]), **arguments)


def test_half_precision_outputs_are_taken(processor):
    half = outputs([[spot(1, 2)]])
    half.scores, half.localization_maps = half.scores.bfloat16(), half.localization_maps.bfloat16().requires_grad_()
    (result,) = processor.post_process_localization(half, upsampling=1)
    assert result["boxes"].tolist() == [[32, 16, 48, 32]]


def test_an_unresized_batch_keeps_its_frame():
    processor = ClarityImageProcessor(do_resize=False)
    (result,) = processor.post_process_localization(outputs([[spot(1, 2)]]), target_sizes=[(128, 64)], upsampling=1)
    assert result["boxes"].tolist() == [[32, 32, 48, 64]]


# Maps over images


@pytest.mark.parametrize("shape", [(100, 200), (200, 100), (90, 90)])
def test_maps_lie_over_the_image(shape):
    processor = ClarityImageProcessor(size={"height": 224, "width": 224})
    target_x, target_y = 0.7 * shape[1], 0.4 * shape[0]
    x, y = processor.letterbox(shape).to_input([target_x, target_y, target_x, target_y])[:2] / 16
    rows, columns = np.mgrid[0:14, 0:14] + 0.5
    grid = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4)
    (laid,) = processor.post_process_maps(outputs([[grid, 2 * grid]]), [shape])
    assert laid.shape == (2, *shape)
    assert laid.dtype == torch.float32
    weight = laid[0].numpy() ** 4
    centre_y, centre_x = (np.arange(side) + 0.5 for side in shape)
    cell = 16 * shape[0] / processor.letterbox(shape).content[0]
    assert (weight.sum(0) @ centre_x) / weight.sum() == pytest.approx(target_x, abs=cell / 4)
    assert (weight.sum(1) @ centre_y) / weight.sum() == pytest.approx(target_y, abs=cell / 4)
    assert laid[1].max() == pytest.approx(2 * laid[0].max().item())
    assert laid[0].max().item() == pytest.approx(1.0, abs=0.1)


def test_maps_without_sizes_cover_the_input(processor):
    laid = processor.post_process_maps(outputs([[spot(1, 2)], [spot(0, 0)]]))
    assert [maps.shape for maps in laid] == [(1, 64, 64)] * 2
    row, column = divmod(int(laid[0][0].argmax()), 64)
    assert (16 <= row < 32, 32 <= column < 48) == (True, True)


def test_boxes_and_maps_agree(processor):
    made = outputs([[spot(1, 2) + spot(2, 2, 0.7)]])
    (result,) = processor.post_process_localization(made, target_sizes=[(300, 400)], map_thresholds=0.5)
    (laid,) = processor.post_process_maps(made, [(300, 400)])
    rows, columns = np.nonzero(laid[0].numpy() > 0.5 * laid[0].max().item())
    pixels_of_map = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(result["boxes"][0], pixels_of_map, atol=2 * 400 / 64)


def test_a_size_without_height_and_width_is_refused(image):
    processor = ClarityImageProcessor(size={"shortest_edge": 224})
    with pytest.raises(ValueError, match="`size` must have a height and a width, got None and None"):
        processor(image)
    with pytest.raises(ValueError, match="`size` must have a height and a width"):
        processor.letterbox((100, 100))


@pytest.mark.parametrize("side", [0, 4097, 2**20])
def test_an_input_that_no_memory_holds_is_refused(side):
    processor = ClarityImageProcessor(size={"height": side, "width": side})
    with pytest.raises(ValueError, match=r"`size` must have 1 to 16777216 pixels, got"):
        processor(255 * np.eye(32, dtype=np.uint8), return_tensors="pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 1.5])
def test_scores_that_are_not_probabilities_are_refused(processor, value):
    broken = outputs([[spot(0, 0)]])
    broken.scores[0, 0] = value
    with pytest.raises(ValueError, match=r"`outputs` must give finite scores in \[0, 1\], got"):
        processor.post_process_localization(broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5])
def test_maps_out_of_range_are_refused(processor, value):
    broken = outputs([[spot(0, 0)]])
    broken.localization_maps[0, 0, 1, 1] = value
    for process in (processor.post_process_localization, processor.post_process_maps):
        with pytest.raises(ValueError, match="`outputs` must give finite localization maps from 0 on, got"):
            process(broken)


SETTINGS = [
    ("image_std", [0, 0, 0]),
    ("image_std", [0.2, -0.2, 0.2]),
    ("image_std", [0.2, 0.2, float("nan")]),
    ("image_std", "abc"),
    ("image_std", [True] * 3),
    ("image_mean", [float("nan")] * 3),
    ("image_mean", [0.5, 0.5, float("inf")]),
    ("rescale_factor", 0),
    ("rescale_factor", float("inf")),
    ("rescale_factor", -1 / 255),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS, ids=str)
def test_a_normalisation_that_gives_no_numbers_is_refused(processor, tmp_path, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*finite, got"):
        ClarityImageProcessor(**{name: value})
    # The library looks at types first.
    with pytest.raises((ValueError, StrictDataclassFieldValidationError), match=name):
        pixels(processor, half_bright((64, 64)), **{name: value})
    processor.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    for loader in (ClarityImageProcessor, AutoImageProcessor):
        with pytest.raises(ValueError, match=f"`{name}` must be .*finite, got"):
            loader.from_pretrained(tmp_path)
