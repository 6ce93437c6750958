# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Publishing: what is in the folder, what never is, who can load it, and what would go to the Hub."""

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
from transformers.dynamic_module_utils import get_imports, get_relative_import_files

import clarity_hf.export.publishing as publishing
from clarity_hf import ClarityConfig, ClarityForMultiLabelLocalization, ClarityImageProcessor, ClarityModel
from clarity_hf.configuration_clarity import TRAINING_DEFAULTS
from clarity_hf.export.publication_checks import card_problems, check_publication, flat_modules
from clarity_hf.export.publishing import is_hub_id, prepare_publication, publish
from clarity_hf.fingerprints import check_sums, write_sums

CARD = """---
library_name: transformers
license: apache-2.0
pipeline_tag: image-classification
tags:
- chest-x-ray
model-index:
- name: tiny
  results:
  - task:
      type: image-classification
    dataset:
      name: phantoms
      type: phantoms
    metrics:
    - type: roc_auc
      value: 0.5
---

# Tiny

See ![a case](pictures/case.png "A case"), [a page](https://example.org/home/page) and ![a badge](https://example.org/b.svg).
"""

CODE = [
    "boxes.py",
    "calibration_fingerprint.py",
    "configuration_clarity.py",
    "dicom_header.py",
    "dicom_pixels.py",
    "dicom_reading.py",
    "grey_levels.py",
    "image_processing_clarity.py",
    "image_reading.py",
    "labels.py",
    "losses_clarity.py",
    "modeling_clarity.py",
    "pipeline_chest_xray_localization.py",
    "plain_card.py",
    "radiograph_check.py",
    "safe_loading.py",
    "view_names.py",
]

CONFIGS = ["config.json", "preprocessor_config.json"]

FILES = sorted([*CODE, *CONFIGS, "LICENSE", "README.md", "SHA256SUMS", "model.safetensors", "pictures/case.png"])


def fill(folder, checkpoint):
    """A run's folder: the checkpoint, its card, and what a training leaves behind."""
    shutil.copytree(checkpoint, folder)
    (folder / "README.md").write_text(CARD)
    (folder / "LICENSE").write_text("Apache License\n")
    (folder / "pictures").mkdir()
    for name in ("case.png", "other.png"):
        Image.new("L", (4, 4), 128).save(folder / "pictures" / name)
    (folder / "run.json").write_text('{"data": "/somewhere"}')
    (folder / "records.jsonl").write_text("{}\n")
    (folder / "training_args.bin").write_bytes(pickle.dumps({"learning_rate": 1.0}))
    (folder / "checkpoint-5").mkdir()
    torch.save({"step": torch.zeros(2)}, folder / "checkpoint-5" / "optimizer.pt")
    torch.save({"step": torch.zeros(2)}, folder / "checkpoint-5" / "scheduler.pt")
    return folder


@pytest.fixture
def source(tiny_checkpoint, tmp_path):
    return fill(tmp_path / "run", tiny_checkpoint)


@pytest.fixture(scope="module")
def publication(tiny_checkpoint, tmp_path_factory):
    """The tiny model with thresholds and calibration of its own, published once. Read only."""
    source = fill(tmp_path_factory.mktemp("source") / "run", tiny_checkpoint)
    config = json.loads((source / "config.json").read_text())
    config |= {"score_thresholds": 0.25, "score_slopes": 0.5, "score_intercepts": 0.1, "map_thresholds": 0.4}
    (source / "config.json").write_text(json.dumps(config))
    return prepare_publication(source, tmp_path_factory.mktemp("published") / "tiny-model")


@pytest.fixture(scope="module")
def published(publication):
    return Path(publication.place)


@pytest.fixture
def copied(published, tmp_path):
    """A publication to spoil."""
    return Path(shutil.copytree(published, tmp_path / "copied"))


@pytest.fixture
def unasked(monkeypatch):
    """Fails a test in which transformers asks whether it may run code."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether remote code may run"))


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def pixels_of(image, processor):
    return processor(image, return_tensors="pt").pixel_values


def test_the_folder_holds_what_is_published_and_nothing_else(publication, published):
    assert files_in(published) == sorted(publication.files) == FILES
    assert publication.files == {name: (published / name).stat().st_size for name in FILES}
    assert (published / "README.md").read_text() == CARD
    assert (published / "LICENSE").read_text() == "Apache License\n"


def test_files_that_are_left_out_are_named(publication):
    assert publication.left_out == (
        "checkpoint-5/ (2 files)",
        "pictures/ (1 file)",
        "records.jsonl",
        "run.json",
        "training_args.bin",
    )


def test_the_configs_name_their_classes_and_no_pipeline(published):
    config, processor = (json.loads((published / name).read_text()) for name in CONFIGS)
    assert config["auto_map"] == {
        "AutoConfig": "configuration_clarity.ClarityConfig",
        "AutoModel": "modeling_clarity.ClarityModel",
        "AutoModelForImageClassification": "modeling_clarity.ClarityForMultiLabelLocalization",
    }
    assert processor["auto_map"] == {"AutoImageProcessor": "image_processing_clarity.ClarityImageProcessor"}
    assert "custom_pipelines" not in config
    assert config["dtype"] == "float32"


def test_the_code_keeps_its_licence(published):
    for name in CODE:
        assert (published / name).read_text().startswith("# Copyright 2026 The clarity_hf authors. Licensed under the")


def test_with_the_package_the_folder_loads_by_its_own_classes_unasked(published, unasked, tiny_model, image):
    assert type(AutoConfig.from_pretrained(published)) is ClarityConfig
    assert type(AutoModel.from_pretrained(published)) is ClarityModel
    processor = AutoImageProcessor.from_pretrained(published)
    assert type(processor) is ClarityImageProcessor
    for loader in (AutoModelForImageClassification, ClarityForMultiLabelLocalization):
        model = loader.from_pretrained(published)
        assert type(model) is ClarityForMultiLabelLocalization
        with torch.no_grad():
            pixels = pixels_of(image, processor)
            logits = 0.5 * tiny_model(pixels).logits + 0.1  # the published calibration
            torch.testing.assert_close(model.eval()(pixels).logits, logits)
    trusted = AutoModelForImageClassification.from_pretrained(published, trust_remote_code=True)
    assert type(trusted) is ClarityForMultiLabelLocalization
    assert not [name for name in sys.modules if name.startswith("transformers_modules")]


def test_with_the_package_the_pipeline_loads_it_unasked(published, unasked, image):
    results = pipeline("chest-xray-localization", model=str(published))(image)
    assert len(results) == 14
    assert {result["threshold"] for result in results} == {0.25}


WITHOUT_THE_PACKAGE = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "clarity_hf":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import clarity_hf
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package is there")

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder, image, answer = sys.argv[1], np.load(sys.argv[2]), sys.argv[3]
try:
    AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    refused = str(error)
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
encoder = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
pixels = processor(image, return_tensors="pt").pixel_values
with torch.no_grad():
    outputs, tokens = model(pixels), encoder(pixels).last_hidden_state
boxes = processor.post_process_localization(
    outputs, score_thresholds=0.0, map_thresholds=0.4, target_sizes=[image.shape]
)[0]
localizer = pipeline(
    "image-classification",
    model=folder,
    pipeline_class=get_class_from_dynamic_module(
        "pipeline_chest_xray_localization.ChestXrayLocalizationPipeline", folder
    ),
    trust_remote_code=True,
)
loaded = {type(part).__module__.rpartition(".")[2] for part in (config, encoder, model, processor)}
with open(answer, "w") as file:
    json.dump(
        {
            "refused": refused,
            "modules": sorted(loaded),
            "logits": outputs.logits.tolist(),
            "scores": outputs.scores.tolist(),
            "tokens": tokens.tolist(),
            "boxes": boxes["boxes"].tolist(),
            "findings": localizer(image),
            "package": [name for name in sys.modules if name.startswith("clarity_hf")],
        },
        file,
    )
"""


def test_without_the_package_the_folder_loads_as_remote_code_and_answers_alike(published, image, tmp_path):
    np.save(tmp_path / "image.npy", image)
    answer = tmp_path / "answer.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_MODULES_CACHE", None)
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(published), str(tmp_path / "image.npy"), str(answer)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    remote = json.loads(answer.read_text())
    assert "trust_remote_code=True" in remote["refused"]
    assert remote["modules"] == ["configuration_clarity", "image_processing_clarity", "modeling_clarity"]
    assert remote["package"] == []

    processor = ClarityImageProcessor.from_pretrained(published)
    model = ClarityForMultiLabelLocalization.from_pretrained(published).eval()
    pixels = pixels_of(image, processor)
    with torch.no_grad():
        outputs, tokens = model(pixels), model.clarity(pixels).last_hidden_state
    boxes = processor.post_process_localization(
        outputs, score_thresholds=0.0, map_thresholds=0.4, target_sizes=[image.shape]
    )[0]["boxes"]
    findings = pipeline("chest-xray-localization", model=str(published))(image)
    assert len(boxes) == 14
    for name, ours in {"logits": outputs.logits, "scores": outputs.scores, "tokens": tokens, "boxes": boxes}.items():
        np.testing.assert_allclose(remote[name], ours.numpy(), rtol=0, atol=1e-5, err_msg=name)
    assert [finding["label"] for finding in remote["findings"]] == [finding["label"] for finding in findings]
    assert [finding["boxes"] for finding in remote["findings"]] == [finding["boxes"] for finding in findings]


def test_half_stores_fp16_that_loads_in_single_precision(source, tmp_path):
    half = prepare_publication(source, tmp_path / "half", half=True)
    single = prepare_publication(source, tmp_path / "single")
    for publication, dtype in ((half, torch.float16), (single, torch.float32)):
        folder = Path(publication.place)
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {dtype}
        assert next(ClarityForMultiLabelLocalization.from_pretrained(folder).parameters()).dtype == torch.float32
    assert half.files["model.safetensors"] < 0.55 * single.files["model.safetensors"]


def test_weights_that_overflow_in_half_precision_are_refused(tiny_model, source, tmp_path):
    with torch.no_grad():
        tiny_model.clarity.layernorm.weight[0] = 1e6
    pair = (tiny_model, ClarityImageProcessor())
    with pytest.raises(ValueError, match=r"has values in clarity\.layernorm\.weight that are not finite"):
        prepare_publication(pair, tmp_path / "half", half=True, card=source / "README.md")
    assert not (tmp_path / "half").exists()


def test_a_model_with_its_processor_takes_its_card_by_path(tiny_model, source, tmp_path):
    pair = (tiny_model, ClarityImageProcessor(size={"height": 64, "width": 64}))
    publication = prepare_publication(pair, tmp_path / "new" / "folder", card=source / "README.md")
    assert sorted(publication.files) == [name for name in FILES if name != "LICENSE"]
    assert publication.left_out == ()
    loaded = ClarityForMultiLabelLocalization.from_pretrained(publication.place)
    assert torch.equal(loaded.clarity.layernorm.weight, tiny_model.clarity.layernorm.weight)
    with pytest.raises(FileNotFoundError, match="No model card: `card` is None"):
        prepare_publication(pair, tmp_path / "other")


def test_another_card_replaces_the_sources_own(source, tmp_path):
    card = tmp_path / "CARD.md"
    card.write_text(CARD.replace("pictures/case.png", "https://example.org/case.png"))
    publication = prepare_publication(source, tmp_path / "published", card=card)
    assert (tmp_path / "published" / "README.md").read_text() == card.read_text()
    assert "README.md" in publication.left_out
    assert "pictures/ (2 files)" in publication.left_out


def test_a_publication_can_be_published_again(published, tmp_path):
    again = prepare_publication(published, tmp_path / "again")
    assert again.left_out == ()
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (published / name).read_bytes(), name


def test_the_pipeline_field_of_a_source_is_dropped_and_named(source, tmp_path):
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"custom_pipelines": {"chest-xray-localization": {}}}))
    publication = prepare_publication(source, tmp_path / "published")
    assert "custom_pipelines of config.json" in publication.left_out
    assert "custom_pipelines" not in json.loads((tmp_path / "published" / "config.json").read_text())


def test_a_packaged_name_is_a_checkpoint(source, tmp_path, monkeypatch):
    monkeypatch.setattr("clarity_hf.packaged_checkpoints.CHECKPOINT_FOLDER", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_sums(source.rename(tmp_path / "clarity-s16-224"))
    assert sorted(prepare_publication("clarity-s16-224", "out").files) == FILES
    with pytest.raises(OSError, match="weights do not ship"):
        prepare_publication("clarity-s16-512", "other")
    with pytest.raises(
        FileNotFoundError, match=r"No such checkpoint: 'nowhere'. Pass a packaged checkpoint \(clarity-s16-224\)"
    ):
        prepare_publication("nowhere", "other")


def test_a_publication_carries_the_hashes_of_what_loading_reads(source, tmp_path):
    published = Path(prepare_publication(source, tmp_path / "published").place)
    check_sums(published)
    stated = [line[66:] for line in (published / "SHA256SUMS").read_text().splitlines()]
    assert stated == sorted([*CODE, *CONFIGS, "model.safetensors"])
    (published / "README.md").write_text((published / "README.md").read_text() + "More.\n")
    check_publication(published)  # a card may be edited where it lies
    (published / "boxes.py").write_text((published / "boxes.py").read_text() + "import os\n")
    with pytest.raises(ValueError, match=r"SHA256SUMS does not match: boxes.py \(different SHA-256\)"):
        check_publication(published)
    (published / "SHA256SUMS").write_text("junk")
    with pytest.raises(ValueError, match="Each line of `SHA256SUMS` must be"):
        check_publication(published)


def test_other_classes_are_refused(tiny_model, source, tmp_path):
    card = source / "README.md"
    with pytest.raises(TypeError, match="`model` must be a ClarityForMultiLabelLocalization, got ClarityModel"):
        prepare_publication((tiny_model.clarity, ClarityImageProcessor()), tmp_path / "new", card=card)
    with pytest.raises(TypeError, match="`image_processor` must be a ClarityImageProcessor, got dict"):
        prepare_publication((tiny_model, {}), tmp_path / "new", card=card)


@pytest.mark.parametrize("change", ["missing", "more", "shape"])
def test_a_source_whose_weights_do_not_fit_is_refused(source, tmp_path, change):
    weights = load_file(source / "model.safetensors")
    name = "clarity.layernorm.weight"
    if change == "missing":
        del weights[name]
    else:
        weights |= {"extra": torch.zeros(1)} if change == "more" else {name: torch.zeros(3)}
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    wrong = "extra" if change == "more" else name
    with pytest.raises(ValueError, match=f"exactly the weights of its config, got 1 that .* such as {wrong}"):
        prepare_publication(source, tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_a_source_with_pickled_weights_alone_is_refused(source, tmp_path):
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        prepare_publication(source, tmp_path / "published")


def test_a_folder_that_holds_something_is_left_alone(source, tmp_path):
    with pytest.raises(ValueError, match="`folder` must be new or empty"):
        prepare_publication(source, source)
    (tmp_path / "empty").mkdir()
    prepare_publication(source, tmp_path / "empty")
    assert files_in(tmp_path / "empty") == FILES


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (CARD, "# No metadata\n", "has no `license` in its metadata; has no `library_name`"),
        ("license: apache-2.0\n", "", "has no `license` in its metadata"),
        ("license: apache-2.0", "license: other", "has the license `other` and no `license_name`"),
        ("library_name: transformers\n", "", "has no `library_name`"),
        ("- chest-x-ray", "- {a: b}", "has the tags"),
        ("value: 0.5", "value: .nan", "has the value nan for roc_auc"),
        ("    dataset:\n      name: phantoms\n      type: phantoms\n", "", "metadata that does not parse"),
        ("license: apache-2.0", "license: [", "metadata that does not parse"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused(source, tmp_path, old, new, message):
    assert card_problems(CARD) == []
    (source / "README.md").write_text(CARD.replace(old, new))
    with pytest.raises(ValueError, match=r"`README\.md` must be a valid model card") as caught:
        prepare_publication(source, tmp_path / "published")
    assert message in str(caught.value)


def test_without_a_card_nothing_is_published(source, tmp_path):
    (source / "README.md").unlink()
    with pytest.raises(FileNotFoundError, match=r"No model card: .*README\.md"):
        prepare_publication(source, tmp_path / "published")


@pytest.mark.parametrize(
    ("shown", "error"),
    [
        ("pictures/nowhere.png", "No such picture of `README.md`: pictures/nowhere.png"),
        ("../case.png", "from below its own folder, got ../case.png"),
        ("/case.png", "from below its own folder, got /case.png"),
        ("training_args.bin", "must show pictures .png, .jpg, .svg"),
    ],
)
def test_pictures_must_exist_and_be_pictures(source, tmp_path, shown, error):
    (source / "README.md").write_text(CARD.replace("pictures/case.png", shown))
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        prepare_publication(source, tmp_path / "published")
    assert error in str(caught.value)


@pytest.mark.parametrize(
    "path", ["{source}/image.png", "{home}/images", "/home/somebody/images", r"C:\Users\somebody"]
)
def test_a_card_that_names_a_path_of_the_machine_is_refused(source, tmp_path, path):
    path = path.format(source=source, home=Path.home())
    (source / "README.md").write_text(CARD + f"Trained from `{path}`.\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"README\.md names the path ") as caught:
        prepare_publication(source, tmp_path / "published")
    assert path in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before  # nor is anything half-written left


def pickled(path):
    path.write_bytes(pickle.dumps({}))


def zipped(path):
    torch.save({}, path)


def spoil_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def spoil_weights(folder, **tensors):
    path = folder / "model.safetensors"
    save_file(load_file(path) | tensors, path, metadata={"format": "pt"})


SPOILED = {
    "a pickle": (lambda f: pickled(f / "training_args.bin"), "training_args.bin is a pickle"),
    "a pickle named as a picture": (lambda f: pickled(f / "pictures/x.png"), "pictures/x.png is a pickle"),
    "an archive": (lambda f: zipped(f / "optimizer.md"), "optimizer.md is a pickle or an archive"),
    "pickled weights": (lambda f: zipped(f / "model.safetensors"), "model.safetensors is not a safetensors file"),
    "cut weights": (
        lambda f: os.truncate(f / "model.safetensors", 1000),
        "model.safetensors is not a safetensors file",
    ),
    "two weights": (
        lambda f: shutil.copy(f / "model.safetensors", f / "model-2.safetensors"),
        "model-2.safetensors is a second file of weights",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "another tensor": (lambda f: spoil_weights(f, extra=torch.zeros(1)), "has extra (1,), the config's model None"),
    "another shape": (lambda f: spoil_config(f, cam_size=32), "the config's model (32,"),
    "not finite": (
        lambda f: spoil_weights(f, **{"clarity.layernorm.bias": torch.full((48,), float("nan"))}),
        "values in clarity.layernorm.bias that are not finite",
    ),
    "a run file": (lambda f: (f / "run.json").write_text("{}"), "run.json is not a file of a publication"),
    "a link": (lambda f: (f / "notes.md").symlink_to(f / "README.md"), "notes.md is a link"),
    "code in a folder": (
        lambda f: (f / "pictures/x.py").write_text("x = 1"),
        "pictures/x.py is not a file of a publication",
    ),
    "code that nothing needs": (lambda f: (f / "extra.py").write_text("x = 1"), "extra.py is imported by nothing"),
    "code that is missing": (lambda f: (f / "labels.py").unlink(), "`labels.py` must be in the folder"),
    "code that is not flat": (
        lambda f: (f / "labels.py").write_text("from .data.nih import x"),
        "the code is not flat (`labels.py` must import siblings",
    ),
    "code that does not parse": (lambda f: (f / "labels.py").write_text("x ="), "labels.py does not parse"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json does not parse"),
    "a pipeline": (lambda f: spoil_config(f, custom_pipelines={}), "config.json has custom_pipelines"),
    "half precision": (lambda f: spoil_config(f, dtype="float16"), "config.json has the dtype float16"),
    "no references": (lambda f: spoil_config(f, auto_map=None), "config.json has the auto_map None"),
    "no picture": (lambda f: (f / "pictures/case.png").write_bytes(b"no"), "pictures/case.png is not a picture"),
    "a missing picture": (
        lambda f: (f / "pictures/case.png").unlink(),
        "README.md shows pictures/case.png, which is missing",
    ),
    "a card": (lambda f: (f / "README.md").write_text("# Tiny"), "README.md has no `license` in its metadata"),
    "a path in code": (
        lambda f: (f / "labels.py").write_text("x = '/home/somebody/images'"),
        "labels.py names the path /home/somebody/images",
    ),
    "a path in the weights' header": (
        lambda f: save_file(load_file(f / "model.safetensors"), f / "model.safetensors", {"from": str(f)}),
        "model.safetensors names the path",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_the_check_finds(copied, kind):
    spoil, message = SPOILED[kind]
    spoil(copied)
    with pytest.raises(ValueError, match="`folder` is not ready to be published") as caught:
        check_publication(copied)
    assert message in str(caught.value)


def test_the_check_gives_the_sizes_and_keeps_a_limit(copied, monkeypatch):
    files = check_publication(copied)
    assert sorted(files) == FILES
    monkeypatch.setattr("clarity_hf.export.publication_checks.MAX_MEGABYTES", 0.1)
    with pytest.raises(ValueError, match=r"MB are more than 0\.1"):
        check_publication(copied)
    with pytest.raises(FileNotFoundError, match="No such folder"):
        check_publication(copied / "nowhere")


def test_the_check_names_everything_that_is_wrong(copied):
    pickled(copied / "a.pkl")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="2 problems"):
        check_publication(copied)


def test_a_safetensors_whose_length_looks_like_a_pickle_is_none(tmp_path):
    # The file begins with its header's length, 8 bytes little-endian: 0x0280 are those of a pickle of protocol 2.
    header = json.dumps({"__metadata__": {"x": ""}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    length = (0x0280).to_bytes(8, "little")
    (tmp_path / "model.safetensors").write_bytes(length + header.ljust(0x0280).encode() + bytes(4))
    with pytest.raises(ValueError, match=r"config\.json is missing") as caught:
        check_publication(tmp_path)
    assert "model.safetensors" not in str(caught.value)


def test_the_flat_modules_are_those_that_transformers_would_copy(published):
    package = Path(publishing.__file__).parents[1]
    roots = [name[:-3] for name in CODE if "_clarity" in name or name.startswith("pipeline_")]
    copied = {Path(file).name for root in roots for file in get_relative_import_files(package / f"{root}.py")}
    assert sorted(copied | {f"{root}.py" for root in roots}) == CODE
    assert [f"{name}.py" for name in flat_modules(package, roots)] == CODE


def test_the_code_needs_what_the_page_says_and_no_more():
    package = Path(publishing.__file__).parents[1]
    needed = {name for file in CODE for name in get_imports(package / file)} - sys.stdlib_module_names
    # transformers imports all of them at loading, also those inside functions; it brings the second set itself.
    with_transformers = {"huggingface_hub", "safetensors"}
    assert needed == {"PIL", "numpy", "scipy", "torch", "torchvision", "transformers"} | with_transformers


@pytest.mark.parametrize(
    ("code", "beyond"),
    [
        ("from .data.nih import load", ".data.nih"),
        ("from . import labels", "."),
        ("from ..labels import FINDINGS", "..labels"),
        ("def f():\n    import clarity_hf.data", "clarity_hf.data"),
        ("from clarity_hf import FINDINGS", "clarity_hf"),
    ],
)
def test_an_import_beyond_the_flat_modules_is_refused(tmp_path, code, beyond):
    ast.parse(code)
    (tmp_path / "root.py").write_text("from .other import x\nimport numpy")
    (tmp_path / "other.py").write_text("from .root import y")
    assert flat_modules(tmp_path, ["root"]) == ["other", "root"]
    (tmp_path / "other.py").write_text(code)
    with pytest.raises(ValueError, match=r"`other\.py` must import siblings as") as caught:
        flat_modules(tmp_path, ["root"])
    assert f"got an import of {beyond}." in str(caught.value)


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("owner/name", True),
        ("there/name", False),
        ("./owner/name", False),
        ("/owner/name", False),
        ("~/name", False),
        ("name", False),
        ("a/b/c", False),
        ("owner/na me", False),
        ("owner/", False),
        (Path("owner/name"), False),
    ],
)
def test_a_hub_id_is_an_owner_and_a_name_without_a_local_path(tmp_path, monkeypatch, destination, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "name").mkdir(parents=True)
    assert is_hub_id(destination) is expected


class FakeHub:
    """The Hub as far as publishing asks it; keeps what it was told."""

    def __init__(self, public=False, holds=()):
        self.public, self.holds = public, list(holds)
        self.created, self.uploaded = {}, {}

    def create_repo(self, repo_id, *, private, exist_ok):
        self.created = {"repo_id": repo_id, "private": private, "exist_ok": exist_ok}

    def repo_info(self, repo_id):
        return SimpleNamespace(private=not self.public)

    def list_repo_files(self, repo_id):
        return [".gitattributes", *self.holds]

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.uploaded = {"repo_id": repo_id, "message": commit_message, "files": files_in(folder_path)}
        self.folder = folder_path
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/0")


@pytest.fixture
def hub(monkeypatch):
    """Call it with what the Hub holds."""

    def make(**state):
        fake = FakeHub(**state)
        monkeypatch.setattr(publishing, "HfApi", lambda: fake)
        monkeypatch.setattr(publishing, "is_offline_mode", lambda: False)
        return fake

    return make


def test_the_hub_gets_exactly_the_checked_files(source, hub):
    fake = hub(holds=["README.md", "model.safetensors"])
    publication = publish(source, "owner/tiny", half=True)
    assert fake.created == {"repo_id": "owner/tiny", "private": False, "exist_ok": True}
    assert fake.uploaded == {"repo_id": "owner/tiny", "message": "Publish with clarity_hf 0.1.0", "files": FILES}
    assert publication.place == "https://huggingface.co/owner/tiny/commit/0"
    assert sorted(publication.files) == FILES
    assert "training_args.bin" in publication.left_out
    assert not Path(fake.folder).exists()


def test_a_private_repository_and_the_commit_message_are_passed_on(source, hub):
    fake = hub()
    publish(source, "owner/tiny", private=True, commit_message="First figures")
    assert fake.created["private"] is True
    assert fake.uploaded["message"] == "First figures"


def test_a_public_repository_does_not_get_what_should_be_private(source, hub):
    fake = hub(public=True)
    with pytest.raises(ValueError, match="must be a private repository, but owner/tiny is public"):
        publish(source, "owner/tiny", private=True)
    assert not fake.uploaded


def test_a_repository_with_other_files_is_refused_with_their_names(source, hub):
    fake = hub(holds=["config.json", "pytorch_model.bin", "notes.txt"])
    with pytest.raises(ValueError, match=r"must hold only a publication.* has notes\.txt, pytorch_model\.bin"):
        publish(source, "owner/tiny")
    assert not fake.uploaded


def test_a_folder_that_fails_the_check_never_reaches_the_hub(source, hub):
    fake = hub()
    (source / "README.md").write_text(CARD + "/home/somebody/images\n")
    with pytest.raises(ValueError, match="names the path"):
        publish(source, "owner/tiny")
    assert not fake.created


def test_offline_a_hub_id_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionError, match=r"in offline mode, got the Hub id owner/tiny.*write \./owner/tiny"):
        publish("there-is-no-such-checkpoint", "owner/tiny")
    assert not list(tmp_path.iterdir())


def test_a_path_is_a_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    publication = publish(source, "./owner/tiny")
    assert files_in(tmp_path / "owner" / "tiny") == sorted(publication.files) == FILES
    with pytest.raises(ValueError, match="`private` and `commit_message` must be left out for a folder"):
        publish(source, "./owner/other", private=True)


@pytest.mark.parametrize("half", [True, False])
def test_published_configs_hold_no_settings_of_training(source, tmp_path, half):
    config = json.loads((source / "config.json").read_text())
    config |= {"tiled_attention_rate": 0.85, "background_loss_weight": 0.2, "drop_path_rate": 0.1}
    (source / "config.json").write_text(json.dumps(config))
    prepare_publication(source, tmp_path / "out", half=half)
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {name: saved[name] for name in TRAINING_DEFAULTS} == TRAINING_DEFAULTS
