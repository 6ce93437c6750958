# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Localize the findings of a chest radiograph: a table, a picture and a JSON file.

    python examples/localize.py                       a synthetic phantom
    python examples/localize.py image.png              an image of yours: PNG, JPEG, TIFF, BMP or DICOM
    python examples/localize.py image.png --model FOLDER --output_dir results
    python examples/localize.py image.png --radiograph_check refuse   nothing but frontal chest radiographs

DICOM needs `pip install 'clarity_hf[dicom]'`. Many images, and results as DICOM, are for `clarity-hf predict`.

Expected output: the findings as a table, those above their threshold marked, then the two files written:

    finding              score  threshold  box (xmin, ymin, xmax, ymax)
    Mass               *  1.00       0.04  (57, 98, 94, 142)
    ...
    wrote demo-output/phantom.overlay.png and demo-output/phantom.json
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

from tqdm import tqdm

STEPS = ("loading libraries", "loading the model", "reading the image", "localizing", "drawing")
DEMO_SEED, DEMO_FINDINGS = 42, ("Mass",)


def main() -> int:
    """Run the steps with a progress bar; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", help="PNG, JPEG, TIFF, BMP or DICOM; a synthetic phantom by default")
    parser.add_argument("--model", help="folder, packaged name or Hub id")
    parser.add_argument("--output_dir", type=Path, default=Path("demo-output"))
    parser.add_argument("--radiograph_check", choices=("warn", "refuse", "off"), default="warn")
    arguments = parser.parse_args()
    try:
        print(localize(arguments.image, arguments.model, arguments.output_dir, arguments.radiograph_check))
    except (OSError, TypeError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def localize(image: str | None, model: str | None, output_dir: Path, radiograph_check: str = "warn") -> str:
    """Localize one image and write picture and JSON; returns the table, a warning above it."""
    with tqdm(total=len(STEPS), bar_format="{desc:<20} {bar:24} {n}/{total}", file=sys.stderr) as progress:
        progress.set_description(STEPS[0])
        from transformers import pipeline
        from transformers.utils import logging

        import clarity_hf
        from clarity_hf.phantoms import draw_phantom
        from clarity_hf.visualization import draw_findings

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        advance(progress, STEPS[1])
        localizer = pipeline(clarity_hf.TASK, model=model)
        advance(progress, STEPS[2])
        name = name_of(Path(image)) if image else "phantom"
        pixels = clarity_hf.read_image(image or draw_phantom(DEMO_SEED, findings=DEMO_FINDINGS).image)
        advance(progress, STEPS[3])
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:  # told with the table, not across the progress bar
            warnings.simplefilter("always")
            findings = localizer(pixels, radiograph_check=radiograph_check)
        seconds = time.perf_counter() - start
        advance(progress, STEPS[4])
        output_dir.mkdir(parents=True, exist_ok=True)
        picture, record = output_dir / f"{name}.overlay.png", output_dir / f"{name}.json"
        draw_findings(pixels, *with_map(findings, localizer, pixels)).save(picture)
        told = json.dumps({"image": name, "findings": findings}, indent=2, allow_nan=False)
        record.write_text(told + "\n", encoding="utf-8")
        advance(progress, "done")
    return "\n".join(
        [
            *(f"warning: {warning.message}\n" for warning in caught),
            *table(findings),
            f"\n{seconds:.2f} s for the image. For research, not for diagnosis.",
            f"wrote {picture} and {record}",
        ]
    )


def name_of(image: Path) -> str:
    """The image's name without its ending; the last number of a UID, which names many a DICOM file, is none."""
    return image.name if image.suffix[1:].isdigit() else image.stem


def with_map(findings: list[dict], localizer, pixels) -> tuple[list[dict], str | None]:
    """The findings with the map of one of them, and its name; none present, no map."""
    from clarity_hf.visualization import finding_to_map

    rank = finding_to_map(findings)
    if rank is None:
        return findings, None
    mapped = localizer(pixels, top_k=rank + 1, return_maps=True, radiograph_check="off")[rank]
    return [*findings[:rank], mapped, *findings[rank + 1 :]], mapped["label"]


def table(findings: list[dict]) -> list[str]:
    """The findings as lines, highest score first; a star marks those above their threshold."""
    lines = [f"{'finding':<20} score  threshold  box (xmin, ymin, xmax, ymax)"]
    for finding in findings:
        boxes = "  ".join(f"({', '.join(f'{side:.0f}' for side in box.values())})" for box in finding["boxes"])
        mark = "*" if finding["present"] else " "
        lines.append(f"{finding['label']:<18} {mark} {finding['score']:5.2f}  {finding['threshold']:9.2f}  {boxes}")
    return lines


def advance(progress: tqdm, step: str) -> None:
    """Count the finished step and name the next."""
    progress.update()
    progress.set_description(step)


if __name__ == "__main__":
    sys.exit(main())
