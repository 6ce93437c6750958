# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The card of a released checkpoint: every figure in it comes from its config, its facts and its reports.

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
        goals: {auroc: 0.95, iou_0.1: 0.9, iou_0.3: 0.8, iou_0.5: 0.6}    # optional
    failures: [TEXT]
    limits: [TEXT]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult

from clarity_hf.fingerprints import weights_digest
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.metrics.image_driven import COMPARED_LEVELS
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization

from .columns import columns, level_columns
from .localization_tables import ANY_REGION, BOX_RULES, FIXED_BOX, FIXED_BOX_NAME, MODEL, OWN_FILTERED
from .model_card import card_data
from .rendering import case_caption, render, show, table_note
from .rival_tables import SWAPPED_MAP, fixed_boxes_key, fixed_boxes_name, nearest_fixed_boxes
from .schema import Cell, Column, Report, Row, Table, defined

LEVELS = tuple(column.key for column in level_columns(COMPARED_LEVELS))
"""Columns of T(IoU) in a card."""

PARTS = ("training", "validation", "test")

_FIELDS = {
    "facts": (
        "name license trained_on data stages compute calibration evaluations failures limits",
        "split teacher reporting",
    ),
    "data": ("source license citation", " ".join((*PARTS, "note"))),
    "stages": ("name command compute", "note"),
    "evaluations": ("title type", "goals"),
    "teacher": ("name license note", ""),
}
"""Required and optional fields of each part of the facts."""


@dataclass(frozen=True)
class CheckpointCard:
    """A card: the text of `README.md` with its metadata, and JPEG of synthetic images by file name."""

    text: str
    pictures: dict[str, bytes] = field(default_factory=dict)


def read_facts(path: str | Path) -> dict[str, Any]:
    """Read and check the facts of a training.

    Args:
        path: YAML file in the format of this module's docstring.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A field is missing, empty or unknown; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}. Write the facts of the training into it.")
    facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check_fields("facts", facts)
    for key in ("data", "stages"):
        for entry in facts[key]:
            _check_fields(key, entry)
    for entry in facts["evaluations"].values():
        _check_fields("evaluations", entry)
        unknown = sorted(set(entry.get("goals", {})) - {"auroc", *LEVELS})
        if unknown:
            raise ValueError(f"`goals` must be among {['auroc', *LEVELS]}, got {unknown}. Correct the facts.")
    if facts.get("teacher"):
        _check_fields("teacher", facts["teacher"])
    return facts


def _check_fields(name: str, entry: Any) -> None:
    """Refuse a part of the facts with fields missing, empty or unknown."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"`{name}` must have fields, got {type(entry).__name__}. Correct the facts.")
    required, optional = (fields.split() for fields in _FIELDS[name])
    missing = [key for key in required if entry.get(key) in (None, "", [], {})]
    unknown = sorted(set(entry) - {*required, *optional})
    if missing or unknown:
        raise ValueError(
            f"`{name}` must have {', '.join(required)} and may have {', '.join(optional) or 'no more'}, got {missing} "
            f"missing and {unknown} unknown. Correct the facts."
        )


def write_checkpoint_card(folder: str | Path, facts: str | Path, reports: Sequence[str | Path]) -> Path:
    """Write `README.md`, and the pictures that it shows, into the folder of a checkpoint.

    Args:
        folder: Folder of the checkpoint: config, weights and image processor.
        facts: As for [`read_facts`].
        reports: Folders that `commit_report` wrote, in any order; the card has the order of the facts.

    Raises:
        FileNotFoundError: Facts or a report are missing.
        ValueError: As for [`render_checkpoint_card`].
    """
    folder = Path(folder)
    card = render_checkpoint_card(folder, facts, reports)
    for path in folder.glob("case-*.jpg"):  # from an earlier card
        path.unlink()
    for name, content in card.pictures.items():
        (folder / name).write_bytes(content)
    path = folder / "README.md"
    path.write_text(card.text, encoding="utf-8")
    return path


def render_checkpoint_card(folder: str | Path, facts: str | Path, reports: Sequence[str | Path]) -> CheckpointCard:
    """Fill the template with the same arguments as [`write_checkpoint_card`]; nothing is written.

    Raises:
        FileNotFoundError: Facts or a report are missing.
        ValueError: Facts are incomplete, evaluations of the facts and reports do not match, or a report is of other
            weights or thresholds than the folder's.
    """
    stated = read_facts(facts)
    model = ClarityForMultiLabelLocalization.from_pretrained(folder, use_safetensors=True).eval()
    ordered = _ordered_reports(stated, [Report.read(report) for report in reports])
    _check_same_checkpoint(ordered, model)
    config = model.config
    pictures, captions = _failures(ordered)
    fields = ("score_slopes", "score_intercepts", "score_thresholds", "map_thresholds")
    evaluations = [
        {"title": stated["evaluations"][report.name]["title"], "report": report, "missing": _missing(report)}
        | {"tables": _tables(report), "normal": report.tables["normal_images"]["all"]}
        for report in ordered
    ]
    results = [result for report in ordered for result in _results(stated["evaluations"][report.name], report)]
    text = render(
        "checkpoint_card_template.md",
        card_data=card_data(stated["name"], stated["license"], results, "weakly-supervised"),
        facts={"split": None, "teacher": None, "reporting": {}} | stated,
        parts=PARTS,
        parameters=f"{model.num_parameters() / 1e6:.1f}",
        megabytes=f"{sum(path.stat().st_size for path in Path(folder).glob('*.safetensors')) / 1e6:.1f}",
        config=config,
        processor=ClarityImageProcessor.from_pretrained(folder),
        glance=_glance(stated, ordered),
        evaluations=evaluations,
        thresholds=zip(config.findings, *(config.per_finding(name) for name in fields), strict=True),
        pictures=captions,
        version=ordered[0].versions["clarity_hf"],
    )
    return CheckpointCard(text, pictures)


def _ordered_reports(facts: Mapping[str, Any], reports: Sequence[Report]) -> list[Report]:
    by_name = {report.name: report for report in reports}
    wanted = list(facts["evaluations"])
    if sorted(report.name for report in reports) != sorted(wanted):
        raise ValueError(
            f"`reports` must be those of the facts' evaluations {wanted}, got {[report.name for report in reports]}. "
            "Pass one folder for each."
        )
    return [by_name[name] for name in wanted]


def _check_same_checkpoint(reports: Sequence[Report], model: ClarityForMultiLabelLocalization) -> None:
    """Refuse reports of another checkpoint: a card must show its own figures."""
    config, digest = model.config, weights_digest(model)
    for report in reports:
        if report.about.get("weights_hash") != digest:
            raise ValueError(
                f"`reports` must be of the folder's weights {digest}, got {report.about.get('weights_hash')} in "
                f"{report.name}. Evaluate this checkpoint."
            )
        evaluated = {"score_thresholds": report.score_thresholds, "map_thresholds": report.about["map_thresholds"]}
        for name, values in evaluated.items():
            if values != dict(zip(config.findings, config.per_finding(name), strict=True)):
                raise ValueError(
                    f"`reports` must be of the folder's {name}, got others in {report.name}. Evaluate again after the "
                    "calibration."
                )


def _results(evaluation: Mapping[str, Any], report: Report) -> list[EvalResult]:
    """Macro AUROC and T(IoU) in the Hub's form; undefined figures are left out, because the Hub takes no NaN."""
    mean = report.tables["classification"]["mean"]
    figures: list[tuple[str, str, Cell, dict[str, float] | None]] = [
        ("roc_auc", f"AUROC, {str(mean['finding']).lower()}", mean["auroc"], None),
        ("roc_auc", "AUROC within a view position, the same findings", _within_view(report), None),
    ]
    boxes = {name: cells for key, name, cells in _rivals(report) if key.startswith(f"{MODEL}-")}
    if "localization" in report.tables:
        boxes[BOX_RULES[ANY_REGION]] = report.tables["localization"][f"{MODEL}/{ANY_REGION}"]
    of = list(_per_finding(report))
    over = f"{of[0]} alone" if len(of) == 1 else f"mean of {len(of)} findings"
    figures += [
        ("t_iou", f"T(IoU) > {level:g}, {over}, {name}", cells[key], {"iou": level})
        for name, cells in boxes.items()
        for level, key in zip(COMPARED_LEVELS, LEVELS, strict=True)
    ]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=evaluation["type"],
            dataset_name=evaluation["title"],
            dataset_split=report.about.get("split"),
            metric_type=kind,
            metric_name=name,
            metric_value=float(show(value)),  # as in the text
            metric_args=arguments,
        )
        for kind, name, value, arguments in figures
        if defined(value)
    ]


def _glance(facts: Mapping[str, Any], reports: Sequence[Report]) -> Table:
    """The most important figures, beside rivals that do not see the image and beside the goals."""
    heads = (
        *(Column("images", "Images"), Column("line", ""), Column("auroc", "AUROC")),
        Column("within_view", "AUROC within a view"),
        *(replace(column, title=f"T(IoU) {column.title}") for column in level_columns(COMPARED_LEVELS)),
        Column("boxes_predicted", "Boxes per map", "boxes"),
        Column("with_box", "Normal images with a false box", "share"),
    )
    rows = []
    for report in reports:
        evaluation, tables = facts["evaluations"][report.name], report.tables
        user = dict(tables["localization"][f"{MODEL}/{OWN_FILTERED}"]) if "localization" in tables else {}
        user |= {"auroc": tables["classification"]["mean"]["auroc"], "within_view": _within_view(report)}
        user["with_box"] = tables["normal_images"]["all"]["with_box"]
        goals = {key: float(goal) for key, goal in evaluation.get("goals", {}).items()}
        lines: list[tuple[str, str, Mapping[str, Cell]]] = [("user", "as a user sees it", user), *_rivals(report)]
        lines.append(("goal", "goal", goals))
        for key, name, cells in lines:
            figures = [cells.get(column.key) for column in heads[2:]]
            if key == "user" or any(map(defined, figures)):
                title = evaluation["title"] if key == "user" else ""
                rows.append(Row(f"{report.name}/{key}", (title, name, *figures)))
    return Table("glance", "Results", heads, tuple(rows))


def _within_view(report: Report) -> Cell:
    """Mean AUROC within one view position, of the findings of the mean."""
    table = report.tables.get("classification_rivals")
    return table["mean_20"]["within_view"] if table else None


def _rivals(report: Report) -> list[tuple[str, str, dict[str, Cell]]]:
    """The model's own boxes, its nearest rivals without the image, and its gain over them: key, name, cells."""
    table = report.tables.get("rivals")
    if table is None:
        return []
    k = nearest_fixed_boxes(float(table[MODEL]["boxes_predicted"]))  # type: ignore[arg-type]
    names = {fixed_boxes_key(k): fixed_boxes_name(k), SWAPPED_MAP: "map of another image with the finding"}
    named = {MODEL: "own boxes, whatever the score", **names}
    named |= {f"{MODEL}-{key}": f"own boxes minus {name}" for key, name in names.items()}
    return [(key, name, table[key]) for key, name in named.items()]


def _per_finding(report: Report) -> dict[str, dict[str, dict[str, Cell]]]:
    """Rows of T(IoU) per finding: by finding, then by how boxes are predicted."""
    table = report.tables.get("localization_per_finding")
    found: dict[str, dict[str, dict[str, Cell]]] = {}
    for row in table.rows if table else ():
        finding, _, rule = row.key.rpartition("/")
        found.setdefault(finding, {})[rule] = table.cells(row)  # type: ignore[union-attr]
    return found


def _tables(report: Report) -> list[tuple[Table, str | None]]:
    """Tables of one report in the card, each with its note there; None for its own note."""
    tables = report.tables
    keys = ("finding", "positives", "auroc", "average_precision", "calibration_error")
    classified = replace(tables["classification"].select(*keys), title="Per finding")
    shown: list[tuple[Table, str | None]] = [(classified, table_note("card_classification", report=report))]
    if "localization" in tables:
        shown.append((_boxes_table(report), table_note("card_boxes")))
    complete = ("rivals", "image_driven", "froc", "classification_rivals", "operating_points", "calibration")
    shown += [(tables[key], None) for key in complete if key in tables]
    if "localization" in tables:
        table = tables["localization"].select("method", "boxes", "boxes_predicted", *LEVELS)
        shown.append((table, table_note("card_localization")))
    if "baselines" in tables:
        table = tables["baselines"]
        kept = [column.key for column in table.columns if not column.key.endswith("boxes_predicted")]
        shown.append((table.select(*kept), table_note("card_baselines")))
    return [*shown, (tables["subgroups"], table_note("card_subgroups", report=report))]


def _boxes_table(report: Report) -> Table:
    """T(IoU) per finding and its mean: the tuned figure with intervals, the others at all levels in a cell each."""
    rows, found = [], _per_finding(report)

    def add(key: str, name: str, annotated: Cell, tuned: Mapping[str, Cell], *others: Mapping[str, Cell]) -> None:
        joined = [" / ".join(show(cells[level]) for level in LEVELS) for cells in others]
        kind = "summary" if key == "mean" else ""
        rows.append(Row(key, (name, annotated, *(tuned[level] for level in LEVELS), *joined), kind))

    for finding, rules in found.items():
        ways = (rules[key] for key in (ANY_REGION, OWN_FILTERED, FIXED_BOX))
        add(finding, finding, rules[ANY_REGION]["annotated"], *ways)
    if len(found) > 1:  # of one finding the mean is its own figure
        total = sum(int(str(rules[ANY_REGION]["annotated"])) for rules in found.values())
        keys = (f"{MODEL}/{ANY_REGION}", f"{MODEL}/{OWN_FILTERED}", f"{FIXED_BOX}/{FIXED_BOX}")
        means = (report.tables["localization"][key] for key in keys)
        add("mean", f"Mean of {len(found)} findings", total, *means)
    at = " / ".join(f"{level:g}".lstrip("0") for level in COMPARED_LEVELS)
    heads = (
        *columns("finding annotated"),
        *(replace(column, title=f"{column.title}, tuned") for column in level_columns(COMPARED_LEVELS)),
        Column(OWN_FILTERED, f"{at}, as a user sees it"),
        Column(FIXED_BOX, FIXED_BOX_NAME),
    )
    return Table("boxes", "T(IoU) per finding", heads, tuple(rows))


def _missing(report: Report) -> list[str]:
    """What a reader may expect but the report does not have, with the reason."""
    classified, reasons = report.tables["classification"], []
    rows = {row.key: classified.cells(row) for row in classified.rows}
    mean, few = rows.pop("mean"), f"no finding has {report.min_positives} positives."
    undefined = [finding for finding, cells in rows.items() if not defined(cells["auroc"])]
    if undefined:
        reasons.append(f"AUROC of {', '.join(undefined)}: no positives, or no negatives.")
    if not defined(mean["auroc"]):
        reasons.append(f"Mean AUROC: {few}")
    boxed = _per_finding(report)
    if not boxed:
        reasons.append("T(IoU): these images have no annotated boxes.")
    elif len(boxed) < len(rows):
        reasons.append(f"T(IoU) of {', '.join(name for name in rows if name not in boxed)}: no annotated boxes.")
    if "baselines" not in report.tables:
        reasons.append("Other methods: none was evaluated on these images.")
    groups = [report.tables["subgroups"].cells(row) for row in report.tables["subgroups"].rows]
    small = [f"{cells['attribute']} {cells['group']}" for cells in groups if not defined(cells["auroc"])]
    return [*reasons, f"Figures of {', '.join(small)}: {few}"] if small else reasons


def _failures(reports: Sequence[Report]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Pictures of the first failure of each kind on synthetic images by file, and their captions by Markdown."""
    pictures: dict[str, bytes] = {}
    captions = {}
    for report in reports:
        for kind, title, (case, *_) in report.cases_by_kind() if report.synthetic else ():
            name, path = f"case-{kind}.jpg", report.folder / "cases" / case.picture
            if kind != "best" and name not in pictures and path.is_file():
                pictures[name] = path.read_bytes()
                captions[f"![{title.partition(':')[0]}]({name})"] = f"{title}. {case_caption(case)}"
    return pictures, captions
