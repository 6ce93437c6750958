# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluate a classifier that has no maps: AUROC with intervals by patient, in the form of a CLARiTy's report.

    python examples/reproduce/evaluate_teacher.py TEACHER NIH_FOLDER --split test --output_dir runs/teacher-report

It reads images as examples/evaluate_checkpoint.py does: an image that cannot be read is named and left out, and equal
`data_hash` in two reports means the same images. Records, which name images, go to a folder beside the report,
`runs/teacher-report-records`; a run that was stopped resumes. The last line is

    wrote runs/teacher-report/report.json
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

from clarity_hf import ClarityImageProcessor
from clarity_hf.evaluation.evaluator import BoxSettings, Evaluation, evaluate_images
from clarity_hf.evaluation.images import open_images
from clarity_hf.evaluation.localizers import LocalizerOutput
from clarity_hf.files import published_name
from clarity_hf.fingerprints import weights_digest
from clarity_hf.metrics.records import data_digest
from clarity_hf.reporting.classification_tables import classification_table
from clarity_hf.reporting.evaluated import Evaluated
from clarity_hf.reporting.run import VERSIONED
from clarity_hf.reporting.schema import Bootstrap, Report
from clarity_hf.safe_loading import load_foreign_model

THRESHOLD = 0.5
"""Of scores, for the table's sensitivity; a teacher has none of its own."""


def main() -> None:
    """Score the images of a split, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of examples/train_teacher.py")
    parser.add_argument("data", help="'phantom', a folder, a table or a Hub id")
    parser.add_argument("--split", choices=["train", "validation", "test"], default="test")
    parser.add_argument("--validation_split", help="committed list of validation patients, such as nih-validation")
    parser.add_argument("--images", type=int, help="only the first images")
    parser.add_argument("--min_positives", type=int, default=20, help="findings with fewer are not in the mean")
    parser.add_argument("--repeats", type=int, default=1000, help="draws of the bootstrap by patient")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms and bootstrap")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read images ahead")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()

    classifier = Classifier(arguments.model)
    options = {"validation_split": arguments.validation_split} if arguments.validation_split else {}
    images = open_images(
        arguments.data, arguments.split, arguments.images, arguments.seed, wanted=classifier.findings, **options
    )
    about = {
        "model": published_name(arguments.model),
        "data": published_name(arguments.data),
        "split": arguments.split,
        "weights_hash": weights_digest(classifier.model),
    }
    thresholds = [THRESHOLD] * len(classifier.findings)
    evaluation = evaluate_images(
        classifier,
        images,
        BoxSettings(thresholds, thresholds),
        arguments.output_dir.with_name(f"{arguments.output_dir.name}-records") / "teacher.jsonl",
        about | {"preprocessing": json.loads(classifier.image_processor.to_json_string())},
        "annotated",
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
    )
    report = report_of(
        evaluation, classifier.findings, about, arguments.min_positives, arguments.repeats, arguments.seed
    )
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    path = arguments.output_dir / "report.json"
    path.write_text(report.to_json(), encoding="utf-8")
    print(f"{len(evaluation.records)} images, {len(evaluation.unreadable)} could not be read")
    print(f"wrote {path}")


class Classifier:
    """A teacher as a method to evaluate: scores, and maps of one cell that is zero, from which nothing is reported.

    Args:
        name_or_path: Folder or Hub id of a model and image processor of `examples/train_teacher.py`, safetensors only.

    Raises:
        TypeError: The image processor is another library's.
    """

    name = "teacher"

    def __init__(self, name_or_path: str):
        self.image_processor = AutoImageProcessor.from_pretrained(name_or_path)
        if not isinstance(self.image_processor, ClarityImageProcessor):
            raise TypeError(
                f"`model` must come with a ClarityImageProcessor, got {type(self.image_processor).__name__} of "
                f"{name_or_path}. Train it with examples/train_teacher.py."
            )
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        # A file in half precision would compute in it, and images come in float32.
        model = load_foreign_model(AutoModelForImageClassification, name_or_path, dtype=torch.float32)
        self.model = model.eval().to(device)
        names = {int(index): finding for index, finding in model.config.id2label.items()}
        self.findings = tuple(names[index] for index in sorted(names))

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[np.ndarray], wanted: Sequence[Sequence[int]] | None = None
    ) -> LocalizerOutput:
        """Scores of images, pixels `(H, W)` in [0, 255] each."""
        inputs = self.image_processor(list(images), return_tensors="pt").to(self.model.device)
        scores = self.model(**inputs).logits.double().sigmoid().cpu().numpy()
        return LocalizerOutput(
            scores=scores,
            maps=np.zeros((*scores.shape, 1, 1), dtype=np.float32),
            letterboxes=[self.image_processor.letterbox((image.shape[0], image.shape[1])) for image in images],
        )


def report_of(
    evaluation: Evaluation,
    findings: Sequence[str],
    about: dict[str, Any],
    min_positives: int,
    repeats: int,
    seed: int,
) -> Report:
    """The report: the classification of a CLARiTy's `report.json`.

    Args:
        evaluation: Of all images.
        findings: Names of the F findings.
        about: `model`, `data`, `split` and `weights_hash`.
        min_positives: Findings with fewer positives are not in the mean.
        repeats: Samples of the bootstrap by patient.
        seed: Of the bootstrap.
    """
    records = evaluation.records
    thresholds = np.full(len(findings), THRESHOLD)
    evaluated = Evaluated(records, tuple(findings), thresholds, min_positives, repeats, seed)
    return Report(
        about={**about, "unreadable images": len(evaluation.unreadable), "data_hash": data_digest(records)},
        caveats={},
        findings=tuple(findings),
        images=len(records),
        patients=len({record.patient for record in records}),
        score_thresholds=dict.fromkeys(findings, THRESHOLD),
        min_positives=min_positives,
        tuning_split=None,
        bootstrap=Bootstrap(repeats, seed),
        records_sha256="",
        versions={name: importlib.metadata.version(name) for name in VERSIONED},
        tables={"classification": classification_table(evaluated)},
    )


if __name__ == "__main__":
    main()
