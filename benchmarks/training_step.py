# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a training step costs: CLARiTy with a teacher's cached logits against a plain ViT-S/16, side by side.

    python benchmarks/training_step.py                          (some twenty minutes on two cores)
    python benchmarks/training_step.py --rounds 1 --batch 2     (quick)

A step is forward, loss, backward and AdamW's step, in bfloat16 where the machine has it natively. Ours are computed by
the Trainer's own `compute_loss`. Compared are

- `timm`: `vit_small_patch16_224` with 14 logits and cross-entropy;
- `labels`: ours on labels and prior alone;
- `cached`: and with a teacher's logits from the rows;
- `online`: and with a ConvNeXtV2 nano of random weights as the teacher of the very pixels.

Time: the median over interleaved rounds of the ratio of steps in one round, so that a machine whose speed drifts does
not favour one. glibc's trimming is pinned, as it alone moves single measurements by a quarter. Expected: a ratio of at
most 1.15 for `cached`.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

PINNED = {"MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_MMAP_THRESHOLD_": str(1 << 32)}
CONTENDERS = ("timm", "labels", "cached", "online")
FINDINGS = 14
WARM_UP_ROUNDS = 2
PRIOR_SIDE = 56


def random_batch(batch, image_size, device):
    """What the collator gives: images, labels, priors and a teacher's logits."""
    import torch

    generator = torch.Generator().manual_seed(0)
    tensors = {
        "pixel_values": torch.randn(batch, 3, image_size, image_size, generator=generator),
        "labels": (torch.rand(batch, FINDINGS, generator=generator) < 0.1).float(),
        "anatomical_prior": torch.rand(batch, 1, PRIOR_SIDE, PRIOR_SIDE, generator=generator),
        "teacher_logits": torch.randn(batch, FINDINGS, generator=generator),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def plain_step(image_size, inputs, device):
    """Model and loss of `timm`."""
    import timm
    import torch.nn.functional as F

    model = timm.create_model("vit_small_patch16_224", img_size=image_size, num_classes=FINDINGS).to(device)
    return model, lambda: F.binary_cross_entropy_with_logits(model(inputs["pixel_values"]).float(), inputs["labels"])


def our_step(name, image_size, inputs, folder, device):
    """Model and loss of one of ours, by the Trainer."""
    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
    from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments

    model = ClarityForMultiLabelLocalization(ClarityConfig(image_size=image_size))
    trainer = ClarityDistillationTrainer(
        model=model,
        args=ClarityTrainingArguments(
            output_dir=folder, report_to="none", use_cpu=device.type == "cpu", background_warmup_epochs=0.0
        ),
        teacher=online_teacher(image_size) if name == "online" else None,
    )
    if name != "cached":
        inputs = {key: tensor for key, tensor in inputs.items() if key != "teacher_logits"}
    model.to(device)
    return model, lambda: trainer.compute_loss(model, inputs)


def online_teacher(image_size):
    """A ConvNeXtV2 nano with the student's findings."""
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    from clarity_hf import FINDINGS as NAMES
    from clarity_hf import ClarityImageProcessor
    from clarity_hf.training import Teacher

    config = ConvNextV2Config(
        depths=[2, 2, 8, 2],
        hidden_sizes=[80, 160, 320, 640],
        image_size=image_size,
        id2label=dict(enumerate(NAMES)),
        label2id={finding: index for index, finding in enumerate(NAMES)},
    )
    student = ClarityImageProcessor()
    normalisation = (student.image_mean, student.image_std)
    return Teacher(ConvNextV2ForImageClassification(config), NAMES, *normalisation, *normalisation)


def build_steps(image_size, batch, folder, device, bf16):
    """One function per contender that takes a whole step."""
    import torch

    torch.manual_seed(0)
    inputs = random_batch(batch, image_size, device)

    def build(name):
        model, loss_of = (
            plain_step(image_size, inputs, device)
            if name == "timm"
            else our_step(name, image_size, inputs, folder, device)
        )
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4, weight_decay=0.05)

        def step():
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = loss_of()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type != "cpu":
                torch.accelerator.synchronize()

        return step

    return {name: build(name) for name in CONTENDERS}


def time_steps(steps, rounds):
    """Seconds of every step, `{name: [rounds]}`; the order turns from round to round."""
    seconds = {name: [] for name in CONTENDERS}
    for turn in range(rounds + WARM_UP_ROUNDS):
        shift = turn % len(CONTENDERS)
        for name in CONTENDERS[shift:] + CONTENDERS[:shift]:
            start = time.perf_counter()
            steps[name]()
            if turn >= WARM_UP_ROUNDS:  # the first rounds warm caches, the allocator and AdamW's moments
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image_size", type=int, default=224)
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in PINNED.items()):
        os.execvpe(sys.executable, [sys.executable, *sys.argv], os.environ | PINNED)
    import torch

    from clarity_hf.training.arguments import has_native_bf16

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    bf16 = has_native_bf16()
    with tempfile.TemporaryDirectory() as folder:
        steps = build_steps(arguments.image_size, arguments.batch, folder, device, bf16)
        seconds = time_steps(steps, arguments.rounds)
    print(
        f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads, {'bf16' if bf16 else 'fp32'}, "
        f"batch {arguments.batch} at {arguments.image_size}, {arguments.rounds} rounds\n"
    )
    print("| step | ms | time ratio to timm (quartiles) |\n|---|---|---|")
    for name in CONTENDERS:
        ratios = [ours / plain for ours, plain in zip(seconds[name], seconds["timm"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(
            f"| {name} | {1000 * statistics.median(seconds[name]):.0f} "
            f"| **{statistics.median(ratios):.3f}** ({low:.3f}–{high:.3f}) |"
        )


if __name__ == "__main__":
    main()
