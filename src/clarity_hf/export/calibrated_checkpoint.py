# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Save a calibrated model, with its calibration added to the original model's card."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from transformers.utils import cached_file

from clarity_hf.evaluation.calibration import Calibration, CrossFitted
from clarity_hf.files import replaced_files
from clarity_hf.image_processing_clarity import ClarityImageProcessor
from clarity_hf.modeling_clarity import ClarityForMultiLabelLocalization
from clarity_hf.plain_card import CARD, plain_card
from clarity_hf.reporting.calibration_text import calibration_text, cross_fitted_text

from .publication_checks import LICENCE, shown_pictures

HEADING = "## Calibration of this folder"


def save_calibrated(
    source: str | os.PathLike,
    model: ClarityForMultiLabelLocalization,
    image_processor: ClarityImageProcessor,
    folder: str | os.PathLike,
    found: Calibration,
    unseen: CrossFitted,
    images: str,
) -> str:
    """Write a calibrated model with its image processor and card into a folder that can be published.

    The card is the source's, with its pictures and licence, or a plain one, with an additional section on the
    calibration.

    Args:
        source: Packaged name, folder or Hub id that the model was loaded from.
        model: Calibrated.
        image_processor: The processor that it was trained with.
        folder: Created if needed.
        found: Result of [`calibrate`].
        unseen: Result of [`cross_fitted`].
        images: Images used, in words, such as "332 validation images of NIH".

    Returns:
        The values chosen for each finding, and how well they work on unseen images, as Markdown.

    Raises:
        OSError: The disk is full, or `folder` cannot be written.
    """
    text = f"{calibration_text(found, model.config.findings)}\n\n{cross_fitted_text(unseen)}"
    card = _file_of(source, CARD)
    content = card.read_text(encoding="utf-8") if card else plain_card(Path(folder).name, model.config.findings)
    about = (
        f"{HEADING}\n\nScores were calibrated, and thresholds chosen, on {images}. They replace those named above, "
        f"and figures above at other thresholds do not apply to this folder.\n\n{text}\n"
    )
    with replaced_files(folder) as made:
        model.save_pretrained(made)
        image_processor.save_pretrained(made)
        for name in [*sorted(shown_pictures(card)), LICENCE] if card else []:
            beside = _file_of(source, name)
            if beside is not None and beside.resolve() != (Path(folder) / name).resolve():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(beside, Path(folder) / name)
        earlier = re.compile(rf"\n*{re.escape(HEADING)}\n.*?(?=\n## |\Z)", flags=re.DOTALL)
        (made / CARD).write_text(f"{earlier.sub('', content).rstrip()}\n\n{about}", encoding="utf-8")
    return text


def _file_of(source: str | os.PathLike, name: str) -> Path | None:
    """A file of a packaged checkpoint, a folder or a repository on the Hub; None if there is no such file."""
    found = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if found is None else Path(found)
