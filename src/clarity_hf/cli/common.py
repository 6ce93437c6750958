# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What several commands share: options, the model that they load, and the command as a report may show it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

ModelArgument = Annotated[str, typer.Argument(help="Packaged name, folder or Hub id.")]
ModelOption = Annotated[str, typer.Option(help="Packaged name, folder or Hub id.")]
DataArgument = Annotated[str, typer.Argument(help="'phantom', a folder, a table or a Hub id.")]
ValidationSplitOption = Annotated[str | None, typer.Option(help="Committed list, such as nih-validation.")]
BatchSizeOption = Annotated[int, typer.Option(help="Images per forward pass.")]
WorkersOption = Annotated[int, typer.Option("--num-workers", "--workers", help="Processes that read images ahead.")]
RadiographCheckOption = Annotated[
    str, typer.Option(help="Of what looks like no frontal chest radiograph: warn, refuse or off.")
]
DicomKindsOption = Annotated[
    str | None,
    typer.Option(
        help="DICOM results, by commas: report, presentation, boxes, regions, probabilities, overlay; by default all "
        "but boxes and regions."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]

_OUTPUT = ("--output-dir", "--output_dir")


def published_word(word: str) -> str:
    """A word of a command as a report may show it: a report is handed on, and tells no folder of this machine.

    Args:
        word: Of a command line. A path that is here, or one that begins with `.`, `~` or `/`, or has more than one `/`
            (a Hub id has one), is shown by its last part, also behind `--option=`; so is the folder of the output.
    """
    from clarity_hf.files import published_name

    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not value:
        return word
    if option in _OUTPUT or value.startswith((".", "~", "/")) or value.count("/") > 1 or Path(value).exists():
        value = published_name(value) if Path(value).expanduser().is_dir() else Path(value).name
    return f"{option}{equals}{value}"


def published_command(program: str, words: Sequence[str]) -> str:
    """A command as a report may show it, each word as by [`published_word`], quoted for a shell.

    Args:
        program: What stands in front, as it is.
        words: Of the command line after it.
    """
    shown = []
    for before, word in zip(["", *words], words, strict=False):
        # A folder of the output may not be there yet, and then looks like a Hub id.
        shown.append(Path(word).name if before in _OUTPUT else published_word(word))
    return f"{program} {shlex.join(shown)}"


def words_of(context: typer.Context) -> list[str]:
    """The words that give a command again: its arguments, and the options that differ from the defaults.

    Args:
        context: Of the command that runs.
    """
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
    """The kinds of DICOM results that `--dicom-kinds` names.

    Args:
        words: Of the command line, joined by commas.
        default: Kinds where the option is not given.
    """
    return list(default) if words is None else [word.strip() for word in words.split(",") if word.strip()]


def chosen_device(device: str) -> Any:
    """The device that `--device` names.

    Args:
        device: As torch names it, or `auto`: the accelerator of this process, as launchers number it in `LOCAL_RANK`,
            and the CPU where there is none.

    Raises:
        ValueError: torch knows no such device, or it is not here.
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
        raise ValueError(f"`device` must be auto, cpu, cuda, cuda:0, ..., got '{device}'. Correct it.") from error
    if chosen.type != "cpu" and (accelerator is None or accelerator.type != chosen.type):
        raise ValueError(f"`device` must be here, got '{device}' and none such. Leave it out or pass cpu.")
    return chosen


def load(model: str, device: str = "auto") -> tuple[Any, Any]:
    """A model, evaluating, and its image processor; from safetensors alone.

    Raises:
        OSError: There is no such model.
        ValueError: The device is not here.
    """
    from transformers.utils import logging

    from clarity_hf.image_processing_clarity import ClarityImageProcessor
    from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
    from clarity_hf.packaged_checkpoints import checkpoint_path

    logging.disable_progress_bar()
    place = chosen_device(device)
    if "/" not in model and not os.path.exists(model):
        checkpoint_path(model)  # no Hub id is without an owner: which names there are is said at once
    loaded = ClarityForMultiLabelLocalization.from_pretrained(model, use_safetensors=True).eval().to(place)
    return loaded, ClarityImageProcessor.from_pretrained(model)


def load_pipeline(model: str, device: str = "auto") -> Any:
    """The pipeline of a model and its image processor, on the device.

    Raises:
        OSError: There is no such model.
        ValueError: The device is not here.
    """
    from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

    loaded, image_processor = load(model, device)
    return ChestXrayLocalizationPipeline(model=loaded, image_processor=image_processor, device=loaded.device)
