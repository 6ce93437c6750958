# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluate a checkpoint: scores, boxes and maps against labels and annotated boxes, as a report that a browser opens.

    python examples/evaluate_checkpoint.py clarity-s16-224 phantom --films 1000
    python examples/evaluate_checkpoint.py runs/nih NIH_FOLDER --baselines random gradcam++ --teacher TEACHER
    python examples/evaluate_checkpoint.py clarity-s16-224 films.csv --split validation --sanity_films 50

MODEL is a name, folder or Hub id; DATA is `phantom`, a folder in the NIH release's layout, a table of own films, a
folder of images or a Hub id. Films are read one batch at a time and no map is kept; stopped and started again with the
same arguments, it goes on where it was. Needs `pip install 'clarity_hf[report]'`, and `[baselines]` for Grad-CAM. The
last line is

    wrote runs/evaluation/report.html

`clarity-hf evaluate` does the same.
"""

import argparse
import sys
from pathlib import Path

from clarity_hf.cli.common import load, published_command, published_word
from clarity_hf.data.sources import PHANTOM
from clarity_hf.evaluation.checkpoint import BASELINES, evaluate_checkpoint
from clarity_hf.evaluation.films import open_films


def main() -> None:
    """Open model and films, evaluate, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name, folder or Hub id")
    parser.add_argument("data", help="'phantom', a folder, a table or a Hub id")
    parser.add_argument("--split", choices=["train", "validation", "test"], default="test")
    parser.add_argument("--validation_split", help="committed list of validation patients, such as nih-validation")
    parser.add_argument("--films", type=int, help="only the first films; of phantoms, 1,000 by default")
    parser.add_argument("--baselines", nargs="*", default=["random"], choices=BASELINES, help="other methods")
    parser.add_argument("--teacher", help="classifier for Grad-CAM")
    parser.add_argument("--sanity_films", type=int, default=0, help="films for deletion, insertion, random weights")
    parser.add_argument("--tuning_split", help="committed list of patients to tune on, such as nih-boxes-tuning-0")
    parser.add_argument("--min_positives", type=int, default=20, help="findings with fewer are not in means")
    parser.add_argument("--repeats", type=int, default=1000, help="draws of the bootstrap by patient")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms, bootstrap, splits and random maps")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read films ahead")
    parser.add_argument("--no_cases", action="store_true", help="draw no films, where they must not leave their place")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/evaluation"))
    arguments = parser.parse_args()

    model, processor = load(arguments.model)
    films = open_films(
        arguments.data,
        arguments.split,
        arguments.films,
        arguments.seed,
        wanted=model.config.findings,
        validation_split=arguments.validation_split,
    )
    about = {
        "model": published_word(arguments.model),
        "data": published_word(arguments.data),
        "split": arguments.split,
        "synthetic": arguments.data == PHANTOM,
        "command": published_command("python examples/evaluate_checkpoint.py", sys.argv[1:]),
    }
    path = evaluate_checkpoint(
        model,
        processor,
        films,
        arguments.output_dir,
        about,
        baselines=arguments.baselines,
        teacher=arguments.teacher,
        sanity_films=arguments.sanity_films,
        tuning_split=arguments.tuning_split,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        repeats=arguments.repeats,
        min_positives=arguments.min_positives,
        seed=arguments.seed,
        draw_cases=not arguments.no_cases,
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
