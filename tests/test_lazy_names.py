# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Names of a package that are imported on first use."""

import subprocess
import sys
from types import ModuleType

import pytest

from clarity_hf.lazy_names import lazy_names


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "lazily").mkdir()
    (tmp_path / "lazily" / "__init__.py").touch()
    (tmp_path / "lazily" / "part.py").write_text("number = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("lazily")
    for name in ("lazily", "lazily.part"):
        sys.modules.pop(name, None)


def test_a_name_and_its_module_are_imported_on_first_use_and_kept(package):
    attribute = lazy_names("lazily", {"part": ("number",)})
    assert "lazily.part" not in sys.modules
    assert attribute("number") == package.number == 1
    assert isinstance(attribute("part"), ModuleType)


def test_other_names_are_an_error_or_come_from_elsewhere(package):
    with pytest.raises(AttributeError, match="module 'lazily' has no attribute 'letter'"):
        lazy_names("lazily", {"part": ("number",)})("letter")
    assert lazy_names("lazily", {"part": ("number",)}, otherwise=str.upper)("letter") == "LETTER"


@pytest.mark.parametrize(("room", "module"), [("export", "publishing"), ("inference", "batch")])
def test_the_modules_of_a_room_are_its_attributes(room, module):
    code = f"import clarity_hf.{room} as room; print(room.{module}, all(hasattr(room, n) for n in room.__all__))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"<module 'clarity_hf.{room}.{module}' ")
    assert result.stdout.endswith(" True\n")
