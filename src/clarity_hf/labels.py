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
"""What the NIH table writes for an image without any of the 14 findings."""

ALIASES: dict[str, str] = {
    "Infiltrate": "Infiltration",
    "Pleural Thickening": "Pleural_Thickening",
    "Pleural Effusion": "Effusion",
}
"""Other spellings in the release (its box file says `Infiltrate`), its mirrors and CheXpert, and the one used here."""

CHEXPERT_TO_NIH: dict[str, str | None] = {
    "No Finding": None,  # no finding of its own: it says that the others are absent
    "Enlarged Cardiomediastinum": None,  # wider than Cardiomegaly: the mediastinum as well
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": None,  # the parent of five others; Infiltration is narrower
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
"""The observations of CheXpert (Irvin et al., AAAI 2019) and MIMIC-CXR-JPG, and the NIH finding that means the same.

None where no NIH finding does: such an observation keeps its own name, as a finding of its own."""


def canonical_finding(name: str, findings: Sequence[str] = FINDINGS) -> str:
    """Return the spelling of `name` that `findings` uses.

    Args:
        name: A finding's name, blanks around it ignored; the spellings of `ALIASES` are mended.
        findings: The known names.

    Raises:
        ValueError: `name` is none of them; the message names the closest.
    """
    stripped = name.strip()
    mended = stripped if stripped in findings else ALIASES.get(stripped, stripped)
    if mended in findings:
        return mended
    close = difflib.get_close_matches(mended, findings, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(
        f"`name` must be one of {list(findings)}, got '{name}'.{hint} Correct the name or add the finding."
    )


def harmonised_finding(name: str) -> str:
    """Return the NIH spelling of a finding that means the same, or the name itself.

    Capitals, blanks, hyphens and underscores do not matter, and the spellings of `ALIASES` are mended. Nothing is
    guessed: a name that is merely close stays as it is, and so does an observation of another data set that is wider
    or narrower than any NIH finding (`CHEXPERT_TO_NIH`).

    Args:
        name: A finding's name, such as the head of a column.

    >>> [harmonised_finding(name) for name in ("pleural_effusion", "Lung Opacity", " HERNIA ")]
    ['Effusion', 'Lung Opacity', 'Hernia']
    """
    return _NIH_SPELLINGS.get(loose_name(name), name.strip())


def loose_name(name: str) -> str:
    """Reduce a name to what a comparison should see: without capitals, with single blanks for `_`, `-` and the like.

    >>> loose_name(" Pleural_Thickening")
    'pleural thickening'
    """
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


_NIH_SPELLINGS = {loose_name(name): name for name in FINDINGS} | {loose_name(name): ALIASES[name] for name in ALIASES}


def checked_shares(name: str, values: Any, count: int, open_ends: bool = False) -> np.ndarray:
    """Check a threshold or another share, of all findings or of each.

    Args:
        name: The argument's, for the message.
        values: One number, or `count` of them in a list, a tuple, an array or a tensor; neither True nor text.
        count: F.
        open_ends: Whether 0 and 1 themselves are refused.

    Returns:
        `(F,)` float64 in [0, 1].

    Raises:
        ValueError: Something is no number, or out of range, or there are more or fewer of them.

    >>> checked_shares("threshold", 0.25, 2)
    array([0.25, 0.25])
    """
    plain = values.tolist() if hasattr(values, "tolist") else values
    listed = list(plain) if isinstance(plain, list | tuple) else [plain]
    strange = [value for value in listed if isinstance(value, bool) or not isinstance(value, numbers.Real)]
    if strange:
        raise ValueError(f"`{name}` must be a number or one per finding, got {str(strange[0])[:100]!r}. Give numbers.")
    outside = [value for value in listed if not (0 < value < 1 if open_ends else 0 <= value <= 1)]
    if outside:
        ends = "inside (0, 1)" if open_ends else "in [0, 1]"
        raise ValueError(f"`{name}` must be {ends}, got {outside[0]}. Give a probability or a share, not percent.")
    if isinstance(plain, list | tuple) and len(listed) != count:
        raise ValueError(f"`{name}` must be one number or {count}, got ({len(listed)},). Give one per finding.")
    return np.full(count, listed, dtype=np.float64)


def encode_findings(present: Iterable[str], findings: Sequence[str] = FINDINGS) -> np.ndarray:
    """Turn names into a label vector.

    Args:
        present: Names of the findings that are present; `No Finding` stands for none.
        findings: The names in the order of the vector.

    Returns:
        `(F,)` float32, 1 where the finding is present and 0 elsewhere.

    Raises:
        ValueError: A name is not known.
    """
    labels = np.zeros(len(findings), dtype=np.float32)
    for name in present:
        if name.strip() not in ("", NO_FINDING):
            labels[list(findings).index(canonical_finding(name, findings))] = 1.0
    return labels
