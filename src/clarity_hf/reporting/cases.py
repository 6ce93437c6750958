# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Images worth a look: where a method does best and where it fails, chosen by a rule and drawn with map and boxes."""

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

from .tables import Evaluated

Look = Callable[[Sequence[str]], Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""Gives images to draw: from names of images to pixels `(H, W)` in [0, 255] and maps `(F, h, w)` ≥ 0 over the
image.
"""


@dataclass(frozen=True)
class Case:
    """An image worth a look, for one finding.

    Attributes:
        place: Index of its record.
        finding: Index of the finding.
        boxes: `(n, 4)` boxes of the method to draw, xyxy in pixels of the image.
        annotated: `(m, 4)` annotated boxes, m ≥ 0.
        overlap: IoU of the annotated boxes with the method's best, their mean; None without annotated boxes.
    """

    place: int
    finding: int
    boxes: np.ndarray
    annotated: np.ndarray
    overlap: float | None


def pick_cases(evaluated: Evaluated, count: int = 4) -> dict[str, list[Case]]:
    """Choose what to look at: where the method does best and where it fails.

    A rule chooses, not an eye: the order is by overlap (best and worst localized; of equal ones the higher score
    first) or by the distance of a score from its threshold (missed findings, false boxes), and a second case of a
    finding comes only when every other finding has had its first.

    Args:
        evaluated: Records and thresholds.
        count: Cases of a kind at most.

    Returns:
        Cases by the title of their kind; a kind without cases is left out.
    """
    boxed = [(case, _score(evaluated, case)) for case in _boxed_cases(evaluated)]
    ordered = {
        "Best localized": sorted(boxed, key=lambda pair: (-_overlap(pair[0]), -pair[1])),
        "Worst localized": sorted(boxed, key=lambda pair: (_overlap(pair[0]), -pair[1])),
        "Missed: present, and furthest below the threshold": sorted(
            _missed_cases(evaluated), key=lambda pair: pair[1]
        ),
        "False boxes: images without findings, and furthest above the threshold": sorted(
            _false_cases(evaluated), key=lambda pair: -pair[1]
        ),
    }
    return {title: _spread([case for case, _ in pairs], count) for title, pairs in ordered.items() if pairs}


def _boxed_cases(evaluated: Evaluated) -> list[Case]:
    """A case for every (image, finding) with annotated boxes."""
    cases = []
    for place, record in enumerate(evaluated.records):
        for part in record.annotations:
            overlap = float(best_overlaps(part.boxes, part.own).mean())
            cases.append(Case(place, part.finding, part.own, part.boxes, overlap))
    return cases


def _missed_cases(evaluated: Evaluated) -> list[tuple[Case, float]]:
    """Present findings below their threshold, with the margin; without boxes where none are annotated."""
    known = {(case.place, case.finding): case for case in _boxed_cases(evaluated)}
    margins = evaluated.scores - evaluated.score_thresholds
    missed = np.argwhere((evaluated.labels == 1) & (margins < 0)).tolist()
    return [
        (known.get((place, finding), Case(place, finding, _NONE, _NONE, None)), float(margins[place, finding]))
        for place, finding in missed
    ]


def _false_cases(evaluated: Evaluated) -> list[tuple[Case, float]]:
    """Findings that are boxed on images without any, with the margin over their threshold."""
    margins = evaluated.scores - evaluated.score_thresholds
    cases = []
    for place, record in enumerate(evaluated.records):
        if (record.labels == 0).all():
            for finding in sorted({finding for finding, _ in record.shown}):
                boxes = np.stack([box for other, box in record.shown if other == finding])
                cases.append((Case(place, finding, boxes, _NONE, None), float(margins[place, finding])))
    return cases


def _score(evaluated: Evaluated, case: Case) -> float:
    return float(evaluated.scores[case.place, case.finding])


def _overlap(case: Case) -> float:
    return -1.0 if case.overlap is None else case.overlap


def _spread(cases: Sequence[Case], count: int) -> list[Case]:
    """The first `count` cases in their order, those of new findings before second ones of the same."""
    seen: dict[int, int] = {}
    ranked = []
    for place, case in enumerate(cases):
        seen[case.finding] = seen.get(case.finding, 0) + 1
        ranked.append((seen[case.finding], place, case))
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:count]
    return [case for _, _, case in sorted(chosen, key=lambda entry: entry[1])]


def draw_case(
    case: Case, finding: str, score: float, pixels: np.ndarray, maps: np.ndarray, side: int = 560
) -> Image.Image:
    """An image with the map of one finding, the method's boxes in colour and the annotated ones in dashed white.

    Args:
        case: What to draw.
        finding: The finding's name.
        score: Its score on this image.
        pixels: `(H, W)` in [0, 255].
        maps: `(F, h, w)` ≥ 0 over the whole image.
        side: Longer side of the picture at most, in pixels.

    Returns:
        RGB picture in the image's proportions.
    """
    height, width = pixels.shape
    heat = Image.fromarray(np.asarray(maps[case.finding], dtype=np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    corners = [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in case.boxes.tolist()]
    label = finding.replace("_", " ")
    result = {"label": label, "score": score, "boxes": corners, "map": np.asarray(heat)}
    picture = draw_findings(pixels, [result], heat_of=label)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for box in case.annotated * (picture.width / width):
        _dash(draw, box, picture.size)
    return picture


def _dash(draw: ImageDraw.ImageDraw, box: np.ndarray, size: tuple[int, int], length: float = 7.0) -> None:
    """Outline a box in dashed white; right and bottom are exclusive, Pillow's lines are not."""
    x0, y0 = box[:2]
    x1, y1 = min(box[2], size[0]) - 1, min(box[3], size[1]) - 1
    for start, end in (((x0, y0), (x1, y0)), ((x0, y1), (x1, y1)), ((x0, y0), (x0, y1)), ((x1, y0), (x1, y1))):
        way = np.subtract(end, start)
        steps = max(1, round(float(np.abs(way).sum()) / length))
        for step in range(0, steps, 2):
            from_, to = start + way * step / steps, start + way * (step + 1) / steps
            draw.line((*from_, *to), fill="white", width=2)


def case_entries(evaluated: Evaluated, look: Look, count: int) -> dict[str, list[dict[str, Any]]]:
    """Pictures and captions of the cases; an image is asked for when it is drawn, so that one is held at a time.

    Raises:
        ValueError: `look` lacks an image that it was asked for, or gives maps of another shape.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    for title, cases in pick_cases(evaluated, count).items():
        entries[title] = []
        for case in cases:
            record = evaluated.records[case.place]
            seen = look([record.name])
            if record.name not in seen:
                raise ValueError(f"`look` must give the images it is asked for, got none for '{record.name}'. Add it.")
            pixels, maps = _checked_look(*seen[record.name][:2], len(evaluated.findings))
            finding, score = evaluated.findings[case.finding], float(record.scores[case.finding])
            stream = io.BytesIO()
            draw_case(case, finding, score, pixels, maps).save(stream, format="JPEG", quality=88)
            entries[title].append(
                {
                    "record": case.place + 1,
                    "image": None if _tells_patient(record) else record.name,
                    "finding": finding,
                    "score": score,
                    "threshold": float(evaluated.score_thresholds[case.finding]),
                    "iou": case.overlap,
                    "picture": stream.getvalue(),
                }
            )
    return entries


def _checked_look(pixels: Any, maps: Any, num_findings: int) -> tuple[np.ndarray, np.ndarray]:
    pixels, maps = np.asarray(pixels), np.asarray(maps)
    if pixels.ndim != 2 or maps.ndim != 3 or len(maps) != num_findings:
        raise ValueError(
            f"`look` must give pixels (H, W) and maps ({num_findings}, h, w), got {pixels.shape} and {maps.shape}. "
            "Lay the maps over the image."
        )
    return pixels, maps


def _tells_patient(record: ImageRecord) -> bool:
    """Whether the image's name holds the patient's id, as `00000013_005.png` of patient 13 does."""
    patient = record.patient.casefold()
    parts = re.split(r"[^0-9a-z]+", record.name.casefold())
    bare = [part.lstrip("0") for part in parts]
    return patient.lstrip("0") in bare or (len(patient) > 3 and patient in record.name.casefold())


_NONE = np.zeros((0, 4))
