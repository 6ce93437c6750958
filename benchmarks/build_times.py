# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What it costs to start: `import clarity_hf`, `clarity-hf --help` and the first result of one image.

    python benchmarks/import_time.py --rounds 7
    python benchmarks/import_time.py --rounds 7 --base ../base/src

Each round starts every program in a process of its own, one after the other, together with the import of the two
transformers classes that the package builds on. With `--base`, the sources of another build, each program also runs
with that build. The table has medians of processor seconds, user and system, and of the ratios within a round.
Processor time leaves out waiting for the disk and for other programs.
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
PROGRAMS = {
    CLASSES: ["-c", CLASSES],
    "import clarity_hf": ["-c", "import clarity_hf"],
    "clarity-hf --help": ["-m", "clarity_hf", "--help"],
    "clarity-hf predict image.png": ["-m", "clarity_hf", "predict", "0000.png", "--device", "cpu"],
}
SOURCES = Path(__file__).parents[1] / "src"


def main() -> None:
    """Print a row per program and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--base", type=Path, help="folder that holds clarity_hf of another build")
    arguments = parser.parse_args()
    builds = {"this": SOURCES} | ({"base": arguments.base.resolve()} if arguments.base else {})
    runs = [(name, build) for name in PROGRAMS for build in builds if name != CLASSES or build == "this"]
    taken: dict[tuple[str, str], list[float]] = {run: [] for run in runs}
    with tempfile.TemporaryDirectory() as folder:
        write_phantom_pngs(Path(folder), 1)
        for turn in range(arguments.rounds + 1):
            for name, build in runs:
                seconds = processor_seconds(PROGRAMS[name], builds[build], Path(folder))
                if turn:  # in the first round files and their bytecode come into memory
                    taken[name, build].append(seconds)
    print("| | build | processor seconds | ratio to the classes | ratio to base |")
    print("|---|---|---|---|---|")
    for name, build in runs:
        to_base = median_ratio(taken[name, build], taken.get((name, "base")))
        to_classes = median_ratio(taken[name, build], taken[CLASSES, "this"])
        print(f"| `{name}` | {build} | {statistics.median(taken[name, build]):.2f} | {to_classes} | {to_base} |")


def median_ratio(seconds: list[float], others: list[float] | None) -> str:
    """Median of the ratios within a round; a dash where there is nothing to compare with."""
    if others is None:
        return "-"
    return f"{statistics.median(own / other for own, other in zip(seconds, others, strict=True)):.3f}"


def processor_seconds(words: list[str], sources: Path, folder: Path) -> float:
    """Processor seconds, user and system, of a new Python with these words.

    Args:
        words: Arguments of Python.
        sources: Folder with the package.
        folder: Working directory; results of an earlier call are moved out of the way.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(sources)}
    if (folder / "predictions").exists():
        (folder / "predictions").rename(tempfile.mkdtemp(dir=folder))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *words],
        env=environment,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
