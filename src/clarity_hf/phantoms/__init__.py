# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Synthetic frontal chest radiographs ("phantoms") with all 14 findings, exact boxes and a thorax mask.

Attenuations add up (body, lungs, heart, bones, devices) and are then displayed through one tone curve. A finding
changes the attenuation inside its boxes only: **images of one seed with and without a finding are equal outside its
boxes**, because anatomy, exposure, noise, devices and each finding have random streams of their own.

Phantoms are for demonstrations, tests, training and comparing methods. Figures measured on them say nothing about
patients.

Frames: boxes are xyxy in pixels of the image, right and bottom exclusive. Inside this package a point of the patient
is `(p, q)`: `p` from the midline, positive towards the patient's left (the right of the image); `q` downwards, about 0
at the chin and 1 below the diaphragm; one unit is the shorter side of the image at scale 1.

Co-occurrence of findings, their share of AP images, and sizes and places of boxes follow the tables of Wang et al.,
"ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on Weakly-Supervised Classification and Localization
of Common Thorax Diseases", CVPR 2017.
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
