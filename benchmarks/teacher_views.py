# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""How close the cached logits of a whole image come to a teacher's forward on a random crop of it.

    python benchmarks/teacher_views.py NIH_FOLDER --teacher runs/teacher-lite0

Training images are seen through the random crops, rotations, flips and exposures of a training, twice. The teacher's
logits of the first view are compared with those of the whole image, mirrored as the view is, and with those of the
second view: how much a teacher contradicts itself. Correlations are over images, means over findings.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from clarity_hf import ClarityImageProcessor
from clarity_hf.data.sources import open_source
from clarity_hf.data.transforms import ImageTransform, TransformedDataset
from clarity_hf.training import Teacher, cache_teacher_logits


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--crop_scale", type=float, default=0.7)
    arguments = parser.parse_args()
    source, processor = open_source(arguments.data_dir), ClarityImageProcessor()
    teacher = Teacher.from_pretrained(arguments.teacher, source.findings, processor)
    rows = source.train.shuffle(seed=0).select(range(arguments.images))
    with tempfile.TemporaryDirectory() as folder:
        cached = cache_teacher_logits(rows, teacher, processor, folder)
    transform = ImageTransform(processor, augment="full", crop_scale=arguments.crop_scale, prior="none")
    views = TransformedDataset(cached, transform)
    logits: dict[str, list[torch.Tensor]] = {"view": [], "whole image": [], "another view": []}
    for epoch, name in enumerate(("view", "another view")):
        views.set_epoch(epoch)
        for index in range(len(views)):
            item = views[index]
            logits[name].append(teacher(item["pixel_values"][None])[0])
            if name == "view":
                logits["whole image"].append(item["teacher_logits"])
    found = {name: torch.stack(values).double().numpy() for name, values in logits.items()}
    print(f"{len(views)} images, crops of {arguments.crop_scale} to 1 of the area, {len(source.findings)} findings\n")
    print("| logits of | correlation with the view's | mean difference of a probability |\n|---|---|---|")
    for name in ("whole image", "another view"):
        correlation = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(found[name].T, found["view"].T, strict=True)])
        difference = np.abs(np.subtract(*(1 / (1 + np.exp(-found[each])) for each in (name, "view")))).mean()
        print(f"| {name} | {correlation:.3f} | {difference:.4f} |")


if __name__ == "__main__":
    main()
