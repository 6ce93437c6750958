# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The models under transformers' `ModelTesterMixin` and the config under its `ConfigTester`.

Collected by `run_common_suites.py` only, which puts `transformers_tests` on the path.
"""

import unittest
from unittest import mock

import torch
import transformers.utils
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.testing_utils import require_torch, torch_device
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityModel

# On import it would load `transformers` anew, from the folder of the tests.
with mock.patch.object(transformers.utils, "direct_transformers_import", return_value=transformers):
    from transformers_tests.test_configuration_common import ConfigTester


class ClarityModelTester:
    """A tiny config and inputs for it, as the suite asks for them."""

    def __init__(self, parent):
        self.parent = parent
        self.batch_size = 3
        self.num_labels = 3
        self.num_channels = 3
        self.image_size = 32
        self.patch_size = 8
        self.hidden_size = 32
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.intermediate_size = 37
        self.is_training = True
        self.seq_length = self.num_labels + (self.image_size // self.patch_size) ** 2

    def get_config(self):
        return ClarityConfig(
            num_labels=self.num_labels,
            num_channels=self.num_channels,
            image_size=self.image_size,
            patch_size=self.patch_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            class_attention_layers=2,
            cam_size=16,
            cam_groups=4,
        )

    def prepare_config_and_inputs(self):
        pixel_values = floats_tensor([self.batch_size, self.num_channels, self.image_size, self.image_size])
        return self.get_config(), pixel_values

    def prepare_config_and_inputs_for_common(self):
        config, pixel_values = self.prepare_config_and_inputs()
        return config, {"pixel_values": pixel_values}


@require_torch
class ClarityModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ClarityModel, ClarityForMultiLabelLocalization)
    test_resize_embeddings = False  # there is no vocabulary

    def setUp(self):
        # By this list the suite knows the models without a head, which have no loss to train by.
        self.enterContext(mock.patch.dict(MODEL_MAPPING_NAMES, {ClarityConfig.model_type: ClarityModel.__name__}))
        self.model_tester = ClarityModelTester(self)
        self.config_tester = ConfigTester(self, config_class=ClarityConfig, has_text_modality=False, hidden_size=48)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is ClarityForMultiLabelLocalization:
            tester = self.model_tester
            size = (tester.batch_size, 1, tester.image_size, tester.image_size)
            inputs["labels"] = torch.ones(tester.batch_size, tester.num_labels, device=torch_device)
            # Without a prior the foreground has no loss, and the suite asks that every parameter has a gradient.
            inputs["anatomical_prior"] = torch.ones(size, device=torch_device)
        return inputs

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        # The suite expects a vocabulary; as in the library's other vision models, patches are projected instead.
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            assert isinstance(model.get_input_embeddings(), nn.Module)
            replacement = nn.Conv2d(3, 32, kernel_size=8, stride=8)
            model.set_input_embeddings(replacement)
            assert model.get_input_embeddings() is replacement
            assert model.get_output_embeddings() is None

    def test_every_parameter_has_a_gradient_with_labels_and_prior(self):
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = ClarityForMultiLabelLocalization(config).to(torch_device).train()
        inputs = self._prepare_for_class(inputs, ClarityForMultiLabelLocalization, return_labels=True)
        model(**inputs).loss.backward()
        assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


if __name__ == "__main__":
    unittest.main()
