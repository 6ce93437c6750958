# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Processor time of a radiograph on the web page and in the DICOM node, by engine, against torch.

    python benchmarks/service_speed.py
    python benchmarks/service_speed.py --engines openvino --rounds 20

One phantom of 1024² at a time, on one thread; results are made and not sent. Ratios are paired within interleaved
rounds. The export of each engine is made first if the cache lacks it.
"""

import argparse
import tempfile
from pathlib import Path

from common import dicom_of, interleaved, paired_ratio, restart_pinned


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="clarity-s16-224", help="packaged name or folder")
    parser.add_argument("--engines", nargs="+", default=["onnx"], help="to compare with torch")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    restart_pinned(OMP_NUM_THREADS="1")

    from clarity_hf.cli.common import load_pipeline
    from clarity_hf.inference import use_engine
    from clarity_hf.inference.dicom_inference import DicomResultWriter
    from clarity_hf.inference.web_page import localize_image
    from clarity_hf.phantoms import draw_phantom

    image = draw_phantom(3, size=1024, findings=["Effusion"]).image
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phantom.dcm"
        dataset = dicom_of(image, seed=3, bits=12)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
        dataset.save_as(file, enforce_file_format=True)
        works = {}
        for engine in ("torch", *arguments.engines):
            pipeline = load_pipeline(arguments.model, "cpu")
            use_engine(pipeline, engine)
            writer = DicomResultWriter(pipeline, "model")
            assert writer.localize(file).state == "done"
            works[f"page {engine}"] = lambda pipeline=pipeline: localize_image(pipeline, image)
            works[f"node {engine}"] = lambda writer=writer: writer.localize(file)
        seconds = interleaved(works, arguments.rounds)
    print("| service | engine | against torch |\n|---|---|---|")
    for service in ("page", "node"):
        for engine in arguments.engines:
            ours, base = ([one.processor for one in seconds[f"{service} {name}"]] for name in (engine, "torch"))
            print(f"| {service} | {engine} | {paired_ratio(ours, base)} |")


if __name__ == "__main__":
    main()
