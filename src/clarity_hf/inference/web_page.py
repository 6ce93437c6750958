# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A web page for one image at a time: findings with their thresholds, and a map and boxes over the image.

For one person at their own machine, or a few at a demonstration; not for a hospital's network. The page asks nothing
of any other host and keeps nothing: an uploaded file is deleted as soon as it is read, the image and its maps stay in
memory until the tab closes, another image takes their place or they are forgotten after `HELD_SECONDS`, and pictures
and JSON are made in the page. The model runs once an image; another finding or opacity only draws again.

gradio is the extra `demo`, imported when a page is built.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import types
import urllib.parse
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
"""Images are shown with at most this many pixels on the longer side; scores and boxes are of the whole image."""

SAMPLES: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("Cardiomegaly", 1, ("Cardiomegaly",)),
    ("Effusion", 2, ("Effusion",)),
    ("Mass", 3, ("Mass",)),
    ("No finding", 4, ()),
)
"""Phantoms to choose from: title, seed, and the findings that are drawn."""

SAMPLE_SIDE = 512
"""Side of the phantoms, in pixels."""

HELD_IMAGES = 32
"""Images in memory at a time; the one used longest ago makes room."""

HELD_SECONDS = 1800.0
"""After this time without use an image is forgotten, whether or not its tab was closed."""

SWEEP_SECONDS = 15
UPLOAD_SECONDS = 120
"""How often uploads are looked through that nobody read, as of a full queue, and the age at which they are deleted;
those that wait in the queue stay."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Names of this machine, as a browser on it says them."""

FILE_TYPES = [".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", "application/dicom"]
"""What the file dialogue offers; what a file is, is told from its content."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors "
)


# One image


@dataclass(frozen=True, eq=False)
class LocalizedImage:
    """An image after the model, with all that pictures of it need.

    Attributes:
        view: `(h, w)` uint8, the image reduced to at most `VIEW_SIDE` on its longer side.
        size: `(H, W)` of the image itself.
        findings: The pipeline's result, highest score first; boxes xyxy in pixels of the image itself.
        maps: Localization maps `(1, F, h, w)` on the patch grid.
        verdict: Whether the image looks like a frontal chest radiograph at all.
    """

    view: np.ndarray
    size: tuple[int, int]
    findings: list[dict[str, Any]]
    maps: ModelOutput
    verdict: RadiographVerdict

    def finding(self, label: str) -> dict[str, Any]:
        """The finding of a label.

        Raises:
            ValueError: There is none.
        """
        for finding in self.findings:
            if finding["label"] == label:
                return finding
        raise ValueError(f"`label` must be one of the model's findings, got {label!r}. Take one of the table.")


def localize_image(pipeline: ChestXrayLocalizationPipeline, source: Any) -> LocalizedImage:
    """Run the model on one image.

    Args:
        pipeline: Its own thresholds apply.
        source: Any source of [`read_image`].

    Raises:
        ImportError, TypeError, ValueError: As [`read_image`]; the messages call the source `image`.
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
    """Draw the map and the boxes of one finding over the reduced image.

    Args:
        pipeline: That localized the image.
        image: From `localize_image`.
        label: Finding to draw.
        opacity: Of the wash, in [0, 1].
        style: `wash` or `contours`, as in [`draw_findings`].
        all_boxes: Draw the boxes of the other present findings too.

    Returns:
        RGB picture with the scale of the map below.

    Raises:
        ValueError: There is no such finding, or another argument is out of range.
    """
    index = pipeline.model.config.label2id[image.finding(label)["label"]]
    shown = image.view.shape
    heat = pipeline.image_processor.post_process_maps(image.maps, [shown], [index])[0][0].numpy()
    drawn: list[dict[str, Any]] = []
    for finding in image.findings:
        if finding["label"] == label:
            drawn.insert(0, {**finding, "boxes": _scaled(finding["boxes"], image.size, shown), "map": heat})
        elif all_boxes:
            drawn.append({**finding, "boxes": _scaled(finding["boxes"], image.size, shown)})
    return draw_findings(
        image.view, drawn, label, opacity, style=style, bar="below", max_findings=None  # type: ignore[arg-type]
    )


def _scaled(
    boxes: Sequence[Mapping[str, float]], size: tuple[int, int], shown: tuple[int, ...]
) -> list[dict[str, float]]:
    """Boxes in pixels of an image of another size."""
    factors = {"x": shown[1] / size[1], "y": shown[0] / size[0]}
    return [{edge: value * factors[edge[0]] for edge, value in box.items()} for box in boxes]


def image_record(pipeline: ChestXrayLocalizationPipeline, image: LocalizedImage, model_name: str) -> dict[str, Any]:
    """What the JSON file of an image holds: no name, no path, no UID.

    Args:
        pipeline: That localized the image.
        image: From `localize_image`.
        model_name: Name of the checkpoint, no path.
    """
    return {
        "notice": html.NOTICE,
        "model": model_name,
        "calibrated": pipeline.model.config.is_calibrated,
        "image": {"height": image.size[0], "width": image.size[1]},
        "warning": None if image.verdict.passed else html.doubt_in_words(image.verdict.reason),
        "findings": image.findings,
    }


class HeldImages:
    """The last image of each open tab, in memory.

    Args:
        capacity: Images at a time.
        seconds: After which, without use, an image is forgotten.
    """

    def __init__(self, capacity: int = HELD_IMAGES, seconds: float = HELD_SECONDS):
        self._capacity, self._seconds = capacity, seconds
        self._images: OrderedDict[str, tuple[float, LocalizedImage]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, session: str, image: LocalizedImage) -> None:
        """Hold an image instead of the session's earlier one."""
        with self._lock:
            self._images[session] = (time.monotonic(), image)
            self._images.move_to_end(session)
            self._forget()

    def get(self, session: str) -> LocalizedImage | None:
        """The image of a session, if it is still held."""
        with self._lock:
            self._forget()
            if session not in self._images:
                return None
            image = self._images[session][1]
            self._images[session] = (time.monotonic(), image)
            self._images.move_to_end(session)
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
    """The bytes of an uploaded file, which is deleted, with the folder that it alone was in.

    Raises:
        ValueError: It is not there any more.
    """
    path = Path(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError("`image` must be uploaded first, got none that is still there. Upload it again.") from error
    finally:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another file is in it
            path.parent.rmdir()


def plain_refusal(error: Exception) -> str:
    """Why there is no result, in sentences for the page.

    The words of errors that are not this package's may quote a path or the patient and are left out.
    """
    if out_of_memory(error):
        return "There is too little memory for this image now. Try again later, or reduce the image."
    if isinstance(error, TypeError | ValueError | ImportError):
        return str(error).replace("`image`", "The image").replace("`", "")
    logger.error("an image failed with %s", type(error).__name__)
    return "The image could not be read or computed. Check that the file is whole, or try another."


# The page


def _gradio() -> Any:
    """gradio, silent: without its counting of users and its question for newer versions."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "`gradio` must be installed for the web page, got none. Run pip install 'clarity_hf[demo]'."
        ) from error
    return gradio


def _blocks_without_urls(gradio: Any) -> type:
    """`gradio.Blocks` that fetches nothing: it would download a file that a request names by its address."""

    class Blocks(gradio.Blocks):
        async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **named: Any) -> Any:
            if _names_url(inputs):
                raise gradio.Error("Images are uploaded, not fetched from an address.", print_exception=False)
            return await super().preprocess_data(block_fn, inputs, *arguments, **named)

    return Blocks


def _names_url(value: Any) -> bool:
    """Whether a file of a request's values is an address of the web."""
    if isinstance(value, Mapping):
        where = str(value.get("path", "")).strip().lower()
        return where.startswith(("http:", "https:")) or any(_names_url(part) for part in value.values())
    return isinstance(value, list | tuple) and any(_names_url(part) for part in value)


def _asking_for(method: Callable[..., Any], **types: type) -> Callable[..., Any]:
    """A method as gradio wants it: the types of the arguments that it is to fill in, in the annotations."""

    @functools.wraps(method)
    def call(*arguments: Any) -> Any:
        return method(*arguments)

    call.__annotations__ = types
    return call


class _Listeners:
    """What the page does on each event; all that it returns is HTML."""

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
        except Exception as error:  # of a broken file a library may raise anything, and the page goes on
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
    """The page as `gradio.Blocks`; [`serve_page`] serves it.

    Args:
        pipeline: One image at a time goes through it.
        model_name: Name of the checkpoint, no path.
        max_queue: Images that may wait; the next is turned away.
        max_upload_mb: For the words of the page; the server enforces it.

    Raises:
        ImportError: The extra `demo` is not installed.
        ValueError: An argument is out of range.
    """
    if max_queue < 1:
        raise ValueError(f"`max_queue` must be at least 1, got {max_queue}. Pass the images that may wait.")
    if not max_upload_mb > 0:
        raise ValueError(f"`max_upload_mb` must be above 0, got {max_upload_mb}. Pass megabytes, such as 64.")
    gradio = _gradio()
    phantoms = [draw_phantom(seed, SAMPLE_SIDE, findings).image for _, seed, findings in SAMPLES]
    listeners = _Listeners(pipeline, model_name, phantoms)
    with _blocks_without_urls(gradio)(
        analytics_enabled=False,
        title="clarity_hf",
        fill_width=True,
        delete_cache=(3600, 86400),  # `serve_page` sweeps by itself, and knows what waits in the queue
    ) as page:
        gradio.HTML(html.header(model_name), js_on_load=None)
        chosen = gradio.State("")
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=6, min_width=420):
                picture = gradio.HTML(html.waiting(), js_on_load=html.ON_PICTURE, elem_id="picture")
            with gradio.Column(scale=5, min_width=420):
                upload = gradio.File(
                    label=f"Image: PNG, JPEG, TIFF, BMP or DICOM, up to {max_upload_mb:g} MB",
                    file_types=FILE_TYPES,
                    height=84,
                    elem_id="upload",
                )
                samples = gradio.HTML(
                    html.samples(
                        [(title, Image.fromarray(image)) for (title, *_), image in zip(SAMPLES, phantoms, strict=True)]
                    ),
                    js_on_load=html.ON_SAMPLE,
                    elem_id="samples",
                )
                with gradio.Row():
                    opacity = gradio.Slider(0, 1, 0.45, step=0.05, label="Opacity", scale=3, elem_id="opacity")
                    style = gradio.Radio(
                        [("Colour wash", "wash"), ("Contours", "contours")],
                        value="wash",
                        label="Map drawn as",
                        scale=4,
                    )
                    all_boxes = gradio.Checkbox(False, label="All boxes", scale=2, min_width=120, elem_id="all-boxes")
                table = gradio.HTML("", js_on_load=html.ON_FINDING, elem_id="findings")
        controls = [chosen, opacity, style, all_boxes]
        running: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "api_visibility": "private"}
        # Without preprocessing, which would leave an empty file for each upload behind.
        upload.upload(
            _asking_for(listeners.upload, request=gradio.Request),
            [upload, *controls[1:]],
            [picture, table, chosen, upload],
            preprocess=False,
            **running,
        )
        samples.select(
            _asking_for(listeners.sample, event=gradio.SelectData, request=gradio.Request),
            controls[1:],
            [picture, table, chosen],
            **running,
        )
        drawing: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
        table.select(
            _asking_for(listeners.choose, event=gradio.SelectData, request=gradio.Request),
            controls[1:],
            [picture, table, chosen],
            **drawing,
        )
        gradio.on(
            [opacity.change, style.change, all_boxes.change],
            _asking_for(listeners.redraw, request=gradio.Request),
            controls,
            picture,
            trigger_mode="always_last",
            **drawing,
        )
        page.unload(_asking_for(listeners.close, request=gradio.Request))
    page.queue(max_size=max_queue, default_concurrency_limit=1, api_open=False)
    return page


def serve_page(
    pipeline: ChestXrayLocalizationPipeline,
    model_name: str,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_upload_mb: float = 64,
    max_queue: int = 8,
    open_browser: bool = False,
    allowed_hosts: Sequence[str] = (),
    frame_ancestors: str = "'none'",
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve the page until the process is interrupted or ended by SIGTERM.

    Uploads lie in a folder that only this user may read and that goes with the server. There is no login and no
    encryption: beyond the loopback address whoever reaches the port may use the page. Requests that name another host
    than this one, or come from a page of another origin, are refused, as a website that the user's browser shows
    might send them.

    Args:
        pipeline: One image at a time goes through it.
        model_name: Name of the checkpoint, no path.
        host: Address to listen on, of IPv4 or IPv6; by default only this machine reaches it.
        port: To listen on; 0 takes a free one.
        max_upload_mb: Larger uploads are refused, in megabytes of 10⁶ bytes.
        max_queue: Images that may wait; the next is turned away.
        open_browser: Open the page in the browser of this machine.
        allowed_hosts: Names under which browsers reach the page, beside its address and, on this machine, `localhost`;
            beyond the loopback address every address without a name is taken too, and the machine's own name.
        frame_ancestors: Origins whose pages may show this one in a frame, as Content-Security-Policy has them.
        ready: Called with the page's address once it is served.

    Raises:
        ImportError: The extra `demo` is not installed.
        OSError: The port is taken.
        ValueError: An argument is out of range.
    """
    host = host.strip("[]")
    with (
        _until_ended() as ended,
        tempfile.TemporaryDirectory(prefix="clarity-hf-page-") as folder,
        _environment(GRADIO_TEMP_DIR=folder),
        _uploads_apart(),
        _errors_without_paths(),
    ):
        page = build_page(pipeline, model_name, max_queue=max_queue, max_upload_mb=max_upload_mb)
        gradio = _gradio()
        guard = {
            "max_bytes": round(max_upload_mb * 1e6) + 2**20,
            "hosts": _hosts(host, allowed_hosts),
            "any_address": host not in LOOPBACK,
            "frame_ancestors": frame_ancestors,
        }
        try:
            if ended:
                return
            _, local, _ = page.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=port or _free_port(host),
                max_file_size=round(max_upload_mb * 1e6),
                inbrowser=open_browser and not ended,
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                footer_links=[],
                run_history=False,  # it would keep images in the browser
                enable_monitoring=False,
                mcp_server=False,
                ssr_mode=False,
                state_session_capacity=2 * HELD_IMAGES,
                app_kwargs={"middleware": [(_Guarded, (), guard)]},
                theme=_theme(gradio),
                css=html.STYLE,
            )
            if ready is not None and not ended:
                ready(local)
            swept = time.monotonic()
            while not ended:
                time.sleep(POLL_SECONDS)
                if time.monotonic() - swept > SWEEP_SECONDS:
                    # gradio sweeps too, but its sweep ends for good when an upload arrives in the middle of it.
                    delete_old_files(folder, UPLOAD_SECONDS, _waiting_files(page))
                    swept = time.monotonic()
        finally:
            page.close(verbose=False)


def _waiting_files(page: Any) -> set[str]:
    """Uploads of events that wait in the queue or run, whatever their age."""
    queue = page._queue
    waiting = [event for events in list(queue.event_queue_per_concurrency_id.values()) for event in list(events.queue)]
    waiting += [event for job in list(queue.active_jobs) if job is not None for event in job]
    return {path for event in waiting if event.data is not None for path in _paths(event.data.data)}


def _paths(value: Any) -> Iterator[str]:
    """Absolute paths of the files in an event's values."""
    if isinstance(value, Mapping):
        if isinstance(value.get("path"), str):
            yield os.path.abspath(value["path"])
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _paths(part)


def _hosts(host: str, allowed: Sequence[str]) -> set[str]:
    """Names that a request may name as its host."""
    own = LOOPBACK if host in LOOPBACK else (*LOOPBACK, socket.gethostname())
    return {name.casefold().strip("[]") for name in (host, *own, *allowed)}


def delete_old_files(folder: str | os.PathLike, seconds: float, kept: Collection[str] = ()) -> None:
    """Delete the files in a folder and below that were written longer ago; what goes meanwhile is passed over.

    Args:
        folder: The folder.
        seconds: Age from which a file is deleted.
        kept: Absolute paths of files that stay.
    """
    for parent, _, names in os.walk(str(folder)):  # which passes over folders that are gone when it comes to them
        for path in (Path(parent) / name for name in names if os.path.abspath(os.path.join(parent, name)) not in kept):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > seconds:
                    path.unlink()


def _theme(gradio: Any) -> Any:
    """Fonts of the system, so that none is fetched."""
    colours = gradio.themes.colors
    return gradio.themes.Base(
        primary_hue=colours.teal,
        neutral_hue=colours.slate,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300")


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _uploads_apart() -> Iterator[None]:
    """A folder for each upload: gradio names it by the content, and an image that two tabs send would be one file.

    The tab that is answered first deletes it, and the other would be told to upload it again.
    """
    route_utils = _gradio().route_utils
    before: Any = route_utils.GradioUploadFile

    class Upload(before):
        def __init__(self, *arguments: Any, **named: Any):
            super().__init__(*arguments, **named)
            self.sha.update(uuid.uuid4().bytes)

    route_utils.GradioUploadFile = Upload
    try:
        yield
    finally:
        route_utils.GradioUploadFile = before


@contextlib.contextmanager
def _errors_without_paths() -> Iterator[None]:
    """Keep tracebacks out of the log: they name folders of this machine, and a library's words may name a patient."""

    def print_exc(*_: Any, **__: Any) -> None:
        logger.error("a request failed with %s", type(sys.exc_info()[1]).__name__)

    class Short(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.exc_info:
                kind = getattr(record.exc_info[0], "__name__", "an error")
                record.msg, record.args = "a request failed with %s", (kind,)
                record.exc_info = record.exc_text = record.stack_info = None
            return True

    import gradio.queueing
    import gradio.route_utils
    import gradio.routes

    modules: list[Any] = [gradio.queueing, gradio.route_utils, gradio.routes]
    before = [module.traceback for module in modules]
    short, loggers = Short(), [logging.getLogger(name) for name in ("asyncio", "uvicorn.error")]
    for module in modules:
        module.traceback = types.SimpleNamespace(print_exc=print_exc)
    for named in loggers:
        named.addFilter(short)
    try:
        yield
    finally:
        for module, whole in zip(modules, before, strict=True):
            module.traceback = whole
        for named in loggers:
            named.removeFilter(short)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        return int(listening.getsockname()[1])


POLL_SECONDS = 0.2
"""How often the server looks whether a signal has ended it."""


class _Ended:
    """Whether a signal has come; the second one raises, for a step that does not return."""

    def __init__(self) -> None:
        self._signals = 0

    def __bool__(self) -> bool:
        return self._signals > 0

    def __call__(self, *_: Any) -> None:
        """Note a signal, as its handler."""
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _until_ended() -> Iterator[_Ended]:
    """Note Ctrl-C and SIGTERM, which would otherwise leave the folder of uploads behind.

    The signal raises nothing: libraries lose an error that comes up while they import or in their callbacks, and then
    the server would start as if nothing had been. Nor does it set an event, which may wait for ever: the thread that
    the handler interrupts may hold its lock.
    """
    ended = _Ended()
    in_main = threading.current_thread() is threading.main_thread()  # no other may take signals
    before = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM) if in_main}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Guarded:
    """ASGI middleware: only requests of the page, none beyond a size, and a browser that turns to no other host.

    A website that the user looks at may send requests here too, by this address, or by a name of its own that it lets
    resolve to it (DNS rebinding). The first have its origin, the second its name as their host.

    Args:
        app: To pass on to.
        max_bytes: Of a request's body.
        hosts: Names that a request may name as its host.
        any_address: Whether it may name any address besides, which no name can be made to resolve to.
        frame_ancestors: Origins whose pages may show this one in a frame.
    """

    def __init__(self, app: Any, max_bytes: int, hosts: Collection[str], any_address: bool, frame_ancestors: str):
        self.app, self.max_bytes, self.hosts, self.any_address = app, max_bytes, hosts, any_address
        self.headers = [
            (b"content-security-policy", (_POLICY + frame_ancestors).encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope["headers"])
        if refusal and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        received = 0
        started = False

        async def receive_some() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:  # ends as a client that went away does
                return {"type": "http.disconnect"}
            return message

        async def send_with_policy(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        if refusal:
            await _answer(send_with_policy, 403, refusal)
            return
        try:
            await self.app(scope, receive_some, send_with_policy)
        except Exception as error:  # whose traceback the server would print, with the folders of this machine
            logger.error("a request failed with %s", type(error).__name__)
            if scope["type"] == "http" and not started:
                await _answer(send_with_policy, 500, "The request failed.")

    def refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Why a request is not of this page, or nothing."""
        named: dict[str, list[str]] = {}
        for name, value in headers:
            named.setdefault(name.decode("latin-1").casefold(), []).append(value.decode("latin-1"))
        hosts, origins = named.get("host", []), named.get("origin", [])
        host = _host_of(f"//{hosts[0]}") if len(hosts) == 1 else None
        if host is None or not (host[0] in self.hosts or (self.any_address and _is_address(host[0]))):
            return "This page is not served under that name. Allow it with --allowed-host."
        if any(_host_of(origin) != host for origin in origins):
            return "Requests of other websites are not served."
        site, mode = (named.get(f"sec-fetch-{what}", [""])[0] for what in ("site", "mode"))
        if site in ("cross-site", "same-site") and mode != "navigate":
            return "Requests of other websites are not served."
        return ""


def _host_of(address: str) -> tuple[str, int | None] | None:
    """Name and port of an address, or None for one that has none, such as the origin `null`."""
    try:
        parts = urllib.parse.urlsplit(address)
        return (parts.hostname, parts.port) if parts.hostname else None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
