# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Write what the packaged checkpoint says of the stored phantoms, for the test that holds it.

    python tests/pinned/write_outputs.py

To be run when a new checkpoint ships, and at no other time. The images are stored, not drawn: neither a change of the
generator nor of the checkpoint can hide the other.
"""

import json
from pathlib import Path

import numpy as np
import PIL.Image
from transformers import pipeline

import clarity_hf
from clarity_hf.phantoms import draw_phantom

FOLDER = Path(__file__).parent
IMAGES = {
    "cardiomegaly": (21, ["Cardiomegaly"]),
    "effusion-consolidation": (22, ["Effusion", "Consolidation"]),
    "normal": (23, []),
    "hernia": (24, ["Hernia"]),
}


def main() -> None:
    """Draw the images that are missing and write outputs.json."""
    localizer = pipeline(clarity_hf.TASK)
    outputs = {}
    for name, (seed, findings) in IMAGES.items():
        path = FOLDER / f"{name}.png"
        if not path.is_file():
            PIL.Image.fromarray(draw_phantom(seed, 256, findings).image).save(path, optimize=True)
        outputs[name] = {
            finding["label"]: {
                "score": round(finding["score"], 5),
                "boxes": [[round(side, 2) for side in box.values()] for box in finding["boxes"]],
                "peak": float(np.format_float_positional(finding["map"].max(), 5, fractional=False)),
            }
            for finding in localizer(path, threshold=0.0, return_maps=True)
        }
    (FOLDER / "outputs.json").write_text(json.dumps(outputs, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
