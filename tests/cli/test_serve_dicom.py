# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf serve-dicom`: what it refuses before it loads a model. That it serves is in `test_dicom_node.py`."""

import pytest

from clarity_hf.cli import main

pytest.importorskip("pynetdicom")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Pass either --destination or --stow, got neither"),
        (["--destination", "A@b:1", "--stow", "http://b"], "got both"),
        (["--destination", "nowhere"], "`destination` must be TITLE@HOST:PORT, got 'nowhere'"),
        (["--destination", "A@b:1", "--host", "0.0.0.0"], "`titles` or `addresses` must be given"),
        (["--destination", "A@b:1", "--radiograph-check", "no"], "`radiograph_check` must be one of"),
        (["--destination", "A@b:1", "--engine", "no"], "`engine` must be one of auto, torch, onnx, openvino"),
        (["--stow", "http://b", "--engine", "onnx", "--precision", "bf16"], "`precision` must be one of fp32, int8"),
    ],
)
def test_contradictory_options_are_refused(tmp_path, capsys, words, message):
    assert main(["serve-dicom", str(tmp_path / "queue"), *words]) == 1
    assert message in capsys.readouterr().err
