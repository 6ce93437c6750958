# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The phantom benchmark: a checkpoint and all baselines on the same 2,000 phantoms, tabulated in docs/benchmarks.md.

    python benchmarks/phantom_benchmark.py --teacher TEACHER
    python benchmarks/phantom_benchmark.py --model FOLDER --teacher TEACHER --images 200 --tuning_images 100 --no_write

Images, seeds and findings are fixed: the first 2,000 of the test stream, which no training sees, and the first 500 of
the validation stream, on which each method's map thresholds and the fixed box are chosen. Methods are scored twice:
with boxes around all regions of a map, any of which may match, and around the largest region only. Regions of all maps
are split with the model's config. An interrupted run resumes.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers.utils import logging

from clarity_hf import FINDINGS, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.evaluation.evaluator import BoxSettings, evaluate_images
from clarity_hf.evaluation.images import PhantomImages
from clarity_hf.evaluation.localizers import Localizer, ModelLocalizer
from clarity_hf.evaluation.run import BASELINES, make_baselines
from clarity_hf.files import published_name
from clarity_hf.fingerprints import describe_model, weights_digest
from clarity_hf.labels import BOXED_FINDINGS
from clarity_hf.metrics.bootstrap import localization_difference
from clarity_hf.metrics.classification import auroc_per_finding, mean_auroc
from clarity_hf.metrics.matching import Overlaps, annotated_boxes
from clarity_hf.metrics.published_protocols import pointing_game
from clarity_hf.metrics.records import ImageRecord
from clarity_hf.phantoms import GENERATOR_VERSION

LEVELS = (0.1, 0.3, 0.5)
GOALS = "AUROC ≥ .95, T(IoU) ≥ .90/.80/.60, and at .3 at least 1.25 × Grad-CAM++"
PAGE = Path("docs/benchmarks.md")
BEGIN, END = "<!-- phantom benchmark: begin -->", "<!-- phantom benchmark: end -->"
HAS_SCORES = {"clarity", "gradcam", "gradcam++"}
"""Methods with scores of their own; the others score nothing, or with the model's scores."""


def main() -> None:
    """Evaluate what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clarity-s16-224")
    parser.add_argument("--teacher", help="classifier for Grad-CAM; left out without one")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--tuning_images", type=int, default=500)
    parser.add_argument("--num_workers", type=int, default=1, help="processes that draw images ahead")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/phantom-benchmark"))
    parser.add_argument("--no_write", action="store_true", help="print the table and leave the page as it is")
    arguments = parser.parse_args()
    logging.disable_progress_bar()

    model = ClarityForMultiLabelLocalization.from_pretrained(arguments.model, use_safetensors=True).eval()
    ours = ModelLocalizer(model, ClarityImageProcessor.from_pretrained(arguments.model))
    if ours.findings != FINDINGS:
        parser.error(f"argument --model: must have the findings {list(FINDINGS)}, has {list(ours.findings)}")
    names = [name for name in BASELINES if arguments.teacher or not name.startswith("gradcam")]
    about = describe_model(model, ours.image_processor)
    half = [0.5] * len(FINDINGS)  # without effect: thresholds are chosen on the tuning images
    settings = BoxSettings(half, half, valleys=model.config.per_finding("box_valleys"))
    results = {"clarity": records_of("clarity", ours, settings, about, arguments)}
    for name, localizer in make_baselines(names, ours, arguments.teacher).items():
        classifier = getattr(localizer, "classifier", None)
        source = about if classifier is None else about | {"classifier": weights_digest(classifier)}
        results[name] = records_of(name, localizer, settings, source, arguments)
    text = table(results, arguments)
    print(text)
    if not arguments.no_write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")
        print(f"wrote {PAGE}")


def records_of(
    name: str, localizer: Localizer, settings: BoxSettings, about: dict[str, Any], arguments: argparse.Namespace
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Records of the tuning images and of the images that are scored."""
    records = []
    for split, count in (("validation", arguments.tuning_images), ("test", arguments.images)):
        evaluation = evaluate_images(
            localizer,
            PhantomImages(count, split),
            settings,
            arguments.output_dir / f"{name}-{split}.jsonl",
            about,
            maps="annotated" if name.startswith("gradcam") else "all",
            num_workers=arguments.num_workers,
        )
        records.append(evaluation.records)
    return records[0], records[1]


def overlaps_of(
    records: tuple[list[ImageRecord], list[ImageRecord]], components: Literal["largest", "all"] = "all"
) -> tuple[Overlaps, Overlaps]:
    """Overlaps on the scored images of the method's boxes and of the fixed box, both chosen on the tuning images."""
    tuning, scored = (annotated_boxes(part, components, len(FINDINGS)) for part in records)
    return scored.predicted(tuning.tuned_thresholds()), scored.with_fixed_boxes(tuning.fixed_boxes())


def table(results: dict[str, Any], arguments: argparse.Namespace) -> str:
    """Methods by their means, then the model finding by finding."""
    drawn = {name: overlaps_of(records)[0] for name, records in results.items()}
    fixed = overlaps_of(results["clarity"])[1]
    eight = [FINDINGS.index(name) for name in BOXED_FINDINGS]
    lines = [
        "| method | AUROC | T(IoU) .1 / .3 / .5, any region | boxes per map | largest region alone | "
        "of the 8 that NIH boxes, any region | pointing game |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, overlaps in {**drawn, "fixed box": fixed}.items():
        area = mean_auroc(*scores_of(results[name][1])) if name in HAS_SCORES else float("nan")
        hits = pointing_game(results[name][1]).macro if name in results else float("nan")
        shares = overlaps.found(LEVELS).shares
        largest = shares if name not in results else overlaps_of(results[name], "largest")[0].found(LEVELS).shares
        drawn_each = f"{overlaps.boxes_predicted:.1f}"
        figures = (cell(area), rates(shares), drawn_each, rates(largest), rates(shares[eight]), cell(hits))
        lines.append(f"| {name} | {' | '.join(figures)} |")
    scores, labels = scores_of(results["clarity"][1])
    areas, ours, guess = auroc_per_finding(scores, labels), drawn["clarity"].found(LEVELS), fixed.found(LEVELS)
    lines += ["", "| finding | positives | AUROC | boxes | T(IoU) .1 / .3 / .5 | fixed box |"]
    lines += ["|---|---|---|---|---|---|"]
    for place, finding in enumerate(FINDINGS):
        positives, boxes = int((labels[:, place] == 1).sum()), int(ours.counts[place])
        figures = (cell(areas[place]), str(boxes), rates(ours.shares[[place]]), rates(guess.shares[[place]]))
        lines.append(f"| {finding} | {positives} | {' | '.join(figures)} |")
    lines += ["", verdict(results, drawn), ""]
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = shlex.join(["python", "benchmarks/phantom_benchmark.py", *words])
    head = (
        f"    {command}\n\n"
        f"`{published_name(arguments.model)}`, generator {GENERATOR_VERSION}, {arguments.images:,} images of the test "
        f"stream, thresholds from {arguments.tuning_images:,} of the validation stream.\n\n"
    )
    return head + "\n".join(lines)


def verdict(results: dict[str, Any], drawn: dict[str, Overlaps]) -> str:
    """The goals beside what was reached, and the paired difference to Grad-CAM++."""
    shares = drawn["clarity"].found(LEVELS).macro
    area = mean_auroc(*scores_of(results["clarity"][1]))
    text = f"Goals: {GOALS}. Reached: AUROC {cell(area)}, T(IoU) {rates(shares[None])}"
    if "gradcam++" not in drawn:
        return text + "; Grad-CAM++ was not run."
    other = float(drawn["gradcam++"].found(LEVELS).macro[1])
    difference = localization_difference(drawn["clarity"], drawn["gradcam++"], LEVELS)
    low, high = difference.macro.low[1], difference.macro.high[1]
    ratio = f"{shares[1] / other:.2f} ×" if other else "above"
    return text + f"; {ratio} Grad-CAM++ at .3 (difference {shares[1] - other:+.2f}, 95 % {low:+.2f} to {high:+.2f})."


def scores_of(records: list[ImageRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels `(n, F)`."""
    return np.stack([record.scores for record in records]), np.stack([record.labels for record in records])


def rates(shares: np.ndarray) -> str:
    """Mean of shares `(findings, 3)` over the findings with boxes, or nothing where there are none."""
    boxed = shares[~np.isnan(shares).any(axis=1)]
    return " / ".join(f"{share:.2f}" for share in boxed.mean(axis=0)) if len(boxed) else ""


def cell(value: float) -> str:
    """A figure, or nothing where it is undefined."""
    return "" if np.isnan(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
