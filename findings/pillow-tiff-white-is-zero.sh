#!/bin/sh
# Pillow inverts a TIFF whose zero is white (PhotometricInterpretation 0) when it has 8 bits, and not when it has 16.
#
# TIFF 6.0, page 37: "0 = WhiteIsZero. For bilevel and grayscale images: 0 is imaged as white." Film scanners write
# such radiographs. Read by Pillow, an 8-bit one comes out with bones bright and the same image in 16 bits as a
# negative, with no warning; the mode (I;16) and the metadata look as they do for an image of the right polarity. A
# 16-bit file of big-endian order is not opened at all.
#
# Seen with pillow 12.3.0, tifffile 2026.3.3, numpy 2.4.6:
#   8 bits:             stored 255 -> 0 and 0 -> 255 (inverted)
#   16 bits:            stored 65535 -> 65535 and 0 -> 0 (as stored)
#   16 bits big-endian: UnidentifiedImageError
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
from PIL import Image, UnidentifiedImageError

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("pillow", "tifffile", "numpy")))


def ends(dtype, order):
    """What Pillow reads where the largest value is stored, and where 0 is."""
    stored = np.zeros((32, 32), dtype)
    stored[:16] = np.iinfo(dtype).max
    tifffile.imwrite("image.tif", stored, photometric="miniswhite", byteorder=order, metadata=None)
    try:
        read = np.asarray(Image.open("image.tif"))
    except UnidentifiedImageError:
        return "UnidentifiedImageError"
    return int(read[0, 0]), int(read[-1, 0])


seen = {"8 bits": ends(np.uint8, "<"), "16 bits": ends(np.uint16, "<"), "big-endian": ends(np.uint16, ">")}
print(seen)
sys.exit(seen != {"8 bits": (0, 255), "16 bits": (65535, 0), "big-endian": "UnidentifiedImageError"})
PYTHON
