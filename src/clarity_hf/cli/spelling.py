# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""One spelling for all commands: `--output_dir` or `--output-dir`, `--baselines a b` or `--baseline a` and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

NONE = "none"
"""Choice that stands for an empty list."""

SPELLING: dict[str, Any] = {"token_normalize_func": lambda word: word.replace("_", "-")}
"""Settings of a command whose options are spelt with hyphens and also accepted with underscores."""


class Command(TyperCommand):
    """A command whose repeatable options with choices also take a list of them, as in argparse."""

    choices: Mapping[str, Sequence[str]] = {}
    """Choices of each option that takes a list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spread lists, then parse as usual."""
        return super().parse_args(ctx, spread(args, self.choices))


def spread(words: Sequence[str], choices: Mapping[str, Sequence[str]]) -> list[str]:
    """Repeat an option that is followed by a list before each of its items.

    A list ends at the first word that is not one of the option's choices; an empty list becomes the choice `none`.

    Example:
        >>> spread(["a", "--baselines", "cam", "random", "b"], {"--baselines": ["cam", "random", "none"]})
        ['a', '--baselines', 'cam', '--baselines', 'random', 'b']
    """
    spread_out: list[str] = []
    option, empty = "", False
    for word in [*words, "--"]:
        if option and (word in choices[option] or (empty and not word.startswith("-"))):
            spread_out += [option, word]
            empty = False
            continue
        if empty:
            spread_out += [option, NONE]
        option = word if word in choices else ""
        empty = bool(option)
        if not option:
            spread_out.append(word)
    return spread_out[:-1]
