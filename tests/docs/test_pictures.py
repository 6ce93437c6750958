# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The page `docs/pictures.md`: its code runs, and its picture is there and can be redrawn."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "pictures.md"


def test_its_code_runs_from_top_to_bottom(tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    from clarity_hf.phantoms import draw_phantom

    plt.switch_backend("agg")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw_phantom(11, findings=["Effusion"]).image).save("image.png")
    names = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    plt.close("all")
    assert len(names["findings"]) == 14
    assert Image.open("findings.png").width > 0


def test_every_picture_that_it_shows_is_there():
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert shown == ["images/pictures.png"]
    assert (DOCS / shown[0]).is_file()


def test_its_picture_and_its_figures_can_be_reproduced(tmp_path, capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("draw_pictures", DOCS / "images" / "draw_pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "PHANTOMS", 6)
    script.main(["--output", str(tmp_path / "made.png")])
    with Image.open(tmp_path / "made.png") as made, Image.open(DOCS / "images" / "pictures.png") as committed:
        assert made.size == committed.size == (3 * 512 + 16, made.height)
        assert made.height > 512  # the strip with the scale
    assert re.search(r"on 6 phantoms, present: median [\d.]+, .*\n.*absent: median", capsys.readouterr().out)
