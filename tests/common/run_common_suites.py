# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Run the common test suites of transformers against the classes of clarity_hf.

    python tests/common/run_common_suites.py                       # downloads the sources with pip
    python tests/common/run_common_suites.py --source ~/transformers-5.23.0
    python tests/common/run_common_suites.py -- -k save_load       # what follows goes to pytest

Expected last line (transformers 5.23 on a CPU):

    123 passed, 73 skipped, 1125 subtests passed

With `RUN_SLOW=1` in the environment the suites' slow tests run too, those that do without an accelerator. Nothing is
skipped by name here: every skip is the suites' own, with its reason (`-- -rs`): no accelerator, Flash Attention or
DeepSpeed, one image processor backend, no vocabulary, no sub-models, no experts, no rotary embeddings.

The suites, `test_modeling_common.py`, `test_image_processing_common.py` and `test_configuration_common.py`, are no
part of the installed library but of its source distribution. Those of the **installed** version are made into a
package `transformers_tests` in a temporary folder; what they import and the source distribution lacks is stubbed:

- `exporters.test_export.ExportTesterMixin` and `generation.test_utils.GenerationTesterMixin`, empty: the first drives
  exporters that are not shipped with it, the second concerns models that generate text;
- `utils.test_configuration_utils.config_common_kwargs`, the settings that every config takes;
- `fetch_hub_objects_for_ci.url_to_local_path`, used only to compare two image processor backends (there is one).

`PipelineTesterMixin` is left out: its tests are not in the source distribution and its tiny models are on the Hub.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

HERE = Path(__file__).resolve().parent
SUITES = [HERE / "modeling_suite.py", HERE / "image_processing_suite.py"]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clarity_hf"

STUBS = {
    "transformers_tests/__init__.py": "",
    "transformers_tests/exporters/__init__.py": "",
    "transformers_tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "transformers_tests/generation/__init__.py": "",
    "transformers_tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "transformers_tests/utils/__init__.py": "",
    "transformers_tests/utils/test_configuration_utils.py": (
        "config_common_kwargs = {\n"
        '    "return_dict": False,\n'
        '    "output_hidden_states": True,\n'
        '    "output_attentions": True,\n'
        '    "dtype": "float16",\n'
        '    "chunk_size_feed_forward": 5,\n'
        '    "architectures": ["ClarityModel"],\n'
        '    "id2label": {0: "label"},\n'
        '    "label2id": {"label": 0},\n'
        '    "problem_type": "multi_label_classification",\n'
        "}\n"
    ),
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


def download_source(version: str, folder: Path) -> Path:
    """Fetch the source distribution of transformers with pip, unless it is there: the path of the archive."""
    archive = folder / f"transformers-{version}.tar.gz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        requirement = f"transformers=={version}"
        options = ["--no-deps", "--no-binary", "transformers", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
    return archive


def unpack_tests(archive: Path, folder: Path) -> Path:
    """Unpack an archive of sources: the folder that holds `tests`."""
    with tarfile.open(archive) as sources:
        members = [member for member in sources.getmembers() if "tests" in Path(member.name).parts[1:2]]
        sources.extractall(folder, members=members, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def assemble_package(source: Path, folder: Path) -> None:
    """Make `folder/transformers_tests` of `source/tests` and the stubs."""
    tests = source / "tests"
    if not (tests / "test_modeling_common.py").is_file():
        raise FileNotFoundError(
            f"`--source` must hold tests/test_modeling_common.py, got {source}. "
            f"Unpack the source distribution of transformers {transformers.__version__}."
        )
    shutil.copytree(tests, folder / "transformers_tests")
    for name, text in STUBS.items():
        stub = folder / name
        if not stub.exists():  # a full checkout has the files; only what is missing is stubbed
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.write_text(text)


def main() -> int:
    """Assemble the package and run pytest on both suites: pytest's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="unpacked sources of transformers, of the installed version")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the download (default: %(default)s)")
    parser.add_argument("pytest_arguments", nargs="*", help="after `--`: arguments of pytest")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.source
        if source is None:
            source = unpack_tests(download_source(transformers.__version__, arguments.cache), folder / "sources")
        assemble_package(source, folder)
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        # `addopts` of the project deselects by marker; the suites' own marks are not registered here.
        options = ["-o", "addopts=", "--import-mode=importlib", "-p", "no:cacheprovider", "--disable-warnings", "-q"]
        command = [sys.executable, "-m", "pytest", *options, *map(str, SUITES), *arguments.pytest_arguments]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, cwd=HERE.parents[1]).returncode


if __name__ == "__main__":
    sys.exit(main())
