# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A tiny pipeline and a folder of images for it."""

import numpy as np
import pytest
from PIL import Image

from clarity_hf import ChestXrayLocalizationPipeline, ClarityImageProcessor


@pytest.fixture
def pipeline(tiny_model):
    return ChestXrayLocalizationPipeline(
        model=tiny_model, image_processor=ClarityImageProcessor(size={"height": 64, "width": 64})
    )


@pytest.fixture
def images(image, tmp_path):
    """Folder of seven different images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(7):
        Image.fromarray(np.roll(image, 7 * index, axis=1)).save(folder / f"{index}.png")
    return folder
