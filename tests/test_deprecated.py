# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Old spellings work for one release, and their warnings give the new ones."""

import importlib
import subprocess
import sys

import pytest

from clarity_hf import data, deployment, evaluation, inference, phantoms, recipes, training  # noqa: F401
from clarity_hf.deprecated import MODULES, NAMES, OPTIONS, current_options


def resolve(name):
    module, _, attribute = f"clarity_hf.{name}".rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(("old", "new"), NAMES.items())
def test_old_names_give_the_new_object_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=rf"`clarity_hf\.{old}` is deprecated .* Use `clarity_hf\.{new}`"):
        assert resolve(old) is resolve(new)


@pytest.mark.parametrize(("old", "new"), MODULES.items())
def test_old_modules_give_the_names_of_the_new_ones(old, new):
    gone, module = importlib.import_module(f"clarity_hf.{old}"), importlib.import_module(f"clarity_hf.{new}")
    public = getattr(module, "__all__", None) or [
        name for name in vars(module) if name[0] != "_" and getattr(module, name).__class__ is type
    ]
    if public:
        with pytest.warns(DeprecationWarning, match=rf"`clarity_hf\.{old}\.{public[0]}` is deprecated"):
            assert getattr(gone, public[0]) is getattr(module, public[0])


@pytest.mark.parametrize("module", [f"clarity_hf{room}" for room in ("", ".deployment", ".data.phantoms", ".data")])
def test_unknown_names_are_refused_as_by_any_module(module):
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(module).no_such_name  # noqa: B018
    with pytest.raises(ImportError):
        exec(f"from {module} import no_such_name")


def test_gone_modules_are_imported_in_a_fresh_process():
    code = "from clarity_hf.deployment.batch_prediction import find_films; import clarity_hf.recipes.training as old; "
    run = subprocess.run(
        [sys.executable, "-c", code + "print(find_films.__name__, old.train.__name__)"], capture_output=True, text=True
    )
    assert run.stdout.split() == ["find_images", "train"], run.stderr


@pytest.mark.parametrize(("old", "new"), OPTIONS.items())
@pytest.mark.parametrize("value", [["7"], []])
def test_old_options_are_taken_with_a_warning(old, new, value):
    with pytest.warns(DeprecationWarning, match=f"`--{old}` is deprecated .* Use `--{new}`"):
        assert current_options([f"--{old}", *value]) == [f"--{new}", *value]
    hyphens = old.replace("_", "-"), new.replace("_", "-")
    with pytest.warns(DeprecationWarning, match=hyphens[1]):
        assert current_options([f"--{hyphens[0]}=7"]) == [f"--{hyphens[1]}=7"]


def test_words_that_are_not_old_options_are_unchanged(recwarn):
    words = ["evaluate", "films", "--images", "7", "--", "film_cache"]
    assert current_options(words) == words
    assert not recwarn
