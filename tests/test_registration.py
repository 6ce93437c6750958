# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Classes, task and packaged names are registered whichever package is imported first, in fresh processes."""

import importlib
import multiprocessing
import subprocess
import sys
from types import SimpleNamespace

import pytest
import transformers.utils.hub as hub
from huggingface_hub import HfApi
from transformers import AutoConfig

import clarity_hf
from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, registration

NAME = "clarity-s16-224"
MODELS = "AutoModelForImageClassification"

PIPELINE = "found = pipeline('chest-xray-localization'); assert type(found.model).__name__.startswith('ClarityFor')"


def run(code):
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "code",
    [
        f"import clarity_hf; from transformers import pipeline; {PIPELINE}",
        f"from transformers import pipeline; import clarity_hf; {PIPELINE}",
        f"from clarity_hf import ChestXrayLocalizationPipeline; from transformers import pipeline; {PIPELINE}",
        "from transformers import AutoConfig; import clarity_hf; found = AutoConfig.from_pretrained(N)",
        f"from transformers import {MODELS} as A; import clarity_hf; found = A.from_pretrained(N)",
        "from transformers import AutoImageProcessor as A; import clarity_hf; found = A.from_pretrained(N)",
        "import clarity_hf, transformers as t; found = [getattr(t, name).from_pretrained(N) for name in "
        f"('AutoConfig', 'AutoImageProcessor', '{MODELS}', 'AutoModel')][-1]",
        "from clarity_hf import ClarityForMultiLabelLocalization as C; found = C.from_pretrained(N)",
        "import clarity_hf; found = clarity_hf.ClarityConfig.from_pretrained(N)",
    ],
)
def test_any_order_of_imports_registers_in_a_fresh_process(code):
    out = run(f"N = {NAME!r}\n{code}\nprint(type(found).__module__)")
    assert out.startswith("clarity_hf.")


@pytest.mark.parametrize("module", ["modeling_layers", "models.llava.configuration_llava"])
def test_transformers_modules_that_import_auto_classes_themselves_still_import(module):
    run(f"import clarity_hf, transformers.{module}; transformers.AutoConfig.for_model('clarity')")


def test_threads_that_import_both_sides_at_once_get_registered_classes():
    code = """
import importlib, threading, clarity_hf
names = ["clarity_hf.modeling_clarity", "transformers.models.auto.modeling_auto", "transformers.pipelines",
         "clarity_hf.pipeline_chest_xray_localization", "transformers.models.auto.image_processing_auto"]
threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
assert clarity_hf.TASK in PIPELINE_REGISTRY.get_supported_tasks()
assert AutoModel._model_mapping[clarity_hf.ClarityConfig] is clarity_hf.ClarityModel
"""
    run(code)


def test_threads_get_public_names_on_first_use():
    code = """
import concurrent.futures, clarity_hf
names = ["ClarityForMultiLabelLocalization", "ChestXrayLocalizationPipeline", "ClarityImageProcessor", "read_image"]
with concurrent.futures.ThreadPoolExecutor(4) as pool: print(len(list(pool.map(clarity_hf.__getattr__, names))))
"""
    assert run(code).split()[-1] == "4"


def test_spawned_workers_unpickle_models(tiny_model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        count = pool.apply(ClarityForMultiLabelLocalization.num_parameters, (tiny_model,))
    assert count == tiny_model.num_parameters()


def test_workers_of_datasets_use_public_names():
    code = """
import clarity_hf
from datasets import Dataset
rows = Dataset.from_dict({"size": [32, 64]})
def width(row): return {"width": clarity_hf.ClarityConfig(image_size=row["size"]).image_size}
print(rows.map(width, num_proc=2)["width"][1])
"""
    assert run(code).split()[-1] == "64"


def test_public_names_are_listed_and_importable():
    assert set(clarity_hf.__all__) <= set(dir(clarity_hf))
    for name in clarity_hf.__all__:
        assert getattr(clarity_hf, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        clarity_hf.no_such_name  # noqa: B018


def test_importing_again_changes_nothing():
    before = hub.cached_files, hub.hf_api().resolve_revision
    importlib.reload(registration).register()
    importlib.reload(clarity_hf)
    assert (hub.cached_files, hub.hf_api().resolve_revision) == before
    assert isinstance(AutoConfig.for_model("clarity"), ClarityConfig)


def test_a_revision_of_a_packaged_name_is_refused():
    assert AutoConfig.from_pretrained(NAME, revision="main").model_type == "clarity"
    for load in (AutoConfig, clarity_hf.ClarityForMultiLabelLocalization):
        with pytest.raises(OSError, match=f"`revision` must be left out for the packaged {NAME}, got 'deadbeef'"):
            load.from_pretrained(NAME, revision="deadbeef")


def test_the_hub_is_asked_only_about_other_names(monkeypatch):
    asked = []
    monkeypatch.setattr(HfApi, "resolve_revision", lambda self, repo_id, **kwargs: asked.append(repo_id))
    api = HfApi()
    registration.serve_packaged_names(SimpleNamespace(hf_api=lambda: api, cached_files=hub.cached_files))
    assert api.resolve_revision(NAME, revision="main", token=None) == "main"
    assert api.resolve_revision(repo_id="clarity-none") is None
    assert asked == []
    api.resolve_revision("someone/clarity-s16-224", revision="main")
    assert asked == ["someone/clarity-s16-224"]
