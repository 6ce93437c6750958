# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Inputs for the readers: small synthetic seeds of every kind that is read, and mutations that know their structure.

Input i of a seeded run is the same on every machine with the same libraries: `make(reader, seeds, f"{seed}:{i}")`.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import shutil
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

SHAPE = (40, 32)

# Values that lengths, sizes and counts are set to.
NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 127, 128, 255, 256, 1000, 4095, 4096, 32767, 32768, 60000)
NUMBERS += (65535, 65536, 100_000, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)

CELLS = ("", " ", "0", "1", "-1", "2", "nan", "inf")
CELLS += ("1e999", "-0", "1_0", "9" * 400, "9" * 5000, "1.5", "true", "None")
CELLS += ("../x.png", "/etc/passwd", "images/../../x")
CELLS += ("~nobody-here/x", "images/" + "a" * 400, "C:\\x\\y.png", "\\\\a\\b")
CELLS += ("images/0.png", "images/1.png", "00000001_000.png", "Mass", "Masss")
CELLS += ("No Finding", "|", "|||", "Mass|Mass", "a|b")
CELLS += ("train", "val", "test", "holdout", "LL", "\x00", "a\x00b")
CELLS += ('"', '""', '"a', "a\nb", "\r", "\u202e", "\u0661", "²")
CELLS += ("x" * 140_000, "=1+1", "{", "}", "[", "]")
CELLS += (":", "- a", "&a [*a]", "!!python/object:os.system x", "null", "{}")
CELLS += ("path", "patient_id", "labels", "split", "thorax_mask")
CELLS += ("view", "Patient ID", "Finding Labels", "\ufeff", "058Y")


# Seeds


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _drawn() -> np.ndarray:
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    noise = np.random.default_rng(0).integers(0, 40, SHAPE)
    return (3 * y + 2 * x + noise).clip(0, 255).astype(np.uint8)


def image_seeds() -> dict[str, list[bytes]]:
    """Seeds of PNG, JPEG, TIFF and BMP: every mode, compression and extra that is read or refused."""
    grey = Image.fromarray(_drawn())
    deep = Image.fromarray(_drawn().astype(np.uint16) * 200)
    colour = Image.merge("RGB", (grey, grey.rotate(180), grey))
    see = Image.merge("RGBA", (*colour.split(), grey.rotate(180)))
    palette = colour.quantize(16)
    turned = Image.Exif()
    turned[0x0112] = 6
    images = (grey, deep, colour, see, palette, grey.convert("1"), see.convert("LA"))
    png = [_encoded(image, "PNG") for image in images]
    png.append(_encoded(grey, "PNG", exif=turned, dpi=(300, 300)))
    png.append(_encoded(palette, "PNG", transparency=3))
    png.append(_encoded(grey, "PNG", save_all=True, append_images=[grey.rotate(180)]))
    jpeg = [_encoded(image, "JPEG", quality=70) for image in (grey, colour, colour.convert("CMYK"))]
    jpeg.append(_encoded(grey, "JPEG", progressive=True, exif=turned))
    jpeg.append(_encoded(colour, "JPEG", subsampling=2, restart_marker_blocks=2, comment="image"))
    jpeg.append(_encoded(grey, "MPO", save_all=True, append_images=[grey.rotate(180)]))
    floating = Image.fromarray(_drawn().astype(np.float32) / 255)
    wide = Image.fromarray(_drawn().astype(np.int32) * 16)
    tiff = [_encoded(image, "TIFF") for image in (grey, deep, colour, see, palette, grey.convert("1"), floating, wide)]
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        tiff.append(_encoded(grey, "TIFF", compression=compression))
    tiff.append(_encoded(grey.convert("1"), "TIFF", compression="group4"))
    tiff.append(_encoded(deep, "TIFF", compression="tiff_lzw", exif=turned))
    tiff.append(_encoded(grey, "TIFF", big_tiff=True))
    tiff.append(_encoded(grey, "TIFF", save_all=True, append_images=[grey.rotate(180)]))
    bmp = [_encoded(image, "BMP") for image in (grey, colour, palette, grey.convert("1"), see)]
    return {"png": png, "jpeg": jpeg, "tiff": tiff, "bmp": bmp}


def deep_seeds() -> dict[str, list[bytes]]:
    """Seeds of PNG and TIFF that Pillow does not read whole, by the writers tifffile, imageio and imagecodecs."""
    try:
        import imagecodecs
        import imageio.v3 as imageio
        import tifffile
    except ImportError:
        return {"png": [], "tiff": []}
    deep = _drawn().astype(np.uint16) * 200
    colour = np.stack([deep, deep, deep // 2], axis=-1)
    opaque = np.full_like(deep, 65_535)
    png = [imagecodecs.png_encode(np.dstack(channels)) for channels in ([deep, opaque], [colour], [colour, opaque])]
    png.append(imageio.imwrite("<bytes>", deep, extension=".png"))

    def written(pixels: np.ndarray, **options: Any) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, metadata=None, **{"photometric": "minisblack"} | options)
        return buffer.getvalue()

    tiff = [imageio.imwrite("<bytes>", deep, extension=".tif")]
    for order in "<>":
        tiff.append(written(deep, byteorder=order, photometric="miniswhite"))
        tiff.append(written(deep // 16, byteorder=order, bitspersample=12))
        tiff.append(written(colour, byteorder=order, photometric="rgb", compression="lzw"))
    tiff.append(written(np.stack([deep] * 3), photometric="rgb", planarconfig="separate", compression="zlib"))
    tiff.append(written(np.dstack([colour, opaque]), photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16)))
    tiff.append(written(colour, photometric="rgb", compression="packbits", rowsperstrip=3))
    tiff.append(written(deep.astype(np.uint32), compression="zlib", predictor=True))
    tiff.append(written((_drawn() / 255).astype(np.float16)))
    tiff.append(written((_drawn() / 255).astype(np.float64), bigtiff=True))
    return {"png": png, "tiff": tiff}


def pydicom_seeds(largest: int = 300_000) -> list[bytes]:
    """pydicom's own test files, most not of a chest: as they are, and with a header that claims a chest."""
    import pydicom
    import pydicom.data

    seeds = []
    for path in sorted((Path(pydicom.data.__file__).parent / "test_files").rglob("*.dcm")):
        content = path.read_bytes()
        if len(content) > largest:
            continue
        seeds.append(content)
        try:
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
            dataset.Modality, dataset.SOPClassUID = "CR", "1.2.840.10008.5.1.4.1.1.1"
            for keyword in ("BodyPartExamined", "PatientOrientation", "PixelSpacing", "PixelAspectRatio"):
                dataset.pop(keyword, None)
            buffer = io.BytesIO()
            dataset.save_as(buffer)
        except Exception:  # some are broken on purpose
            continue
        seeds.append(buffer.getvalue())
    return seeds


def _dcmtk_seeds() -> list[bytes]:
    """What dcmtk compresses, where it is installed."""
    seeds = []
    for program, option in (("dcmcjpeg", "+e1"), ("dcmcjpeg", "+el"), ("dcmcjpeg", "+eb"), ("dcmcjpls", "+el")):
        for bits in (8, 12):
            seeds += _by_program([program, option], _dicom(bits=bits))
    return seeds + _by_program(["dcmcrle"], _dicom()) + _by_program(["dcmcrle"], _dicom(HighBit=15))


def _by_program(words: list[str], content: bytes) -> list[bytes]:
    """What a program writes of a file, if it is installed and takes it."""
    if shutil.which(words[0]) is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "plain.dcm").write_bytes(content)
        run = subprocess.run([*words, f"{folder}/plain.dcm", f"{folder}/image.dcm"], capture_output=True)
        return [(Path(folder) / "image.dcm").read_bytes()] if run.returncode == 0 else []


def dicom_seeds() -> list[bytes]:
    """Seeds of DICOM: every transfer syntax that can be encoded here, with windows, tables and padding."""
    import pydicom
    from pydicom import uid

    seeds = [_dicom()]
    seeds.append(_dicom(bits=8, PhotometricInterpretation="MONOCHROME1"))
    seeds.append(_dicom(PixelRepresentation=1, RescaleSlope=2, RescaleIntercept=-1024, PixelPaddingValue=0))
    seeds.append(_dicom(WindowCenter=[2000, 1000], WindowWidth=[4000, 300], VOILUTFunction="SIGMOID"))
    voi, modality = ("VOILUTSequence",), ("ModalityLUTSequence",)
    seeds += [_dicom(bits=8, tables=voi), _dicom(bits=8, tables=modality)]
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        seeds.append(_dicom(bits=8, syntax=syntax, tables=voi))
    seeds.append(seeds[0][132:])  # without the preamble
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEG2000):
        for bits in (8, 12):
            if pydicom.pixels.get_encoder(syntax).is_available:
                seeds.append(_dicom(bits=bits, compress=syntax))
    baseline = _encoded(Image.fromarray(_drawn()), "JPEG", quality=80)
    seeds.append(_dicom(bits=8, stream=baseline, stream_syntax=uid.JPEGBaseline8Bit))
    seeds.append(_dicom(bits=8, stream=baseline, stream_syntax=uid.JPEGExtended12Bit))
    seeds.append(_dicom(PatientOrientation=["L", "F"], HighBit=15))
    narrow = {"WindowCenter": "2", "WindowWidth": "0.9", "RescaleSlope": "0.001", "RescaleIntercept": 0}
    seeds.append(_dicom(VOILUTFunction="LINEAR_EXACT", **narrow))
    return seeds + _gdcm_seeds() + _dcmtk_seeds()


def _dicom(
    bits: int = 12,
    syntax: str = "1.2.840.10008.1.2.1",
    tables: tuple[str, ...] = (),
    compress: str | None = None,
    stream: bytes | None = None,
    stream_syntax: str | None = None,
    **elements: Any,
) -> bytes:
    import pydicom
    from pydicom.encaps import encapsulate

    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3.4"
    dataset.Modality, dataset.ViewPosition, dataset.BodyPartExamined = "CR", "PA", "CHEST"
    dataset.PatientName, dataset.PatientID, dataset.PixelSpacing = "Doe^Jane", "4711", [0.2, 0.2]
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *SHAPE, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 if bits == 8 else 16, bits, bits - 1
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399348003", "SCT", "antero-posterior"
    dataset.ViewCodeSequence = pydicom.Sequence([code])
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    for keyword in tables:
        item = pydicom.Dataset()
        item.add_new("LUTDescriptor", "US", [256, 0, 12])
        item.add_new("LUTData", "US", list(range(0, 4096, 16)))
        setattr(dataset, keyword, pydicom.Sequence([item]))
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    stored = _drawn() if bits == 8 else (_drawn().astype(np.uint16) * 16).astype(f"{order}u2")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    if compress is not None:
        # A ratio of 1 is what pydicom takes for lossy JPEG 2000 of any size.
        options = {"j2k_cr": [1]} if compress == "1.2.840.10008.1.2.4.91" else {}
        dataset.compress(compress, generate_instance_uid=False, **options)
    if stream is not None:
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = stream_syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _gdcm_seeds() -> list[bytes]:
    """What GDCM compresses, which it writes only to a file."""
    try:
        import gdcm
    except ImportError:
        return []
    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for bits, syntax in itertools.product((8, 12), ("JPEGLosslessProcess14_1", "RLELossless", "JPEG2000Lossless")):
            (Path(folder) / "plain.dcm").write_bytes(_dicom(bits=bits))
            reader = gdcm.ImageReader()
            reader.SetFileName(f"{folder}/plain.dcm")
            reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
            change.SetInput(reader.GetImage())
            change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFileName(f"{folder}/lossless.dcm")
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            writer.Write()
            seeds.append((Path(folder) / "lossless.dcm").read_bytes())
    return seeds


def table_seeds() -> dict[str, list[bytes]]:
    """Seeds of own tables and of the four files of a release."""
    columns = "path,patient_id,split,view,Effusion,Rib_Fracture,thorax_mask\n"
    rows = "images/0.png,p0,train,PA,1,0,images/1.png\nimages/1.png,p1,test,AP,-1,,\nimages/2.png,p2,val,LL,0,1,\n"
    named = "Image Index,Patient ID,Finding Labels\nimages/0.png,1,Effusion|Mass\nimages/1.png,2,No Finding\n"
    semicolons = columns.replace(",", ";") + rows.replace(",", ";")
    quoted = 'path,labels\n"images/0.png","Mass|a ""b"""\n"images/1.png","Nodule"\n'
    csv = [text.encode() for text in (columns + rows, named, "\ufeff" + semicolons, quoted)]
    values = {
        "path": ["images/0.png", "images/1.png", "images/2.png"],
        "patient_id": [1, 2, 3],
        "Effusion": [1.0, None, -1.0],
        "Mass": [True, False, None],
        "embedding": [[1.0], [], None],
        "when": pyarrow.array([0, 1, None], pyarrow.timestamp("s")),
        "kind": pyarrow.array(["a", "b", "a"]).dictionary_encode(),
    }
    parquet = []
    for compression in ("none", "snappy", "zstd", "gzip"):
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(values), buffer, compression=compression)
        parquet.append(buffer.getvalue())
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,\n"
    entries = "00000001_000.png,Mass|Nodule,0,1,058Y,M,PA,\n00000002_000.png,No Finding,1,2,61,F,AP,\n"
    boxes = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,10,20.5,300,400,,,\n"
    return {
        "csv": csv,
        "tsv": [(columns + rows).replace(",", "\t").encode()],
        "parquet": parquet,
        "nih-table": [(header + entries).encode()],
        "nih-list": [b"00000002_000.png\n00000003_000.png\n"],
        "nih-boxes": [boxes.encode()],
    }


def setting_seeds() -> dict[str, list[bytes]]:
    """Seeds of a training's YAML and of the JSON files beside weights."""
    config = {"model_type": "clarity", "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    config |= {"class_attention_layers": 2, "cam_size": 16, "cam_groups": 4, "intermediate_size": 96}
    config |= {"image_size": 64, "patch_size": 16, "id2label": {"0": "Mass", "1": "Nodule"}}
    processor = {"image_processor_type": "ClarityImageProcessor", "size": {"height": 64, "width": 64}}
    processor |= {"image_mean": [0.5], "image_std": [0.25], "do_resize": True, "keep_ratio": True}
    stage = "data_dir: phantom\nepochs: 2\nlearning_rate: 1.0e-3\nfindings: [Mass]\nconfig: {hidden_size: 48}\n"
    return {
        "yaml": [stage.encode()],
        "config": [json.dumps(config).encode()],
        "processor": [json.dumps(processor).encode()],
    }


def all_seeds() -> dict[str, list[bytes]]:
    """Seeds by reader."""
    images, deep = image_seeds(), deep_seeds()
    grey = [content for contents in images.values() for content in contents]
    radiographs = images | {kind: images[kind] + deep[kind] for kind in deep}
    radiographs |= {"dicom": dicom_seeds() + pydicom_seeds(), "mask": grey, "open_image": grey}
    return radiographs | table_seeds() | setting_seeds()


def folder_seeds(folder: Path, largest: int = 4_000_000) -> dict[str, list[bytes]]:
    """Files of a folder as seeds, by the reader of their kind; those of more than `largest` bytes are left out."""
    readers = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp"}
    readers |= {".dcm": "dicom", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
    seeds: dict[str, list[bytes]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size <= largest):
        if file.suffix.lower() in readers:
            seeds.setdefault(readers[file.suffix.lower()], []).append(file.read_bytes())
    return seeds


# Mutations


def make(reader: str, seeds: list[bytes], seed: str) -> bytes:
    """One mutated input: a few mutations of a seed, among them those of its structure."""
    rng = random.Random(f"{reader}:{seed}")
    content = rng.choice(seeds)
    structured = next((change for start, change in STRUCTURES if start(content)), None)
    if reader in TEXT:
        structured = _change_text
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        if structured is not None and rng.random() < (0.8 if reader in TEXT else 0.5):
            content = structured(content, rng)
        else:
            content = _change_bytes(content, rng, seeds)
    return content


TEXT = ("csv", "tsv", "nih-table", "nih-list", "nih-boxes", "yaml", "config", "processor")


def _place(content: bytes, rng: random.Random) -> int:
    """Where to change: half of the time in the head, where the lengths are."""
    return rng.randrange(min(len(content), 600) if rng.random() < 0.5 else len(content)) if content else 0


def _change_bytes(content: bytes, rng: random.Random, seeds: list[bytes]) -> bytes:
    changed, place = bytearray(content), _place(content, rng)
    length = rng.choice((1, 2, 4, 8, 16, 64, 300))
    what = rng.randrange(9) if content else 6
    if what == 0:
        changed[place] ^= 1 << rng.randrange(8)
    elif what == 1:
        changed[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
    elif what == 2:
        run = rng.choice((b"\x00" * length, b"\xff" * length, rng.randbytes(length)))
        changed[place : place + length] = run
    elif what == 3:
        del changed[place : place + length]
    elif what == 4:
        run = changed[place : place + length] * 3
        changed[place:place] = rng.choice((b"\x00" * length, rng.randbytes(length), run))
    elif what == 5:
        return content[:place]
    elif what == 6:
        other = rng.choice(seeds)
        return content[:place] + other[_place(other, rng) :]
    else:
        width, order = rng.choice("BHIQ"), rng.choice("<>")
        value = rng.choice(NUMBERS) % 2 ** (8 * struct.calcsize(width))
        packed = struct.pack(order + width, value)
        changed[place : place + len(packed)] = packed
    return bytes(changed)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def _change_png(content: bytes, rng: random.Random) -> bytes:
    """A chunk changed, dropped, repeated, moved or added, with a right checksum."""
    chunks = _chunks(content)
    if not chunks:
        return content
    index, what = rng.randrange(len(chunks)), rng.randrange(6)
    kind, body = chunks[index]
    if what == 0:
        del chunks[index]
    elif what == 1:
        chunks.insert(rng.randrange(len(chunks) + 1), (kind, body))
    elif what == 2:
        rng.shuffle(chunks)
    elif what == 3:
        added = rng.choice((b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"acTL", b"fcTL", b"iCCP", b"tRNS", b"PLTE", b"pHYs"))
        text = rng.choice((b"", b"a\0\0" + zlib.compress(b"x" * 3_000_000), b"a\0\1\0\0\0" + zlib.compress(b"y" * 99)))
        body = rng.choice((text, rng.randbytes(rng.choice((1, 4, 8, 26))), b"II*\0\x08\0\0\0" + rng.randbytes(40)))
        chunks.insert(rng.randrange(1, len(chunks) + 1), (added, body))
    else:
        chunks[index] = (kind, _change_bytes(body, rng, [body]))
    parts = [content[:8]]
    for kind, body in chunks:
        parts += [struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(kind + body))]
    return b"".join(parts)


def _change_jpeg(content: bytes, rng: random.Random) -> bytes:
    """A segment changed, dropped, repeated or given another length."""
    segments, place = [], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        length = 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        segments.append(content[place : place + length])
        place += length
    if not segments:
        return content
    index, what = rng.randrange(len(segments)), rng.randrange(5)
    segment = segments[index]
    if what == 0:
        del segments[index]
    elif what == 1:
        segments[index:index] = [segment] * rng.choice((1, 3))
    elif what == 2:
        segments[index] = segment[:2] + rng.choice(NUMBERS).to_bytes(8, "big")[-2:] + segment[4:]
    elif what == 3:
        segments[index] = segment[:1] + bytes([rng.randrange(0xC0, 0xFF)]) + segment[2:]
    else:
        segments[index] = segment[:4] + _change_bytes(segment[4:], rng, [segment[4:]])
    return content[:2] + b"".join(segments) + content[place:]


def _change_tiff(content: bytes, rng: random.Random) -> bytes:
    """A tag of the first directory given another number, type, count or value."""
    order = "<" if content[:2] == b"II" else ">"
    if len(content) < 16 or content[2:3] not in (b"*", b"\0"):
        return content
    (start,) = struct.unpack(order + "I", content[4:8])
    if start + 2 > len(content):
        return content
    (count,) = struct.unpack(order + "H", content[start : start + 2])
    place = start + 2 + 12 * rng.randrange(max(count, 1))
    tags = (254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 284, 317, 320, 322, 323, 324, 325, 338)
    field, width, values = rng.choice(((0, "H", tags), (2, "H", range(14)), (4, "I", NUMBERS), (8, "I", NUMBERS)))
    value = rng.choice(values) % 2 ** (8 * struct.calcsize(width))
    packed = struct.pack(order + width, value)
    return content[: place + field] + packed + content[place + field + len(packed) :]


_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OV", b"SV", b"UV")
_VRS = (*_LONG, b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT")
_VRS += (b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL")
_VRS += (b"SS", b"ST", b"TM", b"UI", b"UL", b"US", b"??")
_VALUES = (b"", b"\0\0", b"\xff\xff", b"\\\\", b"1\\2", b"-1")
_VALUES += (b"nan ", b"1e999 ", b"CR", b"MR", b"MONOCHROME1 ", b"RGB ")
_VALUES += (b"9" * 64, b"\xff" * 8, b"LL")
_VALUES += (b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.1.2.4.90", b"ISO_IR 192", b"\\ISO 2022 IR 87 ")


def _elements(content: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Tag, VR and value of the elements of an explicit little-endian file, up to one of undefined length."""
    found, place = [], 132
    while place + 8 <= len(content):
        tag, vr = content[place : place + 4], content[place + 4 : place + 6]
        long = vr in _LONG
        at, width = (place + 8, 4) if long else (place + 6, 2)
        length = int.from_bytes(content[at : at + width], "little")
        if length == 0xFFFFFFFF:
            break
        found.append((tag, vr, content[at + width : at + width + length]))
        place = at + width + length
    return [*found, (content[place:], b"", b"")]  # the rest as it is


def _change_dicom(content: bytes, rng: random.Random) -> bytes:
    """An element given another value, type or length, dropped, repeated, moved or wrapped in sequences."""
    elements = _elements(content) if content[128:132] == b"DICM" else []
    if len(elements) < 5:
        return content
    index, what = rng.randrange(len(elements) - 1), rng.randrange(8)
    tag, vr, value = elements[index]
    if what == 0:
        del elements[index]
    elif what == 1:
        elements.insert(index, elements[index])
    elif what == 2:
        elements.insert(rng.randrange(len(elements) - 1), elements.pop(index))
    elif what == 3:
        elements[index] = (tag, rng.choice(_VRS), value)
    elif what == 4:
        depth = rng.choice((1, 3, 40, 2000))
        inner = _element((tag, vr, value))
        for _ in range(depth):
            inner = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(inner)) + inner
        elements.insert(index, (inner, b"", b""))
    elif what == 5:
        elements[index] = (tag, vr, _change_bytes(value, rng, [value]))
    elif what == 6:
        number = struct.pack(rng.choice("<>") + rng.choice("HI"), rng.choice(NUMBERS) % 2**16)
        elements[index] = (tag, vr, rng.choice((*_VALUES, number)))
    else:
        wrong = bytearray(_element(elements[index]))
        at = 8 if vr in _LONG else 6
        wrong[at : at + 2] = struct.pack("<H", rng.choice(NUMBERS) % 2**16)
        elements[index] = (bytes(wrong), b"", b"")
    return content[:132] + b"".join(map(_element, elements))


def _element(element: tuple[bytes, bytes, bytes]) -> bytes:
    tag, vr, value = element
    if not vr:
        return tag
    if vr in _LONG:
        return tag + vr + b"\0\0" + struct.pack("<I", len(value)) + value
    return tag + vr + struct.pack("<H", len(value) % 2**16) + value


def _change_text(content: bytes, rng: random.Random) -> bytes:
    """A cell, a line or the encoding changed."""
    text = content.decode("utf-8", "surrogateescape")
    separator = max(",;\t: ", key=text.count)
    lines = text.split("\n")
    index, what = rng.randrange(len(lines)), rng.randrange(9)
    cells = lines[index].split(separator)
    if what == 0:
        del lines[index]
    elif what == 1:
        lines.insert(rng.randrange(len(lines) + 1), lines[index])
    elif what == 2:
        lines[index] = lines[index] + separator + rng.choice(CELLS)
    elif what == 3:
        del cells[rng.randrange(len(cells))]
        lines[index] = separator.join(cells)
    elif what == 4:
        column = rng.randrange(len(cells))  # of the whole table
        lines = [separator.join(c for i, c in enumerate(line.split(separator)) if i != column) for line in lines]
    elif what == 5 and rng.random() < 0.3:
        codec = rng.choice(("utf-16", "utf-16-le", "latin-1", "utf-7", "cp500"))
        return "\n".join(lines).encode(codec, "replace")
    else:
        cells[rng.randrange(len(cells))] = rng.choice(CELLS)
        lines[index] = separator.join(cells)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


STRUCTURES: tuple[Any, ...] = (
    (lambda content: content[:4] == b"\x89PNG", _change_png),
    (lambda content: content[:2] == b"\xff\xd8", _change_jpeg),
    (lambda content: content[:4] in (b"II*\0", b"MM\0*"), _change_tiff),
    (lambda content: content[128:132] == b"DICM", _change_dicom),
)
