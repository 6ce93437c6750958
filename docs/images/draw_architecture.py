# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Draw `docs/images/architecture.svg`, the data's way through the code, and the site's icon `favicon.svg`.

    python docs/images/draw_architecture.py
    python docs/images/draw_architecture.py --output_dir FOLDER

To be run again when a file of the drawing is renamed; the tests compare what it draws with what is committed. Expected
output:

    wrote docs/images/architecture.svg
    wrote docs/images/favicon.svg
"""

import argparse
from collections.abc import Sequence
from html import escape
from pathlib import Path

STAGES = (
    ("image", "path, bytes, PIL,", "array, DICOM", ""),
    ("pixels", "(H, W) in 0 to 255", "image_reading.py", "dicom_reading.py"),
    ("model input", "(B, 3, 224, 224)", "image_processing_", "clarity.py"),
    ("tokens", "(B, 14 + 196, 384)", "ClarityModel in", "modeling_clarity.py"),
    ("scores and maps", "(B, 14), (B, 14, 14, 14)", "heads in", "modeling_clarity.py"),
    ("boxes", "(n, 4) in pixels of image", "boxes.py", ""),
    ("result", "list of dicts, JSON", "pipeline_chest_xray_", "localization.py"),
)
"""Title, shape and files of each stage, from left to right."""

ROOMS = (
    ("data/", ("rows: image, labels, mask", "transforms, priors, splits,", "phantoms/ beside it"), 2, "images in"),
    ("training/", ("Trainer, teacher,", "losses_clarity.py,", "from arguments to a model"), 3, "loss"),
    ("evaluation/", ("records, baselines,", "calibration; metrics/ and", "reporting/ beside it"), 4, "scores, maps"),
    ("inference/", ("many images, DICOM out,", "node, web page;", "export/ beside it"), 6, "results"),
)
"""Name, contents, the stage at which it hangs, and what passes there."""

WIDTH, HEIGHT = 1324, 344
BOX, GAP, TALL, TOP = 168, 20, 104, 20
ROOM_TOP, ROOM_TALL = 220, 104
INK, LINE, FILL, SIDE = "#22303c", "#5b7083", "#eef3f7", "#fbf6ea"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write both drawings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args(arguments).output_dir
    for name, drawing in (("architecture.svg", architecture()), ("favicon.svg", icon())):
        (folder / name).write_text(drawing, encoding="utf-8")
        print(f"wrote {folder / name}")


def architecture() -> str:
    """Stages in a row, the rooms below them, an arrow from each to the next."""
    parts = []
    for number, (title, *lines) in enumerate(STAGES):
        left = _left(number)
        parts.append(_card(left, TOP, TALL, FILL, title, lines))
        if number:
            parts.append(_arrow(left - GAP, TOP + TALL / 2, left - 2, TOP + TALL / 2))
    for title, lines, stage, passes in ROOMS:
        left, middle = _left(stage), _left(stage) + BOX / 2
        parts.append(_card(left, ROOM_TOP, ROOM_TALL, SIDE, title, lines))
        ends = (ROOM_TOP, TOP + TALL + 2) if title == "data/" else (TOP + TALL, ROOM_TOP - 2)
        parts.append(_arrow(middle, ends[0], middle, ends[1]))
        parts.append(_text(middle + 8, (TOP + TALL + ROOM_TOP) / 2 + 4, passes, 13, "start", LINE))
    between = (_left(2) + BOX, _left(3) - 2)
    parts.append(_arrow(between[0], ROOM_TOP + ROOM_TALL / 2, between[1], ROOM_TOP + ROOM_TALL / 2))
    arrow = (
        f'<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker>'
    )
    title = "The way of an image: pixels, model input, tokens, scores and maps, boxes, result; rooms hang below."
    paper = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    return _svg(WIDTH, HEIGHT, title, f"<defs>{arrow}</defs>", paper, *parts)


def icon() -> str:
    """An image with a box."""
    return _svg(
        32,
        32,
        "clarity_hf",
        f'<rect width="32" height="32" rx="6" fill="{INK}"/>',
        '<path d="M10 8v16M22 8v16M10 12h12M10 17h12M10 22h12" stroke="#9fb3c4" stroke-width="2" fill="none"/>',
        '<rect x="13" y="14" width="13" height="12" fill="none" stroke="#e69f00" stroke-width="2.5"/>',
    )


def _left(number: int) -> int:
    return 14 + number * (BOX + GAP)


def _card(left: float, top: float, tall: float, fill: str, title: str, lines: Sequence[str]) -> str:
    rows = [
        f'<rect x="{left}" y="{top}" width="{BOX}" height="{tall}" rx="8" fill="{fill}" stroke="{LINE}"/>',
        _text(left + BOX / 2, top + 26, title, 16, "middle", INK, "bold"),
    ]
    rows += [_text(left + BOX / 2, top + 50 + 19 * row, line, 12.5, "middle", INK) for row, line in enumerate(lines)]
    return "\n".join(rows)


def _text(x: float, y: float, words: str, size: float, anchor: str, colour: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(words)}</text>'
    )


def _arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    return (
        f'<line x1="{x0:g}" y1="{y0:g}" x2="{x1:g}" y2="{y1:g}" stroke="{LINE}" stroke-width="1.6" '
        'marker-end="url(#tip)"/>'
    )


def _svg(width: int, height: int, title: str, *parts: str) -> str:
    box = f'viewBox="0 0 {width} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>", ""])


if __name__ == "__main__":
    main()
