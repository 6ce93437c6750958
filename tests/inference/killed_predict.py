# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Run `clarity-hf predict` again and again, each time killed one file operation later, until it comes to its end.

    python tests/inference/killed_predict.py OUTPUT_DIR PROCESSES ARGUMENT...

Each run is forked from this process, so that only the first waits for imports; with several processes they share the
images and each is killed after as many operations. Prints a JSON list of what was there after each run.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

MOST_RUNS = 200


def kill_after(operations: int, folder: Path) -> None:
    """End this process by SIGKILL before it opens, renames or removes a path of a folder for the n-th time and one."""
    below, count = str(folder.resolve()), 0

    def count_operation(event, arguments):
        nonlocal count
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "shutil.rmtree"):
            paths = (os.path.abspath(os.fsdecode(path)) for path in arguments if isinstance(path, str | bytes | Path))
            if any(path.startswith(below) for path in paths):
                count += 1
                if count > operations:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count_operation)


def start(operations: int, folder: Path, rank: int, world_size: int, arguments: list[str]) -> int:
    """Fork a process that predicts; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        from clarity_hf.cli import main

        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
        with (folder.parent / "output.txt").open("a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        kill_after(operations, folder)
        status = main(["predict", *arguments, "--output-dir", str(folder)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def whole_lines(folder: Path) -> list[str]:
    """Images of every whole line of every file of findings."""
    lines = [line for path in folder.glob("findings*.jsonl") for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line)["image"] for line in lines if line.endswith("\n")]


def main() -> None:
    """Kill and run until no process is killed."""
    folder, world_size, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    # What a run would import, so that forks have it; no forward pass, whose threads a fork would lose.
    import clarity_hf.inference.batch
    import clarity_hf.training.arguments
    import clarity_hf.visualization  # noqa: F401

    seen = []
    for operations in range(MOST_RUNS):
        children = [start(operations, folder, rank, world_size, arguments) for rank in range(world_size)]
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        pictures = {path.name.removesuffix(".png") for path in folder.glob("overlays/[!.]*.png")}
        images = whole_lines(folder)
        seen.append({"ended": ended, "images": sorted(set(images)), "bare": sorted(set(images) - pictures)})
        if not any(code == -signal.SIGKILL for code in ended):
            break
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
