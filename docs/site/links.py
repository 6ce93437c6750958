# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""MkDocs hook: pages that lie outside docs/, and links that leave it.

A relative link is written once, as the repository has its files. On the site a link to a file

- of docs/ stays as it is;
- that has a page of its own here (`MIRRORED`) goes to that page, and the home page stands for README.md;
- of the package goes to its place in the reference, where its module has one: to the object that the text names, such
  as [`read_image`](../src/clarity_hf/image_reading.py), else to the module;
- elsewhere in the repository goes to `repo_url`, where mkdocs.yml has one, and otherwise names the file in words.

A link to a file that is not there is a warning, which `mkdocs build --strict` refuses.
"""

from __future__ import annotations

import logging
import posixpath
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

MIRRORED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "src/clarity_hf/checkpoints/clarity-s16-224/README.md": "card.md",
}
"""Pages of the site, by the file of the repository that they are."""

SEARCH = {"reports/*/*/tables/*": {"exclude": True}, "reference/*": {"boost": 0.5}}
"""How the search takes pages, by the form of their names: words about a thing come before its signature."""

STANDS_FOR = MIRRORED | {"README.md": "index.md"}

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
_CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$|^ {4}[^\n]*$", re.MULTILINE | re.DOTALL)

log = logging.getLogger(f"mkdocs.hooks.{__name__}")


def on_files(files: Files, config: Any) -> Files:
    """Add the mirrored pages, and the pictures beside them."""
    for source, page in MIRRORED.items():
        path = ROOT / source
        files.append(File.generated(config, page, content=path.read_text(encoding="utf-8")))
        if path.parent != ROOT:
            for picture in sorted(path.parent.glob("*.jpg")):
                files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point the links of a page to where they lead on the site, and say how the search takes it."""
    for form, rule in SEARCH.items():
        if fnmatch(page.file.src_uri, form):
            page.meta["search"] = rule
    mirrored = {there: here for here, there in MIRRORED.items()}
    origin = mirrored.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return rewritten(markdown, origin, page.file.src_uri, documented_modules(), config.repo_url)


def documented_modules() -> set[str]:
    """Dotted names of the modules that the pages of docs/reference/ show."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    return {name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), re.MULTILINE)}


def rewritten(markdown: str, origin: str, page: str, modules: set[str], repo_url: str | None = None) -> str:
    """Rewrite the relative links of a text.

    Args:
        markdown: Text of the page.
        origin: The file that it is, from the repository's root.
        page: The page that it becomes, from the site's.
        modules: Modules of the package that the reference shows.
        repo_url: Address of the repository; None names files that the site does not have.
    """

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        if not target or re.match(r"\w+:|//", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
        if not (ROOT / path).exists():
            log.warning("%s: the link to %s leads nowhere: there is no %s", origin, match["target"], path)
            return match[0]
        here = STANDS_FOR.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if match["picture"] and here is None:
            here = posixpath.basename(path)
        if here is not None:
            here = posixpath.relpath(here, posixpath.dirname(page) or ".")
            return f"{match['picture']}[{match['text']}]({here}{'#' * bool(anchor)}{anchor})"
        return _outside(match["text"], path, modules, repo_url)

    def prose(text: str) -> str:
        return _LINK.sub(link, text)

    pieces, place = [], 0
    for code in _CODE.finditer(markdown):
        pieces += [prose(markdown[place : code.start()]), code[0]]
        place = code.end()
    return "".join([*pieces, prose(markdown[place:])])


def _outside(text: str, path: str, modules: set[str], repo_url: str | None) -> str:
    """A link to a file that is not a page: into the reference, to the repository, or its name."""
    module = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    if path.endswith(".py") and module in modules:
        name = defined_name(text, (ROOT / path).read_text(encoding="utf-8"))
        return f"[{text}][{module}{'.' * bool(name)}{name}]"
    if repo_url:
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"[{text}]({repo_url.rstrip('/')}/{kind}/HEAD/{path})"
    words = text.strip("`").rstrip("/")
    return f"`{path}`" if path.endswith(words) else f"{text} (`{path}`)"


def defined_name(text: str, code: str) -> str:
    r"""The class, function or constant of a module that a link's text names, or nothing.

    >>> defined_name("`room.Reader.read`", "class Reader:\\n    def read(self): ...")
    'Reader'
    """
    for name in re.findall(r"\w+", text):
        if re.search(rf"^(?:class|def) {name}\b|^{name}\b[^\n(]*=", code, re.MULTILINE):
            return name
    return ""
