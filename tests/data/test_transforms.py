# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""From row to tensors: one geometry for image and thorax, the processor's pixels, priors and labels."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from clarity_hf import ClarityImageProcessor
from clarity_hf.boxes import Letterbox
from clarity_hf.data import transforms
from clarity_hf.data.priors import PRIOR_SIDE, load_atlas, soft_prior
from clarity_hf.data.thorax_segmenter import segment_thorax
from clarity_hf.data.transforms import ImageTransform, TransformedDataset, read_source
from clarity_hf.phantoms import draw_phantom

LABELS = np.array([1.0, 0.0, np.nan], dtype=np.float32)


@pytest.fixture
def processor():
    return ClarityImageProcessor(size={"height": 64, "width": 64})


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


def block(height, width):
    """Image `(height, width)` with a bright block off its centre, and the block as a mask."""
    image = np.full((height, width), 30, dtype=np.uint8)
    rows, columns = slice(height // 4, height // 2), slice(width // 3, width * 3 // 4)
    image[rows, columns] = 220
    return image, image == 220


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def bounds(inside):
    """Box xyxy around what is set in `(H, W)`, right and bottom exclusive."""
    rows, columns = torch.nonzero(inside.any(1)), torch.nonzero(inside.any(0))
    return torch.stack([columns[0, 0], rows[0, 0], columns[-1, 0] + 1, rows[-1, 0] + 1]).float()


# View


def test_a_rotated_ramp_is_smooth(processor):
    """Nearest neighbour would shift a rotated ramp by whole pixels: steps of none and of two instead of one."""
    ramp = torch.arange(72.0).expand(72, 72)[None] / 71
    affine = ImageTransform(processor, augment="full").crops.transforms[0]
    assert isinstance(affine, v2.RandomAffine)
    torch.manual_seed(0)
    for _ in range(5):
        steps = affine(tv_tensors.Image(ramp))[0, 20:52, 20:52].diff(dim=1) * 71
        assert 0.9 < steps.min() <= steps.max() < 1.1  # cos 7° = 0.993
        inside = affine(tv_tensors.Mask((ramp > 0.5).float()))
        assert set(inside.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("augment", ["none", "flip", "full"])
@pytest.mark.parametrize("shape", [(256, 256), (320, 192), (160, 400)])
@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_go_through_the_same_geometry(shape, augment, seed):
    """A bright rectangle and its mask have the same bounds in the view."""
    height, width = shape
    radiograph = np.full(shape, 40, dtype=np.uint8)
    box = [width * 3 // 8, height // 4, width * 3 // 4, height * 5 // 8]
    radiograph[box[1] : box[3], box[0] : box[2]] = 220
    row = {"image": radiograph, "thorax_mask": radiograph == 220}
    transform = ImageTransform(ClarityImageProcessor(size={"height": 224, "width": 224}), augment, crop_scale=0.8)
    torch.manual_seed(seed)
    view = transform.view(row)
    image, thorax = view["image"][0], view["thorax"][0]
    assert image.shape == thorax.shape == (224, 224)
    bright, inside = image > (image.max() + image[image > 0.05].min()) / 2, thorax > 0.5
    assert (bright & inside).sum() / (bright | inside).sum() > 0.95
    torch.testing.assert_close(bounds(inside), bounds(bright), rtol=0, atol=2)


def test_the_view_is_what_a_call_normalises(processor):
    row = {"image": noise(80, 64), "labels": LABELS, "thorax_mask": block(80, 64)[1]}
    transform = ImageTransform(processor, augment="full")
    torch.manual_seed(5)
    view = transform.view(row)
    torch.manual_seed(5)
    out = transform(row)
    assert isinstance(view["image"], tv_tensors.Image)
    assert isinstance(view["thorax"], tv_tensors.Mask)
    assert view["image"].min() >= 0
    assert view["image"].max() <= 1
    expected = (view["image"].as_subclass(torch.Tensor) - processor.image_mean[0]) / processor.image_std[0]
    torch.testing.assert_close(out["pixel_values"][:1], expected)
    assert torch.equal(out["anatomical_prior"], soft_prior(view["thorax"].as_subclass(torch.Tensor)))


@pytest.mark.parametrize("shape", [(64, 64), (160, 96)])
def test_flip_gives_the_image_or_its_mirror_image(processor, shape):
    image, mask = block(*shape)
    row = {"image": image, "labels": LABELS, "thorax_mask": mask}
    plain, mirrored = ImageTransform(processor)(row), ImageTransform(processor)(row | {"image": image[:, ::-1].copy()})
    torch.manual_seed(0)
    transform = ImageTransform(processor, augment="flip")
    drawn = [transform(row)["pixel_values"] for _ in range(40)]
    as_it_is = [torch.equal(pixels, plain["pixel_values"]) for pixels in drawn]
    assert 8 < sum(as_it_is) < 32
    for pixels, same in zip(drawn, as_it_is, strict=True):
        torch.testing.assert_close(pixels, (plain if same else mirrored)["pixel_values"], rtol=0, atol=1e-5)


def test_flip_mirrors_mask_and_atlas_with_the_image(processor):
    image, mask = block(64, 64)
    for prior in ("masks", "atlas"):
        row = {"image": image, "labels": LABELS, "thorax_mask": mask}
        plain = ImageTransform(processor, prior=prior)(row)
        torch.manual_seed(0)
        transform = ImageTransform(processor, augment="flip", prior=prior)
        for _ in range(6):
            out = transform(row)
            moved = not torch.equal(out["pixel_values"], plain["pixel_values"])
            expected = plain["anatomical_prior"].flip(-1) if moved else plain["anatomical_prior"]
            torch.testing.assert_close(out["anatomical_prior"], expected, rtol=0, atol=1e-5)


# Augmentation


def test_augmentation_moves_the_image(processor):
    image, mask = block(96, 96)
    row = {"image": image, "labels": LABELS, "thorax_mask": mask}
    torch.manual_seed(0)
    transform = ImageTransform(processor, augment="full")
    first, second = transform(row), transform(row)
    assert not torch.equal(first["pixel_values"], second["pixel_values"])
    assert not torch.equal(first["anatomical_prior"], second["anatomical_prior"])


def test_augmentation_follows_the_seed(processor):
    transform = ImageTransform(processor, augment="full")
    images = []
    for _ in range(2):
        torch.manual_seed(3)
        images.append(transform({"image": noise(80, 64), "labels": LABELS})["pixel_values"])
    assert torch.equal(*images)


def test_without_augmentation_nothing_is_random(processor):
    row = {"image": noise(80, 64), "labels": LABELS, "thorax_mask": block(80, 64)[1]}
    transform = ImageTransform(processor)
    torch.manual_seed(0)
    first = transform(row)
    torch.manual_seed(1)
    second = transform(row)
    assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert torch.equal(first["anatomical_prior"], second["anatomical_prior"])


@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (160, 96), (90, 150)])
def test_validation_pixels_are_those_of_the_image_processor(shape, keep_ratio):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64}, keep_ratio=keep_ratio)
    image = noise(*shape)
    ours = ImageTransform(processor)({"image": image, "labels": LABELS})["pixel_values"]
    theirs = processor(image, return_tensors="pt").pixel_values[0]
    assert ours.shape == theirs.shape
    # The processor resizes in uint8: a rounding for each axis, half a grey level each, on the normalised scale.
    grey_level = 1 / 255 / processor.image_std[0]
    tolerance = 1e-5 if shape == (64, 64) else 1.02 * grey_level
    assert (ours - theirs).abs().max() <= tolerance
    assert (ours - theirs).abs().mean() <= 0.5 * grey_level


def test_sixteen_bit_pixels_are_those_of_the_image_processor(processor):
    image = np.random.default_rng(0).integers(0, 65536, (160, 96)).astype(np.uint16)
    ours = ImageTransform(processor)({"image": image, "labels": LABELS})["pixel_values"]
    theirs = processor(image, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


# Priors


@pytest.mark.parametrize("augment", ["none", "flip", "full"])
@pytest.mark.parametrize("row", [{}, {"thorax_mask": None}, {"thorax_mask": np.zeros((80, 64), dtype=bool)}])
def test_without_a_mask_or_with_an_empty_one_the_prior_is_unknown_or_the_atlas(processor, row, augment, monkeypatch):
    """The atlas where the segmenter finds nothing either."""
    monkeypatch.setattr(transforms, "segment_thorax", lambda pixels: None)
    row = {"image": noise(80, 64), "labels": LABELS} | row
    priors = {}
    for source in ("masks", "auto", "atlas"):
        torch.manual_seed(0)
        priors[source] = ImageTransform(processor, augment, prior=source)(row)["anatomical_prior"]
        assert priors[source].shape == (1, PRIOR_SIDE, PRIOR_SIDE)
    assert priors["masks"].isnan().all()
    assert torch.equal(priors["auto"], priors["atlas"])
    assert priors["atlas"].max() > 0.95


@pytest.fixture(scope="module")
def radiograph():
    """A phantom without a finding, in which the segmenter finds lungs and heart."""
    return draw_phantom(3, 128, []).image


def test_without_a_mask_the_prior_is_what_the_segmenter_finds(processor, radiograph):
    row = {"image": radiograph, "labels": LABELS}
    found = ImageTransform(processor, prior="auto")(row)["anatomical_prior"]
    hull = segment_thorax(radiograph).hull
    given = ImageTransform(processor, prior="masks")(row | {"thorax_mask": hull})["anatomical_prior"]
    assert ((found > 0.5) & (given > 0.5)).sum() / ((found > 0.5) | (given > 0.5)).sum() > 0.9
    assert not torch.equal(found, ImageTransform(processor, prior="atlas")(row)["anatomical_prior"])


def test_masks_of_the_segmenter_are_computed_once_and_kept(processor, radiograph, tmp_path, monkeypatch):
    calls = []

    def counted(pixels):
        calls.append(1)
        return segment_thorax(pixels)

    monkeypatch.setattr(transforms, "segment_thorax", counted)
    row = {"image": png(radiograph), "labels": LABELS}
    seen = [ImageTransform(processor, prior="auto", image_cache=tmp_path)(row)["anatomical_prior"] for _ in range(3)]
    assert len(calls) == 1
    assert torch.equal(seen[0], seen[1])
    fresh = ImageTransform(processor, prior="auto")(row)["anatomical_prior"]
    torch.testing.assert_close(seen[2], fresh, rtol=0, atol=0.2)  # of whole grey values


def test_an_empty_result_of_the_segmenter_is_kept_too(processor, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(transforms, "segment_thorax", lambda pixels: calls.append(1))
    row = {"image": png(noise(80, 64)), "labels": LABELS}
    for _ in range(2):
        auto, atlas = (
            ImageTransform(processor, prior=source, image_cache=tmp_path)(row)["anatomical_prior"]
            for source in ("auto", "atlas")
        )
        assert torch.equal(auto, atlas)
    assert len(calls) == 1


# Drawn findings


@pytest.mark.parametrize("augment", ["none", "full"])
def test_the_place_of_drawn_findings_is_known_and_the_labels_are_not(processor, radiograph, augment):
    transform = ImageTransform(processor, augment, draw_rate=1.0)
    row = {"image": radiograph, "labels": np.zeros(14)}
    drawn = 0
    for seed in range(8):
        torch.manual_seed(seed)
        result = transform(row)
        masks = result["finding_masks"]
        assert masks.shape == (14, PRIOR_SIDE, PRIOR_SIDE)
        assert result["labels"].isnan().all() if masks.any() else torch.equal(result["labels"], torch.zeros(14))
        drawn += int((masks.amax((1, 2)) > 0).sum())
    assert drawn >= 6


def test_the_place_of_a_drawn_finding_moves_with_the_image(processor, radiograph):
    """Mirrored or not, the image differs from the one without the finding where the mask is."""
    plain = ImageTransform(processor)({"image": radiograph, "labels": np.zeros(14)})["pixel_values"]
    transform = ImageTransform(processor, "flip", draw_rate=1.0)
    sides = set()
    for seed in range(12):
        torch.manual_seed(seed)
        result = transform({"image": radiograph, "labels": np.zeros(14)})
        apart = [(result["pixel_values"] - view).abs().mean() for view in (plain, plain.flip(-1))]
        mirrored = apart[1] < apart[0]
        base = plain.flip(-1) if mirrored else plain
        sides.add(bool(mirrored))
        mask = F.interpolate(result["finding_masks"].amax(0)[None, None], size=64, mode="nearest")[0, 0] > 0
        change = (result["pixel_values"] - base).abs()[0]
        if mask.any():
            assert change[mask].mean() > 5 * change[~mask].mean()
    assert sides == {False, True}


@pytest.mark.parametrize("labels", [np.eye(14)[3], np.full(14, np.nan)])
def test_nothing_is_drawn_into_images_that_may_have_a_finding(processor, radiograph, labels):
    result = ImageTransform(processor, draw_rate=1.0)({"image": radiograph, "labels": labels})
    assert result["finding_masks"].max() == 0
    np.testing.assert_array_equal(result["labels"].numpy(), labels.astype(np.float32))


def test_a_share_of_the_images_without_a_finding_is_drawn_into(processor, radiograph):
    torch.manual_seed(0)
    transform = ImageTransform(processor, draw_rate=0.25)
    drawn = [transform({"image": radiograph, "labels": np.zeros(14)})["finding_masks"].any() for _ in range(80)]
    assert 8 <= sum(map(bool, drawn)) <= 32


def test_labels_of_other_findings_are_not_drawn(processor, radiograph):
    with pytest.raises(ValueError, match="`draw_rate` must be 0 where the labels are not the 14 of FINDINGS, got"):
        ImageTransform(processor, draw_rate=0.5)({"image": radiograph, "labels": np.zeros(3)})


# Blur


def test_images_are_blurred_at_random_up_to_the_largest_blur(processor):
    """A chequered image loses contrast, more or less; its mean stays."""
    image = np.kron(np.indices((32, 32)).sum(0) % 2, np.ones((2, 2))).astype(np.uint8) * 200
    contrast = []
    for seed in range(12):
        torch.manual_seed(seed)
        contrast.append(
            ImageTransform(processor, "full", crop_scale=1.0, blur=2.0)({"image": image, "labels": LABELS})
        )
    spread = [result["pixel_values"][0, 16:48, 16:48].std() for result in contrast]
    assert max(spread) > 4 * min(spread)


@pytest.mark.parametrize(("augment", "blur"), [("none", 1.0), ("flip", 1.0), ("full", -1.0), ("full", float("inf"))])
def test_blur_out_of_range_or_without_augmentation_is_refused(processor, augment, blur):
    with pytest.raises(ValueError, match="`blur` must be 0, or above 0 with augment 'full'"):
        ImageTransform(processor, augment, blur=blur)


@pytest.mark.parametrize("draw_rate", [-0.1, 1.1])
def test_a_draw_rate_out_of_range_is_refused(processor, draw_rate):
    with pytest.raises(ValueError, match=r"`draw_rate` must be in \[0, 1\]"):
        ImageTransform(processor, draw_rate=draw_rate)


def test_a_rows_own_mask_has_priority_over_the_atlas(processor):
    row = {"image": noise(80, 64), "labels": LABELS, "thorax_mask": block(80, 64)[1]}
    own, auto, atlas = (
        ImageTransform(processor, prior=source)(row)["anatomical_prior"] for source in ("masks", "auto", "atlas")
    )
    assert torch.equal(own, auto)
    assert not torch.equal(auto, atlas)


def test_without_a_prior_there_is_no_key_and_no_mask_is_read(processor, tmp_path):
    row = {"image": noise(80, 64), "labels": LABELS, "thorax_mask": str(tmp_path / "gone.png")}
    transform = ImageTransform(processor, augment="full", prior="none")
    assert set(transform(row)) == {"pixel_values", "labels"}
    assert transform.view(row)["thorax"] is None


@pytest.mark.parametrize("shape", [(128, 128), (256, 128), (60, 120)])
def test_the_atlas_is_placed_on_the_images_content_not_on_the_padding(shape):
    processor = ClarityImageProcessor(size={"height": 128, "width": 128})
    thorax = (
        ImageTransform(processor, prior="atlas").view({"image": noise(*shape)})["thorax"].as_subclass(torch.Tensor)
    )
    box = Letterbox.fit(shape, (128, 128))
    content = thorax[:, box.top : box.top + box.content[0], box.left : box.left + box.content[1]]
    assert content.sum() == pytest.approx(thorax.sum().item())
    torch.testing.assert_close(content.mean(), load_atlas().mean(), rtol=0.02, atol=0)
    torch.testing.assert_close(content[0].amax(0)[[0, -1]], load_atlas()[0].amax(0)[[0, -1]], rtol=0, atol=0.05)


@pytest.mark.parametrize("augment", ["none", "full"])
@pytest.mark.parametrize("shape", [(240, 240), (300, 180), (120, 270)])
@pytest.mark.parametrize("mask_shape", [(512, 512), (60, 60), (90, 240)])
def test_a_mask_of_any_size_covers_the_same_place(shape, mask_shape, augment):
    """Both cover the image's field of view: an edge at 3/8 is an edge at 3/8, whatever the pixels between."""
    processor = ClarityImageProcessor(size={"height": 96, "width": 96})

    def mask_of(height, width):
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[round(height / 6) : round(height * 5 / 6), round(width / 6) : round(width * 2 / 3)] = 1
        return mask

    seen = []
    for mask in (mask_of(*shape), mask_of(*mask_shape)):
        torch.manual_seed(1)
        transform = ImageTransform(processor, augment)
        seen.append(transform.view({"image": noise(*shape), "thorax_mask": mask})["thorax"][0] > 0.5)
    assert (seen[0] & seen[1]).sum() / (seen[0] | seen[1]).sum() > 0.95
    torch.testing.assert_close(bounds(seen[0]), bounds(seen[1]), rtol=0, atol=1.5)


def test_a_mask_file_may_be_empty_or_full(processor, tmp_path):
    transform = ImageTransform(processor, prior="masks")
    priors = []
    for name, grey in (("empty", 0), ("full", 255)):
        path = tmp_path / f"{name}.png"
        path.write_bytes(png(np.full((64, 64), grey, dtype=np.uint8)))
        row = {"image": noise(64, 64), "labels": LABELS, "thorax_mask": {"path": str(path), "bytes": None}}
        priors.append(transform(row)["anatomical_prior"])
    assert priors[0].isnan().all()
    assert (priors[1] == 1).all()


def test_outside_the_image_there_is_no_thorax(processor):
    """A portrait image of 2:1 fills the middle half of the input."""
    row = {"image": noise(128, 64), "labels": LABELS, "thorax_mask": np.ones((128, 64), dtype=bool)}
    prior = ImageTransform(processor)(row)["anatomical_prior"][0]
    # Columns 14 to 41 of 56 are the image, dilated by round(64 / 24) = 3 of 64 pixels: 2.6 of 56.
    assert (prior[:, 14:42] == 1).all()
    assert (prior[:, :11] == 0).all()
    assert (prior[:, 45:] == 0).all()


@pytest.mark.parametrize("labels", [LABELS, LABELS.astype(np.float64), LABELS.tolist()])
def test_labels_are_float32_and_stay_unannotated(processor, labels):
    out = ImageTransform(processor)({"image": noise(64, 64), "labels": labels})["labels"]
    assert out.dtype == torch.float32
    assert out[:2].tolist() == [1.0, 0.0]
    assert out[2].isnan()


def test_pixel_values_are_three_equal_channels_of_the_processors_size():
    processor = ClarityImageProcessor(size={"height": 64, "width": 96})
    for augment in ("none", "full"):
        pixels = ImageTransform(processor, augment)({"image": noise(80, 64), "labels": LABELS})["pixel_values"]
        assert pixels.shape == (3, 64, 96)
        assert pixels.is_contiguous()
        assert torch.equal(pixels[0], pixels[2])


def test_channels_are_normalised_each_by_its_own_mean_and_deviation():
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    processor = ClarityImageProcessor(size={"height": 64, "width": 64}, image_mean=mean, image_std=std)
    image = noise(64, 64)
    ours = ImageTransform(processor)({"image": image, "labels": LABELS})["pixel_values"]
    torch.testing.assert_close(ours, processor(image, return_tensors="pt").pixel_values[0], rtol=0, atol=1e-5)
    assert ours[1, 3, 4].item() == pytest.approx((image[3, 4] / 255 - 0.456) / 0.224, abs=1e-5)


@pytest.mark.parametrize("step", ["do_resize", "do_rescale", "do_normalize"])
def test_a_processor_that_leaves_out_a_step_is_refused(step):
    with pytest.raises(ValueError, match="must resize, rescale and normalize"):
        ImageTransform(ClarityImageProcessor(**{step: False}))


# Teacher


def teacher_row(views):
    logits = np.arange(views, dtype=np.float64)[:, None] + np.array([0.25, 0.5, 0.75])
    return {"image": block(64, 64)[0], "labels": LABELS, "teacher_logits": logits}


def test_teacher_logits_are_those_of_the_view_that_was_drawn(processor):
    row = teacher_row(2)
    plain = ImageTransform(processor)(row)
    assert plain["teacher_logits"].tolist() == [0.25, 0.5, 0.75]
    assert plain["teacher_logits"].dtype == torch.float32
    torch.manual_seed(0)
    transform = ImageTransform(processor, augment="flip")
    seen = set()
    for _ in range(12):
        out = transform(row)
        moved = not torch.equal(out["pixel_values"], plain["pixel_values"])
        assert out["teacher_logits"].tolist() == [0.25 + moved, 0.5 + moved, 0.75 + moved]
        seen.add(moved)
    assert seen == {True, False}


def test_a_crop_has_the_teacher_logits_of_its_side(processor):
    """The left half of the image is bright: a crop whose right is bright is of the mirror image."""
    image = np.zeros((64, 64), np.uint8)
    image[:, :32] = 255
    transform = ImageTransform(processor, augment="full")
    torch.manual_seed(0)
    seen = set()
    for _ in range(12):
        out = transform(teacher_row(2) | {"image": image})
        left, right = (half.mean() for half in out["pixel_values"].chunk(2, dim=-1))
        assert out["teacher_logits"].tolist() == [0.25 + (right > left), 0.5 + (right > left), 0.75 + (right > left)]
        seen.add(bool(right > left))
    assert seen == {True, False}


def test_one_view_of_a_teacher_is_that_of_the_unmirrored_image(processor):
    assert ImageTransform(processor)(teacher_row(1))["teacher_logits"].tolist() == [0.25, 0.5, 0.75]
    assert "teacher_logits" not in ImageTransform(processor)(teacher_row(1) | {"teacher_logits": None})


def test_teacher_logits_that_the_views_do_not_have_are_refused(processor):
    for augment in ("flip", "full"):
        with pytest.raises(ValueError, match=r"`teacher_logits` must be \(V, F\) with V = 2 .* got \(1, 3\)"):
            ImageTransform(processor, augment=augment)(teacher_row(1))
    for logits in (np.zeros(3), np.zeros((3, 3)), np.zeros((0, 3))):
        with pytest.raises(ValueError, match=r"`teacher_logits` must be \(V, F\) with V = 1 or 2"):
            ImageTransform(processor)(teacher_row(1) | {"teacher_logits": logits})


# Refusals


@pytest.mark.parametrize("augment", [True, False, "crop", None])
def test_an_unknown_augmentation_is_refused(processor, augment):
    with pytest.raises(ValueError, match=r"`augment` must be one of \['full', 'flip', 'none'\], got"):
        ImageTransform(processor, augment=augment)


def test_an_unknown_prior_is_refused(processor):
    with pytest.raises(ValueError, match=r"`prior` must be one of \['auto', 'masks', 'atlas', 'none'\], got 'mask'"):
        ImageTransform(processor, prior="mask")


@pytest.mark.parametrize("crop_scale", [0, -0.1, 1.1])
def test_crop_scale_out_of_range_is_refused(processor, crop_scale):
    with pytest.raises(ValueError, match="crop_scale"):
        ImageTransform(processor, augment="full", crop_scale=crop_scale)


def test_a_missing_file_is_named(processor, tmp_path):
    row = {"image": {"path": str(tmp_path / "gone.png"), "bytes": None}, "labels": LABELS}
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        ImageTransform(processor)(row)


def test_a_corrupt_image_is_named_also_when_its_bytes_are_in_the_row(processor, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(png(noise(64, 64))[:1000])
    transform = ImageTransform(processor)
    for cell in (str(path), {"path": str(path), "bytes": None}, {"path": str(path), "bytes": path.read_bytes()}):
        with pytest.raises(ValueError, match=r"broken\.png"):
            transform({"image": cell, "labels": LABELS})


def test_a_corrupt_mask_is_named(processor, tmp_path):
    path = tmp_path / "broken-mask.png"
    path.write_bytes(png(noise(64, 64))[:1000])
    row = {"image": noise(64, 64), "labels": LABELS, "thorax_mask": {"path": str(path), "bytes": None}}
    with pytest.raises(OSError, match="broken-mask"):
        ImageTransform(processor)(row)


def test_undecoded_cells_read_as_the_image(tmp_path):
    image = noise(64, 48)
    path = tmp_path / "image.png"
    path.write_bytes(png(image))
    for cell in ({"path": str(path), "bytes": None}, {"path": None, "bytes": png(image)}, {"bytes": png(image)}):
        np.testing.assert_array_equal(read_source(cell), image)


def test_a_mask_in_bytes_reads_as_the_array(processor):
    image, mask = block(64, 64)
    transform = ImageTransform(processor)
    cells = [mask, {"path": None, "bytes": png(mask.astype(np.uint8) * 255)}, Image.fromarray(mask)]
    priors = [transform({"image": image, "labels": LABELS, "thorax_mask": cell})["anatomical_prior"] for cell in cells]
    assert torch.equal(priors[0], priors[1])
    assert torch.equal(priors[0], priors[2])


def test_a_transformed_dataset_has_the_rows_of_the_one_below(processor):
    rows = [{"image": noise(64, 64), "labels": LABELS}, {"image": 255 - noise(64, 64), "labels": 1 - LABELS}]
    dataset = TransformedDataset(rows, ImageTransform(processor))
    assert len(dataset) == 2
    assert dataset[1]["labels"][0] == 0
    expected = ImageTransform(processor)(rows[1])["pixel_values"]
    assert torch.equal(dataset[1]["pixel_values"], expected)


@pytest.mark.parametrize("augment", ["flip", "full"])
def test_the_randomness_of_a_row_is_of_seed_epoch_and_index(processor, augment):
    rows = [{"image": noise(64, 64), "labels": LABELS}] * 12
    dataset, again = (TransformedDataset(rows, ImageTransform(processor, augment), seed=3) for _ in range(2))
    state = torch.random.get_rng_state()
    first = [dataset[i]["pixel_values"] for i in range(12)]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    for i in (7, 2):
        assert torch.equal(again[i]["pixel_values"], first[i])
    assert any(not torch.equal(first[0], other) for other in first[1:])
    dataset.set_epoch(1)
    assert any(not torch.equal(dataset[i]["pixel_values"], first[i]) for i in range(12))
