# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""The records of one method and how they are evaluated, for the tables, figures and cases of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from clarity_hf.data.named_splits import named_split
from clarity_hf.metrics.bootstrap import Interval
from clarity_hf.metrics.classification import support
from clarity_hf.metrics.localization import BoxSettings
from clarity_hf.metrics.records import ImageRecord
from clarity_hf.metrics.splits import halves_by_patient, split_by_patients

from .schema import Cell, Row


@dataclass(frozen=True)
class Evaluated:
    """Records of one method, those of other methods to compare it with, and how they are evaluated.

    Attributes:
        records: One per image.
        findings: The F names.
        score_thresholds: `(F,)` in [0, 1], chosen on other images: a finding is present from its threshold.
        min_positives: Findings with fewer positives are listed but not in a mean.
        repeats: Number of samples of every bootstrap by patient.
        seed: Seed of every bootstrap and split.
        tuning_split: Name of the committed list of patients, such as `nih-boxes-tuning-0`, on whom map thresholds and
            fixed boxes are chosen, see [`named_split`]; None takes a random half of the patients with boxes.
        box_settings: How the method predicts boxes from a map, for the rival that predicts them from the mean map;
            None leaves that rival out.
        name: Name of the method in tables.
        baselines: Records of other methods by name, of the same images in the same order.
    """

    records: Sequence[ImageRecord]
    findings: tuple[str, ...]
    score_thresholds: np.ndarray
    min_positives: int = 20
    repeats: int = 1000
    seed: int = 0
    tuning_split: str | None = None
    box_settings: BoxSettings | None = None
    name: str = "model"
    baselines: Mapping[str, Sequence[ImageRecord]] = field(default_factory=dict)

    @cached_property
    def scores(self) -> np.ndarray:
        """`(n, F)` float64."""
        return np.stack([record.scores for record in self.records])

    @cached_property
    def labels(self) -> np.ndarray:
        """`(n, F)` float64, 1, 0 or NaN."""
        return np.stack([record.labels for record in self.records])

    @cached_property
    def patients(self) -> list[str]:
        """`(n,)`, the patient of each image."""
        return [record.patient for record in self.records]

    @cached_property
    def counts(self) -> Mapping[str, np.ndarray]:
        """`positives` and `negatives`, each `(F,)`."""
        return support(self.labels)

    def counted(self, min_positives: int) -> np.ndarray:
        """`(F,)` bool, the findings with so many positives, and with negatives."""
        return (self.counts["positives"] >= max(1, min_positives)) & (self.counts["negatives"] > 0)

    @cached_property
    def averaged(self) -> np.ndarray:
        """`(F,)` bool, the findings in the means over findings of classification."""
        return self.counted(self.min_positives)

    def mean(self, values: np.ndarray) -> float:
        """Mean of a figure `(F,)` over the findings of `averaged`; NaN if there are none."""
        return mean(values[self.averaged])

    def finding_rows(self, *columns: np.ndarray | Sequence[Cell]) -> list[Row]:
        """A row per finding from columns of F cells; one that is not in the means is `rare`."""
        cells = zip(*(one.tolist() if isinstance(one, np.ndarray) else one for one in columns), strict=True)
        kinds = ["" if averaged else "rare" for averaged in self.averaged]
        return [Row(name, (name, *own), kind) for name, own, kind in zip(self.findings, cells, kinds, strict=True)]

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments of every bootstrap."""
        return {"repeats": self.repeats, "seed": self.seed}

    @cached_property
    def tuning_patients(self) -> frozenset[str] | None:
        """Patients of the committed list; None without one."""
        return None if self.tuning_split is None else named_split(self.tuning_split)

    @cached_property
    def sides(self) -> tuple[list[ImageRecord], list[ImageRecord]]:
        """Images to tune on and images to score."""
        if self.tuning_patients is None:
            return halves_by_patient(self.records, self.seed)
        return split_by_patients(self.records, self.tuning_patients)

    @property
    def half(self) -> str:
        """The half that is tuned on, in words."""
        return f"random half, seed {self.seed}" if self.tuning_split is None else f"listed half {self.tuning_split}"


def mean(values: np.ndarray) -> float:
    """Mean; NaN without values."""
    return float(values.mean()) if len(values) else float("nan")


def gaps(intervals: Mapping[str, Interval]) -> str:
    """A sentence on which means have no interval and why; empty if all have one."""
    shares = {name: float(np.min(interval.defined)) for name, interval in intervals.items()}
    missing = [f"{name} ({share:.0%})" for name, share in shares.items() if share < 0.5]
    if not missing:
        return ""
    return (
        " No interval where a mean is defined in fewer than half of the samples, because the others lack one of its "
        f"findings: {', '.join(missing)}."
    )
