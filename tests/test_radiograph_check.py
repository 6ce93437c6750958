# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The check that an image is a frontal chest radiograph: what passes, what does not and why, and no chance in it."""

import hashlib
import importlib.util
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open
from safetensors.torch import save_file

from clarity_hf import radiograph_check
from clarity_hf.data.named_splits import CHECKPOINT_VALIDATION, named_split
from clarity_hf.image_reading import read_image
from clarity_hf.phantoms import draw_phantom
from clarity_hf.radiograph_check import (
    KINDS,
    MODES,
    NotARadiographWarning,
    _area_means,
    check_mode,
    check_radiograph,
    content_of,
    is_badly_exposed,
    prepare,
    read_weights,
    verdict_of,
)

SEEDS = range(20)  # none that fitted


@pytest.fixture(scope="module")
def phantoms():
    return [draw_phantom(seed, size=(192, 160) if seed % 2 else 192).image for seed in SEEDS]


def page_of_text(seed):
    image = Image.new("L", (300, 400), 255)
    draw, rng = ImageDraw.Draw(image), np.random.default_rng(seed)
    for y in range(10, 390, 14):
        words = "".join(rng.choice(list("the quick brown fox 0123"), 50))
        draw.text((12, y), words, fill=0, font=ImageFont.load_default(11))
    return np.asarray(image)


def passing(images):
    return sum(check_radiograph(np.ascontiguousarray(image)).passed for image in images)


# What passes


def test_phantoms_pass_whatever_their_size_exposure_and_side(phantoms):
    assert passing(phantoms) >= 19
    assert passing(image[:, ::-1] for image in phantoms) >= 19  # mirrored images pass
    assert passing(image // 2 + 60 for image in phantoms) >= 19
    assert passing(np.kron(image, np.ones((3, 3), np.uint8)) for image in phantoms) >= 19


def test_exposure_that_only_stretches_the_grey_changes_nothing(phantoms):
    image = phantoms[0].astype(np.float32)
    stretched = check_radiograph(image * 0.25 + 40)
    assert stretched.probability == pytest.approx(check_radiograph(image).probability, abs=1e-5)


def padded(image, ratio, grey):
    """On a canvas whose width is `ratio` times its height."""
    height, width = image.shape
    down, across = max(0, round(width / ratio) - height), max(0, round(height * ratio) - width)
    return np.pad(image, ((down // 2, down - down // 2), (across // 2, across - across // 2)), constant_values=grey)


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("ratio", [16 / 9, 3 / 2, 2 / 3])
def test_phantoms_pass_on_canvases_of_any_proportions_and_grey(phantoms, ratio, grey):
    assert passing(padded(image, ratio, grey) for image in phantoms) >= 19


def test_phantoms_pass_with_a_tenth_off_each_side(phantoms):
    cut = [image[image.shape[0] // 10 : -image.shape[0] // 10, 16:-16] for image in phantoms]
    assert passing(cut) >= 19


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("ratio", [16 / 9, 2 / 3])
def test_real_images_on_canvases_pass(nih_folder, ratio, grey):
    images = [read_image(path) for path in held_back_images(nih_folder)[::5]]
    assert passing(padded(image, ratio, grey) for image in images) >= 0.98 * len(images) - 1


def held_back_images(nih_folder):
    held_back = named_split(CHECKPOINT_VALIDATION)
    return [path for path in sorted((nih_folder / "images").glob("*.png")) if path.name[:8] in held_back]


def test_real_images_of_patients_that_did_not_fit_pass(nih_folder):
    paths = held_back_images(nih_folder)
    refused = [path.name for path in paths if not check_radiograph(read_image(path)).passed]
    assert len(paths) > 300
    assert len(refused) <= 0.02 * len(paths), refused


def test_real_images_turned_or_inverted_do_not_pass(nih_folder):
    images = [read_image(path) for path in held_back_images(nih_folder)[::5]]
    for change in (
        np.rot90,
        lambda image: np.rot90(image, 2),
        lambda image: np.rot90(image, 3),
        lambda image: 255 - image,
    ):
        assert passing(map(change, images)) <= 0.05 * len(images)


# What does not


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotated_phantoms_are_recognised_as_turned(phantoms, quarters):
    verdicts = [check_radiograph(np.rot90(image, quarters)) for image in phantoms]
    assert sum(verdict.passed for verdict in verdicts) <= 1
    assert sum(verdict.kind == "turned" for verdict in verdicts) >= 17
    assert "rotated" in KINDS["turned"]


def test_phantoms_with_dark_bones_are_recognised_as_inverted(phantoms):
    verdicts = [check_radiograph(255 - image) for image in phantoms]
    assert sum(verdict.passed for verdict in verdicts) <= 1
    assert sum(verdict.kind == "inverted" for verdict in verdicts) >= 17


def test_quarters_of_phantoms_do_not_pass(phantoms):
    quarters = [image[top : top + 96, :80] for image in phantoms for top in (0, 96)]
    assert passing(quarters) <= 0.1 * len(quarters)


def test_noise_pages_and_gradients_do_not_pass():
    rng = np.random.default_rng(5)
    noise = [rng.integers(0, 256, (128, 100 + 8 * seed)).astype(np.uint8) for seed in SEEDS]
    pages = [page_of_text(seed) for seed in SEEDS]
    gradients = [np.add.outer(np.arange(120.0), slope * np.arange(100.0)) % 256 for slope in np.linspace(0, 1, 20)]
    assert [passing(noise), passing(pages), passing(gradients)] == [0, 0, 0]
    assert {check_radiograph(page).kind for page in pages} == {"picture"}


@pytest.mark.parametrize("shape", [(16, 4000), (4000, 16), (16, 16)])
def test_any_size_that_an_image_may_have_gets_a_verdict(shape):
    verdict = check_radiograph(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    assert 0 <= verdict.probability <= 1
    assert not verdict.passed


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda image: image / 16, 0),  # 12 bits that were taken for 16
        (lambda image: image / 300, 0),
        (lambda image: image / 16 + 235, 0),
        (lambda image: image / 40 + 100, 0),
        (lambda image: (image * 3).clip(0, 255), 0),
        (lambda image: (image * 20).clip(0, 255), 0),
        (lambda image: (image + 150).clip(0, 255), 0.1),
        (lambda image: np.where(image > np.quantile(image, 0.7), 255, image / 16), 0),
    ],
)
def test_what_is_black_white_or_without_contrast_does_not_pass(phantoms, change, most):
    changed = [change(image.astype(np.float32)) for image in phantoms]
    assert passing(changed) <= most * len(changed)


def test_a_black_image_is_recognised_by_its_exposure(phantoms):
    verdict = check_radiograph(phantoms[0] / 16)
    assert (verdict.passed, verdict.kind, verdict.probability) == (False, "exposure", 0)
    assert "it looks like an image that is nearly black, nearly white or without contrast" in verdict.message()


def test_real_images_are_well_exposed_and_black_and_saturated_ones_not(nih_folder):
    images = [read_image(path) for path in sorted((nih_folder / "images").glob("*.png"))[::5]]
    images = [image[content_of(image)] for image in images]
    assert not [image for image in images if is_badly_exposed(image)]
    assert all(is_badly_exposed(image / 16) for image in images)
    assert sum(is_badly_exposed((image * 3.0).clip(0, 255)) for image in images) > 0.9 * len(images)


# The verdict


def test_the_verdict_follows_the_threshold_and_names_the_likeliest_other_kind():
    assert verdict_of([0.5, 0.1, 0.2, 0.1, 0.05, 0.05], 0.5).passed
    refused = verdict_of([0.49, 0.1, 0.2, 0.11, 0.05, 0.05], 0.5)
    assert (refused.passed, refused.kind) == (False, "turned")
    assert refused.message("a.png") == (
        "`a.png` does not look like a frontal chest radiograph (p = 0.490, threshold 0.5): it looks like a radiograph "
        "that is rotated, upside down or strongly tilted. Check the image, or pass radiograph_check='off'."
    )


def test_the_same_image_gives_the_same_verdict_with_more_threads_and_from_any_memory(phantoms):
    image = phantoms[1]
    verdict = check_radiograph(image)
    assert check_radiograph(np.asfortranarray(image)) == verdict
    assert check_radiograph(image[::-1][::-1]) == verdict
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert check_radiograph(image).probability == pytest.approx(verdict.probability, abs=1e-6)
    finally:
        torch.set_num_threads(threads)


def test_the_generator_of_random_numbers_is_left_alone(phantoms):
    before = torch.get_rng_state()
    check_radiograph(phantoms[0])
    assert torch.equal(torch.get_rng_state(), before)


# What the net sees


def test_an_image_is_centred_with_its_proportions_and_zero_around_it():
    rng = np.random.default_rng(0)
    image = np.arange(128 * 64, dtype=np.float32).reshape(128, 64)
    image += 20_000 * rng.integers(0, 2, image.shape)  # no row is even, and none is margin
    seen = prepare(image)
    assert seen.shape == (1, 64, 64)
    assert np.abs(seen[0, :, :16]).max() == np.abs(seen[0, :, 48:]).max() == 0
    content = seen[0, :, 16:48]
    assert content.mean() == pytest.approx(0, abs=1e-5)
    assert content.std() == pytest.approx(1, abs=1e-5)
    cells = image.reshape(64, 2, 32, 2).mean((1, 3))  # a cell is the mean of 2 × 2 pixels
    np.testing.assert_allclose(content, (cells - cells.mean()) / cells.std(), atol=1e-4)


@pytest.mark.parametrize("shape", [(300, 257), (64, 64), (63, 200), (1, 5)])
def test_reducing_averages_areas_as_torch_does(shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    size = [max(1, round(64 * side / max(shape))) for side in shape]
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], size=size, mode="area")[0, 0]
    reduced = _area_means(_area_means(image, size[0]).T, size[1]).T
    np.testing.assert_allclose(reduced, expected.numpy(), atol=1e-5)


def test_margins_are_cut_off_whatever_their_grey_noise_and_letters():
    rng = np.random.default_rng(0)
    content = rng.integers(0, 256, (90, 70)).astype(np.uint8)
    for grey in (0, 128, 255):
        framed = np.pad(content, ((12, 7), (40, 33)), constant_values=grey)
        assert content_of(framed) == (slice(12, 102), slice(40, 110))
        np.testing.assert_array_equal(prepare(framed), prepare(content))
        noisy = (framed.astype(int) + rng.integers(-3, 4, framed.shape)).clip(0, 255)
        assert content_of(noisy) == (slice(12, 102), slice(40, 110))
        framed[2:5, 10:14] = 255 - grey  # 3 of 109 rows: fewer than 5 %
        assert content_of(framed) == (slice(12, 102), slice(40, 110))
    two = np.pad(np.pad(content, ((0, 0), (30, 30))), 20, constant_values=255)  # a black slide on a white page
    assert content_of(two) == (slice(20, 110), slice(50, 120))


def test_margins_of_a_large_image_are_found_to_the_step_at_which_it_is_looked_at():
    content = np.random.default_rng(0).integers(0, 256, (1200, 1000))
    rows, columns = content_of(np.pad(content, ((0, 0), (500, 633))))
    assert (rows.start, rows.stop) == (0, 1200)
    assert 500 <= columns.start < 504
    assert 1500 <= columns.stop < 1504


def test_what_is_even_inside_stays_and_an_image_without_content_is_whole():
    image = np.random.default_rng(0).integers(0, 256, (60, 60))
    image[20:40] = 0
    assert content_of(image) == (slice(0, 60), slice(0, 60))
    for even in (np.zeros((30, 50)), np.full((30, 50), 7.0), np.zeros((16, 4000))):
        assert content_of(even) == (slice(0, even.shape[0]), slice(0, even.shape[1]))
    assert content_of(image.astype(np.float32) * 0.01 + 9) == content_of(image)


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match=r"`pixels` must be \(H, W\), got shape \(3, 8, 8\)"):
        check_radiograph(np.zeros((3, 8, 8)))


# The weights


def test_the_weights_are_few_and_finite_and_name_the_kinds():
    with safe_open(radiograph_check.WEIGHTS, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert file.metadata()["kinds"].split(",") == list(KINDS)
        assert 0 < float(file.metadata()["threshold"]) < 1
    assert sum(tensor.numel() for tensor in tensors.values()) < 60_000
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert radiograph_check.WEIGHTS.stat().st_size < 300_000


@pytest.fixture
def unread():
    """The weights as if no image had been checked before, and after the test again."""
    radiograph_check._fitted.cache_clear()
    yield
    radiograph_check._fitted.cache_clear()


def test_the_weights_are_those_whose_hash_stands_in_the_code():
    assert hashlib.sha256(radiograph_check.WEIGHTS.read_bytes()).hexdigest() == radiograph_check.SHA256


def test_the_weights_are_read_once_and_not_before_a_check_is_asked_for(unread):
    check_mode("off")
    assert radiograph_check._fitted.cache_info().misses == 0
    check_mode("refuse")
    check_radiograph(np.eye(20))
    check_radiograph(np.eye(30))
    assert radiograph_check._fitted.cache_info().misses == 1


def broken(how):
    data = bytearray(radiograph_check.WEIGHTS.read_bytes())
    if how == "truncated":
        return bytes(data[: len(data) // 2])
    if how == "empty":
        return b""
    data[-1] ^= 1
    return bytes(data)


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped"])
def test_weights_of_another_hash_are_an_error_that_says_what_to_do(unread, monkeypatch, tmp_path, how):
    path = tmp_path / "radiograph_check.safetensors"
    path.write_bytes(broken(how))
    monkeypatch.setattr(radiograph_check, "WEIGHTS", path)
    words = (
        r"^`radiograph_check\.safetensors` must be the file that clarity_hf was packaged with, got SHA-256 "
        r"[0-9a-f]{8}…, not [0-9a-f]{8}…\. Reinstall clarity_hf\.$"
    )
    for check in (lambda: check_radiograph(np.eye(20)), lambda: check_mode("warn")):
        with pytest.raises(OSError, match=words):
            check()
    check_mode("off")


def test_weights_that_are_missing_from_the_package_are_an_error_and_no_silence(unread, monkeypatch, tmp_path):
    monkeypatch.setattr(radiograph_check, "WEIGHTS", tmp_path / "radiograph_check.safetensors")
    assert radiograph_check.is_available()
    check_mode("off")
    for check in (lambda: check_radiograph(np.eye(20)), lambda: check_mode("warn")):
        with pytest.raises(FileNotFoundError, match=r"got none beside radiograph_check\.py\. Reinstall clarity_hf\.$"):
            check()


def test_a_file_with_other_weights_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "other.safetensors"
    for tensors, metadata in (({"a": torch.zeros(1)}, None), ({"a": torch.zeros(1)}, {"b": "c"})):
        save_file(tensors, path, metadata)
        with pytest.raises(OSError, match=r"`path` must be weights of this check, got other\.safetensors"):
            read_weights(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(OSError, match=r"`path` must be weights of this check, got other\.safetensors"):
        read_weights(path)


def test_a_copy_of_the_file_without_the_weights_can_be_imported_and_knows_only_off(tmp_path):
    copied = tmp_path / "radiograph_check_copy.py"
    shutil.copyfile(radiograph_check.__file__, copied)
    spec = importlib.util.spec_from_file_location(copied.stem, copied)
    module = importlib.util.module_from_spec(spec)
    sys.modules[copied.stem] = module
    try:
        spec.loader.exec_module(module)
        assert not module.is_available()
        module.check_mode("off")
        words = r"must be 'off' without radiograph_check\.safetensors next to the code"
        with pytest.raises(ValueError, match=words):
            module.check_mode("warn")
        with pytest.raises(FileNotFoundError, match="Run pip install clarity_hf"):
            module.check_radiograph(np.eye(20))
    finally:
        del sys.modules[copied.stem]


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="`radiograph_check` must be one of warn, refuse, off, got 'on'"):
        check_mode("on")


# The page


def test_the_python_of_its_page_runs_and_gives_the_commented_results():
    page = (Path(__file__).parents[1] / "docs" / "radiograph-check.md").read_text(encoding="utf-8")
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotARadiographWarning)
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(compile(block, "docs/radiograph-check.md", "exec"), names)
    verdict = names["verdict"]
    assert (verdict.passed, verdict.kind) == (False, "turned")
    assert verdict.reason in page
    assert len(names["findings"]) == 14


def test_the_page_names_every_kind_and_mode():
    page = (Path(__file__).parents[1] / "docs" / "radiograph-check.md").read_text(encoding="utf-8")
    assert all(f"`{kind}`" in page for kind in (*KINDS, "exposure"))
    assert all(f'`"{mode}"`' in page for mode in MODES)
