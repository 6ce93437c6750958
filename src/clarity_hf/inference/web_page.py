# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A web page for one radiograph at a time: findings with their thresholds, and a map and boxes over the radiograph.

For one person at their own machine, or a few at a demonstration; not for a hospital's network. The page contacts no
other host and stores nothing: an uploaded file is deleted once it is read, and the image and its maps stay in memory
until the tab closes, another image replaces them or `HELD_SECONDS` have passed. The model runs once per image;
choosing another finding or opacity only redraws it.

[`web_server`][clarity_hf.inference.web_server] serves the page. gradio is the extra `demo`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from transformers.modeling_outputs import ModelOutput

from clarity_hf.image_reading import read_image
from clarity_hf.phantoms import draw_phantom
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline
from clarity_hf.radiograph_check import RadiographVerdict, check_radiograph
from clarity_hf.visualization import draw_findings

from . import web_page_html as html
from .batch import out_of_memory

logger = logging.getLogger(__name__)

VIEW_SIDE = 1024
"""Images are shown with at most this many pixels on the longer side; scores and boxes refer to the original image."""

SAMPLES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("Cardiomegaly", 2, ("Cardiomegaly",)),
    ("Effusion", 3, ("Effusion",)),
    ("Mass", 42, ("Mass",)),
    ("No finding", 6, ()),
)
"""Phantoms to choose from: title, seed, and findings."""

SAMPLE_SIDE = 512
"""Side of the phantoms, in pixels."""

HELD_IMAGES = 32
"""Images in memory at a time; the least recently used one is dropped."""

HELD_SECONDS = 1800.0
"""An image that is not used for this time is dropped, even if its tab is still open."""

FILE_TYPES = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", "application/dicom"]
"""File types of the upload dialogue; the format itself is recognized by content."""

# One image


@dataclass(frozen=True, eq=False)
class LocalizedImage:
    """An image and the model's outputs that are needed to draw it.

    Attributes:
        view: `(h, w)` uint8, the image reduced to at most `VIEW_SIDE` on its longer side.
        size: `(H, W)` of the image itself.
        findings: The pipeline's result, highest score first; boxes xyxy in pixels of the image itself.
        maps: Localization maps `(1, F, h, w)` on the patch grid.
        verdict: Whether the image looks like a frontal chest radiograph.
    """

    view: np.ndarray
    size: tuple[int, int]
    findings: list[dict[str, Any]]
    maps: ModelOutput
    verdict: RadiographVerdict

    def finding(self, label: str) -> dict[str, Any]:
        """The finding with a label; a ValueError for an unknown one."""
        for finding in self.findings:
            if finding["label"] == label:
                return finding
        raise ValueError(f"`label` must be one of the model's findings, got {label!r}. Choose one from the table.")


def localize_image(pipeline: ChestXrayLocalizationPipeline, source: Any) -> LocalizedImage:
    """Run the model, with its own thresholds, on one image from any source of [`read_image`].

    Raises:
        ImportError, TypeError, ValueError: As [`read_image`]; messages call the source `image`.
    """
    pixels = read_image(source, "image")
    verdict = check_radiograph(pixels)
    outputs = pipeline.forward(pipeline.preprocess(pixels, radiograph_check="off"))
    height, width = pixels.shape
    view = Image.fromarray(pixels.round().astype(np.uint8))
    view.thumbnail((VIEW_SIDE, VIEW_SIDE), Image.Resampling.LANCZOS)
    maps = ModelOutput(localization_maps=outputs["localization_maps"].float().cpu())
    return LocalizedImage(np.asarray(view), (height, width), pipeline.postprocess(outputs), maps, verdict)


def draw_view(
    pipeline: ChestXrayLocalizationPipeline,
    image: LocalizedImage,
    label: str,
    opacity: float = 0.45,
    style: str = "wash",
    all_boxes: bool = False,
) -> Image.Image:
    """Draw the map and the boxes of one finding over the reduced image, in RGB, with the scale of the map below.

    Args:
        pipeline: The pipeline that localized the image.
        image: From `localize_image`.
        label: Finding to draw.
        opacity: Opacity of the wash, in [0, 1].
        style: `wash` or `contours`, as in [`draw_findings`].
        all_boxes: Draw the boxes of the other present findings too.

    Raises:
        ValueError: There is no such finding, or another argument is out of range.
    """
    index = pipeline.model.config.findings.index(image.finding(label)["label"])
    shown = image.view.shape
    heat = pipeline.image_processor.post_process_maps(image.maps, [shown], [index])[0][0].numpy()
    factors = {"x": shown[1] / image.size[1], "y": shown[0] / image.size[0]}
    drawn: list[dict[str, Any]] = []
    for finding in image.findings:
        boxes = [{side: value * factors[side[0]] for side, value in box.items()} for box in finding["boxes"]]
        if finding["label"] == label:
            drawn.insert(0, {**finding, "boxes": boxes, "map": heat})
        elif all_boxes:
            drawn.append({**finding, "boxes": boxes})
    return draw_findings(
        image.view, drawn, label, opacity, style=style, bar="below", max_findings=None  # type: ignore[arg-type]
    )


def image_record(pipeline: ChestXrayLocalizationPipeline, image: LocalizedImage, model_name: str) -> dict[str, Any]:
    """Content of the JSON file of an image, without a name, a path or a UID; `model_name` is not a path either."""
    return {
        "notice": html.NOTICE,
        "model": model_name,
        "calibrated": pipeline.model.config.is_calibrated,
        "image": {"height": image.size[0], "width": image.size[1]},
        "warning": None if image.verdict.passed else html.doubt_in_words(image.verdict.reason),
        "findings": image.findings,
    }


class HeldImages:
    """The last image of each open tab, at most `capacity`, each for `seconds` since its last use."""

    def __init__(self, capacity: int = HELD_IMAGES, seconds: float = HELD_SECONDS):
        self._capacity, self._seconds = capacity, seconds
        self._images: OrderedDict[str, tuple[float, LocalizedImage]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, session: str, image: LocalizedImage) -> None:
        """Hold an image instead of the session's earlier one."""
        with self._lock:
            self._images.pop(session, None)
            self._images[session] = (time.monotonic(), image)
            self._forget()

    def get(self, session: str) -> LocalizedImage | None:
        """The image of a session, if it is still held."""
        with self._lock:
            self._forget()
            _, image = self._images.pop(session, (0, None))
            if image is not None:
                self._images[session] = (time.monotonic(), image)
            return image

    def drop(self, session: str) -> None:
        """Forget the image of a session."""
        with self._lock:
            self._images.pop(session, None)

    def __len__(self) -> int:
        return len(self._images)

    def _forget(self) -> None:
        oldest = time.monotonic() - self._seconds
        for session in [session for session, (used, _) in self._images.items() if used < oldest]:
            del self._images[session]
        while len(self._images) > self._capacity:
            self._images.popitem(last=False)


def taken_upload(path: str | os.PathLike) -> bytes:
    """The bytes of an uploaded file, which is deleted, with its folder if that is then empty.

    Raises:
        ValueError: The file no longer exists.
    """
    path = Path(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError("`image` must be uploaded first, got a file that is gone. Upload it again.") from error
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another file is in it
            path.parent.rmdir()


def plain_refusal(error: Exception) -> str:
    """Why there is no result, in words; messages of other libraries may quote a patient and are left out."""
    if out_of_memory(error):
        return "There is too little memory for this image now. Try again later, or reduce the image."
    if isinstance(error, TypeError | ValueError | ImportError):
        return str(error).replace("`image`", "The image").replace("`", "")
    logger.error("an image failed with %s", type(error).__name__)
    return "The image could not be read or computed. Check that the file is complete, or try another."


# The page


def import_gradio() -> Any:
    """Import gradio without its telemetry and its check for newer versions.

    Raises:
        ImportError: The extra `demo` is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise ImportError("The web page needs gradio. Run pip install 'clarity_hf[demo]'.") from error
    return gradio


def _blocks_without_urls(gradio: Any) -> type:
    """Subclass of `gradio.Blocks` that refuses URLs in requests, which gradio would download."""

    class Blocks(gradio.Blocks):
        async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **named: Any) -> Any:
            if _names_url(inputs):
                raise gradio.Error("Images are uploaded, not fetched from an address.", print_exception=False)
            return await super().preprocess_data(block_fn, inputs, *arguments, **named)

    return Blocks


def _names_url(value: Any) -> bool:
    """Whether a request names a file by its URL."""
    if isinstance(value, Mapping):
        where = str(value.get("path", "")).strip().lower()
        return where.startswith(("http:", "https:")) or any(_names_url(part) for part in value.values())
    return isinstance(value, list | tuple) and any(_names_url(part) for part in value)


def _asking_for(method: Callable[..., Any], **types: type) -> Callable[..., Any]:
    """A method with annotations that tell gradio which arguments to fill in."""

    @functools.wraps(method)
    def call(*arguments: Any) -> Any:
        return method(*arguments)

    call.__annotations__ = types
    return call


class _Listeners:
    """Handlers of the page's events, which return HTML."""

    def __init__(self, pipeline: ChestXrayLocalizationPipeline, model_name: str, phantoms: Sequence[np.ndarray]):
        self._pipeline, self._model_name, self._phantoms = pipeline, model_name, phantoms
        self._held = HeldImages()
        self._score_name = "Probability" if pipeline.model.config.is_calibrated else "Score"

    def upload(self, file: Any, opacity: float, style: str, all_boxes: bool, request: Any) -> tuple[Any, ...]:
        """Picture, table, chosen finding, and an empty field of upload."""
        return *self._localized(lambda: taken_upload(file["path"]), request, (opacity, style, all_boxes)), None

    def sample(self, opacity: float, style: str, all_boxes: bool, event: Any, request: Any) -> tuple[str, ...]:
        """Picture, table and chosen finding."""
        return self._localized(lambda: self._phantoms[int(event.index)], request, (opacity, style, all_boxes))

    def choose(self, opacity: float, style: str, all_boxes: bool, event: Any, request: Any) -> tuple[str, ...]:
        """Picture, table and chosen finding."""
        return self._shown(request, str(event.value), (opacity, style, all_boxes))

    def redraw(self, chosen: str, opacity: float, style: str, all_boxes: bool, request: Any) -> str:
        """Picture."""
        return self._shown(request, chosen, (opacity, style, all_boxes))[0] if chosen else html.waiting()

    def close(self, request: Any) -> None:
        """Forget the image of a tab."""
        self._held.drop(request.session_hash)

    def _localized(self, source: Callable[[], Any], request: Any, drawing: tuple[Any, ...]) -> tuple[str, ...]:
        self._held.drop(request.session_hash)
        try:
            image = localize_image(self._pipeline, source())
        except Exception as error:  # libraries may raise anything for a broken file
            return html.refusal(plain_refusal(error)), "", ""
        self._held.put(request.session_hash, image)
        return self._shown(request, image.findings[0]["label"], drawing)

    def _shown(self, request: Any, label: str, drawing: tuple[Any, ...]) -> tuple[str, ...]:
        image = self._held.get(request.session_hash)
        if image is None:
            return html.refusal("The image is no longer held here. Upload it again."), "", ""
        picture, passed = draw_view(self._pipeline, image, label, *drawing), image.verdict.passed
        record = image_record(self._pipeline, image, self._model_name)
        return (
            html.image(picture, image.finding(label), self._score_name, "" if passed else image.verdict.reason),
            html.findings_table(image.findings, label, self._score_name, record),
            label,
        )


def build_page(
    pipeline: ChestXrayLocalizationPipeline, model_name: str, *, max_queue: int = 8, max_upload_mb: float = 64
) -> Any:
    """The page as `gradio.Blocks`, to be served by `serve_page`, which enforces the limit of uploads.

    `model_name` is not a path; images beyond `max_queue` waiting ones are rejected.

    Raises:
        ImportError: The extra `demo` is not installed.
        ValueError: An argument is out of range.
    """
    if max_queue < 1:
        raise ValueError(f"`max_queue` must be at least 1, got {max_queue}. Pass the number of images that may wait.")
    if not max_upload_mb > 0:
        raise ValueError(f"`max_upload_mb` must be above 0, got {max_upload_mb}. Pass megabytes, such as 64.")
    gradio = import_gradio()
    phantoms = [draw_phantom(seed, SAMPLE_SIDE, findings).image for _, seed, findings in SAMPLES]
    listeners = _Listeners(pipeline, model_name, phantoms)
    with _blocks_without_urls(gradio)(
        analytics_enabled=False,
        title="clarity_hf",
        fill_width=True,
        delete_cache=(3600, 86400),  # `serve_page` deletes old files itself, except those in the queue
    ) as page:
        gradio.HTML(html.header(model_name), js_on_load=None)
        _connect(gradio, _components(gradio, phantoms, max_upload_mb), listeners)
        page.unload(_asking_for(listeners.close, request=gradio.Request))
    page.queue(max_size=max_queue, default_concurrency_limit=1, api_open=False)
    return page


def _components(gradio: Any, phantoms: Sequence[np.ndarray], max_upload_mb: float) -> SimpleNamespace:
    """The page's fields: the picture on the left, everything else on the right."""
    made = SimpleNamespace(chosen=gradio.State(""))
    with gradio.Row(equal_height=False):
        with gradio.Column(scale=6, min_width=420):
            made.picture = gradio.HTML(html.waiting(), js_on_load=html.ON_PICTURE, elem_id="picture")
        with gradio.Column(scale=5, min_width=420):
            label = f"Image: PNG, JPEG, TIFF, BMP or DICOM, up to {max_upload_mb:g} MB"
            made.upload = gradio.File(label=label, file_types=FILE_TYPES, height=84, elem_id="upload")
            titles = [title for title, *_ in SAMPLES]
            pictures = list(zip(titles, map(Image.fromarray, phantoms), strict=True))
            made.samples = gradio.HTML(html.samples(pictures), js_on_load=html.ON_SAMPLE, elem_id="samples")
            with gradio.Row():
                made.opacity = gradio.Slider(0, 1, 0.45, step=0.05, label="Opacity", scale=3, elem_id="opacity")
                styles = [("Colour wash", "wash"), ("Contours", "contours")]
                made.style = gradio.Radio(styles, value="wash", label="Map drawn as", scale=4)
                made.all_boxes = gradio.Checkbox(False, label="All boxes", scale=2, min_width=120, elem_id="all-boxes")
            made.table = gradio.HTML("", js_on_load=html.ON_FINDING, elem_id="findings")
    return made


def _connect(gradio: Any, made: SimpleNamespace, listeners: _Listeners) -> None:
    """Connect the fields with their listeners; only those that run the model wait in the queue."""
    controls, result = [made.opacity, made.style, made.all_boxes], [made.picture, made.table, made.chosen]
    running: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
    drawing: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    of_event = {"event": gradio.SelectData, "request": gradio.Request}
    upload = _asking_for(listeners.upload, request=gradio.Request)
    # Preprocessing would leave an empty file for each upload.
    made.upload.upload(upload, [made.upload, *controls], [*result, made.upload], preprocess=False, **running)
    made.samples.select(_asking_for(listeners.sample, **of_event), controls, result, **running)
    made.table.select(_asking_for(listeners.choose, **of_event), controls, result, **drawing)
    gradio.on(
        [field.change for field in controls],
        _asking_for(listeners.redraw, request=gradio.Request),
        [made.chosen, *controls],
        made.picture,
        trigger_mode="always_last",
        **drawing,
    )
