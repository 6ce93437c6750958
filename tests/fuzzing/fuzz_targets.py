# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""What is fuzzed: each reader as a function of bytes, and the judgement of what comes out of it.

A reader may read an input or refuse it with an error of its own: ValueError, TypeError, ImportError or OSError (with
FileNotFoundError), whose words are "... must be X, got Y. Do Z." or "No such file: X". Everything else is a finding.
What the libraries above us parse, transformers' JSON and argparse's words, may be refused in their words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import yaml
from PIL import Image

from clarity_hf import ClarityConfig, ClarityImageProcessor
from clarity_hf.data.nih import load_nih, open_image
from clarity_hf.data.priors import read_mask
from clarity_hf.data.tables import load_table
from clarity_hf.image_reading import read_image
from clarity_hf.training.arguments import parse_arguments

ERRORS = (ValueError, TypeError, OSError, ImportError)
OUR_WORDS = re.compile(r".* must .+, got .*[.?!] \S.*|No such file: .+", re.DOTALL)


@dataclasses.dataclass
class Settings:
    """A few arguments of a training, for its YAML file."""

    data_dir: str = "phantom"
    epochs: int = 3
    learning_rate: float = 1e-4
    findings: list[str] = dataclasses.field(default_factory=list)
    config: str | None = None


def prepare(folder: Path) -> None:
    """Write what a table or a release needs beside itself: two images and the release's files."""
    for name in ("images/0.png", "images/1.png", "images/00000001_000.png", "images/00000002_000.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((16, 16)).save(folder / name)
    release = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    release += "00000001_000.png,Mass|Nodule,0,1,58,M,PA\n00000002_000.png,No Finding,1,2,61,F,AP\n"
    (folder / "Data_Entry_2017_v2020.csv").write_text(release)
    (folder / "train_val_list.txt").write_text("00000001_000.png\n")
    (folder / "test_list.txt").write_text("00000002_000.png\n")


def _table(suffix: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        (folder / f"own{suffix}").write_bytes(content)
        load_table(folder / f"own{suffix}")

    return read


def _release(name: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        file = folder / name
        before = file.read_bytes() if file.exists() else None
        file.write_bytes(content)
        try:
            load_nih(folder)
        finally:
            if before is None:
                file.unlink()
            else:
                file.write_bytes(before)

    return read


def _image(content: bytes, folder: Path) -> None:
    read_image(content)


def _mask(content: bytes, folder: Path) -> None:
    read_mask({"path": None, "bytes": content})


def _open_image(content: bytes, folder: Path) -> None:
    (folder / "image").write_bytes(content)
    open_image(folder / "image")


def _yaml(content: bytes, folder: Path) -> None:
    (folder / "stage.yaml").write_bytes(content)
    parse_arguments([Settings], {}, [str(folder / "stage.yaml")])


def _config(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    ClarityConfig.from_pretrained(folder, local_files_only=True)


def _processor(content: bytes, folder: Path) -> None:
    (folder / "preprocessor_config.json").write_bytes(content)
    ClarityImageProcessor.from_pretrained(folder, local_files_only=True)


READERS: dict[str, Callable[[bytes, Path], None]] = {
    "png": _image,
    "jpeg": _image,
    "tiff": _image,
    "bmp": _image,
    "dicom": _image,
    "mask": _mask,
    "open_image": _open_image,
    "csv": _table(".csv"),
    "tsv": _table(".tsv"),
    "parquet": _table(".parquet"),
    "nih-table": _release("Data_Entry_2017_v2020.csv"),
    "nih-list": _release("test_list.txt"),
    "nih-boxes": _release("BBox_List_2017.csv"),
    "yaml": _yaml,
    "config": _config,
    "processor": _processor,
}
"""By name: takes an input and a prepared folder of its own."""

FOREIGN = {"yaml": (yaml.YAMLError, SystemExit), "config": (AttributeError,), "processor": (AttributeError,)}
"""Readers whose files a library parses, with what it refuses them by beside `ERRORS`; its words are its own."""


def is_refusal(reader: str, error: BaseException) -> bool:
    """Whether an error is one of ours, in our words, or the library's where it is the library that reads."""
    if reader in FOREIGN:
        return isinstance(error, (*ERRORS, *FOREIGN[reader]))
    return isinstance(error, ERRORS) and OUR_WORDS.fullmatch(str(error)) is not None


def place_of(error: BaseException) -> str:
    """Type and innermost place of an error: two inputs with the same place show the same finding."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f"{Path(trace.tb_frame.f_code.co_filename).name}-{trace.tb_lineno}" if trace is not None else "nowhere"
    return f"{type(error).__name__}-{at}"
