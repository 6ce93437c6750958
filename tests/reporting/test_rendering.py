# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Rendering: cells as text, tables as Markdown and CSV."""

import csv
import io

import pytest

from clarity_hf.reporting.rendering import case_caption, csv_of, markdown, picture_row, show, show_interval
from clarity_hf.reporting.schema import CaseEntry, Column, Estimate, Row, Table

NAN = float("nan")
TABLE = Table(
    "t",
    "T",
    (Column("a", "A"), Column("b", "B")),
    (
        Row("x", ("x|y", Estimate(0.5, 0.25, NAN))),
        Row("z", ("z", None), "rare"),
        Row("m", ("m", 1.0), "summary first"),
    ),
    "Note.",
    " Gaps.",
)


@pytest.mark.parametrize(
    ("cell", "text", "interval"),
    [
        (0.12345, "0.123", ""),
        (NAN, "–", ""),
        (None, "–", ""),
        (12345, "12,345", ""),
        ("Mass", "Mass", ""),
        (Estimate(0.5, 0.25, 0.75), "0.500", "(0.250–0.750)"),
        (Estimate(0.1, -0.1, 0.3), "0.100", "(-0.100 to 0.300)"),
        (Estimate(0.5, NAN, NAN), "0.500", ""),
    ],
)
def test_a_cell_shows_its_value_and_interval(cell, text, interval):
    assert show(cell) == text
    assert show_interval(cell) == interval


def test_a_table_in_markdown_has_its_title_and_note_and_marks_rare_and_summary_rows():
    assert markdown(TABLE).splitlines() == [
        "### T",
        "",
        "| A | B |",
        "|---|---:|",
        "| x\\|y | 0.500 (0.250–nan) |",
        "| *z* | – |",
        "| **m** | 1.000 |",
        "",
        "Note. Gaps.",
    ]
    assert markdown(TABLE, "Other.").endswith("\n\nOther. Gaps.\n")


def test_a_table_as_csv_has_keys_and_full_precision():
    assert list(csv.reader(io.StringIO(csv_of(TABLE)))) == [
        ["row", "a", "b", "b_low", "b_high"],
        ["x", "x|y", "0.5", "0.25", ""],
        ["z", "z", "", "", ""],
        ["m", "m", "1.0", "", ""],
    ]


def test_a_caption_has_the_overlap_only_where_boxes_are_annotated():
    case = CaseEntry("best", 1, 1, "image.png", "Pleural_Thickening", 0.5, 0.25, 0.75)
    assert case_caption(case) == "Pleural Thickening: score 0.500 at threshold 0.250, IoU 0.750"
    assert case_caption(CaseEntry("false", 1, 1, None, "Mass", 0.5, 0.25, None)).endswith("threshold 0.250")


def test_pictures_stand_side_by_side_above_their_captions():
    text = picture_row({"![a](a.jpg)": "A", "![b](b.jpg)": "B"})
    assert text == "| ![a](a.jpg) | ![b](b.jpg) |\n|---|---|\n| A | B |\n"
