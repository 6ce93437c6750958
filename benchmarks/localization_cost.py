# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What localization costs: CLARiTy's 14 maps against a plain ViT-S/16 forward, side by side.

    python benchmarks/localization_cost.py                 (a few minutes on two cores)
    python benchmarks/localization_cost.py --rounds 5      (quick)

Time: the median over interleaved rounds of the ratio of two forwards that follow each other, so that a machine whose
speed drifts does not favour one. Memory: growth of the process's peak over its idle size, each model in a process of
its own. glibc's trimming is pinned, as it alone moves single measurements by a quarter. Expected: ratios near 1.1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

PINNED = {"MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_MMAP_THRESHOLD_": str(1 << 32)}
TIME_CASES = ((224, 1), (224, 8), (512, 1), (512, 4))
MEMORY_CASES = ((224, 8), (512, 4))
CONTENDERS = ("timm", "clarity")


def build(name, image_size):
    """A model of random weights in evaluation mode, and the function that runs it on a batch."""
    import torch

    torch.manual_seed(0)
    if name == "timm":
        import timm

        return timm.create_model("vit_small_patch16_224", img_size=image_size, num_classes=14).eval()
    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization

    return ClarityForMultiLabelLocalization(ClarityConfig(image_size=image_size)).eval()


def time_ratio(image_size, batch, rounds):
    """Median and quartiles of the paired ratios, and both medians in milliseconds."""
    import torch

    models = {name: build(name, image_size) for name in CONTENDERS}
    pixel_values = torch.randn(batch, 3, image_size, image_size)
    seconds = {name: [] for name in CONTENDERS}
    with torch.inference_mode():
        for turn in range(rounds + 2):
            for name in CONTENDERS if turn % 2 else reversed(CONTENDERS):
                start = time.perf_counter()
                models[name](pixel_values)
                if turn >= 2:  # the first rounds warm caches and the allocator
                    seconds[name].append(time.perf_counter() - start)
    ratios = [ours / plain for ours, plain in zip(seconds["clarity"], seconds["timm"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    medians = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return statistics.median(ratios), quartiles[0], quartiles[2], medians


def peak_growth(name, image_size, batch):
    """Growth in MiB of this process's peak over its idle size, during three forwards."""
    import torch

    model = build(name, image_size)
    pixel_values = torch.randn(batch, 3, image_size, image_size)
    with open("/proc/self/clear_refs", "w") as reset:  # 5: the peak starts anew from the present size
        reset.write("5")
    idle = memory_of("VmRSS")
    with torch.inference_mode():
        for _ in range(3):
            model(pixel_values)
    return memory_of("VmHWM") - idle


def memory_of(field):
    """A field of /proc/self/status in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak_growth(*json.loads(arguments.memory_of)))
        return
    if any(os.environ.get(name) != value for name, value in PINNED.items()):
        os.execvpe(sys.executable, [sys.executable, *sys.argv], os.environ | PINNED)
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32, {arguments.rounds} rounds\n")
    print("| input | batch | timm ms | clarity ms | time ratio (quartiles) |\n|---|---|---|---|---|")
    for image_size, batch in TIME_CASES:
        ratio, low, high, medians = time_ratio(image_size, batch, arguments.rounds)
        print(
            f"| {image_size} | {batch} | {medians['timm']:.0f} | {medians['clarity']:.0f} "
            f"| **{ratio:.3f}** ({low:.3f}–{high:.3f}) |",
            flush=True,
        )
    print("\n| input | batch | timm MiB | clarity MiB | peak memory growth ratio |\n|---|---|---|---|---|")
    for image_size, batch in MEMORY_CASES:
        growth = {}
        for name in CONTENDERS:
            case = json.dumps([name, image_size, batch])
            command = [sys.executable, __file__, "--memory_of", case]
            growth[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ratio = growth["clarity"] / growth["timm"]
        print(f"| {image_size} | {batch} | {growth['timm']:.0f} | {growth['clarity']:.0f} | **{ratio:.3f}** |")


if __name__ == "__main__":
    main()
