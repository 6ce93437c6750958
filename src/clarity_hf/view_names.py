# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Views of the chest by their names, as DICOM headers and tables of data sets write them."""

from __future__ import annotations

import re

_LATERAL = {"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "SAGITTAL", "LATERALE", "PROFIL", "PROFILE", "SEITLICH"}
_OBLIQUE = {"LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "OBL", "OBLIQUE"}


def view_kind(name: str) -> str:
    """`lateral`, `oblique` or, for a frontal or unknown view, nothing.

    Args:
        name: A view, such as a defined term of ViewPosition (PS3.3 C.8.11.7), PadChest's `L` or `xtable lateral`.

    >>> [view_kind(name) for name in ("PA", "LLAT", "left anterior oblique", "left lateral decubitus")]
    ['', 'lateral', 'oblique', '']
    """
    words = re.findall(r"[A-Z]+", name.upper())
    if words == ["L"] or (_LATERAL.intersection(words) and not any(word.startswith("DECUB") for word in words)):
        return "lateral"
    return "oblique" if _OBLIQUE.intersection(words) else ""
