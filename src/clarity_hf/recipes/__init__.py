# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Deprecated: see `clarity_hf.deprecated` for where its names are."""

from clarity_hf.deprecated import old_names

__getattr__ = old_names(__name__)
