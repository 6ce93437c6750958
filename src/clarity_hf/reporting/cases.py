# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images that a report shows: the method's best and worst, chosen by a rule and drawn with map and boxes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from clarity_hf.metrics.localization import best_overlaps
from clarity_hf.metrics.records import ImageRecord
from clarity_hf.visualization import draw_findings

from .evaluated import Evaluated
from .schema import CaseEntry

Look = Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""Gives images to draw: by name, their pixels `(H, W)` in [0, 255] and maps `(F, h, w)` ≥ 0 over the image."""

PICTURE_SIDE = 560
"""Longer side of a picture at most, in pixels."""

_NO_BOXES = np.zeros((0, 4))


@dataclass(frozen=True)
class Case:
    """An image to show, for one finding.

    Attributes:
        place: Index of its record.
        finding: Index of the finding.
        boxes: `(n, 4)` predicted boxes, xyxy in pixels of the image.
        annotated: `(m, 4)` annotated boxes, m ≥ 0.
        overlap: Mean over the annotated boxes of the IoU with the best predicted one; None without annotated boxes.
    """

    place: int
    finding: int
    boxes: np.ndarray
    annotated: np.ndarray
    overlap: float | None


def pick_cases(evaluated: Evaluated, count: int = 4) -> dict[str, list[Case]]:
    """Choose up to `count` images of each kind of `CASE_TITLES`; a kind without images is left out.

    They are ordered by overlap (best and worst localized; a higher score first in a tie) or by the distance of a score
    from its threshold (missed findings, false boxes). A second image of a finding is chosen only after the first of
    every other finding.
    """
    margins = evaluated.scores - evaluated.score_thresholds
    boxed = _boxed_cases(evaluated)
    known = {(case.place, case.finding): case for case in boxed}
    missed = [
        known.get((place, finding), Case(place, finding, _NO_BOXES, _NO_BOXES, None))
        for place, finding in np.argwhere((evaluated.labels == 1) & (margins < 0)).tolist()
    ]

    def margin(case: Case) -> float:
        return float(margins[case.place, case.finding])

    def surer(case: Case) -> float:
        return -float(evaluated.scores[case.place, case.finding])

    ordered = {
        "best": sorted(boxed, key=lambda case: (-(case.overlap or 0.0), surer(case))),
        "worst": sorted(boxed, key=lambda case: (case.overlap, surer(case))),
        "missed": sorted(missed, key=margin),
        "false": sorted(_false_cases(evaluated), key=lambda case: -margin(case)),
    }
    return {kind: _spread(cases, count) for kind, cases in ordered.items() if cases}


def _boxed_cases(evaluated: Evaluated) -> list[Case]:
    """A case for every (image, finding) with annotated boxes."""
    return [
        Case(place, part.finding, part.own, part.boxes, float(best_overlaps(part.boxes, part.own).mean()))
        for place, record in enumerate(evaluated.records)
        for part in record.annotations
    ]


def _false_cases(evaluated: Evaluated) -> list[Case]:
    """Findings with predicted boxes on images without any finding."""
    cases = []
    for place, record in enumerate(evaluated.records):
        if (record.labels == 0).all():
            for finding in sorted({finding for finding, _ in record.shown}):
                boxes = np.stack([box for other, box in record.shown if other == finding])
                cases.append(Case(place, finding, boxes, _NO_BOXES, None))
    return cases


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """`count` cases in their order, the first of every finding before the second of any."""
    seen: dict[int, int] = {}
    ranked = []
    for place, case in enumerate(cases):
        seen[case.finding] = seen.get(case.finding, 0) + 1
        ranked.append((seen[case.finding], place))
    return [cases[place] for place in sorted(place for _, place in sorted(ranked)[:count])]


def draw_case(case: Case, finding: str, score: float, pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Draw an image with the map of one finding, predicted boxes in colour and annotated ones in dashed white.

    Args:
        case: What to draw.
        finding: The finding's name.
        score: Its score on this image.
        pixels: `(H, W)` in [0, 255].
        heat: `(h, w)` ≥ 0, the finding's map over the image.

    Returns:
        RGB picture in the image's proportions, its longer side at most `PICTURE_SIDE`.
    """
    height, width = pixels.shape
    values = Image.fromarray(np.asarray(heat, dtype=np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    corners = [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in case.boxes.tolist()]
    label = finding.replace("_", " ")
    result = {"label": label, "score": score, "boxes": corners, "map": np.asarray(values)}
    picture = draw_findings(pixels, [result], heat_of=label)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for box in case.annotated * (picture.width / width):
        _dash(draw, box, picture.size)
    return picture


def _dash(draw: ImageDraw.ImageDraw, box: np.ndarray, size: tuple[int, int]) -> None:
    """Outline a box in dashed white; right and bottom are exclusive, unlike Pillow's lines."""
    x0, y0 = box[:2]
    x1, y1 = min(box[2], size[0]) - 1, min(box[3], size[1]) - 1
    for start, end in (((x0, y0), (x1, y0)), ((x0, y1), (x1, y1)), ((x0, y0), (x0, y1)), ((x1, y0), (x1, y1))):
        way = np.subtract(end, start)
        steps = max(1, round(float(np.abs(way).sum()) / 7))
        for step in range(0, steps, 2):
            from_, to = start + way * step / steps, start + way * (step + 1) / steps
            draw.line((*from_, *to), fill="white", width=2)


def drawn_cases(evaluated: Evaluated, look: Look, count: int = 4) -> dict[CaseEntry, bytes]:
    """The chosen images with their pictures as JPEG; one image is read at a time.

    Raises:
        ValueError: `look` does not return the image, or returns maps of another shape.
    """
    pictures = {}
    for kind, cases in pick_cases(evaluated, count).items():
        for number, case in enumerate(cases, start=1):
            record, finding = evaluated.records[case.place], evaluated.findings[case.finding]
            pixels, maps = _looked_up(look, record.name, len(evaluated.findings))
            score, threshold = float(record.scores[case.finding]), float(evaluated.score_thresholds[case.finding])
            name = None if _names_patient(record) else record.name
            entry = CaseEntry(kind, number, case.place + 1, name, finding, score, threshold, case.overlap)
            stream = io.BytesIO()
            draw_case(case, finding, score, pixels, maps[case.finding]).save(stream, format="JPEG", quality=88)
            pictures[entry] = stream.getvalue()
    return pictures


def _looked_up(look: Look, name: str, num_findings: int) -> tuple[np.ndarray, np.ndarray]:
    seen: Any = look([name])
    if name not in seen:
        raise ValueError(f"`look` must return the images it is asked for, got none for '{name}'.")
    pixels, maps = np.asarray(seen[name][0]), np.asarray(seen[name][1])
    if pixels.ndim != 2 or maps.ndim != 3 or len(maps) != num_findings:
        raise ValueError(
            f"`look` must return pixels (H, W) and maps ({num_findings}, h, w) over the image, got {pixels.shape} and "
            f"{maps.shape}."
        )
    return pixels, maps


def _names_patient(record: ImageRecord) -> bool:
    """Whether the image's name holds the patient's id, as `00000013_005.png` of patient 13 does."""
    patient = record.patient.casefold()
    bare = [part.lstrip("0") for part in re.split(r"[^0-9a-z]+", record.name.casefold())]
    return patient.lstrip("0") in bare or (len(patient) > 3 and patient in record.name.casefold())
