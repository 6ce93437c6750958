# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The notebook `docs/tour.ipynb`: it is a whole notebook without outputs, and its cells run in their order.

They run here, not in a kernel: they use no magics, and nbclient with ipykernel would bring thirty packages, a debugger
and sockets among them. CLARITY_HF_TOUR_PICTURES names a folder to keep what the cells show, to be looked at.
"""

import ast
import json
import os
import re
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return json.loads(TOUR.read_text(encoding="utf-8"))


def run_cell(source, names):
    """Execute a cell; returns what a notebook shows of it, None after a semicolon."""
    body = ast.parse(source)
    shown = None
    if isinstance(body.body[-1], ast.Expr) and not re.search(r";\s*(#.*)?$", source.rstrip()):
        shown = ast.Expression(body.body.pop().value)
    exec(compile(body, str(TOUR), "exec"), names)
    return None if shown is None else eval(compile(shown, str(TOUR), "eval"), names)


def test_the_notebook_is_one_and_holds_no_outputs(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["language_info"]["name"] == "python"
    cells = notebook["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["cell_type"] in ("code", "markdown")
        assert (cell["metadata"], "".join(cell["source"]).strip() != "") == ({}, True)
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_its_cells_run_in_their_order(notebook, tmp_path, monkeypatch, capsys):
    for package in ("matplotlib", "pydicom", "highdicom"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    keep = os.environ.get("CLARITY_HF_TOUR_PICTURES")
    names, pictures = {"__name__": "__main__"}, 0
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            continue
        shown = run_cell("".join(cell["source"]), names)
        if hasattr(shown, "_repr_png_"):
            pictures += 1
            if keep:
                shown.save(Path(keep) / f"{number:02d}.png")
        for figure in map(plt.figure, plt.get_fignums()):
            pictures += 1
            figure.canvas.draw()
            if keep:
                figure.savefig(Path(keep) / f"{number:02d}.png", dpi=60)
        plt.close("all")
    assert pictures == 9
    assert names["findings"][0]["label"] == names["label"]
    # 8 bits as 12 of MONOCHROME1 are the same image, but for the window's last grey value.
    scores = [{finding["label"]: finding["score"] for finding in names[of]} for of in ("findings", "from_dicom")]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)
    said = capsys.readouterr().out
    assert "BatchSummary(images=7, skipped=0, predicted=6, failed=1" in said
    assert "BatchSummary(images=7, skipped=6, predicted=0, failed=1" in said
    assert list(names["parts"]) == ["attention alone", "CAM alone", "without suppression", "CLARiTy"]
    assert list(tmp_path.iterdir()) == [names["folder"]]  # nothing beside it
