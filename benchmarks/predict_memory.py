# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Resident memory of `predict_images` over many images, sampled as they are done.

    python benchmarks/predict_memory.py                                               (10,000 images, minutes)
    python benchmarks/predict_memory.py --images 1000 --model clarity-s16-224          (the weights that ship)

50 phantoms of 256² lie on the disk, and hard links give them as many names as there are images. The model is a small
one with random weights and images of 64² unless `--model` names another: what grows with images does not depend on it.
Printed are a row for every tenth of the images, and the slope of memory against images by least squares after the
first fifth, in which allocators and threads find their size. A slope near 0 is flat memory.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import psutil

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.inference import find_images, predict_images
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline
from common import write_phantom_pngs

DIFFERENT, SIDE = 50, 256
SMALL_SIDE = 64
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": SMALL_SIDE,
    "class_attention_layers": 2,
    "cam_size": 16,
    "cam_groups": 4,
}


def main() -> None:
    """Print memory by images done, and its slope."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--model", help="name, folder or Hub id; default: a small one with random weights")
    parser.add_argument("--outputs", nargs="*", default=[], help="of overlays and maps; default: none")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    pipeline = open_pipeline(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", arguments.images)
        images = find_images([Path(folder) / "images"]).images
        samples: list[tuple[int, float]] = []
        summary = predict_images(
            pipeline,
            images,
            Path(folder) / "out",
            outputs=arguments.outputs,
            table=True,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            progress=lambda done, _: samples.append((done, resident())),
        )
        lines = (Path(folder) / "out" / "findings.jsonl").read_bytes().count(b"\n")
    report(samples, resident(), lines, summary.failed)


def open_pipeline(name: str | None) -> ChestXrayLocalizationPipeline:
    """Of a checkpoint, or of a small model with random weights."""
    if name is None:
        model = ClarityForMultiLabelLocalization(ClarityConfig(**SMALL))
        processor = ClarityImageProcessor(size={"height": SMALL_SIDE, "width": SMALL_SIDE})
    else:
        model = ClarityForMultiLabelLocalization.from_pretrained(name, use_safetensors=True)
        processor = ClarityImageProcessor.from_pretrained(name)
    return ChestXrayLocalizationPipeline(model=model.eval(), image_processor=processor, device="cpu")


def write_images(folder: Path, count: int) -> None:
    """A folder of `count` names for a few phantoms."""
    (folder / ".drawn").mkdir(parents=True)  # a hidden folder is none of the images
    drawn = write_phantom_pngs(folder / ".drawn", min(DIFFERENT, count), SIDE)
    for index in range(count):
        os.link(drawn[index % len(drawn)], folder / f"{index:06d}.png")


def resident() -> float:
    """Memory of this process that is in use now, in MB of 10⁶ bytes."""
    return psutil.Process().memory_info().rss / 1e6


def report(samples: list[tuple[int, float]], end: float, lines: int, failed: int) -> None:
    """Print rows and the slope.

    Args:
        samples: Images done and MB, one a batch.
        end: MB after the tables are written.
        lines: Of the results.
        failed: Images that failed.
    """
    total = samples[-1][0]
    print("| images done | resident MB |\n|---|---|")
    for tenth in range(11):
        done, memory = min(samples, key=lambda sample: abs(sample[0] - total * tenth / 10))
        print(f"| {done:,} | {memory:,.1f} |")
    print(f"| tables written | {end:,.1f} |")
    warm = [sample for sample in samples if sample[0] >= total / 5]
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 1000
    print(f"\n{lines:,} lines, {failed} failed; after {warm[0][0]:,} images {slope:+.3f} MB per 1,000 images")


if __name__ == "__main__":
    main()
