# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The findings, their order and their spellings.

The 14 findings of NIH ChestX-ray14 (Wang et al., "ChestX-ray8", CVPR 2017) in the release's own order, which is the
order of every `(B, 14)` array of this package. Label values are 1 present, 0 absent, NaN not annotated.
"""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

FINDINGS: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""The 14 findings, in the order of the NIH release."""

BOXED_FINDINGS: tuple[str, ...] = FINDINGS[:8]
"""The eight findings for which the NIH release has boxes."""

NO_FINDING = "No Finding"
"""Label of the NIH table for an image without any of the 14 findings."""

ALIASES: dict[str, str] = {
    "Infiltrate": "Infiltration",
    "Pleural Thickening": "Pleural_Thickening",
    "Pleural Effusion": "Effusion",
}
"""Other spellings in the release (`Infiltrate` in its box file), its mirrors and CheXpert, and the one used here."""

CHEXPERT_TO_NIH: dict[str, str | None] = {
    "No Finding": None,  # means that all others are absent
    "Enlarged Cardiomediastinum": None,  # broader than Cardiomegaly: includes the mediastinum
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": None,  # parent of five others; Infiltration is narrower
    "Lung Lesion": None,  # Nodule and Mass together
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion",
    "Pleural Other": None,  # Pleural_Thickening among others
    "Fracture": None,
    "Support Devices": None,
}
"""Observations of CheXpert (Irvin et al., AAAI 2019) and MIMIC-CXR-JPG, and the NIH finding with the same meaning.

None if there is no such finding: the observation then keeps its name and becomes a finding of its own."""


def canonical_finding(name: str, findings: Sequence[str] = FINDINGS) -> str:
    """Return the spelling of `name` that `findings` uses.

    Args:
        name: A finding's name; surrounding blanks are ignored and the spellings of `ALIASES` are replaced.
        findings: The known names.

    Raises:
        ValueError: `name` is unknown; the message suggests the closest name.
    """
    stripped = name.strip()
    spelling = stripped if stripped in findings else ALIASES.get(stripped, stripped)
    if spelling in findings:
        return spelling
    close = difflib.get_close_matches(spelling, findings, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(
        f"`name` must be one of {list(findings)}, got '{name}'.{hint} Correct the name or add the finding."
    )


def harmonised_finding(name: str) -> str:
    """Return the NIH spelling of a finding with the same meaning, or the name itself.

    Case, blanks, hyphens and underscores are ignored, and the spellings of `ALIASES` are replaced. Nothing is guessed:
        a
    similar name is left unchanged, and so is an observation that is broader or narrower than any NIH finding
    (`CHEXPERT_TO_NIH`).

    Args:
        name: A finding's name, such as a column header.

    >>> [harmonised_finding(name) for name in ("pleural_effusion", "Lung Opacity", " HERNIA ")]
    ['Effusion', 'Lung Opacity', 'Hernia']
    """
    return _NIH_SPELLINGS.get(loose_name(name), name.strip())


def loose_name(name: str) -> str:
    """Normalise a name for comparison: lower case, with single blanks for `_`, `-` and runs of blanks.

    >>> loose_name(" Pleural_Thickening")
    'pleural thickening'
    """
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


_NIH_SPELLINGS = {loose_name(name): name for name in FINDINGS} | {loose_name(name): ALIASES[name] for name in ALIASES}


def checked_shares(name: str, values: Any, count: int, open_ends: bool = False) -> np.ndarray:
    """Check a threshold or another share, given for all findings together or for each.

    Args:
        name: Name of the argument, for the message.
        values: One number, or `count` numbers in a list, a tuple, an array or a tensor; not booleans or text.
        count: F.
        open_ends: Whether 0 and 1 themselves are refused.

    Returns:
        `(F,)` float64 in [0, 1].

    Raises:
        ValueError: A value is not a number or out of range, or their number is wrong.

    >>> checked_shares("threshold", 0.25, 2)
    array([0.25, 0.25])
    """
    plain = values.tolist() if hasattr(values, "tolist") else values
    listed = list(plain) if isinstance(plain, list | tuple) else [plain]
    strange = [value for value in listed if isinstance(value, bool) or not isinstance(value, numbers.Real)]
    if strange:
        raise ValueError(f"`{name}` must be a number or one per finding, got {str(strange[0])[:100]!r}. Pass numbers.")
    outside = [value for value in listed if not (0 < value < 1 if open_ends else 0 <= value <= 1)]
    if outside:
        ends = "inside (0, 1)" if open_ends else "in [0, 1]"
        raise ValueError(f"`{name}` must be {ends}, got {outside[0]}. Pass a probability or a share, not percent.")
    if isinstance(plain, list | tuple) and len(listed) != count:
        raise ValueError(f"`{name}` must be one number or {count}, got ({len(listed)},). Pass one per finding.")
    return np.full(count, listed, dtype=np.float64)


def encode_findings(present: Iterable[str], findings: Sequence[str] = FINDINGS) -> np.ndarray:
    """Turn names into a label vector.

    Args:
        present: Names of the present findings; `No Finding` means none.
        findings: The names in the order of the vector.

    Returns:
        `(F,)` float32, 1 where the finding is present and 0 elsewhere.

    Raises:
        ValueError: A name is unknown.
    """
    labels = np.zeros(len(findings), dtype=np.float32)
    for name in present:
        if name.strip() not in ("", NO_FINDING):
            labels[list(findings).index(canonical_finding(name, findings))] = 1.0
    return labels
