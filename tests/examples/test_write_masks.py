# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""examples/write_masks.py: masks from a segmentation model, on a tiny Segformer with random weights."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from clarity_hf.data.priors import read_mask
from clarity_hf.data.thorax_segmenter import segment_thorax
from clarity_hf.phantoms import draw_phantom

SCRIPT = Path(__file__).parents[2] / "examples" / "write_masks.py"
LABELS = {0: "background", 1: "left_lung", 2: "Heart", 3: "clavicle"}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("write_masks", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def segformer(tmp_path_factory):
    """Folder of a segmentation model with random weights, of which every class wins somewhere."""
    folder = tmp_path_factory.mktemp("segformer")
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        id2label=LABELS,
        label2id={label: number for number, label in LABELS.items()},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SegformerForSemanticSegmentation(config).eval()
        torch.nn.init.normal_(model.decode_head.classifier.weight)
    processor = SegformerImageProcessor(size={"height": 64, "width": 64})
    # The classifier's bias puts the median score of each class at 0 on noise, so that every class wins somewhere.
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with torch.no_grad():
        scores = model(**processor(noise, return_tensors="pt")).logits
        model.decode_head.classifier.bias -= scores.flatten(2).median(-1).values[0]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    """Folder with an 8-bit image, a 16-bit portrait one in a folder below, and nothing else that is an image."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    generator = np.random.default_rng(1)
    Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(generator.integers(0, 65536, (1000, 500)).astype(np.uint16)).save(folder / "below" / "b.png")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def run(script, monkeypatch, capsys):
    """Run the command: exit status, standard output, standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["write_masks.py", *map(str, arguments), "--device", "cpu"])
        status = script.main()
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def read(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def test_every_image_gets_a_mask_of_its_proportions(run, images, segformer, tmp_path):
    masks = tmp_path / "masks" / "of" / "images"
    status, out, err = run(images, masks, "--model", segformer)
    assert status == 0
    assert out.splitlines()[:2] == ["classes: left_lung, Heart", f"wrote 2 masks to {masks}, 0 were there"]
    assert "2/2" in err
    assert sorted(path.name for path in masks.iterdir()) == ["a.png", "b.png"]  # and no half-written part
    assert read(masks / "a.png").shape == (64, 64)
    assert read(masks / "b.png").shape == (512, 256)  # the longer side is 512 at most
    for name in ("a.png", "b.png"):
        assert set(np.unique(read(masks / name))) == {0, 255}
        assert read_mask(masks / name) is not None


def test_the_mask_is_where_the_model_sees_the_classes(run, images, segformer, tmp_path):
    run(images, tmp_path / "masks", "--model", segformer)
    model = SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
    processor = SegformerImageProcessor.from_pretrained(segformer)
    with torch.no_grad():
        outputs = model(**processor(Image.open(images / "a.png").convert("RGB"), return_tensors="pt"))
    labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[(64, 64)])[0].numpy()
    np.testing.assert_array_equal(read(tmp_path / "masks" / "a.png") > 0, (labels == 1) | (labels == 2))


def test_classes_are_given_by_name_or_number(run, images, segformer, tmp_path):
    areas = {}
    for chosen in (("Left_Lung",), ("1",), ("heart", "1"), ("0", "1", "2", "3")):
        masks = tmp_path / "-".join(chosen)
        assert run(images, masks, "--model", segformer, "--classes", *chosen)[0] == 0
        areas[chosen] = (read(masks / "a.png") > 0).mean()
    assert areas["Left_Lung",] == areas["1",] < areas["heart", "1"] < areas["0", "1", "2", "3"] == 1


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        (["bg", "lungs", "left_lung", "Right Lung", "Heart"], ["lungs", "left_lung", "Right Lung", "Heart"]),
        (["Left Hilus Pulmonis", "Aorta", "Spine", "Weasand"], ["Left Hilus Pulmonis", "Aorta"]),
    ],
)
def test_classes_are_found_by_their_names(script, labels, chosen):
    assert list(script.choose_classes(dict(enumerate(labels)), None).values()) == chosen


def test_classes_that_are_not_there_are_an_error_that_lists_them(run, script, images, segformer, tmp_path):
    status, _, err = run(images, tmp_path / "masks", "--model", segformer, "--classes", "spleen", "heart")
    assert status == 1
    assert "got ['spleen']" in err
    assert "clavicle" in err
    with pytest.raises(ValueError, match="LABEL_1"):
        script.choose_classes({0: "LABEL_0", 1: "LABEL_1"}, None)


def test_masks_that_are_there_are_left_alone(run, images, segformer, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "a.png").write_bytes(b"drawn by hand")
    status, out, _ = run(images, masks, "--model", segformer)
    assert status == 0
    assert f"wrote 1 masks to {masks}, 1 were there" in out
    assert (masks / "a.png").read_bytes() == b"drawn by hand"


def test_a_bad_image_is_reported_and_the_others_are_processed(run, images, segformer, tmp_path):
    (images / "aa.png").write_bytes(b"this is no image")
    status, out, err = run(images, tmp_path / "masks", "--model", segformer)
    assert status == 1
    assert "wrote 2 masks" in out
    assert "error: 1 image failed:\n  aa: `" in err
    assert not (tmp_path / "masks" / "aa.png").exists()
    # The next run tries it again, and only it.
    status, out, _ = run(images, tmp_path / "masks", "--model", segformer)
    assert status == 1
    assert "wrote 0 masks" in out


def test_empty_masks_are_written_and_named(script, images, tmp_path, capsys):
    written, there, empty, failed = script.write_masks(
        [images / "a.png"], tmp_path, lambda image: np.zeros((4, 4), dtype=bool)
    )
    assert (written, there, empty, failed) == (1, 0, ["a"], {})
    assert read_mask(tmp_path / "a.png") is None
    assert script.report(written, there, empty, failed, tmp_path) == 0
    assert "1 mask is empty: a" in capsys.readouterr().out


def test_a_stopped_run_leaves_no_half_mask(script, images, tmp_path, monkeypatch):
    def stopped(image, path, *arguments, **settings):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        script.write_masks([images / "a.png"], tmp_path, lambda radiograph: np.ones((4, 4), dtype=bool))
    assert not (tmp_path / "a.png").exists()


def test_a_failure_of_the_model_is_not_blamed_on_the_image(script, images, tmp_path):
    def broken(image):
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        script.write_masks([images / "a.png"], tmp_path, broken)


def test_images_of_one_name_are_refused(run, images, segformer, tmp_path):
    Image.open(images / "a.png").save(images / "below" / "a.png")
    status, _, err = run(images, tmp_path / "masks", "--model", segformer)
    assert status == 1
    assert "different names" in err


def test_masks_below_the_images_are_not_images(run, images, segformer):
    for _ in range(2):
        status, out, _ = run(images, images / "masks", "--model", segformer)
        assert status == 0
    assert "wrote 0 masks" in out
    assert "2 were there" in out


def test_folders_that_cannot_be_are_errors(run, images, segformer, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, masks in ((tmp_path / "gone", "masks"), (tmp_path / "empty", "masks"), (images, images)):
        status, _, err = run(folder, masks, "--model", segformer)
        assert status == 1
        assert err.startswith("error: `")


def test_a_model_that_crops_the_image_is_refused(run, images, segformer, tmp_path):
    folder = tmp_path / "crops"
    SegformerForSemanticSegmentation.from_pretrained(segformer).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}, do_center_crop=True).save_pretrained(folder)
    status, _, err = run(images, tmp_path / "masks", "--model", folder)
    assert status == 1
    assert "complete image" in err


def test_pickled_weights_are_refused(run, images, segformer, tmp_path):
    model = SegformerForSemanticSegmentation.from_pretrained(segformer)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "pickled")
    model.config.save_pretrained(tmp_path / "pickled")
    torch.save(model.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    status, _, err = run(images, tmp_path / "masks", "--model", tmp_path / "pickled")
    assert status == 1
    assert "safetensors" in err


# torchxrayvision


class StandInPspnet(torch.nn.Module):
    """Interface of torchxrayvision's PSPNet, from its source: 14 structures in its order, 512 × 512 scores."""

    targets = [
        "Left Clavicle", "Right Clavicle", "Left Scapula", "Right Scapula", "Left Lung", "Right Lung",
        "Left Hilus Pulmonis", "Right Hilus Pulmonis", "Heart", "Aorta", "Facies Diaphragmatica", "Mediastinum",
        "Weasand", "Spine",
    ]  # fmt: skip

    def forward(self, x):
        assert x.shape == (1, 1, 512, 512)
        assert x.min() >= -1024
        assert x.max() <= 1024
        scores = torch.full((1, 14, 512, 512), -5.0)
        scores[:, 4, :, :256] = 5  # one lung in the left half
        scores[:, 8, 384:] = 5  # the heart in the lowest quarter
        scores[:, 13] = 5  # the spine everywhere, which is none of ours
        return scores


def test_the_pspnet_gives_the_union_of_its_thoracic_structures(run, images, tmp_path, monkeypatch):
    module = types.ModuleType("torchxrayvision.baseline_models.chestx_det")
    module.PSPNet = StandInPspnet
    for name in ("torchxrayvision", "torchxrayvision.baseline_models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    status, out, _ = run(images, tmp_path / "masks", "--model", "torchxrayvision-pspnet")
    assert status == 0
    assert out.splitlines()[0] == (
        "classes: Left Lung, Right Lung, Left Hilus Pulmonis, Right Hilus Pulmonis, Heart, Aorta, Mediastinum"
    )
    mask = read(tmp_path / "masks" / "b.png") > 0
    assert mask.shape == (512, 256)
    assert mask[:383, :127].all()
    assert mask[385:].all()
    assert not mask[:383, 129:].any()


def test_without_torchxrayvision_it_says_how_to_install_it(run, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    status, _, err = run(images, tmp_path / "masks", "--model", "torchxrayvision-pspnet")
    assert status == 1
    assert "pip install torchxrayvision" in err


# The packaged segmenter


def test_without_a_model_the_packaged_segmenter_writes_the_hull(run, script, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    phantom = draw_phantom(2, 160, [])
    Image.fromarray(phantom.image).save(folder / "p.png")
    status, output, _ = run(folder, tmp_path / "masks")
    assert status == 0
    assert "classes: hull" in output
    mask = read_mask(str(tmp_path / "masks" / "p.png"))
    np.testing.assert_array_equal(mask, segment_thorax(phantom.image).hull)


def test_where_the_packaged_segmenter_finds_nothing_the_mask_is_empty(run, script, images, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "segment_thorax", lambda image: None)
    status, output, _ = run(images, tmp_path / "masks")
    assert status == 0
    assert "2 masks are empty: a, b" in output
    assert Image.open(tmp_path / "masks" / "b.png").size == (256, 512)


def test_structures_of_the_packaged_segmenter_are_given_by_name(script):
    segment, classes = script.load_packaged("packaged", ["left_lung", "right_lung"], "cpu")
    image = draw_phantom(2, 160, []).image
    found = segment_thorax(image)
    assert classes == ["left_lung", "right_lung"]
    np.testing.assert_array_equal(segment(image), found.left_lung | found.right_lung)
