# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a checkpoint can do: AUROC and T(IoU) on fresh phantoms and, where there is one, on an NIH folder's validation.

    python benchmarks/checkpoint_figures.py                                            (the packaged checkpoint)
    python benchmarks/checkpoint_figures.py --model FOLDER --data_dir NIH_FOLDER --films 1000

Phantoms are of the test stream, which training never sees. T(IoU) boxes the annotated finding whatever its score; the
gated column counts a box only where the finding's score passes its threshold, which is what a user sees. The constant
box of a finding sees no film: it is fixed on phantoms of the validation stream, or on one half of a folder's patients
and scored on the other, and the reverse.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers.utils import logging

from clarity_hf import FINDINGS, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.data.nih import BOX_FRAME
from clarity_hf.data.sources import PhantomRows, open_source
from clarity_hf.data.transforms import read_source
from clarity_hf.evaluation import auroc_per_finding, boxes_found, constant_box, predict, predicted_boxes

LEVELS = (0.1, 0.3, 0.5)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clarity-s16-224")
    parser.add_argument("--data_dir", help="folder in the NIH release's layout")
    parser.add_argument("--films", type=int, default=1000, help="number of phantoms")
    parser.add_argument("--size", type=int, default=256, help="side of the phantoms in pixels")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    model = ClarityForMultiLabelLocalization.from_pretrained(arguments.model).eval()
    processor = ClarityImageProcessor.from_pretrained(arguments.model)

    rows = PhantomRows(arguments.films, "test", size=arguments.size)
    phantoms = [rows.phantom(index) for index in tqdm(range(len(rows)), desc="drawing")]
    others = PhantomRows(arguments.films, "validation", size=arguments.size)
    boxes = [[(FINDINGS.index(name), box) for name, box in film.boxes] for film in phantoms]
    guess = [[(FINDINGS.index(n), b) for n, b in others.phantom(i).boxes] for i in range(len(others))]
    images = (film.image for film in phantoms)
    results = list(tqdm(predict(model, processor, images), total=len(rows), desc="phantoms"))
    constants = {finding: constant_box(np.array(found)) for finding, found in by_finding(guess).items()}
    print(f"\n## {arguments.films} phantoms of the test stream\n")
    report(model, results, np.array([film.labels for film in phantoms]), boxes, [constants] * len(boxes))

    if arguments.data_dir:
        films = open_source(arguments.data_dir).validation
        pixels = [read_source(cell) for cell in films["image"]]
        scale = [np.array([image.shape[1], image.shape[0]] * 2) / BOX_FRAME for image in pixels]
        boxes = [
            [(finding, np.array(box) * factor) for finding, box in zip(row["box_findings"], row["boxes"], strict=True)]
            for row, factor in zip(films.remove_columns("image"), scale, strict=True)
        ]
        results = list(tqdm(predict(model, processor, pixels), total=len(pixels), desc="films"))
        print(f"\n## {len(films)} validation films of {Path(arguments.data_dir).name}\n")
        report(model, results, np.array(films["labels"]), boxes, halves(films["patient_id"], boxes))


def report(model, results, labels, boxes, constants) -> None:
    """Print AUROC and T(IoU) per finding, and their means."""
    scores = np.array([result["finding_scores"].numpy() for result in results])
    areas = auroc_per_finding(scores, labels)
    thresholds = model.config.per_finding("score_thresholds")
    pairs, gated, guessed = [], [], []
    for film, (result, annotated) in enumerate(zip(results, boxes, strict=True)):
        for finding, truth in by_finding([annotated]).items():
            found = predicted_boxes(result, finding)
            pairs.append((finding, np.array(truth), found))
            shown = found if scores[film, finding] >= thresholds[finding] else np.zeros((0, 4))
            gated.append((finding, np.array(truth), shown))
            guessed.append((finding, np.array(truth), constants[film][finding][None]))
    ours, shown, constant = (boxes_found(films, LEVELS) for films in (pairs, gated, guessed))
    print("| finding | positives | AUROC | boxes | T(IoU) .1 / .3 / .5 | gated by score | constant box |")
    print("|---|---|---|---|---|---|---|")
    for index, finding in enumerate(model.config.findings):
        count = ours[index][0] if index in ours else 0
        row = [rates(table[index][1]) if count else "" for table in (ours, shown, constant)]
        positives = int((labels[:, index] == 1).sum())
        print(f"| {finding} | {positives} | {areas[index]:.3f} | {count} | {' | '.join(row)} |")
    counted = (labels == 1).sum(axis=0) >= 20
    means = [rates(np.mean([shares for _, shares in table.values()], axis=0)) for table in (ours, shown, constant)]
    area = np.nanmean(areas[counted])
    print(f"| **mean** (AUROC: ≥ 20 positives) | | {area:.3f} | | {' | '.join(means)} |")
    normal = np.flatnonzero((labels == 0).all(axis=1))
    false_boxes = (scores[normal] >= thresholds).sum(axis=1)
    print(f"\n{len(normal)} normal films: {false_boxes.mean():.2f} findings flagged a film at its thresholds")


def rates(shares) -> str:
    """T(IoU) at the three levels."""
    return " / ".join(f"{share:.2f}" for share in shares)


def by_finding(films) -> dict[int, list[np.ndarray]]:
    """Boxes of all films by finding."""
    found: dict[int, list[np.ndarray]] = {}
    for film in films:
        for finding, box in film:
            found.setdefault(finding, []).append(np.asarray(box, dtype=np.float64))
    return found


def halves(patients, boxes):
    """Per film the constant boxes that were fixed on the half of the patients that the film is not in."""
    order = np.random.default_rng(0).permutation(sorted(set(patients)))
    first = set(order[: len(order) // 2])
    films = list(zip(boxes, patients, strict=True))
    sides = [[film for film, patient in films if (patient in first) == side] for side in (False, True)]
    fixed = [{finding: constant_box(np.array(found)) for finding, found in by_finding(side).items()} for side in sides]
    return [fixed[0] if patient in first else fixed[1] for patient in patients]


if __name__ == "__main__":
    main()
