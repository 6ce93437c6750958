# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The report of an evaluation: tables, figures, and one HTML file that says what was evaluated and how to read it.

It is made from the records of one method, and of baselines on the same images, and never sees a map, except to draw a
few images. Nothing in it says which image belongs to which patient.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from clarity_hf.data.named_splits import SPLITS
from clarity_hf.metrics.classification import (
    auroc_per_finding,
    average_precision_per_finding,
    calibration_error_per_finding,
)
from clarity_hf.metrics.image_driven import MapRules
from clarity_hf.metrics.localization import LEVELS
from clarity_hf.metrics.records import ImageRecord, to_json
from clarity_hf.metrics.splits import boxed

from . import figures as curves
from .cases import Look, case_entries
from .rival_tables import ImageDriven, headline, rival_tables
from .table import Cell, Table, plain, show, show_interval
from .tables import CONSTANT_BOX, PUBLISHED, Evaluated, Localized, build_tables, localize, sanity_tables

_FROM_ABOUT = ("images", "patients", "score_thresholds", "versions")
"""What `report.json` says once, in the words of `about` where it has them."""

TEMPLATE = Path(__file__).parent / "report_template.html"


def write_report(
    records: Sequence[ImageRecord],
    folder: str | Path,
    about: Mapping[str, Any],
    *,
    findings: Sequence[str],
    score_thresholds: Sequence[float] | np.ndarray,
    baselines: Mapping[str, Sequence[ImageRecord]] | None = None,
    sanity: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    look: Look | None = None,
    tuning_split: str | None = None,
    map_rules: MapRules | None = None,
    cases: int = 4,
    min_positives: int = 20,
    repeats: int = 1000,
    seed: int = 0,
) -> Path:
    """Write the report of one method: `report.html`, `report.json`, and folders of its tables, figures and cases.

    `report.html` is one file that needs no other, no network and no script. `tables/` holds each table as Markdown and
    CSV, `figures/` each figure as SVG and PNG, `cases/` the images that were drawn. Files of an earlier report in the
    folder are overwritten where they have the same name, and else stay. No patient is named: a drawn image is called
    by its number among the records, and by its name unless that holds the patient's id.

    Args:
        records: Of the method, one per image.
        folder: Made where it is missing.
        about: What the reader must know, in the order in which it is shown: `model` and `data` (names, no paths), and
            such as `weights_hash`, `data_hash`, `split`, `seeds`, `versions`, `map_thresholds`, `command`; values are
            text, numbers, lists or mappings. `synthetic` (true for phantoms) and `caveats` (a list of text) become
            caveats, and so does a `split` that is not `test`. What the report would count itself (`images`,
            `versions`, `score_thresholds`) is said in these words alone.
        findings: The F names.
        score_thresholds: `(F,)` in [0, 1], chosen on other images.
        baselines: Records of other methods on the same images, by name.
        sanity: Small tables by title, each a list of rows, each a mapping from head to value.
        look: Gives images to draw, called once for each case with a list of one name; None leaves the cases out, as
            where images must not leave their place.
        tuning_split: Name of a committed list of patients, see [`named_split`], such as `nih-boxes-tuning-0`: map
            thresholds are tuned on the half that it names, and on the other half. None draws the half with `seed`.
        map_rules: How the method draws boxes from a map, see [`MapRules`]; None leaves out the rival that
            draws them from the mean map of other images.
        cases: Cases of a kind at most.
        min_positives: Findings with fewer positives are listed but not in a mean.
        repeats: Draws of every bootstrap by patient.
        seed: Of every bootstrap and split.

    Returns:
        Path of `report.html`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: As for [`check_report`], there are no records, they do not fit the names, a baseline has other
            images, or `tuning_split` lists none, or all, of the patients with boxes.
    """
    check_report(
        about,
        findings=findings,
        score_thresholds=score_thresholds,
        baselines=tuple(baselines or ()),
        tuning_split=tuning_split,
        repeats=repeats,
    )
    thresholds = np.asarray(score_thresholds, dtype=np.float64)
    named = tuple(findings)
    evaluated = Evaluated(records, named, thresholds, min_positives, repeats, seed, tuning_split, map_rules)
    _check_records(evaluated)
    others = {name: _aligned(records, other, name) for name, other in (baselines or {}).items()}
    model = str(about["model"])
    localized = localize(evaluated, others)
    driven = ImageDriven(evaluated)
    tables = build_tables(evaluated, localized, others, model) | rival_tables(evaluated, driven, model)
    tables |= sanity_tables(sanity or {})
    figures = _figures(evaluated, localized, driven, model)
    entries = {} if look is None else case_entries(evaluated, look, cases)
    folder = Path(folder)
    _write_parts(folder, tables, figures, entries)
    summary = _summary(evaluated, about, tables, entries)
    _write(folder / "report.json", json.dumps(plain(summary), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return _write(folder / "report.html", _html(evaluated, about, driven, tables, figures, entries))


def check_report(
    about: Mapping[str, Any],
    *,
    findings: Sequence[str],
    score_thresholds: Sequence[float] | np.ndarray,
    baselines: Collection[str] = (),
    tuning_split: str | None = None,
    repeats: int = 1000,
) -> None:
    """Refuse before a long evaluation what [`write_report`] would refuse after it.

    Args:
        about: As for [`write_report`].
        findings: The F names.
        score_thresholds: `(F,)`.
        baselines: Names of the methods that will stand beside the model.
        tuning_split: As for [`write_report`].
        repeats: Draws of every bootstrap.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `about` lacks `model` or `data`, there is not one threshold a finding, a baseline has the name of
            the model or of the constant box, there is no list of the name `tuning_split`, or no draws are wanted.
    """
    curves.require_matplotlib()
    missing = [key for key in ("model", "data") if not about.get(key)]
    if missing:
        raise ValueError(f"`about` must say {' and '.join(missing)}, got {sorted(about)}. Name what was evaluated.")
    thresholds = np.asarray(score_thresholds, dtype=np.float64)
    if thresholds.shape != (len(findings),) or np.isnan(thresholds).any():
        raise ValueError(
            f"`score_thresholds` must be {len(findings)} numbers, got {thresholds.tolist()}. Give one for every "
            "finding."
        )
    taken = sorted({str(about["model"]), CONSTANT_BOX} & set(baselines))
    if taken:
        raise ValueError(f"`baselines` must have names of their own, got {taken}. Rename them, or the model.")
    if tuning_split is not None and tuning_split not in SPLITS:
        raise ValueError(
            f"`tuning_split` must be one of {', '.join(SPLITS)}, or None, got '{tuning_split}'. Choose one of them."
        )
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}. A thousand are usual.")


def _check_records(evaluated: Evaluated) -> None:
    """Refuse what would only fail, or mislead, further on."""
    count = len(evaluated.findings)
    if len(evaluated.records) == 0:
        raise ValueError("`records` must hold at least one image, got none. Evaluate some images first.")
    for record in evaluated.records:
        if record.scores.shape != (count,) or record.labels.shape != (count,):
            raise ValueError(
                f"`findings` must name {len(record.scores)} findings, as the records have, got {count}. "
                "Give the names that were evaluated."
            )
    names = [record.name for record in evaluated.records]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`records` must be of different images, got {len(names) - len(set(names))} twice. Drop them."
        )
    patients = {record.patient for record in boxed(evaluated.records)}
    listed = patients & (evaluated.tuning_patients or set())
    if evaluated.tuning_split is not None and patients and len(listed) in (0, len(patients)):
        raise ValueError(
            f"`tuning_split` must list some of the {len(patients)} patients with boxes and leave some, got "
            f"'{evaluated.tuning_split}' with {len(listed)} of them. Choose the list of this data set, or None."
        )


def _aligned(records: Sequence[ImageRecord], others: Sequence[ImageRecord], name: str) -> list[ImageRecord]:
    """Records of a baseline in the order of the method's."""
    by_name = {record.name: record for record in others}
    missing = sum(record.name not in by_name for record in records)
    if missing or len(by_name) != len(records):
        raise ValueError(
            f"`baselines['{name}']` must be records of the same {len(records)} images, got {len(by_name)}, "
            f"{missing} missing. Evaluate it on these images."
        )
    return [by_name[record.name] for record in records]


def _caveats(about: Mapping[str, Any]) -> list[str]:
    caveats = ["Research use only. Not a medical device; not for diagnosis."]
    if about.get("synthetic"):
        caveats.append("Synthetic phantoms: the images are drawings. Figures on them say nothing about patients.")
    caveats.append(
        "An independent reconstruction of CLARiTy (arXiv 2512.16700): neither the paper's code nor its weights, and "
        "its figures are not this model's."
    )
    if about.get("split") != "test":
        caveats.append(
            f"Images of {_named_part(about.get('split'))} may have chosen epoch and thresholds: figures on them are "
            "optimistic."
        )
    return caveats + [str(caveat) for caveat in about.get("caveats", ())]


def _named_part(split: Any) -> str:
    return f"the {split} split" if split else "a split that is not named"


def _about_lines(evaluated: Evaluated, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was evaluated, as names and text; what `about` says is not said again."""
    shown = {key: value for key, value in about.items() if key not in ("caveats", "synthetic")}
    seed = "" if {"seed", "seeds"} & set(about) else f", seed {evaluated.seed}"
    counted = {
        "images": f"{len(evaluated.records):,} of {len(set(evaluated.patients)):,} patients",
        "boxes_tuned_on": evaluated.half,
        "intervals": f"95 %, {evaluated.repeats:,} bootstrap draws of patients{seed}",
        "records": f"sha256 {_fingerprint(evaluated.records)}",
        "versions": _versions(),
    }
    return [(key.replace("_", " "), _text(value)) for key, value in (shown | (counted | shown)).items()]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("clarity_hf", "numpy", "scikit-learn", "matplotlib")}


def _fingerprint(records: Iterable[ImageRecord]) -> str:
    """What binds a report to its records: the hash of their JSON lines."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(to_json(record), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _summary(
    evaluated: Evaluated,
    about: Mapping[str, Any],
    tables: Mapping[str, Table],
    entries: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """All that the report says, for a machine; what `about` has of the same name stands in its place, once."""
    summary = {
        "schema": 2,
        "about": about,
        "caveats": _caveats(about),
        "findings": evaluated.findings,
        "images": len(evaluated.records),
        "patients": len(set(evaluated.patients)),
        "score_thresholds": evaluated.score_thresholds,
        "min_positives": evaluated.min_positives,
        "tuning_split": evaluated.tuning_split,
        "bootstrap": {"by": "patient", "repeats": evaluated.repeats, "seed": evaluated.seed, "level": 0.95},
        "records_sha256": _fingerprint(evaluated.records),
        "versions": _versions(),
        "tables": {name: table.json() for name, table in tables.items()},
        "cases": {
            title: [{key: value for key, value in entry.items() if key != "picture"} for entry in group]
            for title, group in entries.items()
        },
    }
    moved = {key: value for key, value in about.items() if key in _FROM_ABOUT}
    return summary | moved | {"about": {key: value for key, value in about.items() if key not in summary}}


def _write_parts(
    folder: Path,
    tables: Mapping[str, Table],
    figures: Mapping[str, _Figure],
    entries: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    for name, table in tables.items():
        _write(folder / "tables" / f"{name}.md", table.markdown())
        _write(folder / "tables" / f"{name}.csv", table.csv())
    for name, figure in figures.items():
        for format, content in figure.files.items():
            _write(folder / "figures" / f"{name}.{format}", content)
    for title, group in entries.items():
        for number, entry in enumerate(group, start=1):
            slug = re.split(r"[^a-z]+", title.casefold())[0]
            _write(folder / "cases" / f"{slug}-{number}.jpg", entry["picture"])


def _write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _caption(entry: Mapping[str, Any]) -> str:
    overlap = "" if entry["iou"] is None else f", IoU {entry['iou']:.2f}"
    image = "" if entry["image"] is None else f", {entry['image']}"
    return (
        f"score {entry['score']:.2f} at threshold {entry['threshold']:.2f}{overlap}; record {entry['record']}{image}"
    )


@dataclass(frozen=True)
class _Figure:
    """A figure as its files, by format, with its caption."""

    caption: str
    files: dict[str, bytes]


def _figures(evaluated: Evaluated, localized: Localized, driven: ImageDriven, model: str) -> dict[str, _Figure]:
    """Figures with their captions, by name."""
    findings, scores, labels = evaluated.findings, evaluated.scores, evaluated.labels
    areas, precisions = auroc_per_finding(scores, labels), average_precision_per_finding(scores, labels)
    errors = calibration_error_per_finding(scores, labels)
    figures = {
        "roc": ("ROC curves. Dashed: a guess.", curves.roc_figure(findings, scores, labels, areas)),
        "precision_recall": (
            "Precision over recall. Dashed: a guess, whose precision is the share of images with the finding.",
            curves.precision_recall_figure(findings, scores, labels, precisions),
        ),
        "reliability": (
            "Reliability: share of images with the finding over the mean score of a bin of scores; a point's area "
            "grows with the images in its bin. On the dashed line a score is a probability.",
            curves.reliability_figure(findings, scores, labels, errors),
        ),
    }
    if localized.has_boxes:
        figures |= _box_figures(evaluated, localized, model)
    if driven.froc is not None:
        figures["froc"] = (
            "FROC: share of annotated boxes found over false boxes an image, for the findings with annotated boxes, "
            "as all score thresholds move together. Dots: the thresholds that users have.",
            curves.froc_figure(driven.froc),
        )
    return {
        name: _Figure(caption, {format: curves.figure_bytes(figure, format) for format in ("svg", "png")})
        for name, (caption, figure) in figures.items()
    }


def _box_figures(evaluated: Evaluated, localized: Localized, model: str) -> dict[str, tuple[str, Any]]:
    """T(IoU) of all methods, boxes tuned alike, and per finding."""
    tuned, constant = localized.tuned.found(), localized.constant.found()
    largest = {model: localized.method.largest} | {name: one.largest for name, one in localized.baselines.items()}
    others = {name: one.any_region.crossed.iou.found().macro for name, one in localized.baselines.items()}
    published = {name: np.array([shares.get(level, np.nan) for level in LEVELS]) for name, shares in PUBLISHED.items()}
    alone = {name: one.crossed.iou.found().macro for name, one in largest.items()}
    dashed = {CONSTANT_BOX: constant.macro}
    return {
        "boxes": (
            "Share of boxes found, mean over findings; map thresholds tuned alike for every method, any region may "
            "match. Solid and dashed: on this data. Dotted and grey: published on NIH's 984 boxes, not on this data.",
            curves.boxes_figure(LEVELS, {model: tuned.macro} | dashed | others, published),
        ),
        "boxes_largest": (
            "The same where the largest region of a map is drawn alone, thresholds tuned for it.",
            curves.boxes_figure(LEVELS, {model: alone.pop(model)} | dashed | alone, {}),
        ),
        "boxes_per_finding": (
            "Share of boxes found per finding, map thresholds tuned, any region, whatever the score; dashed: the "
            "constant box.",
            curves.boxes_per_finding_figure(evaluated.findings, LEVELS, tuned.shares, constant.shares, tuned.counts),
        ),
    }


@dataclass(frozen=True)
class _Section:
    """A part of the page: paragraphs, then tables, figures and cases by name, those that the report has."""

    anchor: str
    title: str
    names: tuple[str, ...]
    text: tuple[str, ...] = ()


_SECTIONS = (
    _Section(
        "classification",
        "Classification",
        (
            "classification",
            "classification_rivals",
            "roc",
            "precision_recall",
            "operating_points",
            "calibration",
            "reliability",
        ),
    ),
    _Section("subgroups", "Subgroups", ("subgroups",)),
    _Section(
        "localization",
        "Localization",
        (
            "rivals",
            "image_driven",
            "froc",
            "localization",
            "boxes",
            "boxes_largest",
            "localization_pooled",
            "published",
            "halves",
            "boxes_per_finding",
            "localization_per_finding",
            "published_per_finding",
            "wang",
            "localization_other",
            "masks",
        ),
    ),
    _Section("normal", "Images without findings", ("normal_images",)),
    _Section("baselines", "Comparison with baselines", ("baselines",)),
    _Section("sanity", "Sanity of the maps", ("maps",)),
    _Section(
        "cases",
        "Best and worst cases",
        (),
        (
            "Chosen by a rule, not by eye: by overlap, or by the distance of the score from its threshold, a finding "
            "at a time. Colour: the finding's map, relative to its own peak, and the model's own boxes; dashed white: "
            "annotated boxes. The number of a record is its line in the file of records.",
        ),
    ),
)


def _html(
    evaluated: Evaluated,
    about: Mapping[str, Any],
    driven: ImageDriven,
    tables: Mapping[str, Table],
    figures: Mapping[str, _Figure],
    entries: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"value": show, "interval": show_interval}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=f"Evaluation of {about['model']}",
        subtitle=f"On {about['data']}: {len(evaluated.records):,} images of {len(set(evaluated.patients)):,} "
        "patients.",
        caveats=_caveats(about),
        cards=_cards(tables, driven),
        about=_about_lines(evaluated, about),
        sections=_filled_sections(tables, figures, entries),
        footer=f"Written by clarity_hf {importlib.metadata.version('clarity_hf')}. The same figures with full "
        "precision are in report.json and tables/. Research use only.",
    )


def _filled_sections(
    tables: Mapping[str, Table],
    figures: Mapping[str, _Figure],
    entries: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[dict[str, Any]]:
    filled = []
    for section in _SECTIONS:
        names = section.names + tuple(
            name for name in tables if section.anchor == "sanity" and name.startswith("sanity_")
        )
        parts: list[dict[str, Any]] = []
        for name in names:
            if name in tables:
                parts.append({"kind": "table", "content": tables[name], "published": name.startswith("published")})
            elif name in figures:
                content = {"caption": figures[name].caption, "uri": _uri(figures[name].files["svg"], "svg+xml")}
                parts.append({"kind": "figure", "content": content})
        if section.anchor == "cases":
            parts += [{"kind": "cases", "content": _shown_cases(title, group)} for title, group in entries.items()]
        if parts:
            filled.append({"anchor": section.anchor, "title": section.title, "text": section.text, "parts": parts})
    return filled


def _shown_cases(title: str, group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cases = [
        {
            "finding": entry["finding"].replace("_", " "),
            "caption": _caption(entry),
            "alt": f"Image with the map and boxes of {entry['finding'].replace('_', ' ')}: {_caption(entry)}",
            "uri": _uri(entry["picture"], "jpeg"),
        }
        for entry in group
    ]
    return {"title": title, "cases": cases}


def _cards(tables: Mapping[str, Table], driven: ImageDriven) -> list[dict[str, str]]:
    """The few figures that a reader wants first, each with what it must be compared with."""
    mean, rivals = tables["classification"].rows[-1].cells, tables["classification_rivals"]
    inside = rivals.rows[-1].cells[rivals.columns.index("within a view")]
    cards = [
        _card(f"AUROC, {str(mean[0]).lower()}", mean[3], "0.5 is a guess"),
        _card("AUROC within one view position", inside, "0.5 is a guess"),
    ]
    if driven.has_boxes:
        figures, drawn = headline(driven), f"{driven.own.boxes_predicted:.1f} boxes a map"
        constant = f"{driven.k} constant box{'es' * (driven.k > 1)}"
        cards += [
            _card(f"Boxes found at IoU > 0.3, less {constant}", figures["constant"], f"0: sees no image; {drawn}"),
            _card("The same, less another image's map", figures["swapped"], "0: does not follow its image"),
            _card("Pixel AUROC over the mean map", figures["pixel"], "0 is the mean of other images' maps"),
            _card("One-sided images, map on the right side", figures["side"], "0.5 is a guess"),
        ]
    normal = tables["normal_images"].rows
    if len(normal) > 1:
        cards.append(
            _card("Normal images with a false box", normal[1].cells[1], f"of {show(normal[0].cells[1])} images")
        )
    return cards


def _card(title: str, cell: Cell, note: str) -> dict[str, str]:
    interval = show_interval(cell).strip("()")
    return {"title": title, "value": show(cell), "note": "; ".join(filter(None, (interval, note)))}
