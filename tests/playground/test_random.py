"""Initial weights and orders of the page, which JavaScript makes of the generator's words."""

from __future__ import annotations

import numpy as np
import pytest

from gpunn.backends.random import SHUFFLE_STREAM, Draw, permutation
from gpunn.nn.init import GAINS

WEIGHTS = """([inputs, outputs, gain, seed, stream]) =>
  Array.from(playground.training.random.weights(inputs, outputs, gain, seed, stream))"""
ORDER = "([n, seed, epoch]) => playground.training.random.permutation(n, seed, epoch)"


@pytest.mark.parametrize("gain", GAINS)
def test_weights_have_the_bits_of_the_library(gain, page):
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 2), (3, 5), (16, 8), (400, 500)]
    for shape in [*shapes, *(tuple(rng.integers(1, 17, 2).tolist()) for _ in range(40))]:
        seed, stream = (int(n) for n in rng.integers(0, 2**31, 2))
        found = page.evaluate(WEIGHTS, [*shape, gain, seed, stream])
        expected = GAINS[gain](shape, Draw((seed, stream), 0)).astype(np.float32).ravel()
        np.testing.assert_array_equal(np.array(found, np.float32), expected)


def test_orders_are_those_of_the_library(page):
    for n in (1, 2, 3, 32, 200, 300, 5000):
        for seed, epoch in ((0, 1), (5, 77), (2**53 - 1, 3)):
            expected = permutation(n, seed, SHUFFLE_STREAM, epoch).tolist()
            assert page.evaluate(ORDER, [n, seed, epoch]) == expected
