#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU plugin, inference precision f32: y = sum(x, last axis) + b, with x of shape (B, F, D) and a constant
# b of shape (F,), is wrong for every B above 1. The Add is fused into the reduction with b read along the batch instead of
# along F: row i gets b[i] in all its columns, so only the diagonal is right. max, mean, a product in place of the sum, and
# b of shape (1, F) are wrong in the same way; a batch of 1, a sum over two axes at once, and (sum)[..., None] + b[:, None]
# are right. It is how a vision model adds a bias to one score per class token. No warning is given.
#
# Seen with Python 3.11.7:
#   openvino 2026.4.1 numpy 2.4.6
#   batch 1: largest error 0.000
#   batch 3: largest error 33.000, row 2 less its sums: [30.0, 30.0, 30.0, 30.0], b: [10.0, 20.0, 30.0, 43.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openvino==2026.4.1 numpy==2.4.6
cat >try.py <<'PY'
from importlib.metadata import version

import numpy as np
import openvino as ov
import openvino.opset13 as ops

print("openvino", version("openvino"), "numpy", version("numpy"))
b = np.array([10, 20, 30, 43], dtype=np.float32)
x = ops.parameter([-1, 4, 8], np.float32)
y = ops.add(ops.reduce_sum(x, np.array([2])), ops.constant(b))
compiled = ov.Core().compile_model(ov.Model([y], [x]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
values = np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32)
one, three = (compiled(values[:count])[0] - values[:count].sum(-1) for count in (1, 3))
errors = [float(np.abs(found - b).max()) for found in (one, three)]
print(f"batch 1: largest error {errors[0]:.3f}")
print(f"batch 3: largest error {errors[1]:.3f}, row 2 less its sums: {three[2].round(3).tolist()}, b: {b.tolist()}")
raise SystemExit(errors[0] > 1e-3 or not np.allclose(three, b[:3, None] + 0 * three, atol=1e-3))
PY
venv/bin/python try.py
