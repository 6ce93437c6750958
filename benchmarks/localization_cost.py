# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What localization costs: CLARiTy's 14 maps, and boxes, against a plain ViT-S/16 forward, side by side.

    python benchmarks/localization_cost.py                 (some ten minutes on two cores)
    python benchmarks/localization_cost.py --rounds 5      (quick)
    python benchmarks/localization_cost.py --parts         (where the time of ours goes, besides)

Compared are

- `timm`: `vit_small_patch16_224` with 14 logits;
- `logits`: ours with what only maps need left out;
- `maps`: ours as it is, 14 maps at every forward;
- and the boxes of three findings over their threshold, on images of 1024 × 1024, drawn from the maps of a forward.

Times of ours are with the packaged weights on phantoms.

Time: the median over interleaved rounds of the ratio of forwards that follow each other, so that a machine whose speed
drifts does not favour one. Memory: growth of a process's peak over its idle size, the median of five processes.
glibc's trimming is pinned, as it alone moves single measurements by a quarter. Goals: maps at most 1.10 of timm
at 224 and 1.05 at 512, 1.04 of our own logits; boxes 0.02 more; memory 1.12 from four images on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from common import PINNED, interleaved, paired_ratio, restart_pinned

TIME_CASES = ((224, 1), (224, 8), (512, 1), (512, 4))
MEMORY_CASES = ((224, 4), (224, 8), (512, 4))
MEMORY_PROCESSES = 5
"""Processes of which the median growth is taken: one of them may differ by a quarter."""

IMAGE_SIDE = 1024
BOXED_FINDINGS = 3
WARM_UP_ROUNDS = 2


def build(name, image_size):
    """`timm`'s model or ours, of random weights, in evaluation mode."""
    import torch

    torch.manual_seed(0)
    if name == "timm":
        import timm

        return timm.create_model("vit_small_patch16_224", img_size=image_size, num_classes=14).eval()
    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization

    return ClarityForMultiLabelLocalization(ClarityConfig(image_size=image_size)).eval()


def build_packaged(image_size):
    """Ours with the packaged weights, whose maps have as many peaks as maps have."""
    from clarity_hf import ClarityForMultiLabelLocalization

    model = ClarityForMultiLabelLocalization.from_pretrained("clarity-s16-224")
    model.clarity.resize_position_embeddings(image_size)
    return model.eval()


def phantom_batch(processor, batch):
    """`pixel_values` `(B, 3, H, W)` of phantoms."""
    from clarity_hf.phantoms import draw_phantom

    images = [draw_phantom(seed, size=IMAGE_SIDE).image for seed in range(batch)]
    return processor(images, return_tensors="pt").pixel_values


def logits_only(model, pixel_values):
    """Logits `(B, F)` of ours without class rows, foreground, fusion and scores, which only maps and users need."""
    from clarity_hf import modeling_clarity

    hidden_states = model.clarity.embeddings(pixel_values)
    num_tokens = model.config.num_labels
    for layer in model.clarity.layers:
        hidden_states, _, _ = layer(hidden_states, num_tokens=num_tokens)
    encoded = modeling_clarity.ClarityModelOutput(
        last_hidden_state=model.clarity.layernorm(hidden_states), class_tokens=hidden_states[:, :num_tokens]
    )
    grid = [side // model.config.patch_size for side in pixel_values.shape[-2:]]
    patches = encoded.last_hidden_state[:, num_tokens:].transpose(1, 2).unflatten(-1, grid)
    activation_maps, _ = model.segment_cam(patches)
    return model.calibrated_logits((model.class_token_head(encoded) + model.ranking_pooling(activation_maps)) / 2)


def measure_times(image_size, batch, rounds):
    """Seconds of every round, by contender, and of drawing three findings' boxes from the maps of that round."""
    import torch

    from clarity_hf import ClarityImageProcessor

    plain, model = build("timm", image_size), build_packaged(image_size)
    processor = ClarityImageProcessor(size={"height": image_size, "width": image_size})
    # Whatever their score, so that every image has boxes of as many.
    floors = [0.0] * BOXED_FINDINGS + [1.0] * (model.config.num_labels - BOXED_FINDINGS)
    options = {"target_sizes": [(IMAGE_SIDE, IMAGE_SIDE)] * batch}
    pixel_values = phantom_batch(processor, batch)
    with torch.inference_mode():
        outputs = model(pixel_values)
        torch.testing.assert_close(logits_only(model, pixel_values), outputs.logits)
        found = processor.post_process_localization(outputs, floors, **options)
        if any(len(image["labels"].unique()) != BOXED_FINDINGS for image in found):
            raise RuntimeError(f"Images must have boxes for {BOXED_FINDINGS} findings. Check the thresholds.")
        works = {
            "timm": lambda: plain(pixel_values),
            "logits": lambda: logits_only(model, pixel_values),
            "maps": lambda: model(pixel_values),
            "drawing": lambda: processor.post_process_localization(outputs, floors, **options),
        }
        taken = interleaved(works, rounds, WARM_UP_ROUNDS)
    return {name: [seconds.wall for seconds in values] for name, values in taken.items()}


def peak_growth(work):
    """Growth in MiB of this process's peak over its idle size while `work` runs."""
    with open("/proc/self/clear_refs", "w") as reset:  # 5: the peak starts anew from the present size
        reset.write("5")
    idle = memory_of("VmRSS")
    work()
    return memory_of("VmHWM") - idle


def memory_of(field):
    """A field of /proc/self/status in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def forward_growth(name, image_size, batch):
    """Growth in MiB during three forwards."""
    import torch

    model = build(name, image_size)
    pixel_values = torch.randn(batch, 3, image_size, image_size)

    def work():
        with torch.inference_mode():
            for _ in range(3):
                model(pixel_values)

    return peak_growth(work)


def in_own_process(script, case):
    """What `script --case CASE` prints, read as JSON; for measurements that need a process of their own."""
    command = [sys.executable, script, "--case", json.dumps(case)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | PINNED)
    return json.loads(run.stdout.splitlines()[-1])


def print_parts(image_size, batch):
    """Print what torch's profiler says of the parts of one of our forwards, in percent of its time."""
    import torch
    from torch.profiler import profile, record_function

    from clarity_hf import modeling_clarity

    model = build("clarity", image_size)
    named = {
        "class rows of the last blocks": (modeling_clarity, "class_attention_rows"),
        "attention pooling": (model.class_token_head, "forward"),
        "SegmentCAM": (model.segment_cam, "forward"),
        "ranking pooling": (model.ranking_pooling, "forward"),
        "fusion and suppression": (model, "localize"),
    }

    def recorded(name, function):
        def run(*args, **kwargs):
            with record_function(name):
                return function(*args, **kwargs)

        return run

    originals = {name: getattr(*place) for name, place in named.items()}
    for name, (holder, attribute) in named.items():
        setattr(holder, attribute, recorded(name, originals[name]))
    pixel_values = torch.randn(batch, 3, image_size, image_size)
    try:
        with torch.inference_mode():
            for _ in range(WARM_UP_ROUNDS):
                model(pixel_values)
            with profile() as record:
                for _ in range(5):
                    with record_function("forward"):
                        model(pixel_values)
    finally:
        modeling_clarity.class_attention_rows = originals["class rows of the last blocks"]
    totals = {event.key: event.cpu_time_total for event in record.key_averages()}
    for name in named:
        print(f"| {image_size} | {batch} | {name} | {100 * totals[name] / totals['forward']:.2f} |")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--parts", action="store_true", help="print the parts of our own forward besides")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    restart_pinned()
    if arguments.case:
        print(forward_growth(*json.loads(arguments.case)))
        return
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32, {arguments.rounds} rounds\n")
    print("| input | batch | timm ms | maps ms | maps / timm (quartiles) | maps / own logits | boxes more, of timm |")
    print("|---|---|---|---|---|---|---|")
    for image_size, batch in TIME_CASES:
        seconds = measure_times(image_size, batch, arguments.rounds)
        print(
            f"| {image_size} | {batch} | {1000 * statistics.median(seconds['timm']):.0f} "
            f"| {1000 * statistics.median(seconds['maps']):.0f} | {paired_ratio(seconds['maps'], seconds['timm'])} "
            f"| {paired_ratio(seconds['maps'], seconds['logits'])} "
            f"| **+{paired_ratio(seconds['drawing'], seconds['timm']).median:.3f}** |",
            flush=True,
        )
    print("\n| input | batch | timm MiB | clarity MiB | peak memory growth ratio |\n|---|---|---|---|---|")
    for image_size, batch in MEMORY_CASES:
        plain, ours = (
            statistics.median(in_own_process(__file__, [name, image_size, batch]) for _ in range(MEMORY_PROCESSES))
            for name in ("timm", "clarity")
        )
        print(f"| {image_size} | {batch} | {plain:.0f} | {ours:.0f} | **{ours / plain:.3f}** |", flush=True)
    if arguments.parts:
        print("\n| input | batch | part of our forward | % of its time |\n|---|---|---|---|")
        for image_size, batch in TIME_CASES:
            print_parts(image_size, batch)


if __name__ == "__main__":
    main()
