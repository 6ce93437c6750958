# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Processor seconds and bytes of the DICOM results of one image of 5 megapixels, beside those of another build.

    git worktree add ../before f8ed717
    python benchmarks/dicom_output_cost.py --against ../before/src

Each build runs in a process of its own, in turns, on one thread. It makes what its command makes of an image unasked:
maps from the model's grid, as its `predict` does, then every object, written to files. Seconds are the smallest of the
rounds, as others use the machine too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZE = (2500, 2048)
ROUNDS = 5


def phantom_header():
    """Header of a CR image, and its pixels with a sensor's noise."""
    import pydicom

    from clarity_hf.phantoms import draw_phantom

    noise = np.random.default_rng(0).normal(0, 4, SIZE)
    pixels = (draw_phantom(1, size=SIZE, findings=["Effusion"]).image + noise).clip(0, 255).astype(np.uint8)
    header = pydicom.Dataset()
    values = {
        "SOPClassUID": pydicom.uid.ComputedRadiographyImageStorage,
        "SOPInstanceUID": "2.25.11",
        "StudyInstanceUID": "2.25.12",
        "SeriesInstanceUID": "2.25.13",
        "StudyDate": "20250102",
        "StudyTime": "101112",
        "AccessionNumber": "A1",
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "PatientName": "Phantom",
        "PatientID": "P1",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "ReferringPhysicianName": "",
        "StudyID": "S1",
        "PatientOrientation": ["L", "F"],
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": SIZE[0],
        "Columns": SIZE[1],
    }
    for name, value in values.items():
        setattr(header, name, value)
    return header, pixels


def findings_of(present: int, maps: str):
    """All 14 findings, the first of them present with a box each; maps as the build's `predict` makes them."""
    import torch
    import torch.nn.functional as F

    from clarity_hf import FINDINGS

    grid = torch.rand((len(FINDINGS), 14, 14), generator=torch.Generator().manual_seed(0))[None]
    mapped = list(range(present)) if maps == "stored" else list(range(len(FINDINGS)))
    over_input = F.interpolate(grid[:, mapped], size=(224, 184), mode="bilinear")
    size = SIZE if maps == "full" else (-(-SIZE[0] // 8), -(-SIZE[1] // 8))
    laid = dict(zip(mapped, F.interpolate(over_input, size=size, mode="bilinear")[0].numpy(), strict=True))
    box = {"xmin": 301.3, "ymin": 402.6, "xmax": 905.1, "ymax": 1203.9}
    return [
        {"label": label, "score": 0.7 - number / 100, "threshold": 0.5, "present": number < present}
        | {"boxes": [box] if number < present else []}
        | ({"map": laid[number]} if number in laid else {})
        for number, label in enumerate(FINDINGS)
    ]


def measure(present: int) -> dict:
    """Seconds and bytes in this process, by the build that it imports."""
    from clarity_hf.inference import dicom_output
    from clarity_hf.inference.dicom_output import ModelIdentity, write_dicom_results

    header, pixels = phantom_header()
    maps = "stored" if hasattr(dicom_output, "stored_map_size") else "full"
    model = ModelIdentity("clarity-s16-224", "0123456789abcdef", "0.1.0")
    seconds: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS + 1):
            start = time.process_time()
            findings = findings_of(present, maps)
            seconds.setdefault("maps", []).append(time.process_time() - start)
            start = time.process_time()
            results = write_dicom_results(header, pixels, findings, model, folder)
            seconds.setdefault("all", []).append(time.process_time() - start)
            sizes = {kind: path.stat().st_size for kind, path in results.files.items()}
            for kind in sizes:
                start = time.process_time()
                write_dicom_results(header, pixels, findings, model, folder, [kind])
                seconds.setdefault(kind, []).append(time.process_time() - start)
    return {"seconds": {name: min(values[1:]) for name, values in seconds.items()}, "bytes": sizes}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", help="folder `src` of another build")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    here = str(Path(__file__).parents[1] / "src")
    builds = {"this build": here} | ({"before": arguments.against} if arguments.against else {})
    print("| findings present | build | what | processor s | MB |\n|---|---|---|---|---|")
    for present in (3, 14):
        for name, source in builds.items():
            environment = os.environ | {"PYTHONPATH": str(Path(source).resolve()), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--measure", str(present)]
            told = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
            total = sum(told["bytes"].values()) / 1e6
            print(f"| {present} | {name} | maps | {told['seconds']['maps']:.2f} | |")
            for kind, size in told["bytes"].items():
                print(f"| {present} | {name} | {kind} | {told['seconds'][kind]:.3f} | {size / 1e6:.3f} |")
            print(f"| {present} | {name} | **all** | **{told['seconds']['all']:.2f}** | **{total:.2f}** |")


if __name__ == "__main__":
    main()
