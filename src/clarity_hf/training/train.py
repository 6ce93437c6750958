# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The training recipe, from arguments to a model: image labels, anatomical priors and an optional teacher.

`clarity-hf train` and `examples/train.py` run it with arguments from the command line.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers

from clarity_hf.configuration_clarity import PER_FINDING_FIELDS, TRAINING_DEFAULTS, ClarityConfig
from clarity_hf.data.sources import JoinedRows, prevalence_of, sample_labels
from clarity_hf.data.streaming import TransformedStream
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.files import published_name
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.losses_clarity import balanced_positive_weights
from clarity_hf.metrics.classification import youden_thresholds
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
from clarity_hf.packaged_checkpoints import require_model
from clarity_hf.reporting.model_card import write_model_card
from clarity_hf.safe_loading import require_none

from . import ClarityDistillationTrainer, ClarityTrainingArguments, Teacher
from .adaptation import adapt_findings
from .arguments import default_arguments, option
from .initialization import config_from_vit, initialize_from_vit
from .recipes import (
    DataRecipe,
    RecipeData,
    augmented_transform,
    fit,
    open_recipe_sources,
    require_reporters,
    run_command,
    save_run,
)
from .teacher_cache import cache_teacher_logits

DEFAULTS = default_arguments() | {"output_dir": "runs/clarity", "learning_rate": 3e-4}
SIZES: dict[str, dict[str, Any]] = {
    "s16": {},
    "ti16": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
}
SHUFFLE_BUFFER = 1000


@dataclass
class TrainingRecipe(DataRecipe):
    """What is trained, and on what.

    Raises:
        ValueError: Two fields contradict each other.
    """

    masks_dir: str | None = option(
        None, "Folder of a release's thorax masks, if not its masks/; with --prior auto or masks."
    )
    prior: Literal["auto", "masks", "atlas", "none"] = option(
        "auto",
        "Anatomical prior: an image's own mask, else the packaged segmenter's, else the atlas; only masks or only the "
        "atlas; none.",
    )
    streaming: bool = option(
        False,
        "Read images as a stream; give --max_steps. The run is one epoch, so --background_warmup_epochs is a share of "
        "it, such as 0.1.",
    )
    model: str | None = option(None, "Checkpoint to continue from: a name, folder or Hub id. Default: new weights.")
    init: str | None = option(
        None, "ViT whose encoder a new model starts from, such as timm/vit_small_patch16_224.dino."
    )
    size: Literal["s16", "ti16"] | None = option(None, "Architecture of a new model without --init; default: s16.")
    image_size: int | None = option(
        None, "Side of the model's input, a multiple of the patch; default: the checkpoint's, or 224."
    )
    config: str | None = option(None, 'JSON of ClarityConfig fields to change, such as \'{"pooling": "linear"}\'.')
    attn_implementation: str | None = option(None, "Attention of the blocks; 'eager' trains faster on CPUs.")
    teacher: str | None = option(None, "Image classifier with the same findings.")
    teacher_cache: str | None = option(None, "Folder for the teacher's logits of every image, computed once.")
    balance_positives: bool = option(False, "Weigh positives so that both classes of a finding count equally.")
    drop_path_rate: float = option(0.0, "Stochastic depth; 0.1 to 0.2 on real images.")
    draw_rate: float = option(
        0.0,
        "Share of normal training images into which findings are drawn at known places, for evidence_loss_weight of "
        "--config.",
    )

    def __post_init__(self):
        try:
            known = isinstance(self.changes, dict)
        except json.JSONDecodeError:
            known = False
        if not known:
            raise ValueError(
                f"`config` must be a JSON object such as '{{\"pooling\": \"linear\"}}', got {self.config}. Put its "
                "names and texts in double quotes, and the whole in single ones."
            )
        if self.teacher_cache and self.teacher is None:
            raise ValueError(
                f"`teacher_cache` must come with --teacher, got {self.teacher_cache} alone. Name the teacher, or "
                "leave the cache out."
            )
        if self.model and self.init:
            raise ValueError(f"`init` must be left out with --model, got {self.init}. A checkpoint has an encoder.")
        if self.size and (self.model or self.init):
            raise ValueError(
                f"`size` must be left out with --model and --init, got {self.size}. Their weights determine it."
            )
        if not (self.size or self.model or self.init):
            self.size = "s16"
        if self.masks_dir and self.prior in ("atlas", "none"):
            raise ValueError(
                f"`masks_dir` must come with --prior auto or masks, got --prior {self.prior}. Change one of them."
            )

    @property
    def changes(self) -> dict[str, Any]:
        """Fields of `config`."""
        return json.loads(self.config or "{}")


def main(words: Sequence[str] | None = None) -> None:
    """Train with the arguments of a command line, see [`run_command`]."""
    run_command(train, (TrainingRecipe, ClarityTrainingArguments), DEFAULTS, words)


def train(recipe: TrainingRecipe, args: ClarityTrainingArguments) -> dict[str, float]:
    """Train, evaluate and save, resuming from the last checkpoint of the same run.

    Args:
        recipe: What is trained, and on what.
        args: Arguments of the Trainer. With several data sets, its metric for the best epoch becomes that of the last.

    Returns:
        Metrics on the validation images of the last data set, such as `validation_auroc`. The epoch and the thresholds
        are chosen on the same images.

    Raises:
        OSError: A data set or a checkpoint does not exist.
        ValueError: Arguments do not fit the data or each other, or the output folder belongs to another run.
    """
    require_reporters(args)
    transformers.set_seed(args.seed)
    processor = build_processor(recipe)
    recipe = replace(recipe, image_size=processor.size["height"])
    data = open_data(recipe, processor, args.seed)
    model = build_model(recipe, data.findings, sample_labels(data.images))
    data, teacher = with_teacher(recipe, data, processor, args)
    trainer = ClarityDistillationTrainer(
        teacher=teacher, **data.trainer_arguments(model, args, processor, recipe.min_positives)
    )
    prediction = fit(trainer, recipe)
    scores = 1 / (1 + np.exp(-prediction.predictions.astype(np.float64)))
    model.config.score_thresholds = youden_thresholds(scores, prediction.label_ids).tolist()
    model.config.update(TRAINING_DEFAULTS)  # run.json has the run's values

    def write_card() -> str:
        write_model_card(
            Path(args.output_dir),
            model,
            data=list(data.sources),
            target=list(data.sources)[-1],
            train_images=None if recipe.streaming else len(data.images),
            validation_labels=prediction.label_ids,
            metrics=prediction.metrics,
            history=trainer.state.log_history,
            teacher=published_name(recipe.teacher) if recipe.teacher else None,
        )
        return ""

    save_run(trainer, recipe, prediction, write_card)
    return prediction.metrics


def with_teacher(
    recipe: TrainingRecipe, data: RecipeData, processor: ClarityImageProcessor, args: ClarityTrainingArguments
) -> tuple[RecipeData, Teacher | None]:
    """The data and the recipe's teacher, or data with its cached logits and no teacher."""
    if recipe.teacher is None:
        return data, None
    require_model(recipe.teacher)
    teacher = Teacher.from_pretrained(recipe.teacher, data.findings, processor)
    if recipe.teacher_cache is None:
        return data, teacher
    known = cache_teacher_logits(
        data.images,
        teacher.to(args.device),
        processor,
        recipe.teacher_cache,
        views=("identity",) if recipe.augment == "none" else ("identity", "mirror"),
        batch_size=args.per_device_eval_batch_size,
        num_workers=args.dataloader_num_workers,
    )
    return replace(data, images=known), None


def open_data(recipe: TrainingRecipe, processor: ClarityImageProcessor, seed: int) -> RecipeData:
    """Open the data sets of a recipe, and join or shuffle their training images.

    Raises ValueError if no image has a mask for the foreground, there are several streams, or a stream is combined
    with `image_repeats` or `teacher_cache`.
    """
    plain = ImageTransform(processor, prior=recipe.prior, image_cache=recipe.image_cache)
    augmented = augmented_transform(recipe, processor, recipe.prior, recipe.draw_rate)
    options = {"masks_dir": recipe.masks_dir, "streaming": recipe.streaming}
    sources = open_recipe_sources(recipe, augmented.canvas[0], seed, **options)
    if recipe.prior == "masks" and not any(source.has_prior for source in sources.values()):
        raise ValueError(
            f"`prior` must be auto, atlas or none if no image has a mask, got masks for {list(sources)}. Give "
            "--masks_dir or another --prior."
        )
    if not recipe.streaming:
        return RecipeData(sources, JoinedRows([source.train for source in sources.values()]), augmented, plain)
    if len(sources) > 1 or recipe.image_repeats > 1 or recipe.teacher_cache:
        raise ValueError(
            f"`streaming` must be used with one data set, without --image_repeats and --teacher_cache, got "
            f"{list(sources)}. Leave --streaming out: rows with an index are read from disk too."
        )
    stream = next(iter(sources.values())).train.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
    return RecipeData(sources, stream, augmented, plain, TransformedStream)


def build_processor(recipe: TrainingRecipe) -> ClarityImageProcessor:
    """The checkpoint's preprocessing at the wanted size, or that of a new model with its number of channels."""
    if recipe.model:
        require_model(recipe.model)
        side = recipe.image_size or ClarityConfig.from_pretrained(recipe.model).image_size
        return ClarityImageProcessor.from_pretrained(recipe.model, size={"height": side, "width": side})
    side = recipe.image_size or ClarityConfig().image_size
    channels = recipe.changes.get("num_channels", len(ClarityImageProcessor.image_mean))
    return ClarityImageProcessor(
        size={"height": side, "width": side},
        image_mean=ClarityImageProcessor.image_mean[:1] * channels,
        image_std=ClarityImageProcessor.image_std[:1] * channels,
    )


def build_model(
    recipe: TrainingRecipe, findings: Sequence[str], labels: np.ndarray
) -> ClarityForMultiLabelLocalization:
    """A new model whose biases have the prevalence of the training labels `(n, F)`, or a resized checkpoint."""
    changes = {"drop_path_rate": recipe.drop_path_rate} | recipe.changes
    if recipe.balance_positives:
        changes["positive_weights"] = balanced_positive_weights(torch.from_numpy(labels)).tolist()
    if recipe.model:
        model = continued_model(recipe, findings, changes)
    else:
        settings = {
            "image_size": recipe.image_size or ClarityConfig().image_size,
            "id2label": dict(enumerate(findings)),
            "prevalence": prevalence_of(labels).round(4).tolist(),
            "background_suppression": recipe.prior != "none",  # which needs a trained foreground
        } | changes
        if recipe.init:
            model = ClarityForMultiLabelLocalization(config_from_vit(recipe.init, **settings))
            print(initialize_from_vit(model, recipe.init))
        else:
            model = ClarityForMultiLabelLocalization(ClarityConfig(**SIZES[recipe.size or "s16"] | settings))
    if recipe.attn_implementation:
        model.set_attn_implementation(recipe.attn_implementation)
    return model


def _report_new(checkpoint: str | None, missing: Collection[str]) -> None:
    """Report the weights that a changed config initialises; refuse a checkpoint that lacks its own weights."""
    if not missing:
        return
    with torch.device("meta"):
        own = ClarityForMultiLabelLocalization(ClarityConfig.from_pretrained(checkpoint)).state_dict()
    require_none(sorted(own.keys() & missing), checkpoint, "missing", "Download the file again.")
    print(f"{len(missing)} weights of the changed config are initialised: {', '.join(sorted(missing))}")


def continued_model(
    recipe: TrainingRecipe, findings: Sequence[str], changes: dict[str, Any]
) -> ClarityForMultiLabelLocalization:
    """A checkpoint with a changed config, at the wanted size and for the wanted findings."""
    # Lists with a value per finding are set once the model has the findings; other fields shape the layers.
    late = {name: changes[name] for name in PER_FINDING_FIELDS if name in changes}
    early = TRAINING_DEFAULTS | {name: value for name, value in changes.items() if name not in late}
    # Suppression stays as the checkpoint has it, because its foreground is already trained.
    model, loading = ClarityForMultiLabelLocalization.from_pretrained(
        recipe.model, use_safetensors=True, output_loading_info=True, **early
    )
    _report_new(recipe.model, loading["missing_keys"])
    if model.config.findings != list(findings):
        model, report = adapt_findings(model, findings)
        print(report)
    model.config.update(late)
    model.config.validate_architecture()
    if recipe.image_size and model.config.image_size != recipe.image_size:
        model.clarity.resize_position_embeddings(recipe.image_size)
    return model
