# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Processor time of the same work in two builds: starting, drawing phantoms, and a training step.

    python benchmarks/build_times.py                          (this build alone)
    python benchmarks/build_times.py --base ../base/src       (and another one's sources)

Each round starts every piece of work in a process of its own, one after the other, with one thread. *Start*: processor
seconds of the whole process, together with the import of the two transformers classes that the package builds on.
*Work*: the processor seconds of one of several repetitions, after a first one that is not counted. The table has
medians over rounds and of the ratios within a round. Processor time leaves out waiting for the disk and for other
programs.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import write_phantom_pngs

CLASSES = "from transformers import PreTrainedModel, AutoModelForImageClassification"
STARTS = {
    CLASSES: ["-c", CLASSES],
    "import clarity_hf": ["-c", "import clarity_hf"],
    "clarity-hf --help": ["-m", "clarity_hf", "--help"],
    "clarity-hf predict image.png": ["-m", "clarity_hf", "predict", "0000.png", "--device", "cpu"],
}
PHANTOM = "from clarity_hf.phantoms import draw_phantom; work = lambda turn: draw_phantom(turn, {})"
STEP = (
    "import argparse, tempfile, torch; from training_step import build_steps; "
    "settings = argparse.Namespace(batch=8, image_size=224); "
    "steps = build_steps(['{0}'], settings, tempfile.mkdtemp(), torch.device('cpu'), True); "
    "work = lambda turn: steps['{0}']()"
)
WORKS = {
    "a phantom of 1024²": PHANTOM.format(1024),
    "a phantom of 256²": PHANTOM.format(256),
    "a training step of 8 images": STEP.format("cached"),
    "a training step of 8 images, half of the patches": STEP.format("half the patches"),
}
"""Code that defines `work`."""
BASE_OF = {"a training step of 8 images, half of the patches": "a training step of 8 images"}
"""Work that the base does not have, and its work to compare with."""
REPEATED = """
import time
taken = []
for turn in range(8):
    start = time.process_time()
    work(turn)
    taken.append(time.process_time() - start)
print(sum(taken[1:]) / len(taken[1:]))
"""
FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Print a row per piece of work and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", type=Path, help="folder that holds clarity_hf of another build")
    arguments = parser.parse_args()
    builds = {"base": arguments.base.resolve()} if arguments.base else {}
    builds["this"] = FOLDER.parent / "src"
    of_this_alone = {CLASSES, *BASE_OF}
    works = [*STARTS, *WORKS]
    runs = [(name, build) for name in works for build in builds if build == "this" or name not in of_this_alone]
    taken: dict[tuple[str, str], list[float]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory() as folder:
        write_phantom_pngs(Path(folder), 1)
        for turn in range(arguments.rounds + 1):
            for name, build in runs if turn % 2 else reversed(runs):
                if name in STARTS:
                    seconds = seconds_of_start(STARTS[name], builds[build], Path(folder))
                else:
                    seconds = seconds_of_work(WORKS[name], builds[build], Path(folder))
                if turn:  # in the first round files and their bytecode come into memory
                    taken[name, build].append(seconds)
    print("| | build | processor seconds | ratio to the classes | ratio to base |")
    print("|---|---|---|---|---|")
    for name, build in runs:
        own, base = taken[name, build], taken.get((BASE_OF.get(name, name), "base"))
        to_classes = median_ratio(own, taken[CLASSES, "this"] if name in STARTS else None)
        print(f"| `{name}` | {build} | {statistics.median(own):.3f} | {to_classes} | {median_ratio(own, base)} |")


def median_ratio(seconds: list[float], others: list[float] | None) -> str:
    """Median of the ratios within a round; a dash where there is nothing to compare with."""
    if others is None:
        return "-"
    return f"{statistics.median(own / other for own, other in zip(seconds, others, strict=True)):.3f}"


def seconds_of_start(words: list[str], sources: Path, folder: Path) -> float:
    """Processor seconds, user and system, of a new Python with these words.

    Args:
        words: Arguments of Python.
        sources: Folder with the package.
        folder: Working directory; results of an earlier call are moved out of the way.
    """
    if (folder / "predictions").exists():
        (folder / "predictions").rename(tempfile.mkdtemp(dir=folder))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_python(words, sources, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_of_work(code: str, sources: Path, folder: Path) -> float:
    """Processor seconds of one repetition of the `work` that the code defines."""
    return float(run_python(["-c", code + REPEATED], sources, folder).split()[-1])


def run_python(words: list[str], sources: Path, folder: Path) -> str:
    """What a new Python with one thread prints."""
    paths = os.pathsep.join(map(str, (sources, FOLDER)))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *words],
        env=environment,
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout


if __name__ == "__main__":
    main()
