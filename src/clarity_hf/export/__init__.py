# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Export: half-precision and calibrated checkpoints, publishing, other runtimes."""

from typing import TYPE_CHECKING

from clarity_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from .calibrated_checkpoint import save_calibrated
    from .checkpoint import save_checkpoint
    from .export import export_model
    from .publication_checks import check_publication
    from .publishing import Publication, prepare_publication, publish
    from .shared_graph import write_shared_graph

__getattr__ = lazy_names(
    __name__,
    {
        "calibrated_checkpoint": ("save_calibrated",),
        "checkpoint": ("save_checkpoint",),
        "export": ("export_model",),
        "publication_checks": ("check_publication",),
        "publishing": ("Publication", "prepare_publication", "publish"),
        "shared_graph": ("write_shared_graph",),
    },
)

__all__ = [
    "Publication",
    "check_publication",
    "export_model",
    "prepare_publication",
    "publish",
    "save_calibrated",
    "save_checkpoint",
    "write_shared_graph",
]
