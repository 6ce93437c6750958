# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Write thorax masks for a folder of images with a segmentation model, as priors for training.

    python examples/write_masks.py IMAGES_DIR MASKS_DIR
    python examples/write_masks.py IMAGES_DIR MASKS_DIR --model HUB_ID_OR_FOLDER
    python examples/write_masks.py IMAGES_DIR MASKS_DIR --model HUB_ID_OR_FOLDER --classes "left lung" "right lung" 4
    python examples/write_masks.py IMAGES_DIR MASKS_DIR --model torchxrayvision-pspnet

Without `--model` the packaged segmenter finds lungs, heart and their hull, offline. Any semantic segmentation model of
the Hub with safetensors weights serves too; the classes that belong to the thorax are found by their names, or given
by `--classes`. An image NAME, in IMAGES_DIR or a folder below it, gets MASKS_DIR/NAME.png:
255 inside, 0 outside, over the image's field of view, the longer side of 512 pixels at most. Images that have a mask
are skipped, so a run that was stopped goes on. Expected output:

    classes: hull
    100%|██████████| 1049/1049 [...]
    wrote 1040 masks to MASKS_DIR, 7 were there
    1 mask is empty: 00000013_005
    error: 2 images failed:
      00000061_012: `IMAGES_DIR/00000061_012.png` must be a complete image, got ...
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from clarity_hf.data.thorax_segmenter import STRUCTURES, segment_thorax
from clarity_hf.image_reading import read_image

PACKAGED = "packaged"
PSPNET = "torchxrayvision-pspnet"
PSPNET_SIDE = 512
PSPNET_THRESHOLD = 0.5
THORAX = re.compile(r"\b(lungs?|heart|cardiac|mediastinum|aorta|hilus|hilum)\b")
MASK_SIDE = 512  # of the longer side of a mask; the prior of a training step has 56
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

Segmenter = Callable[[np.ndarray], np.ndarray]
"""Image `(H, W)` in [0, 255] → where the thorax is, `(h, w)` bool over the same field of view."""


def main() -> int:
    """Load the model, segment the images; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_dir", type=Path)
    parser.add_argument("masks_dir", type=Path)
    parser.add_argument(
        "--model",
        default=PACKAGED,
        help=f"Hub id or folder of a segmentation model, {PSPNET}, or {PACKAGED} (default)",
    )
    parser.add_argument("--classes", nargs="+", help="names or numbers of the model's classes inside the thorax")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    try:
        images = find_images(arguments.images_dir, arguments.masks_dir)
        load = {PSPNET: load_pspnet, PACKAGED: load_packaged}.get(arguments.model, load_segmenter)
        segment, classes = load(arguments.model, arguments.classes, arguments.device)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"classes: {', '.join(classes)}")
    arguments.masks_dir.mkdir(parents=True, exist_ok=True)
    return report(*write_masks(images, arguments.masks_dir, segment), arguments.masks_dir)


def find_images(folder: Path, masks: Path) -> list[Path]:
    """Images in a folder and below it, in order; the masks' own folder is not searched."""
    if not folder.is_dir():
        raise FileNotFoundError(f"`images_dir` must be a folder of images, got {folder}. Check the path.")
    if folder.resolve() == masks.resolve():
        raise ValueError(
            f"`masks_dir` must be another folder than `images_dir`, got {masks}. Masks have images' names."
        )
    found: dict[str, Path] = {}
    visited = {os.path.realpath(masks)}
    for place, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in visited:  # the masks, or a link that leads back up
            folders.clear()
            continue
        visited.add(os.path.realpath(place))
        folders.sort()
        for path in sorted(Path(place, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            if path.stem in found:
                raise ValueError(
                    f"`images_dir` must hold images of different names, got {found[path.stem]} and {path}. Their "
                    "masks would be one file: pass one folder at a time."
                )
            found[path.stem] = path
    if not found:
        raise FileNotFoundError(f"`images_dir` must hold {', '.join(SUFFIXES)} images, got none in {folder}.")
    return list(found.values())


def load_packaged(name: str, wanted: Sequence[str] | None, device: str) -> tuple[Segmenter, list[str]]:
    """The segmenter that comes with the package, on the CPU whatever the device: it takes milliseconds."""
    classes = choose_classes(dict(enumerate(STRUCTURES)), wanted or ["hull"])

    def segment(image: np.ndarray) -> np.ndarray:
        height, width = mask_size(image.shape)
        found = segment_thorax(image)
        if found is None:
            return np.zeros((height, width), dtype=bool)
        inside = np.logical_or.reduce([found[index] for index in classes])
        return np.array(Image.fromarray(inside).resize((width, height), Image.Resampling.NEAREST))

    return segment, list(classes.values())


def load_segmenter(name: str, wanted: Sequence[str] | None, device: str) -> tuple[Segmenter, list[str]]:
    """A semantic segmentation model of transformers, and the names of the classes it takes for the thorax."""
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

    from clarity_hf.safe_loading import load_foreign_model

    processor = AutoImageProcessor.from_pretrained(name)
    if getattr(processor, "do_center_crop", False) or getattr(processor, "do_pad", False):
        raise ValueError(f"`model` must see the complete image and nothing else, got {name}, which crops or pads it.")
    if not hasattr(processor, "post_process_semantic_segmentation"):
        raise ValueError(f"`model` must be a semantic segmentation model, got {name} with {type(processor).__name__}.")
    model = load_foreign_model(AutoModelForSemanticSegmentation, name).to(device).eval()
    classes = choose_classes(model.config.id2label, wanted)

    def segment(image: np.ndarray) -> np.ndarray:
        rgb = Image.fromarray(np.round(image).astype(np.uint8)).convert("RGB")
        inputs = processor(rgb, return_tensors="pt").to(device)
        with torch.inference_mode():
            outputs = model(**inputs)
        labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[mask_size(image.shape)])[0]
        return np.isin(labels.cpu().numpy(), list(classes))

    return segment, list(classes.values())


def load_pspnet(name: str, wanted: Sequence[str] | None, device: str) -> tuple[Segmenter, list[str]]:
    """The PSPNet of torchxrayvision (ChestX-Det): downloads its own weights, gives a probability per structure."""
    try:
        from torchxrayvision.baseline_models.chestx_det import PSPNet
    except ImportError as error:
        raise ImportError(f"`{name}` needs torchxrayvision. Run `pip install torchxrayvision`.") from error
    model = PSPNet().to(device).eval()
    classes = choose_classes(dict(enumerate(model.targets)), wanted)

    def segment(image: np.ndarray) -> np.ndarray:
        # Its range is [-1024, 1024]; squashed to its square as it would resize an oblong image itself.
        pixels = torch.from_numpy(image.astype(np.float32))[None, None].to(device) / 255 * 2048 - 1024
        pixels = F.interpolate(pixels, size=(PSPNET_SIDE, PSPNET_SIDE), mode="bilinear", antialias=True)
        with torch.inference_mode():
            scores = model(pixels).sigmoid()[:, list(classes)].amax(1, keepdim=True)
        scores = F.interpolate(scores, size=mask_size(image.shape), mode="bilinear", antialias=True)
        return (scores[0, 0] > PSPNET_THRESHOLD).cpu().numpy()

    return segment, list(classes.values())


def choose_classes(id2label: Mapping[int, str], wanted: Sequence[str] | None) -> dict[int, str]:
    """The classes inside the thorax by number: those asked for by name or number, or those whose names say so."""
    if wanted is None:
        chosen = {
            number: label for number, label in id2label.items() if THORAX.search(re.sub(r"[_\W]+", " ", label.lower()))
        }
        unknown = []
    else:
        keys = {str(number): number for number in id2label}
        keys |= {label.lower(): number for number, label in id2label.items()}
        unknown = [key for key in wanted if key.lower() not in keys]
        chosen = {keys[key.lower()]: id2label[keys[key.lower()]] for key in wanted if key.lower() in keys}
    if unknown or not chosen:
        raise ValueError(
            f"`classes` must be of {dict(id2label)}, got {unknown or 'no name of the thorax among them'}. "
            "Give names or numbers with --classes."
        )
    return chosen


def mask_size(image: Sequence[int]) -> tuple[int, int]:
    """Height and width of the mask of an image `(H, W)`: its proportions, 512 on the longer side at most."""
    scale = min(1.0, MASK_SIDE / max(image))
    return max(1, round(image[0] * scale)), max(1, round(image[1] * scale))


def write_masks(
    images: Sequence[Path], folder: Path, segment: Segmenter
) -> tuple[int, int, list[str], dict[str, str]]:
    """Segment the images without a mask; returns how many were written and were there, the empty and the failed."""
    written, there, empty, failed = 0, 0, [], {}
    for image, target in progress_over(images, folder):
        if target.exists():
            there += 1
            continue
        try:
            pixels = read_image(image)
        except (OSError, TypeError, ValueError) as error:
            failed[image.stem] = str(error)
            continue
        inside = segment(pixels)
        if not inside.any():
            empty.append(image.stem)
        # Beside the mask and then in its place: a run that is stopped leaves no half of one.
        part = target.with_name(f".{target.name}.part")
        Image.fromarray(inside.astype(np.uint8) * 255).save(part, "png", optimize=True)
        part.replace(target)
        written += 1
    return written, there, empty, failed


def progress_over(images: Sequence[Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    """Images and where their masks go, under a progress bar."""
    for image in tqdm(images, unit="image", file=sys.stderr):
        yield image, folder / f"{image.stem}.png"


def report(written: int, there: int, empty: list[str], failed: dict[str, str], folder: Path) -> int:
    """Say what was done; returns the exit status."""
    print(f"wrote {written} masks to {folder}, {there} were there")
    if empty:
        print(f"{len(empty)} {'mask is' if len(empty) == 1 else 'masks are'} empty: {', '.join(empty)}")
    if failed:
        reasons = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        print(f"error: {len(failed)} {'image' if len(failed) == 1 else 'images'} failed:{reasons}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
