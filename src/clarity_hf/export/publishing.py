# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Publish model, image processor, card and flat code to a checked folder or to the Hub.

Without this package the Auto classes load such a folder with `trust_remote_code=True`, which runs the code beside the
weights; after `import clarity_hf` they use the package's own classes. The config has no `custom_pipelines`, with which
`pipeline("chest-xray-localization", model=folder)` would require remote code even if the package is installed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from huggingface_hub import HfApi, is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from clarity_hf.fingerprints import write_sums
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
from clarity_hf.packaged_checkpoints import UNTRAINED, checkpoint_names, checkpoint_path

from .checkpoint import save_checkpoint
from .publication_checks import (
    CARD,
    LICENCE,
    PACKAGE,
    PICTURES,
    auto_maps,
    card_problems,
    check_publication,
    flat_modules,
    root_modules,
    shown_pictures,
)

Checkpoint = str | os.PathLike | tuple[ClarityForMultiLabelLocalization, ClarityImageProcessor]
"""Name of a packaged checkpoint, a local folder, or a model with its image processor."""


@dataclass(frozen=True)
class Publication:
    """What was published.

    Args:
        place: The folder, or the URL on the Hub.
        files: Size in bytes of every file, by its name relative to the place.
        left_out: Files and folders of the source, and fields of its config, that were not published.
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
        destination: A Hub id `owner/name`; a folder if it exists here, begins with `.`, `/` or `~`, or has another
            form.
        half: As for [`prepare_publication`].
        private: Whether the Hub repository is private.
        card: As for [`prepare_publication`].
        commit_message: Message of the commit on the Hub.

    Raises:
        ConnectionError: The destination is on the Hub and huggingface_hub is in offline mode; nothing was written.
        ValueError: `private` or `commit_message` is given for a folder; the Hub repository is public but should be
            private, or has other files; or as for [`prepare_publication`].
        FileNotFoundError, TypeError: As for [`prepare_publication`].
    """
    if not is_hub_id(destination):
        if private or commit_message is not None:
            raise ValueError(
                f"`private` and `commit_message` must be left out for a folder, got {destination}. Use a Hub id."
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
    """Write the folder to publish: safetensors, two configs, flat code, their hashes, and the card with its pictures.

    Files are written again or copied by name: pickles, optimizer states, records and run files of the source are left
    out. The folder appears only after [`check_publication`] has passed.

    Args:
        checkpoint: Name of a packaged checkpoint, a local folder, or a model with its image processor.
        folder: New or empty.
        half: Whether to store the weights in fp16, half the size of fp32. They load in fp32 either way.
        card: A `README.md` with its pictures, instead of the source's own; required for a model with its processor.

    Raises:
        FileNotFoundError: There is no such checkpoint, no card, or a picture of the card is missing.
        OSError: The checkpoint's weights do not ship, or the source has no safetensors file.
        TypeError: The model or the image processor is of another class.
        ValueError: `folder` is not empty; the weights do not fit the config; the card's metadata is not valid; or the
            result does not pass [`check_publication`].
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
        save_checkpoint(model, image_processor, written, half)
        dropped = _write_auto_maps(written)
        modules = flat_modules(PACKAGE, root_modules())
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


def _write_auto_maps(folder: Path) -> list[str]:
    """Write `auto_map` into the JSON files and return the fields that were dropped."""
    dropped = []
    for name, auto_map in auto_maps().items():
        path = folder / name
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("custom_pipelines", None):
            dropped.append(f"custom_pipelines of {name}")
        fields["auto_map"] = auto_map
        path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return dropped


def _source_folder(checkpoint: str | os.PathLike) -> Path:
    """Folder of a checkpoint; a folder in the working directory has priority over a packaged name."""
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path
    if str(checkpoint) in (*checkpoint_names(), *UNTRAINED):
        return checkpoint_path(str(checkpoint))
    raise FileNotFoundError(
        f"No such checkpoint: '{checkpoint}'. Pass a packaged checkpoint ({', '.join(checkpoint_names()) or 'none'}), "
        "a folder or a pair of model and image processor."
    )


def _load(folder: Path) -> tuple[ClarityForMultiLabelLocalization, ClarityImageProcessor]:
    """Model and processor of a folder, from safetensors only; missing weights are not initialized at random."""
    model, loading = ClarityForMultiLabelLocalization.from_pretrained(
        folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    wrong = sorted(
        [*loading["missing_keys"], *loading["unexpected_keys"], *(name for name, *_ in loading["mismatched_keys"])]
    )
    if wrong:
        raise ValueError(
            f"`checkpoint` must have exactly the weights of its config, got {len(wrong)} that are missing, unexpected "
            f"or of another shape, such as {wrong[0]}. Save it again with `save_pretrained`."
        )
    return model, ClarityImageProcessor.from_pretrained(folder)


def _check_classes(model: object, image_processor: object) -> None:
    for name, given, cls in (
        ("model", model, ClarityForMultiLabelLocalization),
        ("image_processor", image_processor, ClarityImageProcessor),
    ):
        if not isinstance(given, cls):
            raise TypeError(f"`{name}` must be a {cls.__name__}, got {type(given).__name__}. Pass one of this class.")


def _card_file(source: Path | None, card: str | os.PathLike | None) -> Path:
    """The card to publish, with valid metadata."""
    path = Path(card) if card is not None else source / CARD if source is not None else None
    if path is None or not path.is_file():
        missing = "`card` is None" if path is None else path
        raise FileNotFoundError(f"No model card: {missing}. Write one, for example with `write_model_card`.")
    problems = card_problems(path.read_text(encoding="utf-8"))
    if problems:
        raise ValueError(f"`{path.name}` must be a valid model card, but {'; '.join(problems)}.")
    return path


def _pictures_of(card: Path) -> list[str]:
    """Pictures of the card, which must exist below its folder."""
    shown = sorted(shown_pictures(card))
    for picture in shown:
        parts = PurePosixPath(picture)
        if parts.is_absolute() or ".." in parts.parts or parts.suffix not in PICTURES:
            raise ValueError(
                f"`{card.name}` must show pictures {', '.join(PICTURES)} from below its own folder, got {picture}. "
                "Move the picture there."
            )
        if not (card.parent / picture).is_file():
            raise FileNotFoundError(f"No such picture of `{card.name}`: {picture}.")
    return shown


def _left_out(source: Path, published: Iterable[str]) -> tuple[str, ...]:
    """Files of a source that were not published; those of a folder are counted together."""
    rewritten = {*published, "model.safetensors.index.json"}
    counts: Counter[str] = Counter()
    for path in source.rglob("*"):
        name = path.relative_to(source)
        if path.is_dir() or name.as_posix() in rewritten or re.fullmatch(r"model-\d+-of-\d+\.safetensors", str(name)):
            continue
        counts[name.parts[0] + ("/" if len(name.parts) > 1 else "")] += 1
    return tuple(
        f"{name} ({n} file{'s' * (n > 1)})" if name.endswith("/") else name for name, n in sorted(counts.items())
    )


def _check_repository(api: HfApi, repo_id: str, private: bool, files: Iterable[str]) -> None:
    """Refuse a repository that is public or has other files. Nothing there is deleted."""
    if private and not api.repo_info(repo_id).private:
        raise ValueError(f"`destination` must be a private repository, but {repo_id} is public. Make it private.")
    others = sorted({*api.list_repo_files(repo_id)} - {*files, ".gitattributes"})
    if others:
        raise ValueError(
            f"`destination` must hold only a publication, but {repo_id} has {', '.join(others)}. Delete them there."
        )
