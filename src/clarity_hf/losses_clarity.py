# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Losses as pure functions.

Each is the **mean over images of a value per image**. A mean over the valid labels of a batch instead would make eight
steps of one image differ from two of four, and two processes from one.
Labels are 1 present, 0 absent, between them soft, NaN not annotated or uncertain; others are refused, but for those of
a compiled graph, which cannot look at values. A NaN is replaced before the arithmetic, as masking only the loss leaves
a NaN in the gradient. All arithmetic is in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensor


def check_labels(labels: torch.Tensor) -> None:
    """Refuse labels that no loss is defined for.

    Args:
        labels: Any shape: 1 present, 0 absent, a value between them for a soft label, NaN not annotated or uncertain.

    Raises:
        ValueError: A label is outside [0, 1], such as the −1 of CheXpert or the −100 of other libraries.
    """
    _check_range(labels, "labels", "Write what is uncertain or not annotated as NaN.")


def check_prior(prior: torch.Tensor, name: str = "prior") -> None:
    """Refuse a thorax outside [0, 1], such as a mask of 0 and 255.

    Args:
        prior: Any shape, in [0, 1], or NaN where an image has none.
        name: The argument's, for the message.

    Raises:
        ValueError: A value is outside [0, 1].
    """
    _check_range(prior, name, "Divide a mask by its largest value.")


def _check_range(values: torch.Tensor, name: str, remedy: str) -> None:
    if torch.compiler.is_compiling() or isinstance(values, FakeTensor):  # no branch on values that are not there
        return
    outside = (values < 0) | (values > 1)
    if outside.any():
        raise ValueError(f"`{name}` must be in [0, 1] or NaN, got {values[outside][0].item():g}. {remedy}")


def multilabel_classification_loss(
    logits: torch.Tensor, labels: torch.Tensor, positive_weights: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Binary cross-entropy over findings, unannotated labels left out.

    .. math:: L = \frac{1}{BF} \sum_{b,c} [y_{bc} \ne NaN] \;
        \bigl(-w_c \, y_{bc} \log σ(z_{bc}) - (1 - y_{bc}) \log(1 - σ(z_{bc}))\bigr)

    Args:
        logits: `(B, F)`.
        labels: `(B, F)` in [0, 1] or NaN.
        positive_weights: `(F,)` w > 0, how much more a positive counts than a negative; None for 1 everywhere.

    Returns:
        Scalar ≥ 0; 0 with a gradient path for a batch without any annotation.

    Raises:
        ValueError: A label is outside [0, 1].
    """
    check_labels(labels)
    labels = labels.to(device=logits.device, dtype=torch.float32)
    annotated = ~labels.isnan()
    targets = torch.where(annotated, labels, torch.zeros_like(labels))
    weights = None if positive_weights is None else positive_weights.to(logits.device, torch.float32)
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none", pos_weight=weights)
    return torch.where(annotated, losses, torch.zeros_like(losses)).sum(-1).mean() / logits.shape[-1]


def balanced_positive_weights(labels: torch.Tensor, limit: float = 10.0) -> torch.Tensor:
    r"""Weights under which positives and negatives of a finding count alike in its cross-entropy.

    .. math:: w_c = \mathrm{clip}(n^-_c / n^+_c, 1/limit, limit)

    They improve no ranking by themselves and move all scores upwards: thresholds and calibration have to follow.

    Args:
        labels: `(n, F)`, 1 present, 0 absent, NaN not annotated, of the training images.
        limit: Largest weight, ≥ 1; the rarest findings would otherwise outweigh all others.

    Returns:
        `(F,)` float32; 1 for a finding without positives or without negatives.

    Raises:
        ValueError: `limit` is below 1, or a label is outside [0, 1].
    """
    check_labels(labels)
    if not limit >= 1:
        raise ValueError(f"`limit` must be at least 1, got {limit}. 1 weighs nothing.")
    positives, negatives = (labels == 1).sum(0), (labels == 0).sum(0)
    ratio = negatives / positives.clamp_min(1)
    known = (positives > 0) & (negatives > 0)
    return torch.where(known, ratio.clamp(1 / limit, limit), torch.ones_like(ratio))


def distillation_loss(
    logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float = 1.0,
    left_out: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Match a teacher's probabilities, finding by finding (softmax forms do not fit several labels at once).

    .. math:: L = \frac{τ^2}{BF} \sum_{b,c} BCE(z_{bc}/τ, σ(z^t_{bc}/τ))

    The teacher speaks on unannotated findings too. The minimum is the teacher's entropy, not 0.

    Args:
        logits: `(B, F)` of the student.
        teacher_logits: `(B, F)` of the teacher, treated as constants.
        temperature: τ > 0.
        left_out: `(B,)` bool, images that count 0; None for none.

    Returns:
        Scalar ≥ 0.

    Raises:
        ValueError: `temperature` is not above 0 and finite.

    Source: Hinton et al., arXiv 1503.02531, with sigmoids in place of the softmax.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"`temperature` must be above 0 and finite, got {temperature}. 1 softens nothing.")
    targets = torch.sigmoid(teacher_logits.detach().float() / temperature)
    losses = F.binary_cross_entropy_with_logits(logits.float() / temperature, targets, reduction="none")
    return without(losses.mean(-1), left_out).mean() * temperature**2


def without(values: torch.Tensor, left_out: torch.Tensor | None) -> torch.Tensor:
    """Values `(B,)` of images, 0 for those that are left out by `(B,)` bool; None leaves out none."""
    return values if left_out is None else torch.where(left_out, torch.zeros_like(values), values)


def orthogonality_loss(class_tokens: torch.Tensor) -> torch.Tensor:
    r"""Keep the class tokens apart.

    .. math:: L_{orth} = \frac{1}{B F (F-1)} \sum_b \sum_{c \ne c'} \cos^2(t_{bc}, t_{bc'})

    Args:
        class_tokens: `(B, F, D)`.

    Returns:
        Scalar in [0, 1]: 0 for orthogonal tokens and for a single finding, 1 for parallel ones.
    """
    num_findings = class_tokens.shape[1]
    if num_findings == 1:
        return class_tokens.float().sum() * 0.0
    with torch.autocast(class_tokens.device.type, enabled=False):  # autocast would multiply in half precision
        unit = F.normalize(class_tokens.float(), dim=-1)
        cosines = unit @ unit.transpose(1, 2)
    apart = 1.0 - torch.eye(num_findings, device=cosines.device)
    return (cosines.square() * apart).sum((1, 2)).mean() / (num_findings * (num_findings - 1))


def foreground_loss(foreground_logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    r"""Teach the foreground the anatomical prior A: weighted cross-entropy plus soft Dice.

    .. math:: L_{seg} = \frac{1}{N} \sum_p |2A_p - 1| \, BCE(s_p, A_p)
        + 1 - \frac{2 \sum_p S_p A_p}{\sum_p S_p^2 + \sum_p A_p^2}, \quad S = σ(s)

    The weight leaves the uncertain band of a soft prior free; the squared denominators (V-Net, arXiv 1606.04797) make
    Dice 0 at S = A for soft priors too.

    Args:
        foreground_logits: `(B, 1, h, w)`.
        prior: `(B, 1, h, w)` in [0, 1], or NaN throughout an image that has none.

    Returns:
        Scalar ≥ 0, images without a prior counting 0.

    Raises:
        ValueError: A value of the prior is outside [0, 1].
    """
    check_prior(prior)
    logits = foreground_logits.float().flatten(1)
    prior = prior.to(logits).flatten(1)
    known = ~prior.isnan().any(1)
    prior = torch.where(known[:, None], prior, torch.zeros_like(prior))
    entropy = F.binary_cross_entropy_with_logits(logits, prior, reduction="none")
    entropy = ((2 * prior - 1).abs() * entropy).mean(1)
    foreground = logits.sigmoid()
    overlap = 2 * (foreground * prior).sum(1)
    dice = 1 - overlap / (foreground.square().sum(1) + prior.square().sum(1)).clamp_min(1e-6)
    return torch.where(known, entropy + dice, torch.zeros_like(dice)).mean()


def background_loss(maps: torch.Tensor, prior: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    r"""Charge what the maps of present findings have outside the thorax: their class attention, their evidence.

    .. math:: L_{bg} = \frac{1}{B} \sum_b \frac{1}{\max(1, n_b)} \sum_{c: y_{bc} = 1} \sum_p m̃_{bcp} (1 - A_{bp})

    with m̃ a map normalised over the patches and n_b the number of present findings.

    Args:
        maps: `(B, F, h, w)` values ≥ 0.
        prior: `(B, 1, h, w)` in [0, 1], or NaN throughout an image that has none.
        labels: `(B, F)`, 1 present, others ignored.

    Returns:
        Scalar in [0, 1]; images without a prior or a present finding count 0.

    Raises:
        ValueError: A label, or a value of the prior, is outside [0, 1].
    """
    check_labels(labels)
    check_prior(prior)
    shares = maps.float().flatten(2)
    shares = shares / shares.sum(-1, keepdim=True).clamp_min(1e-12)
    prior = prior.to(shares).flatten(2)
    known = ~prior.isnan().any(-1)
    outside = torch.where(known[..., None], 1 - prior, torch.zeros_like(prior))
    present = (labels.to(shares) == 1).float()
    charge = (shares * outside).sum(-1) * present
    return (charge.sum(-1) / present.sum(-1).clamp_min(1)).mean()


def evidence_loss(activation_maps: torch.Tensor, class_attention: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    r"""Teach evidence and attention of findings whose place is known to the patch, such as those drawn by a painter.

    .. math:: L_{ev} = \frac{1}{B} \sum_b \frac{1}{\max(1, n_b)} \sum_{c: m_{bc} \ne 0} \Bigl(
        \frac{\sum_p m_{bcp} \log(1 + e^{-P_{bcp}})}{2 \sum_p m_{bcp}}
        + \frac{\sum_p (1 - m_{bcp}) \log(1 + e^{P_{bcp}})}{2 \sum_p (1 - m_{bcp})}
        + \sum_p ã_{bcp} [m_{bcp} = 0] \Bigr)

    Inside and outside count alike, however small a finding is: P above 0 inside, below 0 outside, and the attention ã,
    normalised over the patches, on patches that touch the finding.

    Args:
        activation_maps: P `(B, F, h, w)`.
        class_attention: a `(B, F, h, w)` values ≥ 0.
        masks: m `(B, F, h, w)`, share of each patch that a finding covers, in [0, 1]; 0 throughout a finding whose
            place is not known.

    Returns:
        Scalar ≥ 0; images without a known place count 0.
    """
    evidence, inside = activation_maps.float().flatten(2), masks.float().flatten(2)
    attention = class_attention.float().flatten(2)
    attention = attention / attention.sum(-1, keepdim=True).clamp_min(1e-12)
    outside = 1 - inside
    missed = (inside * F.softplus(-evidence)).sum(-1) / inside.sum(-1).clamp_min(1e-6)
    false = (outside * F.softplus(evidence)).sum(-1) / outside.sum(-1).clamp_min(1e-6)
    astray = (attention * (inside == 0)).sum(-1)
    known = inside.amax(-1) > 0
    charges = torch.where(known, (missed + false) / 2 + astray, torch.zeros_like(missed))
    return (charges.sum(-1) / known.sum(-1).clamp_min(1)).mean()


def map_distillation_loss(
    activation_maps: torch.Tensor, teacher_maps: torch.Tensor, left_out: torch.Tensor | None = None
) -> torch.Tensor:
    r"""Match where a teacher's class activation maps are high inside an image, whatever their scale.

    .. math:: L_{map} = \frac{1}{BF} \sum_{b,c} \bigl(1 - \mathrm{corr}_p(P_{bcp}, P^t_{bcp})\bigr)

    with the Pearson correlation over the patches of the coarser of the two grids. Levels are left to the logits.

    Args:
        activation_maps: P `(B, F, h, w)` of the student.
        teacher_maps: `(B, F, h', w')` of the teacher, treated as constants.
        left_out: `(B,)` bool, images that count 0; None for none.

    Returns:
        Scalar in [0, 2].

    Source: the correlation of DIST (Huang et al., arXiv 2205.10536), over places instead of classes; class activation
    maps as a teacher's knowledge as in CAT-KD (Guo et al., CVPR 2023).
    """
    grid = tuple(min(axis) for axis in zip(activation_maps.shape[-2:], teacher_maps.shape[-2:], strict=True))
    student, teacher = (
        F.adaptive_avg_pool2d(maps.float(), grid).flatten(2)  # type: ignore[arg-type]
        for maps in (activation_maps, teacher_maps.detach())
    )
    student, teacher = (
        F.normalize(maps - maps.mean(-1, keepdim=True), dim=-1, eps=1e-6) for maps in (student, teacher)
    )
    return without((1 - (student * teacher).sum(-1)).mean(-1), left_out).mean()


__all__ = [
    "background_loss",
    "balanced_positive_weights",
    "check_labels",
    "check_prior",
    "distillation_loss",
    "evidence_loss",
    "foreground_loss",
    "map_distillation_loss",
    "multilabel_classification_loss",
    "orthogonality_loss",
]
