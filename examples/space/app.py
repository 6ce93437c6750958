# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The web page as a Space of the Hugging Face Hub: this folder is the whole Space.

    python examples/space/app.py

serves on all addresses at port 7860, as a Space wants it, under the name of the Space (`SPACE_HOST`, which a Space
sets) and inside the Hub's frame; `GRADIO_SERVER_PORT` and `MODEL` choose another port and another checkpoint. On one's
own machine take `clarity-hf demo`, which only that machine reaches.
"""

import os

from transformers import pipeline

import clarity_hf
from clarity_hf.files import published_name
from clarity_hf.inference.web_server import PageSettings, serve_page

MODEL = os.environ.get("MODEL", "clarity-s16-224")
PORT = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))

if __name__ == "__main__":
    serve_page(
        pipeline(clarity_hf.TASK, model=MODEL),
        published_name(MODEL),
        PageSettings(
            host="0.0.0.0",
            port=PORT,
            max_upload_mb=32,
            allowed_hosts=os.environ.get("SPACE_HOST", "").split(",") if "SPACE_HOST" in os.environ else (),
            frame_ancestors="https://huggingface.co",
        ),
        ready=lambda address: print(f"serving {address}", flush=True),
    )
