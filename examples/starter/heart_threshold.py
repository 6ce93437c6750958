# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Choose the map threshold of Cardiomegaly by the heart that the packaged segmenter finds.

    python examples/starter/heart_threshold.py CHECKPOINT NIH_FOLDER --output_dir OUTPUT_DIR

There are no boxes of Cardiomegaly to calibrate on, and at the threshold that suits phantoms boxes of real radiographs
span the thorax. The box belongs on the heart, so this keeps the threshold, of 0.05, 0.10, ... 0.95, whose boxes agree
best with the segmenter's heart: the mean over the validation images labelled Cardiomegaly of the IoU of the heart's
bounding box with the best predicted box. Expected output:

    88 images: threshold 0.20, mean IoU 0.63; 0.44 at the checkpoint's 0.05
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.boxes import box_iou
from clarity_hf.data.nih import load_nih
from clarity_hf.data.thorax_segmenter import segment_thorax
from clarity_hf.image_reading import read_image

FINDING = "Cardiomegaly"
THRESHOLDS = np.arange(1, 20) / 20


def main() -> None:
    """Measure every threshold, keep the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("nih_folder")
    parser.add_argument("--validation_split", default="clarity-validation")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    model = ClarityForMultiLabelLocalization.from_pretrained(arguments.checkpoint)
    processor = ClarityImageProcessor.from_pretrained(arguments.checkpoint)
    index = model.config.findings.index(FINDING)
    thresholds = model.config.per_finding("map_thresholds")
    images = load_nih(arguments.nih_folder, validation_split=arguments.validation_split)["validation"]
    with_finding = [i for i, labels in enumerate(images["labels"]) if labels[index] == 1]
    overlaps = [
        each
        for i in tqdm(with_finding)
        if (each := overlaps_with_heart(model, processor, read_image(images[i]["image"]), index)) is not None
    ]
    means = np.mean(overlaps, axis=0)
    best = int(means.argmax())
    before = means[np.abs(THRESHOLDS - thresholds[index]).argmin()]
    print(
        f"{len(overlaps)} images: threshold {THRESHOLDS[best]:.2f}, mean IoU {means[best]:.2f}; {before:.2f} at the "
        f"checkpoint's {thresholds[index]:.2f}"
    )
    model.config.map_thresholds = [*thresholds[:index], float(THRESHOLDS[best]), *thresholds[index + 1 :]]
    model.save_pretrained(arguments.output_dir)
    processor.save_pretrained(arguments.output_dir)


@torch.inference_mode()
def overlaps_with_heart(
    model: ClarityForMultiLabelLocalization, processor: ClarityImageProcessor, pixels: np.ndarray, index: int
) -> list[float] | None:
    """IoU of the heart's bounding box with the best box of finding `index` at each threshold.

    Args:
        model: In evaluation mode.
        processor: The model's.
        pixels: `(H, W)` grey levels.
        index: Of the finding.

    Returns:
        19 values in [0, 1], or None where the segmenter finds no heart.
    """
    masks = segment_thorax(pixels)
    if masks is None or not masks.heart.any():
        return None
    rows, columns = np.nonzero(masks.heart)
    heart = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    outputs = model(**processor(pixels, return_tensors="pt"))
    of_finding = [float(other != index) for other in range(model.config.num_labels)]  # boxes of no other finding
    ious = []
    for threshold in THRESHOLDS:
        found = processor.post_process_localization(
            outputs, score_thresholds=of_finding, map_thresholds=float(threshold), target_sizes=[pixels.shape]
        )[0]
        boxes = found["boxes"][found["labels"] == index].numpy()
        ious.append(float(box_iou(boxes, heart).max(initial=0)))
    return ious


if __name__ == "__main__":
    main()
