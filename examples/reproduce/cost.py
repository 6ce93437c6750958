# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What each row of the paper's tables costs: FLOPs counted by torch, hours estimated from them.

    python examples/reproduce/cost.py                               seconds; nothing is computed, only counted
    python examples/reproduce/cost.py --images NIH_FOLDER/images     and how long a core of this machine reads an image

FLOPs of matrix products and convolutions, a multiplication and an addition apart, are counted by torch's
FlopCounterMode over one step of the very models, on tensors without data. Hours are these FLOPs at a sustained
throughput that was measured by others for like models on one GPU (`PUBLISHED`): an estimate, no measurement of ours.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rows import Row, load_rows
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification, PreTrainedModel

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.data.transforms import ImageTransform, TransformedDataset
from clarity_hf.losses_clarity import multilabel_classification_loss

TRAIN_IMAGES, VALIDATION_IMAGES, TEST_IMAGES = 69_598, 16_926, 25_596
"""Of the release, with a fifth of the patients of its train list for validation, as the scripts draw them."""

PUBLISHED = {("vit_small_patch16", 224): 1057.92, ("vit_small_patch16", 384): 239.06, ("convnext_base", 224): 338.68}
"""Images a second of training on one RTX 3090 (24 GB) with automatic mixed precision, by model and side: timm's
`results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv`."""

ASSUMED = {"24 GB (RTX 3090)": 22.0, "80 GB (A100)": 97.0}
"""Sustained TFLOP/s. The first is the lowest that `PUBLISHED` comes to in FLOPs as counted here, 31 % of the GPU's 71
in half precision; the second the same share of an A100's 312."""

STATE_BYTES = 16
"""Of a weight: itself, its gradient and AdamW's two moments, in fp32."""

TIMED_IMAGES = 100
READERS = 8


@dataclass(frozen=True)
class Cost:
    """What a row costs.

    Attributes:
        forward: GFLOPs an image.
        both: Of forward and backward, GFLOPs an image.
        teacher: Forward of the teacher that is asked in every step, GFLOPs an image; 0 without one.
        kept: MB an image that a step keeps for its backward, activations in bfloat16.
        state: MB of weights, gradients and optimizer.
        epochs: Of the row.
    """

    forward: float
    both: float
    teacher: float
    kept: float
    state: float
    epochs: float

    @property
    def total(self) -> float:
        """PFLOPs of all epochs, each with its validation, and of the test images once."""
        epoch = TRAIN_IMAGES * (self.both + self.teacher) + VALIDATION_IMAGES * self.forward
        return (self.epochs * epoch + TEST_IMAGES * self.forward) / 1e6

    def hours(self, throughput: float) -> float:
        """Hours at so many TFLOP/s."""
        return self.total * 1e3 / throughput / 3600


def main() -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of PNG files: some are read and the time is taken")
    arguments = parser.parse_args()
    rows = load_rows()
    heads = ["row", "GFLOPs forward", "with backward", "teacher", "epochs", "PFLOPs"]
    heads += [f"h, {gpu}" for gpu in ASSUMED]
    print(f"| {' | '.join(heads)} | GB per step |\n{'|---' * (len(heads) + 1)}|")
    for row in rows.values():
        cost = cost_of(row, rows)
        figures = [f"{cost.forward:.1f}", f"{cost.both:.1f}", f"{cost.teacher:.1f}" if cost.teacher else "–"]
        hours = [f"{cost.hours(throughput):.1f}" for throughput in ASSUMED.values()]
        memory = (cost.state + row.arguments["per_device_train_batch_size"] * cost.kept) / 1e3
        cells = [row.text, *figures, f"{cost.epochs:g}", f"{cost.total:,.0f}", *hours, f"{memory:.1f}"]
        print(f"| {' | '.join(cells)} |")
    for (name, side), rate in PUBLISHED.items():
        counted = flops_of_timm(name, side)
        print(f"{name} at {side}: {counted:.1f} GFLOPs × {rate} images a second = {counted * rate / 1e3:.1f} TFLOP/s")
    if arguments.images:
        for side in sorted({row.arguments["image_size"] for row in rows.values()}):
            seconds = reading_seconds(arguments.images, side)
            hours = (TRAIN_IMAGES + VALIDATION_IMAGES) * seconds / READERS / 3600
            print(f"reading at {side}: {seconds * 1e3:.0f} ms an image, {hours:.2f} h an epoch with {READERS} cores")


def cost_of(row: Row, rows: dict[str, Row]) -> Cost:
    """Count a row's model, and its teacher's forward at the teacher's own size."""
    side = row.arguments["image_size"]
    teacher = 0.0
    if row.teacher:
        of = rows[row.teacher]
        teacher, _ = flops_of(without_data(model_of(of)), of.arguments["image_size"])
    model = without_data(model_of(row))
    forward, both = flops_of(model, side)
    kept = kept_bytes(model, side)
    state = model.num_parameters() * STATE_BYTES
    return Cost(forward, both, teacher, kept / 1e6, state / 1e6, row.arguments["num_train_epochs"])


def model_of(row: Row) -> PreTrainedModel:
    """The row's model with random weights; a DINO ViT-S/16 has the default architecture."""
    if row.script == "train_teacher.py":
        return ConvNextV2ForImageClassification(
            ConvNextV2Config(depths=[3, 3, 27, 3], hidden_sizes=[128, 256, 512, 1024], num_labels=14)
        )
    config = ClarityConfig(image_size=row.arguments["image_size"], **row.arguments.get("config", {}))
    return ClarityForMultiLabelLocalization(config)


def without_data(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in training mode whose weights have a shape and a dtype, but no values: it computes nothing."""
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        copied = copy.deepcopy(model).train()
    copied.fake_mode = mode
    return copied


def loss_of(model: torch.nn.Module, side: int, images: int = 1) -> torch.Tensor:
    """The loss of some images of the model's own training."""
    pixels, labels = torch.zeros(images, 3, side, side), torch.zeros(images, 14)
    if isinstance(model, ClarityForMultiLabelLocalization):
        return model(pixel_values=pixels, labels=labels, anatomical_prior=torch.zeros(images, 1, 56, 56)).loss
    outputs = model(pixels)
    return multilabel_classification_loss(getattr(outputs, "logits", outputs), labels)


def flops_of(model: torch.nn.Module, side: int) -> tuple[float, float]:
    """GFLOPs of an image's forward alone, and of forward and backward; the model is one of [`without_data`]."""
    if isinstance(model, ClarityForMultiLabelLocalization):
        model.set_attn_implementation("eager")  # torch has no formula for the fused kernel of a CPU
    formulas = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    with model.fake_mode, FlopCounterMode(display=False) as forward:
        loss = loss_of(model, side)
    with model.fake_mode, FlopCounterMode(display=False, custom_mapping=formulas) as backward:
        loss.backward()
    return forward.get_total_flops() / 1e9, (forward.get_total_flops() + backward.get_total_flops()) / 1e9


def convolution_backward_flops(
    grad: Sequence[int], images: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """FLOPs of the gradients of a convolution: each of the two costs as much as the convolution.

    torch's own formula takes no notice of groups, and counts a depthwise convolution once for every channel.
    """
    transposed, wanted = rest[4], rest[7]
    return conv_flop_count(images, weight, grad, transposed) * sum(wanted[:2])


def kept_bytes(model: torch.nn.Module, side: int) -> int:
    """Bytes that the forward of one more image keeps for the backward, in bfloat16 autocast with fused attention."""
    if isinstance(model, ClarityForMultiLabelLocalization):
        model.set_attn_implementation("sdpa")

    def kept(images: int) -> int:
        tensors: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            tensors.append(tensor)
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with model.fake_mode, hooks, torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, side, images)
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}
        del loss
        return sum(storages.values())

    return kept(2) - kept(1)  # weights are the same for any number of images


def flops_of_timm(name: str, side: int) -> float:
    """GFLOPs of forward and backward of an image in a model of timm."""
    import timm

    model = timm.create_model(f"{name}_{side}" if "vit" in name else name, num_classes=14)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return flops_of(without_data(model), side)[1]


def reading_seconds(folder: Path, side: int) -> float:
    """Median seconds of a core in which an image is read, decoded and augmented for a model of this side.

    Raises:
        FileNotFoundError: The folder has no PNG.
    """
    images = sorted(folder.glob("*.png"))[:TIMED_IMAGES]
    if not images:
        raise FileNotFoundError(f"`images` must be a folder with PNG files, got {folder}. Name NIH_FOLDER/images.")
    torch.set_num_threads(1)
    rows = [{"image": str(image), "labels": np.zeros(14)} for image in images]
    processor = ClarityImageProcessor(size={"height": side, "width": side})
    seen = TransformedDataset(rows, ImageTransform(processor, augment="full"))
    times = []
    for index in range(len(rows)):
        start = time.process_time()  # the time of others on a busy machine is not ours
        seen[index]
        times.append(time.process_time() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
