# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The table of all rows beside the paper's figures, from what each row's folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rows import Row

from clarity_hf.reporting.rendering import show_cell
from clarity_hf.reporting.schema import Report, defined

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
PROTOCOL = "model/clarity"
"""Key of the paper's protocol in the report: map thresholds are tuned on half of the boxed images, the rest scored."""

UNKNOWN = "not known here"
NOT_RUN = "not run"
SMOKE = (
    "**From a smoke test: few images, tiny models, a few steps. The figures show that every step works, and nothing "
    "else.**"
)


def write_table(rows: Mapping[str, Row], folder: Path) -> Path:
    """Write `table.md`: the rows that have a report filled in, the others as not run.

    Args:
        rows: By name, in the order of the table.
        folder: Output folder of the run, with a folder of each row that was begun.

    Returns:
        The file's path.
    """
    lines = [
        "| row | mean AUROC: paper | here | T(IoU) > .1/.2/.3/.4/.5: paper | here | images | epoch picked |",
        "|---" * 7 + "|",
        *(table_line(row, folder / row.name) for row in rows.values()),
    ]
    if any(is_smoke(folder / name) for name in rows):
        lines = [SMOKE, "", *lines]
    path = folder / "table.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table_line(row: Row, folder: Path) -> str:
    """One row of the table; a figure that is None in the report is undefined."""
    report = folder / "evaluation" / "report.json"
    paper = [figure(row.paper.get("auroc")), shares(row.paper.get("t_iou", {}))]
    if not report.is_file():
        return f"| {row.text} | {paper[0]} | {NOT_RUN} | {paper[1]} | {NOT_RUN} | {NOT_RUN} | {NOT_RUN} |"
    found = figures_of(Report.read(report.parent))
    step, auroc = picked_epoch(folder / "model" / "trainer_state.json")
    picked = f"{step:.3g}, validation AUROC {auroc:.3f}"
    cells = [
        row.text,
        paper[0],
        show_cell(found["auroc"]) if defined(found["auroc"]) else "undefined",
        paper[1],
        shares(found["t_iou"], "undefined" if found["t_iou"] else "no maps"),
        f"{found['images']:,}",
        picked,
    ]
    return f"| {' | '.join(cells)} |"


def figures_of(report: Report) -> dict[str, Any]:
    """The figures that the table takes from a report of `examples/evaluate_checkpoint.py`.

    Args:
        report: The report.

    Returns:
        `auroc`, the mean over findings, with its interval; `t_iou`, by threshold the share of boxes found
        by the paper's protocol, mean over findings, empty for a model without maps; `images`.

    Raises:
        ValueError: There are figures of localization, but none by the paper's protocol.
    """
    t_iou: dict[float, Any] = {}
    if "halves" in report.tables:
        found = report.tables["halves"][PROTOCOL]
        t_iou = {level: found[f"iou_{level:g}"] for level in LEVELS}
    return {"auroc": report.tables["classification"]["mean"]["auroc"], "t_iou": t_iou, "images": report.images}


def picked_epoch(state: Path) -> tuple[float, float]:
    """Which epoch a training kept, and its AUROC on validation.

    Args:
        state: `trainer_state.json` of the training.

    Returns:
        The epoch, counted from 1 at the end of the first, and the mean AUROC.

    Raises:
        ValueError: The kept checkpoint is not the best by `eval_auroc`, the AUROC on validation.
    """
    stored = json.loads(state.read_text(encoding="utf-8"))
    history = [entry for entry in stored["log_history"] if "eval_auroc" in entry]
    kept = [entry for entry in history if entry["step"] == stored["best_global_step"]]
    aurocs = [entry["eval_auroc"] for entry in history]
    if not kept or kept[0]["eval_auroc"] != max(aurocs):
        raise ValueError(
            f"{state} must keep the step with the best AUROC on validation, got step {stored['best_global_step']} of "
            f"{aurocs}. Train the row again in another --output_dir."
        )
    return kept[0]["epoch"], kept[0]["eval_auroc"]


def is_smoke(folder: Path) -> bool:
    """Whether a row's folder is of a smoke test."""
    record = folder / "trained.json"
    return record.is_file() and json.loads(record.read_text(encoding="utf-8"))["smoke"]


def figure(value: float | None) -> str:
    """A figure of the paper with three digits, or that it is not known here."""
    return UNKNOWN if value is None else f"{value:.3f}"


def shares(by_level: Mapping[float, float | None], missing: str = UNKNOWN) -> str:
    """Shares at `LEVELS` with two digits each, or what to say where there is none at all."""
    values = [by_level.get(level) for level in LEVELS]
    if all(value is None for value in values):
        return missing
    return " / ".join("–" if value is None else f"{value:.2f}" for value in values)
