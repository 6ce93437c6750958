# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints from anywhere: pickles are never opened, code is never run, damaged weights are refused in words."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

import clarity_hf
from clarity_hf import ClarityForMultiLabelLocalization, ClarityImageProcessor, ClarityModel
from clarity_hf.evaluation.baselines import GradCamLocalizer
from clarity_hf.export.publishing import prepare_publication
from clarity_hf.teacher import Teacher
from clarity_hf.training.initialization import initialize_from_vit

LOADERS = {
    "model": ClarityForMultiLabelLocalization.from_pretrained,
    "encoder": ClarityModel.from_pretrained,
    "auto model": AutoModelForImageClassification.from_pretrained,
    "auto encoder": AutoModel.from_pretrained,
    "pipeline": lambda folder: pipeline(clarity_hf.TASK, model=str(folder)),
    "pickles asked for": lambda folder: AutoModelForImageClassification.from_pretrained(folder, weights_only=False),
}

OTHER_READERS = {
    "teacher": lambda folder: Teacher.from_pretrained(str(folder), ["Mass"], ClarityImageProcessor()),
    "Grad-CAM": lambda folder: GradCamLocalizer.from_pretrained(str(folder)),
    "initialisation": lambda folder: initialize_from_vit(_tiny(), folder),
    "publishing": lambda folder: prepare_publication(folder, Path(folder).parent / "published", card=_card(folder)),
}


REFUSALS = (OSError, ValueError)
"""A pipeline wraps the OSError of a model that does not load in a ValueError with its text."""


def _tiny():
    return ClarityForMultiLabelLocalization(
        clarity_hf.ClarityConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, class_attention_layers=2)
    )


def _card(folder):
    card = Path(folder).parent / "CARD.md"
    card.write_text("---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: image-classification\n---\n# Card\n")
    return card


class Trap:
    """A pickle that writes a file where it is opened."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.write_text, (Path(self.marker), "opened")


@pytest.fixture
def marker(tmp_path):
    """Where a trap would leave its mark; the test fails if one did."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code of a checkpoint was run"


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """A copy of a whole checkpoint, to spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def set_trap(path, marker, zipped=True):
    """Write a pickle that marks, as torch writes its files or bare."""
    if zipped:
        torch.save({"weight": Trap(str(marker))}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(str(marker))))


def test_the_trap_works(tmp_path):
    for zipped in (True, False):
        set_trap(tmp_path / "trap.bin", tmp_path / f"marker-{zipped}", zipped)
        if zipped:
            torch.load(tmp_path / "trap.bin", weights_only=False)
        else:
            pickle.loads((tmp_path / "trap.bin").read_bytes())
        assert (tmp_path / f"marker-{zipped}").read_text() == "opened"


# Pickles


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_a_folder_with_only_a_pickle_is_refused_with_the_way_out(folder, marker, loader, name, zipped):
    (folder / "model.safetensors").unlink()
    set_trap(folder / name, marker, zipped)
    with pytest.raises(REFUSALS, match=f"must hold model.safetensors, got {name}, a pickle. Convert it"):
        LOADERS[loader](folder)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_pickle_beside_safetensors_is_not_opened(folder, marker, loader):
    for name in ("pytorch_model.bin", "model.pt", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        set_trap(folder / name, marker)
    for name in (".metadata", "rng_state.pth"):
        set_trap(folder / name, marker, zipped=False)
    LOADERS[loader](folder)


@pytest.mark.parametrize("reader", OTHER_READERS)
def test_other_readers_open_no_pickle(folder, marker, reader):
    (folder / "model.safetensors").unlink()
    set_trap(folder / "pytorch_model.bin", marker)
    with pytest.raises((OSError, ValueError), match=r"(?i)pickle|safetensors"):
        OTHER_READERS[reader](folder)


def test_pickles_cannot_be_asked_for(folder, marker):
    set_trap(folder / "pytorch_model.bin", marker)
    with pytest.raises(ValueError, match="`use_safetensors` must be True, got False"):
        ClarityForMultiLabelLocalization.from_pretrained(folder, use_safetensors=False)


def test_a_pickle_named_by_its_path_is_refused(folder, marker):
    set_trap(folder / "pytorch_model.bin", marker)
    config = AutoConfig.from_pretrained(folder)
    with pytest.raises(OSError, match=r"`pytorch_model.bin` must be a folder or a .safetensors file"):
        ClarityForMultiLabelLocalization.from_pretrained(folder / "pytorch_model.bin", config=config)


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../elsewhere.safetensors", "/elsewhere.safetensors"])
def test_an_index_that_names_a_pickle_or_another_folder_is_refused(folder, marker, shard):
    (folder / "model.safetensors").unlink()
    set_trap(folder / "pytorch_model.bin", marker)
    save_file({"a": torch.zeros(1)}, folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"a": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for loader in LOADERS.values():
        with pytest.raises(ValueError, match=r"`model.safetensors.index.json` must name .safetensors files beside it"):
            loader(folder)


def test_a_config_that_names_a_pickle_is_refused(folder, marker):
    set_trap(folder / "adapter_model.bin", marker)
    spoil(folder, transformers_weights="adapter_model.bin")
    for loader in LOADERS.values():
        with pytest.raises(ValueError, match="`transformers_weights` must name safetensors"):
            loader(folder)


def test_what_is_saved_is_safetensors(folder, tmp_path):
    pipeline(clarity_hf.TASK, model=str(folder)).save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir() if path.suffix not in (".py", ".json")) == [
        "model.safetensors"
    ]


# Code


def spoil(folder, name="config.json", **fields):
    """Change fields of a JSON file of a checkpoint."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def plant(folder, marker):
    """Code beside a checkpoint that marks as soon as it is imported, under every name that may be tried."""
    for name in ("modeling_evil", "configuration_evil", "modeling_clarity", "pipeline_evil", "kernel", "layer"):
        (folder / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).write_text('run')\n")
    (folder / "__init__.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).write_text('run')\n")


AUTO_MAP = {
    "AutoConfig": "configuration_evil.Evil",
    "AutoModel": "modeling_evil.Evil",
    "AutoModelForImageClassification": "modeling_evil.Evil",
    "AutoImageProcessor": "modeling_evil.Evil",
}


@pytest.mark.parametrize("loader", LOADERS)
def test_the_code_of_a_checkpoint_is_not_run_unasked(folder, marker, loader):
    plant(folder, marker)
    spoil(folder, auto_map=AUTO_MAP, trust_remote_code=True)
    spoil(folder, "preprocessor_config.json", auto_map=AUTO_MAP, trust_remote_code=True)
    LOADERS[loader](folder)
    assert isinstance(AutoImageProcessor.from_pretrained(folder), ClarityImageProcessor)


@pytest.mark.parametrize("loader", ["auto model", "auto encoder", "pipeline", *OTHER_READERS])
def test_another_kind_of_model_with_code_is_refused(folder, marker, loader):
    plant(folder, marker)
    spoil(folder, auto_map=AUTO_MAP, model_type="evil")
    try:
        (LOADERS | OTHER_READERS)[loader](folder)
    except (ValueError, KeyError, OSError):
        pass
    else:  # which asks for our class and takes no other, whatever the folder says
        assert loader == "publishing"


def test_the_pipeline_of_a_checkpoint_is_not_run_unasked(folder, marker):
    plant(folder, marker)
    evil = {"impl": "pipeline_evil.Evil", "pt": ["AutoModelForImageClassification"]}
    spoil(folder, custom_pipelines={clarity_hf.TASK: evil})
    with pytest.raises(ValueError, match="trust_remote_code"):
        pipeline(clarity_hf.TASK, model=str(folder))


def test_an_attention_from_the_hub_is_not_fetched_unasked(folder):
    spoil(folder, attn_implementation="someone/kernel")
    with pytest.raises(ValueError, match="`attn_implementation` of a file must be"):
        AutoModelForImageClassification.from_pretrained(folder)


# Values


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 10**9},
        {"image_size": 16 * 10**6},
        {"num_labels": 10**7, "id2label": None, "label2id": None},
        {"hidden_size": -48},
        {"num_attention_heads": 0},
        {"layer_norm_eps": float("nan")},
        {"score_thresholds": [[[]]]},
        {"id2label": {"0": "{{ 7 * 7 }}\n---\nlicense: mit"}},
        {"per_finding": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("loader", LOADERS)
def test_hostile_configs_are_refused_before_a_model_is_made(folder, loader, fields, monkeypatch):
    monkeypatch.setattr(ClarityModel, "__init__", lambda *_: pytest.fail("a model was made"))
    spoil(folder, **fields)
    with pytest.raises(ValueError, match="` must "):
        LOADERS[loader](folder)


def header(entries, length=None):
    """Start of a safetensors file; `length` instead of the true one."""
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
DAMAGED = {
    "empty": b"",
    "short": b"\x00\x01",
    "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "a header longer than the file": header({"a": ENTRY}, length=2**40) + bytes(4),
    "a header of 2^63 bytes": header({"a": ENTRY}, length=2**63 + 7) + bytes(4),
    "a header that is not JSON": struct.pack("<Q", 4) + b"junk",
    "offsets beyond the file": header({"a": {**ENTRY, "data_offsets": [0, 2**40]}}) + bytes(4),
    "offsets that overlap": header({"a": ENTRY, "b": ENTRY}) + bytes(4),
    "offsets that run backwards": header({"a": {**ENTRY, "data_offsets": [4, 0]}}) + bytes(4),
    "a hole": header({"a": ENTRY}) + bytes(400),
    "a shape that overflows": header({"a": {**ENTRY, "shape": [2**40, 2**40]}}) + bytes(4),
    "a negative shape": header({"a": {**ENTRY, "shape": [-1]}}) + bytes(4),
    "an unknown type": header({"a": {**ENTRY, "dtype": "OBJECT"}}) + bytes(4),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("loader", ["model", "encoder", "auto model", "pipeline"])
def test_damaged_safetensors_are_refused_with_their_place(folder, loader, kind):
    (folder / "model.safetensors").write_bytes(DAMAGED[kind])
    with pytest.raises(REFUSALS, match=rf"`{folder}` must hold whole safetensors, got a damaged file \(.+\). Fetch"):
        LOADERS[loader](folder)


def test_truncated_and_flipped_weights_are_refused_or_finite(folder, image):
    whole = (folder / "model.safetensors").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for trial in range(40):
        content = bytearray(whole)
        if trial % 2:
            del content[int(generator.integers(len(whole))) :]
        else:  # the header, where bits mean names, types, shapes and places
            content[int(generator.integers(2000))] ^= 1 << int(generator.integers(8))
        (folder / "model.safetensors").write_bytes(content)
        try:
            model = ClarityForMultiLabelLocalization.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError):
            refused += 1
        else:  # a name was changed: the library warns of a tensor too many and one too few
            assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert refused >= 25


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("loader", ["model", "encoder", "auto model", "pipeline"])
def test_weights_that_are_not_finite_are_refused_with_their_name(folder, loader, value):
    weights = load_file(folder / "model.safetensors")
    weights["clarity.layernorm.weight"][3] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"must hold finite weights, got NaN or infinity in .*layernorm.weight"):
        LOADERS[loader](folder)


def resave(folder, change):
    """Weights of a checkpoint, changed by a function of name and tensor; None leaves a tensor out."""
    changed = {name: change(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def without_layer_norms(name, tensor):
    return None if "layernorm" in name else tensor


WHOLE = ["model", "pipeline"]
"""Loaders of a model with its heads."""


@pytest.mark.parametrize("loader", [*WHOLE, "encoder", "auto encoder"])
def test_a_checkpoint_without_some_tensors_is_refused_with_their_names(folder, loader):
    resave(folder, without_layer_norms)
    with pytest.raises(ValueError, match=r"must hold the tensors of its .*, got 10 missing: .*layernorm.bias, "):
        LOADERS[loader](folder)


@pytest.mark.parametrize("loader", WHOLE)
def test_a_checkpoint_without_its_head_is_refused_with_the_names_of_its_tensors(folder, loader):
    head = ("class_token_head.weight", "segment_cam.cam.weight")
    resave(folder, lambda name, tensor: None if name in head else tensor)
    with pytest.raises(ValueError, match=f"got 2 missing: {', '.join(head)}. Fetch"):
        LOADERS[loader](folder)


@pytest.mark.parametrize("loader", WHOLE)
def test_the_weights_of_an_encoder_alone_make_no_whole_model(folder, loader):
    ClarityModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"got \d+ missing: class_token_head"):
        LOADERS[loader](folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.int64, torch.complex64], ids=str)
@pytest.mark.parametrize("loader", [*WHOLE, "encoder", "auto encoder"])
def test_tensors_that_are_not_floating_point_are_refused(folder, loader, dtype):
    resave(folder, lambda name, tensor: tensor.to(dtype) if name == "clarity.layernorm.bias" else tensor)
    with pytest.raises(ValueError, match=r"must hold floating point tensors, got 1 .* clarity.layernorm.bias of"):
        LOADERS[loader](folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_tensors_of_any_floating_type_load(folder, dtype):
    resave(folder, lambda name, tensor: tensor.to(dtype))
    ClarityForMultiLabelLocalization.from_pretrained(folder)


@pytest.mark.parametrize("loader", WHOLE)
def test_a_tensor_of_another_shape_is_refused_with_both(folder, loader):
    resave(folder, lambda name, tensor: tensor[:13] if name == "class_token_head.bias" else tensor)
    with pytest.raises(ValueError, match=r"class_token_head.bias \(13,\) where \(14,\) is expected. Correct config"):
        LOADERS[loader](folder)


@pytest.mark.parametrize("loader", [*WHOLE, "encoder", "auto encoder"])
def test_a_config_of_fewer_layers_than_the_weights_is_refused(folder, loader):
    spoil(folder, num_hidden_layers=1, class_attention_layers=1)
    with pytest.raises(ValueError, match=r"got 16 too many: clarity.layers.1.attention.k_proj.bias, .* Correct the"):
        LOADERS[loader](folder)


def test_a_tensor_of_another_program_beside_them_does_not_matter(folder):
    weights = load_file(folder / "model.safetensors")
    weights["ema.step"] = torch.zeros(1, dtype=torch.int64)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    ClarityForMultiLabelLocalization.from_pretrained(folder)


def test_weights_given_as_a_dict_are_held_to_the_same_rule(tiny_config, tiny_model):
    whole = tiny_model.state_dict()
    loaded = ClarityForMultiLabelLocalization.from_pretrained(None, config=tiny_config, state_dict=whole)
    assert torch.equal(loaded.class_token_head.weight, whole["class_token_head.weight"])
    whole["class_token_head.bias"] = torch.zeros(14, dtype=torch.int8)
    with pytest.raises(ValueError, match="must hold floating point tensors"):
        ClarityForMultiLabelLocalization.from_pretrained(None, config=tiny_config, state_dict=whole)


def test_loading_info_names_what_an_incomplete_checkpoint_lacks(folder):
    resave(folder, without_layer_norms)
    _, loading = ClarityForMultiLabelLocalization.from_pretrained(folder, output_loading_info=True)
    assert len(loading["missing_keys"]) == 10


NO_CONFIG = {
    "none": None,
    "empty object": "{}",
    "list": "[]",
    "null": "null",
    "nested too deep": "[" * 100_000,
    "another model's": '{"model_type": "vit"}',
    "no type": '{"hidden_size": 48}',
}


@pytest.mark.parametrize("kind", NO_CONFIG)
@pytest.mark.parametrize("loader", ["model", "encoder"])
def test_a_missing_or_mistaken_config_is_named(folder, loader, kind):
    (folder / "config.json").unlink()
    if NO_CONFIG[kind] is not None:
        (folder / "config.json").write_text(NO_CONFIG[kind])
    with pytest.raises(ValueError, match=rf"`{folder}` must hold the config.json of a CLARiTy model, got"):
        LOADERS[loader](folder)


@pytest.mark.parametrize("text", ["", "{", "\ufeff{}", "config.json"])
def test_a_config_that_is_not_json_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(OSError, match=r"config.json' is not a valid JSON file"):
        ClarityForMultiLabelLocalization.from_pretrained(folder)


def test_a_teacher_without_its_head_is_refused(folder):
    from transformers import ViTConfig, ViTForImageClassification

    names = {"id2label": {0: "Mass"}, "label2id": {"Mass": 0}}
    config = ViTConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=1, intermediate_size=12, **names)
    ViTForImageClassification(config).save_pretrained(folder)
    ClarityImageProcessor().save_pretrained(folder)
    OTHER_READERS["teacher"](folder)
    resave(folder, lambda name, tensor: None if name == "classifier.weight" else tensor)
    for reader in ("teacher", "Grad-CAM"):
        with pytest.raises(ValueError, match=r"must hold the tensors of .*, got 1 missing: classifier.weight"):
            OTHER_READERS[reader](folder)


def test_loading_info_comes_as_the_library_gives_it(folder):
    model, loading = ClarityForMultiLabelLocalization.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, ClarityForMultiLabelLocalization)
    assert not loading["missing_keys"]
