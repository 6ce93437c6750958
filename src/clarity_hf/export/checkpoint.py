# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints to publish: safetensors that load in fp32, also when they are stored in fp16."""

from __future__ import annotations

import copy
import json
import os

from clarity_hf.configuration_clarity import TRAINING_DEFAULTS
from clarity_hf.files import replaced_files
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization


def save_checkpoint(
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    folder: str | os.PathLike,
    half: bool = True,
) -> None:
    """Write a model, which is not modified, and its image processor into a folder, created if needed.

    With `half`, weights are stored in fp16. The config says float32 either way: `from_pretrained` would otherwise
    compute in the file's own precision. Settings that only training reads get their defaults.

    Raises:
        OSError: The disk is full, or `folder` cannot be written; no file is then replaced.
    """
    with replaced_files(folder) as made:
        saved = copy.deepcopy(model).half() if half else copy.deepcopy(model).float()
        saved.config.update(TRAINING_DEFAULTS)
        saved.save_pretrained(made)
        config_file = made / "config.json"
        config = json.loads(config_file.read_text(encoding="utf-8"))
        config["dtype"] = "float32"
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        image_processor.save_pretrained(made)
