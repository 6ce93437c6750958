# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Commands as pages show them: told apart, parsed by the parser of their own program, or run in this process."""

import argparse
import ast
import contextlib
import getopt
import importlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]


class ParsedError(Exception):
    """Arguments were parsed without an error, and nothing more shall be done."""


class MissingError(Exception):
    """A library that the command needs is not installed here."""


class RefusedError(Exception):
    """A command that its own parser does not take, or a program that no parser here knows."""


def commands_of(text):
    """Lines of a block as commands: joined at a trailing backslash, comments and empty lines left out."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    without_comments = (" ".join(re.sub(r"(^|\s)#.*$", "", line).split()) for line in lines)
    return [line for line in without_comments if line]


def words_of(command):
    """Words of a command; what a shell would set for it alone is left out, and a path in front of its program."""
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return [re.sub(r"^(\.venv/bin/)", "", words[0]), *words[1:]]


def parse(command):
    """Have a command parsed by its own program's parser, which does nothing else.

    Raises:
        RefusedError: An option is unknown, a value is not a choice, a script or a file is not there.
        MissingError: A library that its program imports is not installed.
    """
    words = words_of(command)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            _parse(words)
    except ParsedError:
        return
    except SystemExit as left:
        raise RefusedError(f"{command}: {said.getvalue()[-600:] or left}") from left
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("clarity_hf", "examples", "benchmarks"):
            raise RefusedError(f"{command}: {error}") from error
        raise MissingError(f"{command}: {error}") from error
    except Exception as error:
        raise RefusedError(f"{command}: {type(error).__name__}: {error}") from error


def _parse(words):
    program, rest = words[0], words[1:]
    parsers = {
        "accelerate": _accelerate,
        "cd": _folder,
        ".": _folder,
        "clarity-hf": _clarity,
        "make": _make,
        "mkdocs": _mkdocs,
        "pip-audit": _not_here,
        "pip": _pip,
        "python": _python,
        "python3": _python,
    }
    if program not in parsers:
        raise RefusedError(f"no parser for '{program}'")
    parsers[program](rest)


def _not_here(rest):
    raise ParsedError  # a program that the tests do not install


def _folder(rest):
    if len(rest) != 1:
        raise RefusedError(f"one path, got {rest}")


def _clarity(rest):
    import typer

    from clarity_hf.cli import app, main

    if rest[:1] == ["train"]:
        with _stopped_parsers():
            status = main(rest)
        raise RefusedError(f"exit status {status} without its arguments parsed")
    group = typer.main.get_command(app)
    if not rest or rest[0] not in group.commands:
        raise RefusedError(f"no command {rest[:1]}")
    group.commands[rest[0]].make_context(rest[0], rest[1:])


def _accelerate(rest):
    from accelerate.commands.launch import launch_command_parser

    if rest[:1] != ["launch"]:
        raise RefusedError(f"launch, got {rest[:1]}")
    launched = launch_command_parser().parse_args(rest[1:])
    if launched.config_file and not Path(launched.config_file).is_file():
        raise RefusedError(f"no file {launched.config_file}")
    _python([*(["-m"] if launched.module else []), launched.training_script, *launched.training_script_args])


def _python(rest):
    modules = {
        "clarity_hf": _clarity,
        "pip": _pip,
        "pytest": _pytest,
        "timeit": _timeit,
        "torch.distributed.run": _torchrun,
        "run": _exported,
        "venv": _venv,
    }
    if rest[0] == "-m":
        if rest[1] not in modules:
            raise RefusedError(f"no parser for 'python -m {rest[1]}'")
        modules[rest[1]](rest[2:])
        return
    script = ROOT / rest[0]
    if not script.is_file() or script.suffix != ".py":
        raise RefusedError(f"no script {rest[0]}")
    text = script.read_text("utf-8")
    if stand_in := re.search(r'clarity_hf\(\["(\w+)", \*sys\.argv\[1:\]\]\)', text):  # a command by another name
        _clarity([stand_in[1], *rest[1:]])
        return
    if "ArgumentParser" not in text and "from clarity_hf.training" not in text:  # it would run
        if rest[1:]:
            raise RefusedError(f"{rest[0]} takes no arguments, got {rest[1:]}")
        return
    with _stopped_parsers():
        run_script(script, rest[1:])
    raise RefusedError(f"{rest[0]} parsed no arguments")


def _torchrun(rest):
    from torch.distributed.run import get_args_parser

    launched = get_args_parser().parse_args(rest)
    _python([*(["-m"] if launched.module else []), launched.training_script, *launched.training_script_args])


def _exported(rest):
    from clarity_hf.export import onnx_runner

    with _stopped_parsers(), mock.patch.object(sys, "argv", ["run.py", *rest]):
        onnx_runner.main()


def _pip(rest):
    from pip._internal.commands import create_command

    create_command(rest[0]).parse_args(rest[1:])


def _venv(rest):
    import venv

    with _stopped_parsers():
        venv.main(rest)


def _pytest(rest):
    from _pytest.config import get_config

    parsed = get_config()._parser.parse_known_args(rest)
    missing = [name for name in parsed.file_or_dir if not (ROOT / name.partition("::")[0]).exists()]
    if missing or any(word.startswith("-") and word not in ("-m", "-k", "-q", "-x") for word in rest):
        raise RefusedError(f"no tests {missing}, or an option of a plugin in {rest}")


def _mkdocs(rest):
    from mkdocs.__main__ import cli

    cli.commands[rest[0]].make_context(rest[0], rest[1:])


def _make(rest):
    # Without recipes: make reads the Makefile and says what it would do.
    told = subprocess.run(["make", "-n", "-C", str(ROOT), *rest], capture_output=True, text=True, check=False)
    if told.returncode:
        raise RefusedError(told.stderr)


def _timeit(rest):
    options, statements = getopt.getopt(rest, "n:u:s:r:pvh", ["number=", "setup=", "repeat=", "process", "unit="])
    for statement in [value for name, value in options if name in ("-s", "--setup")] + statements:
        ast.parse(statement)


@contextlib.contextmanager
def _stopped_parsers():
    """Parsers of scripts and of the training raise `ParsedError` once they have parsed."""
    from transformers import HfArgumentParser

    parse_args = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None, **kwargs):
        # Of a training too, whose arguments as objects would start its processes.
        parse_args(self, args, namespace)
        raise ParsedError

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(HfArgumentParser, "parse_args_into_dataclasses", stop),
    ):
        yield


def run_script(script, words):
    """Run a script in this process, as `python script words` would."""
    known = set(sys.modules)
    with (
        mock.patch.object(sys, "argv", [str(script), *words]),
        mock.patch.object(sys, "path", [str(script.parent), *sys.path]),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as left:
            if left.code:
                raise
        finally:
            for name in set(sys.modules) - known:  # its siblings, whose names other scripts may have too
                if str(getattr(sys.modules[name], "__file__", None)).startswith(f"{script.parent}{os.sep}"):
                    del sys.modules[name]


def run(command):
    """Run a command in this process, in the folder that is the current one. What it prints is given back.

    Raises:
        RefusedError: It failed.
    """
    words = words_of(command)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            _run(words)
    except SystemExit as left:
        raise RefusedError(f"{command}: {said.getvalue()[-2000:] or left}") from left
    return said.getvalue()


def _run(words):
    if words[:2] == ["accelerate", "launch"]:
        words = ["python", *words[2:]]
    if words[0] == "python" and words[1] == "-m":
        words = ["clarity-hf", *words[3:]] if words[2] == "clarity_hf" else words
    if words[0] == "clarity-hf":
        from clarity_hf.cli import main

        with mock.patch.object(sys, "argv", list(sys.argv)):  # which `train` changes
            status = main(words[1:])
        if status:
            raise SystemExit(status)
    elif words[0] == "python" and words[1] == "-m":
        importlib.import_module(words[2]).main(words[3:])
    elif words[0] == "python":
        run_script(ROOT / words[1], words[2:])
    else:
        raise RefusedError(f"no way to run '{words[0]}' here")


def outputs_of(command):
    """Folders and files that a command says it writes."""
    return [Path(path) for path in re.findall(r"--output[-_]dir[ =](\S+)", command)]


__all__ = ["MissingError", "ParsedError", "RefusedError", "commands_of", "outputs_of", "parse", "run", "run_script"]
