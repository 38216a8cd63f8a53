"""The Gaussian error linear unit, and its approximations by a sigmoid and by tanh.

An argument of an exponential is a product here, and its rounding error is a relative error of the
result: 40 ulp at e ** -80. The CUDA bodies correct it. The NumPy bodies compute in float64.
"""

from __future__ import annotations

import numpy as np

from gpunn.backends import scratch_like, widened
from gpunn.ops.elementwise import Activation
from gpunn.typing import Array

_SQRT_HALF = 0.7071067811865476
_SQRT_HALF_REST = -4.833646656726457e-17  # sqrt(1 / 2) minus that float64
_INV_SQRT_2PI = 0.3989422804014327
_END = 40.0  # exp(-x**2 / 2) is 0 beyond, and an infinite x would make NaN of it


def _wide(x: Array) -> Array:
    """Return x in float64, with infinity replaced by a number at which all exponentials are 0."""
    wide = scratch_like(x, np.float64)
    np.clip(x, -1e4, 1e4, out=wide)
    return wide


def _gelu(x: Array, y: Array) -> None:
    from scipy.special import ndtr  # NumPy has no error function

    below = np.maximum(x, -_END, out=scratch_like(x))
    share = ndtr(widened(x, np.float64), out=scratch_like(x, np.float64))
    np.multiply(below, share, out=y, casting="same_kind")


def _gelu_grad(gy: Array, x: Array, gx: Array) -> None:
    from scipy.special import ndtr

    x = _wide(x)
    slope = np.multiply(x, x, out=scratch_like(x))
    np.multiply(slope, -0.5, out=slope)
    np.exp(slope, out=slope)
    np.multiply(slope, _INV_SQRT_2PI, out=slope)
    np.multiply(slope, x, out=slope)
    np.add(slope, ndtr(x, out=scratch_like(x)), out=slope)
    np.multiply(slope, gy, out=gx, casting="same_kind")


_TAIL = (  # erfc(-x / sqrt(2)), corrected for the rounding error of its argument; e = exp(-z z)
    f"const T c = T({_SQRT_HALF}), low = T(({_SQRT_HALF} - (double)c) + {_SQRT_HALF_REST}); "
    "const T z = -x * c, rest = fma(-x, c, -z) - x * low; "
    "const T by = rest * T(1.1283791670955126) * e; "
    "const T tail = by - by == T(0) ? erfc(z) - by : erfc(z); "
)

gelu = Activation(
    "gelu",
    """Gaussian error linear unit, y = x * Phi(x), with Phi the normal distribution function.

    Gradient:
        gx = gy * (Phi(x) + x * phi(x)), from x.

    Numerics:
        The relative error is a few ulp, also far below 0, or |x| times the smallest subnormal
        number. In float64 on the CPU it grows as x**2 machine epsilons. The gradient cancels near
        x = -0.75: an error is a few machine epsilons of gy (Phi(x) + |x| phi(x)).

    Reference:
        Hendrycks and Gimpel (2016); lecture 001.
    """,
    saves="x",
    gain="he",
    numpy=_gelu,
    cuda=(
        f"const T e = exp(T(-0.5) * x * x); {_TAIL} "
        f"y = T(0.5) * (x < T(-{_END}) ? T(-{_END}) : x) * tail;"
    ),
    grad_numpy=_gelu_grad,
    grad_cuda=(
        f"const T near = x < T(-{_END}) ? T(-{_END}) : x > T({_END}) ? T({_END}) : x; "
        f"const T e = exp_of_product(near, T(0), T(-0.5) * near); {_TAIL} "
        f"gx = gy * (T(0.5) * tail + near * T({_INV_SQRT_2PI}) * e);"
    ),
)

_SLOPE = 1.702


def _gate(x: Array, steepness: Array | float = _SLOPE) -> tuple[Array, Array]:
    """Return sigmoid(k x) and sigmoid(-k x) in float64, for a steepness k of 1.702 or (...)."""
    small = np.abs(x, out=scratch_like(x))
    np.multiply(small, steepness, out=small)
    np.exp(np.negative(small, out=small), out=small)
    share = np.reciprocal(np.add(small, 1, out=scratch_like(x)), out=scratch_like(x))
    np.multiply(small, share, out=small)
    below = np.less(x, 0, out=scratch_like(x, np.bool_))
    gate = scratch_like(x)
    np.copyto(gate, share)
    np.copyto(gate, small, where=below)
    np.copyto(small, share, where=below)
    return gate, small


def _gelu_sigmoid(x: Array, y: Array) -> None:
    gate, _ = _gate(_wide(x))
    np.multiply(np.maximum(x, -1e4, out=scratch_like(x)), gate, out=y, casting="same_kind")


def _gelu_sigmoid_grad(gy: Array, x: Array, gx: Array) -> None:
    x = _wide(x)
    gate, rest = _gate(x)
    np.multiply(rest, x, out=rest)
    np.multiply(rest, _SLOPE, out=rest)
    np.add(rest, 1, out=rest)
    np.multiply(rest, gate, out=rest)
    np.multiply(rest, gy, out=gx, casting="same_kind")


_EXPONENTIAL = (
    f"const T c = T(-{_SLOPE}), low = T(-{_SLOPE} - (double)c); "
    "const T small = exp_of_product(c, low, abs(x)); "
)

gelu_sigmoid = Activation(
    "gelu_sigmoid",
    """The sigmoid approximation of GELU, y = x * sigmoid(1.702 x), with an error below 0.0204.

    Gradient:
        gx = gy * s * (1 + 1.702 x (1 - s)) with s = sigmoid(1.702 x), from x.

    Numerics:
        As for `gelu`; in float64 on the CPU the relative error grows as 2 |x| machine epsilons.

    Reference:
        Hendrycks and Gimpel (2016); lecture 001.
    """,
    saves="x",
    gain="he",
    numpy=_gelu_sigmoid,
    cuda=(
        f"{_EXPONENTIAL} "
        "y = (x < T(-1e4) ? T(-1e4) : x) * (x < T(0) ? small : T(1)) / (T(1) + small);"
    ),
    grad_numpy=_gelu_sigmoid_grad,
    grad_cuda=(
        f"{_EXPONENTIAL} const T near = x < T(-1e4) ? T(-1e4) : x > T(1e4) ? T(1e4) : x; "
        "const T s = (x < T(0) ? small : T(1)) / (T(1) + small); "
        f"const T other = (x < T(0) ? T(1) : small) / (T(1) + small); "
        f"gx = gy * s * (T(1) + T({_SLOPE}) * near * other);"
    ),
)

_LINE = 1.5957691216057308  # 2 sqrt(2 / pi)
_LINE_REST = -9.96930880911092e-17  # 2 sqrt(2 / pi) minus that float64
_CUBE = 0.07135481627260025  # 0.044715 times it
_CUBE_REST = -6.175149918155315e-19  # 0.044715 * 2 sqrt(2 / pi) minus that float64


def _steepness(x: Array, times: float = 1.0) -> Array:
    """Return 2 sqrt(2 / pi) (1 + times * 0.044715 x**2) in float64, for limited x."""
    found = np.multiply(x, x, out=scratch_like(x))
    np.multiply(found, times * _CUBE, out=found)
    return np.add(found, _LINE, out=found)


def _limited(x: Array) -> Array:
    """Return x in float64, limited to numbers whose third power is no infinity."""
    wide = scratch_like(x, np.float64)
    np.clip(x, -_END, _END, out=wide)
    return wide


def _gelu_tanh(x: Array, y: Array) -> None:
    near = _limited(x)
    gate, _ = _gate(near, _steepness(near))
    np.multiply(np.maximum(x, -_END, out=scratch_like(x)), gate, out=y, casting="same_kind")


def _gelu_tanh_grad(gy: Array, x: Array, gx: Array) -> None:
    x = _limited(x)
    gate, rest = _gate(x, _steepness(x))
    np.multiply(rest, x, out=rest)
    np.multiply(rest, _steepness(x, 3.0), out=rest)
    np.add(rest, 1, out=rest)
    np.multiply(rest, gate, out=rest)
    np.multiply(rest, gy, out=gx, casting="same_kind")


_CUBIC = (  # small = exp(-2 u), with the factor of |x| in 2 u in two parts
    f"const T line = T({_LINE}), line_low = T(({_LINE} - (double)line) + {_LINE_REST}); "
    f"const T cube = T({_CUBE}), cube_low = T(({_CUBE} - (double)cube) + {_CUBE_REST}); "
    f"const T near = x < T(-{_END}) ? T(-{_END}) : x > T({_END}) ? T({_END}) : x; "
    "const T square = near * near, bend = cube * square, steep = line + bend; "
    "const T low = rest_of_sum(line, bend, steep) + line_low + fma(cube, square, -bend) "
    "+ cube_low * square + cube * fma(near, near, -square); "
    "const T small = exp_of_product(-steep, -low, abs(near)); "
)

gelu_tanh = Activation(
    "gelu_tanh",
    """The tanh approximation of GELU, y = x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))).

    It is `GELU(approximate="tanh")` of PyTorch. It is within 0.0005 of `gelu`.

    Gradient:
        gx = gy * s * (1 + x (1 - s) k'), with s = sigmoid(2 sqrt(2 / pi) (x + 0.044715 x**3)) and
        k' = 2 sqrt(2 / pi) (1 + 3 * 0.044715 x**2), from x.

    Numerics:
        The tanh is computed as the sigmoid s, so a y far below 0 has all its digits. The rest is as
        for `gelu`; in float64 on the CPU the relative error grows as |x|**3 / 7 machine epsilons.

    Reference:
        Hendrycks and Gimpel (2016).
    """,
    saves="x",
    gain="he",
    numpy=_gelu_tanh,
    cuda=(
        f"{_CUBIC} y = (x < T(-{_END}) ? T(-{_END}) : x) * (x < T(0) ? small : T(1)) "
        "/ (T(1) + small);"
    ),
    grad_numpy=_gelu_tanh_grad,
    grad_cuda=(
        f"{_CUBIC} const T s = (x < T(0) ? small : T(1)) / (T(1) + small); "
        "const T other = (x < T(0) ? T(1) : small) / (T(1) + small); "
        f"gx = gy * s * (T(1) + near * other * (T({_LINE}) + T(3) * bend));"
    ),
)
