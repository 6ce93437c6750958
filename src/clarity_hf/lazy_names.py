# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of a package that are imported on first use (PEP 562), so that one light module does not load all."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names come from its modules.

    Args:
        package: Its `__name__`.
        modules: The names that each module defines.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def attribute(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute


__all__ = ["lazy_names"]
