# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What every test shares: no network, a model of a few thousand weights, an image drawn here."""

import os

# Before transformers and huggingface_hub are imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Tiny models gain nothing from a second thread, and on a busy machine threads wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor

REPOSITORY = Path(__file__).resolve().parents[1]
ALLOWED_SKIPS = REPOSITORY / "tests" / "allowed_skips.txt"
SIZE = 64


def allowed_skips() -> tuple[str, ...]:
    """What the reasons start with for which a test may be skipped under CI."""
    lines = ALLOWED_SKIPS.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def unexpected_skips(reports: list[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Skips for reasons that are not on the committed list, as `test: reason`."""
    found = []
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(allowed_skips()):
            found.append(f"{report.nodeid}: {reason}")
    return found


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI, fail a run in which a test was skipped for a reason that is not on the committed list."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    missed = unexpected_skips(reporter.stats.get("skipped", []))
    if missed:
        reporter.write_line("")
        reporter.write_line(f"{len(missed)} skips are not on {ALLOWED_SKIPS.name}; install what they need:", red=True)
        for line in missed:
            reporter.write_line(f"  {line}")
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def tiny_settings() -> dict:
    """Arguments of the smallest config that still has every part."""
    return {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 96,
        "image_size": SIZE,
        "class_attention_layers": 2,
        "cam_size": 16,
        "cam_groups": 4,
    }


@pytest.fixture(scope="session")
def nih_folder() -> Path:
    """Folder of real NIH images; skips the test where there is none."""
    folder = Path(os.environ.get("CLARITY_HF_NIH_DIR", REPOSITORY.parent / "shared" / "nih-subset"))
    if not folder.is_dir():
        pytest.skip("no real NIH images here: set CLARITY_HF_NIH_DIR")
    return folder


@pytest.fixture
def tiny_config() -> ClarityConfig:
    """14 findings, 64 × 64 pixels, a grid of 4 × 4 patches; a new one for each test."""
    return ClarityConfig(**tiny_settings())


@pytest.fixture(scope="session")
def shared_tiny_model() -> ClarityForMultiLabelLocalization:
    """The one tiny model of the session: seeded, evaluating. Tests take `tiny_model`, a copy."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ClarityForMultiLabelLocalization(ClarityConfig(**tiny_settings())).eval()


@pytest.fixture
def tiny_model(shared_tiny_model: ClarityForMultiLabelLocalization) -> ClarityForMultiLabelLocalization:
    """A model of `tiny_config` with random weights, the same in every test, to change at will."""
    return copy.deepcopy(shared_tiny_model)


@pytest.fixture(scope="session")
def tiny_checkpoint(
    shared_tiny_model: ClarityForMultiLabelLocalization, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of the tiny model and its processor, as `save_pretrained` writes them. Read only."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    shared_tiny_model.save_pretrained(folder)
    ClarityImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    """Image `(120, 90)` uint8, portrait: two dark fields on a gradient, with noise. Read only."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[0:120, 0:90].astype(np.float64)
    fields = sum(np.exp(-(((x - centre) / 13) ** 2) - ((y - 55) / 30) ** 2) for centre in (27, 63))
    drawn = np.clip(110 + y - 130 * fields + generator.normal(0, 6, y.shape), 0, 255).astype(np.uint8)
    drawn.setflags(write=False)
    return drawn
