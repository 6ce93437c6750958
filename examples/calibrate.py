# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Calibrate a checkpoint on validation films: scores as probabilities, score and map thresholds, saved with it.

    python examples/calibrate.py runs/nih NIH_FOLDER --output_dir runs/nih-calibrated
    python examples/calibrate.py clarity-s16-224 films.csv --rule sensitivity --sensitivity 0.95

The films are those of the validation split: what is reported afterwards must come from others. Map thresholds need
annotated boxes; without any they stay as they are. Where the films have few findings or boxes, calibrate twice: what
the second pass has too few films for stays as the first left it.

    python examples/calibrate.py runs/starter phantom --output_dir runs/on-phantoms
    python examples/calibrate.py runs/on-phantoms NIH_FOLDER --rare kept --output_dir runs/calibrated

A table says what each finding was given. Beneath it stands what such a calibration reaches on films that it has not
seen: fitted on one half of the patients, measured on the other, and the other way round. The last line is

    saved runs/calibrated: calibration on 332 validation films
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from clarity_hf.cli.common import load
from clarity_hf.evaluation.calibration import Calibration, CrossFitted, calibrate, cross_fitted
from clarity_hf.evaluation.checkpoint import calibration_records


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
    parser.add_argument("--min_positives", type=int, default=5, help="with fewer a finding keeps its calibration")
    parser.add_argument("--min_boxes", type=int, default=10, help="with fewer a finding is rare")
    parser.add_argument(
        "--rare",
        choices=["pooled", "kept"],
        default="pooled",
        help="map threshold of a rare finding: the best over all boxes, or as it is",
    )
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read films ahead")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/calibrated"))
    arguments = parser.parse_args()

    model, processor = load(arguments.model)
    records = calibration_records(
        model,
        processor,
        arguments.data,
        arguments.output_dir,
        arguments.split,
        arguments.validation_split,
        arguments.films,
        arguments.batch_size,
        arguments.num_workers,
    )
    choice = (arguments.rule, arguments.sensitivity, arguments.min_positives)
    # Before the config changes: the records' scores are of the calibration that it has now, which both undo.
    unseen = cross_fitted(model.config, records, *choice)
    found = calibrate(model.config, records, *choice, arguments.min_boxes, arguments.rare)
    model.save_pretrained(arguments.output_dir)
    processor.save_pretrained(arguments.output_dir)
    print_calibration(found, model.config.findings)
    print_unseen(unseen)
    print(f"saved {arguments.output_dir}: calibration on {len(records)} {arguments.split} films")


def print_calibration(found: Calibration, findings: Sequence[str]) -> None:
    """A row per finding."""
    print("| finding | positives | slope | intercept | score threshold | boxes | map threshold |")
    print("|---|---|---|---|---|---|---|")
    for place, finding in enumerate(findings):
        score = f"{found.score_thresholds[place]:.3f}" + (" (kept)" if place in found.kept_scores else "")
        share = f"{found.map_thresholds[place]:.2f}"
        share += " (of all)" if place in found.pooled_maps else " (kept)" if place in found.kept_maps else ""
        platt = f"{found.score_slopes[place]:.3f} | {found.score_intercepts[place]:+.3f}"
        print(f"| {finding} | {found.positives[place]} | {platt} | {score} | {found.boxes[place]} | {share} |")


def print_unseen(unseen: CrossFitted) -> None:
    """What the calibration is worth on films of other patients."""
    figures = {
        "expected calibration error, uncalibrated": unseen.uncalibrated_error,
        "expected calibration error, calibrated": unseen.calibrated_error,
        "sensitivity": unseen.sensitivity,
        "specificity": unseen.specificity,
        "findings flagged on a normal film": unseen.findings_flagged,
        "boxes drawn on a normal film": unseen.boxes_drawn,
        "share of the normal films with a box": unseen.films_with_boxes,
    }
    print(
        f"\nOn the half of the patients that it was not fitted on, {unseen.repeats} draws: {unseen.films} films, "
        f"{unseen.normal_films} normal, {len(unseen.findings)} findings in the means\n"
    )
    print("| figure | mean | deviation over draws |\n|---|---|---|")
    for name, figure in figures.items():
        print(f"| {name} | {figure.mean:.3f} | {figure.deviation:.3f} |")


if __name__ == "__main__":
    main()
