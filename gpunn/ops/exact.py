"""The rounding errors of differences, as numbers, in NumPy. `exact.h` has the same for kernels."""

from __future__ import annotations

import numpy as np

from gpunn.backends import scratch_like
from gpunn.typing import Array

CHUNK = 32_768  # elements


def rest_of_difference(a: Array, b: Array, difference: Array) -> Array:
    """Return (a - b) - difference in scratch memory, where `difference` is the rounded a - b.

    Where the difference is not finite, the rest is a finite number without meaning.
    """
    part = np.subtract(difference, a, out=scratch_like(difference))
    rest = np.subtract(difference, part, out=scratch_like(difference))
    np.subtract(a, rest, out=rest)
    np.subtract(rest, np.add(part, b, out=part), out=rest)
    return np.fmin(rest, np.finfo(rest.dtype).max, out=rest)


def exp_of_difference(a: Array, b: Array, out: Array) -> Array:
    """Write exp(a - b) to an array (N, ...) other than a, and return it.

    The rounding error of a - b would be a relative error of the result: 40 ulp of e ** -80.

    Args:
        a: (N, ...).
        b: (N, ...) or (1, ...), with sizes of 1 where it is repeated.
        out: (N, ...).
    """
    rows = max(1, CHUNK * len(out) // max(out.size, 1))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(out), rows):  # parts stay in the cache
            part = slice(start, start + rows)
            x, y, by = a[part], out[part], b[part] if len(b) > 1 else b
            np.subtract(x, by, out=y)
            rest = rest_of_difference(x, by, y)
            np.exp(y, out=y)
            np.add(y, np.multiply(rest, y, out=rest), out=y)
    return out
