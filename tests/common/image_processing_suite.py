# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The image processor under transformers' `ImageProcessingTestMixin`.

Collected by `run_common_suites.py` only, which puts `transformers_tests` on the path.
"""

import unittest

import numpy as np
import torch
from transformers.testing_utils import require_torch, require_vision
from transformers_tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin

from clarity_hf import ClarityImageProcessor


class ClarityImageProcessingTester(ImageProcessingTester):
    """Settings of the processor and the images that the suite draws for it."""

    def __init__(self, parent, **kwargs):
        settings = {
            "size": {"height": 18, "width": 18},
            "do_resize": True,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "keep_ratio": True,
        }
        super().__init__(parent, **settings | kwargs)

    def prepare_image_inputs(self, *args, **kwargs):
        """The suite's own, but grey: arrays whose channels are independent noise are refused as several images."""
        images = super().prepare_image_inputs(*args, **kwargs)
        for image in images:
            if isinstance(image, np.ndarray):
                image[...] = image[..., :1]
            elif isinstance(image, torch.Tensor):
                image[...] = image[:1].clone()
        return images

    def _get_image_processing_classes(self):
        # The suite looks the folder of this file up among the library's own models.
        return {"torchvision": ClarityImageProcessor}


@require_torch
@require_vision
class ClarityImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ClarityImageProcessingTester
    test_cast_dtype = True


if __name__ == "__main__":
    unittest.main()
