# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Synthetic frontal chest radiographs ("phantoms") with all 14 findings, exact boxes and a thorax mask: endless and
seeded.

A phantom is drawn in an attenuation domain (body, lungs, heart, bones and devices add up as they do on an image) and
then shown through one tone curve. Findings add to the attenuation inside their boxes and nowhere else: **two images of
one seed, with and without a finding, are equal outside that finding's boxes**, because anatomy, exposure, noise and
devices come from random streams that do not know the findings, and each finding has a stream of its own.

`draw_phantom` draws one image, `iterate_phantoms` many, `write_phantoms` a folder in the layout of NIH ChestX-ray14.

Phantoms are for demonstrations, tests, training and comparison of methods. They are no patients, and figures measured
on them say nothing about patients.

Frames: boxes are xyxy in pixels of the image, right and bottom exclusive. Inside this package a point of the patient
is `(p, q)`: `p` from the midline, positive towards the patient's left, which is the right of the image; `q` downwards,
about 0 at the chin and 1 below the diaphragm; one unit is the shorter side of the image at scale 1.

Each file uses those before it: `statistics` (labels), `geometry` (person, exam, frame), `anatomy`, `rendering` and
`devices` (layers), `scene` (the normal image), `lesions`, `lung_findings` and `other_findings` (what findings add),
`image` (the whole image) and `release` (a folder).

The statistics come from the tables of Wang et al., "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
Weakly-Supervised Classification and Localization of Common Thorax Diseases", CVPR 2017: how often findings occur
together, their share of AP images, and the sizes and places of the boxes of the eight boxed findings.
"""

from clarity_hf.deprecated import old_names

from .phantom import GENERATOR_VERSION, Phantom, draw_phantom, generator_fingerprint, image_seed, iterate_phantoms
from .release import BOX_FRAME, write_phantoms
from .statistics import COOCCURRENCE_GAIN, LEAST_SHARE, MAX_FINDINGS, NORMAL_SHARE, PREVALENCE_TEMPERING

__getattr__ = old_names(__name__)

__all__ = [
    "BOX_FRAME",
    "COOCCURRENCE_GAIN",
    "GENERATOR_VERSION",
    "LEAST_SHARE",
    "MAX_FINDINGS",
    "NORMAL_SHARE",
    "PREVALENCE_TEMPERING",
    "Phantom",
    "draw_phantom",
    "generator_fingerprint",
    "image_seed",
    "iterate_phantoms",
    "write_phantoms",
]
