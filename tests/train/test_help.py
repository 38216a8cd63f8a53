"""What a trainer tells its user: probabilities, and data of a scale that a network learns badly."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import gpunn as gn
from gpunn import nn
from gpunn.errors import ArgumentError


def fit(net, x, y, loss, **options):
    trainer = gn.Trainer(net, loss)
    trainer.fit(x, y, epochs=1, progress=False, **options)
    return trainer


@pytest.mark.parametrize(
    ("loss", "outputs", "last"),
    [
        ("softmax_cross_entropy", 3, "identity"),
        ("binary_cross_entropy_with_logits", 1, "identity"),
        ("binary_cross_entropy", 1, "sigmoid"),
    ],
)
def test_probabilities_of_classes(loss, outputs, last, device, rng):
    x = rng.standard_normal((40, 4)).astype(np.float32)
    y = np.arange(40) % max(2, outputs)
    net = nn.Sequential(nn.Linear(4, outputs, last, seed=1)).to(device)
    y = y if outputs > 1 else y.astype(np.float32)
    trainer = fit(net, x, y, loss)
    found = trainer.predict_proba(x)
    assert found.shape == (40, max(2, outputs))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    scores = trainer.predict(x).astype(np.float64)
    if last == "sigmoid":
        np.testing.assert_allclose(found[:, 1], scores[:, 0], rtol=1e-6)
    elif outputs == 1:
        np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-scores[:, 0])), rtol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), trainer.classify(x))


@pytest.mark.parametrize("loss", ["hinge", "squared_error", "multiclass_hinge"])
def test_scores_that_are_no_probabilities(loss):
    trainer = gn.Trainer(nn.Linear(4, 3, seed=1), loss)
    with pytest.raises(ArgumentError, match="no probabilities"):
        trainer.predict_proba(np.zeros((2, 4), np.float32))


def test_unscaled_data_are_told_once(caplog, rng):
    x, y = rng.standard_normal((50, 3)), rng.integers(0, 2, 50)
    large, prices = x * [1, 1, 5000], (1e5 * rng.random((50, 1))).astype(np.float32)
    with caplog.at_level(logging.WARNING, "gpunn"):
        fit(nn.Linear(3, 2), x, y, "softmax_cross_entropy")
        scaled = nn.Sequential(nn.Standardize.fit(large), nn.Linear(3, 2))
        fit(scaled, large, y, "softmax_cross_entropy")
        assert not caplog.records
        net = nn.Linear(3, 2)
        for _ in range(2):
            fit(net, large, y, "softmax_cross_entropy")
        (told,) = caplog.records
        assert "Standardize.fit(x)" in told.getMessage()
        fit(nn.Linear(3, 1), x, prices, "squared_error")
        assert "targets of a size up to" in caplog.records[-1].getMessage()
