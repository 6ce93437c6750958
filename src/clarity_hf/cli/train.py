# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""`clarity-hf train`: train a model on image labels, with the training recipe's own parser."""

import sys
from typing import Any

import typer

PARSER_READS_ALL: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}
"""Settings of the command, whose arguments, including `--help`, are parsed by the recipe."""


def train(context: typer.Context) -> None:
    """Train on image labels, or resume a run.

    Arguments are [CONFIG.yaml] [--FIELD VALUE ...], with the fields of the recipe and of the Trainer's arguments.
    """
    from clarity_hf.training.train import main

    # The parser reads its arguments and the name of the program from there.
    sys.argv = [context.command_path, *context.args]
    main()
