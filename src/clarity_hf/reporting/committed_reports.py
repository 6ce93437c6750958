# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The part of a report that may be committed or published beside a model: figures and tables, no image of a patient.

A report of `write_report` shows images and has records beside it that name patients. [`commit_report`] copies pictures
of synthetic images only, and refuses text that names an image or a patient.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from .figures import CAPTIONS
from .rendering import markdown, render
from .schema import Report

SHOWN_TABLES = (
    "classification",
    "localization",
    "localization_per_finding",
    "baselines",
    "normal_images",
    "subgroups",
    "maps",
)
"""Tables that the index shows, with those of sanity checks; it links to the others."""

CASE_SIDE = 420
"""Longer side of a committed picture of a synthetic image, in pixels."""

_NIH_IMAGE = re.compile(r"(?<![\w.])\d{8}_\d{3}(?!\d)")
"""Name of an image of the NIH release, which begins with its patient."""


@dataclass(frozen=True)
class Committed:
    """The copy that [`commit_report`] wrote.

    Attributes:
        folder: The committed folder.
        size: Bytes of its files.
        names_searched: Number of names of images and patients that the text was searched for and does not contain.
        names_too_short: Number of names too short to distinguish from figures, mostly digits.
    """

    folder: Path
    size: int
    names_searched: int
    names_too_short: int


def commit_report(source: str | Path, destination: str | Path, names: Collection[str] | None = None) -> Committed:
    """Copy the part of a report that may be committed.

    `report.json` (for images of patients without its cases), tables as Markdown, figures as PNG of 256 colours or SVG,
    whichever is smaller, and for synthetic images the cases. Such files of an earlier copy are removed first.

    Args:
        source: Folder that `write_report` wrote.
        destination: A folder of this report, named by its data and split, is created in it.
        names: Names of images and patients that must not be in the text. By default those in the records that
            `evaluate_checkpoint` keeps beside the folder; names of synthetic images are not hidden.

    Raises:
        FileNotFoundError: There is no report, or it is of images of patients whose names are not known.
        ValueError: The report is of another schema, or its text names an image or patient.
    """
    report = Report.read(source)
    if names is None:
        names = () if report.synthetic else _recorded_names(report.folder)
    files = dict(_committed_files(report))
    searched = {name for name in names if len(name) >= (6 if name.isdigit() else 4)}
    _check_names(files, searched, report)
    folder = Path(destination) / report.name
    for pattern in ("report.json", "tables/*.md", "figures/*.png", "figures/*.svg", "cases/*.jpg"):
        for path in folder.glob(pattern):
            path.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Committed(folder, sum(map(len, files.values())), len(searched), len(set(names)) - len(searched))


def write_index(folder: str | Path, model: str) -> Path:
    """Write `README.md` of committed reports: what was evaluated, figures, tables and pictures of synthetic images.

    Args:
        folder: Contains one folder per report, as [`commit_report`] writes them.
        model: Name of the checkpoint.

    Raises:
        FileNotFoundError: There is no report in it.
    """
    folder = Path(folder)
    reports = [Report.read(path.parent) for path in sorted(folder.glob("*/report.json"))]
    if not reports:
        raise FileNotFoundError(f"No report in '{folder}'. Commit one first.")
    text = render(
        "reports_index_template.md",
        model=model,
        reports=sorted(reports, key=lambda report: not report.synthetic),
        captions=CAPTIONS,
        figures={
            report.name: {path.stem: path.name for path in (report.folder / "figures").glob("*")} for report in reports
        },
        shown=SHOWN_TABLES,
    )
    path = folder / "README.md"
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return path


def _recorded_names(folder: Path) -> set[str]:
    """Names of images and patients in the records beside a report."""
    kept = folder.resolve().with_name(f"{folder.resolve().name}-records")
    files = sorted(kept.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(
            f"No records beside the report: {kept.name}/*.jsonl. Keep them until the report is committed, or pass "
            "`names`: without them the text cannot be searched for names of patients."
        )
    names = set()
    for path in files:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                names |= {str(record[key]) for key in ("name", "patient") if key in record}
    return names | {Path(name).stem for name in names}


def _check_names(files: Mapping[str, bytes], names: Collection[str], report: Report) -> None:
    for file, content in files.items():
        if not file.endswith((".json", ".md", ".svg")):
            continue
        text = content.decode("utf-8")
        found = {
            name for name in names if name in text and re.search(rf"(?<![\w.]){re.escape(name)}(?![0-9A-Za-z])", text)
        }
        found |= set() if report.synthetic else set(_NIH_IMAGE.findall(text))
        if found:
            # The message, which may be logged, does not contain the names.
            raise ValueError(
                f"`source` must name no image or patient, got {len(found)} such names in {file}. Evaluate again with "
                "`about` and tables that name none."
            )


def _committed_files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what may be committed."""
    shown = report if report.synthetic else replace(report, cases=())
    yield "report.json", shown.to_json().encode()
    for key, table in report.tables.items():
        if table.rows:
            yield f"tables/{key}.md", markdown(table).encode()
    for name in CAPTIONS:
        picture = report.folder / "figures" / f"{name}.png"
        # A figure of an earlier report may still be in the folder.
        if picture.is_file() and (not name.startswith("boxes") or "localization" in report.tables):
            yield _smaller_figure(picture)
    for case in shown.cases:
        yield f"cases/{case.picture}", _reduced(report.folder / "cases" / case.picture)


def _smaller_figure(picture: Path) -> tuple[str, bytes]:
    """A figure in the format that takes fewer bytes; 256 colours are enough for it."""
    stream = io.BytesIO()
    with Image.open(picture) as image:
        colours = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    colours.save(stream, format="PNG", optimize=True)
    drawing = picture.with_suffix(".svg")
    if drawing.is_file() and drawing.stat().st_size < len(stream.getvalue()):
        return f"figures/{drawing.name}", drawing.read_bytes()
    return f"figures/{picture.name}", stream.getvalue()


def _reduced(path: Path) -> bytes:
    stream = io.BytesIO()
    with Image.open(path) as image:
        picture = image.convert("RGB")
    picture.thumbnail((CASE_SIDE, CASE_SIDE), Image.Resampling.LANCZOS)
    picture.save(stream, format="JPEG", quality=85, optimize=True)
    return stream.getvalue()
