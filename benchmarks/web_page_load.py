# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf demo` under many uploads at once: who is answered, who is turned away, and the server's memory.

    python benchmarks/web_page_load.py                                 (10 rounds of 50 uploads, minutes)
    python benchmarks/web_page_load.py --clients 10 --rounds 2         (quick)

The server is a process of its own, started by the command. In a round every client, a session of its own, uploads a
phantom of 512² as the page does and waits for its result, all of them at once. A client is answered when the result
holds a table of findings, and turned away when the server says that its queue is full, with status 503; everything
else is an error, and ends the program with status 1. Printed are a row a round: clients by outcome, seconds until the
last was done, memory of the server afterwards, and uploads that lie in its folder: those of clients that were turned
away, which it deletes after two minutes. Needs the extra `demo`.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from common import write_phantom_pngs

TIMEOUT = 300.0


def main() -> int:
    """Start the server, load it, print rows, end it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--max-queue", type=int, default=8)
    parser.add_argument("--model", default="clarity-s16-224")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images = write_phantom_pngs(Path(folder), min(arguments.clients, 50), 512)
        uploads = Path(folder) / "uploads"
        uploads.mkdir()
        server, address = start_server(arguments.model, arguments.max_queue, uploads)
        try:
            bad = load(server, address, uploads, images, arguments.clients, arguments.rounds)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        left = [path for path in uploads.rglob("*") if path.is_file()]
    print(f"\nthe server ended with {server.returncode} and left {len(left)} files")
    return 1 if bad or left or server.returncode else 0


def start_server(model: str, max_queue: int, folder: Path) -> tuple[subprocess.Popen, str]:
    """The process, and its address once it serves.

    Args:
        model: Name, folder or Hub id.
        max_queue: Images that may wait.
        folder: Of its temporary files.
    """
    command = [sys.executable, "-m", "clarity_hf", "demo", "--model", model, "--port", "0", "--device", "cpu"]
    server = subprocess.Popen(
        [*command, "--max-queue", str(max_queue)],
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    address = re.search(r"http://[\w.]+:\d+", server.stdout.readline() if server.stdout else "")
    if address is None:
        raise RuntimeError("the server did not start")
    return server, address[0]


def load(
    server: subprocess.Popen, address: str, uploads: Path, images: list[Path], clients: int, rounds: int
) -> Counter[str]:
    """Print a row a round, and return the errors of all."""
    event = upload_event(address)
    errors: Counter[str] = Counter()
    print("| round | answered | turned away | errors | seconds | server, MB | uploads that lie there |")
    print("|---|---|---|---|---|---|---|")
    print(f"| before | | | | | {resident(server):,.0f} | 0 |", flush=True)
    for turn in range(rounds):
        start = threading.Barrier(clients)

        def one(client: int, turn: int = turn, start: threading.Barrier = start) -> str:
            start.wait()
            return upload(address, event, images[client % len(images)], f"{turn}-{client}")

        began = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            ended = Counter(pool.map(one, range(clients)))
        seconds = time.monotonic() - began
        wrong = Counter({word: count for word, count in ended.items() if word not in ("answered", "turned away")})
        errors += wrong
        files = sum(path.is_file() for path in uploads.rglob("*"))
        print(
            f"| {turn + 1} | {ended['answered']} | {ended['turned away']} | {wrong.total()} | {seconds:.1f} | "
            f"{resident(server):,.0f} | {files} |",
            flush=True,
        )
    for word, count in errors.items():
        print(f"{count} times: {word}")
    return errors


def upload_event(address: str) -> int:
    """Number of the page's event that follows an upload."""
    config = httpx.get(f"{address}/config", trust_env=False).json()
    return next(fn["id"] for fn in config["dependencies"] if any(target[1] == "upload" for target in fn["targets"]))


def upload(address: str, event: int, image: Path, session: str) -> str:
    """Upload an image as the page does and wait: `answered`, `turned away`, or what went wrong."""
    try:
        with httpx.Client(base_url=f"{address}/gradio_api", trust_env=False, timeout=TIMEOUT) as client:
            sent = client.post("/upload", files={"files": (image.name, image.read_bytes(), "image/png")})
            sent.raise_for_status()
            file = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
            body = {"data": [file, 0.45, "wash", False], "fn_index": event, "session_hash": session}
            joined = client.post("/queue/join", json=body)
            if joined.status_code == 503 and "Queue is full" in joined.text:
                return "turned away"
            joined.raise_for_status()
            return result_of(client, joined.json()["event_id"], session)
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        return f"{type(error).__name__}: {error}"


def result_of(client: httpx.Client, event_id: str, session: str) -> str:
    """Wait for an event's result: `answered` where it has a table of findings, else the server's message."""
    with client.stream("GET", "/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed" and message["event_id"] == event_id:
                told = json.dumps(message.get("output"))
                return "answered" if message["success"] and "ch-findings" in told else f"refused: {told[:200]}"
    return "the stream ended without a result"


def resident(server: subprocess.Popen) -> float:
    """Memory of the server that is in use now, in MB of 10⁶ bytes."""
    return psutil.Process(server.pid).memory_info().rss / 1e6


if __name__ == "__main__":
    sys.exit(main())
