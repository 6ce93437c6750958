# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The value of each part of the method: one part removed at a time, on synthetic phantoms, with a small model.

    python examples/ablate.py                                  about an hour and a half on two cores
    python examples/ablate.py --images 64 --test_images 64 --seeds 1 --output_dir runs/smoke --report runs/smoke.md

Every variant is trained from random weights on the same images, once per seed, and measured on images that no run has
seen. Finished runs are kept in the output folder: the same command resumes an interrupted series. The last line is

    wrote docs/ablations.md (9 variants, 3 seeds)
"""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from scipy.stats import ttest_1samp
from tqdm import tqdm

import clarity_hf
from clarity_hf import FINDINGS, ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.boxes import Letterbox, boxes_from_map
from clarity_hf.data.sources import PhantomRows
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.files import replaced_file
from clarity_hf.metrics.classification import mean_auroc
from clarity_hf.metrics.localization import boxes_found, tune_map_thresholds
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments, Teacher
from clarity_hf.training.arguments import has_native_bf16

SIZE = 112
FINDING_RATE = 0.2
VALIDATION_IMAGES = 300
BATCH_SIZE = 32
LEARNING_RATE = 2e-3
TEACHER_EPOCHS = 2
LEVELS = (0.1, 0.3, 0.5)
MODEL = {
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "patch_size": 8,
    "image_size": SIZE,
    "num_channels": 1,
    "cam_size": 64,
    "ranking_share": 0.08,
    "background_loss_weight": 0.1,
    "prevalence": FINDING_RATE,
}
METRICS = ("AUROC", *(f"T(IoU) > {level}" for level in LEVELS), "mass outside")


@dataclass(frozen=True)
class Variant:
    """The method with one part changed.

    Attributes:
        text: What is changed.
        config: Fields of `ClarityConfig` to change.
        prior: Source of the foreground: `masks`, `atlas` or `none`.
        alpha: The teacher's share of the loss.
        maps: Other maps from the same weights: what is changed, and fields of `ClarityConfig`.
    """

    text: str
    config: dict[str, Any] = field(default_factory=dict)
    prior: str = "masks"
    alpha: float = 0.5
    maps: dict[str, dict[str, Any]] = field(default_factory=dict)


ATLAS_AT_INFERENCE = "atlas only at inference"
VARIANTS = {
    "full": Variant(
        "everything",
        maps={
            "attention alone": {"map_fusion": "attention"},
            "activation map alone": {"map_fusion": "cam"},
            "affinity of the last 3 blocks": {"affinity_layers": 3},
            "no background suppression": {"background_suppression": False},
        },
    ),
    "no_segment_cam": Variant(
        "no SegmentCAM",
        {"segment_cam": False, "map_fusion": "attention", "background_suppression": False},
    ),
    "atlas": Variant("atlas instead of masks", prior="atlas"),
    "no_prior": Variant(
        "no prior",
        {"background_suppression": False},
        prior="none",
        maps={ATLAS_AT_INFERENCE: {"background_suppression": True}},
    ),
    "no_background_loss": Variant("no L_bg", {"background_loss_weight": 0.0}),
    "no_orthogonal_loss": Variant("no L_orth", {"orthogonal_loss_weight": 0.0}),
    "mean_pooling": Variant("mean pooling", {"pooling": "mean"}),
    "no_distillation": Variant("no distillation", alpha=0.0),
    "ranking_share": Variant("ranking share 0.3", {"ranking_share": 0.3}),
}


@dataclass
class Images:
    """Phantoms in memory.

    Attributes:
        pixel_values: `(n, 1, H, W)` normalised.
        labels: `(n, F)`.
        priors: `(n, 1, 56, 56)`, the dilated thorax.
        boxes: Per image `(finding, (x0, y0, x1, y1))`, pixels of the image, right and bottom exclusive.
        teacher_logits: `(n, F)`, once the teacher has run.
    """

    pixel_values: torch.Tensor
    labels: torch.Tensor
    priors: torch.Tensor
    boxes: list[list[tuple[int, np.ndarray]]]
    teacher_logits: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def annotated(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Every (image, finding) that has boxes, with the boxes `(m, 4)`."""
        for image, boxes in enumerate(self.boxes):
            for finding in sorted({finding for finding, _ in boxes}):
                yield image, finding, np.stack([box for name, box in boxes if name == finding])


class TrainingRows(torch.utils.data.Dataset):
    """Images as a variant sees them."""

    def __init__(self, images: Images, prior: str, atlas: torch.Tensor):
        self.images, self.prior, self.atlas = images, prior, atlas

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = {"pixel_values": self.images.pixel_values[index], "labels": self.images.labels[index]}
        if self.prior != "none":
            row["anatomical_prior"] = self.atlas if self.prior == "atlas" else self.images.priors[index]
        if self.images.teacher_logits is not None:
            row["teacher_logits"] = self.images.teacher_logits[index]
        return row


def main() -> None:
    """Run missing variants, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_800, help="training images of a run, each seen once")
    parser.add_argument("--test_images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--teacher", help="folder of a classifier; default: one trained here on other phantoms")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--report", type=Path, default=Path("docs/ablations.md"))
    arguments = parser.parse_args()
    if "full" not in arguments.variants:
        parser.error("argument --variants: must include `full`, from which differences are computed")
    transformers.utils.logging.disable_progress_bar()

    processor = ClarityImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5056], image_std=[0.252]
    )
    missing = [
        (name, seed)
        for seed in range(arguments.seeds)
        for name in arguments.variants
        if not is_kept(result_file(arguments.output_dir, name, seed), settings_of(VARIANTS[name], arguments))
    ]
    if missing:
        atlas = ImageTransform(processor, prior="atlas")(PhantomRows(1, size=SIZE)[0])["anatomical_prior"]
        train = draw_images("train", arguments.images, processor)
        validation = draw_images("validation", VALIDATION_IMAGES, processor)
        test = draw_images("test", arguments.test_images, processor)
        teacher = arguments.teacher or train_teacher(arguments.output_dir / "teacher", arguments.images)
        train.teacher_logits = run_teacher(teacher, train, processor)
        for name, seed in missing:
            print(f"{name}, seed {seed}", flush=True)
            model = fit(VARIANTS[name], seed, TrainingRows(train, VARIANTS[name].prior, atlas), arguments.output_dir)
            results = measure_all(model, VARIANTS[name], validation, test, atlas)
            settings = settings_of(VARIANTS[name], arguments)
            keep_result(result_file(arguments.output_dir, name, seed), settings, results)
    write_report(arguments)


def result_file(folder: Path, name: str, seed: int) -> Path:
    """File of the figures of a run."""
    return folder / name / f"seed-{seed}.json"


def settings_of(variant: Variant, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures of a variant depend on besides the seed, as JSON."""
    settings = {
        "images": arguments.images,
        "test_images": arguments.test_images,
        "model": MODEL,
        "variant": asdict(variant),
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
    }
    return json.loads(json.dumps(settings))


def is_kept(path: Path, settings: dict[str, Any]) -> bool:
    """Whether a run can be kept; a run with other settings is reported and repeated."""
    if not path.is_file():
        return False
    kept = json.loads(path.read_text(encoding="utf-8")).get("settings")
    if kept != settings:
        changed = sorted(name for name in settings if (kept or {}).get(name) != settings[name])
        print(f"{path} has other settings ({', '.join(changed)}) and is repeated", flush=True)
    return kept == settings


def keep_result(path: Path, settings: dict[str, Any], figures: dict[str, Any]) -> None:
    """Keep the figures of a run with its settings, for [`is_kept`]; the file appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as made:
        made.write_text(json.dumps({"settings": settings, "figures": figures}, indent=2) + "\n", encoding="utf-8")


def draw_images(split: str, count: int, processor: ClarityImageProcessor) -> Images:
    """Draw phantoms of a split on all cores."""
    chunks = [(split, count, range(start, min(start + 100, count)), processor) for start in range(0, count, 100)]
    with ProcessPoolExecutor(mp_context=torch.multiprocessing.get_context("spawn")) as pool:
        parts = list(tqdm(pool.map(draw_chunk, chunks), total=len(chunks), desc=f"drawing {split}"))
    tensors = [np.concatenate(arrays) for arrays in zip(*(part[:3] for part in parts), strict=True)]
    boxes = [image for part in parts for image in part[3]]
    return Images(*(torch.from_numpy(array) for array in tensors), boxes=boxes)


def draw_chunk(job: tuple[str, int, range, ClarityImageProcessor]) -> tuple:
    """Draw some images of a split, in a separate process."""
    torch.set_num_threads(1)
    split, count, indices, processor = job
    rows, transform = PhantomRows(count, split, size=SIZE, finding_rate=FINDING_RATE), ImageTransform(processor)
    images, boxes = [], []
    for index in indices:
        phantom = rows.phantom(index)
        row = {"image": phantom.image, "labels": phantom.labels, "thorax_mask": phantom.thorax}
        images.append({name: value.numpy() for name, value in transform(row).items()})
        boxes.append([(FINDINGS.index(name), np.array(box, dtype=float)) for name, box in phantom.boxes])
    stacked = [np.stack([image[name] for image in images]) for name in ("pixel_values", "labels", "anatomical_prior")]
    return (*stacked, boxes)


def train_teacher(folder: Path, images: int) -> str:
    """A ConvNeXtV2-atto from random weights, on phantoms of another seed."""
    if not (folder / "model.safetensors").is_file():
        script = Path(__file__).with_name("train_teacher.py")
        options = {
            "size": "atto",
            "image_size": SIZE,
            "phantom_count": images,
            "finding_rate": FINDING_RATE,
            "augment": "none",
            "num_train_epochs": TEACHER_EPOCHS,
            "learning_rate": 1e-3,
            "seed": 1,
            "output_dir": folder,
        }
        flat = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        subprocess.run([sys.executable, str(script), *flat], check=True)
    return str(folder)


def run_teacher(name: str, images: Images, processor: ClarityImageProcessor) -> torch.Tensor:
    """The teacher's logits `(n, F)` for the images."""
    teacher = Teacher.from_pretrained(name, FINDINGS, processor)
    batches = tqdm(images.pixel_values.split(100), desc="running the teacher")
    return torch.cat([teacher(batch) for batch in batches])


def fit(variant: Variant, seed: int, rows: TrainingRows, folder: Path) -> ClarityForMultiLabelLocalization:
    """Train one variant from random weights."""
    transformers.set_seed(seed)
    model = ClarityForMultiLabelLocalization(ClarityConfig(**MODEL | variant.config))
    model.set_attn_implementation("eager")  # 1.4 times faster than the fused kernel's backward at this size
    args = ClarityTrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        background_warmup_epochs=0.1,
        distillation_alpha=variant.alpha,
        seed=seed,
        bf16=has_native_bf16(),
        use_cpu=not torch.accelerator.is_available(),
        save_strategy="no",
        report_to="none",
        logging_steps=100,
    )
    ClarityDistillationTrainer(model=model, args=args, train_dataset=rows).train()
    return model.eval()


def measure_all(
    model: ClarityForMultiLabelLocalization, variant: Variant, validation: Images, test: Images, atlas: torch.Tensor
) -> dict[str, dict[str, float]]:
    """The metrics of a variant, and of each of its other maps, by what is changed."""
    results = {variant.text: measure(model, validation, test)}
    for text, changes in variant.maps.items():
        kept = {name: getattr(model.config, name) for name in changes}
        model.config.update(changes)
        results[text] = measure(model, validation, test, atlas if text == ATLAS_AT_INFERENCE else None)
        model.config.update(kept)
    return results


def measure(
    model: ClarityForMultiLabelLocalization, validation: Images, test: Images, foreground: torch.Tensor | None = None
) -> dict[str, float]:
    """AUROC, T(IoU) and the maps' mass outside the thorax on the test images; thresholds come from validation.

    Args:
        model: In evaluation mode.
        validation: Images on which each finding's map threshold is chosen.
        test: Images that are scored, each annotated finding boxed whatever its score.
        foreground: `(1, 56, 56)` in place of the learnt one.
    """
    letterbox = Letterbox.fit((SIZE, SIZE), (SIZE, SIZE))
    _, maps = predict_maps(model, validation, foreground)
    pairs = ((finding, truth, maps[image, finding], letterbox) for image, finding, truth in validation.annotated())
    thresholds = tune_map_thresholds(pairs, len(FINDINGS))
    logits, maps = predict_maps(model, test, foreground)
    found = [
        (finding, truth, boxes_from_map(maps[image, finding], letterbox, thresholds[finding]))
        for image, finding, truth in test.annotated()
    ]
    shares = np.mean([share for _, share in boxes_found(found, LEVELS).values()], axis=0)
    outside = 1 - F.adaptive_avg_pool2d(test.priors, maps.shape[-2:]).numpy()
    mass = (maps * outside).sum((2, 3)) / np.maximum(maps.sum((2, 3)), 1e-9)
    present = test.labels.numpy() == 1
    figures = [mean_auroc(logits, test.labels.numpy()), *shares, mass[present].mean()]
    return dict(zip(METRICS, map(float, figures), strict=True))


@torch.inference_mode()
def predict_maps(
    model: ClarityForMultiLabelLocalization, images: Images, foreground: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(n, F)` and maps `(n, F, h, w)` of images."""
    logits, maps = [], []
    for batch in images.pixel_values.split(100):
        outputs = model(pixel_values=batch.to(model.device))
        made = outputs.localization_maps
        if foreground is not None:
            on_grid = F.adaptive_avg_pool2d(foreground[None], made.shape[-2:]).to(made)
            made = model.localize(outputs.class_attention, outputs.activation_maps, on_grid)
        logits.append(outputs.logits.cpu().numpy())
        maps.append(made.cpu().numpy())
    return np.concatenate(logits), np.concatenate(maps)


def write_report(arguments: argparse.Namespace) -> None:
    """Write the tables into the report, between its marks; the text around them is kept."""
    trained: dict[str, list[dict[str, float]]] = {}
    maps: dict[str, list[dict[str, float]]] = {}
    weights_of: dict[str, list[dict[str, float]]] = {}
    for variant, files in (
        (VARIANTS[name], [result_file(arguments.output_dir, name, seed) for seed in range(arguments.seeds)])
        for name in arguments.variants
    ):
        stored = [json.loads(file.read_text(encoding="utf-8"))["figures"] for file in files]
        trained[variant.text] = [figures[variant.text] for figures in stored]
        for text in variant.maps:
            row = f"{variant.text}: {text}"
            maps[row] = [figures[text] for figures in stored]
            weights_of[row] = trained[variant.text]
    full = trained[VARIANTS["full"].text]
    changes = changes_of(trained, dict.fromkeys(trained, full)) | changes_of(maps, weights_of)
    tried = {key: paired_p(change) for key, change in changes.items()}
    corrected = holm(tried)
    lines = [
        f"{arguments.seeds} seeds. A cell has the mean ± standard deviation over seeds and, below it, the mean",
        f"difference ± its standard deviation: from \"{VARIANTS['full'].text}\" for a model trained differently,",
        "from the row named before the colon for a different map of the same weights. p is from a paired t-test",
        f"over seeds; bold means p < .05 after Holm's correction for {len(corrected)} tests.",
        f"{arguments.images} training images, {arguments.test_images} test images; torch {torch.__version__},",
        f"transformers {transformers.__version__}, clarity_hf {clarity_hf.__version__}, {platform.machine()}.",
        "",
        *table("trained", trained, changes, corrected),
        *(["", *table("maps of the same weights", maps, changes, corrected)] if maps else []),
    ]
    write_between(arguments.report, Path(__file__).name, lines)
    print(f"wrote {arguments.report} ({len(trained)} variants, {arguments.seeds} seeds)")


def write_between(report: Path, script: str, lines: Sequence[str]) -> None:
    """Replace a script's part of a report, between its marks; the text around it is kept."""
    start, end = f"<!-- table: written by examples/{script} -->", f"<!-- end of the table of examples/{script} -->"
    before, after = "# Ablations\n\n", "\n"
    if report.is_file():
        text = report.read_text(encoding="utf-8")
        before, after = text.split(start)[0], text.split(end)[-1]
    report.write_text(before + "\n".join([start, "", *lines, "", end]) + after, encoding="utf-8")


def paired_p(changes: Sequence[float]) -> float:
    """The p-value of Student's paired test that the mean of differences over seeds is 0; NaN if they do not vary."""
    values = np.asarray(changes, dtype=np.float64)
    if len(values) < 2 or values.std() < 1e-12:
        return float("nan")
    return float(ttest_1samp(values, 0.0).pvalue)


def holm(values: Mapping[Any, float]) -> dict[Any, float]:
    """p-values corrected for multiple tests, after Holm (Scand. J. Statist. 6 (1979) 65-70); NaN is left out."""
    ordered = sorted((p, key) for key, p in values.items() if not np.isnan(p))
    corrected, highest = {}, 0.0
    for place, (p, key) in enumerate(ordered):
        highest = max(highest, min(1.0, p * (len(ordered) - place)))
        corrected[key] = highest
    return corrected


def changes_of(
    rows: Mapping[str, Sequence[Mapping[str, float]]], references: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[tuple[str, str], np.ndarray]:
    """Differences from each row's reference over seeds, by row and metric; references have none."""
    changes = {}
    for text, runs in rows.items():
        if runs is not references[text]:
            pairs = list(zip(runs, references[text], strict=True))
            changes |= {(text, name): np.array([run[name] - other[name] for run, other in pairs]) for name in runs[0]}
    return changes


def table(
    title: str,
    rows: Mapping[str, Sequence[Mapping[str, float]]],
    changes: Mapping[tuple[str, str], np.ndarray],
    corrected: Mapping[tuple[str, str], float],
) -> list[str]:
    """A Markdown table: a row per variant, a column per metric of the runs.

    Args:
        title: Of the first column.
        rows: Metrics of each seed, by variant.
        changes: From [`changes_of`].
        corrected: p-values of [`holm`] over all tests; those below .05 are bold.
    """
    metrics = list(next(iter(rows.values()))[0])
    lines = [f"| {title} | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for text, runs in rows.items():
        cells = []
        for metric in metrics:
            values = np.array([run[metric] for run in runs])
            cell = f"{values.mean():.3f} ± {values.std(ddof=1) if len(values) > 1 else 0:.3f}"
            change = changes.get((text, metric))
            if change is not None:
                moved = f"{change.mean():+.3f} ± {change.std(ddof=1) if len(change) > 1 else 0:.3f}"
                p = paired_p(change)
                moved += "" if np.isnan(p) else ", p < 0.001" if p < 0.001 else f", p {p:.3f}"
                cell += f"<br>**{moved}**" if corrected.get((text, metric), 1.0) < 0.05 else f"<br>{moved}"
            cells.append(cell)
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
