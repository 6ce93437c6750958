# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Exports side by side: how fast they are, and what int8 costs on phantoms.

    python benchmarks/export_speed.py --images 2000            (about an hour on two cores, most of it drawing
    phantoms) python benchmarks/export_speed.py --images 100 --rounds 10 (quick)
    python benchmarks/export_speed.py --images 0 --parts 16    (which parts int8 harms, each quantized alone)

Speed: every runtime in a process of its own, which the others cannot warm or slow; one forward of each in turn, so
that a machine whose speed drifts favours none; medians, and the median of the ratios of neighbours. Accuracy: the
model in PyTorch and in int8, image by image, on the first images of the phantoms' validation stream: AUROC, and T(IoU)
of any region at the map thresholds that suit fp32. Goals: int8 at least 2.5 times as fast as eager, ΔAUROC ≤ .002,
ΔT(IoU) ≤ .01. Exports and records stay in `--output_dir`, and a second run takes them from there.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RUNTIMES = ("eager", "onnx", "onnx-int8", "openvino")
LEVELS = (0.1, 0.3, 0.5)
GOALS = {"speed": 2.5, "AUROC": 0.002, "T(IoU)": 0.01}
TIME_CASES = (1, 8)
"""Batch sizes."""


def forward_of(runtime, model, folder, threads):
    """A function from `pixel_values` `(B, C, H, W)` to scores and maps, both numpy."""
    if runtime == "eager":
        return eager_forward(model, threads)
    if runtime == "openvino":
        from clarity_hf.export.export import without_telemetry

        with without_telemetry():
            import openvino
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(folder / "openvino" / "model.xml", "CPU", settings)

        def run(pixel_values):
            found = compiled({"pixel_values": pixel_values})
            return found["scores"], found["localization_maps"]

        return run
    file = "model.onnx" if runtime == "onnx" else "model-int8.onnx"
    return session_forward(folder / runtime / file, threads)


def eager_forward(model, threads):
    """The model in PyTorch."""
    import torch
    from transformers.utils import logging

    from clarity_hf import ClarityForMultiLabelLocalization

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    loaded = ClarityForMultiLabelLocalization.from_pretrained(model, use_safetensors=True).eval()

    def run(pixel_values):
        with torch.inference_mode():
            outputs = loaded(torch.from_numpy(pixel_values))
        return outputs.scores.numpy(), outputs.localization_maps.numpy()

    return run


def session_forward(path, threads):
    """An ONNX file in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A waiting thread would otherwise spin, and slow whoever comes next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixel_values: session.run(["scores", "localization_maps"], {"pixel_values": pixel_values})


def serve(runtime, arguments):
    """A runtime's process: for every line with a shape one timed forward, for which its seconds are printed."""
    run = forward_of(runtime, arguments.model, arguments.output_dir, arguments.threads)
    pixel_values = None
    for line in sys.stdin:
        shape = json.loads(line)
        if pixel_values is None or pixel_values.shape != tuple(shape):
            pixel_values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        start = time.perf_counter()
        run(pixel_values)
        print(time.perf_counter() - start, flush=True)


def time_runtimes(shape, rounds, arguments):
    """Per runtime the seconds of each round."""
    command = [sys.executable, __file__, "--model", arguments.model, "--output_dir", str(arguments.output_dir)]
    command += ["--threads", str(arguments.threads), "--serve"]
    # Idle threads of OpenMP sleep: the next runtime's turn comes at once.
    surroundings = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(arguments.threads)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": surroundings}
    processes = {name: subprocess.Popen([*command, name], **pipes) for name in RUNTIMES}
    seconds = {name: [] for name in RUNTIMES}
    try:
        for turn in range(rounds + 2):
            for name in RUNTIMES if turn % 2 else reversed(RUNTIMES):
                processes[name].stdin.write(json.dumps(shape) + "\n")
                processes[name].stdin.flush()
                answer = processes[name].stdout.readline()
                if not answer:
                    raise RuntimeError(f"the process of {name} ended; its error is above")
                if turn >= 2:  # the first rounds warm caches and allocators
                    seconds[name].append(float(answer))
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()
    return seconds


def speed_table(model, rounds, arguments):
    """Rows of medians and of ratios to eager."""
    channels, size = model.config.num_channels, json.loads(settings_file(arguments).read_text())["size"]
    lines = ["| batch | " + " | ".join(f"{name} ms" for name in RUNTIMES) + " | eager / int8 (quartiles) |"]
    lines.append("|---" * (len(RUNTIMES) + 2) + "|")
    for batch in TIME_CASES:
        seconds = time_runtimes((batch, channels, size["height"], size["width"]), rounds, arguments)
        medians = [f"{1000 * statistics.median(seconds[name]):.0f}" for name in RUNTIMES]
        ratios = [slow / fast for slow, fast in zip(seconds["eager"], seconds["onnx-int8"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        ratio = f"**{statistics.median(ratios):.2f}** ({low:.2f}–{high:.2f})"
        lines.append(f"| {batch} | {' | '.join(medians)} | {ratio} |")
    return "\n".join(lines)


def settings_file(arguments):
    """`clarity.json` of the fp32 ONNX export."""
    return arguments.output_dir / "onnx" / "clarity.json"


def write_exports(model, processor, arguments):
    """What is missing of the exports; those of another model are refused. Sizes in MB by runtime."""
    from clarity_hf.export.export import export_model, export_settings

    formats = {"onnx": ("onnx", "fp32"), "onnx-int8": ("onnx", "int8"), "openvino": ("openvino", "fp32")}
    expected, sizes = export_settings(model, processor), {}
    for name, (format, precision) in formats.items():
        folder = arguments.output_dir / name
        if not (folder / "clarity.json").is_file():
            export_model(model, processor, folder, format, precision)
        written = json.loads((folder / "clarity.json").read_text())
        if {key: written.get(key) for key in expected} != expected:
            raise SystemExit(f"error: {folder} is not of {arguments.model} as it is now: choose another --output_dir")
        sizes[name] = sum(path.stat().st_size for path in folder.glob("model*")) / 1e6
    return sizes


class SessionLocalizer:
    """An exported model as a method to evaluate, see `clarity_hf.evaluation.localizers`."""

    def __init__(self, run, findings, processor, name):
        self.run, self.findings, self.processor, self.name = run, findings, processor, name

    def __call__(self, images, wanted=None):
        """Scores, maps and letterboxes of images."""
        from clarity_hf.evaluation.localizers import LocalizerOutput

        scores, maps = image_by_image(self.run, self.processor(list(images), return_tensors="np")["pixel_values"])
        letterboxes = [self.processor.letterbox(image.shape) for image in images]
        return LocalizerOutput(np.asarray(scores, dtype=np.float64), np.asarray(maps), letterboxes)


def accuracy_table(model, processor, arguments):
    """fp32, int8 and what lies between them, on phantoms."""
    from clarity_hf.evaluation.evaluator import BoxSettings, evaluate_images
    from clarity_hf.evaluation.images import PhantomImages
    from clarity_hf.fingerprints import weights_digest
    from clarity_hf.metrics.bootstrap import classification_intervals, localization_difference
    from clarity_hf.metrics.classification import mean_auroc
    from clarity_hf.metrics.matching import annotated_boxes

    images, records = PhantomImages(arguments.images, "validation"), {}
    for name in ("eager", "onnx-int8"):
        run = forward_of(name, arguments.model, arguments.output_dir, arguments.threads)
        localizer = SessionLocalizer(run, tuple(model.config.findings), processor, name)
        about = {"weights": weights_digest(model), "images": arguments.images}
        if name == "onnx-int8":  # records of other quantizations of the same weights are refused
            file = arguments.output_dir / name / "model-int8.onnx"
            about["file"] = hashlib.sha256(file.read_bytes()).hexdigest()
        path = arguments.output_dir / "records" / f"{name}-{arguments.images}.jsonl"
        records[name] = evaluate_images(localizer, images, BoxSettings.of_config(model.config), path, about).records
    boxes = {name: annotated_boxes(found, "all", model.config.num_labels) for name, found in records.items()}
    thresholds = boxes["eager"].tuned_thresholds()
    drawn = {name: table.predicted(thresholds) for name, table in boxes.items()}
    labels = np.stack([record.labels for record in records["eager"]])
    scores = {name: np.stack([record.scores for record in found]) for name, found in records.items()}
    area = {name: mean_auroc(values, labels) for name, values in scores.items()}
    shares = {name: overlaps.found(LEVELS).macro for name, overlaps in drawn.items()}
    changes = [area["onnx-int8"] - area["eager"], *(shares["onnx-int8"] - shares["eager"])]
    names = [record.patient for record in records["eager"]]
    known = classification_intervals(scores["onnx-int8"], labels, names, min_positives=1, minus=scores["eager"])
    found = localization_difference(drawn["onnx-int8"], drawn["eager"], LEVELS).macro
    low, high = [known["macro_auroc"].low, *found.low], [known["macro_auroc"].high, *found.high]
    rows = {name: [area[name], *shares[name]] for name in records}
    lines = [f"{arguments.images} phantoms of the validation stream, means over the findings\n"]
    lines += ["| | AUROC | T(IoU) .1 | .3 | .5 |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(f'{value:.4f}' for value in values)} |" for name, values in rows.items()]
    lines.append(f"| difference | {' | '.join(f'{value:+.4f}' for value in changes)} |")
    intervals = [f"{start:+.4f} to {end:+.4f}" for start, end in zip(low, high, strict=True)]
    lines.append(f"| 95 % | {' | '.join(intervals)} |")
    furthest = np.abs(scores["onnx-int8"] - scores["eager"])
    lines.append(f"\nScores differ by {furthest.mean():.4f} in the mean and by at most {furthest.max():.4f}.")
    return "\n".join(lines)


def parts_table(model, processor, arguments):
    """Each part of the model quantized alone: how far scores and maps move from fp32."""
    import onnx

    from clarity_hf.export.export import linear_nodes, quantize_onnx
    from clarity_hf.phantoms import iterate_phantoms

    images = [phantom.image for phantom in iterate_phantoms(arguments.parts, seed=1)]
    pixel_values = processor(images, return_tensors="np")["pixel_values"]
    source = arguments.output_dir / "onnx" / "model.onnx"
    modules = list(dict.fromkeys(node.rpartition("/")[0] for node in linear_nodes(onnx.load(source))))
    # A block's attention and its MLP, and the head: names up to the part that holds the linear layers.
    parts = list(dict.fromkeys(name.rpartition(".")[0] for name in modules))
    expected = image_by_image(session_forward(source, arguments.threads), pixel_values)
    lines = [f"{arguments.parts} phantoms, one part in int8\n"]
    lines += ["| part | mean change of a score | largest | mean change of a map, of its peak |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for part in ["all", *parts]:
            others = [name for name in modules if part != "all" and not name.startswith(f"{part}.")]
            target = quantize_onnx(source, Path(folder) / "part.onnx", others)
            scores, maps = image_by_image(session_forward(target, arguments.threads), pixel_values)
            moved = np.abs(scores - expected[0])
            peaks = expected[1].max(axis=(2, 3), keepdims=True)
            off = (np.abs(maps - expected[1]) / np.maximum(peaks, 1e-12)).mean()
            lines.append(f"| {part} | {moved.mean():.5f} | {moved.max():.5f} | {off:.5f} |")
    return "\n".join(lines)


def image_by_image(run, pixel_values):
    """Scores and maps, one image at a time: int8 scales activations per tensor, so other images of a batch count
    too.
    """
    outputs = [run(pixel_values[index : index + 1]) for index in range(len(pixel_values))]
    return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))


def main():
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clarity-s16-224")
    parser.add_argument("--images", type=int, default=100, help="phantoms for the accuracy; 0 for none")
    parser.add_argument("--rounds", type=int, default=25, help="timed forwards of each runtime; 0 for none")
    parser.add_argument("--parts", type=int, default=0, help="phantoms on which parts are quantized alone")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output_dir", type=Path, default=Path("runs/export"))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments)
        return
    from transformers.utils import logging

    from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor

    logging.disable_progress_bar()
    model = ClarityForMultiLabelLocalization.from_pretrained(arguments.model, use_safetensors=True).eval()
    processor = ClarityImageProcessor.from_pretrained(arguments.model)
    sizes = write_exports(model, processor, arguments)
    print(f"{arguments.threads} threads; " + ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items()) + "\n")
    print(f"Goals: {GOALS}\n")
    if arguments.rounds:
        print(speed_table(model, arguments.rounds, arguments) + "\n", flush=True)
    if arguments.images:
        print(accuracy_table(model, processor, arguments) + "\n", flush=True)
    if arguments.parts:
        print(parts_table(model, processor, arguments), flush=True)


if __name__ == "__main__":
    main()
