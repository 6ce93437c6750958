# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What of an evaluation's report may be committed or published beside a model: figures and tables, and no image.

A report of `write_report` draws images and stands beside records that name patients. What [`commit_report`] copies has
neither: pictures of images only where these are synthetic, and text in which no name of an image or patient is found.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .table import Cell, Estimate, Row, Table, show

SCHEMA = 2
"""Of the `report.json` that is read here."""

FIGURES = {
    "boxes": "Share of boxes found over t, mean over findings, any region; dotted: published on other images",
    "boxes_largest": "Share of boxes found over t, mean over findings, the largest region alone",
    "froc": "Annotated boxes found over false boxes an image; dots: the thresholds that users have",
    "boxes_per_finding": "Share of boxes found per finding; dashed: the constant box",
    "roc": "ROC curves per finding",
    "precision_recall": "Precision over recall per finding",
    "reliability": "Share of images with the finding over the mean score",
}
"""Figures of a report in the order of the index, and what they show."""

_SHOWN_TABLES = (
    "classification",
    "localization",
    "localization_per_finding",
    "baselines",
    "normal_images",
    "subgroups",
    "maps",
)
"""Tables that the index shows whole; it links the others."""

CASE_SIDE = 420
"""Longer side of a committed picture of a synthetic image, in pixels."""

_NIH_IMAGE = re.compile(r"(?<![\w.])\d{8}_\d{3}(?!\d)")
"""Name of an image of the NIH release, which begins with its patient."""


@dataclass(frozen=True)
class Report:
    """An evaluation as its folder tells it.

    Attributes:
        folder: Where `report.json` lies, with `cases/` and `figures/`.
        content: Of `report.json`.
    """

    folder: Path
    content: Mapping[str, Any]

    @property
    def about(self) -> Mapping[str, Any]:
        """What was evaluated."""
        return self.content["about"]

    @property
    def name(self) -> str:
        """Data and split, as a name of a folder: `phantom-test`."""
        parts = (str(self.about["data"]), str(self.about.get("split") or "all"))
        return "-".join(re.sub(r"[^0-9A-Za-z._]+", "-", part).strip(".-") for part in parts)

    @property
    def synthetic(self) -> bool:
        """Whether the images are drawings; what does not say so is taken for images of patients."""
        return self.about.get("synthetic") is True

    def table(self, name: str) -> Table | None:
        """A table as it was before it became JSON; None where the report has none of the name, or no rows in it."""
        found = self.content["tables"].get(name)
        if not found or not found["rows"]:
            return None
        columns = tuple(head for head in found["rows"][0] if head != "kind")
        rows = tuple(Row(tuple(_cell(row.get(head)) for head in columns), row["kind"]) for row in found["rows"])
        return Table(name, found["title"], columns, rows, found["note"])

    def cases(self) -> Iterator[tuple[str, Mapping[str, Any], Path]]:
        """Title of its kind, entry and picture of each drawn image, by the names that `write_report` gives them."""
        for title, entries in self.content["cases"].items():
            for number, entry in enumerate(entries, start=1):
                yield title, entry, self.folder / "cases" / f"{re.split(r'[^a-z]+', title.casefold())[0]}-{number}.jpg"


@dataclass(frozen=True)
class Committed:
    """What [`commit_report`] wrote.

    Attributes:
        folder: The committed folder.
        size: Bytes of its files.
        names_looked_for: How many names of images and patients were looked for in the text, and not found.
        names_too_short: How many could not be told from figures: short ones, above all of digits.
    """

    folder: Path
    size: int
    names_looked_for: int
    names_too_short: int


def open_report(folder: str | Path) -> Report:
    """Read the report in a folder, an evaluation's own or a committed one.

    Args:
        folder: That `write_report` or [`commit_report`] wrote.

    Raises:
        FileNotFoundError: There is no `report.json`.
        ValueError: It is of another schema.
    """
    path = Path(folder) / "report.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"`folder` must hold report.json, got '{folder}'. Evaluate into it with "
            "examples/evaluate_checkpoint.py."
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"`folder` must hold a report of schema {SCHEMA}, got {content.get('schema')} in '{path.name}'. Evaluate "
            "again with this version."
        )
    return Report(Path(folder), content)


def commit_report(source: str | Path, destination: str | Path, names: Collection[str] | None = None) -> Committed:
    """Copy from a report what may be committed.

    `report.json` (for images of patients without its cases), tables as Markdown, figures as PNG of 256 colours or SVG,
    whichever is smaller, and for synthetic images the drawn cases. Such files of an earlier copy are removed first.

    Args:
        source: Folder that `write_report` wrote.
        destination: A folder of this report, named by its data and split, is made in it.
        names: Of images and patients that must not be in the text. By default those of the records that
            `evaluate_checkpoint` keeps beside the folder; synthetic images have no names to hide.

    Returns:
        The folder and what was checked.

    Raises:
        FileNotFoundError: There is no report, or it is of images of patients whose names are not known.
        ValueError: The report is of another schema, or a name of an image or patient is in its text.
    """
    report = open_report(source)
    if names is None:
        names = () if report.synthetic else _recorded_names(report.folder)
    files = dict(_committed_files(report))
    told = _tellable(names)
    _check_names(files, told, report)
    folder = Path(destination) / report.name
    for pattern in ("report.json", "tables/*.md", "figures/*.png", "figures/*.svg", "cases/*.jpg"):
        for path in folder.glob(pattern):
            path.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Committed(folder, sum(map(len, files.values())), len(told), len(set(names)) - len(told))


def write_index(folder: str | Path, model: str) -> Path:
    """Write `README.md` over committed reports: what was evaluated, figures, tables and pictures of synthetic images.

    Args:
        folder: Holds a folder a report, as [`commit_report`] makes them.
        model: Name of the checkpoint.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: There is no report in it.
    """
    folder = Path(folder)
    reports = [open_report(path.parent) for path in sorted(folder.glob("*/report.json"))]
    if not reports:
        raise FileNotFoundError(f"`folder` must hold reports, got none in '{folder}'. Commit one first.")
    reports.sort(key=lambda report: not report.synthetic)
    parts = [f"# Reports of {model}\n", "Written by `examples/write_card.py` from the evaluations named below.\n"]
    parts += [part for report in reports for part in _index_section(report)]
    path = folder / "README.md"
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def case_caption(entry: Mapping[str, Any]) -> str:
    """What a drawn case shows: finding, score at its threshold, overlap where boxes are annotated; no image's name."""
    overlap = "" if entry["iou"] is None else f", IoU {show(float(entry['iou']))}"
    finding = str(entry["finding"]).replace("_", " ")
    return f"{finding}: score {show(float(entry['score']))} at threshold {show(float(entry['threshold']))}{overlap}"


def _cell(value: Any) -> Cell:
    """A cell from JSON: an interval where there is one; what is undefined stays None."""
    if not isinstance(value, Mapping):
        return value
    parts = (value[key] for key in ("value", "low", "high"))
    return Estimate(*(math.nan if part is None else float(part) for part in parts))


def _recorded_names(folder: Path) -> set[str]:
    """Names of images and patients in the records beside a report."""
    kept = folder.resolve().with_name(f"{folder.resolve().name}-records")
    files = sorted(kept.glob("*.jsonl"))
    if not files:
        raise FileNotFoundError(
            f"`source` must have its records beside it, got no {kept.name}/*.jsonl. Keep them until the report is "
            "committed, or give `names`: without them nobody can say that no patient is named."
        )
    names = set()
    for path in files:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                names |= {str(record[key]) for key in ("name", "patient") if key in record}
    return names | {Path(name).stem for name in names}


def _tellable(names: Collection[str]) -> set[str]:
    """Names that a search can tell from a figure or a word of the report."""
    return {name for name in names if len(name) >= (6 if name.isdigit() else 4)}


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
            # The names themselves stay out of the message, which may end in a log.
            raise ValueError(
                f"`source` must name no image or patient, got {len(found)} such names in {file}. Evaluate again with "
                "`about` and tables that name none."
            )


def _committed_files(report: Report) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what may be committed."""
    content = dict(report.content) if report.synthetic else {**report.content, "cases": {}}
    yield "report.json", (json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    for name in report.content["tables"]:
        table = report.table(name)
        if table is not None:
            yield f"tables/{name}.md", table.markdown().encode()
    for name in FIGURES:
        picture = report.folder / "figures" / f"{name}.png"
        # A figure of an earlier report may have stayed in the folder.
        if picture.is_file() and (not name.startswith("boxes") or "localization" in report.content["tables"]):
            yield _smaller_figure(picture)
    if report.synthetic:
        for _, _, path in report.cases():
            yield f"cases/{path.name}", _reduced(path)


def _smaller_figure(picture: Path) -> tuple[str, bytes]:
    """A figure in the format that takes fewer bytes; 256 colours are more than a figure has apart from its edges."""
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


def _index_section(report: Report) -> Iterator[str]:
    """A report on the index, in Markdown."""
    about, tables = report.about, {name: report.table(name) for name in report.content["tables"]}
    yield f"## {report.name}\n"
    yield f"{show(report.content['images'])} images of {show(report.content['patients'])} patients.\n"
    yield "\n".join(f"- {caveat}" for caveat in report.content["caveats"]) + "\n"
    hashes = [f"{key.replace('_', ' ')} `{about[key]}`" for key in ("weights_hash", "data_hash") if key in about]
    versions = [f"{name} {version}" for name, version in report.content["versions"].items()]
    yield f"```\n{about.get('command', 'command not recorded')}\n```\n"
    yield f"{', '.join([*hashes, *versions])}. [All figures in full precision]({report.name}/report.json).\n"
    for name, text in FIGURES.items():
        for path in sorted((report.folder / "figures").glob(f"{name}.*")):
            yield f"![{text}]({report.name}/figures/{path.name})\n\n{text}.\n"
    for name, table in tables.items():
        if table is not None and (name in _SHOWN_TABLES or name.startswith("sanity_")):
            yield table.markdown()
    others = [
        f"[{table.title}]({report.name}/tables/{name}.md)"
        for name, table in tables.items()
        if table is not None and name not in _SHOWN_TABLES and not name.startswith("sanity_")
    ]
    if others:
        yield f"More tables: {'; '.join(others)}.\n"
    yield from _index_cases(report)


def _index_cases(report: Report) -> Iterator[str]:
    """Pictures of synthetic images, a row a kind; why there are none for images of patients."""
    if not report.synthetic:
        yield "Images of patients are not shown.\n"
        return
    kinds: dict[str, list[tuple[Mapping[str, Any], Path]]] = {}
    for title, entry, path in report.cases():
        kinds.setdefault(title, []).append((entry, path))
    if kinds:
        yield (
            "Cases are chosen by a rule, not by eye. Colour: the finding's map, relative to its own peak, and the "
            "model's own boxes; dashed white: annotated boxes.\n"
        )
    for title, cases in kinds.items():
        pictures = [f"![{entry['finding']}]({report.name}/cases/{path.name})" for entry, path in cases]
        yield f"### {title}\n"
        yield picture_row(pictures, [case_caption(entry) for entry, _ in cases])


def picture_row(pictures: Sequence[str], captions: Sequence[str]) -> str:
    """Pictures side by side with their captions below, as a Markdown table.

    Args:
        pictures: Markdown of each.
        captions: As many.
    """
    return "\n".join(
        [f"| {' | '.join(pictures)} |", "|" + "---|" * len(pictures), f"| {' | '.join(captions)} |", ""]
    )
