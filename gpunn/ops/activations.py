"""The activations. Each is declared once: its formula and its derivative, in NumPy and in CUDA.

The string name, the fused kernels, the tests and the use in every layer follow from the
declaration; see `gpunn.ops.elementwise`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from gpunn.autograd import OPS
from gpunn.backends import scratch_like
from gpunn.ops.elementwise import ACTIVATIONS, Activation, Option
from gpunn.ops.reductions import TABLE_ROWS
from gpunn.typing import Array


def _logistic(x: Array, y: Array) -> None:
    small = np.negative(np.abs(x, out=scratch_like(x)), out=scratch_like(x))
    np.exp(small, out=small)  # at most 1, so it overflows nowhere
    np.greater_equal(x, 0, out=y)
    np.maximum(y, small, out=y)
    np.divide(y, np.add(small, 1, out=small), out=y)


def _times_one_minus_square(gy: Array, y: Array, gx: Array) -> None:
    np.multiply(y, y, out=gx)
    np.subtract(1, gx, out=gx)
    np.multiply(gx, gy, out=gx)


def _sigmoid_grad(gy: Array, y: Array, gx: Array) -> None:
    np.subtract(1, y, out=gx)
    np.multiply(gx, y, out=gx)
    np.multiply(gx, gy, out=gx)


sigmoid = Activation(
    "sigmoid",
    """Logistic sigmoid, y = 1 / (1 + exp(-x)).

    Gradient:
        gx = gy * y * (1 - y), from y alone.

    Numerics:
        No overflow for any x; relative error of a few ulp, also of a subnormal y. The gradient
        has an absolute error of a machine epsilon of gy, as y near 1 has lost the digits of 1 - y.

    Reference:
        Lecture 002, "elegant gradient".
    """,
    numpy=_logistic,
    cuda="const T small = exp(-abs(x)); y = (x < T(0) ? small : T(1)) / (T(1) + small);",
    grad_numpy=_sigmoid_grad,
    grad_cuda="gx = gy * y * (T(1) - y);",
)


for _names in (ACTIVATIONS, OPS):
    _names["logistic"] = sigmoid  # scikit-learn's name for it
logistic = sigmoid

tanh = Activation(
    "tanh",
    """Hyperbolic tangent, y = tanh(x) = 2 sigmoid(2 x) - 1.

    Gradient:
        gx = gy * (1 - y**2), from y alone.

    Numerics:
        The gradient has an absolute error of two machine epsilons of gy, as y near 1 has lost the
        digits of 1 - y.
    """,
    numpy=lambda x, y: np.tanh(x, out=y),
    cuda="y = tanh(x);",
    grad_numpy=_times_one_minus_square,
    grad_cuda="gx = gy * (T(1) - y * y);",
)

SMALL = 16_384  # elements: so many zeros fit into a core's L2 cache


@lru_cache(maxsize=8)
def _zeros(dtype: Any) -> Array:
    return np.zeros(TABLE_ROWS, dtype)


def _zero(x: Array) -> Array:
    """Return zeros to compare x with, because NumPy's maximum is vectorised only between arrays.

    A small x gets zeros of its own shape, so that one loop does the work. A large x gets a single
    row of zeros, with which NumPy compares row after row.
    """
    if x.size <= SMALL:
        return _zeros(x.dtype)[: x.size].reshape(x.shape)
    columns = x.shape[-1] if x.ndim else 1
    return _zeros(x.dtype)[:columns] if columns <= TABLE_ROWS else np.zeros(columns, x.dtype)


_BITS = {2: np.int16, 4: np.int32, 8: np.int64}


def _where(compare: np.ufunc, x: Array, gy: Array, gx: Array) -> None:
    """Write gy where a comparison of x with 0 holds, else 0.

    It works on bits, because 0 times infinity is NaN.
    """
    bits = gx.view(_BITS[gx.dtype.itemsize])
    compare(x, 0, out=bits)
    np.negative(bits, out=bits)  # -1 has all bits
    np.bitwise_and(bits, gy.view(bits.dtype), out=bits)


def _relu_grad(gy: Array, y: Array, gx: Array) -> None:
    _where(np.greater, y, gy, gx)


relu = Activation(
    "relu",
    """Rectified linear unit, y = max(x, 0). NaN stays NaN.

    Gradient:
        gx = gy where y > 0, else 0. At x = 0 the derivative is 0, as in lecture 000, scikit-learn
        and PyTorch. Lecture 002 prints 1 there; `relu_right` follows it.
    """,
    saves="sign",
    gain="he",
    numpy=lambda x, y: np.maximum(x, _zero(x), out=y),
    cuda="y = x < T(0) ? T(0) : x;",
    grad_numpy=_relu_grad,
    grad_cuda="gx = y > T(0) ? gy : T(0);",
    kinks=(0.0,),
    epilogue="relu_bias",
)


def _relu_right_grad(gy: Array, x: Array, gx: Array) -> None:
    _where(np.greater_equal, x, gy, gx)


relu_right = Activation(
    "relu_right",
    """Rectified linear unit, y = max(x, 0), with its derivative from the right at 0.

    Prefer `relu`, which keeps one array less. The two differ only at x = 0 (and x = -0.0).

    Gradient:
        gx = gy where x >= 0, else 0, from x. At x = 0 it is gy, as lecture 002 prints it.
    """,
    saves="x",
    gain="he",
    numpy=lambda x, y: np.maximum(x, _zero(x), out=y),
    cuda="y = x < T(0) ? T(0) : x;",
    grad_numpy=_relu_right_grad,
    grad_cuda="gx = x >= T(0) ? gy : T(0);",
    kinks=(0.0,),
)


def _leaky_relu_grad(gy: Array, y: Array, slope: float, gx: Array) -> None:
    np.greater(y, 0, out=gx)
    np.maximum(gx, slope, out=gx)  # gives 1 or slope, because slope < 1
    np.multiply(gx, gy, out=gx)


leaky_relu = Activation(
    "leaky_relu",
    """Leaky rectified linear unit, y = max(slope * x, x), slope 0.1 as in lecture 001.

    Args:
        x: (...) floats.
        slope: the derivative below 0, 0 < slope < 1.

    Gradient:
        gx = gy where y > 0, else slope * gy (also at 0).
    """,
    saves="sign",
    options={"slope": Option(0.1, 0.0, 1.0)},
    gain="he",
    numpy=lambda x, slope, y: np.maximum(x, np.multiply(x, slope, out=scratch_like(x)), out=y),
    cuda="y = x < T(0) ? T(slope * x) : x;",
    grad_numpy=_leaky_relu_grad,
    grad_cuda="gx = y > T(0) ? gy : T(slope * gy);",
    kinks=(0.0,),
)


def _elu(x: Array, alpha: float, y: Array) -> None:
    below = np.minimum(x, _zero(x), out=scratch_like(x))
    np.expm1(below, out=below)
    np.multiply(below, alpha, out=below)
    np.maximum(x, _zero(x), out=y)
    np.add(y, below, out=y)  # one of the two is 0


def _elu_grad(gy: Array, y: Array, alpha: float, gx: Array) -> None:
    np.minimum(y, _zero(y), out=gx)
    np.add(gx, alpha, out=gx)
    if alpha != 1:
        np.copyto(gx, 1, where=y > 0)
    np.multiply(gx, gy, out=gx)


elu = Activation(
    "elu",
    """Exponential linear unit, y = x for x > 0, else alpha * (exp(x) - 1).

    Args:
        x: (...) floats.
        alpha: above 0; y approaches -alpha for x far below 0.

    Gradient:
        gx = gy where y > 0, else gy * (y + alpha).

    Numerics:
        The gradient has an absolute error of a machine epsilon of alpha gy, as y near -alpha has
        lost the digits of y + alpha.

    Reference:
        Clevert et al. (2016); lecture 001.
    """,
    options={"alpha": Option(1.0)},
    gain="he",
    numpy=_elu,
    cuda="y = x > T(0) ? x : T(alpha * expm1(x));",
    grad_numpy=_elu_grad,
    grad_cuda="gx = y > T(0) ? gy : T(gy * (y + alpha));",
)

hard_threshold = Activation(
    "hard_threshold",
    """Hard threshold, y = 1 where x > 0, else 0.

    Gradient:
        None. The derivative is 0 wherever it exists, so gradients cannot train the layers before
        it. An optimizer raises `GradientError` for a parameter without a gradient.

    Reference:
        Lectures 003 and 004.
    """,
    numpy=lambda x, y: np.greater(x, 0, out=y),
    cuda="y = x > T(0) ? T(1) : T(0);",
    grad_numpy=lambda gy, y, gx: gx.fill(0),
    grad_cuda="gx = T(0);",
    kinks=(0.0,),
    differentiable=False,
)

identity = Activation(
    "identity",
    """The identity, y = x, for linear output layers.

    Gradient:
        gx = gy.
    """,
    saves="",
    numpy=lambda x, y: np.copyto(y, x),
    cuda="y = x;",
    grad_numpy=lambda gy, y, gx: np.copyto(gx, gy),
    grad_cuda="gx = gy;",
    epilogue="bias",
)
