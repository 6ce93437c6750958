# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Models of strangers: safetensors are loaded, and what would open a pickle is refused before anything is."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from clarity_hf import ClarityForMultiLabelLocalization
from clarity_hf.safe_loading import load_foreign_model, require_plain_timm


@pytest.fixture
def vit(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    ViTForImageClassification(ViTConfig(**sizes, image_size=32, patch_size=16)).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.fixture
def opened(monkeypatch):
    """Files that torch was asked to unpickle."""
    seen = []
    monkeypatch.setattr(torch, "load", lambda file, *_, **__: seen.append(str(file)))
    return seen


def pickled(folder, target):
    """A copy of a sharded model whose index names pickles."""
    shutil.copytree(folder, target)
    index = target / "model.safetensors.index.json"
    read = json.loads(index.read_text())
    for shard in set(read["weight_map"].values()):
        torch.save(load_file(target / shard), target / f"{shard}.bin")
        (target / shard).unlink()
    read["weight_map"] = {name: f"{shard}.bin" for name, shard in read["weight_map"].items()}
    index.write_text(json.dumps(read))
    return target


def on_the_hub(folder, cache, name):
    """The files of a folder as the Hub's cache has them."""
    snapshot = cache / f"models--{name.replace('/', '--')}" / "snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    return name


def test_safetensors_are_loaded_from_one_file_and_from_shards(vit, tmp_path):
    whole = load_foreign_model(AutoModelForImageClassification, str(vit), dtype=torch.float32)
    whole.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    shards = load_foreign_model(AutoModelForImageClassification, str(tmp_path / "shards"))
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(shards.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("decoy", [False, True])
def test_an_index_that_names_pickles_is_refused(vit, tmp_path, opened, decoy):
    model = ViTForImageClassification.from_pretrained(vit)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    folder = pickled(tmp_path / "shards", tmp_path / "pickled")
    if decoy:
        shutil.copy(vit / "model.safetensors", folder / "other.safetensors")
    with pytest.raises(ValueError, match=r"must name \.safetensors files beside it, got .*\.bin"):
        load_foreign_model(AutoModelForImageClassification, str(folder))
    assert opened == []


def test_an_index_on_the_hub_that_names_pickles_is_refused(tiny_checkpoint, tmp_path, opened, monkeypatch):
    """Of our own model and of others; the file is in a folder as in the cache."""
    model = ClarityForMultiLabelLocalization.from_pretrained(str(tiny_checkpoint))
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    cache = tmp_path / "hub"
    whole = on_the_hub(tmp_path / "shards", cache, "someone/whole")
    broken = on_the_hub(pickled(tmp_path / "shards", tmp_path / "pickled"), cache, "someone/pickled")
    loaded = ClarityForMultiLabelLocalization.from_pretrained(whole, cache_dir=cache)
    assert loaded.config.findings == model.config.findings
    with pytest.raises(ValueError, match=r"must name \.safetensors files beside it, got .*\.bin"):
        ClarityForMultiLabelLocalization.from_pretrained(broken, cache_dir=cache)
    assert opened == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "hf-hub:someone/model"}, "`architecture` must be the name of a timm model"),
        ({"model_args": {"checkpoint_path": "weights.pth"}}, r"`model_args` must only set sizes and shapes, got \["),
    ],
)
def test_a_config_of_timm_that_fetches_is_refused(change, words):
    class Config:
        architecture, model_args = "vit_tiny_patch16_224", {"img_size": 32}

    require_plain_timm(Config())
    for name, value in change.items():
        setattr(Config, name, value)
    with pytest.raises(ValueError, match=words):
        require_plain_timm(Config())
