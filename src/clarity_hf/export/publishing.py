# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Publishing: model, image processor, card and flat code, in a folder that is checked, or on the Hub.

Without this package such a folder loads by the Auto classes with `trust_remote_code=True`, which runs the code beside
the weights; after `import clarity_hf` it loads by the package's own classes, and nothing is asked. The config has no
`custom_pipelines`: `pipeline("chest-xray-localization", model=folder)` would then demand remote code from those who
have the package.
"""

from __future__ import annotations

import ast
import copy
import importlib.metadata
import json
import math
import os
import re
import shutil
import tempfile
import urllib.parse
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
import yaml
from huggingface_hub import HfApi, ModelCard, is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image
from safetensors import SafetensorError, safe_open

from clarity_hf.configuration_clarity import TRAINING_DEFAULTS, ClarityConfig
from clarity_hf.fingerprints import write_sums
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization, ClarityModel
from clarity_hf.packaged_checkpoints import SUMS, UNTRAINED, checkpoint_names, checkpoint_path, differing_files
from clarity_hf.pipeline_chest_xray_localization import ChestXrayLocalizationPipeline

from .checkpoint import save_checkpoint

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

Checkpoint = str | os.PathLike | tuple[ClarityForMultiLabelLocalization, ClarityImageProcessor]
"""Name of a packaged checkpoint, a local folder, or a model with its image processor."""


@dataclass(frozen=True)
class Publication:
    """What was published.

    Args:
        place: The folder, or the address on the Hub.
        files: Size in bytes of every file, by its name relative to the place.
        left_out: Files and folders of the source that did not go along, and fields of its config.
    """

    place: str
    files: Mapping[str, int]
    left_out: tuple[str, ...]


def publish(
    checkpoint: Checkpoint,
    destination: str | os.PathLike,
    *,
    half: bool = False,
    private: bool = False,
    card: str | os.PathLike | None = None,
    commit_message: str | None = None,
) -> Publication:
    """Publish a checkpoint to a local folder or to the Hub.

    Args:
        checkpoint: As for [`prepare_publication`].
        destination: A Hub id `owner/name`, unless it exists here, begins with `.`, `/` or `~`, or has another form:
            then it is a folder.
        half: As for [`prepare_publication`].
        private: Whether a repository of the Hub is private.
        card: As for [`prepare_publication`].
        commit_message: Of the commit on the Hub.

    Returns:
        The place, the files that are there now, and what was left out.

    Raises:
        ConnectionError: The destination is on the Hub and huggingface_hub is in offline mode; nothing was written.
        ValueError: `private` or `commit_message` is given for a folder; the repository of the Hub is public and
            should not be, or has files besides these; or as for [`prepare_publication`].
        FileNotFoundError, TypeError: As for [`prepare_publication`].
    """
    if not is_hub_id(destination):
        if private or commit_message is not None:
            raise ValueError(
                f"`private` and `commit_message` must be left out for a folder, got the folder {destination}. Name a "
                "Hub id `owner/name` that is no path here."
            )
        return prepare_publication(checkpoint, destination, half=half, card=card)
    repo_id = str(destination)
    if is_offline_mode():
        raise ConnectionError(
            f"`destination` must be a folder in offline mode, got the Hub id {repo_id}. Unset HF_HUB_OFFLINE, or "
            f"write ./{repo_id} for a folder."
        )
    with tempfile.TemporaryDirectory() as staging:
        prepared = prepare_publication(checkpoint, Path(staging) / "publication", half=half, card=card)
        api = HfApi()
        api.create_repo(repo_id, private=private, exist_ok=True)
        _check_repository(api, repo_id, private, prepared.files)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=prepared.place,
            commit_message=commit_message or f"Publish with clarity_hf {importlib.metadata.version('clarity_hf')}",
        )
    return Publication(str(commit.commit_url), prepared.files, prepared.left_out)


def is_hub_id(destination: str | os.PathLike) -> bool:
    """Whether a destination is a Hub id `owner/name`, and not a path.

    Example:
        >>> is_hub_id("someone/clarity-s16-224"), is_hub_id("./someone/clarity-s16-224"), is_hub_id("clarity-s16-224")
        (True, False, False)
    """
    if not isinstance(destination, str) or destination.startswith((".", "/", "~")) or destination.count("/") != 1:
        return False
    try:
        validate_repo_id(destination)
    except HFValidationError:
        return False
    return not os.path.exists(destination)


def prepare_publication(
    checkpoint: Checkpoint,
    folder: str | os.PathLike,
    *,
    half: bool = False,
    card: str | os.PathLike | None = None,
) -> Publication:
    """Write the folder that is published: safetensors, two configs, flat code, their hashes, the card with pictures.

    Everything is made anew or copied by name: pickles, optimizer states, records and run files of the source stay
    where they are. The folder appears after [`check_publication`] has passed, or not at all.

    Args:
        checkpoint: Name of a packaged checkpoint, a local folder, or a model with its image processor.
        folder: New or empty.
        half: Whether weights are stored in fp16, at half the size, instead of fp32. They load in fp32 either way.
        card: A `README.md` instead of the source's own, its pictures beside it; needed for a model with its processor.

    Returns:
        The folder, its files, and what of the source was left out.

    Raises:
        FileNotFoundError: There is no such checkpoint, no card, or a picture of the card is missing.
        OSError: The checkpoint's weights do not ship, or a source without safetensors.
        TypeError: The model or the image processor is of another class.
        ValueError: `folder` holds something; the weights do not fit the config; the card's metadata is not valid; or
            the result does not pass [`check_publication`].
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"`folder` must be new or empty, got {folder}. Choose another, or empty it.")
    source = None if isinstance(checkpoint, tuple) else _source_folder(checkpoint)
    card_file = _card_file(source, card)
    pictures = _pictures_of(card_file)
    model, image_processor = checkpoint if isinstance(checkpoint, tuple) else _load(_source_folder(checkpoint))
    _check_classes(model, image_processor)
    copied = {CARD: card_file} | {picture: card_file.parent / picture for picture in pictures}
    if source is not None and (source / LICENCE).is_file():
        copied[LICENCE] = source / LICENCE

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".publication-") as staging:
        written = Path(staging) / "publication"
        written.mkdir()
        _save(model, image_processor, written, half)
        dropped = _write_references(written)
        modules = flat_modules(PACKAGE, _root_modules())
        for name, path in copied.items() | {(f"{module}.py", PACKAGE / f"{module}.py") for module in modules}:
            (written / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, written / name)
        write_sums(written)
        files = check_publication(written, private_paths=[] if source is None else [source])
        if folder.exists():
            folder.rmdir()  # not every system renames onto an empty folder
        written.replace(folder)
    left_out = () if source is None else _left_out(source, {*files} - ({CARD} if card is not None else set()))
    return Publication(str(folder), files, (*left_out, *dropped))


def check_publication(
    folder: str | os.PathLike,
    *,
    private_paths: Iterable[str | os.PathLike] = (),
    max_megabytes: float = MAX_MEGABYTES,
) -> dict[str, int]:
    """Check a folder as it would be published; nothing of it is run or unpickled.

    There is exactly one file of weights, a readable safetensors with the names and shapes of the config's model and
    finite values; every other file is one of those that [`prepare_publication`] writes and is what its suffix says, so
    that no pickle is among them; the code is flat and whole; weights, configs and code are those of `SHA256SUMS`; the
    card's metadata is valid for huggingface_hub; no text names a path of this machine.

    Args:
        folder: A local folder.
        private_paths: Paths that no text may name, besides the home and the working directory and users' folders of
            any machine.
        max_megabytes: Limit of all files together, in 10⁶ bytes.

    Returns:
        Size in bytes of every file, by its name relative to the folder.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: The message names everything that is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a folder, got {folder}. Check the path.")
    entries = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix(): path.lstat().st_size for path in entries}
    problems = [f"{name} is missing" for name in (WEIGHTS, CONFIG, PROCESSOR, SUMS, CARD) if name not in files]
    for name in files:
        problems += [f"{name} {problem}" for problem in _file_problems(folder / name, name)]
    if sum(files.values()) > max_megabytes * 1e6:
        problems.append(f"{sum(files.values()) / 1e6:.1f} MB are more than {max_megabytes:g}")
    if not problems:  # each of these reads files that the ones before have found to be whole
        problems += _sums_problems(folder)
        problems += _code_problems(folder, files)
        problems += _weights_problems(folder)
        problems += [f"{CARD} {problem}" for problem in card_problems((folder / CARD).read_text(encoding="utf-8"))]
        missing = shown_pictures(folder / CARD) - {*files}
        problems += [f"{CARD} shows {picture}, which is missing" for picture in missing]
        problems += _path_problems(folder, files, private_paths)
    if problems:
        raise ValueError(
            f"`folder` must be ready to be published, got {len(problems)} problems: {'; '.join(problems)}. Correct "
            "them in the source and publish again."
        )
    return files


def card_problems(text: str) -> list[str]:
    """What the Hub, as far as huggingface_hub knows without asking it, would not take of a card's metadata.

    Args:
        text: A whole card.

    Returns:
        A phrase a problem; empty for a valid card.
    """
    try:
        data = ModelCard(text).data
        data.to_yaml()
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        return [f"has metadata that do not parse ({error})"]
    fields = data.to_dict()
    problems = [f"has no `{name}` in its metadata" for name in CARD_FIELDS if not isinstance(fields.get(name), str)]
    if fields.get("license") == "other":
        needed = [name for name in ("license_name", "license_link") if not fields.get(name)]
        problems += [f"has the license `other` and no `{name}`" for name in needed]
    tags = fields.get("tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        problems.append(f"has the tags {tags!r}, which are no list of words")
    for result in getattr(data, "eval_results", None) or []:
        value = result.metric_value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            problems.append(f"has the value {value!r} for {result.metric_type}, which is no finite number")
    return problems


def flat_modules(folder: str | os.PathLike, roots: Iterable[str]) -> list[str]:
    """Modules that must lie side by side so that some of them can be imported.

    Args:
        folder: Where the modules are.
        roots: Names of modules, without `.py`.

    Returns:
        The roots and every sibling that they import, directly or not, sorted.

    Raises:
        FileNotFoundError: A module is not in the folder.
        ValueError: A module imports something of the package in another way than `from .sibling import name`, which is
            all that remote code can follow.
    """
    found: set[str] = set()
    waiting = sorted(roots)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = Path(folder) / f"{name}.py"
        if not path.is_file():
            raise FileNotFoundError(f"`{name}.py` must lie beside the modules that import it, got no such file.")
        found.add(name)
        waiting += _siblings(name, path.read_text(encoding="utf-8"))
    return sorted(found)


def _siblings(name: str, code: str) -> list[str]:
    """Modules that a flat module imports from beside it."""
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
                    f"`{name}.py` must import siblings as `from .sibling import name`, got an import of {beyond[0]}. "
                    "Move what it needs into a flat module."
                )
    return siblings


def _reference(cls: type) -> str:
    """A class as `auto_map` names it."""
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def _references() -> dict[str, dict[str, str]]:
    """The `auto_map` of each JSON file."""
    return {
        CONFIG: {
            "AutoConfig": _reference(ClarityConfig),
            "AutoModel": _reference(ClarityModel),
            "AutoModelForImageClassification": _reference(ClarityForMultiLabelLocalization),
        },
        PROCESSOR: {"AutoImageProcessor": _reference(ClarityImageProcessor)},
    }


def _root_modules() -> set[str]:
    """Modules of the classes of `auto_map`, and of the pipeline, which is given by hand as `pipeline_class`."""
    named = {reference for auto_map in _references().values() for reference in auto_map.values()}
    return {reference.partition(".")[0] for reference in named | {_reference(ChestXrayLocalizationPipeline)}}


def _write_references(folder: Path) -> list[str]:
    """Write `auto_map` into the JSON files; returns the fields that were dropped for it."""
    dropped = []
    for name, auto_map in _references().items():
        path = folder / name
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("custom_pipelines", None):
            dropped.append(f"custom_pipelines of {name}")
        fields["auto_map"] = auto_map
        path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return dropped


def _source_folder(checkpoint: str | os.PathLike) -> Path:
    """Folder of a checkpoint; one in the working directory goes before a packaged one of that name."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if str(checkpoint) in (*checkpoint_names(), *UNTRAINED):
        return checkpoint_path(str(checkpoint))
    raise FileNotFoundError(
        f"`checkpoint` must be a packaged checkpoint ({', '.join(checkpoint_names()) or 'none'}), a folder or a pair "
        f"of model and image processor, got '{checkpoint}'. Correct the name."
    )


def _load(folder: Path) -> tuple[ClarityForMultiLabelLocalization, ClarityImageProcessor]:
    """Model and processor of a folder, from safetensors alone; weights that are not there are not made up."""
    model, loading = ClarityForMultiLabelLocalization.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    wrong = sorted(
        [*loading["missing_keys"], *loading["unexpected_keys"], *(name for name, *_ in loading["mismatched_keys"])]
    )
    if wrong:
        raise ValueError(
            f"`checkpoint` must have exactly the weights of its config, got {len(wrong)} that are missing, too many "
            f"or of another shape, such as {wrong[0]}. Save it again with `save_pretrained`."
        )
    return model, ClarityImageProcessor.from_pretrained(folder)


def _check_classes(model: object, image_processor: object) -> None:
    for name, given, cls in (
        ("model", model, ClarityForMultiLabelLocalization),
        ("image_processor", image_processor, ClarityImageProcessor),
    ):
        if not isinstance(given, cls):
            raise TypeError(
                f"`{name}` must be a {cls.__name__}, got {type(given).__name__}. Load it with {cls.__name__}."
                "from_pretrained."
            )


def _save(
    model: ClarityForMultiLabelLocalization, image_processor: ClarityImageProcessor, folder: Path, half: bool
) -> None:
    if half:
        save_checkpoint(model, image_processor, folder)
    else:
        saved = copy.deepcopy(model).float()
        saved.config.update(TRAINING_DEFAULTS)
        saved.save_pretrained(folder)
        image_processor.save_pretrained(folder)


def _card_file(source: Path | None, card: str | os.PathLike | None) -> Path:
    """The card to publish, its metadata valid."""
    path = Path(card) if card is not None else source / CARD if source is not None else None
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"`card` must be a model card, got {'None' if path is None else path}, which is no file. Write one, for "
            "instance with `write_model_card`."
        )
    problems = card_problems(path.read_text(encoding="utf-8"))
    if problems:
        raise ValueError(f"`{path.name}` must be a valid model card, got one that {'; '.join(problems)}. Correct it.")
    return path


def _pictures_of(card: Path) -> list[str]:
    """Pictures of the card, all there and below its folder."""
    shown = sorted(shown_pictures(card))
    for picture in shown:
        parts = PurePosixPath(picture)
        if parts.is_absolute() or ".." in parts.parts or parts.suffix not in PICTURES:
            raise ValueError(
                f"`{card.name}` must show pictures {', '.join(PICTURES)} from below its own folder, got {picture}. "
                "Move the picture there."
            )
        if not (card.parent / picture).is_file():
            raise FileNotFoundError(
                f"`{card.name}` must show pictures that are there, got {picture}, which is no file. Add it."
            )
    return shown


def shown_pictures(card: Path) -> set[str]:
    """Paths of the local pictures that a card shows, relative to it.

    Args:
        card: A `README.md`.
    """
    text = card.read_text(encoding="utf-8")
    links = re.findall(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)", text) + re.findall(r"<img[^>]+?src=[\"']([^\"']+)", text)
    return {urllib.parse.unquote(link) for link in links if not re.match(r"[a-z]+:", link)}


def _left_out(source: Path, published: Iterable[str]) -> tuple[str, ...]:
    """Files of a source that did not go along; those of a folder are counted together."""
    made_anew = {*published, "model.safetensors.index.json"}
    counts: Counter[str] = Counter()
    for path in source.rglob("*"):
        name = path.relative_to(source)
        if path.is_dir() or name.as_posix() in made_anew or re.fullmatch(r"model-\d+-of-\d+\.safetensors", str(name)):
            continue
        counts[name.parts[0] + ("/" if len(name.parts) > 1 else "")] += 1
    return tuple(
        f"{name} ({n} file{'s' * (n > 1)})" if name.endswith("/") else name for name, n in sorted(counts.items())
    )


def _check_repository(api: HfApi, repo_id: str, private: bool, files: Iterable[str]) -> None:
    """Refuse a repository that would not hold what was checked, and only that; nothing there is deleted unasked."""
    if private and not api.repo_info(repo_id).private:
        raise ValueError(
            f"`destination` must be a private repository, got {repo_id}, which is there and public. Make it private "
            "on the Hub, or choose another."
        )
    others = sorted({*api.list_repo_files(repo_id)} - {*files, ".gitattributes"})
    if others:
        raise ValueError(
            f"`destination` must hold nothing but a publication, got {repo_id} with {', '.join(others)}. Delete them "
            "there, or choose another."
        )


def _file_problems(path: Path, name: str) -> list[str]:
    """Whether one file may be published and is what its name says."""
    if path.is_symlink():
        return ["is a link"]
    suffix, flat = path.suffix, "/" not in name
    if name == WEIGHTS:
        return _safetensors_problems(path)
    with path.open("rb") as file:
        start = file.read(4)
    # Pickles of protocols 2 to 5 and zip files, which torch writes, whatever their names; a text has neither start.
    if re.match(rb"\x80[\x02-\x05]|PK\x03\x04", start):
        return ["is a pickle or an archive"]
    if suffix == ".safetensors":
        return ["is a second file of weights"]
    if suffix in (".png", ".jpg"):
        return _raster_problems(path)
    if not (name in (CONFIG, PROCESSOR, SUMS, CARD, LICENCE) or suffix == ".svg" or (suffix == ".py" and flat)):
        return ["is no file of a publication"]
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".json" and not isinstance(json.loads(text), dict):
            return ["is no JSON object"]
        if suffix == ".svg" and "<svg" not in text:
            return ["is no picture"]
        if suffix == ".py":
            ast.parse(text)
    except (UnicodeDecodeError, json.JSONDecodeError, SyntaxError) as error:
        return [f"does not parse ({error})"]
    return []


def _safetensors_problems(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt"):
            return []
    except SafetensorError as error:
        return [f"is no safetensors ({error})"]


def _raster_problems(path: Path) -> list[str]:
    try:
        with Image.open(path, formats=["PNG" if path.suffix == ".png" else "JPEG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError) as error:
        return [f"is no picture ({error})"]
    return []


def _sums_problems(folder: Path) -> list[str]:
    """Whether weights, configs and code are what `SHA256SUMS` states."""
    try:
        return [f"{SUMS} states other files: {name}" for name in differing_files(folder)]
    except ValueError as error:
        return [str(error)]


def _code_problems(folder: Path, files: Iterable[str]) -> list[str]:
    """Whether the JSON files name the flat code and the flat code is whole, without more."""
    problems = []
    for name, auto_map in _references().items():
        fields = json.loads((folder / name).read_text(encoding="utf-8"))
        if fields.get("auto_map") != auto_map:
            problems.append(f"{name} has the auto_map {fields.get('auto_map')}")
        if "custom_pipelines" in fields:
            problems.append(f"{name} has custom_pipelines, which do not load without remote code")
        if name == CONFIG and fields.get("dtype") != "float32":
            problems.append(f"{name} has the dtype {fields.get('dtype')} and would not compute in float32")
    try:
        modules = flat_modules(folder, _root_modules())
    except (ValueError, FileNotFoundError) as error:
        return [*problems, f"the code is not flat ({error})"]
    more = sorted(name for name in files if name.endswith(".py") and name[:-3] not in modules)
    return problems + [f"{name} is imported by nothing" for name in more]


def _weights_problems(folder: Path) -> list[str]:
    """Whether the weights are those of the config's model, and finite."""
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
    """Where a text names a path of a machine."""
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
