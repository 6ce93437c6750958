# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Small ViTs of three layouts and small CLARiTys, for tests: 24 wide, 2 blocks, 32 × 32 pixels, 4 × 4 patches."""

import torch
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from clarity_hf import ClarityConfig, ClarityModel

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
TIMM_SIZES = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "img_size": 32, "patch_size": 8}
CLARITY = {**SIZES, "intermediate_size": 48, "class_attention_layers": 1, "cam_size": 8, "cam_groups": 2}
EXACT = {"rtol": 1e-5, "atol": 1e-5}


def randomised(module, seed=0):
    """Every weight drawn, LayerNorms, biases and LayerScales too, so that a swap of any two shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + (weight.ndim == 1) * 0.5)
    return module.eval()


def vit(cls=ViTModel, **changes):
    return randomised(cls(ViTConfig(**{**SIZES, "intermediate_size": 48, **changes})))


def dinov2(cls=Dinov2Model, **changes):
    return randomised(cls(Dinov2Config(**{**SIZES, "mlp_ratio": 2, **changes})))


def timm_vit(**changes):
    from timm.models.vision_transformer import VisionTransformer

    return randomised(VisionTransformer(**{**TIMM_SIZES, "num_classes": 2, **changes}))


def clarity(cls=ClarityModel, findings=("Mass",), seed=1, **changes):
    torch.manual_seed(seed)
    return cls(ClarityConfig(**{**CLARITY, "id2label": dict(enumerate(findings)), **changes})).eval()


def images(height=32, width=32, channels=3):
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(2))


def tokens_of(module, pixels):
    """Class and patch tokens after the final LayerNorm `(B, 1 + N, D)`."""
    with torch.no_grad():
        if hasattr(module, "forward_features"):
            return module.forward_features(pixels)
        return module(pixels).last_hidden_state


def assert_same_weights(model, other):
    state, expected = model.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    assert [name for name, weight in state.items() if not torch.equal(weight, expected[name])] == []
