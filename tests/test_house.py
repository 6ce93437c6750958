# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The house: imports point one way and stay light, what travels stays flat, what is public or named is there."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import clarity_hf

PACKAGE = Path(clarity_hf.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

ROWS = (
    "deprecated",
    "labels",
    "view_names",
    "plain_card",
    "boxes",
    "grey_levels",
    "dicom_header",
    "dicom_pixels",
    "dicom_reading",
    "image_reading",
    "radiograph_check",
    "calibration_fingerprint",
    "configuration_clarity",
    "losses_clarity",
    "safe_loading",
    "modeling_clarity",
    "image_processing_clarity",
    "pipeline_chest_xray_localization",
    "packaged_checkpoints",
    "registration",
    "lazy_names",
    "files",
    "fingerprints",
    "teacher",
    "visualization",
    "phantoms",
    "data",
    "metrics",
    "evaluation",
    "reporting",
    "export",
    "training",
    "inference",
    "cli",
    "recipes",
    "deployment",
    "__init__",
    "__main__",
)
"""Top to bottom: a file may import only from the rows above its own; inside a folder anything without a circle."""

FLAT = ROWS[: ROWS.index("packaged_checkpoints")]
"""What `save_pretrained` may copy beside the weights, by the name after `from .`."""


def imports(code: str, file: tuple[str, ...]) -> set[tuple[str, ...]]:
    """Modules of the package that a file imports, as parts below the package.

    Args:
        code: Source of the file.
        file: Its parts below the package, such as `("data", "nih")`.
    """
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ["clarity_hf", *file[: len(file) - node.level]] if node.level else []
            module = start + (node.module.split(".") if node.module else [])
            # `from . import x` imports the module x; `from .x import y` may, where x is a folder.
            modules = [[*module, alias.name] for alias in node.names]
        else:
            continue
        found |= {tuple(module[1:]) for module in modules if module[0] == "clarity_hf"}
    return {parts or ("__init__",) for parts in found}


def row(parts: tuple[str, ...]) -> str:
    """Row of a module; what `clarity_hf` itself exports belongs to its last row."""
    return parts[0] if parts[0] in ROWS else "__init__"


def parts_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def upward_arrows(code: str, file: tuple[str, ...]) -> list[str]:
    own = ROWS.index(row(file))
    inside = len(file) > 1  # a room may look around in itself
    return [
        ".".join(other)
        for other in sorted(imports(code, file))
        if ROWS.index(row(other)) > own or (ROWS.index(row(other)) == own and not inside)
    ]


@pytest.mark.parametrize(
    ("file", "code", "arrows"),
    [
        (("boxes",), "from .labels import FINDINGS", []),
        (("labels",), "from .boxes import Letterbox", ["boxes.Letterbox"]),
        (("labels",), "def f():\n    import clarity_hf.training", ["training"]),
        (("labels",), "from . import boxes", ["boxes"]),
        (("evaluation", "run"), "from ..reporting import write_report", ["reporting.write_report"]),
        (("training", "trainer"), "from clarity_hf.inference.fhir import x", ["inference.fhir.x"]),
        (("training", "trainer"), "from .teacher import Teacher\nfrom clarity_hf.data import nih", []),
        (("data", "nih"), "from clarity_hf import FINDINGS", ["FINDINGS"]),
        (("data", "nih"), "import clarity_hf", ["__init__"]),
        (("data", "__init__"), "from .nih import load_nih\nimport torch", []),
    ],
)
def test_the_check_sees_upward_arrows(file, code, arrows):
    assert upward_arrows(code, file) == arrows


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    assert parts_of(path)[0] in ROWS, "give the new file or folder a row"
    assert upward_arrows(path.read_text(encoding="utf-8"), parts_of(path)) == []


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES} - {PACKAGE}), ids=lambda path: path.name)
def test_no_folder_imports_in_a_circle(folder):
    files = {parts_of(path): path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    graph = {
        file: {other for parts in imports(code, file) for other in (parts, parts[:-1]) if other in files}
        for file, code in files.items()
    }
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


LIGHT = {"clarity_hf", "transformers", "torch", "torchvision", "scipy", "numpy", "PIL"}
LIGHT |= {"safetensors", "huggingface_hub"}  # of transformers
"""Libraries that the files of the model may import. What these load in turn is their own affair."""


def imported_at_once(code: str) -> set[str]:
    """Libraries that a file imports when it is imported itself, and not later in a function."""
    roots: set[str] = set()
    waiting: list[ast.AST] = list(ast.parse(code).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").split(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)
    return roots


def test_the_check_sees_what_is_imported_at_once():
    code = "import a.b\nfrom c import d\nfrom .e import f\nif x: import g\ndef h():\n  import i"
    assert imported_at_once(code) == {"a", "c", "g"}


def loaded_by(code: str) -> set[str]:
    """Modules that a new Python has after running some code, and had not before."""
    code = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sys.modules.keys() - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


HEAVY = {"torch", "torchvision", "transformers", "huggingface_hub", "accelerate", "datasets", "evaluate", "timm"}
HEAVY |= {"scipy", "sklearn", "pandas", "matplotlib", "PIL", "jinja2", "yaml", "pydicom", "gradio"}


@pytest.mark.parametrize(
    "code",
    [
        "import clarity_hf",
        "from clarity_hf import FINDINGS, checkpoint_names; checkpoint_names()",
        *(
            f"from clarity_hf.cli import main; main({words})"
            for words in (["--help"], ["predict", "--help"], ["evaluate", "--help"], ["serve-dicom", "--help"])
        ),
    ],
)
def test_the_import_and_help_load_no_heavy_library(code):
    loaded = {name.split(".")[0] for name in loaded_by(code)}
    assert "clarity_hf" in loaded
    assert loaded & HEAVY == set()


def test_the_classes_load_little_beside_those_that_they_build_on():
    modules = loaded_by("from clarity_hf import ChestXrayLocalizationPipeline, ClarityForMultiLabelLocalization")
    modules = {name for name in modules if name.split(".")[0] == "clarity_hf"}
    assert "clarity_hf.modeling_clarity" in modules
    rooms = {f"clarity_hf.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(rooms & modules) == []
    files = {name: PACKAGE / f"{name.partition('.')[2] or '__init__'}.py" for name in modules}
    heavy = {
        name: sorted(imported_at_once(path.read_text(encoding="utf-8")) - sys.stdlib_module_names - LIGHT)
        for name, path in files.items()
    }
    assert {name: libraries for name, libraries in heavy.items() if libraries} == {}


@pytest.mark.parametrize("path", sorted((PACKAGE / "metrics").glob("*.py")), ids=lambda path: path.name)
def test_metrics_import_numpy_and_no_model(path):
    code = path.read_text(encoding="utf-8")
    assert imported_at_once(code) - sys.stdlib_module_names <= {"numpy", "scipy", "sklearn", "clarity_hf"}
    assert {row(parts) for parts in imports(code, parts_of(path))} <= {"boxes", "metrics", "data"}


@pytest.mark.parametrize("name", FLAT)
def test_flat_files_import_flat_siblings_by_one_dot(name):
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert [alias.name for alias in node.names if alias.name.split(".")[0] == "clarity_hf"] == []
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module in FLAT
        elif isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] != "clarity_hf"


def undocumented(code: str) -> list[str]:
    """Public classes, functions and methods without a docstring; `forward` is explained by its class."""
    missing = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if child.name.startswith("_"):
                continue
            inherited = prefix and child.name == "forward"
            if ast.get_docstring(child) is None and not inherited:
                missing.append(prefix + child.name)
            if isinstance(child, ast.ClassDef):
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(code), "")
    return missing


def test_the_check_sees_what_is_undocumented():
    code = "def f(): ...\ndef _g(): ...\nclass A:\n    'A.'\n    def m(self): ...\n    def forward(self): ..."
    assert undocumented(code) == ["f", "A.m"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_is_public_has_a_docstring(path):
    assert undocumented(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_names_its_licence(path):
    code = path.read_text(encoding="utf-8")
    assert not code or code.startswith("# Copyright 2026 The clarity_hf authors. Licensed under the Apache License")


ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(PACKAGE / "checkpoints").glob("*/README.md"),
    ]
)
SCRIPTS = sorted(path for folder in ("examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))


def named_scripts(text: str) -> set[str]:
    """Python files of the repository that a text names, from its root: what is run, and what lies in its folders."""
    run = re.findall(r"(?:python|launch)\s+([\w./-]+\.py)\b", text)
    lies = re.findall(r"(?<![\w./-])(?:\.\./)*((?:examples|benchmarks|tests|src)/[\w./-]*\.py)\b", text)
    return {*run, *lies}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("    python tools/run.py all --smoke", {"tools/run.py"}),
        ("`accelerate launch --config_file FILE examples/train.py`", {"examples/train.py"}),
        ("accelerate launch examples/a.py\naccelerate launch examples/b.py", {"examples/a.py", "examples/b.py"}),
        ("python -m pytest tests/examples/test_a.py -m slow", {"tests/examples/test_a.py"}),
        ("see [`c`](../src/clarity_hf/c.py).", {"src/clarity_hf/c.py"}),
        ("`train.py`, or `python -m build`", set()),
    ],
)
def test_the_check_sees_which_scripts_a_text_names(text, names):
    assert named_scripts(text) == names


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_that_are_named_are_there(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    assert sorted(name for name in named_scripts(text) if not (ROOT / name).is_file()) == []
