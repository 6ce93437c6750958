# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Findings: their order, their spellings, and label vectors."""

import numpy as np
import pytest

from clarity_hf.labels import ALIASES, BOXED_FINDINGS, FINDINGS, NO_FINDING, canonical_finding, encode_findings


def test_the_order_is_that_of_the_nih_release():
    assert len(FINDINGS) == len(set(FINDINGS)) == 14
    assert FINDINGS[0] == "Atelectasis"
    assert FINDINGS[4] == "Mass"
    assert FINDINGS[-2:] == ("Pleural_Thickening", "Hernia")


def test_the_boxed_findings_are_the_first_eight():
    assert BOXED_FINDINGS[-1] == "Pneumothorax"
    assert len(BOXED_FINDINGS) == 8


@pytest.mark.parametrize(("given", "used"), [*ALIASES.items(), (" Mass ", "Mass"), ("Hernia", "Hernia")])
def test_other_spellings_are_mended(given, used):
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
