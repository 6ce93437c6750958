# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints to hand on: safetensors in half precision that load in single."""

from __future__ import annotations

import copy
import json
import os

from clarity_hf.configuration_clarity import TRAINING_DEFAULTS
from clarity_hf.files import replaced_files
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization


def save_checkpoint(
    model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor, folder: str | os.PathLike
) -> None:
    """Write a model and its image processor, weights in fp16 at half the size.

    The config says float32, so that the file is widened on loading: `from_pretrained` would otherwise compute in the
    file's own precision. What training alone reads is at its defaults. Each file takes its place whole, and none
    where the disk is full.

    Args:
        model: Left as it is.
        image_processor: The one it was trained with.
        folder: Made where it is not there.

    Raises:
        OSError: The disk is full, or `folder` cannot be written.
    """
    with replaced_files(folder) as made:
        saved = copy.deepcopy(model).half()
        saved.config.update(TRAINING_DEFAULTS)
        saved.save_pretrained(made)
        config_file = made / "config.json"
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config["dtype"] = "float32"
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        image_processor.save_pretrained(made)
