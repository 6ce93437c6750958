# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What `import clarity_hf` and `clarity-hf --help` cost beside the import of the two classes that they build on.

    python benchmarks/import_time.py --rounds 7

A round starts each in a process of its own, one after the other, so that a busy machine is busy for all. Printed are
medians of processor seconds and of the rounds' ratios. Processor time is used because waiting for a disk or for other
programs is none of a package's doing; with warm files on an idle machine the clock shows the same.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys

BASE = "from transformers import PreTrainedModel, AutoModelForImageClassification"
PROGRAMS = {
    BASE: ["-c", BASE],
    "import clarity_hf": ["-c", "import clarity_hf"],
    "clarity-hf --help": ["-c", "from clarity_hf.cli import main; main(['--help'])"],
}


def main() -> None:
    """Print a row per program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    for words in PROGRAMS.values():
        processor_seconds(words)  # files and their bytecode come from memory afterwards
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, words in PROGRAMS.items():
            taken[name].append(processor_seconds(words))
    print("| | processor seconds | against the first |")
    print("|---|---|---|")
    for name, seconds in taken.items():
        ratio = statistics.median(own / base for own, base in zip(seconds, taken[BASE], strict=True))
        print(f"| `{name}` | {statistics.median(seconds):.2f} | {ratio:.2f} |")


def processor_seconds(words: list[str]) -> float:
    """Time that a new Python with these words keeps a processor busy, user's and system's, in seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
