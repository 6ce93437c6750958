# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The teacher's recipe: a ConvNeXtV2, or another image classifier, fine-tuned on the same labels as CLARiTy.

`examples/train_teacher.py` runs it with arguments from the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    TrainingArguments,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.trainer_utils import PredictionOutput

from clarity_hf.data.sources import JoinedRows, prevalence_of, sample_labels
from clarity_hf.data.transforms import ImageTransform
from clarity_hf.files import published_name, replaced_files
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.losses_clarity import multilabel_classification_loss
from clarity_hf.safe_loading import load_foreign_model, require_none

from .arguments import default_arguments, option
from .optimization import MuonWithAdamW, block_matrices
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
from .trainer import CardKeepingTrainer

DEFAULTS = default_arguments() | {"output_dir": "runs/teacher", "learning_rate": 2e-4, "weight_decay": 0.05}
SIZES = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}
"""Blocks and widths of the four stages (Woo et al., arXiv 2301.00808)."""

TAG = "clarity-teacher"
"""Tag of cards written by this recipe, whose licence is that of the weights."""

CARD = """---
{{ card_data }}
---

# A teacher for CLARiTy: {{ findings | length }} findings on chest radiographs, classified

**For research. Not a medical device; not for diagnosis.** {{ architecture }}, {{ parameters }} M parameters, input
{{ image_size }}, trained with `clarity_hf` on image-level labels. `examples/train.py --teacher FOLDER` learns from it.

```python
import clarity_hf  # its image processor
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained("FOLDER_OR_HUB_ID")
teacher = AutoModelForImageClassification.from_pretrained("FOLDER_OR_HUB_ID")
```

## Licence of the weights

{{ licence_note }}

## Data

Trained on {{ train_images }} images of {{ names }}; the epoch was chosen on {{ validation_images }} validation images
of {{ target }}. The figures below are from the same images, and therefore optimistic.

## Validation

Mean AUROC {{ auroc }}.

| finding | positives | AUROC |
|---|---|---|
{{ table }}
"""


@dataclass
class TeacherRecipe(DataRecipe):
    """Which teacher is trained, and on what."""

    model: str | None = option(
        None, "Image classifier to fine-tune, a folder or Hub id: ConvNeXtV2 of transformers or timm."
    )
    size: Literal["atto", "femto", "pico", "nano", "tiny", "base"] = option(
        "nano", "Architecture of a ConvNeXtV2 with random weights, without --model."
    )
    image_size: int = option(224, "Side of the teacher's input, which may differ from the student's.")
    image_mean: list[float] = field(
        default_factory=lambda: list(IMAGENET_DEFAULT_MEAN), metadata={"help": "Mean of each channel."}
    )
    image_std: list[float] = field(
        default_factory=lambda: list(IMAGENET_DEFAULT_STD), metadata={"help": "Standard deviation of each channel."}
    )
    matrix_optimizer: Literal["adamw", "muon"] = option(
        "adamw", "'muon' for the matrices of the blocks, AdamW for the rest: for random weights."
    )
    drop_path_rate: float = option(0.0, "Stochastic depth; 0.1 to 0.2 on real images.")
    frozen_stages: int = option(
        0,
        "First stages, including the stem, that keep the weights and statistics of --model. With two of them, a timm "
        "model with `blocks`, such as EfficientNet, trains four times as fast on a CPU.",
    )


def main(words: Sequence[str] | None = None) -> None:
    """Train with the arguments of a command line, see [`run_command`]."""
    run_command(train_teacher, (TeacherRecipe, TrainingArguments), DEFAULTS, words)


def train_teacher(recipe: TeacherRecipe, args: TrainingArguments) -> dict[str, float]:
    """Train, evaluate and save; arguments, results and errors are those of [`clarity_hf.training.train.train`]."""
    require_reporters(args)
    transformers.set_seed(args.seed)
    processor = build_processor(recipe)
    plain = ImageTransform(processor, prior="none", image_cache=recipe.image_cache)
    augmented = augmented_transform(recipe, processor, "none")
    sources = open_recipe_sources(recipe, augmented.canvas[0], args.seed)
    data = RecipeData(sources, JoinedRows([source.train for source in sources.values()]), augmented, plain)
    model = build_model(recipe, data.findings, prevalence_of(sample_labels(data.images)))
    freeze_stages(model, recipe.frozen_stages)
    trainer = CardKeepingTrainer(
        compute_loss_func=annotated_loss,
        optimizers=(build_optimizer(model, args) if recipe.matrix_optimizer == "muon" else None, None),
        **data.trainer_arguments(model, args, processor, recipe.min_positives),
    )
    prediction = fit(trainer, recipe)

    def write() -> str:
        licence = licence_of_weights(recipe.model)
        write_card(Path(args.output_dir), model, recipe, data, prediction, licence)
        return f", licence of the weights {licence[0]}"

    save_run(trainer, recipe, prediction, write)
    return prediction.metrics


def annotated_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Mean over images of the cross-entropy of their annotated findings, as `compute_loss_func` of the Trainer.

    Args:
        outputs: With `logits` `(B, F)`.
        labels: `(B, F)` of 1, 0, NaN.
        num_items_in_batch: Number of labels, including NaN, of all batches accumulated in a step, by which the Trainer
            does not divide.

    Returns:
        Scalar ≥ 0.
    """
    loss = multilabel_classification_loss(outputs.logits, labels)
    return loss if num_items_in_batch is None else loss * (labels.numel() / num_items_in_batch)


def build_processor(recipe: TeacherRecipe) -> ClarityImageProcessor:
    """The teacher's own preprocessing, which [`Teacher`] reads."""
    return ClarityImageProcessor(
        size={"height": recipe.image_size, "width": recipe.image_size},
        image_mean=recipe.image_mean,
        image_std=recipe.image_std,
    )


def build_model(recipe: TeacherRecipe, findings: Sequence[str], prevalence: np.ndarray) -> PreTrainedModel:
    """A ConvNeXtV2 with random weights, or a checkpoint.

    A new head of F `findings` starts at their `prevalence` `(F,)` among the training images, in [0.01, 0.99]. Raises
    ValueError if tensors of the checkpoint, other than those of a replaced head, are missing or of another shape.
    """
    names = {
        "id2label": dict(enumerate(findings)),
        "label2id": {finding: index for index, finding in enumerate(findings)},
        "problem_type": "multi_label_classification",
    }
    if recipe.model:
        config = AutoConfig.from_pretrained(recipe.model)
        model, loading = load_foreign_model(
            AutoModelForImageClassification,
            recipe.model,
            output_loading_info=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # our head replaces ImageNet's
            num_labels=len(findings),
            **names,
            **drop_path_settings(config, recipe.drop_path_rate),
        )
        # The original preprocessing, which would have priority over our image processor, and the original classes,
        # which timm's wrapper would save instead of ours.
        for name in ("pretrained_cfg", "label_names"):
            if hasattr(model.config, name):
                delattr(model.config, name)
        same = [config.id2label[index] for index in sorted(config.id2label)] == list(findings)
        head = () if same else {id(weight) for weight in classifier_of(model).parameters()}
        replaced = {name for name, weight in model.named_parameters() if id(weight) in head}
        absent = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])} - replaced
        remedy = "Download the file again, or correct config.json."
        require_none(sorted(absent), recipe.model, "missing or of another shape", remedy)
        if same:
            return model
    else:
        depths, widths = SIZES[recipe.size]
        model = ConvNextV2ForImageClassification(
            ConvNextV2Config(
                depths=list(depths),
                hidden_sizes=list(widths),
                image_size=recipe.image_size,
                drop_path_rate=recipe.drop_path_rate,
                **names,
            )
        )
    with torch.no_grad():
        classifier_of(model).bias.copy_(torch.logit(torch.from_numpy(prevalence), eps=0.01))
    return model


def build_optimizer(model: nn.Module, args: TrainingArguments) -> MuonWithAdamW:
    """Muon for the matrices of the blocks, which are pointwise convolutions, and AdamW for everything else."""
    groups: tuple[dict[str, Any], ...] = (
        {"params": [], "lr": args.learning_rate, "weight_decay": args.weight_decay},
        {"params": [], "lr": args.learning_rate, "weight_decay": 0.0},
    )
    for weight in model.parameters():  # scales of the response normalisation are vectors once squeezed
        groups[weight.squeeze().ndim < 2]["params"].append(weight)
    return MuonWithAdamW(groups, block_matrices(model))


def freeze_stages(model: PreTrainedModel, count: int) -> None:
    """Freeze the stem and the first stages of a timm model, including the statistics of their BatchNorms.

    Raises ValueError if the model has no such stages, or fewer.
    """
    if not count:
        return
    network: Any = getattr(model, "timm_model", None)
    stages = getattr(network, "blocks", [])
    if not 0 < count <= len(stages):
        raise ValueError(
            f"`frozen_stages` must be between 0 and the {len(stages)} stages of the model, got {count}. Only timm "
            "models with `blocks` have any."
        )
    for part in (network.conv_stem, network.bn1, *stages[:count]):
        part.requires_grad_(False)
        part.register_forward_pre_hook(lambda module, _: module.eval() and None)  # the Trainer calls `train()`


def drop_path_settings(config: PreTrainedConfig, rate: float) -> dict[str, Any]:
    """Arguments of `from_pretrained` that set a model's stochastic depth; raises ValueError if it has none."""
    if config.model_type == "timm_wrapper":
        return {"model_args": (config.model_args or {}) | {"drop_path_rate": rate}} if rate else {}
    if rate and not hasattr(config, "drop_path_rate"):
        raise ValueError(f"`drop_path_rate` must be 0 for {config.model_type}, got {rate}. It has no such field.")
    return {"drop_path_rate": rate} if hasattr(config, "drop_path_rate") else {}


def classifier_of(model: PreTrainedModel) -> nn.Linear:
    """The layer whose outputs are the logits; raises ValueError unless it is linear and has a bias."""
    wrapped = getattr(model, "timm_model", None)
    head = wrapped.get_classifier() if wrapped is not None else getattr(model, "classifier", None)
    if not isinstance(head, nn.Linear) or head.bias is None:
        raise ValueError(
            f"`model` must end in a linear layer with a bias, got {type(model).__name__}. Take a ConvNeXtV2 of "
            "transformers or a model of timm."
        )
    return head


def licence_of_weights(name: str | None) -> tuple[str, str]:
    """Licence of a model fine-tuned from `name`, None for random weights: its identifier on the Hub and a sentence."""
    if name is None:
        return "apache-2.0", "Trained from random weights with `clarity_hf`, under the same licence, Apache-2.0."
    start = published_name(name)
    readme = Path(name).expanduser() / "README.md"
    card = ModelCard.load(readme).data if readme.is_file() else ModelCardData()
    if TAG in (card.tags or []) and card.license:
        return card.license, f"Fine-tuned from {start}, whose weights are under {card.license}."
    config, _ = PreTrainedConfig.get_config_dict(name)
    if "convnextv2" in f"{config.get('model_type')} {config.get('architecture')}":
        # The licence of the authors' release, whatever a card says.
        return (
            "cc-by-nc-4.0",
            f"Fine-tuned from {start}. The weights published for ConvNeXtV2 are under CC-BY-NC-4.0, which excludes "
            "commercial use, and so are these.",
        )
    licence = (config.get("pretrained_cfg") or {}).get("license") or card.license
    if licence:
        return licence, f"Fine-tuned from {start}, whose weights are under {licence}."
    return "unknown", f"Fine-tuned from {start}, whose licence was not found: look it up before sharing these."


def write_card(
    folder: Path,
    model: PreTrainedModel,
    recipe: TeacherRecipe,
    data: RecipeData,
    prediction: PredictionOutput,
    licence: tuple[str, str],
) -> None:
    """Write `README.md` into the folder of the model.

    Args:
        folder, model: The trained model and its folder.
        recipe, data: What was trained, and on what.
        prediction: Predictions for the validation images, with their labels and metrics.
        licence: From [`licence_of_weights`].
    """
    names = [source.name for source in data.sources.values()]
    positives = (prediction.label_ids == 1).sum(0)
    findings = [model.config.id2label[index] for index in range(len(positives))]
    figures = [prediction.metrics[name] for name in ("validation_auroc", *(f"validation_auroc_{f}" for f in findings))]
    mean, *aurocs = ["undefined" if np.isnan(figure) else f"{figure:.3f}" for figure in figures]
    rows = [f"| {name} | {count} | {auroc} |" for name, count, auroc in zip(findings, positives, aurocs, strict=True)]
    card = ModelCard.from_template(
        ModelCardData(
            license=licence[0],
            library_name="transformers",
            pipeline_tag="image-classification",
            tags=["chest-x-ray", "radiology", TAG],
        ),
        template_str=CARD,
        findings=findings,
        architecture=getattr(model.config, "architecture", None) or type(model).__name__,
        parameters=f"{model.num_parameters() / 1e6:.1f}",
        image_size=f"{recipe.image_size} × {recipe.image_size}",
        licence_note=licence[1],
        train_images=f"{len(data.images):,}",
        validation_images=f"{len(prediction.label_ids):,}",
        names=" and ".join(names),
        target=names[-1],
        auroc=mean,
        table="\n".join(rows),
    )
    with replaced_files(folder) as made:  # fine-tuning this teacher reads its licence from the card
        card.save(made / "README.md")
