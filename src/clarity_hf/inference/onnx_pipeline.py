# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Predictions of a packaged checkpoint by onnxruntime, without torch and transformers, whose import takes seconds.

The graph `model.onnx` beside the weights reads them from the checkpoint's own file; `SHA256SUMS` covers both.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clarity_hf.export.onnx_runner import OnnxRunner, findings_of, prepare
from clarity_hf.packaged_checkpoints import CHECKPOINT_FOLDER, is_packaged_name, served_path

logger = logging.getLogger(__name__)

ENGINE = "onnx fp32"
"""How results name what computed them."""


def open_runner(folder: str | os.PathLike, threads: int) -> OnnxRunner:
    """The runner of an export, with this many threads (0 is onnxruntime's choice) that leave idle cores to readers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return OnnxRunner(folder, session_options=options)


class OnnxPipeline:
    """Stands in for [`ChestXrayLocalizationPipeline`] in `predict_images`: the same findings, scores and boxes.

    Args:
        folder: Of a checkpoint with `model.onnx` and `clarity.json`, as `write_shared_graph` leaves it.

    Raises:
        FileNotFoundError, ImportError, ValueError: As for [`OnnxRunner`].
    """

    def __init__(self, folder: str | os.PathLike):
        self._runner = open_runner(folder, _threads(os.environ.get("OMP_NUM_THREADS", "")))

    def preprocess(self, pixels: np.ndarray, radiograph_check: str = "off") -> dict[str, np.ndarray]:
        """Pixels `(H, W)` in [0, 255] → unchecked `pixel_values` `(1, C, h, w)` and `image_sizes` `(1, 2)`."""
        return {"pixel_values": prepare(pixels, self._runner.settings), "image_sizes": np.array([pixels.shape])}

    def forward(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs of B images → `scores` `(B, F)` in [0, 1], `localization_maps` `(B, F, h, w)`, and their sizes."""
        scores, maps = self._runner.run(inputs["pixel_values"])
        return {"scores": scores, "localization_maps": maps, "image_sizes": inputs["image_sizes"]}

    def postprocess(self, outputs: dict[str, np.ndarray], threshold: float | None = None) -> list[dict[str, Any]]:
        """Result of one image, a batch of one, as the pipeline gives it.

        Args:
            outputs: From `forward`.
            threshold: Score in [0, 1] from which a finding is present and has boxes, instead of the model's own.

        Raises:
            ValueError: Scores or maps are not finite.
        """
        settings = self._runner.settings
        if threshold is not None:
            same = [threshold] * len(settings["findings"])
            settings = settings | {"score_thresholds": same, "box_score_thresholds": same, "boxless_findings": []}
        return findings_of(outputs["scores"][0], outputs["localization_maps"][0], outputs["image_sizes"][0], settings)

    def describe(self, threshold: float | None = None) -> dict[str, Any]:
        """What makes the results, as `describe_results` gives it for the model."""
        described = dict(self._runner.settings["results"])
        if threshold is not None:
            described.pop("box_score_thresholds", None)
            described |= {"score_thresholds": threshold, "boxless_findings": []}
        return described | {"engine": ENGINE}


def onnx_pipeline(
    model: str, device: str = "auto", engine: str = "auto", precision: str | None = None, outputs: Sequence[str] = ()
) -> OnnxPipeline | None:
    """The pipeline without torch, where it gives what is asked for; with `auto` a runtime that fails is logged.

    Args:
        model: Name or folder of a packaged checkpoint; for others, whose graph may not fit their config, None.
        device: As for `--device`; `auto` is the CPU where no accelerator is found.
        engine: `auto` or `onnx`; for others None.
        precision: None or `fp32`; for others None.
        outputs: Further outputs of `predict_images`; all but `identifiers` need the model itself.

    Raises:
        OSError: The checkpoint's files have changed since it was packed.
    """
    if engine not in ("auto", "onnx") or precision not in (None, "fp32") or set(outputs) - {"identifiers"}:
        return None
    if device != "cpu" and (device != "auto" or _may_have_accelerator()):
        return None
    if importlib.util.find_spec("onnxruntime") is None or not (is_packaged_name(model) or os.path.isdir(model)):
        return None
    folder = Path(served_path(model)).resolve()
    packaged = folder.parent == CHECKPOINT_FOLDER.resolve() and (folder / "model.onnx").is_file()
    if not packaged:
        return None
    try:
        return OnnxPipeline(folder)
    except Exception as error:  # a runtime may raise anything, and torch takes over
        if engine != "auto":
            raise
        logger.warning("The ONNX graph of %s cannot be used, predicting in torch: %s", folder.name, error)
        return None


def _threads(written: str) -> int:
    """The first number of OMP_NUM_THREADS, such as 4 of `4,2`; 0 for none."""
    first = written.split(",")[0].strip()
    return int(first) if re.fullmatch(r"\d{1,5}", first, re.ASCII) else 0


def _may_have_accelerator() -> bool:
    """Whether torch might find an accelerator, by its build and the devices of the system."""
    version = importlib.metadata.version("torch")
    if version.endswith("+cpu"):
        return False
    if sys.platform.startswith("linux"):
        devices = ["/dev/nvidia*", "/dev/kfd", "/dev/accel/*", "/dev/dxg"] + ["/dev/dri/*"] * ("xpu" in version)
        return any(map(glob.glob, devices))
    return sys.platform != "win32" or shutil.which("nvidia-smi") is not None


__all__ = ["OnnxPipeline", "onnx_pipeline"]
