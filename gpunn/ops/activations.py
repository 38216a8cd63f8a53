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
from gpunn.typing import Array, Shape


def _logistic(x: Array, y: Array) -> None:
    np.negative(x, out=y)
    with np.errstate(over="ignore"):  # exp overflows to inf, whose reciprocal is the right 0
        np.exp(y, out=y)
    np.add(y, 1, out=y)
    np.reciprocal(y, out=y)


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
        No overflow for any x; relative error of a few ulp.

    Reference:
        Lecture 002, "elegant gradient".
    """,
    numpy=_logistic,
    cuda="y = T(1) / (T(1) + exp(-x));",
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
    """,
    numpy=lambda x, y: np.tanh(x, out=y),
    cuda="y = tanh(x);",
    grad_numpy=_times_one_minus_square,
    grad_cuda="gx = gy * (T(1) - y * y);",
)

SMALL = 16_384  # elements: so many zeros fit into a core's L2 cache


@lru_cache(maxsize=16)
def _zeros(shape: Shape, dtype: Any) -> Array:
    return np.zeros(shape, dtype)


def _zero(x: Array) -> Array:
    """Return zeros to compare x with, because NumPy's maximum is vectorised only between arrays.

    A small x gets zeros of its own shape, so that one loop does the work. A large x gets a single
    row of zeros, with which NumPy compares row after row.
    """
    return _zeros(x.shape if x.size <= SMALL else x.shape[-1:], x.dtype)


def _relu_grad(gy: Array, y: Array, gx: Array) -> None:
    np.greater(y, 0, out=gx)
    np.multiply(gx, gy, out=gx)


relu = Activation(
    "relu",
    """Rectified linear unit, y = max(x, 0). NaN stays NaN.

    Gradient:
        gx = gy where y > 0, else 0. At x = 0 the derivative is 0, as in lecture 000, scikit-learn
        and PyTorch. Lecture 002 prints 1 there; `relu_right` follows it.
    """,
    gain="he",
    numpy=lambda x, y: np.maximum(x, _zero(x), out=y),
    cuda="y = x < T(0) ? T(0) : x;",
    grad_numpy=_relu_grad,
    grad_cuda="gx = y > T(0) ? gy : T(0);",
    kinks=(0.0,),
    epilogue="relu_bias",
)


def _relu_right_grad(gy: Array, x: Array, gx: Array) -> None:
    np.greater_equal(x, 0, out=gx)
    np.multiply(gx, gy, out=gx)


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
        above = np.greater(y, 0, out=scratch_like(y))
        np.add(gx, np.multiply(above, 1 - alpha, out=above), out=gx)
    np.multiply(gx, gy, out=gx)


elu = Activation(
    "elu",
    """Exponential linear unit, y = x for x > 0, else alpha * (exp(x) - 1).

    Args:
        x: (...) floats.
        alpha: above 0; y approaches -alpha for x far below 0.

    Gradient:
        gx = gy where y > 0, else gy * (y + alpha).

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

_SQRT_HALF = 0.7071067811865476
_INV_SQRT_2PI = 0.3989422804014327


def _normal_cdf(x: Array) -> Array:
    from scipy.special import ndtr  # NumPy has no error function

    return ndtr(x, out=scratch_like(x))


def _gelu_grad(gy: Array, x: Array, gx: Array) -> None:
    np.multiply(x, x, out=gx)
    np.multiply(gx, -0.5, out=gx)
    np.exp(gx, out=gx)
    np.multiply(gx, _INV_SQRT_2PI, out=gx)
    np.multiply(gx, x, out=gx)
    np.add(gx, _normal_cdf(x), out=gx)
    np.multiply(gx, gy, out=gx)


gelu = Activation(
    "gelu",
    """Gaussian error linear unit, y = x * Phi(x), with Phi the normal distribution function.

    Gradient:
        gx = gy * (Phi(x) + x * phi(x)), from x.

    Reference:
        Hendrycks and Gimpel (2016); lecture 001.
    """,
    saves="x",
    gain="he",
    numpy=lambda x, y: np.multiply(x, _normal_cdf(x), out=y),
    cuda=f"y = T(0.5) * x * erfc(-x * T({_SQRT_HALF}));",
    grad_numpy=_gelu_grad,
    grad_cuda=(
        f"gx = gy * (T(0.5) * erfc(-x * T({_SQRT_HALF})) "
        f"+ x * T({_INV_SQRT_2PI}) * exp(-T(0.5) * x * x));"
    ),
)


def _gelu_sigmoid(x: Array, y: Array) -> None:
    gate = np.multiply(x, 1.702, out=scratch_like(x))
    _logistic(gate, gate)
    np.multiply(x, gate, out=y)


def _gelu_sigmoid_grad(gy: Array, x: Array, gx: Array) -> None:
    gate = np.multiply(x, 1.702, out=scratch_like(x))
    _logistic(gate, gate)
    np.subtract(1, gate, out=gx)
    np.multiply(gx, x, out=gx)
    np.multiply(gx, 1.702, out=gx)
    np.add(gx, 1, out=gx)
    np.multiply(gx, gate, out=gx)
    np.multiply(gx, gy, out=gx)


gelu_sigmoid = Activation(
    "gelu_sigmoid",
    """The sigmoid approximation of GELU, y = x * sigmoid(1.702 x), with an error below 0.0204.

    Gradient:
        gx = gy * s * (1 + 1.702 x (1 - s)) with s = sigmoid(1.702 x), from x.

    Reference:
        Hendrycks and Gimpel (2016); lecture 001.
    """,
    saves="x",
    gain="he",
    numpy=_gelu_sigmoid,
    cuda="y = x / (T(1) + exp(-T(1.702) * x));",
    grad_numpy=_gelu_sigmoid_grad,
    grad_cuda=(
        "T s = T(1) / (T(1) + exp(-T(1.702) * x)); "
        "gx = gy * s * (T(1) + T(1.702) * x * (T(1) - s));"
    ),
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
    grad_numpy=lambda gy, y, gx: np.multiply(gy, 0, out=gx),
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
