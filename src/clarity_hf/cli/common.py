# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What several commands share."""

from __future__ import annotations

import os
from typing import Any


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

    logging.disable_progress_bar()
    place = chosen_device(device)
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
