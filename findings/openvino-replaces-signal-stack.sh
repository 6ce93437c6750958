#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU plugin, on Linux: the first compile_model of a Core replaces the alternate signal stack of the
# thread that calls it, by one of a few kilobytes above the least that the processor needs. Python's faulthandler registers
# a larger one of its own, which is out of use from then on; where there was none, there is one afterwards. It comes back
# when the Core and what it compiled are freed. Python runs every signal handler on that stack, so a program with signal
# handlers (a data loader's SIGCHLD, a service's SIGTERM) depends on the life of its Cores. A process that made and freed
# several of them was ended by SIGSEGV at a later signal, without faulthandler's traceback; one Core that is kept for the
# life of the process is safe. No warning is given.
#
# Seen with Python 3.11.7:
#   openvino 2026.4.1 numpy 2.4.6
#   with faulthandler: 59760 bytes; another stack of 20144 bytes after compile_model; the first one after the Core is freed
#   without: none; a stack of 20144 bytes after compile_model; none after the Core is freed
# The numbers of bytes depend on the processor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet openvino==2026.4.1 numpy==2.4.6
cat >try.py <<'PY'
import ctypes
import faulthandler
import gc
import sys
from importlib.metadata import version

import numpy as np
import openvino as ov
import openvino.opset13 as ops


class Stack(ctypes.Structure):
    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def stack():
    found = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return found.place, found.size


if sys.argv[1] == "with":
    print("openvino", version("openvino"), "numpy", version("numpy"))
    faulthandler.enable()
x = ops.parameter([2], np.float32)
before = stack()
core = ov.Core()
compiled = core.compile_model(ov.Model([ops.relu(x)], [x]), "CPU")
during = stack()
del compiled, core
gc.collect()
after = stack()
if sys.argv[1] == "with":
    print(f"with faulthandler: {before[1]} bytes; another stack of {during[1]} bytes after compile_model; ", end="")
    print("the first one after the Core is freed" if after == before else f"{after} after it is freed")
else:
    print(f"without: none; a stack of {during[1]} bytes after compile_model; ", end="")
    print("none after the Core is freed" if not after[1] else f"{after} after it is freed")
raise SystemExit(during == before or not during[1] or after != before)
PY
venv/bin/python try.py with
venv/bin/python try.py without
