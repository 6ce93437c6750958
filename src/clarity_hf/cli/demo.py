# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf demo`: the web page, on this computer."""

import sys
from typing import Annotated

import typer

from .common import DeviceOption, ModelOption, PrecisionOption, ServiceEngineOption, load_service


def demo(
    model: ModelOption = "clarity-s16-224",
    host: Annotated[str, typer.Option(help="Address to listen on; by default only this computer.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 7860,
    max_upload_mb: Annotated[float, typer.Option(help="Largest upload in megabytes.")] = 64,
    max_queue: Annotated[int, typer.Option(help="Images that may wait; more are rejected.")] = 8,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Additional host name of the page; may be repeated.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: DeviceOption = "auto",
    engine: ServiceEngineOption = "torch",
    precision: PrecisionOption = None,
) -> None:
    """Serve a web page for one radiograph at a time. Needs the extra demo. Ctrl-C stops it."""
    from clarity_hf.files import published_name
    from clarity_hf.inference.web_server import LOOPBACK, PageSettings, serve_page

    pipeline = load_service(model, device, engine, precision)
    if host.strip("[]") not in LOOPBACK:
        print(
            "warning: other computers can reach this page without login or encryption. Show no patients' radiographs.",
            file=sys.stderr,
        )
    serve_page(
        pipeline,
        published_name(model),
        PageSettings(host, port, max_upload_mb, max_queue, open_browser, tuple(allowed_host or ())),
        ready=lambda address: print(
            f"serving {address} (Ctrl-C stops it). For research, not for diagnosis.", flush=True
        ),
    )
