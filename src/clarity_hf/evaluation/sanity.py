# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Whether maps can be trusted: deletion and insertion, and randomised weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import spearmanr
from torchvision.transforms.v2 import functional as tvF

from clarity_hf.boxes import Letterbox, map_over_image
from clarity_hf.deprecated import old_names
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from .localizers import Localizer, ModelLocalizer

BLUR = 5 / 224
"""Standard deviation of the blur from which insertion starts, a share of the input's longer side (RISE: 5 of 224)."""

SSIM_WINDOW = 7
"""Side, in cells, of the windows in which two maps are compared; a smaller map is one window."""

Score = Callable[[torch.Tensor], torch.Tensor]
"""Prepared images `(n, C, H, W)` → scores `(n, F)`, such as `lambda x: model(x).scores`."""


@dataclass(frozen=True)
class PerturbationCurves:
    """Deletion and insertion over n images of one finding.

    Attributes:
        deletion: `(steps + 1,)` mean score after each step, from the whole image to none of it.
        insertion: `(steps + 1,)` from the blurred image to the whole image.
        deletion_areas: `(n,)` area under each image's deletion curve over the share of its pixels; low is good.
        insertion_areas: `(n,)` likewise of insertion; high is good.
        blank: Images whose map was zero: their pixels went in random order.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    deletion_areas: np.ndarray
    insertion_areas: np.ndarray
    blank: int

    @property
    def images(self) -> int:
        """Number of images n."""
        return len(self.deletion_areas)


def deletion_insertion(
    images: Iterable[tuple[np.ndarray, Sequence[int]]],
    localizer: Localizer,
    score: Score,
    image_processor: ClarityImageProcessor,
    steps: int = 20,
    batch_size: int = 32,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[int, PerturbationCurves]:
    """Remove, and insert, the pixels of images in the order of their maps, and record the score.

    The map may come from another method than the score: a map must beat a random map on the same model.

    Args:
        images: Tuples of pixels `(H, W)` in [0, 255], as [`read_image`] returns them, and the findings to score, such
            as the present ones; read one at a time.
        localizer: Gives the maps.
        score: Scores of prepared images.
        image_processor: Prepares images for `score`.
        steps: Number of steps in which all pixels are removed.
        batch_size: Altered images per call of `score`.
        seed: Seed of the order among equal values of a map.
        device: Where `score` runs.

    Returns:
        [`PerturbationCurves`] by finding.

    Source: RISE, Petsiuk et al., BMVC 2018, arXiv 1806.07421.
    """
    curves: dict[int, list[np.ndarray]] = {}
    blank: dict[int, int] = {}
    for image, findings in images:
        pixel_values = image_processor([image], return_tensors="pt")["pixel_values"][0].to(device)
        letterbox = image_processor.letterbox((image.shape[0], image.shape[1]))
        output = localizer([image], [list(findings)])
        for finding in findings:
            order = map_over_image(output.maps[0, finding], output.letterboxes[0], letterbox.content)
            states = perturbed_images(pixel_values, order, letterbox, steps, seed)
            with torch.inference_mode():
                scores = torch.cat([score(part)[:, finding] for part in states.split(batch_size)])
            pair = scores.double().cpu().numpy().reshape(2, steps + 1)
            curves.setdefault(finding, []).append(pair)
            blank[finding] = blank.get(finding, 0) + int(order.max() <= 0)
    return {finding: _curves(np.stack(pairs), blank[finding]) for finding, pairs in sorted(curves.items())}


def _curves(pairs: np.ndarray, blank: int) -> PerturbationCurves:
    """Curves of scores `(n, 2, steps + 1)` of deletion and insertion."""
    areas = np.trapezoid(pairs, dx=1 / (pairs.shape[2] - 1), axis=2)
    deletion, insertion = pairs.mean(axis=0)
    return PerturbationCurves(deletion, insertion, areas[:, 0], areas[:, 1], blank)


def perturbed_images(
    pixel_values: torch.Tensor, order: np.ndarray, letterbox: Letterbox, steps: int = 20, seed: int = 0
) -> torch.Tensor:
    """The states of an image as its pixels are removed, then as they are inserted.

    A removed pixel takes the image's mean grey level; insertion starts from the blurred image, because a sharp pixel
    on a uniform background is evidence by itself. The padding does not change. Equal values of the map are taken in
    random order.

    Args:
        pixel_values: `(C, H, W)` of one image, prepared.
        order: `(H', W')` of the letterbox's content: pixels are taken from the largest value to the smallest.
        letterbox: Position of the image in `pixel_values`.
        steps: Number of steps in which all pixels are removed, at least 1.
        seed: Seed of the order among equal values.

    Returns:
        `(2 · (steps + 1), C, H, W)`: deletion, starting from the image, then insertion, from the blurred image.

    Raises:
        ValueError: `order` is not of the content's size, or `steps` is under 1.
    """
    if order.shape != letterbox.content:
        raise ValueError(f"`order` must be {letterbox.content}, got {order.shape}. Resize the map to the content.")
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1, got {steps}. Usual is 20.")
    ties = np.random.default_rng(seed).random(order.size)
    rank = np.empty(order.size, dtype=np.int64)
    rank[np.lexsort((ties, -order.ravel()))] = np.arange(order.size)
    ranks = torch.from_numpy(rank.reshape(order.shape)).to(pixel_values.device)
    counts = torch.from_numpy(np.round(np.linspace(0, order.size, steps + 1)).astype(np.int64))
    gone = ranks < counts.to(ranks.device)[:, None, None, None]  # (steps + 1, 1, H', W')
    rows = slice(letterbox.top, letterbox.top + order.shape[0])
    columns = slice(letterbox.left, letterbox.left + order.shape[1])
    image = pixel_values[..., rows, columns]
    mean = image.mean(dim=(-2, -1), keepdim=True)
    states = pixel_values.repeat(2 * (steps + 1), 1, 1, 1)
    blurred = _blurred(image, BLUR * max(letterbox.input))
    states[..., rows, columns] = torch.cat((torch.where(gone, mean, image), torch.where(gone, image, blurred)))
    return states


def _blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    # Three standard deviations on each side, but no more than a reflected border provides.
    side = min(1 + 2 * int(np.ceil(3 * sigma)), 2 * min(image.shape[-2:]) - 1)
    return tvF.gaussian_blur(image, [side, side], [sigma, sigma])


@dataclass(frozen=True)
class RandomisedStage:
    """Similarity of maps to the trained model's after some parts of the model are given random weights.

    Attributes:
        part: What was randomised last; the parts before it are random too.
        rank_correlation: Mean over maps of Spearman's correlation of their cells with those of the trained model's
            map, in [−1, 1]; for a map that depends on the weights it falls towards 0.
        similarity: Mean structural similarity (SSIM) of the two, each divided by its peak, in [−1, 1].
        maps: Number of maps in both means.
        undefined: Number of maps left out because one of the two is constant and has no order.
    """

    part: str
    rank_correlation: float
    similarity: float
    maps: int
    undefined: int


def randomised_weights(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    images: Sequence[np.ndarray],
    wanted: Sequence[Sequence[int]] | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> list[RandomisedStage]:
    """Give the model random weights part by part, from the heads down to the embeddings, and compare its maps.

    A map that hardly changes shows the image's edges or the architecture, not what the model learned.

    Args:
        model: In evaluation mode; it is not changed.
        image_processor: The one it was trained with.
        images: Pixels `(H, W)` in [0, 255], of any sizes; a few dozen are enough.
        wanted: Per image the findings whose maps are compared, such as the present ones; None for all.
        batch_size: Images per forward pass.
        seed: Seed of the random weights.

    Returns:
        One [`RandomisedStage`] per part: the heads, the final LayerNorm, each block from the last to the first, the
        embeddings.

    Source: the cascading randomisation of Adebayo et al., NeurIPS 2018, arXiv 1810.03292.
    """
    changed = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # on the CPU: the same weights wherever the model is
        fresh = type(model)(copy.deepcopy(model.config)).state_dict()
    chosen = [range(model.config.num_labels)] * len(images) if wanted is None else wanted
    trained = _image_maps(model, image_processor, images, chosen, batch_size)
    stages = []
    for part, prefixes in _parts(model):
        state = {name: value for name, value in fresh.items() if name.startswith(prefixes)}
        changed.load_state_dict(state, strict=False)  # the other parts stay
        stages.append(_compare(part, trained, _image_maps(changed, image_processor, images, chosen, batch_size)))
    return stages


def _parts(model: ClarityForMultiLabelLocalization) -> list[tuple[str, tuple[str, ...]]]:
    """Names of the parts of the model from the heads down, and prefixes of their weights' names."""
    return [
        ("heads", ("class_token_head.", "segment_cam.", "ranking_pooling.")),
        ("final LayerNorm", ("clarity.layernorm.",)),
        *((f"block {i + 1}", (f"clarity.layers.{i}.",)) for i in reversed(range(model.config.num_hidden_layers))),
        ("embeddings", ("clarity.embeddings.",)),
    ]


def _image_maps(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    images: Sequence[np.ndarray],
    wanted: Sequence[Sequence[int]],
    batch_size: int,
) -> list[np.ndarray]:
    """Maps `(h, w)` over their images, one per wanted (image, finding)."""
    localizer, found = ModelLocalizer(model, image_processor), list[np.ndarray]()
    for start in range(0, len(images), batch_size):
        output = localizer(images[start : start + batch_size])
        for maps, box, findings in zip(output.maps, output.letterboxes, wanted[start:], strict=False):
            found.extend(map_over_image(maps[list(findings)], box, (maps.shape[-2], maps.shape[-1])))
    return found


def _compare(part: str, trained: Sequence[np.ndarray], changed: Sequence[np.ndarray]) -> RandomisedStage:
    pairs = [(one, other) for one, other in zip(trained, changed, strict=True) if np.ptp(one) > 0 < np.ptp(other)]
    return RandomisedStage(
        part=part,
        rank_correlation=float(np.mean([rank_correlation(*pair) for pair in pairs])) if pairs else float("nan"),
        similarity=float(np.mean([structural_similarity(*pair) for pair in pairs])) if pairs else float("nan"),
        maps=len(pairs),
        undefined=len(trained) - len(pairs),
    )


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two maps `(h, w)` that are not constant, in [−1, 1]."""
    return float(spearmanr(one, other, axis=None).statistic)


def structural_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Mean SSIM of two maps `(h, w)` ≥ 0, each divided by its peak, in [−1, 1]; 1 for equal maps.

    The mean is over windows inside the map, `SSIM_WINDOW` cells wide, or the largest odd number that fits.

    Source: Wang et al., IEEE TIP 13 (2004) 600–612, with K1 = 0.01 and K2 = 0.03, even windows and sample covariances.
    """
    side = min(SSIM_WINDOW, *one.shape)
    side -= 1 - side % 2
    x, y = (np.asarray(part, dtype=np.float64) / (part.max() or 1) for part in (one, other))
    inner = tuple(slice(side // 2, length - side // 2) for length in x.shape)

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, side)[inner]

    mean_x, mean_y = mean(x), mean(y)
    sample = side**2 / max(1, side**2 - 1)
    variance_x, variance_y = sample * (mean(x * x) - mean_x**2), sample * (mean(y * y) - mean_y**2)
    covariance = sample * (mean(x * y) - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))).mean())


__getattr__ = old_names(__name__)
