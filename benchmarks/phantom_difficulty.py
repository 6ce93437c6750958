# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""How hard the phantoms are, measured by what sees no image, or hardly any.

    python benchmarks/phantom_difficulty.py --images 6000

Prints images a second; for each finding its prevalence, the median area of its boxes and the AUROC of a logistic
regression on 16x16 thumbnails; and T(IoU) at .1, .3 and .5 of the fixed box (the training box with the highest mean
IoU to the others, one a finding) and of a random map (smoothed noise, boxed at a threshold chosen on the training
images), as a mean over the eight findings with boxes in NIH ChestX-ray14 and over all 14. Beside them stand the
figures of the same two baselines on the boxes of NIH ChestX-ray14: .47/.25/.15 and .29/.10/.03.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import scipy.ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from clarity_hf.boxes import box_iou
from clarity_hf.evaluation.baselines import random_map
from clarity_hf.labels import BOXED_FINDINGS, FINDINGS
from clarity_hf.metrics.localization import fixed_boxes
from clarity_hf.phantoms import GENERATOR_VERSION, Phantom, generator_fingerprint, iterate_phantoms

SIZE = 256
THRESHOLDS = (0.1, 0.3, 0.5)
MAP_GRID = 14
MAP_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)


def fixed_box_hits(train: np.ndarray, test: np.ndarray) -> list[float]:
    """Share of the test boxes that the most central training box meets at each threshold."""
    ious = box_iou(test, fixed_boxes(train[:1500]))[:, 0]
    return [float((ious > t).mean()) for t in THRESHOLDS]


def random_map_boxes(rng: np.random.Generator, level: float) -> np.ndarray:
    """Boxes `(k, 4)` of the components of a random map above `level` of its largest value."""
    noise = random_map(rng, (MAP_GRID, MAP_GRID))
    found = scipy.ndimage.find_objects(scipy.ndimage.label(noise > level)[0])
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return np.array(boxes, dtype=np.float64) * SIZE / MAP_GRID


def random_map_hits(train: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Share of the test boxes that any component of a random map meets at each threshold."""
    train, test = train[:200], test[:400]

    def best(boxes: np.ndarray, level: float) -> np.ndarray:
        return np.array([box_iou(box[None], random_map_boxes(rng, level)).max() for box in boxes])

    level = max(MAP_LEVELS, key=lambda candidate: best(train, candidate).mean())
    ious = best(test, level)
    return [float((ious > t).mean()) for t in THRESHOLDS]


def thumbnails(images: list[Phantom]) -> np.ndarray:
    """`(n, 256)` means over 16x16 blocks."""
    k = SIZE // 16
    return np.stack([image.image.reshape(16, k, 16, k).mean(axis=(1, 3)).ravel() for image in images])


def linear_aurocs(features: np.ndarray, labels: np.ndarray, half: int) -> list[float]:
    """AUROC of a logistic regression for each finding, fitted on the first `half` images, scored on the others."""
    scaler = StandardScaler().fit(features[:half])
    train, test = scaler.transform(features[:half]), scaler.transform(features[half:])
    aurocs = []
    for column in range(labels.shape[1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged: it hardly moves the AUROC
            model = LogisticRegression(C=0.02, max_iter=300).fit(train, labels[:half, column])
        aurocs.append(float(roc_auc_score(labels[half:, column], model.decision_function(test))))
    return aurocs


def main() -> None:
    """Draw the images, fit the baselines, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    images = list(iterate_phantoms(arguments.images, arguments.seed, SIZE))
    speed = len(images) / (time.perf_counter() - start)
    half = 2 * len(images) // 3
    labels = np.stack([image.labels for image in images])
    print(f"generator {GENERATOR_VERSION} ({generator_fingerprint()}), {len(images)} images of {SIZE}x{SIZE}")
    print(f"{speed:.0f} images a second on one core, {1000 / speed:.1f} ms each")
    print(f"normal {(labels.sum(axis=1) == 0).mean():.2f}, findings an image {labels.sum(axis=1).mean():.2f}")
    aurocs = linear_aurocs(thumbnails(images), labels, half)
    rng = np.random.default_rng(arguments.seed)
    rows = []
    print(f"\n{'finding':20}{'images':>7}{'area %':>8}{'linear':>8}   fixed box .1/.3/.5      random map .1/.3/.5")
    for column, finding in enumerate(FINDINGS):
        train, test = (
            np.array([box for image in part for name, box in image.boxes if name == finding])
            for part in (images[:half], images[half:])
        )
        area = np.median((train[:, 2:] - train[:, :2]).prod(axis=1)) / SIZE**2
        hits = fixed_box_hits(train, test) + random_map_hits(train, test, rng)
        rows.append([aurocs[column], *hits])
        text = "  ".join("/".join(f"{value:.2f}" for value in part).rjust(20) for part in (hits[:3], hits[3:]))
        print(f"{finding:20}{labels[:, column].mean():7.3f}{100 * area:8.2f}{aurocs[column]:8.3f}  {text}")
    for name, chosen in (("mean of 8", len(BOXED_FINDINGS)), ("mean of 14", len(FINDINGS))):
        mean = np.mean(rows[:chosen], axis=0)
        text = "  ".join("/".join(f"{value:.2f}" for value in part).rjust(20) for part in (mean[1:4], mean[4:]))
        print(f"{name:20}{'':15}{mean[0]:8.3f}  {text}")
    print(f"{'NIH ChestX-ray14':20}{'':23}  {'0.47/0.25/0.15':>20}  {'0.29/0.10/0.03':>20}")


if __name__ == "__main__":
    main()
