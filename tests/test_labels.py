# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings: their order, their spellings, and label vectors."""

import numpy as np
import pytest
import torch

from clarity_hf.labels import (
    ALIASES,
    BOXED_FINDINGS,
    CHEXPERT_TO_NIH,
    FINDINGS,
    NO_FINDING,
    canonical_finding,
    checked_shares,
    encode_findings,
    harmonised_finding,
    loose_name,
)


def test_the_order_is_that_of_the_nih_release():
    assert len(FINDINGS) == len(set(FINDINGS)) == 14
    assert FINDINGS[0] == "Atelectasis"
    assert FINDINGS[4] == "Mass"
    assert FINDINGS[-2:] == ("Pleural_Thickening", "Hernia")


def test_the_boxed_findings_are_the_first_eight():
    assert BOXED_FINDINGS[-1] == "Pneumothorax"
    assert len(BOXED_FINDINGS) == 8


@pytest.mark.parametrize(("given", "used"), [*ALIASES.items(), (" Mass ", "Mass"), ("Hernia", "Hernia")])
def test_other_spellings_are_normalised(given, used):
    assert canonical_finding(given) == used


def test_an_unknown_name_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"`name` must be .*got 'Cardiomegali'\. Did you mean 'Cardiomegaly'\?"):
        canonical_finding("Cardiomegali")


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(ValueError, match="got 'xyz'") as caught:
        canonical_finding("xyz")
    assert "Did you mean" not in str(caught.value)


def test_names_become_a_label_vector():
    labels = encode_findings(["Hernia", "Infiltrate"])
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(np.flatnonzero(labels), [3, 13])
    assert labels.sum() == 2


@pytest.mark.parametrize("present", [[], [NO_FINDING], [""]])
def test_no_finding_is_all_zero(present):
    np.testing.assert_array_equal(encode_findings(present), np.zeros(14))


def test_other_findings_give_their_own_order():
    np.testing.assert_array_equal(encode_findings(["b"], findings=["c", "b", "a"]), [0, 1, 0])


def test_an_unknown_label_is_refused_rather_than_dropped():
    with pytest.raises(ValueError, match="got 'Fracture'"):
        encode_findings(["Mass", "Fracture"])


def test_a_known_name_is_not_changed():
    assert canonical_finding("Pleural Effusion", ["Pleural Effusion", "Edema"]) == "Pleural Effusion"
    assert canonical_finding("Pleural Effusion") == "Effusion"


@pytest.mark.parametrize(
    ("written", "finding"),
    [("cardiomegaly", "Cardiomegaly"), ("Pleural-Thickening", "Pleural_Thickening"), ("INFILTRATE ", "Infiltration")],
)
def test_another_spelling_of_a_finding_is_harmonised(written, finding):
    assert harmonised_finding(written) == finding


@pytest.mark.parametrize("name", ["Cardiomegali", "Lung Lesion", "rib_fracture"])
def test_a_name_that_is_merely_close_or_wider_keeps_itself(name):
    assert harmonised_finding(f" {name} ") == name


def test_the_observations_of_chexpert_become_the_findings_that_mean_the_same():
    assert len(CHEXPERT_TO_NIH) == 14
    for observation, finding in CHEXPERT_TO_NIH.items():
        assert harmonised_finding(observation) == (finding or observation)
        assert finding is None or finding in FINDINGS


def test_names_compare_without_capitals_and_separators():
    assert loose_name(" Pleural__Thickening-X ") == "pleural thickening x"


@pytest.mark.parametrize(
    "values", [0.25, np.float32(0.25), np.array([0.25, 0.25]), torch.tensor(0.25), (0.25, 0.25), [0.25] * 2], ids=repr
)
def test_a_share_is_one_number_or_one_for_each_finding(values):
    assert checked_shares("threshold", values, 2).tolist() == [0.25, 0.25]


def test_shares_of_half_precision_are_taken():
    assert checked_shares("threshold", torch.tensor([0.5, 0.25], dtype=torch.bfloat16), 2).tolist() == [0.5, 0.25]


def test_the_ends_are_shares_where_they_may_be():
    assert checked_shares("threshold", [0, 1], 2).tolist() == [0, 1]
    for end in (0, 1):
        with pytest.raises(ValueError, match=rf"`threshold` must be inside \(0, 1\), got {end}"):
            checked_shares("threshold", end, 2, open_ends=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (50, r"`threshold` must be in \[0, 1\], got 50"),
        (float("nan"), "got nan"),
        (True, "must be a number or one per finding, got 'True'"),
        (np.bool_(True), "got 'True'"),
        ([0.5, False], "got 'False'"),
        ("0.5", "got '0.5'"),
        (["0.5", 0.5], "got '0.5'"),
        (None, "got 'None'"),
        ([None, 0.5], "got 'None'"),
        (0.5j, "got '0.5j'"),
        ({"Mass": 0.5}, "must be a number or one per finding"),
        ([[0.5, 0.5]], "must be a number or one per finding"),
        ([0.5], r"`threshold` must be one number or 2, got \(1,\)"),
        ([], r"`threshold` must be one number or 2, got \(0,\)"),
    ],
    ids=repr,
)
def test_anything_outside_0_to_1_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        checked_shares("threshold", values, 2)
