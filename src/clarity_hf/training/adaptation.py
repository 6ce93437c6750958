# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Adapting a CLARiTy model to other findings: known findings are kept by name, new ones are initialised.

Class tokens, heads and config values have a row per finding; all other weights are shared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from clarity_hf.configuration_clarity import PER_FINDING_FIELDS, ClarityConfig
from clarity_hf.modeling_clarity import ClarityPreTrainedModel

PreTrained = TypeVar("PreTrained", bound=ClarityPreTrainedModel)

PER_FINDING_WEIGHTS = {
    "embeddings.class_tokens": 1,
    "embeddings.class_positions": 1,
    "class_token_head.weight": 0,
    "class_token_head.bias": 0,
    "segment_cam.cam.weight": 0,
    "ranking_pooling.bias": 0,
}
"""Weights with a row per finding, and the axis of the findings."""


@dataclass
class AdaptationReport:
    """Findings that were `kept` or `dropped` and `new` ones; kept and new ones are in the new order."""

    kept: list[str]
    new: list[str]
    dropped: list[str]

    def __str__(self) -> str:
        parts = (("kept", self.kept), ("new", self.new), ("dropped", self.dropped))
        return "Findings: " + "; ".join(f"{len(names)} {word}{listed(names)}" for word, names in parts)


@torch.no_grad()
def adapt_findings(
    model: PreTrained,
    findings: Sequence[str],
    class_token_noise: float = 0.02,
    generator: torch.Generator | None = None,
) -> tuple[PreTrained, AdaptationReport]:
    """A copy of a model for other findings, which keeps what it knows.

    Encoder, SegmentCAM's trunk and the foreground are copied, and so are rows and config values of common findings.
    All patches attend to every class token, so a change of the set of findings invalidates the calibration of all: it
    is dropped, which is logged.

    A new finding's class token is the mean of the model's tokens plus noise, which the blocks can process. Its head
    has the usual initialisation with its prevalence as bias, because a mean of heads would be evidence for no finding
    in particular. Its config values are the defaults.

    Args:
        model: Not changed.
        findings: Names in the order of the new logits, at least one, each once.
        class_token_noise: Standard deviation of the noise on new class tokens and positions, at least 0.
        generator: Source of noise and of new heads, on the CPU; by default one with seed 0. Global random state is not
            changed.

    Returns:
        The new model, of the same class, dtype, device and mode, and an [`AdaptationReport`]. The same findings in
        another order give the same outputs in that order.

    Raises:
        TypeError: `findings` is a string.
        ValueError: `findings` is empty or has duplicates, or the noise is below 0.
    """
    findings = _checked_findings(findings)
    noise = TokenNoise(class_token_noise, generator)
    config = copy.deepcopy(model.config)
    if set(findings) != set(config.findings):
        config.drop_calibration("the findings are not those that they were fitted to")
    _set_findings(config, findings)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(noise.seed())
        adapted = type(model)(config)
    adapted = adapted.to(device=model.device, dtype=model.dtype)
    own, known = state_by_short_name(adapted), model.config.findings
    for name, tensor in rows_by_finding(state_by_short_name(model), known, findings, own, noise).items():
        own[name].copy_(tensor)
    config.calibration_fingerprint = None  # the calibration of the same findings in another order still holds
    adapted.train(model.training)
    return adapted, match_findings(known, findings)


def state_by_short_name(model: nn.Module) -> dict[str, torch.Tensor]:
    """A CLARiTy's weights, sharing memory with it, by names that are the same with and without heads."""
    return {name.removeprefix("clarity."): tensor for name, tensor in model.state_dict().items()}


class TokenNoise:
    """Gaussian noise of standard deviation `std` for class tokens and positions.

    `generator` is by default one with seed 0, on the CPU. Raises ValueError if `std` is below 0 or not finite.
    """

    def __init__(self, std: float, generator: torch.Generator | None):
        if not 0 <= std < math.inf:
            raise ValueError(f"`class_token_noise` must be at least 0, got {std}. 0.02 is the default.")
        self.std = std
        self.generator = generator if generator is not None else torch.Generator().manual_seed(0)

    def add_to(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, of any shape, plus noise."""
        noise = torch.randn(tensor.shape, generator=self.generator, device=self.generator.device)
        return tensor + self.std * noise.to(tensor)

    def seed(self) -> int:
        """A seed for code that does not take a generator."""
        device = self.generator.device
        return int(torch.randint(2**62, (), generator=self.generator, device=device).item())


def rows_by_finding(
    state: Mapping[str, torch.Tensor],
    known: Sequence[str],
    findings: Sequence[str],
    own: Mapping[str, torch.Tensor],
    noise: TokenNoise,
) -> dict[str, torch.Tensor]:
    """A state dict for other findings: rows of known ones by name, new tokens from the noisy mean, new heads from
    `own`.

    Args:
        state, known: Weights by the names of [`state_by_short_name`], with a row for each known finding.
        findings: Findings of the result, in its order.
        own: Weights of the target model, with a row for each of `findings`.
        noise: For the tokens of new findings.
    """
    rows = [known.index(finding) if finding in known else None for finding in findings]
    adapted = dict(state)
    for name, axis in PER_FINDING_WEIGHTS.items():
        if name not in state or name not in own:
            continue
        stored = state[name].detach().movedim(axis, 0)
        if name.startswith("embeddings."):
            fresh = noise.add_to(stored.mean(0).expand(len(findings), *stored.shape[1:]))
        else:
            fresh = own[name].movedim(axis, 0).to(stored)
        if fresh.shape[1:] == stored.shape[1:]:  # otherwise the head has another width and is not used
            chosen = [fresh[i] if row is None else stored[row] for i, row in enumerate(rows)]
            adapted[name] = torch.stack(chosen).movedim(0, axis)
    return adapted


def match_findings(known: Sequence[str], findings: Sequence[str]) -> AdaptationReport:
    """Which findings are kept, new and dropped when `known` become `findings`, matched by name."""
    return AdaptationReport(
        kept=[finding for finding in findings if finding in known],
        new=[finding for finding in findings if finding not in known],
        dropped=[finding for finding in known if finding not in findings],
    )


def _checked_findings(findings: Sequence[str]) -> list[str]:
    if isinstance(findings, str):
        raise TypeError(f"`findings` must be a list of names, got the string {findings!r}. Put it in a list.")
    findings = list(findings)
    if not findings or len(set(findings)) < len(findings):
        raise ValueError(f"`findings` must be names, at least one and each once, got {findings}. Correct the list.")
    return findings


def _set_findings(config: ClarityConfig, findings: list[str]) -> None:
    """Set a config's findings; values per finding are kept by name, and new findings get the defaults."""
    lists = {
        name: config.per_finding(name)
        for name in PER_FINDING_FIELDS
        if isinstance(getattr(config, name), list | tuple)
    }
    known = config.findings
    defaults = ClarityConfig(id2label=dict(enumerate(findings)))
    config.id2label = dict(enumerate(findings))
    config.label2id = {finding: i for i, finding in enumerate(findings)}
    for name, values in lists.items():
        stored = dict(zip(known, values, strict=True))
        fresh = zip(findings, defaults.per_finding(name), strict=True)
        setattr(config, name, [stored.get(finding, default) for finding, default in fresh])
    config.validate_architecture()


def listed(names: Sequence[str]) -> str:
    """The first six names in parentheses after a space, for a message; an empty string without names."""
    more = f", … {len(names) - 6} more" if len(names) > 6 else ""
    return f" ({', '.join(names[:6])}{more})" if names else ""
