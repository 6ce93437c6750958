# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""clarity_hf: classify and localize findings on chest radiographs, trained on image-level labels only.

An independent reconstruction of CLARiTy (arXiv 2512.16700) in the style of Hugging Face Transformers. For research;
not a medical device. Importing it arranges that the classes, the task `chest-xray-localization` and the packaged
checkpoints are registered with transformers when that is imported, and does nothing else: public names are imported on
first use.
"""

from typing import TYPE_CHECKING

from .deprecated import old_names
from .lazy_names import lazy_names
from .registration import TASK, register

if TYPE_CHECKING:
    from .configuration_clarity import ClarityConfig
    from .dicom_reading import DicomImage, read_dicom
    from .image_processing_clarity import ClarityImageProcessor
    from .image_reading import read_image
    from .labels import FINDINGS
    from .modeling_clarity import (
        ClarityForMultiLabelLocalization,
        ClarityLocalizationOutput,
        ClarityModel,
        ClarityModelOutput,
        ClarityPreTrainedModel,
    )
    from .packaged_checkpoints import CHECKPOINT_FOLDER as CHECKPOINT_FOLDER
    from .packaged_checkpoints import DEFAULT_CHECKPOINT as DEFAULT_CHECKPOINT
    from .packaged_checkpoints import checkpoint_names
    from .pipeline_chest_xray_localization import ChestXrayLocalizationPipeline
    from .training import ClarityDistillationTrainer, ClarityTrainingArguments, Teacher

__version__ = "0.1.0"

_NAMES = {
    "configuration_clarity": ("ClarityConfig",),
    "dicom_reading": ("DicomImage", "read_dicom"),
    "image_processing_clarity": ("ClarityImageProcessor",),
    "image_reading": ("read_image",),
    "labels": ("FINDINGS",),
    "modeling_clarity": (
        "ClarityForMultiLabelLocalization",
        "ClarityLocalizationOutput",
        "ClarityModel",
        "ClarityModelOutput",
        "ClarityPreTrainedModel",
    ),
    "packaged_checkpoints": ("CHECKPOINT_FOLDER", "DEFAULT_CHECKPOINT", "checkpoint_names"),
    "pipeline_chest_xray_localization": ("ChestXrayLocalizationPipeline",),
    "training": ("ClarityDistillationTrainer", "ClarityTrainingArguments", "Teacher"),
}
"""Public names by the module that defines them, as above for type checkers."""

__getattr__ = lazy_names(__name__, _NAMES, otherwise=old_names(__name__))

register()


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *(name for names in _NAMES.values() for name in names)})


__all__ = [
    "FINDINGS",
    "TASK",
    "ChestXrayLocalizationPipeline",
    "ClarityConfig",
    "ClarityDistillationTrainer",
    "ClarityForMultiLabelLocalization",
    "ClarityImageProcessor",
    "ClarityLocalizationOutput",
    "ClarityModel",
    "ClarityModelOutput",
    "ClarityPreTrainedModel",
    "ClarityTrainingArguments",
    "DicomImage",
    "Teacher",
    "checkpoint_names",
    "read_dicom",
    "read_image",
]
