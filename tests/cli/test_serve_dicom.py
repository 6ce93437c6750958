# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf serve-dicom`: what it refuses before it loads a model. That it serves is in `test_dicom_node.py`."""

import logging
import warnings

import pytest

from clarity_hf.cli import main

pytest.importorskip("pynetdicom")


@pytest.fixture(autouse=True)
def loggers():
    """What the command sets for its process is undone: tests after it see the log of the node."""
    names = ("pydicom", "pynetdicom", "highdicom", "clarity_hf.inference.dicom_node")
    before = [(logger, logger.level, logger.propagate, [*logger.handlers]) for logger in map(logging.getLogger, names)]
    with warnings.catch_warnings():
        yield
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


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
