# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf serve-dicom`: a DICOM node that receives images from a PACS and sends findings back."""

import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    DeviceOption,
    DicomKindsOption,
    ModelOption,
    PrecisionOption,
    RadiographCheckOption,
    ServiceEngineOption,
    chosen_kinds,
    load_service,
)

TOKEN = "CLARITY_HF_DICOMWEB_TOKEN"
"""Environment variable with the bearer token of a DICOMweb server."""


def serve_dicom(
    folder: Annotated[Path, typer.Argument(help="Folder of the queue; holds patients' images while they wait.")],
    destination: Annotated[str | None, typer.Option(help="Where results go: TITLE@HOST:PORT.")] = None,
    stow: Annotated[str | None, typer.Option(help="Or the root of a DICOMweb server, https://...")] = None,
    model: ModelOption = "clarity-s16-224",
    ae_title: Annotated[str, typer.Option(help="AE title of the node.")] = "CLARITY",
    host: Annotated[str, typer.Option(help="Address to listen on; by default only this computer.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 11112,
    allow_title: Annotated[list[str] | None, typer.Option(help="AE title that may call; may be repeated.")] = None,
    allow_address: Annotated[
        list[str] | None, typer.Option(help="Address or network that may connect; may be repeated.")
    ] = None,
    settle: Annotated[float, typer.Option(help="Seconds without a new image after which a study is analysed.")] = 10,
    max_queue_mb: Annotated[float, typer.Option(help="Megabytes that may wait; more are rejected.")] = 10_000,
    dicom_kinds: DicomKindsOption = None,
    threshold: Annotated[
        float | None, typer.Option(help="Score at which a finding is present; by default the model's own.")
    ] = None,
    radiograph_check: RadiographCheckOption = "warn",
    refusal_reports: Annotated[bool, typer.Option(help="Send a report for each image that is not analysed.")] = True,
    poll: Annotated[str | None, typer.Option(help="Root of a DICOMweb server to poll for new images as well.")] = None,
    poll_every: Annotated[float, typer.Option(help="Seconds between polls.")] = 60,
    http_port: Annotated[
        int | None, typer.Option(help="Port of /healthz and /metrics on this computer.", min=1, max=65535)
    ] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM certificate; callers must then use TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key, if it is not in the same file.")] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(help="PEM of the certificate authorities of peers; callers must then present a certificate."),
    ] = None,
    tls_destination: Annotated[bool, typer.Option(help="Send results with TLS.")] = False,
    device: DeviceOption = "auto",
    engine: ServiceEngineOption = "torch",
    precision: PrecisionOption = None,
) -> None:
    """Receive CR and DX images over DICOM, localize findings, send results to a PACS. Needs the extra node.

    Ctrl-C or SIGTERM stops it after the current image; images that wait are analysed at the next start.
    """
    from clarity_hf.files import published_name
    from clarity_hf.inference.dicom_destinations import StorageDestination, WebDestination, tls_from, tls_to
    from clarity_hf.inference.dicom_inference import DicomResultWriter
    from clarity_hf.inference.dicom_node import DicomNode, NodeSettings
    from clarity_hf.inference.dicom_output import DEFAULT_KINDS
    from clarity_hf.radiograph_check import check_mode

    _check_one(destination, stow)
    check_mode(radiograph_check)
    _set_up_logging()
    token = os.environ.get(TOKEN, "")
    if stow is not None:
        target: StorageDestination | WebDestination = WebDestination(stow, token)
    else:
        tls = tls_to(tls_ca, tls_certificate, tls_key) if tls_destination else None
        target = StorageDestination.parse(str(destination), ae_title, tls)
    settings = NodeSettings(
        folder,
        ae_title,
        host,
        port,
        titles=tuple(allow_title or ()),
        addresses=tuple(allow_address or ()),
        settle_s=settle,
        max_bytes=int(max_queue_mb * 1e6),
        radiograph_check=radiograph_check,
        refusal_reports=refusal_reports,
        http_port=http_port,
        tls=None if tls_certificate is None else tls_from(tls_certificate, tls_key, tls_ca),
        polled=None if poll is None else WebDestination(poll, token),
        poll_s=poll_every,
    )
    kinds = chosen_kinds(dicom_kinds, DEFAULT_KINDS)
    pipeline = load_service(model, device, engine, precision)
    writer = DicomResultWriter(pipeline, published_name(model), threshold, kinds)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with DicomNode(writer, target, settings) as node:
        print(f"{ae_title} listens on {host}:{node.port}. For research, not for diagnosis.", flush=True)
        ended.wait()


def _check_one(destination: str | None, stow: str | None) -> None:
    if (destination is None) == (stow is None):
        raise ValueError(
            f"Pass either --destination or --stow, got {'neither' if stow is None else 'both'}, for example "
            "--destination PACS@10.0.0.5:104."
        )


def _set_up_logging() -> None:
    """Silence libraries, whose warnings may quote a patient's name, and log the node's own lines to stderr."""
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    lines = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("clarity_hf.inference.dicom_node")
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False
