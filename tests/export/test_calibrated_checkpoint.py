# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A calibrated folder: model, processor, and the card that says what was fitted, ready to be published."""

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor
from clarity_hf.evaluation.calibration import Calibration, CrossFitted, OverSplits
from clarity_hf.export.calibrated_checkpoint import HEADING, save_calibrated
from clarity_hf.export.publishing import card_problems, prepare_publication

CARD = """---
license: cc-by-4.0
library_name: transformers
pipeline_tag: image-classification
---

# Tiny

![a case](pictures/case.png)

## Limits

Many.
"""


@pytest.fixture
def source(tiny_checkpoint, tmp_path):
    folder = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "LICENSE").write_text("a licence")
    (folder / "pictures").mkdir()
    Image.new("L", (2, 2)).save(folder / "pictures" / "case.png")
    return folder


def save(source, folder, images="8 validation images of images"):
    """Calibrate by hand: the first finding's threshold is .25."""
    model = ClarityForMultiLabelLocalization.from_pretrained(source)
    model.config.score_thresholds = [0.25] + [0.5] * 13
    model.config.score_slopes = [2.0] * 14
    found = Calibration(
        score_slopes=np.full(14, 2.0),
        score_intercepts=np.zeros(14),
        score_thresholds=np.array(model.config.score_thresholds),
        map_thresholds=np.full(14, 0.5),
        positives=np.arange(14),
        boxes=np.zeros(14, dtype=int),
        kept_scores=(),
        pooled_maps=(),
        kept_maps=tuple(range(14)),
    )
    nothing = OverSplits(float("nan"), float("nan"))
    unseen = CrossFitted(8, 2, (0,), 5, defaultdict(lambda: nothing))
    return save_calibrated(source, model, ClarityImageProcessor.from_pretrained(source), folder, found, unseen, images)


def test_the_card_of_the_source_goes_along_and_says_what_was_fitted(source, tmp_path):
    text = save(source, tmp_path / "calibrated")
    card = (tmp_path / "calibrated" / "README.md").read_text(encoding="utf-8")
    assert card.startswith(CARD.rstrip())
    assert f"{HEADING}\n\nScores were calibrated, and thresholds chosen, on 8 validation images of images." in card
    assert "| Atelectasis | 0 | 2.000 | +0.000 | 0.250 |" in text
    assert card.endswith(text + "\n")
    picture = Path("pictures", "case.png")
    assert (tmp_path / "calibrated" / picture).read_bytes() == (source / picture).read_bytes()
    assert (tmp_path / "calibrated" / "LICENSE").read_text() == "a licence"


def test_a_second_calibration_takes_the_place_of_the_first(source, tmp_path):
    save(source, tmp_path / "first", "8 validation images of one")
    text = (tmp_path / "first" / "README.md").read_text(encoding="utf-8") + "\n## Citation\n\nCite.\n"
    (tmp_path / "first" / "README.md").write_text(text, encoding="utf-8")
    save(tmp_path / "first", tmp_path / "second", "9 validation images of other")
    card = (tmp_path / "second" / "README.md").read_text(encoding="utf-8")
    assert card.count(HEADING) == 1
    assert "of one" not in card
    assert "of other" in card
    assert "## Limits" in card
    assert "## Citation" in card


def test_a_folder_can_be_calibrated_in_place(source):
    save(source, source)
    assert HEADING in (source / "README.md").read_text(encoding="utf-8")
    assert Image.open(source / "pictures" / "case.png").size == (2, 2)


@pytest.mark.parametrize("card", [True, False])
def test_what_was_calibrated_can_be_published(source, tmp_path, card):
    if not card:
        (source / "README.md").unlink()
    save(source, tmp_path / "calibrated")
    assert card_problems((tmp_path / "calibrated" / "README.md").read_text(encoding="utf-8")) == []
    prepare_publication(tmp_path / "calibrated", tmp_path / "published")
    published = ModelCard.load(tmp_path / "published" / "README.md")
    assert published.data.license == ("cc-by-4.0" if card else "unknown")
    assert HEADING in published.text
    config = ClarityForMultiLabelLocalization.from_pretrained(tmp_path / "published").config
    assert config.is_calibrated
    assert config.score_thresholds == [0.25] + [0.5] * 13


def test_the_card_of_a_packaged_checkpoint_goes_along(tmp_path, tiny_checkpoint):
    from clarity_hf.export.calibrated_checkpoint import _file_of

    assert _file_of("clarity-s16-224", "README.md").read_text(encoding="utf-8").startswith("---\n")
    assert _file_of(tiny_checkpoint, "README.md") is None
    assert _file_of("someone/never-fetched", "README.md") is None
