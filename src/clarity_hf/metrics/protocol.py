# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Protocols of localization on records of images: who is tuned on, what is scored, and what counts as found.

No map is needed: a record holds the regions of its maps at every threshold of `MAP_THRESHOLDS`. The way is

    records → `annotated_boxes` → `drawn` (at which thresholds, gated or not) → `Overlaps` → `found`: T(IoU), T(IoBB)

and every protocol is a choice of halves and thresholds along it. T(IoU) boxes the annotated finding **whatever its
score**, any region may match; the gated figure, which is what a user sees, counts a box only where the finding's score
reaches its threshold. The number of boxes drawn stands beside each: who draws more finds more.

Map thresholds are chosen by the highest **mean IoU**, not by the share above one level: forty boxes a finding make a
share a staircase full of ties, and one threshold has to serve T(IoU) at all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from clarity_hf.boxes import box_iou
from clarity_hf.data.rows import draw_patients

from .bootstrap import Interval, bootstrap_by_patient, paired_difference
from .classification import youden_thresholds
from .localization import (
    IOBB_LEVELS,
    LEVELS,
    Found,
    best_overlaps,
    box_iobb,
    constant_box,
    found_shares,
    max_box_accuracy,
    shares_per_finding,
)
from .records import MAP_THRESHOLDS, AnnotationRecord, ImageRecord

DEFAULT_MAP_THRESHOLD = 0.5
"""Threshold of a finding without annotated boxes to tune on."""

NAMED_SEED = 0
"""Seed of the split by patient that is filed by name; the repeats take the seeds after it."""

WANG_IOBB_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The t of T(IoBB) in the table of Wang et al."""


# Halves


def halves(patients: Iterable[str], seed: int = NAMED_SEED) -> tuple[frozenset[str], frozenset[str]]:
    """Cut patients into a half to tune on and a half to score.

    Nothing is stratified, and the draw is that of [`draw_patients`]: by hash, the same on every platform and for every
    order. On the patients of the NIH box list, seed 0 gives the list that is filed as `nih-boxes-tuning-0`.

    Args:
        patients: Their ids, of those with boxes; repetitions count once.
        seed: Of the draw.

    Returns:
        The tuning half and the scoring half, the odd one rounded to even.
    """
    known = frozenset(patients)
    tuning = frozenset(draw_patients(known, 0.5, seed))
    return tuning, known - tuning


def boxed(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """The images with annotated boxes."""
    return [record for record in records if record.annotations]


def halves_by_patient(
    records: Sequence[ImageRecord], seed: int = NAMED_SEED
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images to tune on and images to score, no patient in both; see [`halves`].

    Patients without boxes are on the tuning side: they have nothing to score, and serve score thresholds.
    """
    _, scoring = halves((record.patient for record in boxed(records)), seed)
    return _sides(records, [record.patient in scoring for record in records])


def halves_by_image(
    records: Sequence[ImageRecord], seed: int = NAMED_SEED
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images to tune on and images to score, drawn as **images**: a patient may be on both sides.

    Images without boxes are on the tuning side.
    """
    _, scoring = halves((record.name for record in boxed(records)), seed)
    return _sides(records, [record.name in scoring for record in records])


def split_by_patients(
    records: Sequence[ImageRecord], tuning_patients: Collection[str]
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images to tune on and images to score by a list of patients, such as one that is filed by name.

    Args:
        records: Images.
        tuning_patients: Whom to tune on. All other patients with boxes are scored; those without boxes are on the
            tuning side.

    Returns:
        The images to tune on and the images to score, each in the order of `records`.

    Raises:
        ValueError: None of the patients with boxes is listed, so that nothing would be tuned, or all are, so that
            nothing would be scored.
    """
    boxed_patients = {record.patient for record in boxed(records)}
    if boxed_patients and not boxed_patients & set(tuning_patients):
        raise ValueError(
            f"`tuning_patients` must name patients of the {len(boxed_patients)} with boxes, got "
            f"{len(tuning_patients)} others. Choose the list of this data set."
        )
    scoring = boxed_patients - set(tuning_patients)
    if boxed_patients and not scoring:
        raise ValueError(
            f"`tuning_patients` must leave patients with boxes to score, got all {len(boxed_patients)} listed. "
            "Choose the list of this data set."
        )
    return _sides(records, [record.patient in scoring for record in records])


def _sides(records: Sequence[ImageRecord], is_scored: list[bool]) -> tuple[list[ImageRecord], list[ImageRecord]]:
    tuning = [record for record, scored in zip(records, is_scored, strict=True) if not scored]
    return tuning, [record for record, scored in zip(records, is_scored, strict=True) if scored]


# Annotated boxes and what is drawn beside them


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How well each annotated box is met by what one method draws, with fixed thresholds. n boxes.

    Attributes:
        images: `(n,)` str, names.
        patients: `(n,)` str.
        findings: `(n,)` int.
        first: `(n,)` bool, the first box of its (image, finding): to count maps in place of boxes.
        best: `(n,)` float64, best overlap with a drawn box, in [0, 1]; 0 where nothing is drawn.
        count: `(n,)` int, boxes drawn for the (image, finding).
        num_findings: F.
    """

    images: np.ndarray
    patients: np.ndarray
    findings: np.ndarray
    first: np.ndarray
    best: np.ndarray
    count: np.ndarray
    num_findings: int

    @property
    def boxes_drawn(self) -> float:
        """Mean number of boxes drawn per annotated (image, finding); NaN where there are none."""
        return float(self.count[self.first].mean()) if self.first.any() else float("nan")

    @property
    def boxes_drawn_per_finding(self) -> np.ndarray:
        """The same of each finding, `(F,)`; NaN without annotated boxes."""
        counts = self.count[self.first, None].astype(np.float64)
        return shares_per_finding(self.findings[self.first], counts, self.num_findings)[1][:, 0]

    def found(self, levels: Sequence[float] = LEVELS) -> Found:
        """Shares of annotated boxes whose overlap exceeds each level."""
        return found_shares(self.findings, self.best, self.num_findings, levels)


@dataclass(frozen=True, eq=False)
class AnnotatedBoxes:
    """Every annotated box of some images with its best overlaps at every map threshold: n boxes, T thresholds.

    Attributes:
        images: `(n,)` str, names.
        patients: `(n,)` str.
        findings: `(n,)` int.
        first: `(n,)` bool, the first box of its (image, finding): to count maps in place of boxes.
        scores: `(n,)` float64, the score of the box's finding.
        boxes: `(n, 4)` float64 as shares of the image's width and height.
        iou: `(n, T)` best IoU with a drawn box, at each of `MAP_THRESHOLDS`.
        iobb: `(n, T)` best intersection over the drawn box.
        count: `(n, T)` int, boxes drawn for the (image, finding).
        own_iou: `(n,)` as `iou`, at the method's own threshold and components.
        own_iobb: `(n,)` as `iobb`, there.
        own_count: `(n,)` as `count`, there.
        num_findings: F.
    """

    images: np.ndarray
    patients: np.ndarray
    findings: np.ndarray
    first: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    iou: np.ndarray
    iobb: np.ndarray
    count: np.ndarray
    own_iou: np.ndarray
    own_iobb: np.ndarray
    own_count: np.ndarray
    num_findings: int

    def of_images(self, names: Collection[str]) -> AnnotatedBoxes:
        """The boxes of some images, by name."""
        kept = np.isin(self.images, list(names))
        columns = {name: values[kept] for name, values in vars(self).items() if name != "num_findings"}
        return AnnotatedBoxes(**columns, num_findings=self.num_findings)

    def tuned_thresholds(self, default: float = DEFAULT_MAP_THRESHOLD) -> np.ndarray:
        """Per finding the threshold of `MAP_THRESHOLDS` with the highest mean IoU over its boxes, `(F,)`.

        Of equal ones the lowest; `default` for a finding without boxes.
        """
        thresholds = np.full(self.num_findings, default)
        for finding in np.unique(self.findings):
            thresholds[finding] = MAP_THRESHOLDS[int(self.iou[self.findings == finding].mean(axis=0).argmax())]
        return thresholds

    def drawn(
        self,
        thresholds: Sequence[float] | np.ndarray | None = None,
        gate: Sequence[float] | np.ndarray | None = None,
        measure: Literal["iou", "iobb"] = "iou",
    ) -> Overlaps:
        """Overlaps with the boxes of given thresholds.

        Args:
            thresholds: `(F,)`, each one of `MAP_THRESHOLDS`; None for the method's own boxes.
            gate: `(F,)` score thresholds: nothing is drawn for a finding that scores lower. None: whatever the score.
            measure: `"iou"`, or `"iobb"` for intersection over the drawn box.

        Raises:
            ValueError: A threshold is not one of `MAP_THRESHOLDS`, a length is not F, or `measure` is unknown.
        """
        if measure not in ("iou", "iobb"):
            raise ValueError(f"`measure` must be 'iou' or 'iobb', got '{measure}'. Choose one of them.")
        if thresholds is None:
            best, count = getattr(self, f"own_{measure}"), self.own_count
        else:
            column = threshold_columns(thresholds, self.num_findings)[self.findings]
            rows = np.arange(len(column))
            best, count = getattr(self, measure)[rows, column], self.count[rows, column]
        if gate is not None:
            shown = self.scores >= _per_finding("gate", gate, self.num_findings)[self.findings]
            best, count = np.where(shown, best, 0.0), np.where(shown, count, 0)
        return self.overlaps(best, count)

    def constant(self, boxes: np.ndarray) -> Overlaps:
        """Overlaps with one box per finding that has seen no image.

        Args:
            boxes: `(F, 4)` as shares of an image's width and height; NaN where a finding has none, and none is drawn.
        """
        guesses = np.asarray(boxes)[self.findings]
        known = ~np.isnan(guesses).any(axis=1)
        best = np.zeros(len(guesses))
        for finding in np.unique(self.findings[known]):
            rows = self.findings == finding
            best[rows] = box_iou(self.boxes[rows], np.asarray(boxes)[finding, None])[:, 0]
        return self.overlaps(best, known)

    def constant_boxes(self) -> np.ndarray:
        """Per finding the annotated box with the highest mean IoU to the others, `(F, 4)`; NaN where there is none.

        Images are laid over each other as they fill their frame: a box is a share of the image's width and height.
        """
        boxes = np.full((self.num_findings, 4), np.nan)
        for finding in np.unique(self.findings):
            boxes[finding] = constant_box(self.boxes[self.findings == finding])
        return boxes

    def overlaps(self, best: np.ndarray, count: np.ndarray) -> Overlaps:
        """What a method that is not in this table draws beside its boxes.

        Args:
            best: `(n,)` best overlap of each annotated box.
            count: `(n,)` boxes drawn for its (image, finding).
        """
        return Overlaps(self.images, self.patients, self.findings, self.first, best, count, self.num_findings)


def annotated_boxes(
    records: Sequence[ImageRecord],
    components: Literal["largest", "all"] = "all",
    num_findings: int | None = None,
) -> AnnotatedBoxes:
    """Compare every annotated box with what is drawn beside it, at every threshold at once.

    Args:
        records: Images, with boxes or without.
        components: `"all"` lets any region match; `"largest"` draws the box of the region with the most mass alone.
            The method's own boxes are of its own components.
        num_findings: F; None takes it from the records.

    Raises:
        ValueError: There are no records to take F from, the records differ in it, or `components` is unknown.
    """
    if components not in ("largest", "all"):
        raise ValueError(f"`components` must be 'largest' or 'all', got '{components}'. Choose one of them.")
    num_findings = _num_findings(records) if num_findings is None else num_findings
    parts = [_no_boxes(), *(_compared(*pair, components) for pair in annotated_maps(records))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return AnnotatedBoxes(**columns, num_findings=num_findings)


def annotated_maps(records: Iterable[ImageRecord]) -> Iterator[tuple[ImageRecord, AnnotationRecord]]:
    """Every (image, finding) with annotated boxes."""
    return ((record, annotation) for record in records for annotation in record.annotations)


def _compared(
    record: ImageRecord, annotation: AnnotationRecord, components: Literal["largest", "all"]
) -> dict[str, np.ndarray]:
    """The rows of [`AnnotatedBoxes`] that the m boxes of one finding of an image make."""
    boxes, rows = annotation.boxes, len(annotation.boxes)
    drawn = [found[: 1 if components == "largest" else None] for found in annotation.regions]
    return {
        "images": np.repeat(record.name, rows),
        "patients": np.repeat(record.patient, rows),
        "findings": np.repeat(annotation.finding, rows),
        "first": np.arange(rows) == 0,
        "scores": np.repeat(record.scores[annotation.finding], rows),
        "boxes": boxes / np.array([record.size[1], record.size[0]] * 2),
        "iou": _best_at_each(boxes, drawn, box_iou),
        "iobb": _best_at_each(boxes, drawn, box_iobb),
        "count": np.tile([len(found) for found in drawn], (rows, 1)),
        "own_iou": best_overlaps(boxes, annotation.own),
        "own_iobb": best_overlaps(boxes, annotation.own, box_iobb),
        "own_count": np.repeat(len(annotation.own), rows),
    }


def _no_boxes() -> dict[str, np.ndarray]:
    """No rows, of the types of all columns, so that images without boxes give empty columns."""
    thresholds = np.zeros((0, len(MAP_THRESHOLDS)))
    whole, share = np.zeros(0, dtype=np.int64), np.zeros(0)
    return {
        "images": np.array([], dtype=str),
        "patients": np.array([], dtype=str),
        "findings": whole,
        "first": np.zeros(0, dtype=bool),
        "scores": share,
        "boxes": np.zeros((0, 4)),
        "iou": thresholds,
        "iobb": thresholds,
        "count": thresholds.astype(np.int64),
        "own_iou": share,
        "own_iobb": share,
        "own_count": whole,
    }


def _best_at_each(
    annotated: np.ndarray, drawn: Sequence[np.ndarray], measure: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Best overlap of each annotated box with each set of drawn ones: `(m, len(drawn))`, by one comparison."""
    overlaps = measure(annotated, np.concatenate(drawn))
    best = np.zeros((len(drawn), len(annotated)))
    np.maximum.at(best, np.repeat(np.arange(len(drawn)), [len(boxes) for boxes in drawn]), overlaps.T)
    return best.T


def threshold_columns(thresholds: Sequence[float] | np.ndarray, num_findings: int) -> np.ndarray:
    """Where thresholds stand in `MAP_THRESHOLDS`.

    Args:
        thresholds: `(F,)`.
        num_findings: F.

    Returns:
        `(F,)` int.

    Raises:
        ValueError: There are not F, or one is none of `MAP_THRESHOLDS`.
    """
    values = _per_finding("thresholds", thresholds, num_findings)
    known = np.array(MAP_THRESHOLDS)
    nearest = np.abs(values[:, None] - known).argmin(axis=1)
    strange = values[~np.isclose(values, known[nearest], rtol=0, atol=1e-9)]
    if len(strange):
        raise ValueError(
            f"`thresholds` must be of the {len(known)} of MAP_THRESHOLDS, from {known[0]:g} to {known[-1]:g}, got "
            f"{strange[0]:g}. Records hold no regions at others: take the nearest."
        )
    return nearest


def _per_finding(name: str, values: Sequence[float] | np.ndarray, num_findings: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (num_findings,):
        raise ValueError(f"`{name}` must be ({num_findings},), got {values.shape}. Give one per finding.")
    return values


def _num_findings(records: Sequence[ImageRecord]) -> int:
    counts = {len(record.scores) for record in records}
    if len(counts) != 1:
        raise ValueError(
            f"`records` must be of images with one number of findings, got {sorted(counts) or 'no images'}. Evaluate "
            "them by one method."
        )
    return counts.pop()


# Figures


def tune_thresholds(
    records: Sequence[ImageRecord],
    num_findings: int | None = None,
    components: Literal["largest", "all"] = "all",
    default: float = DEFAULT_MAP_THRESHOLD,
) -> np.ndarray:
    """Choose each finding's map threshold: that of `MAP_THRESHOLDS` with the highest mean IoU on these images.

    Args:
        records: Images that are not scored.
        num_findings: F; None takes it from the records.
        components: Which regions may match, as they will be scored.
        default: Threshold of a finding without annotated boxes.

    Returns:
        `(F,)` float64.
    """
    return annotated_boxes(records, components, num_findings).tuned_thresholds(default)


def t_iou(
    records: Sequence[ImageRecord],
    thresholds: Sequence[float] | np.ndarray | None = None,
    *,
    gate: Sequence[float] | np.ndarray | None = None,
    components: Literal["largest", "all"] = "all",
    levels: Sequence[float] = LEVELS,
) -> Found:
    """T(IoU): the share of annotated boxes that a drawn box of the same finding overlaps by IoU **>** t.

    Args:
        records: Images that are scored.
        thresholds: `(F,)` of `MAP_THRESHOLDS`, chosen on other images; None for the method's own boxes.
        gate: `(F,)` score thresholds below which nothing is drawn; None boxes whatever the score.
        components: Which regions may match, where `thresholds` are given.
        levels: The t.
    """
    return annotated_boxes(records, components).drawn(thresholds, gate).found(levels)


def t_iobb(
    records: Sequence[ImageRecord],
    thresholds: Sequence[float] | np.ndarray | None = None,
    *,
    gate: Sequence[float] | np.ndarray | None = None,
    components: Literal["largest", "all"] = "all",
    levels: Sequence[float] = IOBB_LEVELS,
) -> Found:
    """T(IoBB): as [`t_iou`], with intersection over the area of the drawn box, see [`box_iobb`]."""
    return annotated_boxes(records, components).drawn(thresholds, gate, "iobb").found(levels)


def score_thresholds_of(records: Sequence[ImageRecord]) -> np.ndarray:
    """Youden's score thresholds on these images, `(F,)`; .5 where a finding has one class alone."""
    return youden_thresholds(
        np.array([record.scores for record in records]), np.array([record.labels for record in records])
    )


@dataclass(frozen=True)
class Rates:
    """A share of annotated (image, finding) pairs, such as of hits.

    Attributes:
        counts: `(F,)` int, annotated pairs.
        shares: `(F,)` float64 in [0, 1]; NaN without pairs.
        macro: Mean over the findings with pairs.
        pooled: Of all pairs, whatever their finding.
    """

    counts: np.ndarray
    shares: np.ndarray
    macro: float
    pooled: float


def pointing_game(records: Sequence[ImageRecord]) -> Rates:
    """Hit rate: the share of maps whose largest value lies in an annotated box, see [`is_hit`]."""
    pairs = [(annotation.finding, annotation.hit) for _, annotation in annotated_maps(records)]
    hits = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    counts, shares, macro, pooled = shares_per_finding(
        hits[:, 0].astype(np.int64), hits[:, 1:], _num_findings(records)
    )
    return Rates(counts, shares[:, 0], float(macro[0]), float(pooled[0]))


def max_box_acc(records: Sequence[ImageRecord]) -> Rates:
    """MaxBoxAcc: the box of the largest region at IoU ≥ .5, at the threshold that suits best; [`max_box_accuracy`].

    As published: the map is brought to [0, 1], connected regions are never divided, the largest is the one with the
    most pixels, a map is right where it meets any of its annotated boxes, and thresholds are those of
    `MAX_BOX_THRESHOLDS`. `pooled` has one threshold for all findings, which is the published definition; `shares` have
    one each.
    """
    return _max_box(records, 0, (0.5,))


def max_box_acc_v2(records: Sequence[ImageRecord]) -> Rates:
    """MaxBoxAccV2: every region has a box, and IoU ≥ .3, .5 and .7 are averaged; else as [`max_box_acc`]."""
    return _max_box(records, 1, (0.3, 0.5, 0.7))


def _max_box(records: Sequence[ImageRecord], row: int, levels: tuple[float, ...]) -> Rates:
    pairs = list(annotated_maps(records))
    best = np.array([one.max_box_ious[row] for _, one in pairs]).reshape(len(pairs), -1)
    findings = np.array([one.finding for _, one in pairs], dtype=np.int64)
    num_findings = _num_findings(records)
    counts = np.bincount(findings, minlength=num_findings)
    shares = np.array([max_box_accuracy(best[findings == finding], levels) for finding in range(num_findings)])
    macro = float(shares[counts > 0].mean()) if len(pairs) else float("nan")
    return Rates(counts, shares, macro, max_box_accuracy(best, levels))


@dataclass(frozen=True)
class MaskOverlap:
    """IoU of masks, not of boxes, and therefore with a name of its own.

    Attributes:
        threshold: Share of the peak, the same for all findings.
        found: Shares of maps whose mask IoU exceeds each level; its counts are of maps.
        means: `(F,)` mean mask IoU; NaN without maps.
        macro: Mean of `means`.
    """

    threshold: float
    found: Found
    means: np.ndarray
    macro: float


def ham_mask_iou(
    records: Sequence[ImageRecord], threshold: float = 0.5, levels: Sequence[float] = LEVELS
) -> MaskOverlap:
    """Mask IoU of the map above one fixed threshold with the filled annotated boxes, for every annotated map.

    Source: the protocol of Ouyang et al., "Learning hierarchical attention for weakly-supervised chest X-ray
    abnormality localization and diagnosis", IEEE TMI 40 (2021) 2698–2710.
    """
    num_findings = _num_findings(records)
    column = int(threshold_columns(np.full(num_findings, threshold), num_findings)[0])
    pairs = [(annotation.finding, annotation.mask_ious[column]) for _, annotation in annotated_maps(records)]
    values = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    findings = values[:, 0].astype(np.int64)
    _, means, macro, _ = shares_per_finding(findings, values[:, 1:], num_findings)
    found = found_shares(findings, values[:, 1], num_findings, levels)
    return MaskOverlap(threshold, found, means[:, 0], float(macro[0]))


@dataclass(frozen=True)
class WangProtocol:
    """What Wang et al. report: boxes at two fixed thresholds, and the false ones.

    Attributes:
        iou: Overlaps by IoU, of the boxes of both thresholds together.
        iobb: Overlaps by intersection over the drawn box.
        levels: The t of IoU at which false boxes are counted.
        iobb_levels: The t of intersection over the drawn box at which they are.
        false_boxes: `(F, len(levels))` drawn boxes per annotated map whose IoU with no annotated box exceeds t; NaN
            without maps.
        false_boxes_iobb: `(F, len(iobb_levels))` the same by intersection over the drawn box.
    """

    iou: Overlaps
    iobb: Overlaps
    levels: tuple[float, ...]
    iobb_levels: tuple[float, ...]
    false_boxes: np.ndarray
    false_boxes_iobb: np.ndarray


def wang_protocol(
    records: Sequence[ImageRecord],
    levels: Sequence[float] = LEVELS,
    iobb_levels: Sequence[float] = WANG_IOBB_LEVELS,
) -> WangProtocol:
    """The map brought to [0, 255], a box around each isolated region above 60 and above 180, right if any passes.

    Nothing is tuned, and no score gates. False boxes are counted on the maps of annotated findings, as there.

    Source: Wang et al., "ChestX-ray8", CVPR 2017, section 5.3.
    """
    table = annotated_boxes(records)
    maps = [(annotation.boxes, np.concatenate(annotation.wang_regions)) for _, annotation in annotated_maps(records)]
    drawn = np.array([len(found) for annotated, found in maps for _ in annotated], dtype=np.int64)
    findings = table.findings[table.first]

    def measured(
        measure: Callable[[np.ndarray, np.ndarray], np.ndarray], limits: Sequence[float]
    ) -> tuple[Overlaps, np.ndarray]:
        overlaps = [measure(annotated, found) for annotated, found in maps]
        best = np.concatenate([np.zeros(0), *(one.max(axis=1, initial=0.0) for one in overlaps)])
        false = [(one.max(axis=0)[:, None] <= np.asarray(limits)).sum(axis=0) for one in overlaps]
        per_map = np.array(false, dtype=np.float64).reshape(-1, len(limits))
        return table.overlaps(best, drawn), shares_per_finding(findings, per_map, table.num_findings)[1]

    iou, false_boxes = measured(box_iou, levels)
    iobb, false_boxes_iobb = measured(box_iobb, iobb_levels)
    return WangProtocol(iou, iobb, tuple(levels), tuple(iobb_levels), false_boxes, false_boxes_iobb)


@dataclass(frozen=True)
class SegmentationScore:
    """CheXlocalize's mIoU.

    Attributes:
        thresholds: `(F,)` map thresholds, chosen on the tuning images.
        cutoffs: `(F,)` score cut-offs below which a mask is empty.
        annotated: `(F,)` int, annotated maps.
        counts: `(F,)` int, true positives: annotated maps whose mask is not empty.
        miou: `(F,)` mean mask IoU over true positives; NaN without any.
        macro: Mean over the findings with true positives.
        full_miou: `(F,)` mean over all annotated maps, an empty mask counting 0; NaN without any.
        intervals: Of `miou`, by patient.
        macro_interval: Of `macro`, over the same findings in every draw.
    """

    thresholds: np.ndarray
    cutoffs: np.ndarray
    annotated: np.ndarray
    counts: np.ndarray
    miou: np.ndarray
    macro: float
    full_miou: np.ndarray
    intervals: Interval
    macro_interval: Interval


def chexlocalize_miou(
    tuning: Sequence[ImageRecord],
    scoring: Sequence[ImageRecord],
    cutoffs: Sequence[float] | np.ndarray | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> SegmentationScore:
    """Mean IoU of masks over true positives, thresholds from the tuning images, with an interval by patient.

    Thresholds are the `MAP_THRESHOLDS` of the highest mean mask IoU, and masks stand beside **filled boxes**, where
    CheXlocalize has drawn contours: compare methods by it, not with its published figures.

    Args:
        tuning: Images on which thresholds, and cut-offs where none are given, are chosen.
        scoring: Images that are scored.
        cutoffs: `(F,)` probabilities below which the mask is empty; None for Youden's on the tuning images.
        repeats: Draws of the bootstrap.
        seed: Of the bootstrap.

    Source: Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine Intelligence
    4 (2022) 867–878; https://github.com/rajpurkarlab/cheXlocalize, eval.py and tune_heatmap_threshold.py.
    """
    num_findings = _num_findings([*tuning, *scoring])
    cutoffs = _per_finding("cutoffs", score_thresholds_of(tuning) if cutoffs is None else cutoffs, num_findings)
    thresholds = _tuned_for_masks(_Masks.of(tuning), num_findings)
    masks = _Masks.of(scoring)
    findings, rows = masks.findings, np.arange(len(masks.findings))
    positive = masks.marked & (masks.scores >= cutoffs[findings])
    iou = np.where(positive, masks.ious[rows, threshold_columns(thresholds, num_findings)[findings]], 0.0)
    counts = np.bincount(findings[positive], minlength=num_findings)
    averaged = counts > 0

    def means(drawn: np.ndarray) -> np.ndarray:
        kept = drawn[positive[drawn]]
        of_each = shares_per_finding(findings[kept], iou[kept, None], num_findings)[1][:, 0]
        return np.append(of_each, of_each[averaged].mean() if averaged.any() else np.nan)

    interval = _bootstrap(means, masks.patients, repeats, seed, (num_findings + 1,))
    annotated, full = shares_per_finding(findings, iou[:, None], num_findings)[:2]
    return SegmentationScore(
        thresholds=thresholds,
        cutoffs=cutoffs,
        annotated=annotated,
        counts=counts,
        miou=means(rows)[:-1],
        macro=float(means(rows)[-1]),
        full_miou=full[:, 0],
        intervals=_part(interval, slice(None, -1)),
        macro_interval=_part(interval, -1),
    )


@dataclass(frozen=True, eq=False)
class _Masks:
    """Mask IoU of n annotated maps at T thresholds.

    Attributes:
        findings: `(n,)` int.
        ious: `(n, T)`.
        marked: `(n,)` bool, whether the map has a mask at all: below its peak every threshold leaves one.
        scores: `(n,)`.
        patients: `(n,)` str.
    """

    findings: np.ndarray
    ious: np.ndarray
    marked: np.ndarray
    scores: np.ndarray
    patients: np.ndarray

    @classmethod
    def of(cls, records: Sequence[ImageRecord]) -> _Masks:
        pairs = list(annotated_maps(records))
        return cls(
            np.array([annotation.finding for _, annotation in pairs], dtype=np.int64),
            np.array([annotation.mask_ious for _, annotation in pairs]).reshape(-1, len(MAP_THRESHOLDS)),
            np.array([len(annotation.regions[0]) > 0 for _, annotation in pairs], dtype=bool),
            np.array([record.scores[annotation.finding] for record, annotation in pairs], dtype=np.float64),
            np.array([record.patient for record, _ in pairs], dtype=str),
        )


def _tuned_for_masks(masks: _Masks, num_findings: int) -> np.ndarray:
    thresholds = np.full(num_findings, DEFAULT_MAP_THRESHOLD)
    for finding in np.unique(masks.findings[masks.marked]):
        rows = masks.marked & (masks.findings == finding)
        thresholds[finding] = MAP_THRESHOLDS[int(masks.ious[rows].mean(axis=0).argmax())]
    return thresholds


# Protocols of halves


@dataclass(frozen=True, eq=False)
class HalfScores:
    """What is tuned on one half of the images and scored on the other.

    Attributes:
        thresholds: `(F,)` map thresholds, chosen on the tuning half.
        score_thresholds: `(F,)`, given or Youden's on the tuning half.
        iou: Overlaps by IoU on the scoring half, whatever the scores: [`Overlaps.found`] is T(IoU).
        iobb: The same by intersection over the drawn box: with `IOBB_LEVELS` it is T(IoBB).
        gated: By IoU, findings below their score threshold undrawn.
        constant: By IoU, the constant box of each finding, fixed on the tuning half.
    """

    thresholds: np.ndarray
    score_thresholds: np.ndarray
    iou: Overlaps
    iobb: Overlaps
    gated: Overlaps
    constant: Overlaps


def tune_and_score(
    tuning: Sequence[ImageRecord],
    scoring: Sequence[ImageRecord],
    score_thresholds: Sequence[float] | np.ndarray | None = None,
    components: Literal["largest", "all"] = "all",
) -> HalfScores:
    """Choose thresholds and the constant box on some images, and score others with them.

    Args:
        tuning: Images to choose on, such as the first of [`halves_by_patient`].
        scoring: Images to score, the second of it.
        score_thresholds: `(F,)` of the gated figure; None for Youden's on the tuning images.
        components: Which regions may match.
    """
    num_findings = _num_findings([*tuning, *scoring])
    chosen, scored = (annotated_boxes(images, components, num_findings) for images in (tuning, scoring))
    gate = score_thresholds_of(tuning) if score_thresholds is None else score_thresholds
    return _tune_and_score(chosen, scored, gate)


def _tune_and_score(chosen: AnnotatedBoxes, scored: AnnotatedBoxes, gate: Sequence[float] | np.ndarray) -> HalfScores:
    """[`tune_and_score`] on boxes."""
    thresholds = chosen.tuned_thresholds()
    return HalfScores(
        thresholds=thresholds,
        score_thresholds=_per_finding("score_thresholds", gate, scored.num_findings),
        iou=scored.drawn(thresholds),
        iobb=scored.drawn(thresholds, measure="iobb"),
        gated=scored.drawn(thresholds, gate),
        constant=scored.constant(chosen.constant_boxes()),
    )


def clarity_protocol(
    records: Sequence[ImageRecord],
    seed: int = NAMED_SEED,
    score_thresholds: Sequence[float] | np.ndarray | None = None,
    components: Literal["largest", "all"] = "all",
) -> HalfScores:
    """CLARiTy's: thresholds are tuned on half of the boxed **images**, and the other half is scored.

    A patient's images may be on both sides, which [`patient_protocol`] forbids; the paper's draw is not published.

    Args:
        records: Images, with boxes or without.
        seed: Of the draw.
        score_thresholds: As for [`tune_and_score`].
        components: Which regions may match.

    Source: Statheros, Wang and Klein, arXiv 2512.16700.
    """
    return tune_and_score(*halves_by_image(records, seed), score_thresholds, components)


@dataclass(frozen=True, eq=False)
class CrossTuned:
    """Every annotated box scored once, with what was chosen on the half of the patients that it is not in.

    Attributes:
        thresholds: `(2, F)` map thresholds, chosen on the first and on the second half; each scores the other.
        iou: Overlaps by IoU of all boxes, whatever the scores.
        iobb: The same by intersection over the drawn box.
        constant: By IoU, the constant box of each finding.
    """

    thresholds: np.ndarray
    iou: Overlaps
    iobb: Overlaps
    constant: Overlaps


def cross_tuned(boxes: AnnotatedBoxes, first: np.ndarray) -> CrossTuned:
    """Tune on one half and score the other, both ways: all boxes are scored, as many as there are.

    For comparing methods on the same images, each at thresholds chosen in the same way. A finding without boxes in one
    half is scored at `DEFAULT_MAP_THRESHOLD` in the other, and has no constant box there.

    Args:
        boxes: Of all images.
        first: `(n,)` bool, the boxes of one half of the patients.

    Raises:
        ValueError: A patient has boxes in both halves, or `first` has another length.
    """
    first = np.asarray(first, dtype=bool)
    if first.shape != boxes.findings.shape:
        raise ValueError(f"`first` must be {boxes.findings.shape}, got {first.shape}. Give one for every box.")
    both = set(boxes.patients[first]) & set(boxes.patients[~first])
    if both:
        raise ValueError(f"`first` must halve by patient, got {len(both)} patients in both halves. See halves.")
    sides = [boxes.of_images(boxes.images[rows]) for rows in (first, ~first)]
    thresholds = np.stack([side.tuned_thresholds() for side in sides])
    guesses = [side.constant_boxes() for side in sides]

    def crossed(by_first: Overlaps, by_second: Overlaps) -> Overlaps:
        columns = {
            name: np.where(first, getattr(by_second, name), getattr(by_first, name)) for name in ("best", "count")
        }
        return replace(by_first, **columns)

    return CrossTuned(
        thresholds=thresholds,
        iou=crossed(*(boxes.drawn(chosen) for chosen in thresholds)),
        iobb=crossed(*(boxes.drawn(chosen, measure="iobb") for chosen in thresholds)),
        constant=crossed(*(boxes.constant(guess) for guess in guesses)),
    )


@dataclass(frozen=True, eq=False)
class PatientProtocol:
    """The protocol of halves by patient.

    Attributes:
        boxes: All annotated boxes.
        named: On the split that is filed by name, or drawn with the first seed where no list was given.
        repeats: On as many others.
        crossed: Both ways on the split of `named`, so that every annotated box is scored once.
    """

    boxes: AnnotatedBoxes
    named: HalfScores
    repeats: tuple[HalfScores, ...]
    crossed: CrossTuned


def patient_protocol(
    records: Sequence[ImageRecord],
    repeats: int = 5,
    seed: int = NAMED_SEED,
    tuning_patients: Collection[str] | None = None,
    score_thresholds: Sequence[float] | np.ndarray | None = None,
    components: Literal["largest", "all"] = "all",
) -> PatientProtocol:
    """Ours: thresholds are tuned on half of the **patients** with boxes, the other half is scored; and again.

    Each split is scored in one direction, as others report it: with both the deviation over repeats would be that of
    another figure. [`over_repeats`] gives mean and deviation. Beside them the first split is scored both ways, see
    [`cross_tuned`].

    Args:
        records: Images, with boxes or without.
        repeats: Further splits, with the seeds after `seed`.
        seed: Of the named split.
        tuning_patients: Tuning half of the named split, from a list that is filed; None draws it with `seed`.
        score_thresholds: As for [`tune_and_score`].
        components: Which regions may match.
    """
    first = (
        halves_by_patient(records, seed) if tuning_patients is None else split_by_patients(records, tuning_patients)
    )
    others = (halves_by_patient(records, seed + 1 + repeat) for repeat in range(repeats))
    table = annotated_boxes(records, components)
    scores = []
    for sides in (first, *others):
        chosen, scored = (table.of_images([record.name for record in boxed(side)]) for side in sides)
        gate = score_thresholds_of(sides[0]) if score_thresholds is None else score_thresholds
        scores.append(_tune_and_score(chosen, scored, gate))
    scored_first = np.isin(table.images, [record.name for record in boxed(first[1])])
    return PatientProtocol(table, scores[0], tuple(scores[1:]), cross_tuned(table, ~scored_first))


@dataclass(frozen=True)
class Repeated:
    """Mean and standard deviation (n − 1) over repeats; NaN where a figure is undefined in one of them.

    Attributes:
        levels: The L levels.
        shares: `(F, L)` means of the shares of each finding.
        shares_deviation: `(F, L)`, their deviations.
        macro: `(L,)` means of the mean over findings.
        macro_deviation: `(L,)`, its deviations.
        pooled: `(L,)` means of the share of all boxes.
        pooled_deviation: `(L,)`, its deviations.
    """

    levels: tuple[float, ...]
    shares: np.ndarray
    shares_deviation: np.ndarray
    macro: np.ndarray
    macro_deviation: np.ndarray
    pooled: np.ndarray
    pooled_deviation: np.ndarray


def over_repeats(repeats: Sequence[Overlaps], levels: Sequence[float] = LEVELS) -> Repeated:
    """Mean and deviation of T(IoU) or its like over splits, such as of the `iou` of each repeat.

    Args:
        repeats: At least two.
        levels: The t.

    Raises:
        ValueError: There are fewer than two.
    """
    if len(repeats) < 2:
        raise ValueError(f"`repeats` must be at least two, got {len(repeats)}. One split has no deviation.")
    found = [overlaps.found(levels) for overlaps in repeats]
    figures = []
    for name in ("shares", "macro", "pooled"):
        values = np.stack([getattr(one, name) for one in found])
        figures += [values.mean(axis=0), values.std(axis=0, ddof=1)]
    return Repeated(tuple(levels), *figures)


# Intervals


@dataclass(frozen=True)
class FoundIntervals:
    """Intervals by patient of the figures of [`Found`], or of a difference of two.

    Attributes:
        levels: The L levels.
        shares: Of `(F, L)`.
        macro: Of `(L,)`.
        pooled: Of `(L,)`.
    """

    levels: tuple[float, ...]
    shares: Interval
    macro: Interval
    pooled: Interval

    @property
    def clearly_above(self) -> np.ndarray:
        """Of a difference, `(L,)` bool: whether the interval of the macro figure lies above zero."""
        return np.asarray(self.macro.low) > 0


def localization_intervals(
    overlaps: Overlaps,
    levels: Sequence[float] = LEVELS,
    repeats: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> FoundIntervals:
    """Bootstrap intervals by patient of T(IoU) or its like; thresholds stay as they were chosen.

    The mean over findings is over the same ones in every draw; a draw that lacks one of them is undefined.

    Args:
        overlaps: Of the scored images.
        levels: The t.
        repeats: Number of draws.
        seed: Of the draws.
        level: Share of the draws inside an interval, in (0, 1).
    """
    statistic = _figures_of(overlaps, levels)
    shape = (overlaps.num_findings + 2, len(levels))
    return _named_parts(_bootstrap(statistic, overlaps.patients, repeats, seed, shape, level), levels)


def localization_difference(
    overlaps: Overlaps,
    other: Overlaps,
    levels: Sequence[float] = LEVELS,
    repeats: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> FoundIntervals:
    """Paired bootstrap intervals of how much more one method finds than another, both on the same draws of patients.

    "Clearly above" is an interval off zero, [`FoundIntervals.clearly_above`].

    Args:
        overlaps: Of the method.
        other: Of the method that is subtracted, such as the constant box, on the same annotated boxes.
        levels: The t.
        repeats: Number of draws.
        seed: Of the draws.
        level: Share of the draws inside an interval, in (0, 1).

    Raises:
        ValueError: The two are not of the same annotated boxes in the same order.
    """
    same = all(
        np.array_equal(getattr(overlaps, name), getattr(other, name)) for name in ("images", "patients", "findings")
    )
    if not same or overlaps.num_findings != other.num_findings:
        raise ValueError(
            f"`other` must be of the same annotated boxes as `overlaps`, got {len(other.images)} boxes for "
            f"{len(overlaps.images)}, or others. Score both methods on the same records in the same order."
        )
    ours, theirs = _figures_of(overlaps, levels), _figures_of(other, levels)
    shape = (overlaps.num_findings + 2, len(levels))
    if len(overlaps.patients) == 0:
        return _named_parts(_undefined(shape), levels)
    return _named_parts(paired_difference(ours, theirs, overlaps.patients, repeats, seed, level), levels)


def _figures_of(overlaps: Overlaps, levels: Sequence[float]) -> Callable[[np.ndarray], np.ndarray]:
    """What drawn rows give: `(F + 2, L)`, shares of all findings, their mean and the pooled share."""
    above = overlaps.best[:, None] > np.asarray(levels, dtype=np.float64)
    averaged = np.bincount(overlaps.findings, minlength=overlaps.num_findings) > 0

    def of(drawn: np.ndarray) -> np.ndarray:
        _, shares, _, pooled = shares_per_finding(overlaps.findings[drawn], above[drawn], overlaps.num_findings)
        return np.vstack([shares, shares[averaged].mean(axis=0), pooled])

    return of


def _bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    patients: np.ndarray,
    repeats: int,
    seed: int,
    shape: tuple[int, ...],
    level: float = 0.95,
) -> Interval:
    if len(patients) == 0:
        return _undefined(shape)
    return bootstrap_by_patient(statistic, patients, repeats, seed, level)


def _undefined(shape: tuple[int, ...]) -> Interval:
    return Interval(np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape))


def _part(interval: Interval, index: Any) -> Interval:
    return Interval(*(np.asarray(end)[index] for end in (interval.low, interval.high, interval.defined)))


def _named_parts(interval: Interval, levels: Sequence[float]) -> FoundIntervals:
    return FoundIntervals(tuple(levels), _part(interval, slice(None, -2)), _part(interval, -2), _part(interval, -1))
