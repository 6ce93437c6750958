# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""An ONNX graph beside a checkpoint that reads its weights from the checkpoint's own safetensors file.

ONNX lets a tensor lie in another file at an offset. A graph of 0.3 MB then makes a checkpoint an ONNX export too, with
the same weights: onnxruntime widens them from fp16 when it opens the graph.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from clarity_hf.files import replaced_files
from clarity_hf.fingerprints import describe_results
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
from clarity_hf.packaged_checkpoints import file_sum

from .export import export_model

WEIGHTS = "model.safetensors"
CONFIGS = ("config.json", "preprocessor_config.json")
SMALLEST = 1024
"""Tensors with fewer elements stay in the graph."""


def write_shared_graph(folder: str | os.PathLike) -> list[Path]:
    """Write `model.onnx` and `clarity.json` into the folder of a checkpoint with weights in fp16.

    `clarity.json` also has `results`, what [`describe_results`] gives, so that predictions by the graph have the same
    settings as the model's, and `made_for`, the SHA-256 of weights, config and preprocessing, others than which are
    refused.

    Args:
        folder: Written by `save_checkpoint`.

    Returns:
        The two files.

    Raises:
        ImportError: A library of the extra `export` is not installed.
        ValueError: A large tensor of the graph is not one of the checkpoint's.
    """
    import onnx

    folder = Path(folder)
    model = ClarityForMultiLabelLocalization.from_pretrained(folder)
    image_processor = ClarityImageProcessor.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as made:
        exported = export_model(model, image_processor, Path(made) / "export")
        graph = onnx.load(exported["model"])
        settings = json.loads(exported["settings"].read_text(encoding="utf-8"))
    _share_weights(graph, folder / WEIGHTS)
    settings["results"] = describe_results(model, image_processor)
    settings["made_for"] = {name: file_sum(folder / name) for name in (WEIGHTS, *CONFIGS)}
    with replaced_files(folder) as made:
        (made / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
        (made / "clarity.json").write_text(json.dumps(settings, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return [folder / "model.onnx", folder / "clarity.json"]


def _share_weights(model: Any, weights: Path) -> None:
    """Replace the large tensors of an `onnx.ModelProto` by references to those of a safetensors file, widened."""
    from onnx import TensorProto, helper, numpy_helper

    stored = _fp16_tensors(weights)
    initializers, nodes = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        found = _same_values(values, stored) if values.size >= SMALLEST else None
        if found is None:
            initializers.append(tensor)
            continue
        offset, half, transposed = found
        shared = TensorProto(name=f"{tensor.name}.fp16", data_type=TensorProto.FLOAT16, dims=half.shape)
        shared.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", offset), ("length", half.nbytes)):
            shared.external_data.add(key=key, value=str(value))
        initializers.append(shared)
        widened = f"{tensor.name}.stored" if transposed else tensor.name
        nodes.append(helper.make_node("Cast", [shared.name], [widened], f"{tensor.name}/Cast", to=TensorProto.FLOAT))
        if transposed:
            nodes.append(helper.make_node("Transpose", [widened], [tensor.name], f"{tensor.name}/Transpose"))
    own = sum(len(tensor.raw_data) for tensor in initializers)
    if own > weights.stat().st_size / 100:
        raise ValueError(f"`folder` must hold the weights of the graph, got {own:,} bytes of others. Pack it again.")
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(initializers)
    model.graph.node.extend(nodes)


def _fp16_tensors(weights: Path) -> list[tuple[int, np.ndarray]]:
    """Offset in the file and values of each tensor in fp16."""
    content = weights.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    tensors = []
    for name, about in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__" and about["dtype"] == "F16":
            offset, end = (8 + length + place for place in about["data_offsets"])
            tensors.append((offset, np.frombuffer(content[offset:end], "<f2").reshape(about["shape"])))
    return tensors


def _same_values(values: np.ndarray, stored: list[tuple[int, np.ndarray]]) -> tuple[int, np.ndarray, bool] | None:
    """Offset and values of the stored tensor that equals `values`, and whether it is transposed."""
    for offset, half in stored:
        for transposed, candidate in ((False, half), (True, half.T)):
            if candidate.shape == values.shape and np.array_equal(candidate.astype(np.float32), values):
                return offset, half, transposed
    return None


__all__ = ["write_shared_graph"]
