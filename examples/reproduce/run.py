# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
r"""From the NIH release to a row of the paper's tables: train, evaluate on the official test list, fill the table.

    python examples/reproduce/run.py s-16-512 --data_dir NIH_FOLDER --output_dir runs/reproduce
    python examples/reproduce/run.py all --data_dir NIH_FOLDER --output_dir runs/reproduce
    python examples/reproduce/run.py table --output_dir runs/reproduce
    python examples/reproduce/run.py all --smoke --output_dir runs/smoke       every step, in minutes on two cores

A row trains its teacher first where that is missing. What is finished is kept, and a training that was stopped goes
on: give the same command again. docs/reproduction.md has what each row does, what it costs and what has been run. The
last line is

    wrote runs/reproduce/table.md
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rows import ORDER, Row, load_rows
from smoke import short_row, write_images, write_start
from table import picked_epoch, write_table

from clarity_hf.data.nih import TEST_LIST
from clarity_hf.training.arguments import to_flags

EXAMPLES = Path(__file__).parents[1]
EVALUATE = {
    "train.py": EXAMPLES / "evaluate_checkpoint.py",
    "train_teacher.py": Path(__file__).with_name("evaluate_teacher.py"),
}
"""What evaluates the model of each training script."""

WEIGHTS = "model.safetensors"
SMOKE_EVALUATION = {"images": 24, "min_positives": 1, "repeats": 20}


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", choices=[*ORDER, "all", "table"], metavar="ROW", help=", ".join(ORDER))
    parser.add_argument("--data_dir", type=Path, help="the NIH release, see clarity_hf.data.nih")
    parser.add_argument("--output_dir", type=Path, help="default: runs/reproduce, or runs/smoke with --smoke")
    parser.add_argument("--smoke", action="store_true", help="few images (or phantoms), tiny models, few steps")
    parser.add_argument(
        "--accelerate_config", type=Path, help="for accelerate launch; default: one GPU or CPU, by what is here"
    )
    arguments = parser.parse_args()
    arguments.output_dir = arguments.output_dir or Path("runs") / ("smoke" if arguments.smoke else "reproduce")
    rows = load_rows()
    names = with_teachers(rows, ORDER if "all" in arguments.rows else arguments.rows)
    if names:
        arguments.data_dir = prepare_images(arguments.data_dir, arguments.output_dir, arguments.smoke)
    for name in names:
        print(f"{name}: {rows[name].text}", flush=True)
        train(rows[name], arguments)
        evaluate(rows[name], arguments)
    path = write_table(rows, arguments.output_dir)
    print(path.read_text(encoding="utf-8"))
    print(f"wrote {path}")


def with_teachers(rows: Mapping[str, Row], names: Sequence[str]) -> list[str]:
    """Rows to run in the order of the table, the teachers of those named among them; `table` is not a row."""
    named = {name for name in names if name in rows}
    needed = named | {teacher for name in named if (teacher := rows[name].teacher) is not None}
    return [name for name in rows if name in needed]


def prepare_images(data_dir: Path | None, output_dir: Path, smoke: bool) -> Path:
    """The folder of images to train and evaluate on.

    Raises:
        ValueError: There is none, and it is no smoke test.
        FileNotFoundError: It is without the official test list, on which the paper's figures are, or its boxes.
    """
    if smoke:
        folder = output_dir / "images"
        write_images(folder, data_dir)
        write_start(output_dir / "start")
        return folder
    if data_dir is None:
        raise ValueError(
            "`data_dir` must be the folder of the NIH release, got None. Give --data_dir, or --smoke to try every "
            "step on phantoms."
        )
    for name, what in ((TEST_LIST, "on which the paper's figures are"), ("BBox_List_2017.csv", "with its 984 boxes")):
        if not (data_dir / name).is_file():
            raise FileNotFoundError(
                f"`data_dir` must hold {name}, {what}, got {data_dir}. Copy it from the release, or give --smoke."
            )
    return data_dir


def train(row: Row, arguments: argparse.Namespace) -> None:
    """Train a row where it is not finished; its epoch is picked on validation, which is checked."""
    folder = arguments.output_dir / row.name
    model = folder / "model"
    reads = [arguments.output_dir / row.teacher / "model"] if row.teacher else []
    command = train_command(row, arguments)
    if is_done(folder / "trained.json", command, reads) and (model / WEIGHTS).is_file():
        print(f"  trained before: {model}", flush=True)
        return
    forget_evaluation(folder)
    run(command, offline=arguments.smoke)
    epoch, auroc = picked_epoch(model / "trainer_state.json")
    print(f"  epoch {epoch:.3g} was picked on validation, AUROC {auroc:.3f}", flush=True)
    mark_done(folder / "trained.json", command, reads, arguments.smoke)


def forget_evaluation(folder: Path) -> None:
    """Remove a row's report and records, which are of the weights that it had: those of others are refused there."""
    (folder / "evaluated.json").unlink(missing_ok=True)
    for evaluation in (folder / "evaluation", folder / "evaluation-records"):
        if evaluation.is_dir():
            print(f"  removing {evaluation}, of the weights before", flush=True)
            shutil.rmtree(evaluation)


def train_command(row: Row, arguments: argparse.Namespace) -> list[str]:
    """What trains a row, word by word."""
    launcher = arguments.accelerate_config or default_launcher()
    settings = short_row(row, arguments.output_dir / "start") if arguments.smoke else dict(row.arguments)
    settings |= {"data_dir": str(arguments.data_dir), "output_dir": str(arguments.output_dir / row.name / "model")}
    if row.teacher:
        settings["teacher"] = str(arguments.output_dir / row.teacher / "model")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launcher)]
    return [*launch, str(EXAMPLES / row.script), *to_flags(settings)]


def default_launcher() -> Path:
    """The file of `examples/accelerate/` for this machine: one GPU, or the CPU."""
    return EXAMPLES / "accelerate" / ("one_gpu.yaml" if torch.accelerator.is_available() else "cpu.yaml")


def evaluate(row: Row, arguments: argparse.Namespace) -> None:
    """Evaluate a trained row where that is not done yet.

    Raises:
        FileNotFoundError: The evaluation ended without a report.
    """
    folder = arguments.output_dir / row.name
    command = evaluate_command(row, arguments)
    report = folder / "evaluation" / "report.json"
    if is_done(folder / "evaluated.json", command, [folder / "model"]) and report.is_file():
        print(f"  evaluated before: {report}", flush=True)
        return
    run(command, offline=arguments.smoke)
    if not report.is_file():
        raise FileNotFoundError(f"{command[1]} must write {report}, got none. Look at its output above.")
    mark_done(folder / "evaluated.json", command, [folder / "model"], arguments.smoke)


def evaluate_command(row: Row, arguments: argparse.Namespace) -> list[str]:
    """What evaluates a row: on the test images, and only a subset without a test list is evaluated on validation."""
    folder = arguments.output_dir / row.name
    split = "test" if (arguments.data_dir / TEST_LIST).is_file() else "validation"  # a release without was refused
    command = [sys.executable, str(EVALUATE[row.script]), str(folder / "model"), str(arguments.data_dir)]
    settings = SMOKE_EVALUATION if arguments.smoke else {"num_workers": row.arguments["dataloader_num_workers"]}
    return [*command, "--split", split, *to_flags(settings), "--output_dir", str(folder / "evaluation")]


def run(command: Sequence[str], offline: bool = False) -> None:
    """Run a command, its output on ours; offline nothing is asked of the Hub.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    print(f"  {shlex.join(command)}", flush=True)
    environment = os.environ | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    subprocess.run(command, check=True, env=environment)


def is_done(record: Path, command: Sequence[str], reads: Sequence[Path]) -> bool:
    """Whether a step was finished, with just this command and these models.

    Args:
        record: Where a finished step is kept.
        command: Of the step.
        reads: Folders of the models that it reads.

    Raises:
        ValueError: It was finished with another command or from other weights.
    """
    if not record.is_file():
        return False
    kept, wanted = json.loads(record.read_text(encoding="utf-8")), description(command, reads)
    differing = [key for key in wanted if kept[key] != wanted[key]]
    if differing:
        raise ValueError(
            f"`output_dir` must be of the same run, got {record} of another one (it differs in {differing}). Give "
            f"another --output_dir or delete {record.parent}."
        )
    return True


def mark_done(record: Path, command: Sequence[str], reads: Sequence[Path], smoke: bool) -> None:
    """Keep that a step was finished, see [`is_done`]."""
    stored = description(command, reads) | {"smoke": smoke}
    record.with_suffix(".part").write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    record.with_suffix(".part").replace(record)


def description(command: Sequence[str], reads: Sequence[Path]) -> dict[str, Any]:
    """What a step depends on: its command, without the interpreter and its paths, and the weights that it reads."""
    start = next(index for index, word in enumerate(command) if word.endswith(".py"))
    return {
        "script": Path(command[start]).name,
        "arguments": list(command[start + 1 :]),
        "weights": [hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() for folder in reads],
    }


if __name__ == "__main__":
    main()
