# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""One image through every encoding: the same grey levels, and the same findings, by the arithmetic of each standard.

The image is a phantom that holds both ends of its range, so that nothing has to be known of it to scale it. Each
encoding gives its bytes and how many grey levels of 255 it may be off by: 0.51 for 8 bits, 0.04 for 12, where the
coding loses nothing.
"""

import importlib.util
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarity_hf import ChestXrayLocalizationPipeline, ClarityImageProcessor
from clarity_hf.image_reading import read_image
from clarity_hf.phantoms import draw_phantom

pydicom = pytest.importorskip("pydicom", minversion="3.0")
tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")
imageio = pytest.importorskip("imageio.v3")

from pydicom import uid  # noqa: E402
from pydicom.encaps import encapsulate, get_frame  # noqa: E402

_spec = importlib.util.spec_from_file_location("gdcm_files", Path(__file__).with_name("gdcm_files.py"))
_gdcm_files = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_gdcm_files)
transcoded = _gdcm_files.transcoded

SIZE = (128, 112)
TOLERANCE = {8: 0.51, 10: 0.13, 12: 0.04, 14: 0.01, 16: 0.01}


def drawn():
    """`(128, 112)` float64 in [0, 1], both reached, bones bright."""
    image = draw_phantom(3, size=SIZE).image.astype(np.float64)
    return (image - image.min()) / np.ptp(image)


def levels(bits):
    return np.rint(drawn() * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def hot(values, value):
    """One stray pixel, in the corner that the comparison leaves out."""
    values = values.copy()
    values[0, 0] = value
    return values


def by_pillow(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_tifffile(values, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, metadata=None, **{"photometric": "minisblack"} | options)
    return buffer.getvalue()


def by_imagecodecs(values):
    """A PNG of 16 bits and of 2 to 4 channels `(H, W, C)`, which Pillow does not write."""
    return imagecodecs.png_encode(values)


def dicom(values, bits, syntax=uid.ExplicitVRLittleEndian, compress=None, **elements):
    """A chest image with nothing to apply but `elements`."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.Modality, dataset.ViewPosition, dataset.BodyPartExamined = "CR", "PA", "CHEST"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * values.itemsize, bits, bits - 1
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset.PixelData = values.astype(values.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if compress is not None:
        dataset.compress(compress, generate_instance_uid=False)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def by_dcmtk(program, *options, **elements):
    def write(folder):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
        (folder / "plain.dcm").write_bytes(dicom(levels(12), 12, **elements))
        subprocess.run([program, *options, folder / "plain.dcm", folder / "image.dcm"], check=True)
        return (folder / "image.dcm").read_bytes()

    return write


def by_gdcm(syntax, bits):
    def write(folder):
        (folder / "plain.dcm").write_bytes(dicom(levels(bits), bits))
        return transcoded(folder / "plain.dcm", folder / "image.dcm", syntax).read_bytes()

    return write


def lut(entries, first, bits):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries).astype("<u2").tobytes())
    return pydicom.Sequence([item])


def windowed(function):
    """12 bits of which the image fills 1000 to 3000, and a window there (PS3.3 C.11.2.1)."""
    values = np.rint(1000 + drawn() * 2000).astype(np.uint16)
    centre, width = (2000.5, 2001) if function == "LINEAR" else (2000, 2000)
    return dicom(values, 12, WindowCenter=centre, WindowWidth=width, VOILUTFunction=function)


def sigmoid():
    """Stored so that the sigmoid of PS3.3 C.11.2.1.3.1, 1 / (1 + exp(−4 (x − c) / w)), gives the image."""
    shares = drawn().clip(0.002, 0.998)
    values = np.rint(32_768 + 4000 / 4 * np.log(shares / (1 - shares)) * 4).astype(np.uint16)
    return dicom(values, 16, WindowCenter=32_768, WindowWidth=16_000, VOILUTFunction="SIGMOID")


def filled():
    """JPEG lossless with fill bytes before its markers (T.81 B.1.1.2)."""

    def write(folder):
        dataset = pydicom.dcmread(io.BytesIO(by_gdcm("JPEGLosslessProcess14_1", 12)(folder)))
        stream = get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")
        stream = stream[:-2] + b"\xff" * (3 - len(stream) % 2) + stream[-2:]
        dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()

    return write


def jpeg_dicom():
    dataset = pydicom.dcmread(io.BytesIO(dicom(levels(8), 8)))
    dataset.PixelData = encapsulate([by_pillow(Image.fromarray(levels(8)), "JPEG", quality=100)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def channels(values, *, opaque=False, count=3):
    stack = np.stack([values] * count, axis=-1)
    if opaque:
        stack[..., -1] = np.iinfo(values.dtype).max
    return stack


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags


def unit(dtype=np.float32):
    return drawn().astype(dtype)


def signed(bits):
    return (levels(bits).astype(np.int32) - 2 ** (bits - 1)).astype(np.int16)


ENCODINGS = {
    # Files of 8 bits
    "png": (8, lambda: by_pillow(Image.fromarray(levels(8)), "PNG")),
    "png rgb": (8, lambda: by_pillow(Image.fromarray(channels(levels(8))), "PNG")),
    "png rgba": (8, lambda: by_pillow(Image.fromarray(channels(levels(8), count=4, opaque=True)), "PNG")),
    "png la": (8, lambda: by_pillow(Image.fromarray(levels(8)).convert("LA"), "PNG")),
    "png palette": (8, lambda: by_pillow(Image.fromarray(levels(8)).convert("P"), "PNG")),
    "png exif": (8, lambda: by_pillow(Image.fromarray(np.rot90(levels(8))), "PNG", exif=exif(6))),
    "png imageio": (8, lambda: imageio.imwrite("<bytes>", levels(8), extension=".png")),
    "bmp": (8, lambda: by_pillow(Image.fromarray(levels(8)), "BMP")),
    "jpeg": (3, lambda: by_pillow(Image.fromarray(levels(8)), "JPEG", quality=100)),
    "jpeg progressive": (3, lambda: by_pillow(Image.fromarray(levels(8)), "JPEG", quality=100, progressive=True)),
    "jpeg cmyk": (6, lambda: by_pillow(Image.fromarray(levels(8)).convert("CMYK"), "JPEG", quality=100)),
    "tiff": (8, lambda: by_pillow(Image.fromarray(levels(8)), "TIFF")),
    "tiff lzw": (8, lambda: by_pillow(Image.fromarray(levels(8)), "TIFF", compression="tiff_lzw")),
    "tiff white": (8, lambda: by_tifffile(255 - levels(8), photometric="miniswhite")),
    "tiff white tiled lzw": (
        8,
        lambda: by_tifffile(255 - levels(8), photometric="miniswhite", tile=(32, 32), compression="lzw"),
    ),
    "tiff rgb planar": (
        8,
        lambda: by_tifffile(np.stack([levels(8)] * 3), photometric="rgb", planarconfig="separate"),
    ),
    # Deep files
    "png 16": (16, lambda: by_pillow(Image.fromarray(levels(16)), "PNG")),
    "png 12 in 16": (12, lambda: by_pillow(Image.fromarray(levels(12)), "PNG")),
    "png 10 in 16": (10, lambda: by_pillow(Image.fromarray(levels(10)), "PNG")),
    "png 8 in 16": (8, lambda: by_pillow(Image.fromarray(levels(8).astype(np.uint16)), "PNG")),
    "png 12 in 16, hot": (12, lambda: by_pillow(Image.fromarray(hot(levels(12), 65_535)), "PNG")),
    "png 12 in 16 imageio": (12, lambda: imageio.imwrite("<bytes>", levels(12), extension=".png")),
    "png rgb 16": (16, lambda: by_imagecodecs(channels(levels(16)))),
    "png rgb 12 in 16": (12, lambda: by_imagecodecs(channels(levels(12)))),
    "png rgba 12 in 16": (12, lambda: by_imagecodecs(channels(levels(12), count=4, opaque=True))),
    "png la 12 in 16": (12, lambda: by_imagecodecs(channels(levels(12), count=2, opaque=True))),
    "tiff 16": (16, lambda: by_pillow(Image.fromarray(levels(16)), "TIFF")),
    "tiff 16 big-endian": (16, lambda: by_tifffile(levels(16), byteorder=">")),
    "tiff 16 white": (16, lambda: by_tifffile(65_535 - levels(16), photometric="miniswhite")),
    "tiff 16 white big-endian": (
        16,
        lambda: by_tifffile(65_535 - levels(16), photometric="miniswhite", byteorder=">"),
    ),
    "tiff 12 in 16 white": (12, lambda: by_tifffile(4095 - levels(12), photometric="miniswhite")),
    "tiff 12 packed": (12, lambda: by_tifffile(levels(12), bitspersample=12)),
    "tiff 12 packed white": (12, lambda: by_tifffile(4095 - levels(12), bitspersample=12, photometric="miniswhite")),
    "tiff 16 tiled deflate": (16, lambda: by_tifffile(levels(16), tile=(32, 32), compression="zlib", predictor=True)),
    "tiff rgb 12 in 16": (12, lambda: by_tifffile(channels(levels(12)), photometric="rgb")),
    "tiff rgb 16 planar lzw": (
        16,
        lambda: by_tifffile(np.stack([levels(16)] * 3), photometric="rgb", planarconfig="separate", compression="lzw"),
    ),
    "tiff imageio 16": (16, lambda: imageio.imwrite("<bytes>", levels(16), extension=".tif")),
    "tiff 32 unsigned": (16, lambda: by_tifffile(levels(16).astype(np.uint32))),
    "tiff 32 signed": (16, lambda: by_tifffile(levels(16).astype(np.int32))),
    "tiff float": (16, lambda: by_tifffile(unit())),
    "tiff float 255": (16, lambda: by_tifffile(unit() * 255)),
    "tiff double": (16, lambda: by_tifffile(unit(np.float64))),
    "tiff bigtiff": (16, lambda: by_tifffile(levels(16), bigtiff=True)),
    # Arrays, tensors and images
    "array 8": (8, lambda: levels(8)),
    "array 16": (16, lambda: levels(16)),
    "array 12 in int32, hot": (12, lambda: hot(levels(12).astype(np.int32), 2**31 - 1)),
    "array 12 in int16, dead": (12, lambda: hot(levels(12).astype(np.int16), -32_768)),
    "array uint32": (12, lambda: levels(12).astype(np.uint32)),
    "array unit": (16, lambda: unit()),
    "array unit, hot": (16, lambda: hot(unit(), 1.0001)),
    "array unit, far": (16, lambda: hot(unit(), 1000)),
    "array unit, below": (16, lambda: hot(unit(np.float64), -0.3)),
    "array half": (10, lambda: unit(np.float16)),
    "array 255": (16, lambda: unit() * 255),
    "array 255, hot": (16, lambda: hot(unit() * 255, 260)),
    "array rgb": (8, lambda: channels(levels(8))),
    "array rgb first": (12, lambda: np.moveaxis(channels(levels(12)), -1, 0)),
    "tensor": (16, lambda: torch.from_numpy(unit())[None]),
    "tensor 16": (16, lambda: torch.from_numpy(levels(16))),
    "tensor bfloat16": (1, lambda: torch.from_numpy(unit()).to(torch.bfloat16)),
    "image I;16": (12, lambda: Image.fromarray(levels(12))),
    "image F": (16, lambda: Image.fromarray(unit())),
    # DICOM
    "dicom 8": (8, lambda: dicom(levels(8), 8)),
    "dicom 10": (10, lambda: dicom(levels(10), 10)),
    "dicom 12": (12, lambda: dicom(levels(12), 12)),
    "dicom 14": (14, lambda: dicom(levels(14), 14)),
    "dicom 16": (16, lambda: dicom(levels(16), 16)),
    "dicom 12 in 16": (12, lambda: dicom(levels(12), 16)),
    "dicom 12 in 16, hot": (12, lambda: dicom(hot(levels(12), 65_535), 16)),
    "dicom 16, dead": (12, lambda: dicom(hot(levels(12) + np.uint16(9000), 0), 16)),
    "dicom padded": (12, lambda: dicom(hot(levels(12), 40_000), 16, PixelPaddingValue=40_000)),
    "dicom signed": (12, lambda: dicom(signed(12), 12)),
    "dicom signed, hot": (12, lambda: dicom(hot(signed(12), 32_767), 16)),
    "dicom rescaled": (12, lambda: dicom(levels(12), 12, RescaleSlope=2, RescaleIntercept=-1024)),
    "dicom negative slope": (12, lambda: dicom(4095 - levels(12), 12, RescaleSlope=-1, RescaleIntercept=0)),
    "dicom implicit": (12, lambda: dicom(levels(12), 12, syntax=uid.ImplicitVRLittleEndian)),
    "dicom big-endian": (12, lambda: dicom(levels(12), 12, syntax=uid.ExplicitVRBigEndian)),
    "dicom monochrome1": (12, lambda: dicom(4095 - levels(12), 12, PhotometricInterpretation="MONOCHROME1")),
    "dicom inverse": (12, lambda: dicom(4095 - levels(12), 12, PresentationLUTShape="INVERSE")),
    "dicom linear": (0.07, lambda: windowed("LINEAR")),
    "dicom linear exact": (0.07, lambda: windowed("LINEAR_EXACT")),
    "dicom narrow": (
        12,
        lambda: dicom(
            levels(12),
            12,
            RescaleSlope="0.0001",
            RescaleIntercept=0,
            WindowCenter="0.20475",
            WindowWidth="0.4095",
            VOILUTFunction="LINEAR_EXACT",
        ),
    ),
    "dicom sigmoid": (0.6, sigmoid),
    "dicom voi table": (12, lambda: dicom(4095 - levels(12), 12, VOILUTSequence=lut(np.arange(4096)[::-1], 0, 12))),
    "dicom voi table 16": (
        12,
        lambda: dicom(levels(12), 12, VOILUTSequence=lut(np.linspace(0, 65_535, 4096).round(), 0, 16)),
    ),
    "dicom modality table": (
        12,
        lambda: dicom(4095 - levels(12), 12, ModalityLUTSequence=lut(np.arange(4096)[::-1], 0, 12)),
    ),
    "dicom high bit": (12, lambda: dicom(levels(12) << 4, 12, HighBit=15)),
    "dicom oriented": (12, lambda: dicom(levels(12), 12, PatientOrientation=["L", "F"])),
    "dicom without preamble": (12, lambda: dicom(levels(12), 12)[132:]),
    "dicom rle": (12, lambda: dicom(levels(12), 12, compress=uid.RLELossless)),
    "dicom jpeg-ls": (12, lambda: dicom(levels(12), 12, compress=uid.JPEGLSLossless)),
    "dicom jpeg 2000": (12, lambda: dicom(levels(12), 12, compress=uid.JPEG2000Lossless)),
    "dicom jpeg 2000 signed": (12, lambda: dicom(signed(12), 12, compress=uid.JPEG2000Lossless)),
    "dicom jpeg": (3, jpeg_dicom),
    "dicom rle dcmtk": (12, by_dcmtk("dcmcrle")),
    "dicom jpeg-ls dcmtk": (12, by_dcmtk("dcmcjpls", "+el")),
    "dicom jpeg lossless dcmtk": (12, by_dcmtk("dcmcjpeg", "+e1")),
    "dicom jpeg lossless 14 dcmtk": (12, by_dcmtk("dcmcjpeg", "+el")),
    "dicom jpeg lossless gdcm": (12, by_gdcm("JPEGLosslessProcess14_1", 12)),
    "dicom jpeg lossless gdcm 16": (16, by_gdcm("JPEGLosslessProcess14_1", 16)),
    "dicom rle gdcm": (12, by_gdcm("RLELossless", 12)),
    "dicom jpeg 2000 gdcm": (12, by_gdcm("JPEG2000Lossless", 12)),
    "dicom jpeg lossless filled": (12, filled()),
}
"""By name: bits, or how many grey levels a lossy one may be off by, and what makes the source, some in a folder."""


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization

    torch.manual_seed(0)
    config = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96}
    config |= {"image_size": 64, "class_attention_layers": 2, "cam_size": 16, "cam_groups": 4}
    model = ClarityForMultiLabelLocalization(ClarityConfig(**config)).eval()
    return ChestXrayLocalizationPipeline(
        model=model, image_processor=ClarityImageProcessor(size={"height": 64, "width": 64}), radiograph_check="refuse"
    )


@pytest.fixture(scope="module")
def packaged():
    from transformers import pipeline

    return pipeline("chest-xray-localization")


def tolerance(grade):
    return TOLERANCE.get(grade, grade)


def made(name, folder):
    make = ENCODINGS[name][1]
    return make(folder) if make.__code__.co_varnames[: make.__code__.co_argcount] == ("folder",) else make()


def test_there_are_many_encodings():
    assert len(ENCODINGS) >= 100


@pytest.mark.parametrize("name", ENCODINGS)
def test_an_encoding_gives_the_same_grey_levels_and_findings(name, tmp_path, localizer):
    off = tolerance(ENCODINGS[name][0])
    source = made(name, tmp_path)
    if isinstance(source, bytes):
        (tmp_path / "any").write_bytes(source)
        source = tmp_path / "any"
    read, truth = read_image(source), 255 * drawn()
    assert read.shape == SIZE
    assert np.delete(np.abs(read - truth), 0).max() <= off  # but for the stray pixel
    expected = {one["label"]: one for one in localizer(truth.astype(np.float32), return_maps=True)}
    largest = max(one["map"].max() for one in expected.values())
    for found in localizer(source, return_maps=True):
        assert found["score"] == pytest.approx(expected[found["label"]]["score"], abs=1e-3)
        assert np.abs(found["map"] - expected[found["label"]]["map"]).max() <= 0.05 * largest


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODINGS)
def test_the_packaged_checkpoint_gives_every_encoding_the_same_boxes(name, tmp_path, packaged):
    expected = {one["label"]: one for one in packaged((255 * drawn()).astype(np.float32))}
    source = made(name, tmp_path)
    if isinstance(source, bytes):
        (tmp_path / "any").write_bytes(source)
        source = tmp_path / "any"
    assert any(one["boxes"] for one in expected.values())
    for found in packaged(source):
        other = expected[found["label"]]
        assert found["score"] == pytest.approx(other["score"], abs=0.02)
        for box, same in zip(found["boxes"], other["boxes"], strict=True):
            assert all(abs(box[edge] - same[edge]) <= (2 if tolerance(ENCODINGS[name][0]) < 1 else 16) for edge in box)
