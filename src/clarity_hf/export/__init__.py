# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Export: half-precision and calibrated checkpoints, publishing, other runtimes."""

from .calibrated_checkpoint import save_calibrated
from .checkpoint import save_checkpoint
from .export import export_model
from .publication_checks import check_publication
from .publishing import Publication, prepare_publication, publish

__all__ = [
    "Publication",
    "check_publication",
    "export_model",
    "prepare_publication",
    "publish",
    "save_calibrated",
    "save_checkpoint",
]
