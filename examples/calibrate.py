# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Calibrate a checkpoint on validation images: scores as probabilities, score and map thresholds, saved with it.

    python examples/calibrate.py runs/nih NIH_FOLDER --output_dir runs/nih-calibrated
    python examples/calibrate.py clarity-s16-224 images.csv --rule sensitivity --sensitivity 0.95

The images are those of the validation split: what is reported afterwards must come from others. Map thresholds need
annotated boxes; without any they stay as they are. Where the images have few findings or boxes, calibrate twice: what
the second pass has too few images for stays as the first left it.

    python examples/calibrate.py runs/starter phantom --output_dir runs/on-phantoms
    python examples/calibrate.py runs/on-phantoms NIH_FOLDER --rare kept --output_dir runs/calibrated

A table says what each finding was given. Beneath it stands what such a calibration reaches on images that it has not
seen: fitted on one half of the patients, measured on the other, and the other way round. The last line is

    saved runs/calibrated: calibration on 332 validation images

`clarity-hf calibrate` does and prints the same.
"""

import sys

from clarity_hf.cli import main as clarity_hf


def main() -> int:
    """Run `clarity-hf calibrate` with the words of this command; returns the exit status."""
    return clarity_hf(["calibrate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
