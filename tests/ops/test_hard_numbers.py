"""Inputs on which a naive formula loses its digits."""

from __future__ import annotations

import numpy as np
import pytest

import gpunn as gn
from gpunn import ops
from gpunn.backends.kernel import KERNELS

ROUNDING = 2e-7  # of a float32 sum of exponentials, the largest of which is 1


@pytest.mark.parametrize(
    ("scores", "exact"),
    [
        ((84.36083984375, 80.99874114990234), 0.03407523),
        ((10000.0, 9995.0), 0.006715348),
        ((1e7, 1e7), 0.6931472),
        ((3e38, 3e38), 0.6931472),
        ((-1e30, -1e30), 0.6931472),
    ],
)
def test_the_cross_entropy_of_large_scores(scores, exact, device, native):
    z = np.array([scores], np.float32)
    labels = gn.backend(device).upload(np.zeros(1, np.int64))
    loss = ops.softmax_cross_entropy(gn.tensor(z, device=device), labels)
    assert loss.item() == pytest.approx(exact, abs=ROUNDING)
    losses, gz, total = np.empty(1, np.float32), np.empty_like(z), np.empty((), np.float32)
    given = (z, np.zeros(1, np.int64), losses, gz, total, 1.0, 1.0, 2, 1)
    call = native.rows(KERNELS["softmax_cross_entropy"], given)
    call.run(*call.args)
    assert float(total) == pytest.approx(exact, abs=ROUNDING)
