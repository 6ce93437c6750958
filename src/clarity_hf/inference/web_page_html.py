# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""HTML and style sheet of the web page, from results.

External text (a model's labels, messages) is escaped. Pictures are data URIs, so that the server writes none to disk.
Nothing refers to another host; fonts are the system's.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

NOTICE = "For research. Not a medical device, and no diagnosis."
"""The notice on every page and in every download."""

UNCALIBRATED = "Scores of this checkpoint are not calibrated: they rank images but are not probabilities."
"""Note below the table of a model without a calibration."""


def header(model_name: str) -> str:
    """Title, origin and research notice."""
    return (
        '<header class="ch-header"><div><h1>Findings on a frontal chest radiograph</h1>'
        f"<p>clarity_hf, checkpoint {escape(model_name)}. An independent reconstruction of CLARiTy "
        "(arXiv 2512.16700), not made by its authors.</p></div>"
        f'<p class="ch-notice" role="note"><strong>{NOTICE}</strong> '
        "Probabilities, maps and boxes are a model's and may be wrong or missing.</p></header>"
    )


def samples(pictures: Sequence[tuple[str, Image.Image]]) -> str:
    """A row of small pictures with their titles, to choose from."""
    buttons = ""
    for index, (title, picture) in enumerate(pictures):
        small = picture.convert("L")
        small.thumbnail((160, 160))
        buttons += (
            f'<button type="button" data-sample="{index}"><img src="{picture_uri(small, "JPEG")}" alt="">'
            f"<span>{escape(title)}</span></button>"
        )
    return (
        '<p class="ch-small">Or take a synthetic image, drawn by the package:</p>'
        f'<div class="ch-samples">{buttons}</div>'
    )


def waiting() -> str:
    """Placeholder before the first image."""
    return '<div class="ch-image ch-empty"><p>Upload an image or choose a synthetic one.</p></div>'


def refusal(message: str) -> str:
    """Placeholder with the reason why there is no result, in plain sentences."""
    return (
        '<div class="ch-image ch-empty" role="alert"><p><strong>There is no result for this image.</strong></p>'
        f"<p>{escape(message)}</p></div>"
    )


def doubt_in_words(reason: str) -> str:
    """Warning about an image that looks like `reason` instead of a frontal chest radiograph."""
    return f"This looks like {reason}. The model was not made for such images, so its findings may be meaningless."


def image(picture: Image.Image, finding: Mapping[str, Any], score_name: str, doubt: str = "") -> str:
    """The picture with the map and the boxes of a finding, what it shows in words, and its download.

    The score is called `score_name`: `Probability`, or `Score` without a calibration. `doubt` is what the image looks
    like instead of a frontal chest radiograph; a warning then comes first.
    """
    label = escape(_spoken(finding["label"]))
    side = "above" if finding["present"] else "below"
    words = (
        f"<strong>{label}</strong> {escape(score_name.lower())} {finding['score']:.3f}, {side} its threshold of "
        f"{finding['threshold']:.3f}. {_where(finding)}"
    )
    warning = f'<p class="ch-doubt" role="alert">{escape(doubt_in_words(doubt))}</p>' if doubt else ""
    return (
        f'{warning}<figure class="ch-image"><figcaption>{words}</figcaption>'
        f'<img src="{picture_uri(picture)}" alt="Image with the map of {label}"></figure>'
        f'<a class="ch-download" href="#" data-picture download="clarity-hf-{escape(finding["label"])}.png">'
        "Download picture (PNG)</a>"
    )


def _where(finding: Mapping[str, Any]) -> str:
    if not finding["present"]:
        return "Not called present, so it has no box; the map still has a peak, which says little."
    if not finding["boxes"]:
        return "Its map has no region to box."
    corners = "; ".join(
        f"x {box['xmin']:.0f} to {box['xmax']:.0f}, y {box['ymin']:.0f} to {box['ymax']:.0f}"
        for box in finding["boxes"]
    )
    return f"{'Box' if len(finding['boxes']) == 1 else 'Boxes'} in pixels of the image: {corners}."


def findings_table(
    findings: Sequence[Mapping[str, Any]], chosen: str, score_name: str, record: Mapping[str, Any]
) -> str:
    """All findings, highest score first, each with its threshold on a bar, and the download of the record as JSON.

    The row of the label `chosen` is marked.
    """
    ordered = sorted(findings, key=lambda finding: -finding["score"])
    present = sum(finding["present"] for finding in ordered)
    count = f"{present or 'None'} of {len(ordered)} findings reach{'es its' if present < 2 else ' their'}"
    note = "" if score_name == "Probability" else f'<p class="ch-small">{UNCALIBRATED}</p>'
    payload = base64.b64encode((json.dumps(record, indent=2, allow_nan=False) + "\n").encode()).decode()
    return (
        f'<p class="ch-count">{count} threshold. Choose one to see its map.</p><table class="ch-findings"><thead><tr>'
        f'<th scope="col">Finding</th><th scope="col">{escape(score_name)}, threshold as a line</th>'
        '<th scope="col" class="ch-number">Value</th><th scope="col" class="ch-number">Threshold</th>'
        '<th scope="col">Present</th></tr></thead><tbody>'
        + "".join(_row(finding, finding["label"] == chosen) for finding in ordered)
        + f"</tbody></table>{note}"
        f'<a class="ch-download" download="clarity-hf-findings.json" href="data:application/json;base64,{payload}">'
        "Download findings (JSON)</a>"
    )


def _row(finding: Mapping[str, Any], chosen: bool) -> str:
    classes = " ".join(["ch-present"] * finding["present"] + ["ch-chosen"] * chosen)
    label, mark = escape(finding["label"]), "● yes" if finding["present"] else "no"
    return (
        f'<tr class="{classes}" data-finding="{label}"><th scope="row"><button type="button" '
        f'aria-pressed="{str(chosen).lower()}">{escape(_spoken(finding["label"]))}</button></th>'
        f'<td><span class="ch-bar"><i style="width:{100 * finding["score"]:.1f}%"></i>'
        f'<b style="left:{100 * finding["threshold"]:.1f}%"></b></span></td>'
        f'<td class="ch-number">{finding["score"]:.3f}</td><td class="ch-number">{finding["threshold"]:.3f}</td>'
        f"<td>{mark}</td></tr>"
    )


def picture_uri(picture: Image.Image, kind: str = "PNG") -> str:
    """A picture as a data URI, PNG or JPEG."""
    stream = io.BytesIO()
    picture.save(stream, format=kind, **({"compress_level": 3} if kind == "PNG" else {"quality": 85}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _spoken(label: str) -> str:
    return label.replace("_", " ")


ON_SAMPLE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-sample]');
  if (button) trigger('select', {index: Number(button.dataset.sample), value: button.innerText});
});
"""
"""Script of the samples: a click chooses one."""

ON_FINDING = """
element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-finding]');
  if (row) trigger('select', {index: row.rowIndex, value: row.dataset.finding});
});
"""
"""Script of the table: a click on a row chooses its finding."""

ON_PICTURE = """
element.addEventListener('click', (event) => {
  const link = event.target.closest('[data-picture]');
  if (link) link.href = element.querySelector('img').src;
});
"""
"""Script of the image: the download is the picture shown, which the page therefore contains only once."""

STYLE = """
.gradio-container { max-width: 1560px !important; margin: 0 auto !important; }
.gradio-container main { padding: 10px 24px !important; }
.html-container:has([class^="ch-"]) { padding: 0 !important; }
.ch-header { display: flex; gap: 32px; align-items: center; justify-content: space-between; }
.ch-header h1 { font-size: 21px; line-height: 1.25; margin: 0 0 2px; font-weight: 650; }
.ch-header p { margin: 0; color: var(--body-text-color-subdued); font-size: 13px; line-height: 1.45; }
.ch-header .ch-notice { flex: 0 1 520px; padding: 7px 14px; border-left: 4px solid #b45309; border-radius: 4px;
  background: #fef3c7; color: #451a03; }
.ch-header .ch-notice strong { color: inherit; }
.ch-small { font-size: 13px; color: var(--body-text-color-subdued); margin: 6px 0 !important; }
.ch-count { font-size: 14px; margin: 0 0 6px !important; }
.ch-samples { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
.ch-samples button { margin: 0 !important; display: flex; flex-direction: column; padding: 0; cursor: pointer;
  border: 1px solid var(--border-color-primary); border-radius: 6px; overflow: hidden;
  background: var(--block-background-fill); }
.ch-samples img { width: 100%; height: 78px; object-fit: cover; object-position: 50% 20%; margin: 0; display: block; }
.ch-samples span { font-size: 12px; padding: 3px 2px; width: 100%; text-align: center; font-weight: 400;
  color: var(--body-text-color); }
.ch-samples button:hover, .ch-samples button:focus-visible { outline: 2px solid #0f766e; }
.ch-image { margin: 0; background: #0b0d10; border-radius: 6px; overflow: hidden; color: #e5e7eb; }
.ch-image img { display: block; width: 100%; max-height: 82vh; object-fit: contain; margin: 0; background: #000; }
.ch-image figcaption { padding: 7px 14px; font-size: 14px; line-height: 1.4; min-height: 54px; color: #e5e7eb; }
.ch-image strong { color: #fff; }
.ch-doubt { margin: 0 0 8px !important; padding: 7px 14px; border-left: 4px solid #b45309; border-radius: 4px;
  background: #fef3c7; color: #451a03; font-size: 14px; font-weight: 600; }
.ch-empty { min-height: 70vh; display: flex; flex-direction: column; gap: 6px; align-items: center;
  justify-content: center; padding: 32px; text-align: center; }
.ch-empty p { max-width: 60ch; margin: 0; color: #e5e7eb; }
table.ch-findings tr { border: 0 !important; }
table.ch-findings { width: 100%; border-collapse: collapse; border: 0 !important; font-size: 14px; margin: 0; }
table.ch-findings th, table.ch-findings td { padding: 2px 8px; border: 0 !important; font-weight: 400;
  border-bottom: 1px solid var(--border-color-primary) !important; text-align: left; background: none !important;
  white-space: nowrap; color: var(--body-text-color); }
table.ch-findings thead th { font-size: 12px; color: var(--body-text-color-subdued); }
table.ch-findings tbody tr { cursor: pointer; background: none; }
table.ch-findings tbody tr:hover { background: var(--background-fill-secondary); }
table.ch-findings tbody tr.ch-chosen { background: color-mix(in srgb, #0f766e 18%, transparent); }
table.ch-findings tbody tr.ch-chosen th { box-shadow: inset 3px 0 #0f766e; }
table.ch-findings button { background: none; border: 0; padding: 2px 0; font: inherit; color: inherit; cursor: pointer;
  text-align: left; }
table.ch-findings button:focus-visible { outline: 2px solid #0f766e; border-radius: 3px; }
table.ch-findings .ch-number { text-align: right; font-variant-numeric: tabular-nums; }
table.ch-findings .ch-present th, table.ch-findings .ch-present td { font-weight: 650; }
.ch-bar { position: relative; display: block; height: 10px; min-width: 110px; border-radius: 2px;
  background: var(--border-color-primary); }
.ch-bar i { position: absolute; inset: 0 auto 0 0; border-radius: 2px; background: #94a3b8; }
.ch-present .ch-bar i { background: #0f766e; }
.dark .ch-present .ch-bar i { background: #2dd4bf; }
.ch-bar b { position: absolute; top: -3px; bottom: -3px; width: 2px; background: #d97706; }
.ch-download { display: inline-block; margin: 8px 0 0; padding: 5px 12px; border-radius: 6px; font-size: 14px;
  border: 1px solid var(--border-color-primary); color: var(--body-text-color) !important;
  text-decoration: none !important; background: var(--block-background-fill); }
.ch-download:hover, .ch-download:focus-visible { border-color: #0f766e; }
#upload .icon-wrap { display: none; }
#upload .wrap { flex-direction: row; gap: 6px; padding-top: 22px; font-size: 15px; }
@media (max-width: 900px) { .ch-header { flex-direction: column; align-items: stretch; gap: 8px; } }
"""
"""Style sheet of the page, in light and dark."""
