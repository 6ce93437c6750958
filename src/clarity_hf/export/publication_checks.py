# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checks of a folder before it is published: files, hashes, code, weights, card and paths."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import SafetensorError, safe_open

from clarity_hf.configuration_clarity import ClarityConfig
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization, ClarityModel
from clarity_hf.packaged_checkpoints import SUMS, differing_files
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

PACKAGE = Path(__file__).parents[1]

WEIGHTS, CONFIG, PROCESSOR, CARD, LICENCE = (
    "model.safetensors",
    "config.json",
    "preprocessor_config.json",
    "README.md",
    "LICENSE",
)

PICTURES = (".png", ".jpg", ".svg")
"""Suffixes of the pictures that a card may show."""

CARD_FIELDS = ("license", "library_name", "pipeline_tag")
"""Metadata that a card must have."""

MAX_MEGABYTES = 500.0
"""Limit of a folder, in 10⁶ bytes; a ViT-B/16 in single precision has 350."""


def check_publication(
    folder: str | os.PathLike, *, private_paths: Iterable[str | os.PathLike] = ()
) -> dict[str, int]:
    """Check a folder before it is published, without running or unpickling anything.

    There must be exactly one file of weights, a readable safetensors file with the names and shapes of the config's
    model and finite values. Every other file must be one that [`prepare_publication`] writes and of the type of its
    suffix, so there is no pickle. The code must be flat and complete; weights, configs and code must match
    `SHA256SUMS`; the card's metadata must be valid for huggingface_hub; and no text may contain one of the
    `private_paths`, the home or working directory, or any user's home directory.

    Returns:
        Size in bytes of every file, by its name relative to the folder.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The folder is not ready; the message lists every problem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"No such folder: {folder}.")
    entries = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix(): path.lstat().st_size for path in entries}
    problems = [f"{name} is missing" for name in (WEIGHTS, CONFIG, PROCESSOR, SUMS, CARD) if name not in files]
    for name in files:
        problems += [f"{name} {problem}" for problem in _file_problems(folder / name, name)]
    if sum(files.values()) > MAX_MEGABYTES * 1e6:
        problems.append(f"{sum(files.values()) / 1e6:.1f} MB are more than {MAX_MEGABYTES:g}")
    if not problems:  # these read files that the checks above found valid
        try:
            problems += [f"{SUMS} does not match: {name}" for name in differing_files(folder)]
        except ValueError as error:
            problems.append(str(error))
        problems += _code_problems(folder, files)
        problems += _weights_problems(folder)
        problems += [f"{CARD} {problem}" for problem in card_problems((folder / CARD).read_text(encoding="utf-8"))]
        missing = shown_pictures(folder / CARD) - {*files}
        problems += [f"{CARD} shows {picture}, which is missing" for picture in missing]
        problems += _path_problems(folder, files, private_paths)
    if problems:
        count = f"{len(problems)} problems"
        raise ValueError(f"`folder` is not ready to be published, {count}: {'; '.join(problems)}. Correct the source.")
    return files


def card_problems(text: str) -> list[str]:
    """Problems of the metadata in a card's text for which the Hub would refuse it, as far as known offline."""
    try:
        data = ModelCard(text).data
        data.to_yaml()
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        return [f"has metadata that does not parse ({error})"]
    fields = data.to_dict()
    problems = [f"has no `{name}` in its metadata" for name in CARD_FIELDS if not isinstance(fields.get(name), str)]
    if fields.get("license") == "other":
        needed = [name for name in ("license_name", "license_link") if not fields.get(name)]
        problems += [f"has the license `other` and no `{name}`" for name in needed]
    tags = fields.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        problems.append(f"has the tags {tags!r}, which are not a list of words")
    for result in getattr(data, "eval_results", None) or []:
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            problems.append(f"has the value {value!r} for {result.metric_type}, which is not a finite number")
    return problems


def flat_modules(folder: str | os.PathLike, roots: Iterable[str]) -> list[str]:
    """Names, without `.py`, of modules in a folder and of every sibling that they import, directly or not, sorted.

    Raises:
        FileNotFoundError: A module is not in the folder.
        ValueError: A module imports from the package in another way than `from .sibling import name`, the only way
            that works in remote code.
    """
    found: set[str] = set()
    waiting = sorted(roots)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = Path(folder) / f"{name}.py"
        if not path.is_file():
            raise FileNotFoundError(f"`{name}.py` must be in the folder of the modules that import it.")
        found.add(name)
        waiting += _siblings(name, path.read_text(encoding="utf-8"))
    return sorted(found)


def _siblings(name: str, code: str) -> list[str]:
    """Sibling modules that a flat module imports."""
    siblings: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module and "." not in node.module:
            siblings.append(node.module)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            start = "." * node.level + (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            modules = [start] if start else [alias.name for alias in node.names]
            beyond = [module for module in modules if module.startswith(".") or module.split(".")[0] == PACKAGE.name]
            if beyond:
                raise ValueError(
                    f"`{name}.py` must import siblings as `from .sibling import name`, got an import of {beyond[0]}."
                )
    return siblings


def _reference(cls: type) -> str:
    """A class, spelt as in `auto_map`."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def auto_maps() -> dict[str, dict[str, str]]:
    """The `auto_map` of each JSON file."""
    return {
        CONFIG: {
            "AutoConfig": _reference(ClarityConfig),
            "AutoModel": _reference(ClarityModel),
            "AutoModelForImageClassification": _reference(ClarityForMultiLabelLocalization),
        },
        PROCESSOR: {"AutoImageProcessor": _reference(ClarityImageProcessor)},
    }


def root_modules() -> set[str]:
    """Modules of the classes of `auto_map` and of the pipeline, which users pass as `pipeline_class`."""
    named = {reference for auto_map in auto_maps().values() for reference in auto_map.values()}
    return {reference.partition(".")[0] for reference in named | {_reference(ChestXrayLocalizationPipeline)}}


def shown_pictures(card: Path) -> set[str]:
    """Paths of the local pictures in a model card, relative to it."""
    text = card.read_text(encoding="utf-8")
    links = re.findall(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)", text) + re.findall(r"<img[^>]+?src=[\"']([^\"']+)", text)
    return {urllib.parse.unquote(link) for link in links if not re.match(r"[a-z]+:", link)}


def _file_problems(path: Path, name: str) -> list[str]:
    """Problems of one file: its type, and whether it may be published."""
    if path.is_symlink():
        return ["is a link"]
    suffix, flat = path.suffix, "/" not in name
    if name == WEIGHTS:
        try:
            with safe_open(path, framework="pt"):
                return []
        except SafetensorError as error:
            return [f"is not a safetensors file ({error})"]
    with path.open("rb") as file:
        start = file.read(4)
    # Pickles of protocols 2 to 5, and the zip files that torch writes, whatever their names.
    if re.match(rb"\x80[\x02-\x05]|PK\x03\x04", start):
        return ["is a pickle or an archive"]
    if suffix == ".safetensors":
        return ["is a second file of weights"]
    if suffix in (".png", ".jpg"):
        try:
            with Image.open(path, formats=["PNG" if suffix == ".png" else "JPEG"]) as image:
                image.verify()
        except (OSError, SyntaxError, ValueError) as error:
            return [f"is not a picture ({error})"]
        return []
    if not (name in (CONFIG, PROCESSOR, SUMS, CARD, LICENCE) or suffix == ".svg" or (suffix == ".py" and flat)):
        return ["is not a file of a publication"]
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".json" and not isinstance(json.loads(text), dict):
            return ["is not a JSON object"]
        if suffix == ".svg" and "<svg" not in text:
            return ["is not a picture"]
        if suffix == ".py":
            ast.parse(text)
    except (UnicodeDecodeError, json.JSONDecodeError, SyntaxError) as error:
        return [f"does not parse ({error})"]
    return []


def _code_problems(folder: Path, files: Iterable[str]) -> list[str]:
    """Whether the JSON files name the flat code, which must be complete and without extra files."""
    problems = []
    for name, auto_map in auto_maps().items():
        fields = json.loads((folder / name).read_text(encoding="utf-8"))
        if fields.get("auto_map") != auto_map:
            problems.append(f"{name} has the auto_map {fields.get('auto_map')}")
        if "custom_pipelines" in fields:
            problems.append(f"{name} has custom_pipelines, which do not load without remote code")
        if name == CONFIG and fields.get("dtype") != "float32":
            problems.append(f"{name} has the dtype {fields.get('dtype')} and would not compute in float32")
    try:
        modules = flat_modules(folder, root_modules())
    except (ValueError, FileNotFoundError) as error:
        return [*problems, f"the code is not flat ({error})"]
    more = sorted(name for name in files if name.endswith(".py") and name[:-3] not in modules)
    return problems + [f"{name} is imported by nothing" for name in more]


def _weights_problems(folder: Path) -> list[str]:
    """Whether the weights fit the config's model and are finite."""
    with torch.device("meta"):
        model = ClarityForMultiLabelLocalization(ClarityConfig.from_pretrained(folder))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = []
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        stored = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        for name in sorted(stored.keys() | expected.keys()):
            if stored.get(name) != expected.get(name):
                problems.append(f"{WEIGHTS} has {name} {stored.get(name)}, the config's model {expected.get(name)}")
            elif not torch.isfinite(weights.get_tensor(name)).all():
                problems.append(f"{WEIGHTS} has values in {name} that are not finite")
    return problems


def _path_problems(folder: Path, files: Iterable[str], private_paths: Iterable[str | os.PathLike]) -> list[str]:
    """Texts that contain a path of a computer."""
    given = {os.path.abspath(path) for path in (*private_paths, Path.home(), Path.cwd(), folder)}
    given |= {os.path.realpath(path) for path in given}
    paths = [re.escape(path) + r"(?![\w-])" for path in given if path != os.path.abspath(os.sep)]
    users = [r"/(?:home|Users|root)/\w", r"[A-Z]:\\+Users\\+\w", "file://"]
    # Not inside an address such as https://example.org/home/x.
    pattern = re.compile(rf"(?<![\w.])(?:{'|'.join(sorted(paths, key=len, reverse=True) + users)})[^\s\"'`)]*")
    texts = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in files
        if name != WEIGHTS and PurePosixPath(name).suffix not in (".png", ".jpg")
    }
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        texts[WEIGHTS] = json.dumps(weights.metadata() or {})
    return [
        f"{name} names the path {found.group()}"
        for name, text in sorted(texts.items())
        if (found := pattern.search(text))
    ]
