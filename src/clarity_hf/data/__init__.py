# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Data sets: the NIH release, your own tables and folders, the Hub; from their rows to a training step."""

from clarity_hf.deprecated import old_names

__getattr__ = old_names(__name__)
