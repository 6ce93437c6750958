# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Prediction of many images: read ahead, predict in batches, and write the results of each image into a folder.

An image's line is written after its other outputs. These files contain no patients, UIDs or absolute paths, except for
the output `identifiers`: an image is named by its path below the inputs.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import itertools
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clarity_hf.dicom_reading import looks_like_dicom, read_dicom
from clarity_hf.files import replaced_file, replaced_files
from clarity_hf.image_reading import read_image
from clarity_hf.labels import checked_shares
from clarity_hf.radiograph_check import check_mode, check_radiograph
from clarity_hf.visualization import draw_findings, finding_to_map

from .dicom_output import DEFAULT_KINDS
from .image_files import ImageFile
from .onnx_pipeline import OnnxPipeline
from .result_store import IDENTIFIERS, ResultStore, append, merge_shards

if TYPE_CHECKING:  # torch and transformers, which OnnxPipeline does without
    from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

    from .dicom_inference import DicomResultWriter

    AnyPipeline = ChestXrayLocalizationPipeline | OnnxPipeline

Records = list[dict[str, Any]]

OUTPUTS = ("overlays", "maps", "dicom", "fhir", "fhir_r5", "identifiers")
"""What can be written for each image in addition to its line."""

_FHIR: dict[str, Any] = {"fhir": "R4", "fhir_r5": "R5"}
_FROM_HEADERS = {"dicom", "identifiers", *_FHIR}

_OWN_ERRORS = (OSError, TypeError, ValueError, ImportError)  # worded by this package, or naming a file
_BAD_NAMES = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST}
"""File system errors about the name of one image; others, such as a full disk, concern all images."""


@dataclass(frozen=True)
class BatchSummary:
    """What a run did.

    Attributes:
        images: Number of images in this process's share.
        skipped: Images that already had results.
        predicted: Images whose results were written by this run.
        failed: Images that could not be read, were refused, or whose DICOM results could not be written.
        warned: Predicted images that do not look like a frontal chest radiograph.
        changed: Predicted images whose file has changed since an earlier run; the new result replaces the old one.
    """

    images: int
    skipped: int
    predicted: int
    failed: int
    warned: int = 0
    changed: int = 0


def predict_images(
    pipeline: AnyPipeline,
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
    merge: bool = True,
    progress: Callable[[int, int], object] | None = None,
) -> BatchSummary:
    """Predict images into a folder, or resume an earlier run into it.

    A line of `findings.jsonl` is `{"image", "size": [H, W], "bytes", "modified", "findings"}`. `findings` is the
    pipeline's result: all findings, highest score first, boxes xyxy in pixels of the image, right and bottom
    exclusive. `bytes` and `modified` (nanoseconds since 1970) identify the version of the file: an image whose file
    has changed is predicted again, and `revision` in its line counts how often. An image that does not look like a
    frontal chest radiograph also has `warning`: `{"kind", "reason", "probability"}` of its [`RadiographVerdict`]. A
    line of `failed.jsonl` is `{"image", "reason"}`. The next run tries failed images again.

    Args:
        pipeline: Runs on its own device, with its own engine; an [`OnnxPipeline`] has no outputs but `identifiers`.
        images: From `find_images`; all processes pass the same complete list.
        folder: Folder of the results; created if needed.
        model_name: Name for `settings.json` and DICOM results; not a path.
        threshold: Score in [0, 1] from which a finding is present, instead of the config's thresholds.
        outputs: Names from `OUTPUTS`. `overlays/NAME.png`: boxes of the present findings and the map of the first
            that has a box, or is present, over the image, with its name and scale below.
            `maps/NAME.npz`: `maps` `(F, h, w)` float32 ≥ 0 on the patch grid over the model's input, `labels` `(F,)`,
            `image_size`, `input_size` (H, W), and `content` (top, left, height, width), where the image lies in the
            input, in its pixels. `dicom/NAME.KIND.dcm`: see `write_dicom_results`; only of images that came as DICOM;
            those that were refused get a report that says why. With it images go through the model one by one,
            which makes the same bytes in every batch. `fhir/NAME.json`, `fhir_r5/NAME.json`: see `fhir_bundle`, of
            images that came as DICOM. `identifiers` adds the Study, Series and SOP Instance UID and the accession
            number of such images to lines and tables: these files then identify patients.
        table: Whether to write `findings.csv` (a row per image: score and presence of each finding, and the reason of
            a warning) and `boxes.csv` (a row per box).
        radiograph_check: What to do with an image that does not look like a frontal chest radiograph: `warn` predicts
            it and adds a `warning` to its line, `refuse` counts it as failed, `off` does not check.
        dicom_kinds: Names from `KINDS` of `dicom_output`, for the output `dicom`.
        batch_size: Images per forward pass.
        workers: Threads that read images ahead, at most one batch and one image per thread; 0 reads one at a time.
        rank, world_size: This process and the number of processes; process r takes images r, r + world_size, ...
        merge: Whether to merge the processes' shards at the end, and write the tables. Processes of a launcher pass
            False, and one of them calls [`merge_shards`] after all have ended.
        progress: Called at the start and after each batch with the number of images done, including skipped ones, and
            the number of images of this process.

    Returns:
        Counts of this process.

    Raises:
        BlockingIOError: Another run is writing to the folder.
        ImportError: DICOM results are requested and the extra `dicom` is not installed.
        MemoryError: A batch does not fit into memory.
        OSError: A result cannot be written, or the weights of the radiograph check are not those that ship.
        ValueError: An argument is out of range, `outputs` need the model itself, or the folder holds broken records,
            results of another model, of other settings, of other files under the images' names, or of the same files
            under other names.
    """
    if isinstance(pipeline, OnnxPipeline) and (others := sorted(set(outputs) - {"identifiers"})):
        raise ValueError(
            f"`outputs` of an OnnxPipeline can only have 'identifiers', got {others}. Pass transformers' pipeline."
        )
    wanted = _Wanted(model_name, threshold, frozenset(outputs), radiograph_check, tuple(dicom_kinds))
    run = _Run(batch_size, workers)
    twice = [name for name, count in Counter(image.name for image in images).items() if count > 1]
    if twice:
        raise ValueError(f"`images` must have different names, got '{twice[0]}' twice. Pass the list of find_images.")
    store = ResultStore(folder, rank, world_size)
    report = progress or (lambda done, total: None)
    with store.held():
        revisions = store.open_results(wanted.settings(pipeline), images)
        share = images[rank::world_size]
        waiting = [image for image in share if revisions.get(image.name) != 0]
        counts: Counter[str] = Counter(images=len(share), skipped=len(share) - len(waiting))
        report(counts["skipped"], len(share))
        with contextlib.closing(_predicted(pipeline, waiting, store, wanted, run, revisions)) as batches:
            for good, bad in batches:
                counts.update(
                    predicted=len(good),
                    failed=len(bad),
                    warned=sum("warning" in record for record in good),
                    changed=sum("revision" in record for record in good),
                )
                report(counts["skipped"] + counts["predicted"] + counts["failed"], len(share))
        if merge:
            merge_shards(store.folder, table)
    return BatchSummary(**{name: counts[name] for name in BatchSummary.__dataclass_fields__})


def _predicted(
    pipeline: AnyPipeline,
    images: Sequence[ImageFile],
    store: ResultStore,
    wanted: _Wanted,
    run: _Run,
    revisions: Mapping[str, int],
) -> Generator[tuple[Records, Records], None, None]:
    """Predict batches and append their lines; yield the lines of predicted and of failed images."""
    writer = _Writer(pipeline, wanted, store.folder)
    read = functools.partial(_read, pipeline, wanted)
    with (
        store.appending() as (lines, failures),
        contextlib.closing(_read_ahead(images, read, run.workers, run.batch_size + run.workers)) as reads,
    ):
        while batch := list(itertools.islice(reads, run.batch_size)):
            good, bad = writer.predict(batch)
            for record in (*good, *bad):
                record |= {"revision": revisions[record["image"]]} if record["image"] in revisions else {}
            append(lines, good)
            append(failures, bad)
            yield good, bad


@dataclass(frozen=True)
class _Wanted:
    """What is written about each image, as in [`predict_images`]."""

    model_name: str
    threshold: float | None
    outputs: frozenset[str]
    radiograph_check: str
    dicom_kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        check_mode(self.radiograph_check)
        unknown = sorted(self.outputs - set(OUTPUTS))
        if unknown:
            raise ValueError(f"`outputs` must be of {', '.join(OUTPUTS)}, got {', '.join(unknown)}. Correct the name.")
        if self.threshold is not None:
            checked_shares("threshold", self.threshold, 1)
        for names, package, extra in ((_FHIR.keys(), "fhir", "fhir"), ({"dicom"}, "highdicom", "dicom")):
            asked = ", ".join(sorted(names & self.outputs))
            if asked and importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"The output {asked} needs the extra `{extra}`. Run pip install 'clarity_hf[{extra}]'."
                )

    def settings(self, pipeline: AnyPipeline) -> dict[str, Any]:
        """Everything that decides the results, for `settings.json`."""
        if isinstance(pipeline, OnnxPipeline):
            described = pipeline.describe(self.threshold)
        else:
            from clarity_hf.fingerprints import describe_results

            from .engines import engine_settings

            described = describe_results(pipeline.model, pipeline.image_processor, self.threshold)
            described |= engine_settings(pipeline, described)
        return {
            "model": self.model_name,
            **described,
            "outputs": sorted(self.outputs),
            "radiograph_check": self.radiograph_check,
            **({"dicom_kinds": sorted(set(self.dicom_kinds))} if "dicom" in self.outputs else {}),
        }


@dataclass(frozen=True)
class _Run:
    """How images are read and predicted, as in [`predict_images`]."""

    batch_size: int
    workers: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}. Pass the images of a forward.")
        if self.workers < 0:
            raise ValueError(f"`workers` must be at least 0, got {self.workers}. Pass the number of reading threads.")


@dataclass(frozen=True)
class _Read:
    """An image that was read, or the `reason` why it could not be read."""

    image: ImageFile
    reason: str = ""
    stat: tuple[int, int] = (0, 0)
    inputs: dict[str, Any] | None = None
    pixels: np.ndarray | None = None
    header: Any = None
    warning: dict[str, Any] | None = None

    @property
    def doubt(self) -> str:
        """What DICOM and FHIR results say about an image that failed the radiograph check."""
        if self.warning is None:
            return ""
        from .dicom_inference import doubt_about

        return doubt_about(self.warning["reason"])


def _read(pipeline: AnyPipeline, wanted: _Wanted, image: ImageFile) -> _Read:
    """Read an image and prepare the model's input, in any thread; an error becomes its `reason`."""
    header = None
    try:
        stat = image.path.stat()
        pixels, header = _read_pixels(image, wanted)
        warning = None
        if wanted.radiograph_check != "off" and not (verdict := check_radiograph(pixels)).passed:
            if wanted.radiograph_check == "refuse":
                raise ValueError(verdict.message(image.name))
            warning = {"kind": verdict.kind, "reason": verdict.reason, "probability": verdict.probability}
        kept = pixels if {"overlays", "dicom"} & wanted.outputs else None
        inputs = pipeline.preprocess(pixels, radiograph_check="off")
        return _Read(image, "", (stat.st_size, stat.st_mtime_ns), inputs, kept, header, warning)
    except Exception as error:  # libraries may raise anything for a broken file
        if "dicom" in wanted.outputs and header is None and image.path.is_file():
            from .dicom_inference import header_of

            header = header_of(image.path)
        return _Read(image, _reason(error, image), header=header)


def _read_pixels(image: ImageFile, wanted: _Wanted) -> tuple[np.ndarray, Any]:
    """Pixels of an image, and its DICOM header if an output needs it."""
    if _FROM_HEADERS & wanted.outputs and image.path.is_file():
        with image.path.open("rb") as file:
            is_dicom = looks_like_dicom(file.read(132))
        if is_dicom:
            read = read_dicom(image.path)
            return read_image(read.pixels, image.name), read.dataset
    return read_image(image.path), None


class _Writer:
    """Computes outputs and writes lines and files."""

    def __init__(self, pipeline: Any, wanted: _Wanted, folder: Path):
        self.pipeline, self.folder, self.wanted = pipeline, folder, wanted
        self.threshold, self.outputs = wanted.threshold, wanted.outputs

    @functools.cached_property
    def dicom(self) -> DicomResultWriter:
        """Writer of DICOM results, and of the identity that FHIR results state."""
        from .dicom_inference import DicomResultWriter

        return DicomResultWriter(self.pipeline, self.wanted.model_name, self.threshold, self.wanted.dicom_kinds)

    def predict(self, batch: Sequence[_Read]) -> tuple[Records, Records]:
        """Predict a batch and write its other outputs; return its lines, of predicted and of failed images."""
        good, readable = [], [read for read in batch if not read.reason]
        bad = [{"image": read.image.name, "reason": read.reason} for read in batch if read.reason]
        for read in batch:
            if read.reason and read.header is not None and "dicom" in self.outputs:
                self._write_refusal(read)
        for read, outputs in zip(readable, self._forward(readable), strict=True):
            name = read.image.name
            try:
                good.append(self._record(read, outputs))
            except ValueError as error:
                bad.append({"image": name, "reason": _reason(error, read.image)})
            except OSError as error:
                if error.errno not in _BAD_NAMES:
                    raise  # such as a full disk
                reason = f"Results cannot have the name `{name}`: {error.strerror}. Rename the image."
                bad.append({"image": name, "reason": reason})
        return good, bad

    def _record(self, read: _Read, outputs: Any) -> dict[str, Any]:
        """Write an image's other outputs and return its line."""
        findings = self.pipeline.postprocess(outputs, threshold=self.threshold)
        try:
            self._write_fhir(read, findings)
            self._write_dicom(read, findings, outputs)
        except OSError:
            raise
        except Exception as error:  # such as a header that lacks what a report needs
            raise ValueError(f"DICOM results: {_reason(error, read.image)}") from error
        self._write_overlay(read, findings, outputs)
        self._write_maps(read, outputs)
        identifiers = {}
        if "identifiers" in self.outputs and read.header is not None:
            from .dicom_source import text_of

            identifiers = {name: text_of(read.header, keyword) for name, keyword in IDENTIFIERS.items()}
        return {
            "image": read.image.name,
            "size": outputs["image_sizes"][0].tolist(),
            "bytes": read.stat[0],
            "modified": read.stat[1],
            **({} if read.warning is None else {"warning": read.warning}),
            **identifiers,
            "findings": findings,
        }

    def _forward(self, reads: Sequence[_Read]) -> list[Any]:
        """Outputs per image, each a batch of one."""
        inputs = [read.inputs for read in reads if read.inputs is not None]
        if not inputs:
            return []
        if "dicom" in self.outputs and len(reads) > 1:  # the last digits of a result depend on the batch's size
            return [output for read in reads for output in self._forward([read])]
        try:
            outputs = self.pipeline.forward({name: _joined([image[name] for image in inputs]) for name in inputs[0]})
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryError(
                f"A batch of {len(inputs)} images does not fit into memory. Lower `batch_size` and start again: "
                "finished images are kept."
            ) from error
        return [
            type(outputs)(**{name: values[row : row + 1] for name, values in outputs.items()})
            for row in range(len(inputs))
        ]

    def _write_overlay(self, read: _Read, findings: list[dict[str, Any]], outputs: Any) -> None:
        """Draw the findings over the image, one with its map."""
        if "overlays" not in self.outputs:
            return
        rank = finding_to_map(findings)
        heat_of = None
        if rank is not None:
            mapped = self.pipeline.postprocess(outputs, threshold=self.threshold, top_k=rank + 1, return_maps=True)
            findings = [*findings[:rank], mapped[rank], *findings[rank + 1 :]]
            heat_of = findings[rank]["label"]
        picture = draw_findings(read.pixels, findings, heat_of, bar="below")
        with replaced_file(self.folder / "overlays" / f"{read.image.name}.png") as path:
            picture.save(path, format="PNG")

    def _write_maps(self, read: _Read, outputs: Any) -> None:
        if "maps" not in self.outputs:
            return
        config = self.pipeline.model.config
        size = outputs["image_sizes"][0].tolist()
        box = self.pipeline.image_processor.letterbox((size[0], size[1]))
        with replaced_file(self.folder / "maps" / f"{read.image.name}.npz") as path, path.open("wb") as file:
            np.savez_compressed(
                file,
                maps=outputs["localization_maps"][0].float().numpy(),
                labels=np.array([config.id2label[index] for index in range(config.num_labels)]),
                image_size=np.array(size),
                input_size=np.array(box.input),
                content=np.array([box.top, box.left, *box.content]),
            )

    def _write_fhir(self, read: _Read, findings: list[dict[str, Any]]) -> None:
        for output in sorted(self.outputs & _FHIR.keys()) if read.header is not None else ():
            from .fhir import fhir_bundle

            bundle = fhir_bundle(read.header, findings, self.dicom.identity, release=_FHIR[output], doubt=read.doubt)
            with replaced_file(self.folder / output / f"{read.image.name}.json") as path:
                path.write_text(json.dumps(bundle, indent=1) + "\n", encoding="utf-8")

    def _write_dicom(self, read: _Read, findings: list[dict[str, Any]], outputs: Any) -> None:
        if read.header is None or "dicom" not in self.outputs:
            return
        target = self.folder / "dicom" / read.image.name
        with replaced_files(target.parent, durable=False) as made:
            self.dicom.write(read.header, np.asarray(read.pixels), findings, outputs, made, target.name, read.doubt)

    def _write_refusal(self, read: _Read) -> None:
        reason = read.reason.replace(read.image.name, "image")
        target = self.folder / "dicom" / read.image.name
        try:
            with replaced_files(target.parent, durable=False) as made:
                self.dicom.refuse(read.header, reason, made / f"{target.name}.report.dcm")
        except OSError as error:
            if error.errno not in _BAD_NAMES:
                raise
        except Exception:  # a header too broken for a report; the image counts as failed anyway
            pass


def _joined(values: Sequence[Any]) -> Any:
    """Arrays or tensors of one image each as a batch."""
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    import torch

    return torch.cat(list(values))


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that memory ran out, as Python or torch report it."""
    while error is not None:
        words = str(error).lower() if isinstance(error, RuntimeError) else ""
        if isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words:
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception, image: ImageFile) -> str:
    """Why an image failed, without its folder; a library's message may quote the patient, so it is left out."""
    if out_of_memory(error):
        return f"Too little free memory for `{image.name}`. Predict again with fewer workers and a smaller batch_size."
    if isinstance(error, _OWN_ERRORS):
        return str(error).replace(str(image.path), image.name) or type(error).__name__
    return f"`{image.name}` must be readable, got an unexpected {type(error).__name__}. Check the file."


def _read_ahead(
    images: Sequence[ImageFile], read: Callable[[ImageFile], _Read], workers: int, ahead: int
) -> Generator[_Read, None, None]:
    """Images in order, with at most `ahead` of them read in advance."""
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
