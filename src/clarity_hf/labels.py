# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The findings, their order and their spellings.

The 14 findings of NIH ChestX-ray14 (Wang et al., "ChestX-ray8", CVPR 2017) in the release's own order, which is the
order of every `(B, 14)` array of this package. Label values are 1 present, 0 absent, NaN not annotated.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

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
"""What the NIH table writes for a film without any of the 14 findings."""

ALIASES: dict[str, str] = {"Infiltrate": "Infiltration", "Pleural Thickening": "Pleural_Thickening"}
"""Other spellings in the release (its box file says `Infiltrate`) and its mirrors, and the name used here."""


def canonical_finding(name: str, findings: Sequence[str] = FINDINGS) -> str:
    """Return the spelling of `name` that `findings` uses.

    Args:
        name: A finding's name, blanks around it ignored; the spellings of `ALIASES` are mended.
        findings: The known names.

    Raises:
        ValueError: `name` is none of them; the message names the closest.
    """
    stripped = name.strip()
    mended = ALIASES.get(stripped, stripped)
    if mended in findings:
        return mended
    close = difflib.get_close_matches(mended, findings, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ValueError(
        f"`name` must be one of {list(findings)}, got '{name}'.{hint} Correct the name or add the finding."
    )


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
