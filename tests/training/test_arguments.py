# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Arguments of a training run: defaults, ranges, and the ways to give them."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from transformers import HfArgumentParser

from clarity_hf.training import ClarityTrainingArguments
from clarity_hf.training.arguments import has_native_bf16, parse_arguments, to_flags


def arguments(folder, **kwargs):
    return ClarityTrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none", **kwargs)


def test_defaults_are_those_of_the_documentation(tmp_path):
    args = arguments(tmp_path)
    assert args.distillation_alpha == 0.5
    assert args.distillation_temperature == 1.0
    assert args.background_warmup_epochs == 1.0
    assert args.weight_decay == 0.05
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.999, 1e-8)
    assert args.remove_unused_columns is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("distillation_alpha", -0.1),
        ("distillation_alpha", 1.1),
        ("distillation_alpha", float("nan")),
        ("map_distillation_weight", -0.1),
        ("map_distillation_weight", float("inf")),
        ("distillation_temperature", 0.0),
        ("distillation_temperature", float("nan")),
        ("background_warmup_epochs", -1.0),
        ("patch_dropout", 1.0),
        ("patch_dropout", -0.1),
        ("patch_dropout_epochs", -1.0),
        ("patch_dropout_epochs", float("inf")),
        ("muon_iterations", 0),
    ],
)
def test_values_out_of_range_are_refused_by_name(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        arguments(tmp_path, **{name: value})


@pytest.mark.parametrize("given", [{"patch_dropout": 0.5}, {"patch_dropout_epochs": 2.0}])
def test_patch_dropout_needs_its_epochs_and_they_need_it(tmp_path, given):
    with pytest.raises(ValueError, match="`patch_dropout` and `patch_dropout_epochs` must be given together"):
        arguments(tmp_path, **given)


@pytest.mark.parametrize(("given", "used"), [(None, 0.95), (0.999, 0.999), (0.9, 0.9)])
def test_beside_muon_adamws_second_beta_is_lower_unless_it_is_given(tmp_path, given, used):
    assert arguments(tmp_path, matrix_optimizer="muon", adam_beta2=given).adam_beta2 == used


def test_an_optimizer_of_the_library_is_refused_beside_muon(tmp_path):
    with pytest.raises(ValueError, match=r"`optim` must be adamw_torch_fused with .* muon, got sgd\. Leave --optim"):
        arguments(tmp_path, matrix_optimizer="muon", optim="sgd")
    assert arguments(tmp_path, optim="sgd").optim == "sgd"


def test_an_optimizer_of_matrices_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`matrix_optimizer` must be adamw or muon, got lion"):
        arguments(tmp_path, matrix_optimizer="lion")


@pytest.mark.parametrize(
    "values",
    [
        {"distillation_alpha": 0.0, "background_warmup_epochs": 0.0},
        {"distillation_alpha": 1.0, "distillation_temperature": 0.01},
    ],
)
def test_the_ends_of_the_ranges_are_inside(tmp_path, values):
    args = arguments(tmp_path, **values)
    assert {name: getattr(args, name) for name in values} == values


def test_the_command_line_and_a_json_file_give_the_same_arguments(tmp_path):
    given = {"distillation_alpha": 0.25, "distillation_temperature": 3.0}
    file = tmp_path / "run.json"
    file.write_text(json.dumps(given | {"output_dir": str(tmp_path), "use_cpu": True}))
    parser = HfArgumentParser(ClarityTrainingArguments)
    (from_file,) = parser.parse_json_file(str(file))
    (from_line,) = parser.parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--use_cpu", "--distillation_alpha", "0.25", "--distillation_temperature", "3"]
    )
    for args in (from_file, from_line):
        assert (args.distillation_alpha, args.distillation_temperature, args.weight_decay) == (0.25, 3.0, 0.05)


def test_bf16_is_native_where_a_gpu_or_the_cpu_computes_in_it(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for capability, supported, expected in (("AVX512", True, True), ("AVX512", False, False), ("AVX2", True, False)):
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda capability=capability: capability)
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda s=supported: s, raising=False)
        assert has_native_bf16() is expected
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: not including_emulation)
    assert has_native_bf16() is True


# Arguments from a file


@dataclass
class Settings:
    """Some arguments of a script."""

    names: list[str] = field(default_factory=list)
    kind: Literal["one", "two"] = "one"
    rate: float = 1.0
    config: str | None = None
    quick: bool = False


def stage(tmp_path, text):
    path = tmp_path / "stage.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_of_arguments_overrides_defaults_and_is_overridden_by_the_command_line(tmp_path):
    path = stage(tmp_path, "names: [a, b]\nrate: 2.0e-3\nconfig: {pooling: mean}\nquick: true\n")
    (found,) = parse_arguments((Settings,), {"kind": "two", "rate": 5.0}, [path, "--rate", "3"])
    assert found == Settings(["a", "b"], "two", 3.0, '{"pooling": "mean"}', True)
    (plain,) = parse_arguments((Settings,), {"rate": 5.0}, ["--kind", "two"])
    assert plain == Settings(kind="two", rate=5.0)


def test_a_file_may_be_json_spell_with_hyphens_and_have_nulls(tmp_path):
    @dataclass
    class Longer(Settings):
        batch_size: int = 8

    text = '{"names": ["a"], "config": null, "rate": null, "batch-size": 4, "quick": true}'
    (tmp_path / "stage.json").write_text(text)
    (found,) = parse_arguments((Longer,), {"rate": 5.0}, [str(tmp_path / "stage.json")])
    assert found == Longer(names=["a"], rate=5.0, quick=True, batch_size=4)
    (found,) = parse_arguments((Longer,), {}, [stage(tmp_path, "batch_size: 4\nconfig: null\nkind: ~\n")])
    assert found == Longer(batch_size=4)


@pytest.mark.parametrize("text", ["rates: 2\n", "- rate\n", "kind: three\n", ""])
def test_a_file_that_maps_no_arguments_to_values_is_refused(tmp_path, text, capsys):
    with pytest.raises((ValueError, SystemExit)):
        parse_arguments((Settings,), {}, [stage(tmp_path, text)])


def test_flags_are_words_of_a_command_line():
    flags = to_flags({"config": {"a": False}, "image_mean": [0.5, 0.6], "bf16": True, "seed": 3})
    assert flags == ["--config", '{"a": false}', "--image_mean", "0.5", "0.6", "--bf16", "True", "--seed", "3"]
