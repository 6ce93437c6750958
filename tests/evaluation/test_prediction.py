# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Scores and boxes of many films, batch by batch."""

import numpy as np
import pytest

from clarity_hf import ClarityImageProcessor
from clarity_hf.evaluation import predict


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_every_film_is_predicted_once_with_every_finding_boxed(tiny_model, film, batch_size):
    processor = ClarityImageProcessor(size={"height": 64, "width": 64})
    films = [film, film.T, np.ascontiguousarray(film[:, ::-1])]
    results = list(predict(tiny_model, processor, iter(films), batch_size))
    assert len(results) == 3
    for source, result in zip(films, results, strict=True):
        alone = next(predict(tiny_model, processor, [source]))
        np.testing.assert_allclose(result["finding_scores"], alone["finding_scores"], atol=1e-5)
        np.testing.assert_allclose(result["boxes"], alone["boxes"], atol=1)
        assert set(result["labels"].tolist()) == {finding for finding in range(14)}
        height, width = source.shape
        assert (result["boxes"][:, 2] <= width).all()
        assert (result["boxes"][:, 3] <= height).all()
