# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What benchmarks share: a pinned allocator, one thread, interleaved rounds, and images to read."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PINNED = {"MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_MMAP_THRESHOLD_": str(1 << 32)}
"""glibc's trimming alone moves single measurements by a quarter."""


class Seconds(NamedTuple):
    """Time of one piece of work, in seconds.

    Attributes:
        wall: By the clock.
        processor: That all threads of this process, and programs that it waited for, kept processors busy, user's and
            system's.
    """

    wall: float
    processor: float


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"**{self.median:.3f}** ({self.low:.3f}–{self.high:.3f})"


def restart_pinned(**environment: str) -> None:
    """Start this script anew with the allocator pinned and these variables set, unless they are."""
    wanted = PINNED | environment
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execvpe(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def processor_seconds() -> float:
    """That this process and the programs that it waited for have taken so far."""
    programs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + programs.ru_utime + programs.ru_stime


def interleaved(works: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, list[Seconds]]:
    """Do each work once a round, forwards and backwards in turn, so that a drifting machine favours none.

    Returns:
        By work its seconds in each of `rounds` rounds, after `warm_up` ones that are not counted.
    """
    taken: dict[str, list[Seconds]] = {name: [] for name in works}
    for turn in range(rounds + warm_up):
        for name in works if turn % 2 else reversed(works):
            wall, processor = time.perf_counter(), processor_seconds()
            works[name]()
            seconds = Seconds(time.perf_counter() - wall, processor_seconds() - processor)
            if turn >= warm_up:
                taken[name].append(seconds)
    return taken


def paired_ratio(ours: Sequence[float], base: Sequence[float]) -> Spread:
    """Of the ratios of two works within one round; quartiles need two rounds."""
    ratios = [one / other for one, other in zip(ours, base, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return Spread(statistics.median(ratios), quartiles[0], quartiles[2])


def write_phantom_pngs(folder: Path, count: int, size: int = 1024) -> list[Path]:
    """Write phantoms as 8-bit grey PNG files, as Pillow compresses them by default.

    Args:
        folder: That is there.
        count: Of images, numbered from 0.
        size: Side of an image in pixels.
    """
    from PIL import Image

    from clarity_hf.phantoms import iterate_phantoms

    paths = []
    for index, phantom in enumerate(iterate_phantoms(count, size=size)):
        paths.append(folder / f"{index:04d}.png")
        Image.fromarray(phantom.image).save(paths[-1])
    return paths


def dicom_of(image: Any, seed: int, bits: int) -> Any:
    """An uncompressed DICOM data set of an image, spanning `bits` bits, with noise of a 250th of them.

    Args:
        image: `(H, W)` uint8.
        seed: Of the noise.
        bits: 9 to 16.
    """
    import numpy as np
    import pydicom
    from pydicom import uid

    noise = np.random.default_rng(seed).normal(0, 0.004, image.shape)
    stored = np.rint(np.clip(image / 255 + noise, 0, 1) * (2**bits - 1)).astype("<u2")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    dataset.Modality, dataset.ViewPosition, dataset.BodyPartExamined = "DX", "PA", "CHEST"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.PixelData = stored.tobytes()
    return dataset
