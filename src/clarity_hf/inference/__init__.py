# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Inference: predictions of many images, results as DICOM and FHIR, the DICOM node and the web page."""

from typing import TYPE_CHECKING

from clarity_hf.lazy_names import lazy_names

if TYPE_CHECKING:
    from .batch import predict_images
    from .engines import use_engine
    from .image_files import find_images
    from .onnx_pipeline import OnnxPipeline
    from .result_store import merge_shards

__getattr__ = lazy_names(
    __name__,
    {
        "batch": ("predict_images",),
        "engines": ("use_engine",),
        "image_files": ("find_images",),
        "onnx_pipeline": ("OnnxPipeline",),
        "result_store": ("merge_shards",),
    },
)

__all__ = ["OnnxPipeline", "find_images", "merge_shards", "predict_images", "use_engine"]
