# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""A minimal model card for a folder or repository whose training and data are not recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

CARD = "README.md"

DRAFTS = (
    "This is the model card of a 🤗 transformers model that has been pushed on the Hub.",
    "This model card has been generated automatically according to the information the Trainer had access to.",
)
"""Sentences in the cards that transformers writes, which do not say how to load the model."""

TEMPLATE = """---
library_name: transformers
pipeline_tag: image-classification
license: unknown
tags:
- chest-x-ray
- radiology
- localization
- clarity
---

# {title}

**For research. Not a medical device; not for diagnosis.** A model of `clarity_hf`, an independent reconstruction of
CLARiTy ([arXiv 2512.16700](https://arxiv.org/abs/2512.16700)): it classifies and localizes findings on frontal chest
radiographs.{findings}

```python
import clarity_hf
from transformers import pipeline

findings = pipeline("chest-xray-localization", model="{name}")("image.png")
```

What it was trained and measured on, and the licence of its weights, are not recorded here.
"""


def plain_card(name: str, findings: Sequence[str] = ()) -> str:
    """A card with valid metadata that says how to load the model, and makes no other claims.

    Args:
        name: Hub id, or name of a folder.
        findings: Findings of the model in the order of its logits, if known.

    Returns:
        Text of the card.
    """
    listed = f"\n\nFindings, in the order of the logits: {', '.join(findings)}." if findings else ""
    place = name if "/" in name else "FOLDER_OR_HUB_ID"
    return TEMPLATE.format(title=name.rpartition("/")[2], name=place, findings=listed)


def replace_draft(folder: str | os.PathLike, name: str, findings: Sequence[str] = ()) -> None:
    """Write the plain card if a folder has no card, or only one that transformers drafted.

    Args:
        folder: With or without a `README.md`.
        name: As for [`plain_card`].
        findings: As for [`plain_card`].
    """
    path = Path(folder) / CARD
    written = " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else DRAFTS[0]
    if any(draft in written for draft in DRAFTS):
        path.write_text(plain_card(name, findings), encoding="utf-8")
