# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints by bare name, served from the package and never from a network."""

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
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
from clarity_hf.fingerprints import write_sums
from clarity_hf.packaged_checkpoints import differing_files, file_sum, loaded_files, read_sums
from clarity_hf.phantoms import draw_phantom

NAME = "clarity-s16-224"
PINNED = Path(__file__).parent / "pinned"


@pytest.fixture
def package(tmp_path, tiny_checkpoint, monkeypatch):
    """A package with one checkpoint; the working directory is another, empty folder."""
    shutil.copytree(tiny_checkpoint, tmp_path / "checkpoints" / NAME)
    write_sums(tmp_path / "checkpoints" / NAME)
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


def test_a_pipeline_loads_by_name(package, image):
    assert len(pipeline("chest-xray-localization", model=NAME)(image)) == 14


def test_an_unknown_name_is_refused_with_the_known_ones(package):
    with pytest.raises(OSError, match=rf"No such model: 'clarity-s16-225'. Pass a packaged checkpoint \({NAME}\)"):
        packaged_checkpoints.checkpoint_path("clarity-s16-225")
    for loader in (AutoConfig, ClarityForMultiLabelLocalization, AutoImageProcessor):
        with pytest.raises(OSError, match=NAME):
            loader.from_pretrained("clarity-s16-225")


@pytest.mark.parametrize(("name", "arguments"), packaged_checkpoints.UNTRAINED.items())
def test_an_untrained_name_says_how_to_get_it(package, name, arguments):
    with pytest.raises(OSError, match=rf"`{name}` is .* do not ship.*clarity-hf train --data_dir IMAGES {arguments}"):
        packaged_checkpoints.checkpoint_path(name)
    with pytest.raises(OSError, match="weights do not ship"):
        AutoModelForImageClassification.from_pretrained(name)


def test_a_package_without_checkpoints_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged_checkpoints, "CHECKPOINT_FOLDER", tmp_path)
    assert checkpoint_names() == []
    with pytest.raises(OSError, match=r"packaged checkpoint \(none\)"):
        packaged_checkpoints.checkpoint_path(NAME)


def test_a_local_folder_of_the_name_has_priority(package):
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
def test_other_names_are_looked_up_on_the_hub(package, name):
    with pytest.raises(OSError, match=r"(?s)couldn't connect|offline") as caught:
        AutoConfig.from_pretrained(name)
    assert "packaged checkpoint" not in str(caught.value)


def damage(path):
    """A file that still parses is no longer the same: a space more in JSON, a bit of another value in weights."""
    content = bytearray(path.read_bytes())
    content[-1] ^= path.suffix != ".json"
    path.write_bytes(content + b" " * (path.suffix == ".json"))


@pytest.mark.parametrize("by", ["name", "path", "relative path"])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_packaged_checkpoint_that_was_changed_is_refused(package, file, by):
    damage(package / NAME / file)
    place = {"name": NAME, "path": package / NAME, "relative path": f"../checkpoints/{NAME}"}[by]
    for loader in (AutoModelForImageClassification, ClarityForMultiLabelLocalization, AutoConfig, AutoImageProcessor):
        with pytest.raises(OSError, match=rf"`{NAME}` has changed .*{file} \(different SHA-256\).*Reinstall"):
            loader.from_pretrained(place)


def test_a_change_between_two_loads_of_a_process_is_seen(package):
    AutoConfig.from_pretrained(NAME)
    damage(package / NAME / "model.safetensors")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        ClarityForMultiLabelLocalization.from_pretrained(NAME)


def test_a_packaged_checkpoint_without_hashes_or_with_more_files_is_refused(package):
    (package / NAME / "chat_template.json").write_text("{}")
    with pytest.raises(OSError, match=r"chat_template.json \(not listed\)"):
        AutoConfig.from_pretrained(NAME)
    (package / NAME / "chat_template.json").unlink()
    (package / NAME / "SHA256SUMS").unlink()
    with pytest.raises(OSError, match=r"No such file: .*SHA256SUMS.*Reinstall clarity_hf"):
        AutoConfig.from_pretrained(NAME)


def test_a_copy_of_a_packaged_checkpoint_may_be_changed(package):
    shutil.copytree(package / NAME, "mine")
    Path("mine", "config.json").write_text(Path("mine", "config.json").read_text() + " ")
    assert AutoConfig.from_pretrained("mine").hidden_size == 48


def test_files_are_hashed_once_for_each_state(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    packaged_checkpoints._file_sum.cache_clear()
    assert file_sum(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    file_sum(path)
    assert packaged_checkpoints._file_sum.cache_info().misses == 1


@pytest.mark.parametrize("line", ["abc  model.safetensors", "0" * 64, f"{'0' * 64}  ../x", f"{'0' * 64}  /etc/passwd"])
def test_a_line_that_is_not_a_hash_of_a_file_below_the_folder_is_refused(tmp_path, line):
    (tmp_path / "SHA256SUMS").write_text(line)
    with pytest.raises(ValueError, match="Each line of `SHA256SUMS` must be"):
        read_sums(tmp_path)


def test_differing_files_are_named(tmp_path):
    for name in ("a.json", "b.safetensors", "c.py", "README.md"):
        (tmp_path / name).write_text(name)
    assert loaded_files(tmp_path) == ["a.json", "b.safetensors", "c.py"]
    write_sums(tmp_path)
    assert differing_files(tmp_path) == []
    (tmp_path / "a.json").unlink()
    (tmp_path / "c.py").write_text("import os")
    (tmp_path / "d.py").write_text("")
    assert differing_files(tmp_path) == ["d.py (not listed)", "a.json (missing)", "c.py (different SHA-256)"]


@pytest.mark.parametrize("name", checkpoint_names())
def test_the_packaged_hashes_match_the_packaged_files(name):
    folder = packaged_checkpoints.checkpoint_path(name)
    assert sorted(read_sums(folder)) == loaded_files(folder)
    assert differing_files(folder) == [], "pack it again: clarity_hf.fingerprints.write_sums(folder)"


def test_the_checkpoint_of_the_package_finds_a_large_heart_where_it_is():
    localizer = pipeline(clarity_hf.TASK)
    assert localizer.model.dtype == torch.float32
    phantom = draw_phantom(11, findings=["Cardiomegaly"])
    first = localizer(phantom.image)[0]
    assert first["label"] == "Cardiomegaly"
    assert first["present"]
    assert first["score"] > 0.7
    (box,), truth = first["boxes"], np.array([phantom.boxes[0][1]])
    assert box_iou(truth, np.array([list(box.values())]))[0, 0] > 0.4


@pytest.mark.parametrize("image", ["cardiomegaly", "effusion-consolidation", "normal", "hernia"])
def test_outputs_for_stored_phantoms_are_unchanged(image):
    expected = json.loads((PINNED / "outputs.json").read_text())[image]
    found = {finding["label"]: finding for finding in pinned_localizer()(PINNED / f"{image}.png")}
    assert found.keys() == expected.keys()
    for label, held in expected.items():
        assert found[label]["score"] == pytest.approx(held["score"], abs=1e-3), label
        assert found[label]["map"].max() == pytest.approx(held["peak"], rel=1e-2), label
        boxes = [list(box.values()) for box in found[label]["boxes"]]
        np.testing.assert_allclose(boxes, held["boxes"], atol=1.0, err_msg=label)


@functools.cache
def pinned_localizer():
    return functools.partial(pipeline(clarity_hf.TASK), threshold=0.0, return_maps=True)
