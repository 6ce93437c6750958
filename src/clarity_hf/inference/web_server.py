# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The server of the web page: start, stop, the folder of uploads, and refused requests.

Uploads are in a folder that only this user can read and that is deleted when the server stops. There is no login and
no encryption: with an address other than loopback, anyone who reaches the port can use the page. Requests that name
another host, or come from a page of another origin, are refused, because a website in the user's browser might have
sent them.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

from . import web_page_html as html
from .web_page import HELD_IMAGES, build_page, import_gradio

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 15
UPLOAD_SECONDS = 120
"""Interval of the search for abandoned uploads, and the age at which they are deleted; uploads waiting in the queue
are kept."""

POLL_SECONDS = 0.2
"""Interval at which the server checks for a signal."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Names of this machine used by a browser on it."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors "
)


@dataclasses.dataclass(frozen=True)
class PageSettings:
    """Settings of the server.

    Attributes:
        host: Address to listen on, IPv4 or IPv6; by default only this machine reaches it.
        port: Port to listen on; 0 selects a free one.
        max_upload_mb: Limit of an upload, in megabytes of 10⁶ bytes.
        max_queue: Images that may wait; further ones are rejected.
        open_browser: Open the page in the browser of this machine.
        allowed_hosts: Names by which browsers may reach the page, besides its address and, on this machine,
            `localhost`. If `host` is not a loopback address, any IP address and the machine's own name are accepted
            too.
        frame_ancestors: Origins whose pages may show this one in a frame, as in Content-Security-Policy.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    max_upload_mb: float = 64
    max_queue: int = 8
    open_browser: bool = False
    allowed_hosts: Sequence[str] = ()
    frame_ancestors: str = "'none'"


DEFAULT_SETTINGS = PageSettings()
"""This machine only, port 7860."""


def serve_page(
    pipeline: ChestXrayLocalizationPipeline,
    model_name: str,
    settings: PageSettings = DEFAULT_SETTINGS,
    *,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve the page until the process is interrupted or ended by SIGTERM.

    The name of the model is not a path. `ready` is called with the page's address once it is served.

    Raises:
        ImportError: The extra `demo` is not installed.
        OSError: The port is in use.
        ValueError: A setting is out of range.
    """
    host = settings.host.strip("[]")
    with (
        _until_ended() as ended,
        tempfile.TemporaryDirectory(prefix="clarity-hf-page-") as folder,
        _environment(GRADIO_TEMP_DIR=folder),
        _uploads_apart(),
        _errors_without_paths(),
    ):
        page = build_page(pipeline, model_name, max_queue=settings.max_queue, max_upload_mb=settings.max_upload_mb)
        max_bytes = round(settings.max_upload_mb * 1e6)
        guard = {
            "max_bytes": max_bytes + 2**20,
            "hosts": _hosts(host, settings.allowed_hosts),
            "any_address": host not in LOOPBACK,
            "frame_ancestors": settings.frame_ancestors,
        }
        try:
            if ended:
                return
            _, local, _ = page.launch(
                server_name=f"[{host}]" if ":" in host else host,
                server_port=settings.port or _free_port(host),
                max_file_size=max_bytes,
                inbrowser=settings.open_browser and not ended,
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
                theme=_theme(),
                css=html.STYLE,
            )
            if ready is not None and not ended:
                ready(local)
            swept = time.monotonic()
            while not ended:
                time.sleep(POLL_SECONDS)
                if time.monotonic() - swept > SWEEP_SECONDS:
                    # gradio sweeps too, but stops forever when an upload arrives during a sweep.
                    delete_old_files(folder, UPLOAD_SECONDS, _waiting_files(page))
                    swept = time.monotonic()
        finally:
            page.close(verbose=False)


def _waiting_files(page: Any) -> set[str]:
    """Uploads of waiting and running events, whatever their age."""
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
    """Hosts that a request may name."""
    own = LOOPBACK if host in LOOPBACK else (*LOOPBACK, socket.gethostname())
    return {name.casefold().strip("[]") for name in (host, *own, *allowed)}


def delete_old_files(folder: str | os.PathLike, seconds: float, kept: Collection[str] = ()) -> None:
    """Delete files below a folder that are older than some seconds, except those whose absolute paths are `kept`."""
    for parent, _, names in os.walk(os.path.abspath(folder)):
        for path in (Path(parent) / name for name in names):
            with contextlib.suppress(FileNotFoundError):  # it vanished meanwhile
                if str(path) not in kept and time.time() - path.stat().st_mtime > seconds:
                    path.unlink()


def _theme() -> Any:
    """System fonts, so that none is downloaded."""
    gradio = import_gradio()
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
def _replaced(modules: Sequence[Any], name: str, value: Any) -> Iterator[None]:
    """Temporarily replace an attribute of modules."""
    before = [getattr(module, name) for module in modules]
    for module in modules:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            setattr(module, name, own)


@contextlib.contextmanager
def _uploads_apart() -> Iterator[None]:
    """Give each upload its own folder. gradio uses one for equal files, which the first tab would delete."""
    route_utils = import_gradio().route_utils
    before: Any = route_utils.GradioUploadFile

    class Upload(before):
        def __init__(self, *arguments: Any, **named: Any):
            super().__init__(*arguments, **named)
            self.sha.update(uuid.uuid4().bytes)

    with _replaced([route_utils], "GradioUploadFile", Upload):
        yield


@contextlib.contextmanager
def _errors_without_paths() -> Iterator[None]:
    """Keep tracebacks out of the log, because they name folders of this machine and may name a patient."""

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
    short, loggers = Short(), [logging.getLogger(name) for name in ("asyncio", "uvicorn.error")]
    for named in loggers:
        named.addFilter(short)
    try:
        with _replaced(modules, "traceback", types.SimpleNamespace(print_exc=print_exc)):
            yield
    finally:
        for named in loggers:
            named.removeFilter(short)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        return int(listening.getsockname()[1])


class _Ended:
    """Whether a signal has arrived; a second one raises, in case a step does not return."""

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
    """Record Ctrl-C and SIGTERM, so that the folder of uploads is always deleted.

    The handler raises nothing, because libraries swallow errors during imports or callbacks, and sets no event,
    because the interrupted thread may hold its lock.
    """
    ended = _Ended()
    in_main = threading.current_thread() is threading.main_thread()  # other threads cannot handle signals
    before = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM) if in_main}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Guarded:
    """ASGI middleware that accepts only requests of the page, limits their size and sets security headers.

    Another website in the user's browser may send requests here: to this address, with its own origin, or to a name of
    its own that resolves to this address (DNS rebinding), with that name as the host. `any_address` also allows IP
    addresses as hosts, which DNS rebinding cannot send.
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
            if received > self.max_bytes:  # as if the client had disconnected
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
        except Exception as error:  # the server would print its traceback, with folders of this machine
            logger.error("a request failed with %s", type(error).__name__)
            if scope["type"] == "http" and not started:
                await _answer(send_with_policy, 500, "The request failed.")

    def refusal(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Why a request is refused, or an empty string."""
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
    """Host and port of a URL, or None for one without a host, such as the origin `null`."""
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
