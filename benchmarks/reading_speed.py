# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What it costs to read an image beyond decoding it: file to `pixel_values` at 224 against the decoder alone, one
core.

    python benchmarks/reading_speed.py                         (about three minutes)
    python benchmarks/reading_speed.py --rounds 5 --images 1    (quick)
    python benchmarks/reading_speed.py IMAGE.png IMAGE.dcm ...   (these files instead, one row for each kind)

Without files, phantoms are written: PNG of 8 bits, 1024², and DICOM of 12, 14 and 16 bits in lossless JPEG 2000,
2048², with the noise of a detector. The decoder of a PNG is Pillow (open and load), that of JPEG 2000 OpenJPEG, from
the stream in memory. `image` is `read_image`, the image's pixels in [0, 255]; `tensor` is the image processor's
`pixel_values`, from the path.

Time: processor time of one thread, the median over interleaved rounds of the ratio within a round, all images of a
kind together. glibc's trimming is pinned. Expected: ratios of at most 1.3.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import dicom_of, interleaved, paired_ratio, restart_pinned, write_phantom_pngs

DICOM_BITS = (12, 14, 16)
DICOM_SIDE = 2048


def write_phantom_dicom(path: Path, seed: int, bits: int) -> None:
    """A phantom as lossless JPEG 2000, spanning `bits` bits, with noise of a 250th of them."""
    from pydicom import uid

    from clarity_hf.phantoms import draw_phantom

    dataset = dicom_of(draw_phantom(seed, size=DICOM_SIDE).image, seed, bits)
    dataset.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)


def written_images(folder: Path, count: int) -> list[Path]:
    """PNG and DICOM phantoms."""
    paths = write_phantom_pngs(folder, count)
    for bits in DICOM_BITS:
        for seed in range(count):
            paths.append(folder / f"{bits}-{seed}.dcm")
            write_phantom_dicom(paths[-1], seed, bits)
    return paths


def kind_and_decoder(path: Path) -> tuple[str, Callable[[], object]]:
    """What an image is called in the table, and what decodes it and does no more."""
    from clarity_hf.dicom_reading import looks_like_dicom

    with path.open("rb") as file:
        is_dicom = looks_like_dicom(file.read(132))
    if is_dicom:
        import openjpeg
        import pydicom

        dataset = pydicom.dcmread(path)
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax not in pydicom.uid.JPEG2000TransferSyntaxes:
            raise SystemExit(f"`files` must be JPEG 2000 where they are DICOM, got {syntax.name}. Leave out {path}.")
        stream = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        kind = f"DICOM JPEG 2000, {dataset.BitsStored} bits, {dataset.Rows} × {dataset.Columns}"
        return kind, lambda: openjpeg.decode(stream)
    from PIL import Image

    def load() -> None:
        with Image.open(path) as image:
            image.load()

    with Image.open(path) as image:
        return f"{image.format} {image.mode}, {image.height} × {image.width}", load


def measured(paths: list[Path], decoders: list[Callable[[], object]], processor: Any, rounds: int) -> str:
    """The figures of a row: milliseconds an image and the ratios to the decoder."""
    from clarity_hf.image_reading import read_image

    works: dict[str, Callable[[], object]] = {
        "decode": lambda: [decode() for decode in decoders],
        "image": lambda: [read_image(path) for path in paths],
        "tensor": lambda: [processor(path, return_tensors="pt") for path in paths],
    }
    taken = {name: [each.processor for each in seconds] for name, seconds in interleaved(works, rounds).items()}
    milliseconds = [f"{1000 * statistics.median(seconds) / len(paths):.2f}" for seconds in taken.values()]
    ratios = [str(paired_ratio(taken[name], taken["decode"])) for name in ("image", "tensor")]
    return " | ".join([*milliseconds, *ratios])


def main() -> None:
    """Print a row per kind of image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--images", type=int, default=4, help="phantoms of each kind")
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    restart_pinned(OMP_NUM_THREADS="1")
    import PIL
    import torch
    import torchvision

    from clarity_hf import ClarityImageProcessor

    torch.set_num_threads(1)
    processor = ClarityImageProcessor()
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, list[tuple[Path, Callable[[], object]]]] = {}
        for path in arguments.files or written_images(Path(folder), arguments.images):
            kind, decoder = kind_and_decoder(path)
            kinds.setdefault(kind, []).append((path, decoder))
        print(
            f"Pillow {PIL.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"{torch.backends.cpu.get_cpu_capability()}, 1 of {os.cpu_count()} cores, {arguments.rounds} rounds\n"
        )
        print("| image | images | decode ms | image ms | tensor ms | image / decode | tensor / decode (quartiles) |")
        print("|---|---|---|---|---|---|---|")
        for kind, images in kinds.items():
            paths, decoders = ([image[place] for image in images] for place in (0, 1))
            print(f"| {kind} | {len(images)} | {measured(paths, decoders, processor, arguments.rounds)} |", flush=True)


if __name__ == "__main__":
    main()
