# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""No source file opens a pickle, runs text as code, starts a shell or trusts remote code, but what a list names."""

import ast
from pathlib import Path

import pytest

import clarity_hf

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("src", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))

CALLS = {
    "torch.load": "opens pickles",
    "torch.jit.load": "opens archives with code",
    "torch.hub.load": "runs code of a repository",
    "torch.save": "writes pickles",
    "torch.package.PackageImporter": "opens pickles",
    "torch.export.load": "opens archives with pickles",
    "numpy.load": "opens pickles where `allow_pickle` says so, or may be changed to",
    "numpy.fromregex": "parses what it should not",
    "pandas.read_pickle": "opens pickles",
    "yaml.load": "makes objects of any class",
    "yaml.unsafe_load": "makes objects of any class",
    "yaml.full_load": "makes objects of many classes",
    "os.system": "starts a shell",
    "os.popen": "starts a shell",
    "subprocess.getoutput": "starts a shell",
    "eval": "runs text",
    "exec": "runs text",
    "compile": "runs text",
    "__import__": "imports by text",
    "tempfile.mktemp": "leaves a gap in which another may make the file",
}

MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "telnetlib", "ftplib", "smtplib"}

KEYWORDS = {
    "allow_pickle": "opens pickles",
    "trust_remote_code": "runs code of a checkpoint",
    "shell": "starts a shell",
    "weights_only": "opens pickles",
    "use_safetensors": "opens pickles",
}
"""Keywords of any call, and what follows from the value that is not refused here: see `harmless`."""

ALLOWED: dict[tuple[str, str], str] = {
    ("examples/convert_timm_weights.py", "torch.load"): "reads a .pth of another project, with weights_only=True",
    ("examples/convert_timm_weights.py", "import pickle"): "for the error of a file that is not of tensors alone",
}
"""What is needed all the same, by file from the root and what is called, with the reason."""

PRETRAINED = {"AutoModel", "AutoModelForImageClassification", "AutoModelForSemanticSegmentation"}
"""Classes of the library that would take a pickle unless told otherwise; ours take none."""


def harmless(name: str, value: ast.expr) -> bool:
    """Whether a keyword says the safe thing, in so many words."""
    return isinstance(value, ast.Constant) and value.value is (name in ("weights_only", "use_safetensors"))


def full_names(tree: ast.AST) -> dict[str, str]:
    """What the names that a file imports stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def called(node: ast.expr, names: dict[str, str]) -> str:
    """Dotted name of what is called, the first part as it was imported; empty for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = called(node.value, names)
        return f"{before}.{node.attr}" if before else ""
    return ""


def findings(code: str) -> list[str]:
    """What of the lists above a file does."""
    tree = ast.parse(code)
    names, found = full_names(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"import {module}" for module in modules if module.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = called(node.func, names)
        if name in CALLS:
            found.append(name)
        found += [k.arg for k in node.keywords if k.arg in KEYWORDS and not harmless(k.arg, k.value)]
        owner, _, method = name.rpartition(".")
        safe = any(k.arg == "use_safetensors" for k in node.keywords)
        if method == "from_pretrained" and owner.rpartition(".")[2] in PRETRAINED and not safe:
            found.append(f"{name} without use_safetensors")
    return found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch\ntorch.load('x', weights_only=True)", ["torch.load"]),
        ("from torch import load as take\ntake('x')", ["torch.load"]),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", ["numpy.load", "allow_pickle"]),
        ("import pickle as p\nfrom joblib import load", ["import pickle", "import joblib"]),
        ("import yaml\nyaml.load(t, yaml.Loader)\nyaml.safe_load(t)", ["yaml.load"]),
        ("import subprocess\nsubprocess.run('x', shell=True)", ["shell"]),
        ("subprocess.run('x', shell=flag)", ["shell"]),
        ("f(trust_remote_code=False, use_safetensors=True, weights_only=True)", []),
        ("f(trust_remote_code=True)\ng(use_safetensors=False)", ["trust_remote_code", "use_safetensors"]),
        ("eval('1')\nmodel.eval()\nexec('1')", ["eval", "exec"]),
        (
            "from transformers import AutoModel\nAutoModel.from_pretrained(x)",
            ["transformers.AutoModel.from_pretrained without use_safetensors"],
        ),
    ],
)
def test_the_check_sees_what_is_not_to_be_done(code, expected):
    assert findings(code) == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_opens_pickles_runs_text_or_starts_shells(path):
    name = path.relative_to(ROOT).as_posix()
    found = findings(path.read_text(encoding="utf-8"))
    assert [call for call in found if (name, call) not in ALLOWED] == []


def test_what_is_allowed_is_still_done():
    for name, call in ALLOWED:
        assert call in findings((ROOT / name).read_text(encoding="utf-8"))


def test_nothing_that_ships_is_a_pickle():
    package = Path(clarity_hf.__file__).parent
    kinds = {path.suffix for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds & {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz", ".joblib", ".pt2"} == set()
