# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What `clarity-hf predict` costs beyond its two large parts: a folder end to end against decoding and forwards alone.

    python benchmarks/folder_speed.py                         (some ten minutes on two cores)
    python benchmarks/folder_speed.py --images 24 --rounds 1   (quick)
    python benchmarks/folder_speed.py --folder IMAGES          (these images instead of phantoms)

A round does four things one after the other, the first three in this process:

- `decode`: Pillow opens and loads all images, in as many threads as `predict` reads with;
- `forward`: the model on batches of `pixel_values` that are there;
- `folder`: `predict_images` into a new folder, from finding the images to the last line;
- `command`: `clarity-hf predict` as a program of its own; it starts and loads the model, whatever the number of
images.

Without a folder, 200 phantoms are written as PNG of 1024². Batch size and threads are the command's own defaults.
Wall time is what a user waits for, and says little on a busy machine: reading goes on beside the forwards, so on idle
cores its ratio may fall below 1. Processor time counts all work, whoever does it, and holds on a busy machine too.

Time: medians over interleaved rounds of the ratio within a round. glibc's trimming is pinned. Expected: ratios of at
most 1.15 for `folder`. With --profile, where the time of one more run goes, read in turn.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import Seconds, interleaved, paired_ratio, restart_pinned, write_phantom_pngs

LARGE_PARTS = ("decode", "forward")


def decode(path: Path) -> None:
    """Pillow's part of reading an image."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def works(
    pipeline: Any, model: str, folder: Path, outputs: Path, batch_size: int, workers: int
) -> dict[str, Callable[[], object]]:
    """The things that a round does."""
    import torch

    from clarity_hf.inference import find_images, predict_images

    paths = [image.path for image in find_images([folder]).images]
    images = [pipeline.image_processor(path, return_tensors="pt").pixel_values for path in paths]
    batches = [torch.cat(images[start : start + batch_size]) for start in range(0, len(images), batch_size)]

    def decode_all() -> None:
        with ThreadPoolExecutor(max(workers, 1)) as pool:
            list(pool.map(decode, paths))

    def forward_all() -> None:
        with torch.inference_mode():
            for batch in batches:
                pipeline.model(pixel_values=batch)

    def predict_all() -> None:
        found = find_images([folder])
        with tempfile.TemporaryDirectory(dir=outputs) as results:
            predict_images(pipeline, found.images, results, batch_size=batch_size, workers=workers)

    def run_command() -> None:
        program = [sys.executable, "-c", "from clarity_hf.cli import main; main()", "predict"]
        options = {"model": model, "device": "cpu", "batch-size": batch_size, "workers": workers}
        with tempfile.TemporaryDirectory(dir=outputs) as results:
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            command = [*program, str(folder), "--output-dir", results, *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return {"decode": decode_all, "forward": forward_all, "folder": predict_all, "command": run_command}


def print_table(taken: dict[str, list[Seconds]]) -> None:
    """A row per thing, by both clocks, against the large parts together."""
    print("| | wall s | against decode + forward | processor s | against decode + forward |\n|---|---|---|---|---|")
    for name, seconds in taken.items():
        cells = []
        for clock in range(len(Seconds._fields)):
            own = [each[clock] for each in seconds]
            rounds = zip(*(taken[part] for part in LARGE_PARTS), strict=True)
            base = [sum(part[clock] for part in parts) for parts in rounds]
            cells += [f"{statistics.median(own):.2f}", str(paired_ratio(own, base))]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="phantoms")
    parser.add_argument("--folder", type=Path, help="of images, instead of phantoms")
    parser.add_argument("--model", default="clarity-s16-224")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    restart_pinned()
    import torch

    from clarity_hf.cli.common import load_pipeline

    pipeline = load_pipeline(arguments.model, "cpu")
    with tempfile.TemporaryDirectory() as temporary:
        outputs, folder = Path(temporary), arguments.folder or Path(temporary) / "images"
        if arguments.folder is None:
            folder.mkdir()
            write_phantom_pngs(folder, arguments.images)
        case = pipeline, arguments.model, folder, outputs, arguments.batch_size
        taken = interleaved(works(*case, arguments.workers), arguments.rounds, warm_up=1)
        print(
            f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, "
            f"{len(list(folder.iterdir()))} files, batch {arguments.batch_size}, {arguments.workers} reading threads, "
            f"{arguments.rounds} rounds\n"
        )
        print_table(taken)
        if arguments.profile:
            profile = cProfile.Profile(time.process_time)
            profile.runcall(works(*case, workers=0)["folder"])
            pstats.Stats(profile).sort_stats("cumulative").print_stats("clarity_hf|PIL", 25)


if __name__ == "__main__":
    main()
