# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""DICOM files in the transfer syntaxes that GDCM writes."""

import pytest


def transcoded(source, target, syntax):
    """The file `source` in another transfer syntax, by its name in GDCM, written to `target`; returns `target`."""
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target
