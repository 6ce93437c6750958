# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Evaluate a classifier that has no maps: AUROC with intervals by patient, in the form of a CLARiTy's report.

    python examples/reproduce/evaluate_teacher.py TEACHER NIH_FOLDER --split test --output_dir runs/teacher-report

The last line is

    wrote runs/teacher-report/report.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModelForImageClassification

from clarity_hf.data.sources import open_source
from clarity_hf.data.transforms import FilmTransform, TransformedDataset
from clarity_hf.evaluation.records import FilmRecord
from clarity_hf.evaluation.tables import Evaluated, classification_table, plain


def main() -> None:
    """Score the films of a split, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of examples/train_teacher.py")
    parser.add_argument("data", help="a folder in the NIH release's layout")
    parser.add_argument("--split", choices=["train", "validation", "test"], default="test")
    parser.add_argument("--films", type=int, help="only the first films")
    parser.add_argument("--min_positives", type=int, default=20, help="findings with fewer are not in the mean")
    parser.add_argument("--repeats", type=int, default=1000, help="draws of the bootstrap by patient")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read films ahead")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()

    source = open_source(arguments.data)
    rows = source.splits()[arguments.split]
    if arguments.films is not None:
        rows = rows.select(range(min(arguments.films, len(rows))))
    scores = score(arguments.model, rows, source.findings, arguments.batch_size, arguments.num_workers)
    unknown = np.full(len(source.findings), np.nan)
    records = [
        FilmRecord(name, patient, (0, 0), np.array(labels, dtype=np.float64), row, unknown)
        for name, patient, labels, row in zip(
            rows["image_id"], rows["patient_id"], rows["labels"], scores, strict=True
        )
    ]
    thresholds = np.full(len(source.findings), 0.5)
    evaluated = Evaluated(records, source.findings, thresholds, arguments.min_positives, arguments.repeats)
    report = {
        "films": len(records),
        "split": arguments.split,
        "tables": {"classification": plain(classification_table(evaluated).json())},
    }
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    path = arguments.output_dir / "report.json"
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"wrote {path}")


@torch.inference_mode()
def score(name: str, rows: object, findings: tuple[str, ...], batch_size: int, num_workers: int) -> np.ndarray:
    """Scores `(n, F)` in [0, 1] of rows of a data set, in the order of `findings`.

    Raises:
        ValueError: The model does not know a finding.
    """
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = AutoModelForImageClassification.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    known = {finding: int(index) for index, finding in model.config.id2label.items()}
    missing = [finding for finding in findings if finding not in known]
    if missing:
        raise ValueError(f"`model` must know every finding, got {name} without {missing}. Train it on these labels.")
    order = [known[finding] for finding in findings]
    model = model.eval().to(device)
    seen = TransformedDataset(rows, FilmTransform(AutoImageProcessor.from_pretrained(name), prior="none"))
    batches = DataLoader(seen, batch_size=batch_size, num_workers=num_workers)
    parts = [model(batch["pixel_values"].to(device)).logits[:, order].double().sigmoid().cpu() for batch in batches]
    return torch.cat(parts).numpy()


if __name__ == "__main__":
    main()
