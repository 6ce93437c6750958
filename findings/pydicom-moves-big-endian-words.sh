#!/bin/sh
# pydicom writes the words (OW) of a big-endian file unswapped into a little-endian one when a sequence is copied.
#
# A lookup table of a radiograph may be stored as US or as OW (PS3.3 C.11.2). Read from a file in Explicit VR Big
# Endian, US values are numbers and keep their meaning wherever they go; OW stays the bytes of the file. Copying the
# sequence into a new data set - what every presentation state of an image does - and saving that in little endian
# writes these bytes as they are, without an error or a warning: 256 becomes 1. (Saving the whole data set in the
# other order is refused; copying its parts is not.) Which of the two a table is depends on who wrote the file.
#
# Seen with pydicom 3.0.2, numpy 2.4.6:
#   US: [0, 1, 256, 65280] -> [0, 1, 256, 65280]
#   OW: [0, 1, 256, 65280] -> [0, 256, 1, 255]
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pydicom==3.0.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W error - <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

print(*(f"{name} {importlib.metadata.version(name)}" for name in ("pydicom", "numpy")))

VALUES = [0, 1, 256, 65280]


def dataset_in(syntax):
    """An empty data set that is saved in a transfer syntax."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    return dataset


def copied(kind):
    """The table of a big-endian file after its sequence was copied into a little-endian one."""
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [len(VALUES), 0, 16])
    table.add_new("LUTData", kind, VALUES if kind == "US" else np.array(VALUES, ">u2").tobytes())
    image = dataset_in(ExplicitVRBigEndian)
    image.VOILUTSequence = [table]
    image.save_as("image.dcm", enforce_file_format=True)
    state = dataset_in(ExplicitVRLittleEndian)
    state.VOILUTSequence = pydicom.dcmread("image.dcm").VOILUTSequence
    state.save_as("state.dcm", enforce_file_format=True)
    data = pydicom.dcmread("state.dcm").VOILUTSequence[0].LUTData
    return np.frombuffer(data, "<u2").tolist() if isinstance(data, bytes) else list(data)


seen = {kind: copied(kind) for kind in ("US", "OW")}
print(seen)
sys.exit(seen != {"US": VALUES, "OW": [0, 256, 1, 255]})
PYTHON
