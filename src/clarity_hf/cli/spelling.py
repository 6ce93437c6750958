# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""One spelling for all commands: `--output_dir` or `--output-dir`, `--baselines a b` or `--baseline a` and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

NONE = "none"
"""Of an option that takes several of its choices: none of them."""

SPELLING: dict[str, Any] = {"token_normalize_func": lambda word: word.replace("_", "-")}
"""Settings of a command whose options are spelt with hyphens, and taken with underscores too."""


class Command(TyperCommand):
    """A command whose repeatable options with choices take several of them at once, as argparse does."""

    choices: Mapping[str, Sequence[str]] = {}
    """Of each option that takes a list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spread lists out, and parse as ever."""
        return super().parse_args(ctx, spread(args, self.choices))


def spread(words: Sequence[str], choices: Mapping[str, Sequence[str]]) -> list[str]:
    """Words of a command with a list behind an option as that option again for each of its items.

    A list ends where a word is none of the option's choices; an empty one is the choice `none`.

    Args:
        words: Of the command.
        choices: Of each option that takes a list.

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
