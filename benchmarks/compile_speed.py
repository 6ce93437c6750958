# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What `torch.compile` gains: CLARiTy compiled as one graph against itself in eager mode, side by side.

    python benchmarks/compile_speed.py                          (some ten minutes on two cores)
    python benchmarks/compile_speed.py --rounds 3 --layers 3    (quick)

`fullgraph=True` refuses a graph break, so a number says that there is none. Time: the median over interleaved rounds
of the ratio; compiling is timed apart. On a CPU it needs a C++ compiler. Goal: 1.1 times faster.
"""

import argparse
import shutil
import statistics
import time

from common import interleaved, paired_ratio, restart_pinned

CASES = ((224, 1), (224, 8), (512, 1), (512, 4))
TOLERANCE = 1e-4


def measure(image_size, batch, layers, rounds):
    """Seconds of compiling, and of every round by mode."""
    import torch

    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization

    torch.manual_seed(0)
    torch.compiler.reset()
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    config = ClarityConfig(image_size=image_size, num_hidden_layers=layers)
    model = ClarityForMultiLabelLocalization(config).eval().to(device)
    compiled = torch.compile(model, fullgraph=True)
    pixel_values = torch.randn(batch, 3, image_size, image_size, device=device)

    def run(module):
        outputs = module(pixel_values)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return outputs

    with torch.inference_mode():
        start = time.perf_counter()
        outputs = run(compiled)
        compiling = time.perf_counter() - start
        expected = run(model)
        for name in ("logits", "localization_maps"):
            torch.testing.assert_close(outputs[name], expected[name], atol=TOLERANCE, rtol=TOLERANCE)
        taken = interleaved({"eager": lambda: run(model), "compiled": lambda: run(compiled)}, rounds)
    return compiling, {name: [seconds.wall for seconds in values] for name, values in taken.items()}


def main():
    """Print the table, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--layers", type=int, default=12)
    arguments = parser.parse_args()
    restart_pinned()
    import torch

    if not torch.accelerator.is_available() and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        print("Nothing measured: torch.compile needs a C++ compiler on a CPU, and there is none.")
        return
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32, {arguments.layers} blocks, "
        f"{arguments.rounds} rounds, no graph breaks\n"
    )
    print("| input | batch | eager ms | compiled ms | times faster (quartiles) | compiling s |")
    print("|---|---|---|---|---|---|")
    for image_size, batch in CASES:
        compiling, seconds = measure(image_size, batch, arguments.layers, arguments.rounds)
        print(
            f"| {image_size} | {batch} | {1000 * statistics.median(seconds['eager']):.0f} "
            f"| {1000 * statistics.median(seconds['compiled']):.0f} "
            f"| {paired_ratio(seconds['eager'], seconds['compiled'])} | {compiling:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
