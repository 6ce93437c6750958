# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Average the weights of checkpoints of one training, often better than each of them.

    python examples/average_checkpoints.py CHECKPOINT CHECKPOINT ... --output_dir OUTPUT_DIR

The checkpoints must have the same architecture and findings, and one must come from another by training: the
mean of independently trained models is useless. The averaged checkpoint has the config and the image processor of the
last one, without its calibration, which belongs to other weights: calibrate it with `clarity-hf calibrate`. Expected
output:

    wrote the mean of 2 checkpoints to OUTPUT_DIR

Source: Wortsman et al., "Model soups", ICML 2022.
"""

import argparse
from pathlib import Path

import torch

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor


def main() -> None:
    """Parse the command line, average, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="folders, names or Hub ids")
    parser.add_argument("--output_dir", type=Path, required=True)
    arguments = parser.parse_args()
    average(arguments.checkpoints).save_pretrained(arguments.output_dir)
    ClarityImageProcessor.from_pretrained(arguments.checkpoints[-1]).save_pretrained(arguments.output_dir)
    print(f"wrote the mean of {len(arguments.checkpoints)} checkpoints to {arguments.output_dir}")


def average(checkpoints: list[str]) -> ClarityForMultiLabelLocalization:
    """The last model with the mean of all weights.

    Raises:
        ValueError: Fewer than two checkpoints, or their findings or tensors differ.
    """
    if len(checkpoints) < 2:
        raise ValueError(
            f"`checkpoints` must be at least two, got {len(checkpoints)}. Name the checkpoints to average."
        )
    models = [ClarityForMultiLabelLocalization.from_pretrained(checkpoint) for checkpoint in checkpoints]
    model = models[-1]
    for checkpoint, other in zip(checkpoints[:-1], models[:-1], strict=True):
        if _layout(other) != _layout(model):
            raise ValueError(
                f"`checkpoints` must have the same architecture and findings, got {checkpoint} and {checkpoints[-1]}. "
                "Average checkpoints of one training."
            )
    model.config.drop_calibration("the weights are averaged")
    states = [each.state_dict() for each in models]
    model.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    return model


def _layout(model: ClarityForMultiLabelLocalization) -> tuple:
    """What two models must share for their weights to be averaged."""
    return model.config.id2label, {name: tensor.shape for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    main()
