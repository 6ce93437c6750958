# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a training row costs a core with and without a cache of decoded images.

    python benchmarks/image_cache_speed.py                         (about two minutes)
    python benchmarks/image_cache_speed.py --images 2 --rounds 2    (quick)
    python benchmarks/image_cache_speed.py IMAGE.png IMAGE.dcm ...   (these files instead)

A row is all that a worker does for one image, with crops (`--augment full`) at 224: read, reduce, draw a view, lay the
atlas over it. `decoded` does it from the file, `cached` with `--image_cache` in the second epoch. Without files,
phantoms are written as PNG of 1024².

Time: processor time of one thread, the median over interleaved rounds of the ratio within a round.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from common import interleaved, paired_ratio, restart_pinned, write_phantom_pngs


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="IMAGE")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    restart_pinned(OMP_NUM_THREADS="1")

    import torch

    from clarity_hf import ClarityImageProcessor
    from clarity_hf.data.transforms import ImageTransform, TransformedDataset

    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.paths or write_phantom_pngs(Path(folder), arguments.images)
        rows = [{"image": str(path), "labels": [0.0]} for path in paths]
        cache = Path(folder) / "cache"
        data = {
            name: TransformedDataset(rows, ImageTransform(ClarityImageProcessor(), "full", image_cache=images))
            for name, images in (("decoded", None), ("cached", cache))
        }
        taken = interleaved(
            {
                name: lambda images=images: [images[index] for index in range(len(images))]
                for name, images in data.items()
            },
            arguments.rounds,
        )
        kept = sum(path.stat().st_size for path in cache.rglob("*.safetensors")) / len(paths)

    seconds = {name: [each.processor for each in values] for name, values in taken.items()}
    print(f"torch {torch.__version__}, 1 thread, {len(paths)} images, {arguments.rounds} rounds\n")
    print("| row | ms | images a second and core | of decoding each time (quartiles) | KiB on disk |")
    print("|---|---|---|---|---|")
    for name, values in seconds.items():
        each = statistics.median(values) / len(paths)
        size = f"{kept / 1024:.0f}" if name == "cached" else ""
        ratio = paired_ratio(values, seconds["decoded"])
        print(f"| {name} | {1000 * each:.1f} | {1 / each:.0f} | {ratio} | {size} |")


if __name__ == "__main__":
    main()
