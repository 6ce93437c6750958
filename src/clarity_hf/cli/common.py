# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Shared by the commands: options, loading a model, and the command line as shown in reports."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

ModelArgument = Annotated[str, typer.Argument(help="Packaged checkpoint, folder or Hub id.")]
ModelOption = Annotated[str, typer.Option(help="Packaged checkpoint, folder or Hub id.")]
DataArgument = Annotated[str, typer.Argument(help="'phantom', an image folder, a table or a Hub id.")]
ValidationSplitOption = Annotated[str | None, typer.Option(help="Committed list of patients, such as nih-validation.")]
UncertainOption = Annotated[
    Literal["nan", "negative", "positive"], typer.Option(help="How -1 in your own labels is read.")
]
EmptyOption = Annotated[
    Literal["nan", "negative"], typer.Option(help="How an empty cell of your own labels is read.")
]
BatchSizeOption = Annotated[int, typer.Option(help="Images per forward pass.")]
WorkersOption = Annotated[int, typer.Option("--num-workers", "--workers", help="Worker processes that load images.")]
RadiographCheckOption = Annotated[
    str, typer.Option(help="For images that do not look like a frontal chest radiograph: warn, refuse or off.")
]
DicomKindsOption = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated DICOM results: report, presentation, boxes, regions, probabilities, overlay. Default: "
        "all but boxes and regions."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
ServiceEngineOption = Annotated[
    str, typer.Option(help="torch, onnx, openvino, or auto: the fastest that gives torch's results here.")
]
PrecisionOption = Annotated[str | None, typer.Option(help="fp32, bf16 or int8; by default the engine's own.")]

_OUTPUT = ("--output-dir", "--output_dir")


def published_word(word: str) -> str:
    """A word of a command line without local folders, for a report that others read.

    Only the last part is kept of the output folder, of an existing path, and of a path that begins with `.`, `~` or
    `/` or has more than one `/` (a Hub id has one), also in `--option=path`.
    """
    from clarity_hf.files import published_name

    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not value:
        return word
    if option in _OUTPUT or value.startswith((".", "~", "/")) or value.count("/") > 1 or Path(value).exists():
        value = published_name(value) if Path(value).expanduser().is_dir() else Path(value).name
    return f"{option}{equals}{value}"


def published_command(program: str, words: Sequence[str]) -> str:
    """A program with its words as a command line for a report, quoted for a shell, each word by [`published_word`]."""
    shown = []
    for before, word in zip(["", *words], words, strict=False):
        # An output folder that does not exist yet looks like a Hub id.
        shown.append(Path(word).name if before in _OUTPUT else published_word(word))
    return f"{program} {shlex.join(shown)}"


def words_of(context: typer.Context) -> list[str]:
    """Words that reproduce a command: its arguments and the options that differ from their defaults."""
    words: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if value is None or value == parameter.get_default(context):
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            if parameter.param_type_name == "argument":
                words.append(str(one))
            elif isinstance(one, bool):
                words.append((parameter.opts if one else parameter.secondary_opts)[-1])
            else:
                words += [parameter.opts[-1], str(one)]
    return words


def chosen_kinds(words: str | None, default: Sequence[str]) -> list[str]:
    """Kinds of DICOM results in the comma-separated value of `--dicom-kinds`, or the default without the option."""
    return list(default) if words is None else [word.strip() for word in words.split(",") if word.strip()]


def chosen_device(device: str) -> Any:
    """The torch device for `--device`: as torch names it, or `auto`, the launcher's accelerator, else the CPU.

    Raises:
        ValueError: torch does not know the device, or it is not available.
    """
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device == "auto":
        if accelerator is None:
            return torch.device("cpu")
        place = int(os.environ.get("LOCAL_RANK", "0"))
        return torch.device(accelerator.type, place % torch.accelerator.device_count())
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"Unknown device '{device}'. Use auto, cpu, cuda, cuda:0, ...") from error
    if chosen.type != "cpu" and (accelerator is None or accelerator.type != chosen.type):
        raise ValueError(f"{chosen.type.upper()} is not available. Use --device cpu.")
    return chosen


def load(model: str, device: str = "auto") -> tuple[Any, Any]:
    """A model in evaluation mode and its image processor, from safetensors only.

    Raises:
        OSError: There is no such model.
        ValueError: The device is not available.
    """
    from transformers.utils import logging

    from clarity_hf.image_processing_clarity import ClarityImageProcessor
    from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
    from clarity_hf.packaged_checkpoints import require_model

    logging.disable_progress_bar()
    place = chosen_device(device)
    require_model(model)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(model, use_safetensors=True).eval().to(place)
    return loaded, ClarityImageProcessor.from_pretrained(model)


def load_pipeline(model: str, device: str = "auto") -> Any:
    """The pipeline of a model on a device; raises as [`load`]."""
    from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

    loaded, image_processor = load(model, device)
    return ChestXrayLocalizationPipeline(model=loaded, image_processor=image_processor, device=loaded.device)


def load_service(model: str, device: str, engine: str, precision: str | None) -> Any:
    """The pipeline of a model with its engine, for a service of many images; raises as [`load`]."""
    from clarity_hf.inference.engine_names import check_engine
    from clarity_hf.inference.engines import FEWEST_IMAGES, use_engine

    check_engine(engine, precision)
    pipeline = load_pipeline(model, device)
    chosen = use_engine(pipeline, engine, precision, images=FEWEST_IMAGES)
    if pipeline.engine is not None:
        print(f"engine: {chosen}", file=sys.stderr)
    return pipeline


def warn_of_training(model: str, patients: Sequence[str]) -> None:
    """Print how many of the patients a packaged checkpoint was trained on, if any."""
    from clarity_hf.data.named_splits import CLARITY_VALIDATION, trained_on
    from clarity_hf.files import published_name

    name = published_name(model)
    seen = len(trained_on(name, patients))
    if seen:
        print(
            f"warning: {name} was trained on {seen} of the {len(set(patients))} patients, by their ids: figures on "
            f"them are too high. Pass --validation-split {CLARITY_VALIDATION}.",
            file=sys.stderr,
        )
