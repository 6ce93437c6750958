# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/ablate.py: runs are kept, the table is written, and every variant is a model."""

import argparse
import importlib.util
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

from clarity_hf import FINDINGS, ClarityConfig, ClarityImageProcessor

SCRIPT = Path(__file__).parents[2] / "examples" / "ablate.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("ablate_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)  # drawing sets it, in processes of its own outside tests
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    names = dict(enumerate(FINDINGS))
    config = ConvNextV2Config(
        hidden_sizes=[8] * 4, depths=[1] * 4, id2label=names, label2id={name: index for index, name in names.items()}
    )
    ConvNextV2ForImageClassification(config).save_pretrained(folder)
    ClarityImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_runs_are_kept_and_their_table_is_put_into_the_report(script, teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "VALIDATION_IMAGES", 6)
    monkeypatch.setattr(script, "ProcessPoolExecutor", lambda mp_context: ThreadPoolExecutor(1))
    report = tmp_path / "report.md"
    marks = ("<!-- table: written by examples/ablate.py -->", "<!-- end of the table of examples/ablate.py -->")
    report.write_text(f"Before.\n{marks[0]}\nearlier\n{marks[1]}\nAfter.\n")
    command = [
        *("ablate.py", "--images", "4", "--test_images", "30", "--seeds", "2", "--variants", "full", "no_prior"),
        *("--teacher", str(teacher), "--output_dir", str(tmp_path / "runs"), "--report", str(report)),
    ]
    monkeypatch.setattr(sys, "argv", command)
    script.main()
    assert f"wrote {report} (2 variants, 2 seeds)" in capsys.readouterr().out
    text = report.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "earlier" not in text
    for row in ("everything", "no prior", "everything: attention alone", "no prior: atlas only at inference"):
        assert f"| {row} |" in text
    kept = tmp_path / "runs" / "full" / "seed-1.json"
    stored = json.loads(kept.read_text())["figures"]
    assert stored["everything"]["AUROC"] == stored["attention alone"]["AUROC"]  # another map, the same weights
    assert stored["everything"]["mass outside"] != stored["attention alone"]["mass outside"]

    def fail(*_):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(script, "fit", fail)
    script.main()
    assert report.read_text() == text

    capsys.readouterr()
    monkeypatch.setattr(script, "LEARNING_RATE", 1e-3)
    with pytest.raises(AssertionError, match="was run again"):
        script.main()
    assert f"{kept} has other settings (learning_rate) and is repeated" in capsys.readouterr().out


def test_only_figures_of_the_same_settings_are_kept(script, tmp_path, capsys):
    arguments = argparse.Namespace(images=4, test_images=30)
    settings = script.settings_of(script.VARIANTS["full"], arguments)
    path = tmp_path / "seed-0.json"
    assert not script.is_kept(path, settings)
    path.write_text(json.dumps({"settings": settings, "figures": {}}))
    assert script.is_kept(path, settings)
    assert capsys.readouterr().out == ""
    arguments.images = 5
    assert not script.is_kept(path, script.settings_of(script.VARIANTS["full"], arguments))
    assert not script.is_kept(path, script.settings_of(script.VARIANTS["no_prior"], arguments))
    assert capsys.readouterr().out.splitlines() == [
        f"{path} has other settings (images) and is repeated",
        f"{path} has other settings (images, variant) and is repeated",
    ]
    path.write_text(json.dumps({"everything": {"AUROC": 0.7}}))
    assert not script.is_kept(path, settings)


def test_the_full_method_is_among_the_variants(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ablate.py", "--variants", "no_prior"])
    with pytest.raises(SystemExit):
        script.main()
    assert "argument --variants: must include `full`" in capsys.readouterr().err


def write_figures(script, folder, name, aurocs):
    """A kept run with these AUROCs of the variant and of its maps."""
    zeros = dict.fromkeys(script.METRICS, 0.0)
    path = script.result_file(folder, name, 0)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"figures": {text: zeros | {"AUROC": auroc} for text, auroc in aurocs.items()}}))


def test_a_map_is_compared_with_the_map_of_its_own_weights(script, tmp_path):
    maps = dict.fromkeys(script.VARIANTS["full"].maps, 0.85)
    write_figures(script, tmp_path, "full", {"everything": 0.8} | maps)
    write_figures(script, tmp_path, "no_prior", {"no prior": 0.5, script.ATLAS_AT_INFERENCE: 0.6})
    report = tmp_path / "report.md"
    values = {"images": 4, "test_images": 30, "seeds": 1, "output_dir": tmp_path, "report": report}
    script.write_report(argparse.Namespace(variants=["no_prior", "full"], **values))
    text = report.read_text()
    assert "| everything | 0.800 ± 0.000 |" in text
    assert "| no prior | 0.500 ± 0.000<br>-0.300 ± 0.000 |" in text  # the order of --variants changes nothing
    assert "| everything: attention alone | 0.850 ± 0.000<br>+0.050 ± 0.000 |" in text
    assert "| no prior: atlas only at inference | 0.600 ± 0.000<br>+0.100 ± 0.000 |" in text


def test_a_table_without_rows_is_left_out(script, tmp_path, monkeypatch):
    monkeypatch.setitem(script.VARIANTS, "full", script.Variant("everything"))
    write_figures(script, tmp_path, "full", {"everything": 0.8})
    report = tmp_path / "report.md"
    values = {"images": 4, "test_images": 30, "seeds": 1, "output_dir": tmp_path, "report": report}
    script.write_report(argparse.Namespace(variants=["full"], **values))
    assert "| trained |" in report.read_text()
    assert "maps of the same weights" not in report.read_text()


def test_every_variant_is_a_different_model(script):
    configs = [ClarityConfig(**script.MODEL | variant.config).to_dict() for variant in script.VARIANTS.values()]
    settings = [
        json.dumps([config, variant.prior, variant.alpha], sort_keys=True, default=str)
        for config, variant in zip(configs, script.VARIANTS.values(), strict=True)
    ]
    assert len(set(settings)) == len(script.VARIANTS)
    for variant in script.VARIANTS.values():
        for changes in variant.maps.values():
            ClarityConfig(**script.MODEL | variant.config | changes)


def test_differences_are_taken_seed_by_seed(script):
    metrics = {name: 0.0 for name in script.METRICS}
    reference = [metrics | {"AUROC": 0.6}, metrics | {"AUROC": 0.8}]
    other = [metrics | {"AUROC": 0.5}, metrics | {"AUROC": 0.7}]
    rows = {"everything": reference, "less": other}
    lines = script.table("trained", rows, script.changes_of(rows, dict.fromkeys(rows, reference)), {})
    assert "| everything | 0.700 ± 0.141 |" in lines[2]
    assert "| less | 0.600 ± 0.141<br>-0.100 ± 0.000 |" in lines[3]


def test_p_is_from_a_paired_t_test_and_undefined_without_variation(script):
    assert script.paired_p([0.1, 0.2, 0.3]) == pytest.approx(0.0742, abs=1e-4)  # t = 3.464 at 2 degrees of freedom
    assert np.isnan(script.paired_p([0.1, 0.1, 0.1]))
    assert np.isnan(script.paired_p([0.1]))


def test_holm_multiplies_by_how_many_are_left_and_never_falls(script):
    corrected = script.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": float("nan")})
    assert corrected == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_only_what_passes_the_correction_is_bold(script):
    metrics = {name: 0.0 for name in script.METRICS}
    reference = [metrics, metrics, metrics]
    other = [metrics | {"AUROC": value} for value in (0.100, 0.101, 0.099)]
    changes = script.changes_of({"less": other}, {"less": reference})
    tried = {key: script.paired_p(change) for key, change in changes.items()}
    assert "**+0.100 ± 0.001, p < 0.001**" in script.table("t", {"less": other}, changes, script.holm(tried))[2]
    assert "**" not in script.table("t", {"less": other}, changes, {("less", "AUROC"): 0.06})[2]
