# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""CLARiTy's 14 maps against Grad-CAM on DenseNet-121 for 14 findings, side by side.

    pip install grad-cam
    python benchmarks/gradcam_cost.py                 (some ten minutes on two cores)
    python benchmarks/gradcam_cost.py --rounds 1 --sizes 224

Both have random weights, which cost what trained ones do. The package grad-cam works on torchvision's `densenet121`,
by one forward and one backward for every finding and image. Time: the median over interleaved rounds of the ratio, one
image at a time. Memory: growth of the process's peak over its idle size, each in a process of its own. Goals: 30 times
faster at 224, 22 times at 512.
"""

import argparse
import importlib.util
import json
import statistics

from common import interleaved, paired_ratio, restart_pinned
from localization_cost import build, in_own_process, peak_growth

FINDINGS = 14
CONTENDERS = ("gradcam", "clarity")


def mapper(name, image_size):
    """A function that makes the maps of all findings of one image."""
    import torch

    image = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    if name == "clarity":
        model = build("clarity", image_size)

        def maps():
            with torch.inference_mode():
                return model(image).localization_maps[0]

        return maps
    import torchvision
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    classifier = torchvision.models.densenet121(num_classes=FINDINGS).eval()
    # The last block: what follows it, a normalisation, is changed in place by the classifier's ReLU.
    cam = GradCAM(model=classifier, target_layers=[classifier.features.denseblock4])
    return lambda: [cam(image, targets=[ClassifierOutputTarget(finding)])[0] for finding in range(FINDINGS)]


def memory_growth(name, image_size):
    """Growth in MiB while an image's maps are made twice."""
    maps = mapper(name, image_size)

    def work():
        for _ in range(2):
            maps()

    return peak_growth(work)


def main():
    """Print the table, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 512])
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        print("Nothing measured: the package grad-cam is not installed. Do `pip install grad-cam`.")
        return
    restart_pinned()
    if arguments.case:
        print(memory_growth(*json.loads(arguments.case)))
        return
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32, {arguments.rounds} rounds\n")
    print("| input | Grad-CAM ms | clarity ms | times faster (quartiles) | Grad-CAM MiB | clarity MiB | times less |")
    print("|---|---|---|---|---|---|---|")
    for image_size in arguments.sizes:
        works = {name: mapper(name, image_size) for name in CONTENDERS}
        if any(len(maps()) != FINDINGS for maps in works.values()):
            raise RuntimeError(f"Both must make {FINDINGS} maps.")
        taken = interleaved(works, arguments.rounds, warm_up=1)
        slow, ours = ([seconds.wall for seconds in taken[name]] for name in CONTENDERS)
        ratio = paired_ratio(slow, ours)
        growth = {name: in_own_process(__file__, [name, image_size]) for name in CONTENDERS}
        print(
            f"| {image_size} | {1000 * statistics.median(slow):.0f} | {1000 * statistics.median(ours):.0f} "
            f"| **{ratio.median:.1f}** ({ratio.low:.1f}–{ratio.high:.1f}) | {growth['gradcam']:.0f} "
            f"| {growth['clarity']:.0f} | **{growth['gradcam'] / growth['clarity']:.1f}** |",
            flush=True,
        )


if __name__ == "__main__":
    main()
