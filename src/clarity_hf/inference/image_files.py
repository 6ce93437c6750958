# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Find the images among files, folders, globs and lists, and name them in results."""

from __future__ import annotations

import codecs
import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clarity_hf.dicom_reading import looks_like_dicom

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
"""A file in a folder with one of these endings counts as an image, so that broken ones are reported."""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"BM")


@dataclass(frozen=True)
class ImageFile:
    """A file to predict.

    Attributes:
        path: Path of the file.
        name: Its name in results: the path below the deepest folder common to all inputs, with `/`. If the inputs
            have only the root of the file system in common, the path below its own input, preceded by as many of the
            input's last folders as distinguish the inputs.
    """

    path: Path
    name: str


@dataclass(frozen=True)
class FoundImages:
    """What `find_images` found.

    Attributes:
        images: Each file once, in the order of the inputs, sorted by name within a folder.
        passed_over: Number of other files in folders, by their ending (`""` for none), most frequent first.
        unread: Folders that could not be listed, each with the reason; images in them are missing.
        folders: Number of subfolders that were not searched, without `recursive`.
        results: Number of folders of overlays and DICOM results of earlier predictions, which are not searched.
    """

    images: tuple[ImageFile, ...]
    passed_over: dict[str, int]
    unread: dict[str, str] = field(default_factory=dict)
    folders: int = 0
    results: int = 0


def find_images(
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
    recursive: bool = False,
    exclude: Sequence[str | os.PathLike] = (),
) -> FoundImages:
    """List the images of the inputs.

    Args:
        inputs: Files, which all count as images; folders, whose PNG, JPEG, TIFF, BMP and DICOM files are recognised by
            content, with or without an ending; globs, with `**` for any depth; and `@FILE`, a text file with one of
            these per line, quoted or not, relative to the working directory, in UTF-8, or in UTF-16 with a byte order
            mark.
        recursive: Whether to search subfolders, including linked ones, each once.
        exclude: Folders not to search, such as the folder of the results.

    Raises:
        FileNotFoundError: An input matches nothing.
        ValueError: No image is found, or a list is not text.
    """
    inputs = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    excluded = {os.path.realpath(folder) for folder in exclude}
    found: dict[str, None] = {}
    roots: set[str] = set()
    passed_over: Counter[str] = Counter()
    walk = _Walk(recursive, excluded)
    for given in _expanded(inputs, walk):
        in_folder = os.path.isdir(given)
        roots.add(os.path.abspath(given) if in_folder else os.path.dirname(os.path.abspath(given)))
        for path in walk.files_below(given) if in_folder else [given]:
            # A glob may reach into the results.
            if _is_image(path) if in_folder else not _is_below(path, excluded):
                found[os.path.abspath(path)] = None
            else:
                passed_over[os.path.splitext(path)[1].lower()] += 1
    if not found:
        unread = "".join(f" {folder}: {reason}." for folder, reason in list(walk.unread.items())[:3])
        raise ValueError(
            f"`inputs` must include images, got none among {sum(passed_over.values())} files.{unread} "
            "Check the paths, or search subfolders (recursive; --recursive)."
        )
    starts = _starts_of_names(roots)
    images = tuple(ImageFile(Path(path), _name(path, starts)) for path in found)
    return FoundImages(images, dict(passed_over.most_common()), walk.unread, walk.folders, walk.results)


def _starts_of_names(roots: set[str]) -> dict[str, str]:
    """Folders above all images, and what replaces each in names."""
    with contextlib.suppress(ValueError):  # different drives share no folder
        common = os.path.commonpath(roots)
        if common != Path(common).anchor or common in roots:
            return {common: ""}
    outer = [root for root in roots if not any(str(parent) in roots for parent in Path(root).parents)]
    parts = [Path(root).parts[1:] for root in outer]
    deepest = max(map(len, parts))
    kept = next((n for n in range(1, deepest) if len({some[-n:] for some in parts}) == len(parts)), deepest)
    return {root: "/".join(some[-kept:]) for root, some in zip(outer, parts, strict=True)}


def _name(path: str, starts: dict[str, str]) -> str:
    root = next(str(parent) for parent in Path(path).parents if str(parent) in starts)
    return (Path(starts[root]) / os.path.relpath(path, root)).as_posix()


def _expanded(inputs: Iterable[str | os.PathLike], walk: _Walk) -> Iterator[str]:
    """Inputs, with lists and globs expanded."""
    for given in (os.fspath(path) for path in inputs):
        if os.path.exists(given):
            yield given
        elif given.startswith("@"):
            for line in _lines_of_list(given[1:]):
                if line.startswith("@") and not os.path.exists(line):
                    raise ValueError(f"`inputs` must not name a list inside a list, got '{line}' in '{given}'.")
                yield from _expanded([line], walk)
        elif not glob.has_magic(given):
            raise FileNotFoundError(f"No such file or folder: {given}. Check the path.")
        else:
            walk.note_unlisted(given)
            matches = sorted(glob.glob(given, recursive=True))
            if not matches:
                raise FileNotFoundError(f"No file matches {given}. Check the pattern.")
            yield from matches


def _lines_of_list(path: str) -> list[str]:
    """Lines of a list, in UTF-8 or in UTF-16 with a byte order mark, as editors and spreadsheets write them."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"No such list: @{path}. Check the path.")
    content = Path(path).read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The list @{path} is not UTF-8 text. Save it as UTF-8.") from error
    if "\0" in text:
        raise ValueError(f"The list @{path} contains NUL characters. Save it as UTF-8.")
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return [_unquoted(line) for line in lines if line.strip()]


def _unquoted(line: str) -> str:
    """A path without surrounding blanks and quotes, unless a file has exactly that name."""
    bare = line.strip()
    if not os.path.exists(bare) and len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        bare = bare[1:-1]
    return line if os.path.exists(line) else bare


_RESULTS = ("settings.json", "findings.jsonl")
_DRAWN = ("overlays", "dicom")
"""Files of a folder of results, and its folders of images that are no radiographs."""


class _Walk:
    """Walks folders in the order of their names, and records those that could not be listed."""

    def __init__(self, recursive: bool, excluded: set[str]):
        self.recursive, self.excluded = recursive, excluded
        self.unread: dict[str, str] = {}
        self.folders = 0
        self.results = 0

    def files_below(self, folder: str) -> Iterator[str]:
        """Files of a folder, without hidden files and folders."""
        root = os.path.realpath(folder)
        entered = {root}
        for here, folders, files in os.walk(folder, onerror=self._note, followlinks=True):
            visible = (os.path.join(here, name) for name in sorted(folders) if not name.startswith("."))
            inside = [path for path in visible if os.path.realpath(path) not in self.excluded]
            if not self.recursive:
                self.folders += len(inside)
                inside = []
            folders[:] = [os.path.basename(path) for path in inside if self._enters(path, root, entered)]
            yield from (os.path.join(here, name) for name in sorted(files) if not name.startswith("."))

    def _enters(self, path: str, root: str, entered: set[str]) -> bool:
        """Whether to search a folder. One below the root is searched by its own path, not by a link."""
        real = os.path.realpath(path)
        if os.path.islink(path):
            if real != root and _contains(real, root):
                self.unread[path] = "is a link to a folder that contains this one"
                return False
            if _contains(root, real) and not any(part.startswith(".") for part in Path(real).relative_to(root).parts):
                return False
        if real in entered:
            return False
        parent, name = os.path.split(path)
        if name in _DRAWN and all(os.path.isfile(os.path.join(parent, file)) for file in _RESULTS):
            self.results += 1
            return False
        entered.add(real)
        return True

    def note_unlisted(self, pattern: str) -> None:
        """Record folders that a glob would search and cannot list; `glob` ignores them silently."""
        parts = Path(pattern).parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        base = str(Path(*parts[:fixed])) if fixed else os.curdir
        depth = len(parts) - fixed - 1 if "**" not in parts else None
        for here, folders, _ in os.walk(base, onerror=self._note):
            below = 0 if here == base else len(Path(here).relative_to(base).parts)
            if depth is not None and below >= depth:
                folders.clear()

    def _note(self, error: OSError) -> None:
        self.unread[str(error.filename)] = f"cannot be listed ({error.strerror})"


def _contains(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def _is_below(path: str, folders: set[str]) -> bool:
    return any(str(parent) in folders for parent in Path(os.path.realpath(path)).parents)


def _is_image(path: str) -> bool:
    """Whether a file in a folder is an image; the index of a DICOM medium (PS3.10, section 8) is not."""
    if os.path.basename(path).upper() == "DICOMDIR":
        return False
    if path.lower().endswith(SUFFIXES):  # also a broken link or a pipe, which then fails by name
        return True
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or looks_like_dicom(start)
