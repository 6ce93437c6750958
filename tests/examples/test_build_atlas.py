# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/build_atlas.py: what it fills and averages, what it measures, what it writes; on a wheel written here."""

import gzip
import importlib.util
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "build_atlas.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_atlas", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lungs_of(side=256, scale=1.0):
    """Two rectangles of lung, of which the left one of the image ends higher."""
    mask = np.zeros((side, round(side * scale)), dtype=np.uint8)
    for left, right, bottom in ((0.2, 0.45, 0.6), (0.55, 0.8, 0.7)):
        mask[side // 4 : round(bottom * side), round(left * mask.shape[1]) : round(right * mask.shape[1])] = 255
    return mask


@pytest.fixture
def wheel(script, tmp_path):
    """A wheel with four masks, one of them empty and one with an ignored patch, and two boxes."""
    ignored = lungs_of()
    ignored[:20, :30] = 127
    masks, archive = [lungs_of(), lungs_of(300, 1.4), np.zeros((200, 200), dtype=np.uint8), ignored], io.BytesIO()
    with zipfile.ZipFile(archive, "w") as inner:
        inner.writestr("semantic_masks_v7labs_lungs/", "")
        for number, mask in enumerate(masks):
            encoded = io.BytesIO()
            Image.fromarray(mask).save(encoded, "png")
            inner.writestr(f"semantic_masks_v7labs_lungs/{number}.jpg", encoded.getvalue())
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,512,256,102.4,102.4,,,\n"
    boxes += "b.png,Mass,0,0,100,100,,,\n"
    path = tmp_path / "torchxrayvision.whl"
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr(script.MASKS, archive.getvalue())
        outer.writestr(script.BOXES, gzip.compress(boxes.encode()))
    return path


@pytest.fixture
def run(script, monkeypatch, capsys):
    """Run the command: exit status, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["build_atlas.py", *map(str, arguments)])
        status = script.main()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_without_a_wheel_it_says_how_to_get_one(run, tmp_path):
    for arguments in ((), (tmp_path / "gone.whl",)):
        status, _, err = run(*arguments)
        assert status == 1
        assert "pip download --no-deps torchxrayvision" in err


def test_another_archive_is_an_error(run, tmp_path):
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "")
    assert run(path)[0] == 1
    path.write_bytes(b"no archive")
    assert run(path)[0] == 1


def test_it_averages_masks_and_measures_boxes(run, wheel, tmp_path):
    output = tmp_path / "atlas.png"
    status, out, _ = run(wheel, "--output", output)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "3 masks (1 empty ones left out, 1 with ignored patches)"
    assert lines[1] == "| finding | boxes | atlas > .1 | atlas > .5 | prior > .1 | prior > .5 |"
    assert "| Infiltration | 1 | 1.00 | 1.00 | 1.00 | 1.00 |" in lines
    assert "| Mass | 1 | 0.00 | 0.00 | 0.00 | 0.00 |" in lines
    with Image.open(output) as image:
        assert (image.mode, image.size) == ("L", (128, 128))
        assert "CC BY 4.0" in image.text["Copyright"]
        atlas = np.array(image)
    # The lungs and what lies between them, from a quarter down to .6 and .7 of the height, .2 to .8 of the width.
    assert (atlas[34:76, 28:100] == 255).all()
    assert (atlas[77:88, 72:100] == 255).all()
    assert (atlas[:30] == 0).all()
    assert (atlas[:, :24] == 0).all()


def test_the_same_wheel_gives_the_same_file(run, wheel, tmp_path):
    for name in ("first.png", "second.png"):
        run(wheel, "--output", tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_an_ignored_patch_counts_for_neither_side(script):
    lungs = lungs_of()
    hidden = lungs.copy()
    hidden[100:140, 44:60] = 127  # over the rim of a lung, whole cells of 2 × 2 pixels
    atlas, _ = script.build_atlas(iter([lungs, hidden]))
    expected, _ = script.build_atlas(iter([lungs]))
    np.testing.assert_array_equal(atlas, expected)


def test_masks_are_averaged(script):
    upper, lower = np.zeros((128, 128), dtype=np.uint8), np.zeros((256, 256), dtype=np.uint8)
    upper[:64], lower[64:192] = 255, 255
    atlas, _ = script.build_atlas(iter([upper, lower, np.zeros_like(upper)]))
    assert [atlas[row, 64] for row in (0, 40, 80, 100)] == [128, 255, 128, 0]


def test_only_empty_masks_make_no_atlas(script):
    with pytest.raises(ValueError, match="1 empty ones"):
        script.build_atlas(iter([np.zeros((128, 128), dtype=np.uint8)]))


def test_the_mediastinum_is_filled_down_to_where_the_lungs_end_beside_it(script):
    lungs = np.array(
        [
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, 1, 1, 0, 0, 0, 1, 0, 0],
            [1, 1, 1, 1, 0, 1, 1, 1, 0],
            [1, 1, 1, 0, 0, 1, 1, 1, 1],
            [1, 1, 0, 0, 0, 0, 0, 1, 1],
            [1, 0, 0, 0, 0, 0, 0, 0, 1],
        ],
        dtype=bool,
    )
    filled = lungs.copy()
    filled[1, 2:6] = filled[2, 4] = filled[3, 3:5] = True  # columns 3 to 5 are the middle third, row 3 their last
    np.testing.assert_array_equal(script.fill_mediastinum(lungs), filled)


def test_one_lung_has_no_mediastinum(script):
    lung = np.zeros((30, 30), dtype=bool)
    lung[5:25, 3:12] = True
    np.testing.assert_array_equal(script.fill_mediastinum(lung), lung)


def test_boxes_are_read_by_finding_in_the_releases_frame(script):
    table = b"Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Infiltrate,1,2,30,40,,,\nb.png,Mass,5,6,7,8,,,\n"
    boxes = script.read_boxes(gzip.compress(table))
    assert list(boxes) == ["Infiltration", "Mass"]
    assert boxes["Infiltration"][0].tolist() == [1, 2, 31, 42]


def test_coverage_is_the_share_of_the_boxs_own_area(script):
    region = script.above(np.pad(np.ones((64, 128), dtype=np.float32), ((0, 64), (0, 0))), 0.5)
    assert script.covered_share(region, np.array([100.0, 412, 200, 612])) == pytest.approx(0.5, abs=0.03)
    assert script.covered_share(region, np.array([0.0, 0, 1024, 1024])) == pytest.approx(0.5, abs=0.01)
