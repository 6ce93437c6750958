# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What a training step costs: CLARiTy and its options against a plain ViT-S/16, side by side in one thread.

    python benchmarks/training_step.py                          (some twenty minutes)
    python benchmarks/training_step.py --rounds 1 --batch 2     (quick)
    python benchmarks/training_step.py --only "muon" "muon, half the patches" --reference muon

A step is forward, loss, backward and the optimizer's step, in bfloat16 where the machine has it natively. Loss and
optimizer of ours are the Trainer's own; the optimizer is AdamW where Muon is not named. Compared are

- `timm`: `vit_small_patch16_224` with 14 logits and cross-entropy;
- `labels`: ours on labels and prior alone;
- `cached`: and with a teacher's logits from the rows;
- `online`: and with a ConvNeXtV2 nano of random weights as the teacher of the very pixels;
- `cached` with options: compiled, half or three quarters of the patches dropped, Muon, Muon with three iterations.

Processor time: the median over interleaved rounds of the ratio of steps in one round, so that a machine whose speed
drifts does not favour one. Expected: a ratio of at most 1.15 for `cached`.
"""

import argparse
import tempfile

from common import interleaved, paired_ratio, restart_pinned

CONTENDERS = {
    "timm": None,
    "labels": {},
    "cached": {},
    "online": {},
    "compiled": {"torch_compile": True},
    "compiled, half the patches": {"torch_compile": True, "patch_dropout": 0.5},
    "half the patches": {"patch_dropout": 0.5},
    "a quarter of the patches": {"patch_dropout": 0.75},
    "muon": {"matrix_optimizer": "muon"},
    "muon, 3 iterations": {"matrix_optimizer": "muon", "muon_iterations": 3},
    "muon, half the patches": {"matrix_optimizer": "muon", "patch_dropout": 0.5},
    "muon, 3 iterations, half the patches": {"matrix_optimizer": "muon", "muon_iterations": 3, "patch_dropout": 0.5},
}
"""Arguments of the Trainer; None is timm's model."""

FINDINGS = 14
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
    """Model, loss and optimizer of `timm`."""
    import timm
    import torch
    import torch.nn.functional as F

    model = timm.create_model("vit_small_patch16_224", img_size=image_size, num_classes=FINDINGS).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    loss = lambda: F.binary_cross_entropy_with_logits(model(inputs["pixel_values"]).float(), inputs["labels"])  # noqa: E731
    return model, loss, optimizer


def our_step(name, image_size, inputs, folder, device):
    """Model, loss and optimizer of one of ours, by the Trainer."""
    import torch

    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization
    from clarity_hf.training import ClarityDistillationTrainer, ClarityTrainingArguments

    options = {"patch_dropout_epochs": 1} if "patch_dropout" in CONTENDERS[name] else {}
    model = ClarityForMultiLabelLocalization(ClarityConfig(image_size=image_size))
    trainer = ClarityDistillationTrainer(
        model=model,
        args=ClarityTrainingArguments(
            output_dir=folder,
            report_to="none",
            use_cpu=device.type == "cpu",
            background_warmup_epochs=0.0,
            **options,
            **CONTENDERS[name],
        ),
        teacher=online_teacher(image_size) if name == "online" else None,
    )
    if name in ("labels", "online"):
        inputs = {key: tensor for key, tensor in inputs.items() if key != "teacher_logits"}
    model.to(device)
    optimizer = trainer.create_optimizer()
    shown = torch.compile(model) if trainer.args.torch_compile else model  # as the Trainer does it
    return model, lambda: trainer.compute_loss(shown, inputs), optimizer


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


def build_steps(names, arguments, folder, device, bf16):
    """One function per contender that takes a complete step."""
    import torch

    torch.manual_seed(0)
    inputs = random_batch(arguments.batch, arguments.image_size, device)

    def build(name):
        if name == "timm":
            model, loss_of, optimizer = plain_step(arguments.image_size, inputs, device)
        else:
            model, loss_of, optimizer = our_step(name, arguments.image_size, inputs, folder, device)
        model.train()

        def step():
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = loss_of()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type != "cpu":
                torch.accelerator.synchronize()

        return step

    return {name: build(name) for name in names}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="STEP")
    parser.add_argument("--reference", choices=CONTENDERS, default="timm", metavar="STEP")
    arguments = parser.parse_args()
    restart_pinned(OMP_NUM_THREADS="1")
    import torch

    from clarity_hf.training.arguments import has_native_bf16

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    bf16 = has_native_bf16()
    names = dict.fromkeys([arguments.reference, *arguments.only])
    with tempfile.TemporaryDirectory() as folder:
        seconds = interleaved(build_steps(names, arguments, folder, device, bf16), arguments.rounds)
    print(
        f"torch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads, {'bf16' if bf16 else 'fp32'}, "
        f"batch {arguments.batch} at {arguments.image_size}, {arguments.rounds} rounds\n"
    )
    print(f"| step | ms of one core | ratio to {arguments.reference} (quartiles) |\n|---|---|---|")
    taken = {name: [each.processor for each in seconds[name]] for name in names}
    for name in names:
        ratio = paired_ratio(taken[name], taken[arguments.reference])
        print(f"| {name} | {1000 * sorted(taken[name])[len(taken[name]) // 2]:.0f} | {ratio} |")


if __name__ == "__main__":
    main()
