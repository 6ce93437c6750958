# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/convert_timm_weights.py: another port's tensors, in order, as a model that the teacher's recipe takes."""

import importlib.util
import sys
from pathlib import Path

import pytest
import timm
import torch
from transformers import AutoModelForImageClassification

SCRIPT = Path(__file__).parents[2] / "examples" / "convert_timm_weights.py"
ARCHITECTURE = "test_efficientnet"


@pytest.fixture
def run(monkeypatch):
    spec = importlib.util.spec_from_file_location("convert_timm_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments), "--architecture", ARCHITECTURE])
        return module.main()

    return call


@pytest.fixture
def port(tmp_path):
    """timm's network, and its tensors in a file under other names."""
    torch.manual_seed(0)
    network = timm.create_model(ARCHITECTURE, num_classes=7).eval()
    tensors = {f"_port.{index}": value for index, value in enumerate(network.state_dict().values())}
    torch.save(tensors, tmp_path / "port.pth")
    return network, tensors


def test_the_converted_model_says_what_the_network_says(run, port, tmp_path, capsys):
    assert run(tmp_path / "port.pth", tmp_path / "out", "--license", "mit") == 0
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images).logits, port[0](images))
    assert "licence mit" in capsys.readouterr().out
    assert "license: mit" in (tmp_path / "out" / "README.md").read_text()
    assert [path.suffix for path in (tmp_path / "out").iterdir() if path.suffix in (".bin", ".pth", ".pt")] == []


@pytest.mark.parametrize("change", ["short", "shape"])
def test_tensors_of_another_network_are_refused(run, port, tmp_path, capsys, change):
    tensors = dict(port[1])
    if change == "short":
        tensors.popitem()
    else:
        tensors["_port.0"] = tensors["_port.0"][:, :1]
    torch.save(tensors, tmp_path / "other.pth")
    assert run(tmp_path / "other.pth", tmp_path / "out") == 1
    assert "`weights` must" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_would_run_code_is_refused(run, tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(b"cos\nsystem\n.")
    assert run(tmp_path / "bad.pth", tmp_path / "out") == 1
    assert not (tmp_path / "out").exists()
