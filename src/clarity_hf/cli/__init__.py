# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The command line `clarity-hf`: one file per command, each a thin call of the function that does the work.

Torch, transformers and the other heavy libraries are imported inside the commands, so that help appears at once.
"""

import sys
import warnings
from collections.abc import Sequence

import typer

from clarity_hf.deprecated import current_options
from clarity_hf.labels import FINDINGS

from .calibrate import calibrate
from .demo import demo
from .evaluate import Baseline, evaluate
from .export import export
from .phantom import phantom
from .predict import predict
from .publish import publish
from .serve_dicom import serve_dicom
from .spelling import SPELLING, Command
from .train import PARSER_READS_ALL, train

app = typer.Typer(
    name="clarity-hf",
    help="Classify and localize findings on chest radiographs. For research, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _Command(Command):
    choices = {
        **dict.fromkeys(("--baselines", "--baseline"), tuple(Baseline)),
        **dict.fromkeys(("--findings", "--finding"), FINDINGS),
    }


app.command(context_settings=PARSER_READS_ALL)(train)
for command in (predict, evaluate, calibrate, export, publish, demo, serve_dicom, phantom):
    app.command(cls=_Command, context_settings=SPELLING)(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Arguments, by default those of the process.

    Returns:
        Exit status: 0 for success, 1 if nothing could be done or the arguments are wrong, 3 if some images failed, 130
        or 143 if stopped by SIGINT or SIGTERM.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", DeprecationWarning)
            words = current_options(sys.argv[1:] if arguments is None else arguments)
        app(words, prog_name="clarity-hf")
    except SystemExit as left:
        return 1 if left.code == 2 else int(left.code or 0)
    except (OSError, TypeError, ValueError, ImportError, MemoryError) as error:
        print(f"error: {error or 'out of memory'}", file=sys.stderr)
        return 1
    return 0


__all__ = ["app", "main"]
