# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`docs/input.md` names a test for each case, and each of them is there."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "input.md"


def named_tests(text):
    """Tests by the files that a section names for them: `{("tests/test_a.py",): {"test_b"}}`."""
    named = {}
    for section in text.split("\n## ")[1:]:
        listed = re.search(r"Tests:((?:\s+(?:and\s+)?`tests/[\w/]+\.py`[,.]?)+)", section)
        names = set(re.findall(r"`(test_\w+)`", section))
        if names:
            assert listed, section[:60]
            named[tuple(re.findall(r"`([^`]+)`", listed[1]))] = names
    return named


def functions(code):
    return {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}


def test_the_check_sees_a_test_that_is_not_there():
    text = "# Bad\n\n## A\n\nTests:\n`tests/test_a.py`.\n\n| x | y | `test_b`, `test_c` |"
    assert named_tests(text) == {("tests/test_a.py",): {"test_b", "test_c"}}
    assert functions("def test_b(): ...") == {"test_b"}


@pytest.mark.parametrize("files", named_tests(PAGE.read_text(encoding="utf-8")), ids=" ".join)
def test_every_test_that_the_page_names_is_there(files):
    named = named_tests(PAGE.read_text(encoding="utf-8"))[files]
    there = set().union(*(functions((REPOSITORY / file).read_text(encoding="utf-8")) for file in files))
    assert named - there == set()


def test_every_row_of_a_case_names_a_test_or_its_section_does():
    sections = PAGE.read_text(encoding="utf-8").split("\n## Fuzzing")[0].split("\n## ")
    cases = []
    for introduction, table in (section.split("\n| input |") for section in sections if "\n| input |" in section):
        rows = re.findall(r"^\| .+ \|$", table.partition("\n")[2], re.MULTILINE)
        cases += [(row, introduction) for row in rows]
    assert len(cases) > 80
    assert [row for row, introduction in cases if "`test_" not in row and "`test_" not in introduction] == []
