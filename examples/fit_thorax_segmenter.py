# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Fit the packaged segmenter of lungs and heart, or measure it on other radiographs.

    python examples/fit_thorax_segmenter.py TRAIN_DIR TEST_DIR               fits, writes the weights, measures
    python examples/fit_thorax_segmenter.py TRAIN_DIR TEST_DIR --test-only   measures the packaged weights

Both folders hold radiographs NAME.jpg or NAME.png with a label image NAME.mask.png: 0 background, 1 the patient's left
lung, on the right of the image, 2 the right one, 3 the heart. The packaged weights were fitted on 259 radiographs of
the repository eveningdong/cardiothoracic_ratio_estimation_dataset (MIT) and tested on the 247 of JSRT.
Expected output:

    epoch 50: loss 0.0..
    wrote thorax_segmenter.safetensors, 0.6 MB
    247 radiographs: Dice of the lungs 0.9.. (5th percentile 0.9..), heart 0.9.. (0.8..)
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from scipy.spatial import ConvexHull, Delaunay
from torch import nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from clarity_hf.data.thorax_segmenter import SIDE, WEIGHTS, ThoraxSegmenter, segment_thorax

SEED = 0
BATCH_SIZE, LEARNING_RATE = 8, 2e-3
MASK_SUFFIX = ".mask.png"


def main() -> int:
    """Fit, write, measure; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train_dir", type=Path)
    parser.add_argument("test_dir", type=Path)
    parser.add_argument("--test-only", action="store_true")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    try:
        if not arguments.test_only:
            model = fit(*read_folder(arguments.train_dir), arguments.epochs)
            save_file({name: value.half() for name, value in model.state_dict().items()}, arguments.output)
            print(f"wrote {arguments.output.name}, {arguments.output.stat().st_size / 1e6:.1f} MB")
        print(measured(arguments.test_dir))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def radiographs(folder: Path) -> list[tuple[Path, Path]]:
    """Radiographs of a folder and their masks.

    Raises:
        FileNotFoundError: There is none.
    """
    masks = sorted(folder.glob(f"*{MASK_SUFFIX}"))
    pairs = [
        (image, mask)
        for mask in masks
        for image in (mask.with_name(mask.name.removesuffix(MASK_SUFFIX) + suffix) for suffix in (".jpg", ".png"))
        if image.is_file()
    ]
    if not pairs:
        raise FileNotFoundError(f"`folder` must hold NAME.jpg and NAME{MASK_SUFFIX}, got {folder} without any.")
    return pairs


def read_pair(image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    """A radiograph and its label image, both `(H, W)` uint8."""
    return np.array(Image.open(image).convert("L")), np.array(Image.open(mask))


def read_folder(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All radiographs `(n, 1, S, S)` float in [0, 1] and structures `(n, 4, S, S)`, a fifth larger than the input."""
    side = SIDE * 6 // 5
    images, masks = [], []
    for paths in radiographs(folder):
        pixels, labels = read_pair(*paths)
        image = torch.from_numpy(pixels)[None, None].float() / 255
        images.append(F.interpolate(image, size=(side, side), mode="bilinear", antialias=True)[0])
        structures = torch.from_numpy(structures_of(labels)).float()[None]
        masks.append(F.interpolate(structures, size=(side, side), mode="area")[0])
    return torch.stack(images), torch.stack(masks)


def structures_of(labels: np.ndarray) -> np.ndarray:
    """A label image `(H, W)` as the channels `(4, H, W)` bool of the net, the hull with them."""
    points = np.argwhere(labels > 0)
    grid = np.argwhere(np.ones_like(labels))
    corners = points[ConvexHull(points).vertices]
    hull = (Delaunay(corners).find_simplex(grid) >= 0).reshape(labels.shape)
    return np.stack([*(labels == value for value in (1, 2, 3)), hull])


def fit(images: torch.Tensor, masks: torch.Tensor, epochs: int) -> nn.Module:
    """Train on `(n, 1, s, s)` and `(n, 4, s, s)`; returns the model in evaluation mode."""
    torch.manual_seed(SEED)
    model = ThoraxSegmenter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    steps = epochs * -(-len(images) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images)).split(BATCH_SIZE):
            pairs = [augmented(images[index], masks[index]) for index in chosen]
            logits = model(torch.stack([image for image, _ in pairs]))
            loss = segmentation_loss(logits, torch.stack([mask for _, mask in pairs]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        print(f"epoch {epoch + 1}: loss {total / len(images):.4f}", flush=True)
    return model.eval()


GEOMETRY = v2.Compose(
    [
        v2.RandomAffine(12, translate=(0.08, 0.08), scale=(0.8, 1.3), interpolation=v2.InterpolationMode.BILINEAR),
        v2.RandomResizedCrop(SIDE, scale=(0.6, 1.0), ratio=(0.8, 1.25), antialias=True),
    ]
)


def augmented(image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A radiograph `(1, s, s)` and its structures `(4, s, s)` moved together, the radiograph changed and prepared.

    Opacities, sharpness, exposure and letters vary: other hospitals' radiographs and sick lungs have to be found too.
    """
    image, mask = GEOMETRY(tv_tensors.Image(image), tv_tensors.Image(mask))
    image, mask = image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)
    if torch.rand(()) < 0.5:
        image, mask = image.flip(-1), mask.flip(-1)[[1, 0, 2, 3]]
    ramp = torch.linspace(0, 1, SIDE)
    for _ in range(int(torch.randint(0, 4, ()))):  # opacities, round or oblong, some as dense as an effusion
        x, y, a, b, strength = torch.rand(5)
        distance = ((ramp[None, :] - x) / (0.05 + 0.2 * a)) ** 2 + ((ramp[:, None] - y) / (0.05 + 0.2 * b)) ** 2
        image = image + (0.6 * strength - 0.1) * torch.sigmoid(6 * (1 - distance))
    image = image.clamp(0, 1) ** float(torch.exp(0.4 * torch.randn(())))
    if torch.rand(()) < 0.5:
        sigma = 0.3 + 1.5 * float(torch.rand(()))
        image = v2.functional.gaussian_blur(image, [9, 9], [sigma, sigma])
    image = image + 0.04 * torch.rand(()) * torch.randn_like(image)
    if torch.rand(()) < 0.3:  # a letter or a device
        top, left = torch.randint(0, SIDE - 24, (2,))
        image[:, top : top + 8, left : left + 24] = torch.rand(())
    return (image - image.mean()) / image.std(correction=0).clamp_min(1e-3), mask


def segmentation_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice, mean over structures; both `(B, 4, h, w)`."""
    inside = logits.sigmoid()
    overlap = 2 * (inside * masks).sum((2, 3)) / (inside + masks).sum((2, 3)).clamp_min(1.0)
    return F.binary_cross_entropy_with_logits(logits, masks) + (1 - overlap).mean()


def measured(folder: Path) -> str:
    """Dice of lungs and heart of the packaged weights on a folder, in words."""
    scores = []
    for paths in radiographs(folder):
        pixels, labels = read_pair(*paths)
        found = segment_thorax(pixels)
        if found is None:
            scores.append((0.0, 0.0))
            continue
        lungs = found.right_lung | found.left_lung
        scores.append((dice(lungs, (labels == 1) | (labels == 2)), dice(found.heart, labels == 3)))
    lungs, heart = np.array(scores).T
    return (
        f"{len(scores)} radiographs: Dice of the lungs {lungs.mean():.3f} (5th percentile "
        f"{np.percentile(lungs, 5):.3f}), heart {heart.mean():.3f} ({np.percentile(heart, 5):.3f})"
    )


def dice(found: np.ndarray, drawn: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|) of two masks; 1 for two empty ones."""
    size = found.sum() + drawn.sum()
    return float(2 * (found & drawn).sum() / size) if size else 1.0


if __name__ == "__main__":
    sys.exit(main())
