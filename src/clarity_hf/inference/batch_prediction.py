# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Many images: find them, read them ahead, predict in batches, and keep a folder of results that can be resumed.

The folder holds `findings.jsonl`, one line an image in the order in which they were predicted, `failed.jsonl`, the
images that the last run could not read and why, and `settings.json`, what made the results. A line is written only
when all that was asked for of its image is there, and a batch's lines go to the disk together: a run that is killed
loses at most one batch. Processes that share a list each append to a file of their own, `findings-r00.jsonl` and so
on, and whoever ends brings `findings.jsonl` up to the union of them; no process waits for another. Locks of the
operating system, which end with their process, keep other runs out of the folder. Neither patients, UIDs nor absolute
paths get
into these files: an image goes by its path below the inputs.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import glob
import importlib.util
import json
import math
import os
import re
import shutil
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from transformers.modeling_outputs import ModelOutput

from clarity_hf.dicom_reading import looks_like_dicom, read_dicom
from clarity_hf.fingerprints import describe_results
from clarity_hf.image_reading import read_image
from clarity_hf.labels import checked_shares
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline
from clarity_hf.radiograph_check import check_mode, check_radiograph
from clarity_hf.visualization import draw_findings

from .dicom_inference import DicomResultWriter, doubt_about, header_of
from .dicom_output import DEFAULT_KINDS
from .fhir import fhir_bundle

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
"""A file of a folder with one of these endings is taken for an image whatever is in it, so that a broken one is
told.
"""

OUTPUTS = ("overlays", "maps", "dicom", "fhir", "fhir_r5", "identifiers")
"""What can be written of each image beside its line."""

IDENTIFIERS = {
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
    "sop": "SOPInstanceUID",
    "accession": "AccessionNumber",
}
"""What the output `identifiers` adds to lines and tables, and where it stands in the header."""

_FHIR: dict[str, Any] = {"fhir": "R4", "fhir_r5": "R5"}
_FROM_HEADERS = {"dicom", "identifiers", *_FHIR}

SETTINGS = "settings.json"

SIDES = ("xmin", "ymin", "xmax", "ymax")
"""Of a box, as its line names them."""

LOCK = ".lock"
"""Held by a run of one process; process r of several holds `.lock-rRR`. The files stay, the locks do not."""

_LOOK = 2.0  # seconds to wait for a lock that another process may take for a moment, to look whether it is free

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"BM")
_TOLD = (OSError, TypeError, ValueError, ImportError)  # their words are this package's, or name a file
_BAD_NAMES = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
"""What a file system says to the name of one image, while a full disk is the matter of all."""


# Images


@dataclass(frozen=True)
class ImageFile:
    """A file to predict.

    Attributes:
        path: Where it is.
        name: What results call it: its path below the deepest folder common to all inputs, with `/`. Where inputs have
            no folder in common but the root of the file system, that below its own input, after as many of the input's
            last folders as tell the inputs apart.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class FoundImages:
    """What `find_images` found.

    Attributes:
        images: Each file once, in the order of the inputs, inside a folder by name.
        passed_over: How many files of folders were no images, by their ending (`""` for none), most frequent first.
        unread: Folders that could not be listed, each with the reason: images in them are missing.
        folders: How many folders inside those given were not looked into, without `recursive`.
    """

    images: tuple[ImageFile, ...]
    passed_over: dict[str, int]
    unread: dict[str, str] = field(default_factory=dict)
    folders: int = 0


def find_images(
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
    recursive: bool = False,
    exclude: Sequence[str | os.PathLike] = (),
) -> FoundImages:
    """List the images that inputs stand for.

    Args:
        inputs: Paths of files, which are taken for images unseen; of folders, whose PNG, JPEG, TIFF, BMP and DICOM
            files are recognised by content, with or without an ending; globs, with `**` for any depth; and `@FILE`, a
            text file with one of these a line, in quotes or without, relative to the working directory, in UTF-8 or
            with the mark of UTF-16.
        recursive: Whether to look into the folders inside folders, linked ones too. A folder is looked into once,
            whatever links lead to it.
        exclude: Folders not to look into, such as the one of the results.

    Raises:
        FileNotFoundError: An input matches nothing.
        ValueError: No image is found, or a list is no text.
    """
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    excluded = {os.path.realpath(folder) for folder in exclude}
    found: dict[str, None] = {}
    roots: list[str] = []
    passed_over: Counter[str] = Counter()
    walk = _Walk(recursive, excluded)
    for given in _expanded(inputs, walk):
        if os.path.isdir(given):
            roots.append(os.path.abspath(given))
            for path in walk.files_below(given):
                if _is_image(path):
                    found[os.path.abspath(path)] = None
                else:
                    passed_over[os.path.splitext(path)[1].lower()] += 1
        else:
            roots.append(os.path.dirname(os.path.abspath(given)))
            if _is_below(given, excluded):  # a glob may reach into the results
                passed_over[os.path.splitext(given)[1].lower()] += 1
            else:
                found[os.path.abspath(given)] = None
    if not found:
        unread = "".join(f" {folder}: {reason}." for folder, reason in list(walk.unread.items())[:3])
        raise ValueError(
            f"`inputs` must hold images, got none beside {sum(passed_over.values())} other files.{unread} "
            "Check the paths, or look into folders inside (recursive)."
        )
    starts = _starts_of_names(set(roots))
    images = tuple(ImageFile(Path(path), _name(path, starts)) for path in found)
    return FoundImages(images, dict(passed_over.most_common()), walk.unread, walk.folders)


def _starts_of_names(roots: set[str]) -> dict[str, str]:
    """Folders above all images, and what stands for each in their names."""
    with contextlib.suppress(ValueError):  # drives have no folder in common
        common = os.path.commonpath(roots)
        if common != Path(common).anchor or common in roots:
            return {common: ""}
    outer = [root for root in roots if not any(str(parent) in roots for parent in Path(root).parents)]
    parts = [Path(root).parts[1:] for root in outer]
    deepest = max(map(len, parts))
    kept = next((n for n in range(1, deepest) if len({some[-n:] for some in parts}) == len(parts)), deepest)
    return {root: "/".join(some[-kept:]) for root, some in zip(outer, parts, strict=True)}


def _name(path: str, starts: dict[str, str]) -> str:
    root = next(str(parent) for parent in Path(path).parents if str(parent) in starts)
    return (Path(starts[root]) / os.path.relpath(path, root)).as_posix()


def _expanded(inputs: Iterable[str | os.PathLike], walk: _Walk) -> Iterator[str]:
    """Inputs with lists and globs replaced by what they stand for."""
    for given in (os.fspath(path) for path in inputs):
        if os.path.exists(given):
            yield given
        elif given.startswith("@"):
            for line in _lines_of_list(given[1:]):
                if line.startswith("@") and not os.path.exists(line):
                    raise ValueError(f"`inputs` must name no list in a list, got '{line}' in '{given}'. Pass it too.")
                yield from _expanded([line], walk)
        else:
            matches = sorted(glob.glob(given, recursive=True)) if glob.has_magic(given) else []
            if glob.has_magic(given):
                walk.note_unlisted(given)
            if not matches:
                raise FileNotFoundError(f"`inputs` must be there, got '{given}'. Check the path.")
            yield from matches


def _lines_of_list(path: str) -> list[str]:
    """Paths of a list: lines in UTF-8, or in UTF-16 where it has its mark, as editors and spreadsheets write them."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`inputs` must be there, got the list '@{path}'. Check the path.")
    content = Path(path).read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"`inputs` must list paths in UTF-8, got another text in '@{path}'. Save it so.") from error
    if "\0" in text:
        raise ValueError(f"`inputs` must list paths as text, got NUL in '@{path}'. Save it in UTF-8.")
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [_unquoted(line) for line in lines if line.strip()]


def _unquoted(line: str) -> str:
    """A path without the blanks and quotes around it, unless it is there with them."""
    bare = line.strip()
    if not os.path.exists(bare) and len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1]
    return line if os.path.exists(line) else bare


class _Walk:
    """Files of folders by name, and what of the folders could not be looked into."""

    def __init__(self, recursive: bool, excluded: set[str]):
        self.recursive, self.excluded = recursive, excluded
        self.unread: dict[str, str] = {}
        self.folders = 0

    def files_below(self, folder: str) -> Iterator[str]:
        """Files of a folder; hidden ones and hidden folders are none of the user's images."""
        root = os.path.realpath(folder)
        entered = {root}
        for here, folders, files in os.walk(folder, onerror=self._note, followlinks=True):
            visible = (os.path.join(here, name) for name in sorted(folders) if not name.startswith("."))
            inside = [path for path in visible if os.path.realpath(path) not in self.excluded]
            if not self.recursive:
                self.folders += len(inside)
                inside = []
            folders[:] = [os.path.basename(path) for path in inside if self._enters(path, root, entered)]
            yield from (os.path.join(here, name) for name in sorted(files) if not name.startswith("."))

    def _enters(self, path: str, root: str, entered: set[str]) -> bool:
        """Whether to look into a folder; of one below the root under its own path, never by a link."""
        real = os.path.realpath(path)
        if os.path.islink(path):
            if real != root and _contains(real, root):
                self.unread[path] = "is a link to a folder that holds this one"
                return False
            if _contains(root, real) and not any(part.startswith(".") for part in Path(real).relative_to(root).parts):
                return False
        if real in entered:
            return False
        entered.add(real)
        return True

    def note_unlisted(self, pattern: str) -> None:
        """Note the folders that a glob would have looked into and could not: `glob` passes over them."""
        parts = Path(pattern).parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        base = str(Path(*parts[:fixed])) if fixed else os.curdir
        depth = len(parts) - fixed - 1 if "**" not in parts else None
        for here, folders, _ in os.walk(base, onerror=self._note):
            below = 0 if here == base else len(Path(here).relative_to(base).parts)
            if depth is not None and below >= depth:
                folders.clear()

    def _note(self, error: OSError) -> None:
        self.unread[str(error.filename)] = f"cannot be listed ({error.strerror})"


def _contains(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _is_below(path: str, folders: set[str]) -> bool:
    return any(str(parent) in folders for parent in Path(os.path.realpath(path)).parents)


def _is_image(path: str) -> bool:
    """Whether a file of a folder is one; the index of a DICOM medium (PS3.10, section 8) is not."""
    if os.path.basename(path).upper() == "DICOMDIR":
        return False
    if path.lower().endswith(SUFFIXES):  # a broken link or a pipe too: it fails by its name
        return True
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError:
        return False  # without the ending of an image it is counted with the other files
    return start.startswith(_SIGNATURES) or looks_like_dicom(start)


# Predicting


@dataclass(frozen=True)
class BatchSummary:
    """What a run did.

    Attributes:
        images: Of this process's share.
        skipped: Whose results were there already.
        predicted: Whose results were written now.
        failed: Which could not be read, were refused, or whose DICOM results could not be made.
        warned: Of those predicted now, which look like no frontal chest radiograph.
        changed: Of those predicted now, whose file has changed since an earlier run; the new result stands.
    """

    images: int
    skipped: int
    predicted: int
    failed: int
    warned: int = 0
    changed: int = 0


def predict_images(
    pipeline: ChestXrayLocalizationPipeline,
    images: Sequence[ImageFile],
    folder: str | os.PathLike,
    *,
    model_name: str = "model",
    threshold: float | None = None,
    outputs: Sequence[str] = (),
    table: bool = False,
    radiograph_check: str = "warn",
    dicom_kinds: Sequence[str] = DEFAULT_KINDS,
    batch_size: int = 8,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> BatchSummary:
    """Predict images into a folder, or go on where an earlier run into it was stopped.

    A line of `findings.jsonl` is `{"image", "size": [H, W], "bytes", "modified", "findings"}`; the last is what the
    pipeline gives, all findings, highest score first, boxes xyxy in pixels of the image, right and bottom exclusive;
    `bytes` and `modified` (nanoseconds since 1970) tell the file from another of its name: an image whose file has
    changed is predicted again, and its line has `revision`, how often it was. An image that looks like no
    frontal chest radiograph has `warning` too: `{"kind", "reason", "probability"}` of its [`RadiographVerdict`]. A
    line of `failed.jsonl` is `{"image", "reason"}`. Images that failed are tried again by the next run.

    Args:
        pipeline: Its model is evaluated where it is.
        images: From `find_images`, of all processes, the same list in each.
        folder: Of the results; made where it is not there.
        model_name: For `settings.json` and DICOM results; no path.
        threshold: Score in [0, 1] from which a finding is present, instead of the config's thresholds.
        outputs: Of `OUTPUTS`. `overlays/NAME.png`: boxes of present findings and the map of the first of them over
            the image, its name and scale below.
            `maps/NAME.npz`: `maps` `(F, h, w)` float32 ≥ 0 on the patch grid over the model's input, `labels` `(F,)`,
            `image_size`, `input_size` (H, W), and `content` (top, left, height, width), where the image lies in the
            input, in its pixels. `dicom/NAME.KIND.dcm`: see `write_dicom_results`; only of images that came as DICOM,
            and of those that were refused a report that says why. With it images go through the model one by one,
            which makes the same bytes in every batch. `fhir/NAME.json`, `fhir_r5/NAME.json`: see `fhir_bundle`, of
            images that came as DICOM. `identifiers` gives lines and tables the Study, Series and SOP Instance UID and
            the accession number of such images: these files then tell whose they are.
        table: Write `findings.csv` (a row an image, score and presence of each finding, and the reason of a warning)
            and `boxes.csv` (a row a box).
        radiograph_check: What becomes of an image that does not look like a frontal chest radiograph: `warn` predicts
            it and gives its line a `warning`, `refuse` counts it as failed, `off` does not look.
        dicom_kinds: Of `KINDS` of `dicom_output`, with the output `dicom`.
        batch_size: Images per forward pass.
        workers: Threads that read images ahead, decoded images of one batch and one a thread at most; 0 reads in turn.
        rank, world_size: This process and how many share the list; process r takes images r, r + world_size, ...
        progress: Called with the images done and those of this share, skipped ones included: at the start and after
            each batch.

    Returns:
        Counts of this process.

    Raises:
        BlockingIOError: Another run writes to the folder.
        ImportError: DICOM results are wanted and the extra `dicom` is not installed.
        MemoryError: A batch does not fit the memory.
        OSError: A result cannot be written, or the weights of the radiograph check are not those that ship.
        ValueError: An argument is out of range, or the folder holds broken records, results of another model, of other
            settings, of other files under the images' names, or of the same files under other names.
    """
    check_mode(radiograph_check)
    _check_arguments(images, threshold, outputs, batch_size, workers, rank, world_size)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`folder` must be a folder, got the file {folder.name}. Choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder, rank, world_size):
        settings = _settings(pipeline, model_name, threshold, outputs, radiograph_check)
        if "dicom" in outputs:
            settings["dicom_kinds"] = sorted(set(dicom_kinds))
        _check_settings(folder, settings, rank)
        if world_size == 1:
            _unite(folder, table=False, remove_parts=True)
        _clear(folder, rank, world_size)
        dicom = DicomResultWriter(pipeline, model_name, threshold, dicom_kinds)
        writer = _Writer(pipeline, folder, threshold, tuple(outputs), rank, radiograph_check, dicom)
        return _predict_share(writer, images, folder, table, batch_size, workers, rank, world_size, progress)


def _predict_share(
    writer: _Writer,
    images: Sequence[ImageFile],
    folder: Path,
    table: bool,
    batch_size: int,
    workers: int,
    rank: int,
    world_size: int,
    progress: Callable[[int, int], object] | None,
) -> BatchSummary:
    part = f"-r{rank:02d}" if world_size > 1 else ""
    own = folder / f"findings{part}.jsonl"
    _drop_torn_line(own)
    done = _done(_parts(folder, "findings"))
    changed = _changed(images, done)
    _check_names(images, done)
    share = images[rank::world_size]
    waiting = [image for image in share if image.name not in done or image.name in changed]
    skipped = len(share) - len(waiting)
    predicted = failed = warned = again = 0
    if progress is not None:
        progress(skipped, len(share))
    with (
        own.open("a", encoding="utf-8") as lines,
        (folder / f"failed{part}.jsonl").open("w", encoding="utf-8") as failures,
        contextlib.closing(_read_ahead(waiting, writer.read, workers, batch_size + workers)) as reads,
    ):
        for batch in _batches(reads, batch_size):
            good, bad = writer.predict(batch)
            for record in (*good, *bad):
                record |= {"revision": changed[record["image"]]} if record["image"] in changed else {}
            _append(lines, good)
            _append(failures, bad)
            predicted, failed = predicted + len(good), failed + len(bad)
            warned += sum("warning" in record for record in good)
            again += sum("revision" in record for record in good)
            if progress is not None:
                progress(skipped + predicted + failed, len(share))
    _unite(folder, table, rank=rank)
    return BatchSummary(len(share), skipped, predicted, failed, warned, again)


def _check_arguments(
    images: Sequence[ImageFile],
    threshold: float | None,
    outputs: Sequence[str],
    batch_size: int,
    workers: int,
    rank: int,
    world_size: int,
) -> None:
    unknown = sorted(set(outputs) - set(OUTPUTS))
    if unknown:
        raise ValueError(f"`outputs` must be of {', '.join(OUTPUTS)}, got {', '.join(unknown)}. Correct the name.")
    if threshold is not None:
        checked_shares("threshold", threshold, 1)
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}. Pass the images of a forward pass.")
    if workers < 0:
        raise ValueError(f"`workers` must be at least 0, got {workers}. Pass the number of reading threads.")
    if not 0 <= rank < world_size:
        raise ValueError(f"`rank` must be in [0, {world_size}), got {rank}. Check RANK and WORLD_SIZE.")
    if set(_FHIR) & set(outputs) and importlib.util.find_spec("fhir") is None:
        raise ImportError("`outputs` must be without FHIR, got no fhir.resources. Run pip install 'clarity_hf[fhir]'.")
    if "dicom" in outputs and importlib.util.find_spec("highdicom") is None:
        raise ImportError("`outputs` must be without 'dicom', got no highdicom. Run pip install 'clarity_hf[dicom]'.")
    twice = [name for name, count in Counter(image.name for image in images).items() if count > 1]
    if twice:
        raise ValueError(f"`images` must have different names, got '{twice[0]}' twice. Pass the list of find_images.")


@dataclass(frozen=True)
class _Read:
    """An image that was read, or why not: `reason` is empty where it was."""

    image: ImageFile
    reason: str = ""
    stat: tuple[int, int] = (0, 0)
    inputs: dict[str, torch.Tensor] | None = None
    pixels: np.ndarray | None = None
    header: Any = None
    warning: dict[str, Any] | None = None


class _Writer:
    """From files to lines, and to what goes beside them."""

    def __init__(
        self,
        pipeline: ChestXrayLocalizationPipeline,
        folder: Path,
        threshold: float | None,
        outputs: tuple[str, ...],
        rank: int,
        radiograph_check: str,
        dicom: DicomResultWriter,
    ):
        self.pipeline, self.folder, self.dicom = pipeline, folder, dicom
        self.threshold, self.outputs, self.rank = threshold, outputs, rank
        self.radiograph_check = radiograph_check

    def read(self, image: ImageFile) -> _Read:
        """Read one image, in any thread. Whatever is wrong with it is told, and the others go on."""
        header = None
        try:
            stat = image.path.stat()
            pixels, header = self._pixels(image)
            warning = self._checked(pixels, image)
            kept = pixels if {"overlays", "dicom"} & set(self.outputs) else None
            inputs = self.pipeline.preprocess(pixels, radiograph_check="off")
            return _Read(image, "", (stat.st_size, stat.st_mtime_ns), inputs, kept, header, warning)
        except Exception as error:  # of a broken file a library may raise anything
            if "dicom" in self.outputs and header is None and image.path.is_file():
                header = header_of(image.path)
            return _Read(image, _reason(error, image), header=header)

    def _pixels(self, image: ImageFile) -> tuple[np.ndarray, Any]:
        if _FROM_HEADERS & set(self.outputs) and image.path.is_file():
            with image.path.open("rb") as file:
                is_dicom = looks_like_dicom(file.read(132))
            if is_dicom:
                read = read_dicom(image.path)
                return read_image(read.pixels, image.name), read.dataset
        return read_image(image.path), None

    def _checked(self, pixels: np.ndarray, image: ImageFile) -> dict[str, Any] | None:
        """What an image's line says of the check that it did not pass; raises where it is refused."""
        if self.radiograph_check == "off":
            return None
        verdict = check_radiograph(pixels)
        if verdict.passed:
            return None
        if self.radiograph_check == "refuse":
            raise ValueError(verdict.told(image.name))
        return {"kind": verdict.kind, "reason": verdict.reason, "probability": verdict.probability}

    def predict(self, batch: Sequence[_Read]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Lines of the images that were read, after all beside them is written, and of those that failed."""
        bad = [{"image": read.image.name, "reason": read.reason} for read in batch if read.reason]
        for read in batch:
            if read.reason and read.header is not None and "dicom" in self.outputs:
                self._write_refusal(read)
        good = []
        whole = [read for read in batch if not read.reason]
        for read, outputs in zip(whole, self._forward(whole), strict=True):
            try:
                good.append(self._record(read, outputs))
            except (_Failed, ValueError) as error:
                bad.append({"image": read.image.name, "reason": _reason(error, read.image)})
            except OSError as error:
                if error.errno not in _BAD_NAMES:
                    raise  # a full disk is no fault of the image's
                name = read.image.name
                reason = f"`{name}` must be a name that results can have, got {error.strerror}. Rename the image."
                bad.append({"image": name, "reason": reason})
        return good, bad

    def _record(self, read: _Read, outputs: ModelOutput) -> dict[str, Any]:
        """An image's line, once all beside it is written."""
        findings = self.pipeline.postprocess(outputs, threshold=self.threshold)
        try:
            self._write_dicom(read, findings, outputs)
        except OSError:
            raise
        except Exception as error:  # such as a header that lacks what a report needs
            raise _Failed(f"DICOM results: {_reason(error, read.image)}") from error
        self._write_overlay(read, findings, outputs)
        self._write_maps(read, outputs)
        return {
            "image": read.image.name,
            "size": outputs["image_sizes"][0].tolist(),
            "bytes": read.stat[0],
            "modified": read.stat[1],
            **({} if read.warning is None else {"warning": read.warning}),
            **(_identifiers(read.header) if "identifiers" in self.outputs else {}),
            "findings": findings,
        }

    def _forward(self, reads: Sequence[_Read]) -> list[ModelOutput]:
        """Outputs image by image, each still a batch of one."""
        inputs = [read.inputs for read in reads if read.inputs is not None]
        if not inputs:
            return []
        if "dicom" in self.outputs and len(reads) > 1:  # the last digits of a batch's results hang on its size
            return [output for read in reads for output in self._forward([read])]
        try:
            outputs = self.pipeline.forward({name: torch.cat([image[name] for image in inputs]) for name in inputs[0]})
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(
                f"`batch_size` must give batches that fit the memory, got {len(inputs)} images. Lower it and start "
                "again: what is done stays done."
            ) from error
        return [
            ModelOutput(**{name: values[row : row + 1] for name, values in outputs.items()})
            for row in range(len(inputs))
        ]

    def _mapped(self, findings: list[dict[str, Any]], outputs: ModelOutput) -> list[dict[str, Any]]:
        """The same findings, the first present one with its map over the image.

        Each finding has its own threshold, so it need not be the one with the highest score.
        """
        rank = next((rank for rank, finding in enumerate(findings) if finding["present"]), None)
        if rank is None:
            return findings
        first = self.pipeline.postprocess(outputs, threshold=self.threshold, top_k=rank + 1, return_maps=True)[rank]
        return [*findings[:rank], first, *findings[rank + 1 :]]

    def _write_overlay(self, read: _Read, findings: list[dict[str, Any]], outputs: ModelOutput) -> None:
        if "overlays" not in self.outputs:
            return
        mapped = self._mapped(findings, outputs)
        heat_of = next((finding["label"] for finding in mapped if "map" in finding), None)
        picture = draw_findings(read.pixels, mapped, heat_of, bar="below")
        with _replacing(self.folder / "overlays" / f"{read.image.name}.png", self.rank) as path:
            picture.save(path, format="PNG")

    def _write_maps(self, read: _Read, outputs: ModelOutput) -> None:
        if "maps" not in self.outputs:
            return
        config = self.pipeline.model.config
        size = outputs["image_sizes"][0].tolist()
        box = self.pipeline.image_processor.letterbox((size[0], size[1]))
        target = self.folder / "maps" / f"{read.image.name}.npz"
        with _replacing(target, self.rank) as path, path.open("wb") as file:
            np.savez_compressed(
                file,
                maps=outputs["localization_maps"][0].float().numpy(),
                labels=np.array([config.id2label[index] for index in range(config.num_labels)]),
                image_size=np.array(size),
                input_size=np.array(box.input),
                content=np.array([box.top, box.left, *box.content]),
            )

    def _write_dicom(self, read: _Read, findings: list[dict[str, Any]], outputs: ModelOutput) -> None:
        if read.header is None:
            return
        self._write_fhir(read, findings)
        if "dicom" not in self.outputs:
            return
        doubt = "" if read.warning is None else doubt_about(read.warning["reason"])
        pixels = np.asarray(read.pixels)
        with self._made_in_dicom(read) as (folder, stem):
            self.dicom.write(read.header, pixels, findings, outputs, folder, stem, doubt)

    def _write_fhir(self, read: _Read, findings: list[dict[str, Any]]) -> None:
        doubt = "" if read.warning is None else doubt_about(read.warning["reason"])
        for output, release in _FHIR.items():
            if output in self.outputs:
                bundle = fhir_bundle(read.header, findings, self.dicom.identity, release=release, doubt=doubt)
                with _replacing(self.folder / output / f"{read.image.name}.json", self.rank) as path:
                    path.write_text(json.dumps(bundle, indent=1) + "\n", encoding="utf-8")

    def _write_refusal(self, read: _Read) -> None:
        reason = read.reason.replace(read.image.name, "image")
        try:
            with self._made_in_dicom(read) as (folder, stem):
                self.dicom.refuse(read.header, reason, folder / f"{stem}.report.dcm")
        except OSError as error:
            if error.errno not in _BAD_NAMES:
                raise
        except Exception:  # a header too broken for a report; the image is among those that failed all the same
            pass

    @contextlib.contextmanager
    def _made_in_dicom(self, read: _Read) -> Iterator[tuple[Path, str]]:
        """A folder and a start of names for DICOM results, all of which are moved to their place at the end."""
        target = self.folder / "dicom" / read.image.name
        made = _unfinished(target, self.rank)
        made.mkdir(parents=True)
        try:
            yield made, target.name
            for path in made.iterdir():
                os.replace(path, target.parent / path.name)
        finally:
            shutil.rmtree(made, ignore_errors=True)


class _Failed(ValueError):
    """An image without results, in words that need no others."""


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was made from, says that there is too little memory, as Python or torch do.

    Args:
        error: As caught.
    """
    while error is not None:
        words = str(error).lower() if isinstance(error, RuntimeError) else ""
        if isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words:
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _identifiers(header: Any) -> dict[str, str]:
    """What an image's line says of whose it is; nothing of one that did not come as DICOM."""
    return {} if header is None else {name: str(header.get(keyword) or "") for name, keyword in IDENTIFIERS.items()}


def _reason(error: Exception, image: ImageFile) -> str:
    """Why an image failed, by its name below the inputs; the words of a stranger's error may quote the patient."""
    if out_of_memory(error):
        return (
            f"`{image.name}` must fit the memory that is free, got too little of it. Predict again with fewer workers "
            "and a smaller batch_size."
        )
    if isinstance(error, _TOLD):
        return str(error).replace(str(image.path), image.name) or type(error).__name__
    return f"`{image.name}` must be readable, got an unexpected {type(error).__name__}. Check that the file is whole."


def _read_ahead(
    images: Sequence[ImageFile], read: Callable[[ImageFile], _Read], workers: int, ahead: int
) -> Generator[_Read, None, None]:
    """Images in their order, at most `ahead` of them read and not yet taken."""
    if workers == 0:
        yield from map(read, images)
        return
    pool = ThreadPoolExecutor(workers)
    pending: deque[Future[_Read]] = deque()
    try:
        for image in images:
            pending.append(pool.submit(read, image))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(reads: Iterable[_Read], size: int) -> Iterator[list[_Read]]:
    batch: list[_Read] = []
    for read in reads:
        batch.append(read)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


# The folder


@contextlib.contextmanager
def _held(folder: Path, rank: int, world_size: int) -> Iterator[None]:
    """Keep other runs out: one process keeps out all others, one of several those of its own rank and a single one.

    Each takes its own lock before it looks at the others', so of two that start together at least one sees the other.
    """
    with contextlib.ExitStack() as stack:
        try:
            if world_size == 1:
                stack.enter_context(FileLock(folder / LOCK, timeout=_LOOK))
                others = sorted(folder.glob(f"{LOCK}-r*"))
            else:
                stack.enter_context(FileLock(folder / f"{LOCK}-r{rank:02d}", timeout=_LOOK))
                others = [folder / LOCK]
            for other in others:
                with FileLock(other, timeout=_LOOK):
                    pass
        except Timeout as error:
            raise BlockingIOError(
                f"`folder` must be written by one run at a time, got one that another process writes to "
                f"({Path(error.lock_file).name} is held). Wait until it ends, or choose another folder."
            ) from error
        yield


def _clear(folder: Path, rank: int, world_size: int) -> None:
    """Remove what killed runs did not finish, of this process's rank if others may be at work."""
    made = re.compile(r"\.[0-9a-f]{32}-r%s\.part" % (r"\d+" if world_size == 1 else f"{rank:02d}"))
    for path in folder.rglob(".*.part"):
        if made.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _settings(
    pipeline: ChestXrayLocalizationPipeline,
    model_name: str,
    threshold: float | None,
    outputs: Sequence[str],
    radiograph_check: str,
) -> dict[str, Any]:
    return {
        "model": model_name,
        **describe_results(pipeline.model, pipeline.image_processor, threshold),
        "outputs": sorted(set(outputs)),
        "radiograph_check": radiograph_check,
    }


def _check_settings(folder: Path, settings: dict[str, Any], rank: int) -> None:
    """Write what makes the results, or compare it with what made those that are there; a name makes nothing."""
    path = folder / SETTINGS
    findings = list(folder.glob("findings*.jsonl"))  # before the settings: another process writes them after its own
    if not path.exists():
        if findings:
            raise ValueError(f"`folder` must hold {SETTINGS} beside its findings, got none. Choose another folder.")
        with _replacing(path, rank) as file:
            file.write_text(json.dumps(settings, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(there, dict):
            raise TypeError(f"JSON of type {type(there).__name__}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"`folder` must hold readable {SETTINGS}, got {what}. Choose another folder.") from error
    before, now = (_flat(json.loads(json.dumps(made))) for made in (there, settings))
    differ = [name for name in {**before, **now} if name != "model" and before.get(name) != now.get(name)]
    if differ:
        pairs = ((name, _short(before.get(name)), _short(now.get(name))) for name in differ[:5])
        told = "; ".join(f"{name} {there} there, {here} now" for name, there, here in pairs)
        more = f"; and {len(differ) - 5} more" if len(differ) > 5 else ""
        raise ValueError(
            f"`folder` must hold results of this model and these settings, got others: {told}{more}. "
            "Choose another folder."
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unfinished(path: Path, rank: int) -> Path:
    """Where a process writes what becomes `path`; its rank tells who may remove it."""
    return path.with_name(f".{uuid.uuid4().hex}-r{rank:02d}.part")


@contextlib.contextmanager
def _replacing(path: Path, rank: int) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end, so that no reader and no killed run sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = _unfinished(path, rank)
    try:
        yield made
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)


def _append(file: TextIO, records: Sequence[dict[str, Any]]) -> None:
    if records:
        file.write("".join(json.dumps(record, allow_nan=False) + "\n" for record in records))
        file.flush()
        os.fsync(file.fileno())


def _drop_torn_line(path: Path) -> None:
    """Cut what follows the last line end: a line that a killed run did not finish."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                end = start + place + 1
                break
            end = start
        file.truncate(end)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whole lines of a file and what they say; a torn last one is nobody's yet, a file that has gone has none."""
    failed = path.name.startswith("failed")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(
            f"`folder` must hold whole records, got {path.name} that cannot be read ({error.strerror}). Remove it."
        ) from error
    with file:
        for number, content in enumerate(file, start=1):
            if not content.endswith(b"\n"):
                return
            try:
                line = content.decode()
                record = json.loads(line)
                _check_record(record, failed)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"`folder` must hold whole records, got {path.name} line {number} that is none. Remove the line."
                ) from error
            yield line, record


def _check_record(record: Any, failed: bool) -> None:
    """Raise KeyError, TypeError or ValueError unless a line holds what is read of it."""
    if not isinstance(record, dict):
        raise TypeError("no object")
    kinds: dict[str, type] = {"image": str}
    kinds |= {"reason": str} if failed else {"bytes": int, "modified": int, "findings": list}
    kinds |= {name: kind for name, kind in (("revision", int), ("warning", dict)) if name in record}
    if not all(isinstance(record[name], kind) for name, kind in kinds.items()):
        raise TypeError("a value of another type")
    if failed:
        return
    height, width = record["size"]
    for finding in record["findings"]:
        numbers = [height, width, finding["score"], finding["threshold"]]
        numbers += [box[side] for box in finding["boxes"] for side in SIDES]
        if not isinstance(finding["label"], str) or not all(map(math.isfinite, [*numbers, finding["present"]])):
            raise ValueError("a value out of range")


def _parts(folder: Path, kind: str) -> list[Path]:
    """The united file first, then those of the processes."""
    return [folder / f"{kind}.jsonl", *sorted(folder.glob(f"{kind}-r*.jsonl"))]


def _united(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every image's line once, its latest revision."""
    latest = _done(_parts(folder, "findings"))
    seen: set[str] = set()
    for path in _parts(folder, "findings"):
        for line, record in _records(path):
            name = record["image"]
            if name not in seen and name in latest and latest[name].revision == record.get("revision", 0):
                seen.add(name)
                yield line, record


@dataclass(frozen=True)
class _Done:
    """Which file an image's result is of, by bytes and time of change, and how often it was predicted again."""

    revision: int
    stat: tuple[int, int]


def _done(paths: Iterable[Path]) -> dict[str, _Done]:
    done: dict[str, _Done] = {}
    for path in paths:
        for _, record in _records(path):
            name, revision = record["image"], record.get("revision", 0)
            if name not in done or revision > done[name].revision:
                done[name] = _Done(revision, (record["bytes"], record["modified"]))
    return done


def _check_names(images: Sequence[ImageFile], done: dict[str, _Done]) -> None:
    """Whether images have lost the names that they went by: with another input all may have got longer ones."""
    if not done or any(image.name in done for image in images):
        return
    before = {(Path(name).name, *entry.stat): name for name, entry in done.items()}
    for image in images:
        if image.path.exists():
            stat = image.path.stat()
            name = before.get((image.path.name, stat.st_size, stat.st_mtime_ns))
            if name is not None:
                raise ValueError(
                    f"`images` must be named as they are in the folder, got '{image.name}' for its '{name}'. Pass the "
                    "inputs that made it, or choose another folder."
                )


def _changed(images: Sequence[ImageFile], done: dict[str, _Done]) -> dict[str, int]:
    """Images whose file is another than that of their result, each with the number of its next revision.

    Raises:
        ValueError: All of several are: these are other images under the same names.
    """
    changed, same = {}, 0
    for image in images:
        if image.name in done and image.path.exists():
            stat = image.path.stat()
            if (stat.st_size, stat.st_mtime_ns) == done[image.name].stat:
                same += 1
            else:
                changed[image.name] = done[image.name].revision + 1
    if len(changed) > 1 and not same:
        raise ValueError(
            f"`folder` must hold results of these files, got another file named '{next(iter(changed))}' (by size or "
            f"time of change), and so for all {len(changed)} that have results. Choose another folder."
        )
    return changed


def _unite(folder: Path, table: bool, remove_parts: bool = False, rank: int = 0) -> None:
    """Bring `findings.jsonl` and what is derived from it up to all that the processes have written.

    Another process may end at the same time and write an older union over this one: it looks again, as this one does,
    until nothing is new.
    """
    parts = {kind: _parts(folder, kind)[1:] for kind in ("findings", "failed")}
    own = folder / "findings.jsonl"
    superseded = sum(1 for _ in _records(own)) > len(_done([own]))
    if parts["findings"] or parts["failed"] or table or superseded:
        while True:
            failed = bool(parts["failed"]) and not remove_parts
            written = _write_union(folder, bool(parts["findings"]) or superseded, failed, table, rank)
            done = _done(_parts(folder, "findings"))
            told = not failed or {record["image"] for _, record in _records(folder / "failed.jsonl")} == set(
                _failures(folder, done)
            )
            if written == done == _done([own]) and told:
                break
    if remove_parts:
        for path in (*parts["findings"], *parts["failed"]):
            path.unlink(missing_ok=True)


def _failures(folder: Path, done: dict[str, _Done]) -> dict[str, str]:
    """Lines of the images that processes could not read and none has read."""
    failures = {}
    for path in _parts(folder, "failed")[1:]:
        for line, record in _records(path):
            name = record["image"]
            if name not in done or done[name].revision < record.get("revision", 0):
                failures[name] = line
    return failures


def _write_union(folder: Path, findings: bool, failed: bool, table: bool, rank: int) -> dict[str, _Done]:
    written: dict[str, _Done] = {}
    with contextlib.ExitStack() as stack:
        lines: TextIO | None = None
        tables: _Tables | None = None
        if findings:
            made = stack.enter_context(_replacing(folder / "findings.jsonl", rank))
            lines = stack.enter_context(made.open("w"))
        if table:
            files = (folder / f"{name}.csv" for name in ("findings", "boxes"))
            tables = _Tables(*(stack.enter_context(_csv(path, rank)) for path in files), added=_added_columns(folder))
        for line, record in _united(folder):
            written[record["image"]] = _Done(record.get("revision", 0), (record["bytes"], record["modified"]))
            if lines is not None:
                lines.write(line)
            if tables is not None:
                tables.add(record)
        if lines is not None:
            lines.flush()
            os.fsync(lines.fileno())  # the parts may be removed next
    if failed:
        with _replacing(folder / "failed.jsonl", rank) as path:
            path.write_text("".join(_failures(folder, written).values()), encoding="utf-8")
    return written


@contextlib.contextmanager
def _csv(path: Path, rank: int) -> Iterator[Any]:
    # A file name that is no UTF-8 is written as JSON writes it.
    with (
        _replacing(path, rank) as made,
        made.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        yield csv.writer(_LineEnds(file), lineterminator="\r\n")


class _LineEnds:
    """Rows that end with a line feed; the writer, whose own line end has both characters, quotes what holds either."""

    def __init__(self, file: TextIO):
        self.file = file

    def write(self, row: str) -> None:
        """Write one row."""
        self.file.write(row.removesuffix("\r\n") + "\n")


def _added_columns(folder: Path) -> list[str]:
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return list(IDENTIFIERS) if "identifiers" in settings.get("outputs", ()) else []


class _Tables:
    """Rows of `findings.csv` and `boxes.csv`; findings stand by name, whatever their rank in an image."""

    def __init__(self, findings: Any, boxes: Any, *, added: Sequence[str]):
        self.findings, self.boxes, self.added = findings, boxes, added
        self.labels: list[str] = []
        self.boxes.writerow(["image", "finding", "score", *SIDES, *added])

    def add(self, record: dict[str, Any]) -> None:
        """An image's rows; the first image's labels make the head."""
        by_label = {finding["label"]: finding for finding in record["findings"]}
        if not self.labels:
            self.labels = sorted(by_label)
            marks = [f"{label} present" for label in self.labels]
            self.findings.writerow(["image", "height", "width", *self.labels, *marks, "warning", *self.added])
        if sorted(by_label) != self.labels:
            raise ValueError(
                f"`folder` must hold records of the same findings, got others for {record['image']}. Remove its line."
            )
        rows = [by_label[label] for label in self.labels]
        scores, present = [row["score"] for row in rows], [int(row["present"]) for row in rows]
        warning = record.get("warning", {}).get("reason", "")
        added = [record.get(name, "") for name in self.added]
        self.findings.writerow([record["image"], *record["size"], *scores, *present, warning, *added])
        for row in rows:
            for box in row["boxes"]:
                sides = [box[side] for side in SIDES]
                self.boxes.writerow([record["image"], row["label"], row["score"], *sides, *added])
