"""The arithmetic of a GPU on the stand-in: one rounding for a * b + c, and small numbers as 0."""

import numpy as np
import pytest

from tests.standin.compiler import arithmetic, why_no, why_unavailable
from tests.standin.host_kernel import HostRawKernel

pytestmark = pytest.mark.skipif(
    bool(why_unavailable() or why_no("card")), reason=why_unavailable() or why_no("card") or "-"
)
REST = "y[threadIdx.x] = x[threadIdx.x] * w[threadIdx.x] - p[threadIdx.x];"
TINY = "y[threadIdx.x] = x[threadIdx.x] * w[threadIdx.x];"


def computed(body, x, w, p):
    text = (
        'extern "C" __global__ void planted(const float* x, const float* w, const float* p, '
        f"float* y) {{ {body} }}"
    )
    y = np.full(x.shape, np.nan, np.float32)
    HostRawKernel(text, "planted")((1,), (len(x),), (x, w, p, y))
    return y


def given(*numbers):
    return [np.array([n, n], np.float32) for n in numbers]


@pytest.mark.parametrize(
    ("name", "fuses"), [("exact", False), ("fma", True), ("ftz", False), ("card", True)]
)
def test_a_planted_difference_of_products_is_found_where_it_rounds_once(name, fuses):
    """Its two roundings cancel, unless the product is not rounded."""
    x, w = given(1 + 2.0**-12, 1 + 2.0**-12)
    with arithmetic(name):
        assert (computed(REST, x, w, x * w) != 0).all() == fuses


@pytest.mark.parametrize(
    ("name", "flushes"), [("exact", False), ("fma", False), ("ftz", True), ("card", True)]
)
def test_a_planted_small_number_is_lost_where_it_counts_as_0(name, flushes):
    with arithmetic(name):
        for x in (1e-30, 1e-40):  # a small result, and a small argument
            assert (computed(TINY, *given(x, 1e-10, 0)) == 0).all() == (flushes or x < 1e-39)
        assert (computed(TINY, *given(1e-40, 1e10, 0)) == 0).all() == flushes
    assert np.float32(1e-40) * np.float32(1) != 0  # the host computes as before
