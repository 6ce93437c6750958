# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of a released checkpoint: no figure in it is typed, all come from its config, its facts and its reports.

The facts of a training are a YAML file, committed beside the reports of `commit_report`:

    name: clarity-s16-224
    license: apache-2.0                  # of the weights
    trained_on: synthetic phantoms and 1,049 images of a subset of NIH ChestX-ray14
    data:                                # every source; a part that is left out is an en dash
      - source: NIH ChestX-ray14, a subset
        license: no restriction, citation asked for
        citation: NIH Clinical Center; Wang et al., CVPR 2017
        training: {images: 1049, patients: 895}
        validation: {images: 332, patients: 224}
        test: {images: 0}
        note: Pneumonia is over-represented.            # optional
    split: By patient.                                  # optional
    reporting: {Intended use: TEXT}                     # optional, what guidelines ask for, by item
    teacher: {name: NAME, license: LICENCE, note: TEXT}  # optional
    stages:
      - {name: Phantoms at 112, compute: 40 minutes, command: accelerate launch ..., note: TEXT}  # note optional
    compute: 6.5 core-hours in all, on ...
    calibration: On which images slopes, intercepts and thresholds were fitted.
    evaluations:                         # in the order of the card, by the name of the committed report
      phantom-test:
        title: phantoms of the test stream
        type: synthetic-phantoms         # data set type in the Hub's evaluation results
        goals: {AUROC: 0.95, "> 0.1": 0.9, "> 0.3": 0.8, "> 0.5": 0.6}    # optional
    failures: [TEXT]
    limits: [TEXT]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData

from clarity_hf.fingerprints import weights_digest
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from .committed_reports import Report, case_caption, open_report, picture_row
from .table import Cell, Estimate, Row, Table, show, show_interval
from .tables import ANY_REGION, CONSTANT_BOX, OWN_BOXES_GATED

TEMPLATE = Path(__file__).parent / "checkpoint_card_template.md"

LEVELS = ("> 0.1", "> 0.3", "> 0.5")
"""Columns of T(IoU) that a card has, as the tables of a report name them."""

PARTS = ("training", "validation", "test")

_WAYS = (ANY_REGION, OWN_BOXES_GATED, CONSTANT_BOX.lower())
"""Ways to draw boxes that a card has per finding, as the table of a report names them."""

_REQUIRED = {
    "facts": (
        "name",
        "license",
        "trained_on",
        "data",
        "stages",
        "compute",
        "calibration",
        "evaluations",
        "failures",
        "limits",
    ),
    "data": ("source", "license", "citation"),
    "stages": ("name", "command", "compute"),
    "evaluations": ("title", "type"),
    "teacher": ("name", "license", "note"),
}
_OPTIONAL: dict[str, tuple[str, ...]] = {
    "facts": ("split", "teacher", "reporting"),
    "data": (*PARTS, "note"),
    "stages": ("note",),
    "evaluations": ("goals",),
    "teacher": (),
}


@dataclass(frozen=True)
class CheckpointCard:
    """A card and the pictures that it shows.

    Attributes:
        text: Of `README.md`, its metadata included.
        pictures: JPEG of synthetic images by the name of their file beside the card.
    """

    text: str
    pictures: dict[str, bytes] = field(default_factory=dict)


def read_facts(path: str | Path) -> dict[str, Any]:
    """Read and check the facts of a training.

    Args:
        path: YAML file in the form that this module's docstring shows.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A field is missing, empty or unknown; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`facts` must be a YAML file, got '{path}'. Write the facts of the training into it.")
    facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check_fields("facts", facts)
    for key in ("data", "stages"):
        for entry in facts[key]:
            _check_fields(key, entry)
    for entry in facts["evaluations"].values():
        _check_fields("evaluations", entry)
        unknown = sorted(set(entry.get("goals", {})) - {"AUROC", *LEVELS})
        if unknown:
            raise ValueError(f"`goals` must be among {['AUROC', *LEVELS]}, got {unknown}. Correct the facts.")
    if facts.get("teacher"):
        _check_fields("teacher", facts["teacher"])
    return facts


def write_checkpoint_card(folder: str | Path, facts: str | Path, reports: Sequence[str | Path]) -> Path:
    """Write `README.md`, and the pictures that it shows, into the folder of a checkpoint.

    Args:
        folder: Of the checkpoint: config, weights and image processor.
        facts: As for [`read_facts`].
        reports: Folders that `commit_report` wrote.

    Returns:
        The card's path.

    Raises:
        FileNotFoundError: Facts or a report are missing.
        ValueError: As for [`render_checkpoint_card`].
    """
    folder = Path(folder)
    card = render_checkpoint_card(folder, facts, reports)
    for path in folder.glob("case-*.jpg"):  # of an earlier card
        path.unlink()
    for name, content in card.pictures.items():
        (folder / name).write_bytes(content)
    path = folder / "README.md"
    path.write_text(card.text, encoding="utf-8")
    return path


def render_checkpoint_card(folder: str | Path, facts: str | Path, reports: Sequence[str | Path]) -> CheckpointCard:
    """Fill the template; nothing is written.

    Args:
        folder: Of the checkpoint.
        facts: As for [`read_facts`].
        reports: Folders of committed reports, in any order: the card has the order of the facts.

    Returns:
        The card.

    Raises:
        FileNotFoundError: Facts or a report are missing.
        ValueError: Facts are incomplete, an evaluation of the facts has no report or a report no evaluation, or a
            report is of other weights or thresholds than the folder's.
    """
    told = read_facts(facts)
    model = ClarityForMultiLabelLocalization.from_pretrained(folder, use_safetensors=True).eval()
    ordered = _ordered_reports(told, [open_report(report) for report in reports])
    digest = weights_digest(model)
    for report in ordered:
        _check_same_checkpoint(report, model, digest)
    config, processor = model.config, ClarityImageProcessor.from_pretrained(folder)
    height, width = (side * config.patch_size for side in config.patch_grid)
    pictures, shown = _failures_shown(ordered)
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        card_data=_metadata(told, ordered).to_yaml(),
        facts={"split": None, "teacher": None, "reporting": {}}
        | told
        | {key: [{"note": None} | entry for entry in told[key]] for key in ("data", "stages")},
        parameters=f"{model.num_parameters() / 1e6:.1f}",
        megabytes=f"{sum(path.stat().st_size for path in Path(folder).glob('*.safetensors')) / 1e6:.1f}",
        height=height,
        width=width,
        grid=config.patch_grid,
        findings=config.findings,
        components={"largest": "one box a finding", "all": "a box a region of the map"}[config.box_components],
        prepared=_prepared(processor),
        glance=_glance(told, ordered),
        reading=_reading(ordered),
        data=_data_table(told),
        evaluations=[_evaluation(told, report) for report in ordered],
        calibrated=config.is_calibrated,
        thresholds=_threshold_table(model),
        pictures=shown,
        version=ordered[0].content["versions"]["clarity_hf"],
    )
    return CheckpointCard(text, pictures)


def _check_fields(name: str, entry: Any) -> None:
    """Refuse a part of the facts with fields missing, empty or unknown."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"`{name}` must have fields, got {type(entry).__name__}. Correct the facts.")
    missing = [key for key in _REQUIRED[name] if entry.get(key) in (None, "", [], {})]
    unknown = sorted(set(entry) - {*_REQUIRED[name], *_OPTIONAL[name]})
    if missing or unknown:
        raise ValueError(
            f"`{name}` must have {', '.join(_REQUIRED[name])} and may have {', '.join(_OPTIONAL[name]) or 'no more'}, "
            f"got {missing} missing and {unknown} unknown. Correct the facts."
        )


def _ordered_reports(facts: Mapping[str, Any], reports: Sequence[Report]) -> list[Report]:
    by_name = {report.name: report for report in reports}
    wanted = list(facts["evaluations"])
    if sorted(by_name) != sorted(wanted) or len(by_name) != len(reports):
        raise ValueError(
            f"`reports` must be those of the facts' evaluations {wanted}, got {[report.name for report in reports]}. "
            "Give one folder for each."
        )
    return [by_name[name] for name in wanted]


def _check_same_checkpoint(report: Report, model: ClarityForMultiLabelLocalization, digest: str) -> None:
    """Refuse a report of another checkpoint: a card must not show figures that are not its own."""
    config = model.config
    if report.about.get("weights_hash") != digest:
        raise ValueError(
            f"`reports` must be of the folder's weights {digest}, got {report.about.get('weights_hash')} in "
            f"{report.name}. Evaluate this checkpoint."
        )
    evaluated = {
        "score_thresholds": report.content["score_thresholds"],
        "map_thresholds": report.about["map_thresholds"],
    }
    for name, values in evaluated.items():
        if values != dict(zip(config.findings, config.per_finding(name), strict=True)):
            raise ValueError(
                f"`reports` must be of the folder's {name}, got others in {report.name}. Evaluate again after the "
                "calibration."
            )


def _metadata(facts: Mapping[str, Any], reports: Sequence[Report]) -> ModelCardData:
    results = [result for report in reports for result in _results(facts, report)]
    return ModelCardData(
        license=facts["license"],
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=["chest-x-ray", "radiology", "localization", "weakly-supervised", "clarity"],
        model_name=facts["name"],
        eval_results=results or None,
    )


def _results(facts: Mapping[str, Any], report: Report) -> list[EvalResult]:
    """Macro AUROC and T(IoU) in the Hub's form; what is undefined is left out, for the Hub takes no NaN."""
    tuned = _method_row(report, ANY_REGION)
    mean = _mean_row(report)
    figures: list[tuple[str, str, Cell, dict[str, float] | None]]
    figures = [("roc_auc", f"AUROC, {str(mean['Finding']).lower()}", mean["AUROC"], None)]
    inside = _within_view(report)
    figures.append(("roc_auc", "AUROC within a view position, the same findings", inside, None))
    above = {name: cells for name, cells in _rivals(report).items() if name.startswith("own boxes less")}
    figures += [
        ("t_iou", f"T(IoU) {level}, {_boxed(report)}, {name}", cells[level], {"iou": float(level[2:])})
        for name, cells in above.items()
        for level in LEVELS
    ]
    figures += [
        ("t_iou", f"T(IoU) {level}, {_boxed(report)}, {ANY_REGION}", tuned[level], {"iou": float(level[2:])})
        for level in LEVELS
        if tuned
    ]
    evaluation = facts["evaluations"][report.name]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=evaluation["type"],
            dataset_name=evaluation["title"],
            dataset_split=report.about.get("split"),
            metric_type=kind,
            metric_name=name,
            metric_value=float(show(value)),  # as the text has it
            metric_args=arguments,
        )
        for kind, name, value, arguments in figures
        if _defined(value)
    ]


def _mean_row(report: Report) -> dict[str, Cell]:
    table = report.table("classification")
    if table is None:
        raise ValueError(f"`reports` must have a table of classification, got none in {report.name}. Evaluate again.")
    return _by_head(table, table.rows[-1])


def _method_row(report: Report, boxes: str, method: str | None = None) -> dict[str, Cell] | None:
    """Row of T(IoU) of the model, or of a method, by the way its boxes are drawn; None without annotated boxes."""
    table = report.table("localization")
    if table is None:
        return None
    wanted = (method or report.about["model"], boxes)
    for row in table.rows:
        cells = _by_head(table, row)
        if (cells["Method"], cells["Boxes"]) == wanted:
            return cells
    raise ValueError(
        f"`reports` must have a row of T(IoU) of {' and '.join(wanted)}, got none in {report.name}. Evaluate again "
        "with this version."
    )


def _boxed(report: Report) -> str:
    """Over which findings T(IoU) is a mean: those with annotated boxes."""
    table = report.table("localization_per_finding")
    findings = list(dict.fromkeys(str(row.cells[0]) for row in table.rows)) if table else []
    return f"{findings[0]} alone" if len(findings) == 1 else f"mean of {len(findings)} findings"


def _by_head(table: Table, row: Row) -> dict[str, Cell]:
    return dict(zip(table.columns, row.cells, strict=True))


def _defined(cell: Cell) -> bool:
    value = cell.value if isinstance(cell, Estimate) else cell
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _markdown(title: str, columns: Sequence[str], rows: Sequence[Row], note: str = "") -> str:
    return Table("card", title, tuple(columns), tuple(rows), note).markdown()


def _glance(facts: Mapping[str, Any], reports: Sequence[Report]) -> str:
    """The few figures that a reader wants first, beside rivals that do not see the image and beside the goals."""
    rows = []
    for report in reports:
        evaluation = facts["evaluations"][report.name]
        mean, (_, alarms, _) = _mean_row(report)["AUROC"], _normal_figures(report)
        lines: list[tuple[str, tuple[Cell, Cell], Mapping[str, Cell] | None, Cell]] = [
            ("as a user sees it", (mean, _within_view(report)), _method_row(report, OWN_BOXES_GATED), alarms),
            *((name, (None, None), cells, None) for name, cells in _rivals(report).items()),
        ]
        goals = evaluation.get("goals", {})
        if goals:
            lines.append(("goal", (goals.get("AUROC"), None), goals, None))
        for place, (name, areas, found, share) in enumerate(lines):
            cells = found or {}
            figures = [cells.get(level) for level in LEVELS]
            if areas[0] is not None or share is not None or any(map(_defined, figures)):
                first = evaluation["title"] if place == 0 else ""
                rows.append(Row((first, name, *map(_number, (*areas, *figures, cells.get("Boxes drawn"), share)))))
    heads = (
        "Images",
        "",
        "AUROC",
        "AUROC within a view",
        *(f"T(IoU) {level}" for level in LEVELS),
        "Boxes a map",
        "Normal images with a false box",
    )
    return _markdown("Reached", heads, rows).replace("### Reached", "## What it reached", 1)


def _within_view(report: Report) -> Cell:
    """Mean AUROC within one view position, of the findings of the mean."""
    table = report.table("classification_rivals")
    return None if table is None else _by_head(table, table.rows[-1])["within a view"]


def _rivals(report: Report) -> dict[str, dict[str, Cell]]:
    """The model's own boxes, its nearest rivals that do not see the image, and how far it is above them, by name."""
    table = report.table("rivals")
    if table is None:
        return {}
    rows = {str(row.cells[0]): _by_head(table, row) for row in table.rows}
    nearest = next(str(row.cells[0]) for row in table.rows if row.kind.startswith("constant"))
    swapped = "map of another image with the finding"
    model = report.about["model"]
    return {
        "its own boxes, whatever the score": rows[model],
        nearest: rows[nearest],
        swapped: rows[swapped.capitalize()],
        f"own boxes less {nearest}": rows[f"{model} − {nearest}"],
        f"own boxes less the {swapped}": rows[f"{model} − {swapped}"],
    }


def _number(cell: Any) -> Cell:
    """A goal may be written as 1 where 1.0 is meant: figures are rounded alike."""
    return float(cell) if isinstance(cell, int) else cell


def _reading(reports: Sequence[Report]) -> str:
    """How to read the tables, once for all of them."""
    draws = " and ".join(
        dict.fromkeys(
            f"{report.content['bootstrap']['level'] * 100:g} %, {show(report.content['bootstrap']['repeats'])} draws"
            for report in reports
        )
    )
    fewest = " and ".join(dict.fromkeys(str(report.content["min_positives"]) for report in reports))
    return (
        f"In brackets: intervals by bootstrap over patients ({draws}). AUROC: mean over findings with at least "
        f"{fewest} positives. T(IoU) > t: share of annotated boxes that a box of their finding overlaps by IoU > t, "
        "mean over the findings with annotated boxes. *As a user sees it*: boxes at the config's own thresholds, and "
        "only where the score reaches its threshold. *Constant boxes* are boxes of other patients, and the *map of "
        "another image* is of another patient with the finding: neither sees the image, so a model follows it only as "
        "far as its boxes are above theirs. *Within a view*: images of one view position ranked against each other. "
        "*Tuned*: the map threshold is chosen on one half of the patients and applied to the other, both ways, any "
        "region of the map may match, whatever the score. An en dash: undefined, or not measured."
    )


def _prepared(processor: ClarityImageProcessor) -> str:
    size = processor.size
    fit = "keeps its proportions and is padded with black to" if processor.keep_ratio else "is squashed to"
    return (
        f"the processor does this: the image {fit} {size['height']} × {size['width']}, is scaled to [0, 1], "
        f"normalised by mean {processor.image_mean[0]:g} and standard deviation {processor.image_std[0]:g}, and "
        f"repeated to {len(processor.image_mean)} channels."
    )


def _data_table(facts: Mapping[str, Any]) -> str:
    heads = ("Source", "Licence", *(f"{part.capitalize()} images (patients)" for part in PARTS))
    rows = []
    for source in facts["data"]:
        counts = []
        for part in PARTS:
            counted = source.get(part) or {}
            patients = f" ({show(counted['patients'])})" if counted.get("patients") is not None else ""
            counts.append(f"{show(counted.get('images'))}{patients}")
        rows.append(Row((source["source"], source["license"], *counts)))
    return _markdown("Sources", heads, rows).split("\n", 2)[2]


def _threshold_table(model: ClarityForMultiLabelLocalization) -> str:
    config = model.config
    fields = ("score_slopes", "score_intercepts", "score_thresholds", "map_thresholds")
    columns = [config.per_finding(name) for name in fields]
    rows = [Row(cells) for cells in zip(config.findings, *columns, strict=True)]
    heads = ("Finding", "Slope", "Intercept", "Score threshold", "Map threshold")
    return _markdown("Thresholds", heads, rows).split("\n", 2)[2]


def _evaluation(facts: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """What the template says of one report."""
    tables = [_finding_table(report), *_boxes_table(report), *_method_tables(report)]
    subgroups = report.table("subgroups")
    if subgroups:
        note = f"Means over the findings with at least {report.content['min_positives']} positives in the group."
        tables.append(_markdown(subgroups.title, subgroups.columns, subgroups.rows, note + _left_out(subgroups)))
    # The first lines of the card say these for all reports.
    told = ("Research use only", "An independent reconstruction")
    return {
        "title": facts["evaluations"][report.name]["title"],
        "images": show(report.content["images"]),
        "patients": show(report.content["patients"]),
        "split": report.about.get("split") or "no named",
        "caveats": [caveat for caveat in report.content["caveats"] if not caveat.startswith(told)],
        "command": report.about.get("command", "command not recorded"),
        "tables": tables,
        "normal": _normal_sentence(report),
        "missing": _missing(report),
    }


def _finding_table(report: Report) -> str:
    """Classification per finding and its mean."""
    table = report.table("classification")
    rows = []
    for row in table.rows if table else ():
        cells = _by_head(table, row)  # type: ignore[arg-type]
        mark = {"rare": "*", "summary": "**"}.get(row.kind.split(" ")[0], "")
        figures = [cells[head] for head in ("Positives", "AUROC", "AP", "ECE")]
        rows.append(Row((f"{mark}{cells['Finding']}{mark}", *figures)))
    note = f"In italics: under {report.content['min_positives']} positives or without negatives, not in the mean."
    note += " AP: average precision. ECE: expected calibration error."
    return _markdown("Per finding", ("Finding", "Positives", "AUROC", "AP", "ECE"), rows, note + _left_out(table))


def _boxes_table(report: Report) -> list[str]:
    """T(IoU) per finding and its mean, the tuned figure with its intervals; nothing without annotated boxes."""
    table = report.table("localization_per_finding")
    if table is None:
        return []
    found: dict[str, dict[Cell, dict[str, Cell]]] = {}
    for row in table.rows:
        cells = _by_head(table, row)
        found.setdefault(str(cells["Finding"]), {})[cells["Boxes"]] = cells
    rows = [
        _boxes_row(finding, ways[ANY_REGION]["Annotated"], *map(ways.get, _WAYS)) for finding, ways in found.items()
    ]
    if len(found) > 1:  # of one finding the mean is its own figure
        total = sum(count for row in rows if isinstance(count := row.cells[1], int))
        means = (
            _method_row(report, ANY_REGION),
            _method_row(report, OWN_BOXES_GATED),
            _method_row(report, "no map", CONSTANT_BOX),
        )
        rows.append(_boxes_row(f"**Mean of {len(found)} findings**", total, *means))
    at = " / ".join(level[2:].lstrip("0") for level in LEVELS)
    heads = ("Finding", "Boxes", *(f"{level}, tuned" for level in LEVELS), f"{at}, as a user sees it", CONSTANT_BOX)
    note = (
        "Each interval is of its own finding. One of no width says that all draws agree, as on a share of 0 or 1, and "
        "not that the figure is certain."
    )
    return [_markdown("T(IoU) per finding", heads, rows, note)]


def _boxes_row(
    name: str,
    boxes: Cell,
    tuned: Mapping[str, Cell] | None,
    gated: Mapping[str, Cell] | None,
    constant: Mapping[str, Cell] | None,
) -> Row:
    """One row of [`_boxes_table`]: the tuned figure at each level, then the others at all levels in a cell each."""
    figures = [(tuned or {}).get(level) for level in LEVELS]
    others = [_three(cells) if cells else None for cells in (gated, constant)]
    return Row((name, boxes, *figures, *others))


def _three(cells: Mapping[str, Cell]) -> str:
    return " / ".join(show(cells[level]) for level in LEVELS)


def _method_tables(report: Report) -> list[str]:
    """T(IoU) of every method with intervals, and the paired gains over each baseline."""
    texts = []
    for name in ("rivals", "image_driven", "froc", "classification_rivals", "operating_points", "calibration"):
        table = report.table(name)
        if table is not None:
            texts.append(_markdown(table.title, table.columns, table.rows, table.note))
    methods, baselines = report.table("localization"), report.table("baselines")
    if methods:
        heads = ("Method", "Boxes", "Boxes drawn", *LEVELS)
        rows = [Row(tuple(_by_head(methods, row)[head] for head in heads)) for row in methods.rows]
        note = (
            "Boxes drawn: mean per annotated image and finding; many boxes meet more by chance. Differences are "
            "paired: clear where their interval lies off zero."
        )
        texts.append(_markdown(methods.title, heads, rows, note + _left_out(methods)))
    if baselines:
        kept = tuple(head for head in baselines.columns if head not in ("Boxes drawn", "by baseline"))
        rows = [Row(tuple(_by_head(baselines, row)[head] for head in kept)) for row in baselines.rows]
        note = "Gain: this model minus the baseline, paired: clear where its interval lies off zero."
        texts.append(_markdown(baselines.title, kept, rows, note + _left_out(baselines)))
    return texts


def _left_out(table: Table | None) -> str:
    """Why means of a table have no interval, in its own words."""
    _, found, reason = (table.note if table else "").partition(" No interval where")
    return found + reason


def _normal_figures(report: Report) -> tuple[Cell, Cell, Cell]:
    """Normal images, the share of them with a false box, and false boxes an image; None where there are no such
    images.
    """
    table = report.table("normal_images")
    cells = [row.cells[1] for row in table.rows] if table else []
    return (cells[0], cells[1], cells[2]) if len(cells) >= 3 else (0, None, None)  # then the same by view


def _normal_sentence(report: Report) -> str:
    images, share, boxes = _normal_figures(report)
    if not _defined(share):
        return (
            "**False boxes on normal images**: not measured, no image of these is annotated as free of every finding."
        )
    return (
        f"**False boxes on normal images**: of {show(images)} images annotated as free of every finding, a share of "
        f"{_with_interval(share)} gets a box; {_with_interval(boxes)} boxes an image."
    )


def _with_interval(cell: Cell) -> str:
    return " ".join(filter(None, (show(cell), show_interval(cell))))


def _missing(report: Report) -> list[str]:
    """What a reader may look for and the report does not have, with the reason."""
    reasons = []
    classification = report.table("classification")
    rows = [_by_head(classification, row) for row in classification.rows] if classification else []
    undefined = [str(row["Finding"]) for row in rows[:-1] if not _defined(row["AUROC"])]
    if undefined:
        reasons.append(f"AUROC of {', '.join(undefined)}: no positives, or no negatives.")
    if not _defined(rows[-1]["AUROC"]):
        reasons.append(f"Mean AUROC: no finding has {report.content['min_positives']} positives.")
    boxes = report.table("localization_per_finding")
    if boxes is None:
        reasons.append("T(IoU): these images have no annotated boxes.")
    else:
        boxed = {row.cells[0] for row in boxes.rows}
        without = [str(row["Finding"]) for row in rows[:-1] if row["Finding"] not in boxed]
        reasons += [f"T(IoU) of {', '.join(without)}: no annotated boxes."] if without else []
    if report.table("baselines") is None:
        reasons.append("Other methods: none was evaluated on these images.")
    subgroups = report.table("subgroups")
    groups = [_by_head(subgroups, row) for row in subgroups.rows] if subgroups else []
    small = [f"{row['Attribute']} {row['Group']}" for row in groups if not _defined(row["AUROC"])]
    if small:
        reasons.append(f"Figures of {', '.join(small)}: no finding has {report.content['min_positives']} positives.")
    if subgroups is None:
        reasons.append("Subgroups: the report has no such table.")
    return reasons


def _failures_shown(reports: Sequence[Report]) -> tuple[dict[str, bytes], str]:
    """Pictures of the first failure of each kind on synthetic images, and the Markdown that shows them."""
    chosen: dict[str, tuple[str, Mapping[str, Any], bytes]] = {}
    for report in reports:
        if not report.synthetic:  # images of patients are not shown, whatever lies in the folder
            continue
        for title, entry, path in report.cases():
            name = f"case-{path.name.partition('-')[0]}.jpg"
            if not title.startswith("Best") and name not in chosen and path.is_file():
                chosen[name] = (title, entry, path.read_bytes())
    if not chosen:
        return {}, "No pictures: the reports have no cases of synthetic images, and images of patients are not shown."
    row = picture_row(
        [f"![{title.partition(':')[0]}]({name})" for name, (title, _, _) in chosen.items()],
        [f"{title}. {case_caption(entry)}" for title, entry, _ in chosen.values()],
    )
    text = (
        "The first case of each kind, chosen by a rule, on synthetic phantoms. Colour: the finding's map relative to "
        "its own peak, and the model's boxes; dashed white: annotated boxes."
    )
    return {name: content for name, (_, _, content) in chosen.items()}, f"{text}\n\n{row.rstrip()}"
