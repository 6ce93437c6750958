# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Runtimes that compute scores and maps: torch itself, or an export of the model in onnxruntime or OpenVINO.

An export is made once and kept in a cache folder, `$CLARITY_HF_CACHE` or `~/.cache/clarity_hf`, under a hash of
weights, config, preprocessing, library versions, processor and the code that exports. The cache holds no radiographs
and may be deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from transformers.modeling_outputs import ModelOutput

from clarity_hf.files import UNFINISHED, replaced_file
from clarity_hf.fingerprints import describe_model, write_sums
from clarity_hf.packaged_checkpoints import differing_files
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

from .engine_names import PRECISIONS, check_engine
from .onnx_pipeline import open_runner

logger = logging.getLogger(__name__)

Run = Callable[[torch.Tensor], tuple]

FASTEST = (("onnx", "fp32"),)
"""What `auto` tries, fastest first, before it falls back to torch. Not bf16 and int8, in which a quarter of the boxes
move, nor OpenVINO, whose forward is faster but which starts later, takes more memory and slows readers down."""

LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""Package that runs an export."""

FEWEST_IMAGES = 100
"""From this many images on, `auto` uses an export: making one takes as long as about 100 forwards in torch."""

PARITY_IMAGES, PARITY_SIZE = 16, 512
"""Number of phantoms on which an engine is compared with torch, and their side in pixels."""

PARITY = "parity-"
"""Start of the names of the files in which the cache keeps these comparisons."""

MOST_MOVED, LEAST_SAME, NEAR = 0.001, 0.99, 2.0
"""Largest mean change of a score, least share of findings with the same boxes, and how many pixels these may move."""


@dataclass(frozen=True)
class Parity:
    """How far an engine's results on phantoms are from those of the model in torch, in fp32.

    Attributes:
        score_change: Mean absolute change of a score, in [0, 1].
        same_boxes: Share of the findings with boxes, in either, that have as many boxes in both, none of whose sides
            moved by more than `NEAR` pixels.
    """

    score_change: float
    same_boxes: float

    @property
    def passed(self) -> bool:
        """Whether `auto` may use the engine."""
        return self.score_change <= MOST_MOVED and self.same_boxes >= LEAST_SAME


@dataclass(frozen=True, eq=False)
class Engine:
    """The model of a pipeline in another runtime or precision.

    Attributes:
        pipeline: Its model's config gives the settings of boxes.
        name: Runtime and precision, such as `onnx fp32`.
        run: `pixel_values` `(B, C, H, W)` float32 → scores `(B, F)` in [0, 1] and maps `(B, F, h, w)`.
        folder: Folder of the export; None in torch.
        made_for: The model of the export, from [`describe_model`]; empty in torch, which runs the pipeline's own.
    """

    pipeline: ChestXrayLocalizationPipeline
    name: str
    run: Run
    folder: Path | None = None
    made_for: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, pixel_values: torch.Tensor) -> ModelOutput:
        """Scores, maps and settings of boxes, as the model's forward gives them."""
        scores, maps = (torch.as_tensor(values).float() for values in self.run(pixel_values))
        settings = self.pipeline.model.box_settings(scores)
        return ModelOutput(scores=scores, localization_maps=maps, box_settings=settings)


def use_engine(
    pipeline: ChestXrayLocalizationPipeline, engine: str = "auto", precision: str | None = None, images: int = 1
) -> str:
    """Choose what computes a pipeline's scores and maps. Prediction, web page and DICOM node then use it.

    Args:
        pipeline: Changed in place.
        engine: `torch`, `onnx`, `openvino`, or `auto`: torch for fewer than `FEWEST_IMAGES` images or where the model
            is not on a CPU; otherwise the fastest export that can be made here and passes the comparison with torch.
        precision: One of the engine's `PRECISIONS`; by default the first of them, with `auto` the fastest.
        images: How many images will be predicted.

    Returns:
        Runtime and precision, such as `onnx fp32`.

    Raises:
        ImportError: The engine's package, or one that exporting needs, is not installed.
        OSError: The export cannot be written to the cache folder.
        ValueError: The engine or the precision is unknown, the model is not on a CPU and the engine is not torch, or
            the model's calibration is of other weights.
    """
    check_engine(engine, precision)
    pipeline.engine = None
    on_cpu = pipeline.device.type == "cpu"
    if engine == "auto" and on_cpu and images >= FEWEST_IMAGES:
        for runtime, chosen in _installed(precision):
            if _try(pipeline, runtime, chosen):
                return f"{runtime} {chosen}"
    if engine == "auto":
        engine = "onnx" if precision == "int8" else "torch"
    if engine != "torch" and not on_cpu:
        raise ValueError(f"`engine` must be torch on {pipeline.device.type}, got '{engine}'. Pass device='cpu'.")
    precision = precision or PRECISIONS[engine][0]
    if (engine, precision) != ("torch", "fp32"):
        pipeline.engine = open_engine(pipeline, engine, precision)
    return f"{engine} {precision}"


def engine_settings(pipeline: ChestXrayLocalizationPipeline, described: Mapping[str, Any]) -> dict[str, str]:
    """The engine's name, for the settings of results; nothing where the model itself computes them.

    Raises:
        ValueError: The engine was made for another model than the one `described`, from [`describe_model`].
    """
    if not isinstance(pipeline.engine, Engine):
        return {}
    changed = [name for name, value in pipeline.engine.made_for.items() if described[name] != value]
    if changed:
        raise ValueError(
            f"`pipeline` must have the model that its engine was made for, got other {', '.join(changed)}. Call "
            "use_engine again."
        )
    return {"engine": pipeline.engine.name}


def _installed(precision: str | None) -> list[tuple[str, str]]:
    """What `auto` can try here of a precision, fastest first."""
    installed = [pair for pair in FASTEST if importlib.util.find_spec(LIBRARIES[pair[0]]) is not None]
    if not installed:
        logger.warning("onnxruntime is not installed: predicting in torch, which is slower.")
    return [pair for pair in installed if precision in (None, pair[1])]


def _try(pipeline: ChestXrayLocalizationPipeline, runtime: str, precision: str) -> bool:
    """Use an engine if it runs here and its results are those of torch; log why not."""
    name = f"{runtime} {precision}"
    try:
        engine = open_engine(pipeline, runtime, precision)
        found = _parity_of(pipeline, engine, precision)
    except Exception as error:  # a runtime may raise anything, and torch takes over
        logger.warning("The engine %s cannot be used: %s", name, error)
        return False
    if not found.passed:
        logger.warning("The engine %s differs from torch on phantoms: %s.", name, found)
        return False
    pipeline.engine = engine
    return True


def open_engine(pipeline: ChestXrayLocalizationPipeline, engine: str, precision: str) -> Engine:
    """Open an engine of `PRECISIONS` for a pipeline, which is not modified. Only torch may be on another device.

    The model is exported if the cache has no export of it.

    Raises:
        ImportError: The engine's package, or one that exporting needs, is not installed.
        OSError: The export cannot be written to the cache folder, or not be opened.
        ValueError: The model's calibration is of other weights.
    """
    name = f"{engine} {precision}"
    if engine == "torch":
        return Engine(pipeline, name, _in_torch(pipeline, precision))
    package = LIBRARIES[engine]
    if importlib.util.find_spec(package) is None:
        extra = "export" if engine == "onnx" else engine
        raise ImportError(f"The engine {engine} needs {package}. Run pip install 'clarity_hf[{extra}]'.")
    made_for = describe_model(pipeline.model, pipeline.image_processor)
    folder = exported(pipeline, engine, "int8" if precision == "int8" else "fp32", made_for)
    opened = {"onnx": _in_onnxruntime, "openvino": _in_openvino}[engine]
    try:
        return Engine(pipeline, name, opened(folder, precision), folder, made_for)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # a runtime may raise anything
        raise OSError(f"The export in {folder} cannot be opened by {package}: {error}. Delete it.") from error


def _in_torch(pipeline: ChestXrayLocalizationPipeline, precision: str) -> Run:
    def run(pixel_values: torch.Tensor) -> tuple:
        with torch.autocast(pixel_values.device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = pipeline.model(pixel_values=pixel_values)
        return outputs.scores, outputs.localization_maps

    return run


def _in_onnxruntime(folder: Path, precision: str) -> Run:
    runner = open_runner(folder, torch.get_num_threads())
    return lambda values: tuple(runner.run(values.float().numpy()))


@cache
def openvino_core() -> Any:
    """The `openvino.Core` of this process, which is kept until it ends.

    OpenVINO 2026.4.1 replaces the thread's stack for signals while a core lives. Processes that made and freed several
    cores were ended by SIGSEGV at a later signal, without a traceback.
    """
    from clarity_hf.export.export import without_telemetry

    with without_telemetry():
        import openvino
    return openvino.Core()


def _in_openvino(folder: Path, precision: str) -> Run:
    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    compiled = openvino_core().compile_model(folder / "model.xml", "CPU", hints)

    def run(pixel_values: torch.Tensor) -> tuple:
        found = compiled({"pixel_values": pixel_values.float().numpy()})
        return tuple(np.array(found[name]) for name in ("scores", "localization_maps"))

    return run


# Cache


def exported(
    pipeline: ChestXrayLocalizationPipeline,
    engine: str,
    precision: str = "fp32",
    made_for: Mapping[str, Any] | None = None,
) -> Path:
    """Folder of an export of a pipeline's model, made if the cache lacks it or has a damaged one.

    Processes wait for each other.

    Args:
        pipeline: The model is not changed.
        engine: `onnx` or `openvino`.
        precision: `fp32` or `int8`.
        made_for: From [`describe_model`]; None computes it.

    Raises:
        ImportError: A library of the extra `export` is not installed.
        OSError: The folder cannot be written.
    """
    folder = _export_folder(made_for or describe_model(pipeline.model, pipeline.image_processor), engine, precision)
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_whole(folder):
                _export(pipeline, engine, precision, folder)
    except OSError as error:
        raise OSError(
            f"The cache folder must be one that can be written, got {folder.parent}: {error}. Set CLARITY_HF_CACHE to "
            "another."
        ) from error
    return folder


def _export(pipeline: ChestXrayLocalizationPipeline, engine: str, precision: str, folder: Path) -> None:
    """Write an export, with its sums, in the place of what may be there."""
    from clarity_hf.export.export import export_model  # 100 MB that a cached export does without

    if folder.is_dir():
        logger.warning("The export in %s is damaged and is made anew.", folder)
        shutil.rmtree(folder)
    logger.warning("Exporting the model for %s to %s, once.", LIBRARIES[engine], folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=UNFINISHED) as made:
        export = Path(made) / "export"
        export_model(pipeline.model, pipeline.image_processor, export, engine, precision)  # type: ignore[arg-type]
        write_sums(export, [path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()])
        os.replace(export, folder)


def _is_whole(folder: Path) -> bool:
    """Whether an export is there with the files that were written."""
    try:
        return not [each for each in differing_files(folder) if not each.startswith(PARITY)]
    except (OSError, ValueError):  # without sums
        return False


def _export_folder(made_for: Mapping[str, Any], engine: str, precision: str = "fp32") -> Path:
    """Place in the cache of an export of a model that [`describe_model`] described."""
    about = {
        **made_for,
        "library": f"{LIBRARIES[engine]} {importlib.metadata.version(LIBRARIES[engine])}",
        "torch": torch.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "code": _code_digest(),
    }
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
    own, user = os.environ.get("CLARITY_HF_CACHE"), os.environ.get("XDG_CACHE_HOME")
    cache = Path(own) if own else Path(user or Path.home() / ".cache") / "clarity_hf"
    return cache / "engines" / f"{engine}-{key}{'' if precision == 'fp32' else f'-{precision}'}"


@cache
def _code_digest() -> str:
    """Hash of the code that a graph is made from: one that an earlier version made may be wrong."""
    package = Path(__file__).parents[1]
    sources = [package / "modeling_clarity.py", *sorted((package / "export").glob("*.py"))]
    return hashlib.blake2b(b"\0".join(path.read_bytes() for path in sources), digest_size=8).hexdigest()


# Parity


def _parity_of(pipeline: ChestXrayLocalizationPipeline, engine: Engine, precision: str) -> Parity:
    """Parity of an engine, kept in the folder of its export."""
    assert engine.folder is not None
    file = engine.folder / f"{PARITY}{precision}.json"
    with contextlib.suppress(OSError, TypeError, ValueError):  # absent or damaged: measured again
        kept = Parity(**json.loads(file.read_text(encoding="utf-8")))
        return Parity(float(kept.score_change), float(kept.same_boxes))
    found = measure_parity(pipeline, engine)
    with contextlib.suppress(OSError), replaced_file(file) as made:
        made.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    return found


def measure_parity(
    pipeline: ChestXrayLocalizationPipeline, engine: Engine, images: int = PARITY_IMAGES, size: int = PARITY_SIZE
) -> Parity:
    """Compare an engine with the pipeline's model in torch, on phantoms of `size` pixels a side."""
    from clarity_hf.phantoms import iterate_phantoms

    processor = pipeline.image_processor
    moved: list[torch.Tensor] = []
    same: list[bool] = []
    for phantom in iterate_phantoms(images, seed=1, size=size):
        pixel_values = processor(phantom.image, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            outputs = [compute(pixel_values=pixel_values) for compute in (pipeline.model, engine)]
        ours, theirs = (
            processor.post_process_localization(found, target_sizes=[(size, size)])[0] for found in outputs
        )
        moved.append((ours["finding_scores"] - theirs["finding_scores"]).abs())
        for finding in sorted({*ours["labels"].tolist(), *theirs["labels"].tolist()}):
            boxes, others = (found["boxes"][found["labels"] == finding] for found in (ours, theirs))
            same.append(len(boxes) == len(others) and bool(((boxes - others).abs() <= NEAR).all()))
    return Parity(float(torch.stack(moved).mean()), float(np.mean(same)) if same else 1.0)
