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

`clarity-hf calibrate` does and prints the same.
"""

import argparse
from pathlib import Path

from clarity_hf.cli.common import load
from clarity_hf.deployment.calibrated_checkpoint import save_calibrated
from clarity_hf.evaluation.calibration import calibrate, cross_fitted
from clarity_hf.evaluation.checkpoint import calibration_records
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
    on = f"{len(records)} {arguments.split} films"
    about = f"{on} of {published_name(arguments.data)}"
    print(save_calibrated(arguments.model, model, processor, arguments.output_dir, found, unseen, about))
    print(f"saved {arguments.output_dir}: calibration on {on}")


if __name__ == "__main__":
    main()
