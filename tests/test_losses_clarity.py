# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch

from clarity_hf.losses_clarity import (
    background_loss,
    balanced_positive_weights,
    check_labels,
    check_prior,
    distillation_loss,
    evidence_loss,
    foreground_loss,
    map_distillation_loss,
    multilabel_classification_loss,
    orthogonality_loss,
)

NAN = math.nan


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def cross_entropy(logit: float, target: float) -> float:
    return -target * math.log(sigmoid(logit)) - (1 - target) * math.log(1 - sigmoid(logit))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels_with_gaps(*shape: int, seed: int = 0) -> torch.Tensor:
    """A third each of 0, 1 and NaN; the first row has no annotation at all."""
    labels = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).float()
    labels[labels == 2] = NAN
    labels[0] = NAN
    return labels


# Classification ------------------------------------------------------------------------------------------------------


def test_classification_is_the_sum_over_annotated_findings_divided_by_all_findings_and_images():
    logits = torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.5, 3.0]])
    labels = torch.tensor([[1.0, NAN, 0.0], [0.25, 1.0, NAN]])
    first = cross_entropy(0.0, 1) + cross_entropy(-1.0, 0)
    second = cross_entropy(1.0, 0.25) + cross_entropy(0.5, 1)
    loss = multilabel_classification_loss(logits, labels)
    assert loss.item() == pytest.approx((first / 3 + second / 3) / 2, abs=1e-6)


def test_the_gradient_with_a_nan_label_is_that_of_leaving_the_label_out():
    logits, labels = random(4, 5), labels_with_gaps(4, 5)
    with_nan = logits.clone().requires_grad_()
    multilabel_classification_loss(with_nan, labels).backward()
    without = logits.clone().requires_grad_()
    kept = ~labels.isnan()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(without[kept], labels[kept], reduction="sum")
    (losses / labels.numel()).backward()
    assert with_nan.grad.isfinite().all()
    assert (with_nan.grad[~kept] == 0).all()
    torch.testing.assert_close(with_nan.grad, without.grad)


def test_a_batch_without_any_annotation_costs_nothing_and_can_be_trained_on():
    logits = random(3, 4).requires_grad_()
    loss = multilabel_classification_loss(logits, torch.full((3, 4), NAN))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_extreme_logits_have_a_finite_loss_and_gradient():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = multilabel_classification_loss(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad.isfinite().all()


def test_positive_weights_multiply_the_positives_alone():
    logits = torch.tensor([[0.5, -1.0, 2.0]])
    labels = torch.tensor([[1.0, 0.0, NAN]])
    loss = multilabel_classification_loss(logits, labels, torch.tensor([3.0, 5.0, 7.0]))
    assert loss.item() == pytest.approx((3 * cross_entropy(0.5, 1) + cross_entropy(-1.0, 0)) / 3, abs=1e-6)


def test_positive_weights_of_one_change_nothing():
    logits, labels = random(4, 5), labels_with_gaps(4, 5)
    weighted = multilabel_classification_loss(logits, labels, torch.ones(5))
    assert weighted.item() == pytest.approx(multilabel_classification_loss(logits, labels).item(), abs=1e-7)


def test_balanced_weights_make_both_classes_count_alike():
    labels = torch.tensor([[1, 1, 0, NAN], [0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [NAN, 0, 0, 0]])
    # 3 negatives to 1 positive; 2 to 3; no positive; 3 to 1.
    torch.testing.assert_close(balanced_positive_weights(labels), torch.tensor([3.0, 2 / 3, 1.0, 3.0]))
    torch.testing.assert_close(balanced_positive_weights(labels, limit=2.0), torch.tensor([2.0, 2 / 3, 1.0, 2.0]))
    # At logit 0 both sides of a balanced finding pull alike: the gradient vanishes.
    logits = torch.zeros(5, 4, requires_grad=True)
    multilabel_classification_loss(logits, labels, balanced_positive_weights(labels)).backward()
    torch.testing.assert_close(logits.grad.sum(0)[[0, 1, 3]], torch.zeros(3), rtol=0, atol=1e-7)


def test_balanced_weights_refuse_a_limit_below_one():
    with pytest.raises(ValueError, match=r"`limit` must be at least 1, got 0\.5"):
        balanced_positive_weights(torch.ones(2, 2), limit=0.5)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64])
def test_labels_of_any_dtype_are_understood(dtype):
    logits, labels = random(2, 3), torch.tensor([[1, 0, 1], [0, 0, 1]])
    expected = multilabel_classification_loss(logits, labels.float())
    assert multilabel_classification_loss(logits, labels.to(dtype)) == expected


# Distillation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_distillation_is_the_cross_entropy_of_softened_probabilities_times_the_squared_temperature(temperature):
    student, teacher = torch.tensor([[2.0, -1.0]]), torch.tensor([[-2.0, 3.0]])
    expected = sum(cross_entropy(z / temperature, sigmoid(t / temperature)) for z, t in ((2.0, -2.0), (-1.0, 3.0)))
    loss = distillation_loss(student, teacher, temperature)
    assert loss.item() == pytest.approx(temperature**2 * expected / 2, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_least_distillation_is_the_entropy_of_the_teacher(temperature):
    teacher = random(4, 5) * 2
    p = torch.sigmoid(teacher / temperature)
    entropy = temperature**2 * -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    student = teacher.clone().requires_grad_()
    loss = distillation_loss(student, teacher, temperature)
    loss.backward()
    torch.testing.assert_close(loss.detach(), entropy)
    assert student.grad.abs().max() < 1e-7
    assert distillation_loss(teacher + 0.1, teacher, temperature) > loss
    assert distillation_loss(teacher - 0.1, teacher, temperature) > loss


def test_distillation_sends_no_gradient_to_the_teacher():
    teacher = random(2, 3).requires_grad_()
    distillation_loss(random(2, 3, seed=1).requires_grad_(), teacher).backward()
    assert teacher.grad is None


def test_gradients_of_distillation_keep_their_scale_over_temperatures():
    student, teacher = torch.full((1, 1), 0.1), torch.zeros(1, 1)
    gradients = []
    for temperature in (1.0, 8.0):
        logits = student.clone().requires_grad_()
        distillation_loss(logits, teacher, temperature).backward()
        gradients.append(logits.grad.item())
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-2)


# Orthogonality -------------------------------------------------------------------------------------------------------


def test_orthogonality_is_the_mean_squared_cosine_between_findings():
    tokens = torch.tensor([[[1.0, 0.0], [3.0, 3.0]], [[0.0, 2.0], [5.0, 0.0]]])
    assert orthogonality_loss(tokens).item() == pytest.approx((0.5 + 0.0) / 2)
    three = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]])
    assert orthogonality_loss(three).item() == pytest.approx(2 / 6)


def test_orthogonality_is_zero_for_orthogonal_and_one_for_parallel_tokens():
    assert orthogonality_loss(torch.eye(4)[None]).item() == 0
    assert orthogonality_loss(torch.ones(2, 3, 8)).item() == pytest.approx(1, abs=1e-6)


def test_a_single_finding_is_orthogonal_to_nothing_and_keeps_a_gradient_path():
    tokens = random(2, 1, 8).requires_grad_()
    loss = orthogonality_loss(tokens)
    loss.backward()
    assert loss.item() == 0
    assert (tokens.grad == 0).all()


# Foreground ----------------------------------------------------------------------------------------------------------


def test_the_foreground_loss_is_weighted_cross_entropy_plus_dice():
    logits, prior = [0.0, 1.0, -2.0, 0.5], [1.0, 0.8, 0.0, 0.5]
    entropy = sum(abs(2 * a - 1) * cross_entropy(s, a) for s, a in zip(logits, prior, strict=True)) / 4
    area = [sigmoid(s) for s in logits]
    overlap = 2 * sum(s * a for s, a in zip(area, prior, strict=True))
    dice = 1 - overlap / (sum(s * s for s in area) + sum(a * a for a in prior))
    loss = foreground_loss(torch.tensor(logits).view(1, 1, 2, 2), torch.tensor(prior).view(1, 1, 2, 2))
    assert loss.item() == pytest.approx(entropy + dice, abs=1e-6)


def test_the_foreground_loss_vanishes_where_the_foreground_is_a_binary_prior():
    prior = (random(2, 1, 6, 6) > 0).float()
    assert foreground_loss((2 * prior - 1) * 50, prior).item() == pytest.approx(0, abs=1e-6)


def test_dice_vanishes_where_the_foreground_is_a_soft_prior():
    prior = torch.rand(2, 1, 5, 4, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    entropy = -(prior * prior.log() + (1 - prior) * (1 - prior).log())
    entropy = ((2 * prior - 1).abs() * entropy).flatten(1).mean(1).mean()
    torch.testing.assert_close(foreground_loss(prior.logit(), prior), entropy)


def test_an_undecided_prior_leaves_the_cross_entropy_free():
    half = torch.full((1, 1, 4, 4), 0.5)
    assert foreground_loss(torch.zeros(1, 1, 4, 4), half).item() == pytest.approx(0, abs=1e-6)


def test_an_empty_prior_has_a_finite_gradient():
    logits = torch.full((1, 1, 4, 4), -200.0, requires_grad=True)  # the foreground underflows to zero
    loss = foreground_loss(logits, torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_an_image_without_prior_adds_nothing_to_the_foreground_loss():
    logits, prior = random(2, 1, 4, 4).requires_grad_(), torch.ones(2, 1, 4, 4)
    prior[1] = NAN
    loss = foreground_loss(logits, prior)
    loss.backward()
    torch.testing.assert_close(loss, foreground_loss(logits[:1], prior[:1]) / 2)
    assert (logits.grad[1] == 0).all()
    assert logits.grad[0].abs().sum() > 0


# Background ----------------------------------------------------------------------------------------------------------


def attention_in(columns: slice) -> torch.Tensor:
    attention = torch.zeros(1, 2, 4, 4)
    attention[..., columns] = 0.03
    return attention


PRIOR = torch.tensor([0.0, 1.0, 1.0, 0.0]).expand(1, 1, 4, 4)


def test_attention_inside_the_prior_is_free_and_outside_costs_one():
    labels = torch.ones(1, 2)
    assert background_loss(attention_in(slice(1, 3)), PRIOR, labels).item() == 0
    assert background_loss(attention_in(slice(3, 4)), PRIOR, labels).item() == pytest.approx(1)
    assert background_loss(attention_in(slice(2, 4)), PRIOR, labels).item() == pytest.approx(0.5)


def test_only_present_findings_are_charged_and_averaged_within_an_image():
    attention = torch.cat((attention_in(slice(1, 3))[:, :1], attention_in(slice(3, 4))), dim=1)  # inside, out, out
    for labels, expected in (
        ([1, 1, 1], 2 / 3),
        ([1, 1, 0], 1 / 2),
        ([0, 1, NAN], 1),
        ([1, NAN, 0], 0),
        ([0, 0, 0], 0),
        ([NAN, NAN, NAN], 0),
    ):
        loss = background_loss(attention, PRIOR, torch.tensor([labels]))
        assert loss.item() == pytest.approx(expected), labels


def test_an_image_without_prior_adds_nothing_to_the_background_loss():
    attention = attention_in(slice(3, 4)).repeat(2, 1, 1, 1).requires_grad_()
    prior = PRIOR.repeat(2, 1, 1, 1)
    prior[1] = NAN
    loss = background_loss(attention, prior, torch.ones(2, 2))
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert attention.grad.isfinite().all()
    assert (attention.grad[1] == 0).all()


def test_the_background_loss_asks_for_the_place_of_attention_not_its_amount():
    labels = torch.ones(1, 2)
    attention = random(1, 2, 4, 4).abs()
    torch.testing.assert_close(
        background_loss(attention, PRIOR, labels), background_loss(attention * 7, PRIOR, labels)
    )


# Evidence ------------------------------------------------------------------------------------------------------------


def test_evidence_inside_and_outside_a_known_place_and_attention_astray_are_charged():
    """Four patches, the finding covers the first whole and half of the second; by hand."""
    evidence = torch.tensor([2.0, -1.0, 0.5, -3.0]).view(1, 1, 2, 2)
    attention = torch.tensor([0.1, 0.2, 0.3, 0.2]).view(1, 1, 2, 2)
    masks = torch.tensor([1.0, 0.5, 0.0, 0.0]).view(1, 1, 2, 2)
    inside = (cross_entropy(2.0, 1) + 0.5 * cross_entropy(-1.0, 1)) / 1.5
    outside = (0.5 * cross_entropy(-1.0, 0) + cross_entropy(0.5, 0) + cross_entropy(-3.0, 0)) / 2.5
    loss = evidence_loss(evidence, attention, masks)
    assert loss.item() == pytest.approx((inside + outside) / 2 + 0.5 / 0.8, rel=1e-5)


def test_findings_whose_place_is_not_known_are_not_charged():
    evidence, attention = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1).exp()
    masks = torch.zeros(2, 3, 4, 4)
    masks[0, 1, 1:3, 1:3] = 1
    evidence.requires_grad_()
    loss = evidence_loss(evidence, attention, masks)
    loss.backward()
    assert evidence.grad[0, 1].abs().min() > 0
    evidence.grad[0, 1] = 0
    assert evidence.grad.abs().max() == 0
    alone = evidence_loss(evidence[:1, 1:2], attention[:1, 1:2], masks[:1, 1:2])
    torch.testing.assert_close(loss, alone / 2)  # the mean over the two images


def test_evidence_without_any_known_place_costs_nothing_and_keeps_the_graph():
    evidence = random(2, 3, 4, 4).requires_grad_()
    loss = evidence_loss(evidence, torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert evidence.grad.abs().max() == 0


# Maps of a teacher ---------------------------------------------------------------------------------------------------


def test_maps_are_compared_by_their_correlation_over_places():
    """corr((1, 2, 3, 4), (1, 3, 2, 4)) = 0.8, whatever scale and level."""
    student = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2)
    teacher = torch.tensor([1.0, 3.0, 2.0, 4.0]).view(1, 1, 2, 2)
    assert map_distillation_loss(student, teacher).item() == pytest.approx(0.2, abs=1e-6)
    assert map_distillation_loss(5 * student - 7, 0.1 * teacher + 3).item() == pytest.approx(0.2, abs=1e-5)
    assert map_distillation_loss(student, -student).item() == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(("fine", "coarse"), [("student", "teacher"), ("teacher", "student")])
def test_maps_are_compared_on_the_coarser_grid(fine, coarse):
    maps = {coarse: random(2, 3, 2, 2)}
    maps[fine] = maps[coarse].repeat_interleave(2, -1).repeat_interleave(2, -2)
    maps[fine] = maps[fine] + torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)  # 0 over each block
    assert map_distillation_loss(maps["student"], maps["teacher"]).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("loss", "shape"), [(map_distillation_loss, (4, 3, 4, 4)), (distillation_loss, (4, 3))], ids=["map", "logits"]
)
def test_images_left_out_count_nothing(loss, shape):
    student, teacher = random(*shape), random(*shape, seed=1)
    left_out = torch.tensor([True, False, False, True])
    rest = loss(student[1:3], teacher[1:3])
    torch.testing.assert_close(loss(student, teacher, left_out=left_out), rest / 2)


def test_flat_maps_have_no_correlation_and_a_finite_gradient():
    student = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = map_distillation_loss(student, random(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == 1
    assert student.grad.isfinite().all()


# All -----------------------------------------------------------------------------------------------------------------


def every_loss(images: slice) -> dict[str, torch.Tensor]:
    """Each loss on some of eight images with gaps in the labels, the fourth and fifth without prior."""
    labels = labels_with_gaps(8, 5)
    labels[2] = 1
    prior = torch.rand(8, 1, 4, 6, generator=torch.Generator().manual_seed(3))
    prior[3:5] = NAN
    masks = (labels == 1)[..., None, None] * torch.rand(8, 5, 4, 6, generator=torch.Generator().manual_seed(4))
    return {
        "classification": multilabel_classification_loss(random(8, 5)[images], labels[images]),
        "distillation": distillation_loss(random(8, 5)[images], random(8, 5, seed=1)[images], 2.0),
        "orthogonality": orthogonality_loss(random(8, 5, 7)[images]),
        "foreground": foreground_loss(random(8, 1, 4, 6)[images], prior[images]),
        "background": background_loss(random(8, 5, 4, 6).exp()[images], prior[images], labels[images]),
        "evidence": evidence_loss(random(8, 5, 4, 6)[images], random(8, 5, 4, 6).exp()[images], masks[images]),
        "map": map_distillation_loss(random(8, 5, 4, 6)[images], random(8, 5, 2, 3, seed=1)[images]),
    }


@pytest.mark.parametrize("name", list(every_loss(slice(0, 1))))
def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_images(name):
    whole = every_loss(slice(None))[name]
    single = torch.stack([every_loss(slice(i, i + 1))[name] for i in range(8)]).mean()
    halves = torch.stack([every_loss(slice(0, 4))[name], every_loss(slice(4, 8))[name]]).mean()
    torch.testing.assert_close(whole, single)
    torch.testing.assert_close(whole, halves)
    assert whole > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_inputs_of_half_precision_are_computed_in_float32(dtype):
    logits, teacher, labels = random(3, 5).to(dtype), random(3, 5, seed=1).to(dtype), labels_with_gaps(3, 5)
    tokens, patches = random(3, 5, 32).to(dtype), random(3, 1, 8, 8).to(dtype)
    attention, prior = (random(3, 5, 8, 8).exp() / 400).to(dtype), torch.rand(3, 1, 8, 8).to(dtype)
    for loss, inputs in (
        (multilabel_classification_loss, (logits, labels)),
        (distillation_loss, (logits, teacher)),
        (orthogonality_loss, (tokens,)),
        (foreground_loss, (patches, prior)),
        (background_loss, (attention, prior, labels)),
        (evidence_loss, (random(3, 5, 8, 8).to(dtype), attention, (random(3, 5, 8, 8) > 0).to(dtype))),
        (map_distillation_loss, (attention, random(3, 5, 4, 4).to(dtype))),
    ):
        half = loss(*inputs)
        assert half.dtype == torch.float32, loss.__name__
        torch.testing.assert_close(half, loss(*(tensor.float() for tensor in inputs)))


@pytest.mark.parametrize("label", [-1, -100, 2, -1.0, 2.0, math.inf, -math.inf, -0.01])
def test_labels_outside_0_and_1_are_refused_naming_nan(label):
    labels = torch.tensor([[1, 0, label]])
    maps, prior = torch.ones(1, 3, 2, 2), torch.ones(1, 1, 2, 2)
    for loss in (
        lambda: check_labels(labels),
        lambda: multilabel_classification_loss(torch.zeros(1, 3), labels),
        lambda: background_loss(maps, prior, labels),
        lambda: balanced_positive_weights(labels),
    ):
        with pytest.raises(ValueError, match=rf"`labels` must be in \[0, 1\] or NaN, got {label:g}. .* as NaN"):
            loss()


@pytest.mark.parametrize("labels", [[[1, 0, 1]], [[True, False, True]], [[0.25, NAN, 1.0]]], ids=str)
def test_whole_boolean_soft_and_missing_labels_are_taken(labels):
    assert multilabel_classification_loss(torch.zeros(1, 3), torch.tensor(labels)) > 0


def test_a_soft_label_is_a_target_between():
    loss = multilabel_classification_loss(torch.tensor([[0.7]]), torch.tensor([[0.25]]))
    assert loss.item() == pytest.approx(cross_entropy(0.7, 0.25), abs=1e-6)


@pytest.mark.parametrize("value", [255.0, -1.0, math.inf])
def test_a_prior_outside_0_and_1_is_refused(value):
    prior = torch.full((1, 1, 2, 2), value)
    for loss in (
        lambda: check_prior(prior),
        lambda: foreground_loss(torch.zeros(1, 1, 2, 2), prior),
        lambda: background_loss(torch.ones(1, 3, 2, 2), prior, torch.ones(1, 3)),
    ):
        with pytest.raises(ValueError, match=rf"`prior` must be in \[0, 1\] or NaN, got {value:g}. Divide a mask"):
            loss()


@pytest.mark.parametrize("temperature", [0, -1, NAN, math.inf])
def test_a_temperature_must_be_above_0(temperature):
    with pytest.raises(ValueError, match="`temperature` must be above 0 and finite"):
        distillation_loss(torch.zeros(1, 3), torch.zeros(1, 3), temperature)
