#!/bin/sh
# Pillow reads the signed bytes of a TIFF (SampleFormat 2, 8 bits) as unsigned ones: the grey levels wrap around.
#
# TIFF 6.0, page 80, has SampleFormat 2 for "two's complement signed integer data". An image of -128 to 127, as a
# subtraction or a normalised export gives it, opens as mode L without a warning: -1, just below the middle, becomes
# 255, and 0, the middle, black. The tag is still there (339: 2) but nothing heeds it. The same values in 16 bits open as
# I and keep their sign, and tifffile gives int8. A picture made in this way looks solarised, not broken.
#
# Seen with pillow 12.3.0, tifffile 2026.3.3, numpy 2.4.6:
#   8 bits:  mode L, stored [-128, -1, 0, 127] -> [128, 255, 0, 127]
#   16 bits: stored [-128, -1, 0, 127] -> [-128, -1, 0, 127]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==12.3.0 tifffile==2026.3.3 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
import tifffile
from PIL import Image

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("pillow", "tifffile", "numpy")))

STORED = [-128, -1, 0, 127]


def read(dtype):
    """Mode and values in Pillow, and the values in tifffile, of the same file."""
    tifffile.imwrite("image.tif", np.array([STORED] * 4, dtype), photometric="minisblack", metadata=None)
    image = Image.open("image.tif")
    return image.mode, np.asarray(image)[0].tolist(), tifffile.imread("image.tif")[0].tolist()


seen = {bits: read(dtype) for bits, dtype in ((8, np.int8), (16, np.int16))}
print(seen)
wrapped = seen[8] == ("L", [128, 255, 0, 127], STORED)
kept = seen[16][1:] == (STORED, STORED)
sys.exit(not (wrapped and kept))
PYTHON
