# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""clarity_hf: classify and localize findings on chest radiographs, trained on image-level labels only.

An independent reconstruction of CLARiTy (arXiv 2512.16700) in the style of Hugging Face Transformers. For research;
not a medical device. Importing it registers the classes, the task `chest-xray-localization` and the packaged
checkpoints with transformers, and does nothing else.
"""

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_clarity import ClarityConfig
from .deprecated import old_names
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
from .packaged_checkpoints import CHECKPOINT_FOLDER, DEFAULT_CHECKPOINT, checkpoint_names, register_checkpoint_names
from .pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

if TYPE_CHECKING:
    from .training import ClarityDistillationTrainer, ClarityTrainingArguments, Teacher

__version__ = "0.1.0"

TASK = "chest-xray-localization"
"""Name of the pipeline's task."""


def _register() -> None:
    """Make the classes, the task and the checkpoint names known to transformers. There are no entry points for it."""
    AutoConfig.register(ClarityConfig.model_type, ClarityConfig, exist_ok=True)
    AutoModel.register(ClarityConfig, ClarityModel, exist_ok=True)
    AutoModelForImageClassification.register(ClarityConfig, ClarityForMultiLabelLocalization, exist_ok=True)
    AutoImageProcessor.register(
        ClarityConfig, image_processor_classes={"torchvision": ClarityImageProcessor}, exist_ok=True
    )
    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=ChestXrayLocalizationPipeline,
            pt_model=AutoModelForImageClassification,
            default={"model": (str(CHECKPOINT_FOLDER / DEFAULT_CHECKPOINT), "main")},
            type="image",
        )
    register_checkpoint_names()


_register()

_old_name = old_names(__name__)
_OF_TRAINING = ("ClarityDistillationTrainer", "ClarityTrainingArguments", "Teacher")


def __getattr__(name: str) -> Any:
    """What training needs is imported when it is asked for: inference does not wait for it."""
    if name not in _OF_TRAINING:
        return _old_name(name)
    from . import training

    return getattr(training, name)


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
