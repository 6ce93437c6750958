# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""How far the results of each engine are from those of the model in torch, in fp32: the table of docs/speed.md.

    python benchmarks/engine_parity.py --images 32                                        (about two minutes)

Phantoms of 1024² in batches of 8. A finding's boxes are the same if there are as many and no side moved by more than
2 pixels. The first row is torch with itself at another batch size.
"""

import argparse

import torch
from transformers import pipeline

from clarity_hf import DEFAULT_CHECKPOINT, TASK
from clarity_hf.inference.engine_names import PRECISIONS
from clarity_hf.inference.engines import NEAR, open_engine
from clarity_hf.phantoms import iterate_phantoms

SIDE = 1024


def main() -> None:
    """Print a row per engine and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    count = parser.parse_args().images
    localizer = pipeline(TASK, model=DEFAULT_CHECKPOINT, device="cpu")
    processor = localizer.image_processor
    images = [phantom.image for phantom in iterate_phantoms(count, seed=1, size=SIDE)]
    pixel_values = processor(images, return_tensors="pt")["pixel_values"]

    def results(model, batch):
        with torch.inference_mode():
            outputs = [model(pixel_values=part) for part in pixel_values.split(batch)]
        boxes = []
        for found in outputs:
            boxes += processor.post_process_localization(found, target_sizes=[(SIDE, SIDE)] * len(found.scores))
        maps = torch.cat([found.localization_maps for found in outputs])
        return torch.cat([found.scores for found in outputs]), maps, boxes

    scores, maps, boxes = results(localizer.model, 8)
    print("| engine | mean change of a score | largest | largest change of a map, of its peak | same boxes |")
    print("|---|---|---|---|---|")
    for engine, precisions in PRECISIONS.items():
        for precision in precisions:
            batch = 4 if (engine, precision) == ("torch", "fp32") else 8
            own_scores, own_maps, own_boxes = results(open_engine(localizer, engine, precision), batch)
            change = (own_scores - scores).abs()
            moved = ((own_maps - maps).abs() / maps.amax((2, 3), keepdim=True)).max()
            same = []
            for one, other in zip(boxes, own_boxes, strict=True):
                for finding in {*one["labels"].tolist(), *other["labels"].tolist()}:
                    mine, theirs = (found["boxes"][found["labels"] == finding] for found in (one, other))
                    same.append(len(mine) == len(theirs) and bool(((mine - theirs).abs() <= NEAR).all()))
            figures = f"{change.mean():.4f} | {change.max():.4f} | {moved:.4f} | {sum(same)} of {len(same)}"
            print(f"| {engine} {precision} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
