# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A DICOM node: receives CR and DX images over C-STORE, localizes findings, and sends the results to a PACS.

Three threads share the queue ([`DicomQueue`]): the Storage SCP acknowledges an image once it is on disk, the worker
analyses the images of a study once no more arrive, and the sender sends results to the destination until they are
accepted, waiting longer after each failure. No image stops the node, and a restarted node continues where it was.

Log lines are JSON. They identify images by their number in the queue and peers by title and address, and name no
patient.

pynetdicom's default storage contexts include only uncompressed transfer syntaxes, and a peer that has an image as JPEG
lossless would abort. The node therefore offers its own list, `TRANSFER_SYNTAXES`, all of which `read_dicom` reads.

Standards: DICOM PS3.4 B (Storage), A (Verification), PS3.18 (DICOMweb), PS3.15 B.9 (BCP 195 TLS).
"""

from __future__ import annotations

import contextlib
import datetime
import io
import ipaddress
import json
import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import Any

from filelock import FileLock, Timeout

from .dicom_destinations import Destination, WebDestination, as_file
from .dicom_inference import DicomResultWriter
from .dicom_queue import DicomQueue, FullQueueError, ReceivedImage

logger = logging.getLogger(__name__)

IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
)
"""SOP classes that the node accepts. Not Secondary Capture, because its own overlays would come back."""

TRANSFER_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    "1.2.840.10008.1.2",  # Implicit VR Little Endian
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.5",  # RLE lossless
    "1.2.840.10008.1.2.4.201",  # High-Throughput JPEG 2000 lossless
    "1.2.840.10008.1.2.4.202",  # the same, RPCL
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.203",  # High-Throughput JPEG 2000
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian
)
"""Transfer syntaxes that the node accepts, lossless ones first."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
"""Seconds until a result is sent again: after the first failure, and at most; doubled after each failure."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SUCCESS, _OUT_OF_RESOURCES, _DOES_NOT_MATCH, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
_IDLE_S = 0.2


@dataclass(frozen=True)
class NodeSettings:
    """Network and processing settings of a node.

    Attributes:
        folder: Folder of its queue.
        ae_title: Its AE title, which callers must use.
        host: Address to listen on.
        port: Port to listen on; 0 selects a free one.
        titles: AE titles that may call; all if empty.
        addresses: Addresses or networks, such as `10.1.0.0/16`, that may connect; all if empty.
        settle_s: Seconds without a new image after which a study is analysed.
        max_bytes: Limit of all files in the queue, in bytes.
        radiograph_check: `warn`, `refuse` or `off`, as in `DicomResultWriter.localize`.
        refusal_reports: Whether refused images get a report.
        http_port: Port of health and counters on this machine; None for no such page.
        tls: TLS context of connections from callers; None accepts unencrypted ones.
        polled: DICOMweb server that is also polled for new images.
        poll_s: Seconds between polls.

    Raises:
        ValueError: A value is out of range, or other machines could connect without a required title or address.
    """

    folder: Path
    ae_title: str = "CLARITY"
    host: str = "127.0.0.1"
    port: int = 11112
    titles: Sequence[str] = ()
    addresses: Sequence[str] = ()
    settle_s: float = 10.0
    max_bytes: int = 10_000_000_000
    radiograph_check: str = "warn"
    refusal_reports: bool = True
    http_port: int | None = None
    tls: ssl.SSLContext | None = None
    polled: WebDestination | None = None
    poll_s: float = 60.0

    def __post_init__(self) -> None:
        for title in (self.ae_title, *self.titles):
            if not 1 <= len(title.strip()) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
                raise ValueError(f"`ae_title` must be 1 to 16 ASCII characters, got '{title}'. Shorten it.")
        if self.settle_s < 0:
            raise ValueError(f"`settle_s` must be at least 0, got {self.settle_s}. Pass seconds.")
        for address in self.addresses:
            ipaddress.ip_network(address, strict=False)
        if self.host not in _LOOPBACK and not (self.titles or self.addresses):
            raise ValueError(
                f"`titles` or `addresses` must be given if other machines can connect, got host '{self.host}' and "
                "none. Name who may call (--allow-title, --allow-address)."
            )


class DicomNode:
    """A DICOM node, started and stopped by `with`: a model with its kinds of results, and where results are sent.

    Raises:
        BlockingIOError: Another node uses the folder.
        OSError: A port is in use, or the folder cannot be written.
    """

    def __init__(self, writer: DicomResultWriter, destination: Destination, settings: NodeSettings) -> None:
        self.writer, self.destination, self.settings = writer, destination, settings
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> DicomNode:
        """Listen, analyse and send until `__exit__`."""
        settings, identity = self.settings, self.writer.identity
        with contextlib.ExitStack() as stack:
            settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                stack.enter_context(FileLock(settings.folder / ".lock", timeout=1))
            except Timeout as error:
                raise BlockingIOError(f"Another node uses the folder {settings.folder}. Choose another.") from error
            maker = f"{identity.weights_hash} {identity.version} {identity.settings} {','.join(self.writer.kinds)}"
            self.queue = DicomQueue(settings.folder, maker, settings.max_bytes)
            stack.callback(self.queue.close)
            server = _listening(self)
            stack.callback(server.server_close)
            self.port = server.server_address[1]
            stack.callback(self._stop_threads)
            self._start(self._forever, self._work, name="work")
            self._start(self._forever, self._send, name="send")
            if settings.polled:
                self._start(self._forever, self._poll, name="poll")
            self._start(server.serve_forever, _IDLE_S, name="listen")
            stack.callback(server.ae.shutdown)  # ends open associations
            stack.callback(server.shutdown)
            if settings.http_port is not None:
                stack.enter_context(_status_page(self, settings.http_port))
            _log("started", port=self.port, title=settings.ae_title)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Accept nothing more, finish the current image, and stop. The rest stays in the queue."""
        self._stack.close()
        _log("stopped")

    def health(self) -> dict[str, Any]:
        """Whether the node works, and its problems if it does not."""
        problems = [f"{thread.name} has ended" for thread in self._threads if not thread.is_alive()]
        if self.queue.bytes() >= self.settings.max_bytes:
            problems.append("the queue is full")
        return {"healthy": not problems, "problems": problems}

    def _start(self, target: Callable[..., object], *arguments: object, name: str) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, name=name, daemon=True))
        self._threads[-1].start()

    def _stop_threads(self) -> None:
        self._stopping.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()

    def _forever(self, step: Any) -> None:
        """Repeat a step, which returns the seconds to pause, even after errors."""
        while not self._stopping.is_set():
            try:
                pause = step()
            except Exception as error:  # such as a full disk: the rows are unchanged, and the step is repeated
                _log("trouble", step=step.__name__.strip("_"), error=type(error).__name__)
                pause = 5.0
            if pause:
                self._stopping.wait(pause)

    # Receiving

    def received(self, event: Any) -> int:
        """Put the image of a C-STORE request of pynetdicom into the queue; return the status of the response."""
        import pydicom

        peer = {"title": event.assoc.requestor.ae_title, "address": event.assoc.requestor.address}
        try:
            content = event.encoded_dataset()
            found = pydicom.dcmread(io.BytesIO(content), specific_tags=["StudyInstanceUID"], stop_before_pixels=True)
            uid, study = str(event.request.AffectedSOPInstanceUID), str(found.get("StudyInstanceUID") or "")
        except Exception as error:
            _log("not understood", **peer, error=type(error).__name__)
            return _CANNOT_UNDERSTAND
        if not study:
            _log("without a study", **peer)
            return _DOES_NOT_MATCH
        try:
            is_new = self.queue.receive(uid, study, content)
        except OSError as error:
            _log("no room" if isinstance(error, FullQueueError) else "not written", **peer, error=type(error).__name__)
            return _OUT_OF_RESOURCES
        _log("received" if is_new else "received again", **peer, bytes=len(content))
        return _SUCCESS

    def _poll(self) -> float:
        assert self.settings.polled is not None
        for uid, study, content in self.settings.polled.images(2, self.queue.knows):
            self.queue.receive(uid, study, content)
            _log("fetched", bytes=len(content))
        return self.settings.poll_s

    # Analysing

    def _work(self) -> float:
        image = self.queue.next_image(self.settings.settle_s)
        if image is None:
            return _IDLE_S
        try:
            self._analyse(image)
        except (OSError, MemoryError):  # such as a full disk, which is not because of the image
            self.queue.put_back(image)
            raise
        return 0.0

    def _analyse(self, image: ReceivedImage) -> None:
        settings = self.settings
        made = self.writer.localize(image.file, settings.radiograph_check, settings.refusal_reports)
        results = [(str(dataset.SOPInstanceUID), as_file(dataset)) for dataset in made.datasets]
        self.queue.finish(image, results, made.state, made.reason)
        _log(made.state, image=image.id, results=len(results), reason=made.reason)
        self._wake.set()

    # Sending

    def _send(self) -> float:
        waiting = self.queue.due_results(limit=50)
        if not waiting:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            return 0.0
        for result, reason in zip(waiting, self.destination.send([one.file for one in waiting]), strict=True):
            if reason:
                pause = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**result.attempts)
                self.queue.retry(result, pause)
                _log("not sent", image=result.image, result=result.id, reason=reason, again_s=pause)
            else:
                self.queue.sent(result)
                _log("sent", image=result.image, result=result.id)
            if self._stopping.is_set():
                break
        return 0.0


def _listening(node: DicomNode) -> Any:
    """The server of the Storage and the Verification SCP, bound and not yet serving."""
    import pynetdicom
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
    from pynetdicom.transport import ThreadedAssociationServer

    settings = node.settings
    networks = [ipaddress.ip_network(address, strict=False) for address in settings.addresses]

    class Guarded(ThreadedAssociationServer):
        def get_request(self) -> Any:
            """Accept a connection; its own thread does the TLS handshake, so that a slow caller blocks no other."""
            assert self.socket is not None
            connection, address = self.socket.accept()
            if self.ssl_context is not None:
                connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

        def shutdown(self) -> None:
            """Stop serving; pynetdicom's own method only works for a server made by `start_server`."""
            BaseServer.shutdown(self)

        def verify_request(self, request: Any, client_address: Any) -> bool:
            """Whether an address may connect; others are disconnected before any DICOM exchange."""
            address = ipaddress.ip_address(client_address[0])
            allowed = not networks or any(address in network for network in networks)
            if not allowed:
                _log("address refused", address=str(address))
            return allowed

    entity = pynetdicom.AE(ae_title=settings.ae_title)
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.titles)
    entity.maximum_associations = 10
    entity.add_supported_context(Verification)
    for sop_class in IMAGE_CLASSES:
        entity.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))
    handlers: Any = [
        (pynetdicom.evt.EVT_C_STORE, node.received),
        (pynetdicom.evt.EVT_C_ECHO, lambda event: _SUCCESS),
        (pynetdicom.evt.EVT_REJECTED, _log_refused_title),
    ]
    return entity.make_server(
        (settings.host, settings.port),
        ae_title=settings.ae_title,
        ssl_context=settings.tls,
        evt_handlers=handlers,
        server_class=Guarded,
    )


# Status


@contextlib.contextmanager
def _status_page(node: DicomNode, port: int) -> Iterator[None]:
    """Health and counters, for this machine only."""
    from prometheus_client import CollectorRegistry, MetricsHandler
    from prometheus_client.core import GaugeMetricFamily

    class Collector:
        def collect(self) -> Iterator[Any]:
            """Counters read from the queue, which survive restarts."""
            for table, counts in node.queue.counts().items():
                name = {"images": "images", "outbox": "results"}[table]
                family = GaugeMetricFamily(f"clarity_{name}", f"{name} of the queue by state", labels=["state"])
                for state, count in counts.items():
                    family.add_metric([state], count)
                yield family
            yield GaugeMetricFamily("clarity_queue_bytes", "size of the queue", value=node.queue.bytes())
            yield GaugeMetricFamily("clarity_oldest_image_seconds", "wait of an image", value=node.queue.oldest_s())
            yield GaugeMetricFamily("clarity_healthy", "1 if healthy", value=float(node.health()["healthy"]))

    numbers = CollectorRegistry()
    numbers.register(Collector())

    class Page(MetricsHandler):
        registry = numbers

        def do_GET(self) -> None:
            """Answer /healthz and /metrics."""
            if self.path == "/metrics":
                super().do_GET()
            elif self.path == "/healthz":
                health = node.health()
                self._answer(200 if health["healthy"] else 503, "application/json", json.dumps(health).encode())
            else:
                self._answer(404, "text/plain", b"/healthz or /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", port), Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _log_refused_title(event: Any) -> None:
    """Who called whom, as both wrote it: one of the two titles is another than the node's settings have."""
    asked = event.assoc.requestor
    titles = {name: str(getattr(asked.primitive, f"{name}_ae_title", "")) for name in ("calling", "called")}
    _log("title refused", address=asked.address, **titles)


def _log(event: str, **facts: Any) -> None:
    now = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
    logger.info(json.dumps({"time": now, "event": event, **facts}))
