# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Inference: predictions of many images, results as DICOM and FHIR, the DICOM node and the web page."""

from .batch import predict_images
from .engines import use_engine
from .image_files import find_images
from .result_store import merge_shards

__all__ = ["find_images", "merge_shards", "predict_images", "use_engine"]
