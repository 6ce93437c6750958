# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The value of each part on real radiographs: a checkpoint is trained further, with one part changed at a time.

    python examples/ablate_images.py NIH_FOLDER BOXES_FOLDER --teacher runs/teacher-lite0

Every run trains the packaged checkpoint for 60 steps of 32 images of NIH_FOLDER at 112 pixels. AUROC is measured on
the folder's validation patients, maps on the validation images of BOXES_FOLDER (which may be the same) that have
annotated boxes. All variants of a seed come before the next seed, and finished runs are kept: the same command resumes
an interrupted series. The last line is

    wrote docs/ablations.md (8 variants, 5 seeds)
"""

import argparse
import json
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import clarity_hf
from ablate import changes_of, holm, is_kept, keep_result, paired_p, result_file, table, write_between
from clarity_hf.boxes import boxes_from_map, map_over_image
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.evaluation import BoxSettings, EvaluationImage, ModelLocalizer, RowImages
from clarity_hf.metrics.classification import auroc_per_finding, macro
from clarity_hf.metrics.classification_rivals import within_view
from clarity_hf.metrics.image_driven import COMPARED_LEVELS, MOST_FIXED_BOXES, AnnotatedMaps, covered_cells
from clarity_hf.metrics.localization import tune_map_thresholds
from clarity_hf.metrics.records import MAP_CELLS
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments
from clarity_hf.training.arguments import default_arguments
from clarity_hf.training.recipes import open_recipe_sources
from clarity_hf.training.train import TrainingRecipe, build_model, build_processor, open_data, with_teacher

NOT_AVERAGED = ("Pneumonia",)
"""In the NIH release it depends on the source of an image: nearly all of its radiographs are from one selection."""

LEVEL = COMPARED_LEVELS.index(0.3)
RECIPE = {
    "image_size": 112,
    "validation_split": "clarity-validation",
    "crop_scale": 0.8,
    "blur": 1.0,
    "draw_rate": 0.4,
    "drop_path_rate": 0.1,
    "attn_implementation": "eager",
}
CONFIG = {"background_loss_weight": 0.1, "evidence_loss_weight": 0.5, "map_attention_share": 0.2, "map_power": 0.5}
ARGUMENTS = {
    "max_steps": 60,
    "matrix_optimizer": "muon",
    "muon_iterations": 3,
    "learning_rate": 4e-4,
    "background_warmup_epochs": 0.0,
    "dataloader_num_workers": 0,
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Variant:
    """The training with one part changed: fields of the recipe, the config and the Trainer's arguments.

    Attributes:
        text: What is changed.
        recipe, config, arguments: Changes to `RECIPE`, `CONFIG` and `ARGUMENTS`.
    """

    text: str
    recipe: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "full": Variant("everything"),
    "no_teacher": Variant("no teacher", {"teacher": None}),
    "no_drawn_findings": Variant("no drawn findings", {"draw_rate": 0.0}, {"evidence_loss_weight": 0.0}),
    # For 48 of the 60 steps on the 9,263 images: the last ones see all patches.
    "patch_dropout": Variant("half of the patches", arguments={"patch_dropout": 0.5, "patch_dropout_epochs": 0.166}),
    "no_background_loss": Variant("no L_bg", config={"background_loss_weight": 0.0}),
    "atlas": Variant("atlas instead of masks", {"prior": "atlas"}),
    "no_foreground_loss": Variant("no L_seg", config={"foreground_loss_weight": 0.0}),
    "no_orthogonal_loss": Variant("no L_orth", config={"orthogonal_loss_weight": 0.0}),
}


def main() -> None:
    """Run missing variants, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="folder in the layout of the NIH release")
    parser.add_argument("boxes", help="folder in the same layout whose validation images have boxes")
    parser.add_argument("--model", default="clarity-s16-224", help="checkpoint from which every run starts")
    parser.add_argument("--teacher", required=True, help="classifier with the same findings")
    parser.add_argument("--image_cache", help="folder that keeps decoded images and their masks, as in training")
    parser.add_argument("--steps", type=int, default=ARGUMENTS["max_steps"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--processes", type=int, default=2, help="runs at the same time, of one thread each")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/ablations-images"))
    parser.add_argument("--report", type=Path, default=Path("docs/ablations.md"))
    arguments = parser.parse_args()
    if "full" not in arguments.variants:
        parser.error("argument --variants: must include `full`, from which differences are computed")
    jobs = [
        (name, seed)
        for seed in range(arguments.seeds)
        for name in arguments.variants
        if not is_kept(result_file(arguments.output_dir, name, seed), settings_of(name, arguments))
    ]
    with ProcessPoolExecutor(arguments.processes, torch.multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, name, seed, arguments) for name, seed in jobs]):
            print(*done.result(), flush=True)
    write_report(arguments)


def settings_of(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures of a variant depend on besides the seed, as JSON."""
    settings = {
        "model": arguments.model,
        "teacher": arguments.teacher,
        "recipe": RECIPE,
        "config": CONFIG,
        "arguments": ARGUMENTS | {"max_steps": arguments.steps},
        "variant": asdict(VARIANTS[name]),
    }
    return json.loads(json.dumps(settings))


def run(name: str, seed: int, arguments: argparse.Namespace) -> tuple[str, int, dict[str, float]]:
    """Train and measure one variant in this process, and keep its figures."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    variant, settings = VARIANTS[name], settings_of(name, arguments)
    recipe = TrainingRecipe(
        data_dir=[arguments.images],
        model=arguments.model,
        image_cache=arguments.image_cache,
        config=json.dumps(CONFIG | variant.config),
        **RECIPE | {"teacher": arguments.teacher} | variant.recipe,
    )
    args = ClarityTrainingArguments(
        output_dir=str(arguments.output_dir / "trainer" / f"{name}-{seed}"),
        seed=seed,
        **default_arguments() | settings["arguments"] | variant.arguments,
    )
    transformers.set_seed(seed)
    processor = build_processor(recipe)
    data = replace(
        open_data(recipe, processor, seed),
        plain=ImageTransform(processor, prior="none", image_cache=recipe.image_cache),
    )
    model = build_model(recipe, data.findings, np.zeros((0, len(data.findings))))
    data, teacher = with_teacher(recipe, data, processor, args)
    trainer = ClarityDistillationTrainer(
        teacher=teacher, **data.trainer_arguments(model, args, processor, recipe.min_positives)
    )
    trainer.train()
    prediction = trainer.predict(trainer.eval_dataset)
    validation = next(iter(data.sources.values())).validation
    figures = measure_scores(prediction.predictions, prediction.label_ids, validation, data.findings)
    boxed = next(iter(open_recipe_sources(replace(recipe, data_dir=[arguments.boxes]), 0, seed).values())).validation
    images = RowImages(boxed.filter(bool, input_columns="boxes"), data.findings)
    figures |= measure_maps(ModelLocalizer(model.eval(), processor), [images[index] for index in range(len(images))])
    keep_result(result_file(arguments.output_dir, name, seed), settings, figures)
    return name, seed, figures


def measure_scores(logits: np.ndarray, labels: np.ndarray, rows: Any, findings: tuple[str, ...]) -> dict[str, float]:
    """Mean AUROC of the findings with 20 positives, without `NOT_AVERAGED`, over all images and within a view."""
    labels = labels.copy()
    labels[:, [findings.index(name) for name in NOT_AVERAGED if name in findings]] = np.nan
    inside = within_view(logits, labels, rows["view"], rows["patient_id"], repeats=1).mean
    return {
        "AUROC": macro(auroc_per_finding(logits, labels), labels),
        "AUROC within a view": macro(inside, labels),
    }


def measure_maps(localizer: ModelLocalizer, images: list[EvaluationImage]) -> dict[str, float]:
    """Figures of maps and boxes beside rivals that see no image; map thresholds are tuned on the same images."""
    pairs = []
    for image in images:
        output = localizer([image.pixels])
        pairs += [(image, finding, output.maps[0, finding], output.letterboxes[0]) for finding in image.boxes]
    tuned = tune_map_thresholds([(f, image.boxes[f], m, box) for image, f, m, box in pairs], len(localizer.findings))
    settings = replace(BoxSettings.of_config(localizer.model.config), map_thresholds=tuned.tolist())
    frames = [np.array(image.pixels.shape[::-1] * 2) for image, *_ in pairs]
    annotated = [image.boxes[f] / frame for (image, f, *_), frame in zip(pairs, frames, strict=True)]
    boxes = [boxes_from_map(m, box, *settings.rule(f)) for _, f, m, box in pairs]
    own = [found / frame for found, frame in zip(boxes, frames, strict=True)]
    maps = AnnotatedMaps(
        findings=np.array([f for _, f, *_ in pairs]),
        patients=np.array([image.patient for image, *_ in pairs]),
        boxes=tuple(annotated),
        own=tuple(own),
        cells=np.stack([map_over_image(m, box, (MAP_CELLS, MAP_CELLS)) for *_, m, box in pairs]),
        covered=np.stack([covered_cells(boxes) for boxes in annotated]),
        num_findings=len(localizer.findings),
    )
    hits = maps.hits_of(own)
    fixed = maps.fixed_box_hits(int(np.clip(round(hits.boxes_predicted), 1, MOST_FIXED_BOXES)))
    aurocs = maps.pixel_aurocs()
    return {
        "pixel AUROC, excess": float(np.nanmean(aurocs["own"] - aurocs["mean_map"])),
        "own − fixed boxes": float((hits.shares - fixed.shares)[:, LEVEL].mean()),
        "own − swapped": float((hits.shares - maps.swapped_hits().shares)[:, LEVEL].mean()),
        "diseased side": float(np.nanmean(maps.sides()["raw"])),
    }


def write_report(arguments: argparse.Namespace) -> None:
    """Write the table into the report, between its marks; the text around it is kept."""
    rows = {
        VARIANTS[name].text: [
            json.loads(result_file(arguments.output_dir, name, seed).read_text())["figures"]
            for seed in range(arguments.seeds)
        ]
        for name in arguments.variants
    }
    full = rows[VARIANTS["full"].text]
    changes = changes_of(rows, dict.fromkeys(rows, full))
    corrected = holm({key: paired_p(change) for key, change in changes.items()})
    lines = [
        f"{arguments.seeds} seeds of {arguments.steps} steps. Cells as in the table above: mean ± standard deviation,",
        f'difference from "{VARIANTS["full"].text}", p of a paired t-test over seeds, bold below .05 after Holm\'s',
        f"correction for {len(corrected)} tests. torch {torch.__version__}, transformers {transformers.__version__},",
        f"clarity_hf {clarity_hf.__version__}, {platform.machine()}.",
        "",
        *table("trained", rows, changes, corrected),
    ]
    write_between(arguments.report, Path(__file__).name, lines)
    print(f"wrote {arguments.report} ({len(rows)} variants, {arguments.seeds} seeds)")


if __name__ == "__main__":
    main()
