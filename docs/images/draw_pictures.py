# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Draw `docs/images/pictures.png` and measure the peaks of maps, for docs/pictures.md, by the packaged checkpoint.

    python docs/images/draw_pictures.py
    python docs/images/draw_pictures.py --model FOLDER --output pictures.png

To be run again when another checkpoint is packaged. Expected output, with other figures:

    map peaks on 24 phantoms, present: median 3.9, 5th to 95th percentile 1.7 to 9.5 (60 maps)
    map peaks on 24 phantoms, absent: median 2.0, 5th to 95th percentile 0.5 to 4.0 (276 maps)
    wrote docs/images/pictures.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline

import clarity_hf
from clarity_hf.phantoms import draw_phantom
from clarity_hf.visualization import draw_findings

SEED, FINDINGS = 18, ("Cardiomegaly", "Effusion")
SIDE, GAP = 512, 8
PHANTOMS = 24


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, localize, draw three panels, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=clarity_hf.DEFAULT_CHECKPOINT, help="name, folder or Hub id")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("pictures.png"))
    given = parser.parse_args(arguments)
    localizer = pipeline(clarity_hf.TASK, model=given.model)
    print_peaks(localizer)
    image = draw_phantom(SEED, SIDE, FINDINGS).image
    findings = localizer(image, return_maps=True)
    first, second = (finding["label"] for finding in findings[:2])
    panels = [
        draw_findings(image, findings),
        draw_findings(image, findings, first, bar="below"),
        draw_findings(image, findings, [first, second], style="contours", bar="below"),
    ]
    beside(panels).save(given.output, optimize=True)
    print(f"wrote {given.output}")


def print_peaks(localizer: clarity_hf.ChestXrayLocalizationPipeline) -> None:
    """How high maps reach over findings that the model calls present, and over the others."""
    images = (draw_phantom(seed).image for seed in range(PHANTOMS))
    findings = [finding for image in images for finding in localizer(image, return_maps=True)]
    for present, name in ((True, "present"), (False, "absent")):
        peaks = [float(finding["map"].max()) for finding in findings if finding["present"] == present]
        low, median, high = np.percentile(peaks, (5, 50, 95))
        print(
            f"map peaks on {PHANTOMS} phantoms, {name}: median {median:.1f}, 5th to 95th percentile {low:.1f} to "
            f"{high:.1f} ({len(peaks)} maps)"
        )


def beside(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels from left to right, their tops in line."""
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    whole = Image.new("RGB", (width, max(panel.height for panel in panels)), "white")
    left = 0
    for panel in panels:
        whole.paste(panel, (left, 0))
        left += panel.width + GAP
    return whole


if __name__ == "__main__":
    main()
