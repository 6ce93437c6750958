# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of a package that are imported on first use (PEP 562), so that one light module does not load all."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

_importing = threading.RLock()


def lazy_names(
    package: str, modules: Mapping[str, tuple[str, ...]], otherwise: Callable[[str], Any] | None = None
) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names, and modules, are imported on first use.

    Args:
        package: Its `__name__`.
        modules: The names that each module defines.
        otherwise: What gives other names, such as `old_names(package)`; None knows none.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def attribute(name: str) -> Any:
        if name not in modules and name not in module_of:
            if otherwise is not None:
                return otherwise(name)
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
        with _importing:  # two threads that import torchvision at once may each find it half imported
            module = importlib.import_module(f"{package}.{module_of.get(name, name)}")
            value = module if name in modules else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute


__all__ = ["lazy_names"]
