# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints by bare name, served from the package and never from a network."""

import functools
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers.utils.hub as hub
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    pipeline,
)

import clarity_hf
from clarity_hf import (
    ClarityConfig,
    ClarityForMultiLabelLocalization,
    ClarityImageProcessor,
    ClarityModel,
    checkpoint_names,
    packaged_checkpoints,
)
from clarity_hf.boxes import box_iou
from clarity_hf.data.phantoms import draw_phantom

NAME = "clarity-s16-224"
PINNED = Path(__file__).parent / "pinned"


@pytest.fixture
def package(tmp_path, tiny_checkpoint, monkeypatch):
    """A package with one checkpoint; the working directory is another, empty folder."""
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoints" / NAME)
    monkeypatch.setattr(packaged_checkpoints, "CHECKPOINT_FOLDER", tmp_path / "checkpoints")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "checkpoints"


def test_names_are_the_folders_with_a_config(package):
    (package / "draft").mkdir()
    shutil.copytree(package / NAME, package / "clarity-a")
    assert checkpoint_names() == ["clarity-a", NAME]


@pytest.mark.parametrize("loader", [ClarityConfig, AutoConfig])
def test_configs_load_by_name(package, loader):
    config = loader.from_pretrained(NAME)
    assert isinstance(config, ClarityConfig)
    assert config.hidden_size == 48


@pytest.mark.parametrize("loader", [ClarityImageProcessor, AutoImageProcessor])
def test_processors_load_by_name(package, loader):
    processor = loader.from_pretrained(NAME)
    assert isinstance(processor, ClarityImageProcessor)
    assert processor.size["height"] == 64


@pytest.mark.parametrize("loader", [ClarityForMultiLabelLocalization, AutoModelForImageClassification])
def test_models_load_by_name(package, loader, tiny_model):
    model = loader.from_pretrained(NAME)
    assert isinstance(model, ClarityForMultiLabelLocalization)
    for name, weight in tiny_model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


@pytest.mark.parametrize("loader", [ClarityModel, AutoModel])
def test_encoders_load_by_name(package, loader, tiny_model):
    encoder = loader.from_pretrained(NAME)
    assert isinstance(encoder, ClarityModel)
    assert torch.equal(encoder.layernorm.weight, tiny_model.clarity.layernorm.weight)


def test_a_pipeline_loads_by_name(package, film):
    assert len(pipeline("chest-xray-localization", model=NAME)(film)) == 14


def test_an_unknown_name_is_refused_with_the_known_ones(package):
    with pytest.raises(OSError, match=rf"must be a packaged checkpoint \({NAME}\).* got 'clarity-s16-225'"):
        packaged_checkpoints.checkpoint_path("clarity-s16-225")
    for loader in (AutoConfig, ClarityForMultiLabelLocalization, AutoImageProcessor):
        with pytest.raises(OSError, match=NAME):
            loader.from_pretrained("clarity-s16-225")


@pytest.mark.parametrize(("name", "arguments"), packaged_checkpoints.UNTRAINED.items())
def test_an_untrained_name_says_how_to_get_it(package, name, arguments):
    with pytest.raises(OSError, match=rf"`{name}` is .* do not ship.*clarity-hf train --data_dir FILMS {arguments}"):
        packaged_checkpoints.checkpoint_path(name)
    with pytest.raises(OSError, match="weights do not ship"):
        AutoModelForImageClassification.from_pretrained(name)


def test_a_package_without_checkpoints_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged_checkpoints, "CHECKPOINT_FOLDER", tmp_path)
    assert checkpoint_names() == []
    with pytest.raises(OSError, match=r"packaged checkpoint \(none\)"):
        packaged_checkpoints.checkpoint_path(NAME)


def test_a_local_folder_of_the_name_goes_first(package):
    shutil.copytree(package / NAME, NAME)
    written = json.loads(Path(NAME, "config.json").read_text())
    Path(NAME, "config.json").write_text(json.dumps({**written, "score_thresholds": 0.125}))
    assert AutoConfig.from_pretrained(NAME).score_thresholds == 0.125


def test_a_local_folder_of_an_unknown_name_loads(package):
    shutil.copytree(package / NAME, "clarity-mine")
    assert AutoConfig.from_pretrained("clarity-mine").hidden_size == 48


def test_packaged_paths_load_like_any_folder(package):
    assert AutoConfig.from_pretrained(package / NAME).hidden_size == 48


@pytest.mark.parametrize("name", ["someone/clarity-s16-224", "no-such-model"])
def test_other_names_go_the_usual_way(package, name):
    with pytest.raises(OSError, match=r"(?s)couldn't connect|offline") as caught:
        AutoConfig.from_pretrained(name)
    assert "packaged checkpoint" not in str(caught.value)


def test_registering_again_wraps_once():
    before = hub.cached_files
    packaged_checkpoints.register_checkpoint_names()
    assert hub.cached_files is before
    assert not hasattr(before.__wrapped__, "_serves_clarity_checkpoints")


def test_importing_again_changes_nothing():
    before = hub.cached_files
    importlib.reload(clarity_hf)
    assert hub.cached_files is before
    assert isinstance(AutoConfig.for_model("clarity"), ClarityConfig)


def test_reloading_the_module_does_not_wrap_the_wrapper():
    before = hub.cached_files
    importlib.reload(packaged_checkpoints).register_checkpoint_names()
    assert hub.cached_files is before


def test_the_checkpoint_of_the_package_finds_a_large_heart_where_it_is():
    localizer = pipeline(clarity_hf.TASK)
    assert localizer.model.dtype == torch.float32
    phantom = draw_phantom(11, findings=["Cardiomegaly"])
    first = localizer(phantom.image)[0]
    assert first["label"] == "Cardiomegaly"
    assert first["present"]
    assert first["score"] == pytest.approx(0.99, abs=0.02)
    (box,), truth = first["boxes"], np.array([phantom.boxes[0][1]])
    assert box_iou(truth, np.array([list(box.values())]))[0, 0] > 0.4


@pytest.mark.parametrize("film", ["cardiomegaly", "effusion-consolidation", "normal", "hernia"])
def test_the_checkpoint_says_of_stored_phantoms_what_it_said(film):
    expected = json.loads((PINNED / "outputs.json").read_text())[film]
    found = {finding["label"]: finding for finding in pinned_localizer()(PINNED / f"{film}.png")}
    assert found.keys() == expected.keys()
    for label, held in expected.items():
        assert found[label]["score"] == pytest.approx(held["score"], abs=1e-3), label
        assert found[label]["map"].max() == pytest.approx(held["peak"], rel=1e-2), label
        boxes = [list(box.values()) for box in found[label]["boxes"]]
        np.testing.assert_allclose(boxes, held["boxes"], atol=1.0, err_msg=label)


@functools.cache
def pinned_localizer():
    return functools.partial(pipeline(clarity_hf.TASK), threshold=0.0, return_maps=True)
