# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What tells one model from another."""

import copy
import json
import shutil
import subprocess

import pytest
import torch

from clarity_hf import ClarityImageProcessor
from clarity_hf.fingerprints import BOX_FIELDS, check_sums, describe_model, weights_digest, write_sums


def test_a_digest_is_of_names_shapes_types_and_values():
    layer = torch.nn.Linear(2, 3)
    digest = weights_digest(layer)
    assert len(digest) == 16
    assert weights_digest(copy.deepcopy(layer)) == digest
    others = [torch.nn.Sequential(copy.deepcopy(layer)), copy.deepcopy(layer).double(), copy.deepcopy(layer)]
    with torch.no_grad():
        others[2].weight[0, 0] += 1e-3
    assert len({digest, *map(weights_digest, others)}) == 4


def test_buffers_count():
    norm = torch.nn.BatchNorm1d(3)
    digest = weights_digest(norm)
    norm.running_mean += 1
    assert weights_digest(norm) != digest


@pytest.mark.parametrize("field", BOX_FIELDS)
def test_thresholds_make_no_other_scores_and_maps(shared_tiny_model, field):
    processor = ClarityImageProcessor()
    described = describe_model(shared_tiny_model, processor)
    changed = copy.deepcopy(shared_tiny_model)
    setattr(changed.config, field, {"box_components": "largest", "boxless_findings": ["Mass"]}.get(field, 0.25))
    assert describe_model(changed, processor) == described == json.loads(json.dumps(described))


def test_preprocessing_and_calibration_do(shared_tiny_model):
    described = describe_model(shared_tiny_model, ClarityImageProcessor())
    squashed = describe_model(shared_tiny_model, ClarityImageProcessor(keep_ratio=False))
    assert squashed["preprocessing"] != described["preprocessing"]
    changed = copy.deepcopy(shared_tiny_model)
    changed.config.score_slopes = 2.0
    assert describe_model(changed, ClarityImageProcessor())["config"] != described["config"]


def test_sums_are_checked_by_us_and_by_sha256sum(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("may change")
    path = write_sums(tmp_path)
    assert path.read_text() == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a  config.json\n"
    check_sums(tmp_path)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--strict", path.name], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "README.md").write_text("changed")
    check_sums(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"`folder` must match its SHA256SUMS, got config.json \(different SHA-256\)"):
        check_sums(tmp_path)


def test_sums_may_be_of_named_files(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert write_sums(tmp_path, ["a.txt"]).read_text().endswith("  a.txt\n")
    with pytest.raises(FileNotFoundError):
        write_sums(tmp_path, ["b.txt"])


def test_a_folder_with_nothing_to_hash_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="`folder` must hold the files of a checkpoint"):
        write_sums(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No such file: .*SHA256SUMS"):
        check_sums(tmp_path)
