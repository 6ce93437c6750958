# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluate a checkpoint: scores, boxes and maps against labels and annotated boxes, as a report that a browser opens.

    python examples/evaluate_checkpoint.py clarity-s16-224 phantom --images 1000
    python examples/evaluate_checkpoint.py runs/nih NIH_FOLDER --baselines random gradcam++ --teacher TEACHER
    python examples/evaluate_checkpoint.py clarity-s16-224 images.csv --split validation --sanity_images 50

MODEL is a name, folder or Hub id; DATA is `phantom`, a folder in the NIH release's layout, a table of your images, a
folder of images or a Hub id. Images are read one batch at a time and no map is kept; an interrupted run resumes when
started again with the same arguments. Needs `pip install 'clarity_hf[report]'`, and `[baselines]` for Grad-CAM.
The last line is

    wrote runs/evaluation/report.html

`clarity-hf evaluate` does the same.
"""

import sys

from clarity_hf.cli import main as clarity_hf


def main() -> int:
    """Run `clarity-hf evaluate` with the arguments of this command; returns the exit status."""
    return clarity_hf(["evaluate", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
