# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Everything that the package does without being asked for a network, where every connection is refused.

    python tests/security/offline_run.py CHECKPOINT FOLDER [STEP ...]

CHECKPOINT is a small checkpoint, FOLDER is new; without a STEP all of them are taken. An audit hook refuses and notes
every address that is looked up, connected or sent to, also by the libraries below; sockets of the machine itself
(AF_UNIX) are none. Prints JSON: the steps that ended, and what was refused, by step.
"""

import importlib.util
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

REFUSED: list[str] = []
STEP = "import"
EVENTS = {f"socket.{name}" for name in ("connect", "getaddrinfo", "gethostbyname", "sendto", "sendmsg")}


def refuse(event: str, details: tuple) -> None:
    """Audit hook: note and refuse what goes to a network."""
    if event not in EVENTS:
        return
    of_socket = isinstance(details[0], socket.socket)
    if of_socket and details[0].family == socket.AF_UNIX:
        return
    REFUSED.append(f"{STEP}: {event} {details[1:] if of_socket else details[:2]}")
    raise OSError("no network in this test")


def steps(checkpoint: str, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each step by its name; what one leaves in `folder` the next may use."""
    from transformers import (
        AutoConfig,
        AutoImageProcessor,
        AutoModel,
        AutoModelForImageClassification,
        pipeline,
    )

    import clarity_hf
    from clarity_hf.cli import main
    from clarity_hf.phantoms import draw_phantom

    name = "clarity-s16-224"
    image = draw_phantom(0, size=128).image

    def command(*words: object) -> None:
        sys.argv = ["clarity-hf", *map(str, words)]  # the training command reads them
        if status := main(sys.argv[1:]):
            raise RuntimeError(f"exit status {status}")

    yield "our class", lambda: clarity_hf.ClarityForMultiLabelLocalization.from_pretrained(name)
    yield "our processor", lambda: clarity_hf.ClarityImageProcessor.from_pretrained(name)
    for loader in (AutoConfig, AutoModel, AutoModelForImageClassification, AutoImageProcessor):
        yield loader.__name__, lambda loader=loader: loader.from_pretrained(name)
    yield "pipeline by name", lambda: pipeline(clarity_hf.TASK, model=name)
    yield "pipeline by default", lambda: pipeline(clarity_hf.TASK)(image)
    yield "pipeline by path", lambda: pipeline(clarity_hf.TASK, model=checkpoint)(image)
    yield "help", lambda: command("--help")
    yield "phantom", lambda: command("phantom", folder / "images", "--count", 4, "--size", 64)
    options = ("--csv", "--overlays", "--maps", "--device", "cpu", "--output-dir", folder / "out")
    yield "predict", lambda: command("predict", folder / "images" / "images", "--model", name, *options)
    report = (
        "--images",
        4,
        "--min-positives",
        1,
        "--repeats",
        4,
        "--device",
        "cpu",
        "--output-dir",
        folder / "report",
    )
    yield "evaluate", lambda: command("evaluate", checkpoint, "phantom", *report)
    for form in ("torch", "onnx", "openvino"):
        if form == "torch" or importlib.util.find_spec(form):
            yield f"export {form}", lambda form=form: command("export", checkpoint, folder / form, "--format", form)
    yield "publish", lambda: clarity_hf_publish(folder)
    training = {"size": "ti16", "image_size": 32, "phantom_count": 16, "min_positives": 1, "max_steps": 1}
    training |= {"bf16": False, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    training |= {"dataloader_num_workers": 0, "output_dir": folder / "run"}
    words = [word for name, value in training.items() for word in (f"--{name}", value)]
    yield "train", lambda: command("train", "--use_cpu", *words)


def clarity_hf_publish(folder: Path) -> None:
    """Publish the packaged checkpoint to a folder."""
    from clarity_hf.export.publishing import publish

    publish("clarity-s16-224", folder / "published", half=True)


def main() -> None:
    """Run the steps and print what became of them."""
    global STEP
    sys.addaudithook(refuse)
    done: list[str] = []
    checkpoint, folder, *wanted = sys.argv[1:]
    for STEP, act in steps(checkpoint, Path(folder)):
        if wanted and STEP not in wanted:
            continue
        said = StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said):
                act()
        except Exception as error:
            print(f"{STEP}: {type(error).__name__}: {error}\n{said.getvalue()}", file=sys.stderr)
        else:
            done.append(STEP)
    print(json.dumps({"done": done, "refused": REFUSED}))  # a step that failed is not among the done


if __name__ == "__main__":
    main()
