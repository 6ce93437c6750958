# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The runner repeats the package's reading, preprocessing and boxes: each is held to the original."""

import io
import json
import re
import struct
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from clarity_hf import ClarityImageProcessor, grey_levels, image_reading
from clarity_hf.boxes import Letterbox, boxes_from_map, divided_map
from clarity_hf.export import onnx_runner
from clarity_hf.image_reading import read_image

SIZES = [(64, 64), (120, 90), (97, 301), (33, 20), (64, 31), (513, 640), (40, 64)]
"""Larger, smaller, equal to the input's 64 × 64 along one axis, of odd and even sides."""


def settings(**changed):
    """A `clarity.json` for two findings at 64 × 64."""
    return {
        "format": "onnx",
        "format_version": onnx_runner.FORMAT_VERSION,
        "model": "model.onnx",
        "findings": ["Mass", "Nodule"],
        "score_thresholds": [0.5, 0.2],
        "map_thresholds": [0.5, 0.5],
        "box_components": "all",
        "box_upsampling": 8,
        "box_valleys": [0.8, 0.0],
        "size": {"height": 64, "width": 64},
        "keep_ratio": True,
        "resample": "bilinear",
        "rescale_factor": 1 / 255,
        "mean": [0.5056] * 3,
        "std": [0.252] * 3,
    } | changed


def noise(size, dtype=np.uint8, high=255):
    drawn = np.random.default_rng(sum(size)).uniform(0, high, size)
    return drawn.astype(np.float32) if np.dtype(dtype).kind == "f" else drawn.round().astype(dtype)


# Reading


def images():
    """Images of every kind that Pillow writes and the package reads, by name."""
    grey, image = Image.fromarray(noise((24, 20))), noise((24, 20), np.uint16, 4095)
    colour = Image.fromarray(noise((24, 20, 3)))
    alpha = colour.copy()
    alpha.putalpha(grey)
    palette = grey.quantize(16)
    return {
        "grey.png": grey,
        "grey.jpg": grey,
        "grey.bmp": grey,
        "colour.jpg": colour,
        "colour.png": colour,
        "alpha.png": alpha,
        "grey-alpha.png": alpha.convert("LA"),
        "palette.png": palette,
        "bits.png": Image.fromarray(noise((24, 20)) > 127),
        "cmyk.tif": colour.convert("CMYK"),
        "16-bit.png": Image.fromarray(noise((24, 20), np.uint16, 65535)),
        "12-bit.tif": Image.fromarray(noise((24, 20), np.uint16, 4095)),
        "8-bit-in-16.png": Image.fromarray(noise((24, 20), np.uint16, 255)),
        "float.tif": Image.fromarray(noise((24, 20), np.float32, 1)),
        "float-255.tif": Image.fromarray(noise((24, 20), np.float32, 255)),
        "32-bit.tif": Image.fromarray(noise((24, 20), np.int32, 1023)),
        "hot.png": Image.fromarray(np.where(np.arange(480).reshape(24, 20) == 9, 65535, image).astype(np.uint16)),
        "dead.tif": Image.fromarray(np.where(np.arange(480).reshape(24, 20) == 9, -9, image).astype(np.int32)),
        "overshot.tif": Image.fromarray(noise((24, 20), np.float32, 1.05) - np.float32(0.02)),
    }


@pytest.mark.parametrize("name", list(images()))
def test_images_are_read_as_the_package_reads_them(name, tmp_path):
    images()[name].save(tmp_path / name)
    ours, theirs = onnx_runner.read_radiograph(tmp_path / name), read_image(tmp_path / name)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_transparent_palettes_and_rotated_images_are_read_as_the_package_reads_them(tmp_path):
    Image.fromarray(noise((24, 20))).quantize(8).save(tmp_path / "palette.png", transparency=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    Image.fromarray(noise((24, 20))).save(tmp_path / "rotated.jpg", exif=exif)
    for name in ("palette.png", "rotated.jpg"):
        np.testing.assert_array_equal(onnx_runner.read_radiograph(tmp_path / name), read_image(tmp_path / name))
    assert onnx_runner.read_radiograph(tmp_path / "rotated.jpg").shape == (20, 24)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("white", [False, True])
def test_tiffs_of_any_polarity_are_read_as_the_package_reads_them_or_refused(order, bits, white, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    image = noise((24, 20), np.uint8 if bits == 8 else np.uint16, 2**bits - 1)
    options = {"bitspersample": 12} if bits == 12 else {}
    photometric = "miniswhite" if white else "minisblack"
    tifffile.imwrite(tmp_path / "image.tif", image, byteorder=order, photometric=photometric, metadata=None, **options)
    try:
        ours = onnx_runner.read_radiograph(tmp_path / "image.tif")
    except ValueError as error:
        assert (order, bits, white) in {(">", 12, False), ("<", 12, True), (">", 12, True), (">", 16, True)}
        assert "Export it as a 16-bit PNG" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(ours, read_image(tmp_path / "image.tif"))


def test_colour_of_16_bits_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "image.tif", noise((24, 20, 3), np.uint16, 65535), photometric="rgb", metadata=None)
    with pytest.raises(ValueError, match="Convert it to 16-bit grey"):
        onnx_runner.read_radiograph(tmp_path / "image.tif")


def refusals(folder):
    """Files that are no image, by name."""
    grey = Image.fromarray(noise((24, 20)))
    grey.save(folder / "two.tif", save_all=True, append_images=[grey])
    grey.save(folder / "image.gif")
    Image.fromarray(noise((8, 20))).save(folder / "small.png")
    Image.new("L", (20, 24), 7).save(folder / "flat.png")
    Image.new("LAB", (20, 24)).save(folder / "lab.tif")
    Image.fromarray(noise((24, 20), np.int32, 70000)).save(folder / "deep.tif")
    Image.fromarray(noise((24, 20), np.float32, 900)).save(folder / "float.tif")
    Image.fromarray(np.full((24, 20), np.nan, np.float32)).save(folder / "nan.tif")
    grey.save(folder / "torn.png")
    (folder / "torn.png").write_bytes((folder / "torn.png").read_bytes()[:200])
    (folder / "image.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (folder / "empty.png").write_bytes(b"")
    return ["two.tif", "image.gif", "small.png", "flat.png", "lab.tif", "deep.tif", "float.tif", "nan.tif", "torn.png"]


@pytest.mark.filterwarnings("ignore:.*corrupt:UserWarning")
def test_what_is_no_image_is_refused_with_the_reason(tmp_path):
    for name in [*refusals(tmp_path), "image.dcm", "empty.png", "."]:
        with pytest.raises(ValueError, match=r"(?s)^`image` must .+, got .+\. [A-Z].+\.$"):
            onnx_runner.read_radiograph(tmp_path / name)
        if name != "image.dcm":
            with pytest.raises(ValueError, match="must"):
                read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"^`image` must be a file, got nothing at .+\. Check the path\.$"):
        onnx_runner.read_radiograph(tmp_path / "none.png")


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.fromarray(noise((24, 20))).save(tmp_path / "image.png")
    monkeypatch.setattr(onnx_runner, "MAX_PIXELS", 479)
    with pytest.raises(ValueError, match="at most 479 pixels, got 20×24"):
        onnx_runner.read_radiograph(tmp_path / "image.png")


def test_limits_are_the_packages():
    limits = [name for name in dir(image_reading) if name.startswith(("MAX_", "MIN_"))]
    assert len(limits) == 6
    for name in (*limits, "BIT_DEPTHS", "FORMATS", "FLOAT_OVERSHOOT"):
        assert getattr(onnx_runner, name) == getattr(image_reading, name)
    for name in ("STRAY_SHARE", "FEW_SHARE", "FEW", "FEW_GAP", "SHARE_GAP", "FAR"):
        assert getattr(onnx_runner, name) == getattr(grey_levels, name)


def test_a_chain_of_directories_takes_no_time(tmp_path):
    content = bytearray(tiff_of(noise((24, 20))))
    (start,) = struct.unpack("<I", content[4:8])
    (tags,) = struct.unpack("<H", content[start : start + 2])
    first, after = content[start : start + 2 + 12 * tags], start + 2 + 12 * tags
    for _ in range(30_000):
        content[after : after + 4] = struct.pack("<I", len(content))
        after = len(content) + len(first)
        content += first + bytes(4)
    (tmp_path / "chain.tif").write_bytes(content)
    begun = time.perf_counter()
    with pytest.raises(ValueError, match="several frames"):
        onnx_runner.read_radiograph(tmp_path / "chain.tif")
    assert time.perf_counter() - begun < 2


def tiff_of(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    return buffer.getvalue()


def test_scans_tiles_and_bytes_are_bounded_before_decoding(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(noise((24, 20))).save(buffer, "JPEG", progressive=True)
    jpeg = buffer.getvalue()
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    tags = [(256, 32), (257, 40), (258, 8), (259, 5), (262, 1), (277, 1)]
    tags += [(322, 40_000), (323, 40_000), (324, 8), (325, 9)]
    tiles = struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    empty = b"\xff\xe5\0\x02"
    refused = {
        "scans, got more": jpeg[:-2] + 100 * last + jpeg[-2:],
        "segments, got more": jpeg[:2] + 10_001 * empty + jpeg[2:],
        "bytes of padding, got more": jpeg[:2] + 1_000_001 * b"\xff" + jpeg[2:],
        "tiles of at most 64000000 pixels, got 1600000000": b"II*\0" + tiles + bytes(104),
    }
    for reason, content in refused.items():
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(ValueError, match=reason):
            onnx_runner.read_radiograph(tmp_path / "image")
    (tmp_path / "image").write_bytes(jpeg + 200 * last)  # after its end: a phone's video
    np.testing.assert_array_equal(onnx_runner.read_radiograph(tmp_path / "image"), read_image(jpeg))
    monkeypatch.setattr(onnx_runner, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        onnx_runner.read_radiograph(tmp_path / "image")


def test_too_little_memory_is_no_fault_of_the_image(tmp_path, monkeypatch):
    def fail(image):
        raise MemoryError

    Image.fromarray(noise((24, 20))).save(tmp_path / "image.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(MemoryError):
        onnx_runner.read_radiograph(tmp_path / "image.png")


# Preprocessing


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep_ratio", [True, False])
def test_pixel_values_of_8_bit_images_are_the_processors(size, resample, keep_ratio):
    capability = torch.backends.cpu.get_cpu_capability()
    processor = ClarityImageProcessor(
        size={"height": 64, "width": 64}, keep_ratio=keep_ratio, resample=resample, image_std=[0.2, 0.25, 0.3]
    )
    named = settings(keep_ratio=keep_ratio, resample={2: "bilinear", 3: "bicubic"}[resample], std=[0.2, 0.25, 0.3])
    pixels = noise(size)
    expected = processor(pixels, return_tensors="pt").pixel_values.numpy()
    prepared = onnx_runner.prepare(pixels, named)
    assert prepared.dtype == np.float32
    # Without AVX torch resizes in float and rounds once: a grey level, 1 / 255 / 0.2, may then part them.
    tolerance = 1e-5 if capability.startswith("AVX") else 0.02
    np.testing.assert_allclose(prepared, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", SIZES)
def test_pixel_values_of_deep_images_are_the_processors(size, resample):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64}, resample=resample)
    named = settings(resample={2: "bilinear", 3: "bicubic"}[resample])
    pixels = noise(size, np.float32)
    expected = processor(pixels, return_tensors="pt").pixel_values.numpy()
    np.testing.assert_allclose(onnx_runner.prepare(pixels, named), expected, rtol=0, atol=2e-5)


def test_inputs_that_are_not_square_are_the_processors():
    processor = ClarityImageProcessor(size={"height": 32, "width": 96})
    pixels = noise((120, 90), np.float32)
    prepared = onnx_runner.prepare(pixels, settings(size={"height": 32, "width": 96}))
    expected = processor(pixels, return_tensors="pt").pixel_values.numpy()
    np.testing.assert_allclose(prepared, expected, rtol=0, atol=2e-5)


def test_black_is_around_a_portrait_image():
    prepared = onnx_runner.prepare(np.full((128, 64), 255, np.uint8), settings(mean=[0.0], std=[1.0]))
    np.testing.assert_allclose(prepared[0, 0, :, 16:48], 1, atol=1e-6)
    assert prepared[0, 0, :, :16].max() == prepared[0, 0, :, 48:].max() == 0


# Boxes


@pytest.mark.parametrize("valley", [0, 0.8, 1])
@pytest.mark.parametrize("components", ["largest", "all"])
@pytest.mark.parametrize("keep_ratio", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_the_packages(size, components, keep_ratio, valley):
    named = settings(box_components=components, keep_ratio=keep_ratio, box_upsampling=5)
    letterbox = Letterbox.fit(size, (64, 64), keep_ratio)
    generator = np.random.default_rng(3)
    for threshold in (0.3, 0.6, 0.8):
        localization_map = (generator.random((6, 6)) ** 2).astype(np.float32)
        expected = boxes_from_map(localization_map, letterbox, threshold, components, 5, valley)
        np.testing.assert_allclose(
            onnx_runner.boxes_of(localization_map, size, threshold, valley, named), expected, rtol=0, atol=1e-9
        )
        assert len(expected)


@pytest.mark.parametrize("valley", [0.7, 0.9, 1])
def test_maps_are_divided_as_the_package_divides_them(valley):
    generator, parts = np.random.default_rng(5), 0
    for _ in range(100):
        grid = generator.random((9, 12)).astype(np.float32)
        expected = divided_map(grid, 0.2, valley)
        np.testing.assert_array_equal(onnx_runner._divided(grid, 0.2, valley), expected)
        parts += len(np.unique(expected)) - 1
    assert parts > 10


def test_regions_that_touch_at_a_corner_are_one():
    values = np.array([[1, 0, 0, 5], [0, 1, 0, 0], [1, 0, 0, 0]], dtype=np.float32)
    assert onnx_runner._regions(values, 0.5, np.zeros(values.shape, int)) == [(3, 0, 4, 1), (0, 0, 2, 3)]


def test_a_region_that_meets_itself_below_is_one():
    rows = ("#.#.#", "#.#.#", "##.##", "..#..")
    values = np.array([[cell == "#" for cell in row] for row in rows], dtype=np.float32)
    assert onnx_runner._regions(values, 0.5, np.zeros(values.shape, int)) == [(0, 0, 5, 4)]


def test_a_map_of_zeros_has_no_box():
    assert onnx_runner.boxes_of(np.zeros((4, 4), np.float32), (64, 64), 0.5, 0.8, settings()).shape == (0, 4)


# Results


def test_findings_without_boxes_are_present_and_have_none():
    maps = np.random.default_rng(0).random((2, 4, 4)).astype(np.float32)
    found = onnx_runner.findings_of(np.float32([0.9, 0.8]), maps, (64, 64), settings(boxless_findings=["Mass"]))
    assert [(one["label"], one["present"], bool(one["boxes"])) for one in found] == [
        ("Mass", True, False),
        ("Nodule", True, True),
    ]


def test_findings_come_by_score_with_boxes_from_their_threshold_on():
    maps = np.zeros((2, 4, 4), np.float32)
    maps[:, 1, 2] = 1
    found = onnx_runner.findings_of(np.float32([0.4, 0.6]), maps, (128, 128), settings(score_thresholds=[0.5, 0.6]))
    assert [(one["label"], one["present"]) for one in found] == [("Nodule", True), ("Mass", False)]
    assert found[1] == {"label": "Mass", "score": pytest.approx(0.4), "threshold": 0.5, "present": False, "boxes": []}
    (box,) = found[0]["boxes"]
    # Half of the peak lies half a patch, 16 pixels of the image, around the patch's centre (80, 48), to a cell of 4.
    assert box == {"xmin": 64.0, "ymin": 32.0, "xmax": 96.0, "ymax": 64.0}
    json.dumps(found)


@pytest.mark.parametrize(("changed", "got"), [({"format_version": 99}, "version 99"), ({"format": "torch"}, "torch")])
def test_another_export_is_refused(tmp_path, changed, got):
    pytest.importorskip("onnxruntime")
    (tmp_path / "clarity.json").write_text(json.dumps(settings(**changed)))
    with pytest.raises(ValueError, match=rf"`folder` must hold onnx, version 1, got .*{got}"):
        onnx_runner.OnnxRunner(tmp_path)


def test_a_folder_without_an_export_is_refused(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit) as caught:
        onnx_runner.main(["image.png", "--folder", str(tmp_path)])
    assert caught.value.code == 1
    expected = r"error: `folder` must hold clarity\.json, got .+\. Pass the folder of an export\.\n"
    assert re.fullmatch(expected, capsys.readouterr().err)


def test_onnxruntime_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install onnxruntime"):
        onnx_runner.OnnxRunner(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "../model.onnx"}, r"`model` of clarity.json must be an .onnx file beside it, got '../model.onnx'"),
        ({"model": "/etc/passwd"}, "`model` of clarity.json must be an .onnx file beside it"),
        ({"model": "model.pkl"}, "`model` of clarity.json must be an .onnx file beside it"),
        ({"model": ["model.onnx"]}, "`model` of clarity.json must be an .onnx file beside it"),
        ({"size": {"height": 10**6, "width": 64}}, r"`size` of clarity.json must be the model's, \[64, 64\]"),
        ({"box_upsampling": 10**9}, "`box_upsampling` must be between 1 and 64, got 1000000000"),
        ({"box_upsampling": "8"}, "`box_upsampling` must be between 1 and 64, got 8"),
        ({"std": [0.0] * 3}, "`std` of clarity.json must be in .*, got"),
        ({"mean": [float("nan")] * 3}, "`mean` of clarity.json must be in"),
        ({"rescale_factor": 0}, "`rescale_factor` of clarity.json must be in"),
        ({"score_thresholds": [50.0] * 2}, r"`score_thresholds` of clarity.json must be in \[0, 1\], got"),
        ({"score_thresholds": "0.5"}, "`score_thresholds` of clarity.json must be in"),
        ({"map_thresholds": [0.5]}, "`map_thresholds` of clarity.json must be one for each of"),
    ],
)
def test_settings_that_are_not_the_models_are_refused(tmp_path, monkeypatch, changed, message):
    model = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=["batch", 3, 64, 64])])
    runtime = SimpleNamespace(InferenceSession=lambda path, providers: model)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "clarity.json").write_text(json.dumps(settings()))
    onnx_runner.OnnxRunner(tmp_path)
    (tmp_path / "clarity.json").write_text(json.dumps(settings(**changed)))
    with pytest.raises(ValueError, match=message):
        onnx_runner.OnnxRunner(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": "onnx", "format_version": 1}'])
def test_settings_without_what_is_read_of_them_are_refused(tmp_path, content):
    (tmp_path / "clarity.json").write_text(content)
    with pytest.raises(ValueError, match=r"`clarity.json` must have \['box_components'"):
        onnx_runner.OnnxRunner(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("what", ["scores", "maps"])
def test_results_that_are_no_numbers_are_an_error(what, value):
    scores, maps = np.full(2, 0.5, np.float32), np.ones((2, 4, 4), np.float32)
    onnx_runner.findings_of(scores, maps, (64, 64), settings(model="model.onnx"))
    (scores if what == "scores" else maps).reshape(-1)[1] = value
    with pytest.raises(ValueError, match=r"must give finite scores and maps, got others from model\.onnx"):
        onnx_runner.findings_of(scores, maps, (64, 64), settings(model="model.onnx"))
