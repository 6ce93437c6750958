# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Peak memory of an evaluation by the number of images: each number in a process of its own.

    python benchmarks/evaluation_memory.py --images 500 5000

The whole evaluation is run, as by examples/evaluate_checkpoint.py, with two baselines and the report but no drawn
images. The model is a small one with random weights unless `--model` names another: what grows with images does not
depend on it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers.utils import logging

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.evaluation.images import PhantomImages
from clarity_hf.reporting.run import evaluate_checkpoint

SMALL = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 384}


def main() -> None:
    """Print a row per number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--model", help="name, folder or Hub id; default: a small one with random weights")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.images[0], arguments.model)))
        return
    print("| images | MiB before the first image | peak MiB | growth MiB | records on disk, MiB |")
    print("|---|---|---|---|---|")
    for count in arguments.images:
        options = ["--images", str(count), *(["--model", arguments.model] if arguments.model else [])]
        child = [sys.executable, __file__, "--child", *options]
        found = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        sizes = (found["before"], found["peak"], found["peak"] - found["before"])
        row = [f"{size:,.0f}" for size in sizes]
        print(f"| {count:,} | {' | '.join(row)} | {found['records']:.1f} |", flush=True)


def measure(count: int, name: str | None) -> dict[str, float]:
    """Evaluate `count` images in this process: memory before and at its peak, in MiB, and the size of the records."""
    logging.disable_progress_bar()
    if name is None:
        model, processor = ClarityForMultiLabelLocalization(ClarityConfig(**SMALL)).eval(), ClarityImageProcessor()
    else:
        model = ClarityForMultiLabelLocalization.from_pretrained(name, use_safetensors=True).eval()
        processor = ClarityImageProcessor.from_pretrained(name)
    images = PhantomImages(count)
    about = {"model": "memory", "data": "phantom", "split": "test", "synthetic": True}
    with tempfile.TemporaryDirectory() as folder:
        before = peak()
        evaluate_checkpoint(
            model,
            processor,
            images,
            Path(folder) / "report",
            about,
            baselines=("random", "attention"),
            repeats=200,
            draw_cases=False,
            progress=False,
        )
        records = sum(path.stat().st_size for path in (Path(folder) / "report-records").iterdir())
        return {"before": before, "peak": peak(), "records": records / 2**20}


def peak() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
