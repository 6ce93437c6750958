# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The teacher: its own pixels, the student's order of findings, frozen for good."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    ConvNextImageProcessor,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from clarity_hf import ClarityImageProcessor
from clarity_hf.training import Teacher

FINDINGS = ["Effusion", "Mass", "Nodule"]
STUDENT = ([0.5] * 3, [0.25] * 3)
TEACHER = ([0.4, 0.5, 0.6], [0.2, 0.25, 0.5])


class Recorder(nn.Module):
    """A classifier that keeps what it saw; its logits are the mean of each channel."""

    def __init__(self, names):
        super().__init__()
        self.config = SimpleNamespace(id2label=dict(enumerate(names)))
        self.gain = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.5)
        self.seen = None

    def forward(self, pixel_values):
        self.seen = pixel_values
        return SimpleNamespace(logits=self.dropout(pixel_values.mean((2, 3)) * self.gain))


def images(height=16, width=16):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def normalised(pixels, mean, std):
    return (pixels - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def test_the_teacher_sees_its_own_normalisation():
    model = Recorder(FINDINGS)
    Teacher(model, FINDINGS, *STUDENT, *TEACHER)(normalised(images(), *STUDENT))
    torch.testing.assert_close(model.seen, normalised(images(), *TEACHER), rtol=1e-5, atol=1e-6)


def test_the_teacher_sees_its_own_resolution():
    model = Recorder(FINDINGS)
    teacher = Teacher(model, FINDINGS, *STUDENT, *STUDENT, size=(8, 4))
    pixels = images()
    teacher(pixels)
    assert model.seen.shape == (2, 3, 8, 4)
    # Columns 4 to 1 with antialiasing: a flat image stays flat and the mean nearly the same.
    torch.testing.assert_close(model.seen.mean((2, 3)), pixels.mean((2, 3)), rtol=0.05, atol=0)
    flat = torch.full((1, 3, 16, 16), 0.3)
    teacher(flat)
    torch.testing.assert_close(model.seen, torch.full((1, 3, 8, 4), 0.3))


def test_at_its_own_resolution_pixels_are_not_resampled():
    model = Recorder(FINDINGS)
    Teacher(model, FINDINGS, *STUDENT, *STUDENT, size=(16, 16))(images())
    assert torch.equal(model.seen, images())


def test_without_a_size_it_takes_the_students():
    model = Recorder(FINDINGS)
    Teacher(model, FINDINGS, *STUDENT, *STUDENT)(images(16, 48))
    assert model.seen.shape == (2, 3, 16, 48)


def test_logits_are_in_the_students_order_by_name():
    teacher = Teacher(Recorder(["Nodule", "Effusion", "Mass"]), FINDINGS, *STUDENT, *STUDENT)
    channels = images().mean((2, 3))
    torch.testing.assert_close(teacher(images()), channels[:, [1, 2, 0]])


def test_a_teacher_may_know_more_than_the_student():
    teacher = Teacher(Recorder(["Hernia", "Mass", "Nodule"]), ["Nodule", "Mass"], *STUDENT, *STUDENT)
    torch.testing.assert_close(teacher(images()), images().mean((2, 3))[:, [2, 1]])


def test_a_finding_that_the_teacher_lacks_is_named():
    with pytest.raises(ValueError, match=r"without \['Mass'\]"):
        Teacher(Recorder(["Nodule", "Effusion", "Edema"]), FINDINGS, *STUDENT, *STUDENT)


def test_the_teacher_is_frozen_and_stays_in_evaluation_mode():
    teacher = Teacher(Recorder(FINDINGS), FINDINGS, *STUDENT, *STUDENT)
    nn.ModuleList([teacher]).train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert torch.equal(teacher(images()), teacher(images()))  # its dropout sleeps


def test_the_teacher_has_no_gradient():
    pixels = images().requires_grad_()
    assert not Teacher(Recorder(FINDINGS), FINDINGS, *STUDENT, *STUDENT)(pixels).requires_grad


def save_convnext(folder, dtype=torch.float32):
    torch.manual_seed(0)
    names = dict(enumerate(["Nodule", "Mass", "Effusion"]))
    config = ConvNextV2Config(
        hidden_sizes=[8, 8, 8, 8],
        depths=[1, 1, 1, 1],
        id2label=names,
        label2id={name: index for index, name in names.items()},
        initializer_range=0.5,
    )
    model = ConvNextV2ForImageClassification(config).eval()
    model.to(dtype).save_pretrained(folder)
    return model.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_convnext_loads_with_its_own_preprocessing(tmp_path, dtype):
    model = save_convnext(tmp_path, dtype)
    ConvNextImageProcessor(size={"shortest_edge": 48}, image_mean=TEACHER[0], image_std=TEACHER[1]).save_pretrained(
        tmp_path
    )
    student = ClarityImageProcessor(size={"height": 48, "width": 48})
    teacher = Teacher.from_pretrained(str(tmp_path), FINDINGS, student)
    assert teacher.size == (48, 48)
    image = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    pixels = student(image, return_tensors="pt").pixel_values
    expected = normalised(torch.from_numpy(image).float().div(255).expand(1, 3, -1, -1), *TEACHER)
    with torch.no_grad():
        logits = model(expected).logits[:, [2, 1, 0]]
    assert logits.std() > 1e-3  # the findings differ, so that their order shows
    torch.testing.assert_close(teacher(pixels), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_who_does_not_normalise_is_left_alone(tmp_path, side):
    model = save_convnext(tmp_path)
    plain = {"image_mean": TEACHER[0], "image_std": TEACHER[1], "do_normalize": False}
    normal = plain | {"do_normalize": True}
    of_teacher, of_student = (plain, normal) if side == "teacher" else (normal, plain)
    ConvNextImageProcessor(size={"shortest_edge": 384}, **of_teacher).save_pretrained(tmp_path)
    student = ClarityImageProcessor(size={"height": 384, "width": 384}, **of_student)
    teacher = Teacher.from_pretrained(str(tmp_path), FINDINGS, student)
    image = images(384, 384)
    seen = image if side == "student" else normalised(image, *TEACHER)
    expected = image if side == "teacher" else normalised(image, *TEACHER)
    with torch.no_grad():
        logits = model(expected).logits[:, [2, 1, 0]]
    torch.testing.assert_close(teacher(seen), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"do_rescale": False, "do_normalize": False}, "got False and 0.0039"),
        ({"do_rescale": False}, "got False and 0.0039"),
        ({"rescale_factor": 1 / 127.5}, "got True and 0.0078"),
    ],
)
def test_images_on_another_scale_than_0_to_1_are_refused(tmp_path, settings, got):
    save_convnext(tmp_path)
    ConvNextImageProcessor(**settings).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"`do_rescale`.*{got}.*preprocessor_config\.json"):
        Teacher.from_pretrained(str(tmp_path), FINDINGS, ClarityImageProcessor())


def test_a_timm_model_loads_through_the_wrapper(tmp_path):
    pytest.importorskip("timm")
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    torch.manual_seed(0)
    config = TimmWrapperConfig(
        architecture="test_vit",
        id2label=dict(enumerate(FINDINGS)),
        label2id={name: index for index, name in enumerate(FINDINGS)},
        pretrained_cfg={"input_size": [3, 160, 160], "mean": TEACHER[0], "std": TEACHER[1], "crop_pct": 1.0},
    )
    model = TimmWrapperForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    teacher = Teacher.from_pretrained(str(tmp_path), FINDINGS, ClarityImageProcessor())
    assert teacher.size == (160, 160)
    student = ClarityImageProcessor()
    pixels = normalised(images(160, 160), student.image_mean, student.image_std)
    with torch.no_grad():
        expected = model(normalised(images(160, 160), *TEACHER)).logits
    torch.testing.assert_close(teacher(pixels), expected, rtol=1e-4, atol=1e-4)


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    model = save_convnext(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    ConvNextImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(OSError, match="safetensors"):
        Teacher.from_pretrained(str(tmp_path), FINDINGS, ClarityImageProcessor())


# A teacher of whatever is at hand


def classifier(names):
    config = ConvNextV2Config(hidden_sizes=[8] * 4, depths=[1] * 4, id2label=dict(enumerate(names)))
    return ConvNextV2ForImageClassification(config)


def test_a_teacher_is_returned_unchanged():
    teacher = Teacher(Recorder(FINDINGS), FINDINGS, *STUDENT, *TEACHER)
    assert Teacher.of(teacher, FINDINGS, None) is teacher


def test_a_model_that_came_from_nowhere_sees_the_students_pixels(caplog):
    model = classifier(FINDINGS)
    pixels = torch.randn(2, 3, 64, 64)
    found = Teacher.of(model, FINDINGS, None)(pixels)
    torch.testing.assert_close(found, model(pixels).logits)
    assert "it sees the student's pixels unchanged" in caplog.text


def test_anything_but_a_teacher_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"`teacher` must be a Teacher, an image classifier .* got Recorder"):
        Teacher.of(Recorder(FINDINGS), FINDINGS, ClarityImageProcessor())
    with pytest.raises(ValueError, match="must know every finding of the student, got a teacher without"):
        Teacher.of(classifier(FINDINGS[:1]), FINDINGS, ClarityImageProcessor())
    classifier(FINDINGS).save_pretrained(tmp_path)
    ConvNextImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="`processing_class` must be the student's image processor, got NoneType"):
        Teacher.of(ConvNextV2ForImageClassification.from_pretrained(tmp_path), FINDINGS, None)


# Class activation maps


def tiny_efficientnet():
    """timm's EfficientNet for tests under our findings, in evaluation mode."""
    torch.manual_seed(0)
    names = dict(enumerate(FINDINGS[::-1]))
    config = TimmWrapperConfig(architecture="test_efficientnet", num_labels=3, id2label=names)
    return TimmWrapperForImageClassification(config).eval()


def test_the_mean_of_the_class_activation_maps_is_the_logit():
    teacher = Teacher(tiny_efficientnet(), FINDINGS, *STUDENT, *TEACHER, size=(96, 96))
    pixels = normalised(images(64, 64), *STUDENT)
    maps = teacher.activation_maps(pixels)
    assert maps.shape == (2, 3, 3, 3)
    torch.testing.assert_close(maps.mean((2, 3)), teacher(pixels), rtol=1e-4, atol=1e-5)
    assert maps.std((2, 3)).min() > 0


def test_a_teacher_without_class_activation_maps_is_refused():
    with pytest.raises(ValueError, match="must end in a mean over places and a linear layer"):
        Teacher(Recorder(FINDINGS), FINDINGS, *STUDENT, *TEACHER).activation_maps(images())
