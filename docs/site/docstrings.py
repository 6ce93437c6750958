# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Griffe extension: docstrings as the site needs them.

- [`name`], the way transformers links a class, becomes a link to that name's place in the reference, or code where it
  has none: a name of another library, or of a module that no page shows.
- `.. math::` becomes a block of code: formulas are written so that they read as text, and no script draws them.
- A parameter in the words of transformers, "size (`int`, defaults to 3)", has type and default in their columns.
- A field of a dataclass that is an argument of a command line is described by its help.
- An example in `>>>` becomes a block of code, and a list gets the blank lines before and after that Markdown asks for.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

REFERENCE = Path(__file__).parents[1] / "reference"

_NAME = re.compile(r"\[(`[\w.]+`)\](?![\[(])")
_MATH = re.compile(r"^( *)\.\. math:: *(.*(?:\n\1 +\S.*)*)", re.MULTILINE)
_TYPED = re.compile(r"^ +\*?\w+ \(.*(?:\*optional\*|defaults? to )", re.MULTILINE)
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


class SiteDocstrings(griffe.Extension):
    """Rewrites every docstring of a package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstrings of a package."""
        places = places_by_name(pkg, shown_modules())
        for item in objects_of(pkg):
            if item.is_attribute and item.docstring is None:
                describe_by_help(item)
            if item.docstring is not None:
                item.docstring.value = rewritten(item.docstring.value, places)
                if _TYPED.search(item.docstring.value):
                    sort_into_columns(item.docstring)


def describe_by_help(attribute: griffe.Object) -> None:
    """Give a field `option(default, help)` or `field(..., metadata={"help": help})` its help and its default."""
    try:
        call = ast.parse(str(attribute.value), mode="eval").body  # type: ignore[attr-defined]
    except SyntaxError:
        return
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        return
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    text, default = None, given.get("default") or given.get("default_factory")
    if call.func.id == "option":
        default, text = call.args[0], ast.literal_eval(call.args[1])
    elif call.func.id == "field" and "metadata" in given:
        text = ast.literal_eval(given["metadata"]).get("help")
    if text:
        attribute.docstring = griffe.Docstring(text, parent=attribute)
        attribute.value = ast.unparse(default) if default else None  # type: ignore[attr-defined]


def sort_into_columns(docstring: griffe.Docstring) -> None:
    """Take defaults out of the types of parameters, in the parsed docstring that is kept."""
    for section in docstring.parsed:
        if section.kind is griffe.DocstringSectionKind.parameters:
            for parameter in section.value:
                kind, default = type_and_default(str(parameter.annotation or ""))
                if default is not None:
                    parameter.annotation, parameter.value = kind, default


def type_and_default(written: str) -> tuple[str, str | None]:
    """The type and the default of a parameter in the words of transformers.

    >>> type_and_default("`float` or list of F, defaults to 0.5")
    ('float or list of F', '0.5')
    >>> type_and_default("`int`, *optional*"), type_and_default("`int`")
    (('int', 'None'), ('int', None))
    """
    kind, _, words = written.partition("default")
    default = re.sub(r"^s? to ", "", words).replace("`", "").strip() or None
    if "*optional*" in kind and default is None:
        default = "None"
    return kind.replace("*optional*", "").replace("`", "").strip(" ,"), default


def shown_modules() -> set[str]:
    """Dotted names of the modules that the pages of docs/reference/ show."""
    pages = REFERENCE.glob("*.md")
    return {name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE)}


def objects_of(item: griffe.Object) -> Iterator[griffe.Object]:
    """The object and all that is defined in it, without what it imports."""
    yield item
    for member in item.members.values():
        if not member.is_alias:
            yield from objects_of(member)  # type: ignore[arg-type]


def places_by_name(package: griffe.Module, modules: set[str]) -> dict[str, str]:
    """Where each name is described: by its own name, and with that of its class before it.

    A name that two places have, such as `main`, is left out.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for item in objects_of(package):
        if item.module.path in modules and not item.is_module and item.docstring is not None:
            inside = item.path.removeprefix(f"{item.module.path}.")
            if not any(part.startswith("_") for part in inside.split(".")):
                found[inside].add(item.path)
    return {name: places.pop() for name, places in found.items() if len(places) == 1}


def rewritten(docstring: str, places: dict[str, str]) -> str:
    """A docstring with links, formulas and lists as the site needs them."""

    def link(match: re.Match[str]) -> str:
        place = places.get(match[1].strip("`").removeprefix("clarity_hf."))
        return f"[{match[1]}][{place}]" if place else match[1]

    def formula(match: re.Match[str]) -> str:
        lines = match[2].splitlines()
        rest = textwrap.dedent("\n".join(lines[1:]))
        body = "\n".join(filter(None, [lines[0] if lines else "", rest]))
        return textwrap.indent(f"```text\n{body}\n```", match[1])

    def example(match: re.Match[str]) -> str:
        return f"{match[1]}```pycon\n{match[0]}\n{match[1]}```"

    text = re.sub(r"[ \t]*# doctest: .*", "", docstring)
    return spaced_lists(_EXAMPLE.sub(example, _MATH.sub(formula, _NAME.sub(link, text))))


def spaced_lists(text: str) -> str:
    r"""A text whose lists have an empty line before them and after them.

    >>> spaced_lists("It holds\n- a, or\n  b;\n- c.\nNo more.")
    'It holds\n\n- a, or\n  b;\n- c.\n\nNo more.'
    """
    lines: list[str] = []
    depth: int | None = None  # of the dashes of the list that is open
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        dash = line.lstrip().startswith("- ")
        if not line.strip():
            depth = None
        elif dash and depth is None:
            depth = indent
            if lines and lines[-1].strip():
                lines.append("")
        elif depth is not None and not dash and indent <= depth:
            depth = None
            lines.append("")
        lines.append(line)
    return "\n".join(lines)
