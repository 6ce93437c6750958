# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Choose a checkpoint's score and map thresholds on validation films and save them with it.

    python examples/calibrate.py runs/nih NIH_FOLDER --output_dir runs/nih-calibrated
    python examples/calibrate.py clarity-s16-224 films.csv --rule sensitivity --sensitivity 0.95

The films are those of the validation split: what is reported afterwards must come from others. Map thresholds need
annotated boxes; without any they stay as they are. The last line is

    saved runs/calibrated: thresholds of 332 validation films
"""

import argparse
from pathlib import Path

import torch
from transformers.utils import logging

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.evaluation.calibration import calibrate
from clarity_hf.evaluation.checkpoint import describe_model
from clarity_hf.evaluation.evaluator import BoxSettings, evaluate_films
from clarity_hf.evaluation.films import open_films
from clarity_hf.evaluation.localizers import ModelLocalizer
from clarity_hf.training.runs import published_name


def main() -> None:
    """Evaluate the validation films, choose, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name, folder or Hub id")
    parser.add_argument("data", help="'phantom', a folder, a table or a Hub id")
    parser.add_argument("--split", choices=["train", "validation"], default="validation")
    parser.add_argument("--validation_split", help="committed list of validation patients, such as nih-validation")
    parser.add_argument("--films", type=int, help="only the first films")
    parser.add_argument("--rule", choices=["youden", "sensitivity", "f1"], default="youden", help="for scores")
    parser.add_argument("--sensitivity", type=float, default=0.9, help="to be reached with --rule sensitivity")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read films ahead")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/calibrated"))
    arguments = parser.parse_args()
    logging.disable_progress_bar()

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = ClarityForMultiLabelLocalization.from_pretrained(arguments.model, use_safetensors=True).eval().to(device)
    processor = ClarityImageProcessor.from_pretrained(arguments.model)
    options = {"validation_split": arguments.validation_split} if arguments.validation_split else {}
    films = open_films(arguments.data, arguments.split, arguments.films, wanted=model.config.findings, **options)
    evaluation = evaluate_films(
        ModelLocalizer(model, processor),
        films,
        BoxSettings.of_config(model.config),
        arguments.output_dir.with_name(f"{arguments.output_dir.name}-records.jsonl"),  # it names films: not published
        describe_model(model, processor) | {"data": published_name(arguments.data), "split": arguments.split},
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
    )
    found = calibrate(model.config, evaluation.records, arguments.rule, arguments.sensitivity)
    model.save_pretrained(arguments.output_dir)
    processor.save_pretrained(arguments.output_dir)
    print("| finding | positives | score threshold | boxes | map threshold |\n|---|---|---|---|---|")
    for place, finding in enumerate(model.config.findings):
        score = f"{found.score_thresholds[place]:.3f}" + (" (kept)" if place in found.kept_scores else "")
        share = f"{found.map_thresholds[place]:.2f}" + (" (of all)" if place in found.pooled_maps else "")
        print(f"| {finding} | {found.positives[place]} | {score} | {found.boxes[place]} | {share} |")
    print(f"saved {arguments.output_dir}: thresholds of {len(evaluation.records)} validation films")


if __name__ == "__main__":
    main()
