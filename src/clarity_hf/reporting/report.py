# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The report of an evaluation: tables, figures, and one HTML file that says what was evaluated and how to read it.

It is made from the records of one method and of other methods on the same images. Maps are only needed for a few
example images. It does not reveal which image belongs to which patient.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from clarity_hf.data.named_splits import SPLITS
from clarity_hf.metrics.records import ImageRecord, to_json

from .cases import Look, drawn_cases
from .classification_tables import classification_tables
from .evaluated import Evaluated
from .figures import CAPTIONS, report_figures, require_matplotlib
from .localization_tables import FIXED_BOX, FIXED_BOX_NAME, MODEL, Localized, localization_tables, sanity_tables
from .rendering import case_caption, csv_of, markdown, render, show, show_interval
from .rival_tables import SWAPPED_MAP, ImageDriven, fixed_boxes_key, fixed_boxes_name, rival_tables
from .schema import Bootstrap, CaseEntry, Cell, Report


def write_report(
    evaluated: Evaluated,
    folder: str | Path,
    about: Mapping[str, Any],
    *,
    sanity: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    look: Look | None = None,
) -> Path:
    """Write the report of one method: `report.html`, `report.json`, and folders of its tables, figures and cases.

    `report.html` is a single file that needs no network and no script. `tables/` holds each table as Markdown and CSV,
    `figures/` each figure as SVG and PNG, `cases/` the example images. Files of an earlier report in the folder are
    overwritten where they have the same name. No patient is named: an example image is called by its number among the
    records, and by its name unless that contains the patient's id.

    Args:
        evaluated: Records of the method and of its baselines, and how they are evaluated; its `name` comes from
            `about`, and records of baselines may be in any order.
        folder: Created if needed.
        about: What was evaluated, in the order in which it is shown: `model` and `data` (names, no paths), and others
            such as `weights_hash`, `data_hash`, `split`, `seeds`, `versions`, `map_thresholds`, `command`; values are
            text, numbers, lists or mappings. `synthetic` (true for phantoms) and `caveats` (a list of text) become
            caveats, and so does a `split` other than `test`.
        sanity: Small tables by title, each a list of rows, each a mapping from heading to value.
        look: Gives example images, called once per case with a list of one name; None leaves the cases out, for images
            that must not be shown.

    Returns:
        Path of `report.html`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: As for [`check_report`], there are no records, they do not fit the names, a baseline has other
            images, or `tuning_split` lists none, or all, of the patients with boxes.
    """
    check_report(evaluated, about)
    _check_records(evaluated)
    records, thresholds, folder = evaluated.records, np.asarray(evaluated.score_thresholds, float), Path(folder)
    others = {name: _aligned(records, other, name) for name, other in evaluated.baselines.items()}
    evaluated = replace(evaluated, score_thresholds=thresholds, name=str(about["model"]), baselines=others)
    localized, driven = Localized(evaluated), ImageDriven(evaluated)
    tables = [
        *classification_tables(evaluated),
        *rival_tables(driven),
        *localization_tables(localized),
        *sanity_tables(sanity or {}),
    ]
    figures = report_figures(localized, driven.froc)
    pictures = {} if look is None else drawn_cases(evaluated, look)
    report = Report(
        about={key: value for key, value in about.items() if key not in ("caveats", "versions")},
        caveats=_caveats(about),
        findings=evaluated.findings,
        images=len(records),
        patients=len(set(evaluated.patients)),
        score_thresholds=dict(zip(evaluated.findings, thresholds.tolist(), strict=True)),
        min_positives=evaluated.min_positives,
        tuning_split=evaluated.tuning_split,
        bootstrap=Bootstrap(evaluated.repeats, evaluated.seed),
        records_sha256=_fingerprint(records),
        versions=about.get("versions") or _versions(),
        tables={table.key: table for table in tables},
        cases=tuple(pictures),
    )
    for table in tables:
        _write(folder / "tables" / f"{table.key}.md", markdown(table))
        _write(folder / "tables" / f"{table.key}.csv", csv_of(table))
    for name, files in figures.items():
        for kind, content in files.items():
            _write(folder / "figures" / f"{name}.{kind}", content)
    for case, picture in pictures.items():
        _write(folder / "cases" / case.picture, picture)
    _write(folder / "report.json", report.to_json())
    return _write(folder / "report.html", _html(report, driven, figures, pictures))


def check_report(evaluated: Evaluated, about: Mapping[str, Any]) -> None:
    """Refuse before a long evaluation what [`write_report`] would refuse after it; records are not needed yet.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `about` lacks `model` or `data`, there is not one threshold per finding, a baseline has the name of
            the model, of the fixed-box baseline or of its key, there is no list named `tuning_split`, or `repeats` is
            under 1.
    """
    require_matplotlib()
    missing = [key for key in ("model", "data") if not about.get(key)]
    if missing:
        raise ValueError(f"`about` must have {' and '.join(missing)}, got {sorted(about)}.")
    thresholds, count = np.asarray(evaluated.score_thresholds, dtype=np.float64), len(evaluated.findings)
    if thresholds.shape != (count,) or np.isnan(thresholds).any():
        raise ValueError(f"`score_thresholds` must be {count} numbers, one per finding, got {thresholds.tolist()}.")
    taken = sorted({str(about["model"]), FIXED_BOX_NAME, FIXED_BOX, MODEL} & set(evaluated.baselines))
    if taken:
        raise ValueError(f"`baselines` must have names of their own, got {taken}. Rename them, or the model.")
    if evaluated.tuning_split is not None and evaluated.tuning_split not in SPLITS:
        raise ValueError(
            f"`tuning_split` must be one of {', '.join(SPLITS)}, or None, got '{evaluated.tuning_split}'. Choose one "
            "of them."
        )
    if evaluated.repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {evaluated.repeats}. Usual is 1000.")


def _check_records(evaluated: Evaluated) -> None:
    """Refuse records that would fail, or mislead, later."""
    count = len(evaluated.findings)
    if len(evaluated.records) == 0:
        raise ValueError("`records` must hold at least one image, got none. Evaluate some images first.")
    for record in evaluated.records:
        if record.scores.shape != (count,) or record.labels.shape != (count,):
            raise ValueError(
                f"`findings` must name {len(record.scores)} findings, as the records have, got {count}. "
                "Pass the names that were evaluated."
            )
    names = [record.name for record in evaluated.records]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`records` must be of different images, got {len(names) - len(set(names))} twice. Drop them."
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


def _caveats(about: Mapping[str, Any]) -> dict[str, str]:
    caveats = {"research": "Research use only. Not a medical device; not for diagnosis."}
    if about.get("synthetic"):
        caveats["synthetic"] = (
            "Synthetic phantoms: the images are simulated. Figures on them say nothing about patients."
        )
    caveats["reconstruction"] = (
        "An independent reconstruction of CLARiTy (arXiv 2512.16700): neither the paper's code nor its weights, and "
        "its figures are not this model's."
    )
    split = about.get("split")
    if split != "test":
        part = f"the {split} split" if split else "a split without a name"
        caveats["split"] = (
            f"Images of {part} may have been used to choose epoch and thresholds: figures on them are optimistic."
        )
    own = enumerate(about.get("caveats", ()), start=1)
    return caveats | {f"caveat_{number}": str(caveat) for number, caveat in own}


def _about_lines(report: Report) -> list[tuple[str, str]]:
    """What was evaluated, as pairs of name and text."""
    shown = {key: value for key, value in report.about.items() if key != "synthetic"}
    bootstrap = report.bootstrap
    half = "random half" if report.tuning_split is None else f"listed half {report.tuning_split}"
    counted = {
        "images": f"{report.images:,} of {report.patients:,} patients",
        "score_thresholds": report.score_thresholds,
        "boxes_tuned_on": half,
        "intervals": f"{100 * bootstrap.level:g} %, {bootstrap.repeats:,} bootstrap samples of patients",
        "seed": bootstrap.seed,
        "records": f"sha256 {report.records_sha256}",
        "versions": report.versions,
    }
    if {"seed", "seeds"} & set(shown):
        del counted["seed"]
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
    """Hash of the records' JSON lines."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(to_json(record), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


SECTIONS = {
    "Classification": (
        "classification classification_rivals roc precision_recall operating_points calibration reliability"
    ),
    "Subgroups": "subgroups",
    "Localization": (
        "rivals image_driven froc localization boxes boxes_largest localization_pooled published halves "
        "boxes_per_finding localization_per_finding published_per_finding wang localization_other masks"
    ),
    "Images without findings": "normal_images",
    "Comparison with baselines": "baselines",
    "Sanity of the maps": "maps sanity",
}
"""Parts of the page with the keys of their tables and figures; `sanity` stands for all tables of sanity checks."""


def _html(
    report: Report,
    driven: ImageDriven,
    figures: Mapping[str, Mapping[str, bytes]],
    pictures: Mapping[CaseEntry, bytes],
) -> str:
    sections = []
    for title, keys in SECTIONS.items():
        parts: list[dict[str, Any]] = []
        for key in keys.split():
            if key in figures:
                parts.append({"figure": CAPTIONS[key], "uri": _uri(figures[key]["svg"], "svg+xml")})
            parts += [
                {"table": table, "published": key.startswith("published")}
                for name, table in report.tables.items()
                if name == key or (key == "sanity" and name.startswith("sanity_"))
            ]
        if parts:
            sections.append({"anchor": title.split()[0].lower(), "title": title, "parts": parts})
    kinds = [
        (title, [(_caption(case), _uri(pictures[case], "jpeg")) for case in shown])
        for _, title, shown in report.cases_by_kind()
    ]
    return render(
        "report_template.html",
        report=report,
        cards=_cards(report, driven),
        about=_about_lines(report),
        sections=sections,
        kinds=kinds,
        version=importlib.metadata.version("clarity_hf"),
    )


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _caption(case: CaseEntry) -> str:
    image = "" if case.image is None else f", {case.image}"
    return f"{case_caption(case)}; record {case.record}{image}"


def _cards(report: Report, driven: ImageDriven) -> list[dict[str, str]]:
    """The most important figures, each with what to compare it with."""
    tables = report.tables
    mean, normal = tables["classification"]["mean"], tables["normal_images"]["all"]
    inside = tables["classification_rivals"]["mean_20"]["within_view"]
    cards = [
        _card(f"AUROC, {str(mean['finding']).lower()}", mean["auroc"], "0.5 is chance"),
        _card("AUROC within one view position", inside, "0.5 is chance"),
    ]
    if driven.has_boxes:
        rivals, image_driven = tables["rivals"], tables["image_driven"]["mean"]
        fixed, swapped = (rivals[f"{MODEL}-{key}"]["iou_0.3"] for key in (fixed_boxes_key(driven.k), SWAPPED_MAP))
        title = f"Boxes found at IoU > 0.3, minus {fixed_boxes_name(driven.k)}"
        predicted = f"{driven.own.boxes_predicted:.1f} boxes per map"
        cards += [
            _card(title, fixed, f"0: no better than without the image; {predicted}"),
            _card("The same, minus another image's map", swapped, "0: does not follow its image"),
            _card("Pixel AUROC over the mean map", image_driven["excess"], "0 is the mean of other images' maps"),
            _card("One-sided images, map on the right side", image_driven["right_side"], "0.5 is chance"),
        ]
    if normal["images"]:
        cards.append(
            _card("Normal images with a false box", normal["with_box"], f"of {show(normal['images'])} images")
        )
    return cards


def _card(title: str, cell: Cell, note: str) -> dict[str, str]:
    interval = show_interval(cell).strip("()")
    return {"title": title, "value": show(cell), "note": "; ".join(filter(None, (interval, note)))}
