# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings, scores and boxes of an image from an exported ONNX model: numpy, onnxruntime, Pillow and scipy alone.

    python run.py image.png

prints the result of the pipeline `chest-xray-localization` as JSON. [`export_model`] copies this file as `run.py`
beside `model.onnx` and `clarity.json`, and the package's files for reading and boxes into the folder
`clarity_reading`, so that it needs neither torch nor clarity_hf. Only the preprocessing of `image_processing_clarity`
is repeated here; tests compare it with torch's antialiased resize.

For research; not a medical device.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from clarity_hf.boxes import Letterbox, boxes_from_map
from clarity_hf.image_reading import read_image

FORMAT_VERSION = 1
"""Version of `clarity.json` that this file reads."""

MAX_UPSAMPLING = 64
SMALLEST, LARGEST = 1e-12, 1e12
"""Bounds of numbers in `clarity.json` that must be positive, or finite."""

SETTINGS = {
    *("format_version", "format", "model", "findings", "score_thresholds", "map_thresholds", "box_components"),
    *("box_upsampling", "box_valleys", "size", "keep_ratio", "resample", "rescale_factor", "mean", "std"),
}
"""Keys that are read from `clarity.json`."""


class OnnxRunner:
    """An exported model, ready to localize.

    Args:
        folder: Folder that [`export_model`] wrote with `format="onnx"`.
        providers: Execution providers of onnxruntime, in order of preference.
        session_options: `onnxruntime.SessionOptions`, such as the number of threads; None is the library's own.

    Raises:
        FileNotFoundError: `folder` has no `clarity.json`.
        ImportError: onnxruntime is not installed.
        ValueError: The export is of another format or version, `clarity.json` or the weights beside the graph are not
            those of the model, or a number is out of range.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        session_options: Any = None,
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("`onnxruntime` must be installed. Run pip install onnxruntime.") from error
        about = Path(folder) / "clarity.json"
        if not about.is_file():
            raise FileNotFoundError(f"`folder` must hold clarity.json, got {folder}. Pass the folder of an export.")
        try:
            self.settings: dict[str, Any] = json.loads(about.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"`clarity.json` must be JSON, got {error} in {folder}. Export it again.") from error
        if not isinstance(self.settings, dict) or not self.settings.keys() >= SETTINGS:
            raise ValueError(f"`clarity.json` must have {sorted(SETTINGS)}, got others. Export the model again.")
        if self.settings["format_version"] != FORMAT_VERSION or self.settings["format"] != "onnx":
            got = f"{self.settings['format']}, version {self.settings['format_version']}"
            raise ValueError(f"`folder` must hold onnx, version {FORMAT_VERSION}, got {got}. Use its own run.py.")
        name = self.settings["model"]
        if not isinstance(name, str) or os.path.basename(name) != name or not name.endswith(".onnx"):
            raise ValueError(f"`model` of clarity.json must be an .onnx file beside it, got {name!r}. Correct it.")
        self._check_checkpoint(Path(folder))
        try:
            self.session = onnxruntime.InferenceSession(str(Path(folder) / name), session_options, list(providers))
        except Exception as error:  # of types of its own
            text = f"`{name}` must be a graph that onnxruntime opens, got {error} Export the model again."
            raise ValueError(text) from error
        self._check_sizes()
        self._check_numbers()

    def _check_checkpoint(self, folder: Path) -> None:
        """Refuse files of the checkpoint beside the graph that are not those that it was made for."""
        made_for = self.settings.get("made_for", {})  # nothing where the weights are inside the graph
        if not isinstance(made_for, dict) or not all(isinstance(found, str) for found in made_for.values()):
            raise ValueError(f"`made_for` of clarity.json must be hashes by file, got {made_for}. Export it again.")
        for name, expected in made_for.items():
            path, found = folder / os.path.basename(name), ""
            if path.is_file():
                with path.open("rb") as file:  # not read whole: it would double the memory of a small process
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise ValueError(
                    f"`folder` must hold the {path.name} that its graph was made for, got another in {folder}. Export "
                    "the model again, or delete clarity.json and the graph."
                )

    def _check_sizes(self) -> None:
        """Refuse sizes that are not the model's."""
        size, times = self.settings["size"], self.settings["box_upsampling"]
        expected = list(self.session.get_inputs()[0].shape[2:])
        if [size["height"], size["width"]] != expected:
            raise ValueError(f"`size` of clarity.json must be the model's, {expected}, got {size}. Export it again.")
        if not isinstance(times, int) or not 1 <= times <= MAX_UPSAMPLING:
            raise ValueError(f"`box_upsampling` must be between 1 and {MAX_UPSAMPLING}, got {times}. Export it again.")

    def _check_numbers(self) -> None:
        """Refuse impossible settings, as the package's config and image processor do."""
        findings = self.settings["findings"]
        for name, low, high in (
            ("score_thresholds", 0.0, 1.0),
            ("map_thresholds", SMALLEST, 1 - SMALLEST),
            ("box_valleys", 0.0, 1.0),
            ("mean", -LARGEST, LARGEST),
            ("std", SMALLEST, LARGEST),
            ("rescale_factor", SMALLEST, LARGEST),
        ):
            given = self.settings[name]
            values = given if isinstance(given, list) else [given]
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            if not numbers or not all(low <= value <= high for value in values):
                raise ValueError(f"`{name}` of clarity.json must be in [{low:g}, {high:g}], got {given}. Correct it.")
            if name.endswith(("thresholds", "valleys")) and len(values) != len(findings):
                raise ValueError(f"`{name}` of clarity.json must be one for each of {findings}, got {given}.")

    def __call__(self, image: str | os.PathLike) -> list[dict[str, Any]]:
        """Localize the findings of a PNG, JPEG, TIFF or BMP file or, with pydicom, a DICOM file.

        Returns:
            One dict per finding, highest score first: `label`, `score` in [0, 1], `threshold`, `present`, and `boxes`,
            a list of `{"xmin", "ymin", "xmax", "ymax"}` in pixels of the image, right and bottom exclusive, empty for
            an absent finding.

        Raises:
            FileNotFoundError, ValueError: `image` cannot be read as a radiograph; the message says why.
            ImportError: The format of `image`, such as DICOM, needs another library; the message names it.
        """
        pixels = read_image(image)
        scores, maps = self.run(prepare(pixels, self.settings))
        return findings_of(scores[0], maps[0], pixels.shape, self.settings)

    def run(self, pixel_values: np.ndarray) -> list[np.ndarray]:
        """`pixel_values` `(B, C, H, W)` float32 → scores `(B, F)` in [0, 1] and maps `(B, F, h, w)`."""
        return self.session.run(["scores", "localization_maps"], {"pixel_values": pixel_values})


def findings_of(scores: np.ndarray, maps: np.ndarray, image: Sequence[int], settings: dict[str, Any]) -> list[dict]:
    """Result of one image, as of [`OnnxRunner`], from the model's outputs and the settings in `clarity.json`.

    Args:
        scores: `(F,)` in [0, 1].
        maps: `(F, h, w)` values ≥ 0 on the patch grid.
        image: `(height, width)` of the image in pixels.
        settings: `clarity.json`.

    Raises:
        ValueError: A score is outside [0, 1], or a value of a map negative or not finite.
    """
    if not ((scores >= 0) & (scores <= 1)).all() or not (np.isfinite(maps) & (maps >= 0)).all():
        raise ValueError(f"`model` must give finite scores and maps, got others from {settings['model']}. Check it.")
    letterbox = _letterbox(image, settings)
    results = []
    for index in np.argsort(-scores, kind="stable"):
        score, threshold = float(scores[index]), float(settings["score_thresholds"][index])
        boxed_from = settings.get("box_score_thresholds", settings["score_thresholds"])[index]
        boxed = score >= boxed_from and settings["findings"][index] not in settings.get("boxless_findings", ())
        threshold_of_map, valley = settings["map_thresholds"][index], settings["box_valleys"][index]
        choice = settings["box_components"], settings["box_upsampling"], valley
        boxes = boxes_from_map(maps[index], letterbox, threshold_of_map, *choice) if boxed else np.zeros((0, 4))
        edges = boxes.astype(np.float32).tolist()
        results.append(
            {
                "label": settings["findings"][index],
                "score": score,
                "threshold": threshold,
                "present": score >= threshold,
                "boxes": [dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) for box in edges],
            }
        )
    return results


# Preprocessing: clarity_hf.image_processing_clarity


def _letterbox(image: Sequence[int], settings: dict[str, Any]) -> Letterbox:
    return Letterbox.fit(image, (settings["size"]["height"], settings["size"]["width"]), settings["keep_ratio"])


def prepare(pixels: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Resize with antialiasing, centre on black, normalise: `(H, W)` in [0, 255] → `(1, C, height, width)` float32."""
    box = _letterbox(pixels.shape, settings)
    height, width = box.content
    cubic = settings["resample"] == "bicubic"
    pixels = _resize(_resize(pixels.T, width, cubic).T, height, cubic)  # the width first, as torch does
    padded = np.zeros(box.input, dtype=np.float32)
    padded[box.top : box.top + height, box.left : box.left + width] = pixels
    unit = np.float32(1 / settings["rescale_factor"])
    mean, std = (np.array(settings[name], dtype=np.float32)[:, None, None] * unit for name in ("mean", "std"))
    return ((padded - mean) / std)[None]


def _resize(pixels: np.ndarray, size: int, cubic: bool) -> np.ndarray:
    """Resample every column `(length, n)` to `(size, n)` as torch's `interpolate(antialias=True)` does on a CPU.

    8-bit images use torch's fixed-point arithmetic (16-bit weights, rounded after each axis) and are equal to the last
    bit; Pillow's resize differs by one grey level in some pixels.
    """
    length = len(pixels)
    if length == size:
        return pixels
    first, weights = _filter(length, size, cubic)
    places = np.minimum(first[:, None] + np.arange(weights.shape[1]), length - 1)  # beyond the end the weight is 0
    starts = np.arange(size + 1) * weights.shape[1]
    if pixels.dtype != np.uint8:
        matrix = sparse.csr_array((weights.ravel(), places.ravel(), starts), (size, length))
        return (matrix @ pixels).astype(np.float32)
    bits = next((b for b in range(22) if int(0.5 + weights.max() * 2 ** (b + 1)) >= 2**15), 22)
    weights = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
    matrix = sparse.csr_array((weights.ravel(), places.ravel(), starts), (size, length))
    return np.clip((matrix @ pixels.astype(np.int32) + (1 << (bits - 1))) >> bits, 0, 255).astype(np.uint8)


def _filter(length: int, size: int, cubic: bool) -> tuple[np.ndarray, np.ndarray]:
    """First pixel `(size,)` and weights `(size, taps)` of each output pixel: triangle or Keys' cubic, a = −0.5."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = (2 if cubic else 1) * stretch
    centres = scale * (np.arange(size) + 0.5)
    first = np.maximum((centres - support + 0.5).astype(int), 0)
    taps = np.minimum((centres + support + 0.5).astype(int), length) - first
    place = np.arange(taps.max())
    x = np.abs((first[:, None] + place - centres[:, None] + 0.5) * (1 / stretch))
    if cubic:
        near, far = (1.5 * x - 2.5) * x * x + 1, -0.5 * (((x - 5) * x + 8) * x - 4)
        weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    else:
        weights = np.maximum(1 - x, 0.0)
    weights[place >= taps[:, None]] = 0
    return first, weights / weights.sum(axis=1, keepdims=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Localize one image and print JSON."""
    parser = argparse.ArgumentParser(description="Findings, scores and boxes of a chest radiograph, as JSON.")
    parser.add_argument("image", help="PNG, JPEG, TIFF or BMP file")
    parser.add_argument("--folder", default=Path(__file__).parent, help="of the export; by default this file's")
    parsed = parser.parse_args(arguments)
    try:
        print(json.dumps(OnnxRunner(parsed.folder)(parsed.image), indent=2, allow_nan=False))
    except (ImportError, OSError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
