# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Fine-tune a checkpoint on images and findings of your own.

    python examples/finetune.py                     a few synthetic images with a made-up table, which it writes first
    python examples/finetune.py images.csv           your table: see docs/own-labels.md for its columns
    python examples/finetune.py images.csv --model FOLDER --output_dir runs/mine --epochs 20

Class tokens and heads of findings that the checkpoint knows are kept by name; the others are newly initialised.
Expected at the end of the output, where `pipeline("chest-xray-localization", model=FOLDER)` loads the folder:

    Findings: 2 kept (Cardiomegaly, Effusion); 1 new (Opacity); 12 dropped (...)
    saved runs/finetuned: validation AUROC 0.... (... images)

A model card lies beside it, so that `clarity-hf publish` takes the folder as it is.
"""

import argparse
import csv
import logging
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image

from clarity_hf import FINDINGS, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.data.tables import load_table
from clarity_hf.data.transforms import ImageTransform, TransformedDataset
from clarity_hf.evaluation.trainer_metrics import MultilabelAuroc
from clarity_hf.metrics.classification import youden_thresholds
from clarity_hf.phantoms import draw_phantom
from clarity_hf.reporting.model_card import write_model_card
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments, adapt_findings

MODEL, OUTPUT_DIR, EPOCHS = "clarity-s16-224", "runs/finetuned", 2
BATCH_SIZE, LEARNING_RATE, VALIDATION_FRACTION = 8, 5e-5, 0.25
PHANTOMS, PHANTOM_SIZE, PHANTOM_FINDINGS = 32, 256, ("Cardiomegaly", "Effusion")
NEW_FINDING, MADE_OF = "Opacity", ("Consolidation", "Infiltration", "Mass", "Nodule", "Pneumonia")


def main() -> None:
    """Read the table, adapt the model, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", type=Path, help="CSV of images; synthetic ones by default")
    parser.add_argument("--model", default=MODEL, help="folder, packaged name or Hub id")
    parser.add_argument("--output_dir", type=Path, default=Path(OUTPUT_DIR))
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    transformers.set_seed(0)

    table = options.table or write_made_up_table(options.output_dir)
    images = load_table(table, validation_fraction=VALIDATION_FRACTION)
    if not len(images.validation):
        raise ValueError(
            f"`table` must leave images for validation, got none of {len(images.train)} in {table}. Add patients, or "
            "a column `split` with `validation` in it."
        )
    processor = ClarityImageProcessor.from_pretrained(options.model)
    model = ClarityForMultiLabelLocalization.from_pretrained(options.model, use_safetensors=True)
    model, report = adapt_findings(model, images.findings)
    print(report)

    metric = MultilabelAuroc(model.config.findings, min_positives=1)
    trainer = ClarityDistillationTrainer(
        model=model,
        args=ClarityTrainingArguments(
            output_dir=str(options.output_dir),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            logging_steps=1 if options.table is None else 25,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.accelerator.is_available(),
        ),
        train_dataset=TransformedDataset(images.train, ImageTransform(processor, augment="full")),
        eval_dataset=TransformedDataset(images.validation, ImageTransform(processor)),
        processing_class=processor,
        compute_metrics=metric.of_prediction,
    )
    trainer.train()

    prediction = trainer.predict(trainer.eval_dataset, metric_key_prefix="validation")
    scores = 1 / (1 + np.exp(-prediction.predictions.astype(np.float64)))
    model.config.score_thresholds = youden_thresholds(scores, prediction.label_ids).tolist()
    trainer.save_model()
    write_model_card(
        options.output_dir,
        model,
        data=[table.stem],
        target=table.stem,
        train_images=len(images.train),
        validation_labels=prediction.label_ids,
        metrics=prediction.metrics,
        history=trainer.state.log_history,
    )
    auroc = prediction.metrics["validation_auroc"]
    print(f"saved {options.output_dir}: validation AUROC {auroc:.3f} ({len(images.validation)} images)")


def write_made_up_table(folder: Path) -> Path:
    """Write synthetic radiographs and a table as a hospital might have it: two known findings and a new one."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient_id", *PHANTOM_FINDINGS, NEW_FINDING])
        for seed in range(PHANTOMS):
            drawn = np.random.default_rng(seed).random(len(FINDINGS)) < 0.25
            phantom = draw_phantom(seed, PHANTOM_SIZE, [FINDINGS[i] for i in np.flatnonzero(drawn)])
            Image.fromarray(phantom.image).save(folder / "images" / f"{seed}.png")
            present = {finding for finding, label in zip(FINDINGS, phantom.labels, strict=True) if label}
            labels = [*(int(name in present) for name in PHANTOM_FINDINGS), int(not present.isdisjoint(MADE_OF))]
            table.writerow([f"images/{seed}.png", f"patient {seed // 2}", *labels])
    return folder / "images.csv"


if __name__ == "__main__":
    main()
