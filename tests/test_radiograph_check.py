# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The check that an image is a frontal chest radiograph: what passes, what does not and why, and no chance in it."""

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

from clarity_hf import radiograph_check
from clarity_hf.data.named_splits import CHECKPOINT_VALIDATION, named_split
from clarity_hf.data.phantoms import draw_phantom
from clarity_hf.image_reading import read_image
from clarity_hf.radiograph_check import (
    KINDS,
    MODES,
    NotARadiographWarning,
    check_mode,
    check_radiograph,
    prepare,
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
    assert passing(image[:, ::-1] for image in phantoms) >= 19  # mirrored films are not told
    assert passing(image // 2 + 60 for image in phantoms) >= 19
    assert passing(np.kron(image, np.ones((3, 3), np.uint8)) for image in phantoms) >= 19


def test_exposure_that_only_stretches_the_grey_changes_nothing(phantoms):
    film = phantoms[0].astype(np.float32)
    stretched = check_radiograph(film * 0.25 + 40)
    assert stretched.probability == pytest.approx(check_radiograph(film).probability, abs=1e-5)


def test_real_films_of_patients_that_did_not_fit_pass(nih_folder):
    held_back = named_split(CHECKPOINT_VALIDATION)
    paths = [path for path in sorted((nih_folder / "images").glob("*.png")) if path.name[:8] in held_back]
    refused = [path.name for path in paths if not check_radiograph(read_image(path)).passed]
    assert len(paths) > 300
    assert len(refused) <= 0.02 * len(paths), refused


def test_real_films_turned_or_inverted_do_not_pass(nih_folder):
    held_back = named_split(CHECKPOINT_VALIDATION)
    paths = [path for path in sorted((nih_folder / "images").glob("*.png")) if path.name[:8] in held_back][::5]
    films = [read_image(path) for path in paths]
    for change in (np.rot90, lambda film: np.rot90(film, 2), lambda film: np.rot90(film, 3), lambda film: 255 - film):
        assert passing(map(change, films)) <= 0.05 * len(films)


# What does not


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_phantoms_that_are_turned_are_told_as_turned(phantoms, quarters):
    verdicts = [check_radiograph(np.rot90(image, quarters)) for image in phantoms]
    assert sum(verdict.passed for verdict in verdicts) <= 1
    assert sum(verdict.kind == "turned" for verdict in verdicts) >= 17
    assert "on its side" in KINDS["turned"]


def test_phantoms_with_dark_bones_are_told_as_inverted(phantoms):
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
def test_any_size_that_a_film_may_have_gets_a_verdict(shape):
    verdict = check_radiograph(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    assert 0 <= verdict.probability <= 1
    assert not verdict.passed


# The verdict


def test_the_verdict_follows_the_threshold_and_names_the_likeliest_other_kind():
    assert verdict_of([0.5, 0.1, 0.2, 0.1, 0.05, 0.05], 0.5).passed
    refused = verdict_of([0.49, 0.1, 0.2, 0.11, 0.05, 0.05], 0.5)
    assert (refused.passed, refused.kind) == (False, "turned")
    assert refused.told("a.png") == (
        "`a.png` must be a whole frontal chest radiograph, upright, bones bright, got what looks like a film that "
        "lies on its side, stands on its head or is strongly tilted (probability of the former 0.490, from 0.5 on it "
        "passes). Check the film, or pass radiograph_check='off'."
    )


def test_the_same_film_gives_the_same_verdict_with_more_threads_and_from_any_memory(phantoms):
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


def test_a_film_is_centred_with_its_proportions_and_zero_around_it():
    seen = prepare(np.arange(128 * 64, dtype=np.float32).reshape(128, 64))
    assert seen.shape == (1, 64, 64)
    assert seen[0, :, :16].abs().max() == seen[0, :, 48:].abs().max() == 0
    content = seen[0, :, 16:48]
    assert content.mean().item() == pytest.approx(0, abs=1e-5)
    assert content.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    # A cell is the mean of 2 × 2 pixels; rows are 64 apart, columns 1.
    across, down = (content[0, 1] - content[0, 0]).item(), (content[1, 0] - content[0, 0]).item()
    assert across / down == pytest.approx(2 / 128, rel=1e-3)


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


def test_the_weights_are_read_once_and_not_before_the_first_film():
    radiograph_check._fitted.cache_clear()
    check_mode("refuse")
    assert radiograph_check._fitted.cache_info().misses == 0
    check_radiograph(np.eye(20))
    check_radiograph(np.eye(30))
    assert radiograph_check._fitted.cache_info().misses == 1


def test_a_copy_of_the_file_without_the_weights_can_be_imported(tmp_path):
    copied = tmp_path / "radiograph_check_copy.py"
    shutil.copyfile(radiograph_check.__file__, copied)
    spec = importlib.util.spec_from_file_location(copied.stem, copied)
    module = importlib.util.module_from_spec(spec)
    sys.modules[copied.stem] = module
    try:
        spec.loader.exec_module(module)
        assert not module.is_available()
    finally:
        del sys.modules[copied.stem]


def test_without_weights_only_off_is_a_mode_and_the_file_is_named(monkeypatch, tmp_path):
    radiograph_check._fitted.cache_clear()
    monkeypatch.setattr(radiograph_check, "WEIGHTS", tmp_path / "radiograph_check.safetensors")
    assert not radiograph_check.is_available()
    check_mode("off")
    with pytest.raises(ValueError, match=r"must be 'off' where radiograph_check\.safetensors is not beside the code"):
        check_mode("warn")
    with pytest.raises(FileNotFoundError, match=r"`radiograph_check\.safetensors` must lie beside"):
        check_radiograph(np.eye(20))


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="`radiograph_check` must be one of warn, refuse, off, got 'on'"):
        check_mode("on")


# The page


def test_the_python_of_its_page_runs_and_says_what_stands_beside_it():
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


def test_the_page_tells_of_every_kind_and_mode():
    page = (Path(__file__).parents[1] / "docs" / "radiograph-check.md").read_text(encoding="utf-8")
    assert all(f"`{kind}`" in page for kind in KINDS)
    assert all(f'`"{mode}"`' in page for mode in MODES)
