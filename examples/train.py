# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Train CLARiTy on image labels, with anatomical priors and, where there is one, a teacher.

    accelerate launch examples/train.py
    accelerate launch examples/train.py --data_dir NIH_FOLDER --teacher TEACHER --output_dir runs/nih
    accelerate launch examples/train.py --data_dir phantom NIH_FOLDER --film_repeats 4 --output_dir runs/mixed

Without arguments it trains on synthetic phantoms, drawn as they are read. It evaluates on the validation split of each
data set after every epoch, keeps the best epoch by mean AUROC on the last of them, resumes from the output folder
where it was stopped, and leaves there a model that `pipeline("chest-xray-localization", model=FOLDER)` loads, with
thresholds chosen on validation, the history of the run and a model card. Expected at the end of the output:

    saved runs/clarity: validation AUROC 0.9.. (... films)
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import transformers
from transformers import HfArgumentParser
from transformers.trainer_utils import get_last_checkpoint

from clarity_hf import FINDINGS, ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.data.sources import PHANTOM, JoinedRows, RepeatedRows, carries_prior, open_source
from clarity_hf.data.transforms import FilmTransform, TransformedDataset
from clarity_hf.deployment.model_card import write_model_card
from clarity_hf.evaluation import MultilabelAuroc, youden_thresholds
from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments, Teacher
from clarity_hf.training.arguments import has_native_bf16

DEFAULTS = {
    "output_dir": "runs/clarity",
    "num_train_epochs": 3,
    "learning_rate": 3e-4,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "logging_steps": 25,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "auroc",
    "greater_is_better": True,
    "dataloader_num_workers": 1,
    "report_to": "none",
    "bf16": has_native_bf16(),
    "use_cpu": not torch.accelerator.is_available(),
}
SIZES = {
    "s16": {},
    "ti16": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
}


@dataclass
class ScriptArguments:
    """What is trained, and on what."""

    data_dir: list[str] = field(
        default_factory=lambda: ["phantom"],
        metadata={"help": "Folders in the NIH release's layout, and 'phantom' for synthetic films without files."},
    )
    model: str | None = field(
        default=None, metadata={"help": "Checkpoint to continue from: a name, folder or Hub id. Default: new weights."}
    )
    size: Literal["s16", "ti16"] = field(default="s16", metadata={"help": "Architecture of a new model."})
    image_size: int = field(default=224, metadata={"help": "Side of the model's input; a multiple of 16."})
    config: str | None = field(
        default=None, metadata={"help": "JSON of ClarityConfig fields to change, such as '{\"pooling\": \"linear\"}'."}
    )
    teacher: str | None = field(default=None, metadata={"help": "Image classifier with the same findings."})
    phantom_count: int = field(default=20_000, metadata={"help": "Phantoms per epoch."})
    finding_rate: float | None = field(
        default=None, metadata={"help": "Probability of each finding in a training phantom; default: as in NIH."}
    )
    film_repeats: int = field(
        default=1, metadata={"help": "How often an epoch sees the films of a folder, to weigh them against phantoms."}
    )
    drop_path_rate: float = field(default=0.0, metadata={"help": "Stochastic depth; 0.1 to 0.2 on real films."})
    min_positives: int = field(default=20, metadata={"help": "Findings with fewer are not in the mean AUROC."})
    augment: bool = field(default=True, metadata={"help": "Random crops, flips, rotations, exposure."})
    crop_scale: float = field(default=0.7, metadata={"help": "Smallest area of a random crop."})
    verify: bool = field(
        default=False, metadata={"help": "Decode every film once before training and leave out the corrupt, by name."}
    )


def main() -> None:
    """Train, evaluate, save."""
    parser = HfArgumentParser((ScriptArguments, ClarityTrainingArguments))
    parser.set_defaults(**DEFAULTS)
    script, args = parser.parse_args_into_dataclasses()
    logging.basicConfig(level=logging.INFO if args.should_log else logging.WARNING, stream=sys.stdout)
    transformers.set_seed(args.seed)

    processor = ClarityImageProcessor(size={"height": script.image_size, "width": script.image_size})
    transforms = {
        "train": FilmTransform(processor, augment=script.augment, crop_scale=script.crop_scale),
        "validation": FilmTransform(processor),
    }
    names = [source_name(name) for name in script.data_dir]
    if len(set(names)) < len(names):
        raise ValueError(f"`data_dir` must hold data sets of different names, got {names}. Rename a folder.")
    sources = {
        source_name(name): open_source(
            name,
            phantom_count=script.phantom_count,
            seed=args.seed,
            finding_rate=script.finding_rate,
            phantom_size=transforms["train"].canvas[0],
            verify=script.verify,
        )
        for name in script.data_dir
    }
    films = JoinedRows(
        [
            splits["train"] if name == PHANTOM else RepeatedRows(splits["train"], script.film_repeats)
            for name, splits in zip(script.data_dir, sources.values(), strict=True)
        ]
    )
    train = TransformedDataset(films, transforms["train"], args.seed)
    validations = {
        name: TransformedDataset(splits["validation"], transforms["validation"]) for name, splits in sources.items()
    }
    # Mixed, films of two sources would be told apart by their look: each is measured by itself, and the last decides.
    target, validation = list(validations.items())[-1]
    if len(validations) > 1:
        args.metric_for_best_model = f"{target}_{args.metric_for_best_model}"
    has_prior = any(carries_prior(splits["train"]) for splits in sources.values())
    model = build_model(script, train_labels(films), has_prior)
    teacher = Teacher.from_pretrained(script.teacher, model.config.findings, processor) if script.teacher else None
    metric = MultilabelAuroc(model.config.findings, script.min_positives)

    trainer = ClarityDistillationTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=validations if len(validations) > 1 else validation,
        processing_class=processor,
        teacher=teacher,
        compute_metrics=lambda prediction: metric.compute(
            predictions=prediction.predictions, references=prediction.label_ids
        ),
    )
    resume_from = args.resume_from_checkpoint or last_checkpoint(args, script)
    if resume_from:
        print(f"resuming from {resume_from}")
    trainer.train(resume_from_checkpoint=resume_from)

    prediction = trainer.predict(validation, metric_key_prefix="validation")
    scores = 1 / (1 + np.exp(-prediction.predictions.astype(np.float64)))
    model.config.score_thresholds = youden_thresholds(scores, prediction.label_ids).tolist()
    trainer.save_model()
    if trainer.is_world_process_zero():
        trainer.state.save_to_json(str(Path(args.output_dir) / "trainer_state.json"))
        write_model_card(
            Path(args.output_dir),
            model,
            data=list(sources),
            target=target,
            train_films=len(train),
            validation_labels=prediction.label_ids,
            metrics=prediction.metrics,
            history=trainer.state.log_history,
            teacher=published_name(script.teacher) if script.teacher else None,
        )
        auroc = prediction.metrics["validation_auroc"]
        print(f"saved {args.output_dir}: validation AUROC {auroc:.3f} ({len(validation)} films)")
    trainer.accelerator.end_training()


def build_model(
    script: ScriptArguments, labels: np.ndarray, has_prior: bool
) -> ClarityForMultiLabelLocalization:
    """A new model with the training films' prevalence in its biases, or a checkpoint at the wanted size."""
    changes = {"drop_path_rate": script.drop_path_rate} | json.loads(script.config or "{}")
    if script.model:
        # Suppression stays as the checkpoint has it: its foreground was taught where it was trained.
        model = ClarityForMultiLabelLocalization.from_pretrained(script.model, use_safetensors=True, **changes)
        model.config.validate_architecture()
        if model.config.image_size != script.image_size:
            model.clarity.resize_position_embeddings(script.image_size)
        return model
    settings = SIZES[script.size] | {
        "image_size": script.image_size,
        "prevalence": np.nanmean(labels, axis=0).round(4).tolist(),
        "background_suppression": has_prior,  # without a prior the foreground is never taught
    }
    return ClarityForMultiLabelLocalization(ClarityConfig(**settings | changes))


def train_labels(rows: Sequence, sample: int = 500) -> np.ndarray:
    """Labels `(n, 14)` of up to `sample` evenly spaced training films, for the prevalence."""
    indices = np.unique(np.linspace(0, len(rows) - 1, sample).astype(int))
    return np.array([rows[int(index)]["labels"] for index in indices], dtype=np.float64).reshape(-1, len(FINDINGS))


def published_name(name: str) -> str:
    """A model's name for the reader: a Hub id as it is, the last part of a folder's path."""
    return Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else name


def source_name(name: str) -> str:
    """What a data set is called in metrics: the last part of a folder's path."""
    return Path(name).expanduser().resolve().name.replace("-", "_") if name != PHANTOM else name


def last_checkpoint(args: ClarityTrainingArguments, script: ScriptArguments) -> str | None:
    """The last checkpoint of this run in the output folder, if it was stopped; another run's is refused."""
    folder, described = Path(args.output_dir), asdict(script)
    record = folder / "run.json"
    if record.is_file() and (checkpoint := get_last_checkpoint(args.output_dir)):
        earlier = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(name for name in described if earlier.get(name) != described[name])
        if changed:
            raise ValueError(
                f"`output_dir` must be of the same run, got {folder} of a run that differs in {changed}. "
                "Give another --output_dir or delete the folder."
            )
        return checkpoint
    if args.should_save:
        folder.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
