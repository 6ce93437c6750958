# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Registration with transformers: the classes, the pipeline task and the names of the packaged checkpoints.

Nothing of transformers is imported for it. Import hooks wait until a process imports the part of transformers that a
class is registered with (for example `transformers.pipelines`), whichever of the two packages was imported first.

Packaged names such as `clarity-s16-224` are resolved by wrapping the function by which every loader of transformers
finds its files, because `AutoConfig.from_pretrained(name)` has no extension point that comes before the config is
read, and `pipeline(model=name)` and the other Auto classes start from there.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .packaged_checkpoints import CHECKPOINT_FOLDER, DEFAULT_CHECKPOINT, is_packaged_name, served_path

TASK = "chest-xray-localization"
"""Name of the pipeline's task."""


def register() -> None:
    """Register everything with transformers as soon as it is imported, at once where it already is.

    Each part of transformers imports our module, and our module registers its classes when it is complete. One hook
    for both would import a module again that is still being imported: `from clarity_hf import
    ChestXrayLocalizationPipeline` imports `transformers.pipelines`. Calling it again changes nothing.
    """
    earlier = [finder for finder in sys.meta_path if type(finder).__name__ == _HookFinder.__name__]
    finder: Any = earlier[0] if earlier else _HookFinder()
    if not earlier:
        sys.meta_path.insert(0, finder)
    finder.hooks.update({"transformers.utils.hub": serve_packaged_names})
    for ours, (register_classes, theirs) in _CLASSES.items():
        finder.hooks[f"{__package__}.{ours}"] = register_classes
        finder.hooks.update({module: functools.partial(_import_ours, ours, theirs) for module in theirs})
    for name, hook in finder.hooks.items():
        if name in sys.modules:
            hook(sys.modules[name])


class _HookFinder(importlib.abc.MetaPathFinder):
    """Calls `hooks[name]` with the module of that name as soon as it has been executed.

    It holds no lock. wrapt 2.5.2, whose hooks do the same, holds one while it searches, and two threads that import
    at once can then wait for each other forever.
    """

    def __init__(self) -> None:
        self.hooks: dict[str, Callable[[Any], None]] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname not in self.hooks:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader  # this spec's own
            execute = loader.exec_module

            def execute_and_hook(module: Any) -> None:
                execute(module)
                self.hooks[fullname](module)

            loader.exec_module = execute_and_hook
        return spec


def _import_ours(ours: str, theirs: Mapping[str, str], module: Any) -> None:
    """Import one of our modules, unless one of theirs is still being imported, whose own hook will do it."""
    loaded = [(sys.modules[name], public) for name, public in theirs.items() if name in sys.modules]
    if all(hasattr(module, public) for module, public in loaded):
        importlib.import_module(f"{__package__}.{ours}")


def _register_config(ours: Any) -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    AutoConfig.register(ours.ClarityConfig.model_type, ours.ClarityConfig, exist_ok=True)


def _register_models(ours: Any) -> None:
    from transformers.models.auto.modeling_auto import AutoModel, AutoModelForImageClassification

    AutoModel.register(ours.ClarityConfig, ours.ClarityModel, exist_ok=True)
    AutoModelForImageClassification.register(ours.ClarityConfig, ours.ClarityForMultiLabelLocalization, exist_ok=True)


def _register_image_processor(ours: Any) -> None:
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    from .configuration_clarity import ClarityConfig

    classes = {"torchvision": ours.ClarityImageProcessor}
    AutoImageProcessor.register(ClarityConfig, image_processor_classes=classes, exist_ok=True)


def _register_pipeline(ours: Any) -> None:
    from transformers.models.auto.modeling_auto import AutoModelForImageClassification
    from transformers.pipelines import PIPELINE_REGISTRY

    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=ours.ChestXrayLocalizationPipeline,
            pt_model=AutoModelForImageClassification,
            default={"model": (str(CHECKPOINT_FOLDER / DEFAULT_CHECKPOINT), "main")},
            type="image",
        )


_AUTO = "transformers.models.auto"
_CLASSES: dict[str, tuple[Callable[[Any], None], dict[str, str]]] = {
    "configuration_clarity": (_register_config, {f"{_AUTO}.configuration_auto": "AutoConfig"}),
    "modeling_clarity": (
        _register_models,
        # Our models need the second, which itself imports the first.
        {f"{_AUTO}.modeling_auto": "AutoModel", "transformers.modeling_layers": "GradientCheckpointingLayer"},
    ),
    "image_processing_clarity": (_register_image_processor, {f"{_AUTO}.image_processing_auto": "AutoImageProcessor"}),
    "pipeline_chest_xray_localization": (_register_pipeline, {"transformers.pipelines": "PIPELINE_REGISTRY"}),
}
"""Our modules, what each registers once it is complete, and the modules of transformers that import it, each with a
name that it defines when it is complete.
"""


def serve_packaged_names(hub: Any) -> None:
    """Let every loader of transformers find the packaged checkpoints by name. Calling it again changes nothing.

    Args:
        hub: The module `transformers.utils.hub`.
    """
    api = hub.hf_api()  # shared by all loaders, which first ask it for the commit that a name stands for
    if "resolve_revision" in vars(api):
        return
    cached_files, resolve_revision = hub.cached_files, api.resolve_revision

    @functools.wraps(cached_files)
    def of_names_too(path_or_repo_id: Any, *args: Any, **kwargs: Any) -> Any:
        if is_packaged_name(str(path_or_repo_id)) and kwargs.get("revision") not in (None, "main"):
            raise OSError(
                f"`revision` must be left out for the packaged {path_or_repo_id}, got '{kwargs['revision']}'. Install "
                "the version of clarity_hf that has the weights you want."
            )
        return cached_files(served_path(path_or_repo_id), *args, **kwargs)

    @functools.wraps(resolve_revision)
    def of_repositories(repo_id: str, *args: Any, **kwargs: Any) -> Any:
        return kwargs.get("revision") if is_packaged_name(str(repo_id)) else resolve_revision(repo_id, *args, **kwargs)

    hub.cached_files, api.resolve_revision = of_names_too, of_repositories


__all__ = ["TASK", "register", "serve_packaged_names"]
