"""Smooth activations: SELU, softplus, SiLU and Mish.

In the bodies, `a` is exp(-|x|), which is at most 1, so nothing overflows.
"""

from __future__ import annotations

import numpy as np

from gpunn.backends import scratch_like
from gpunn.ops.elementwise import Activation
from gpunn.typing import Array

_SELU_SCALE = 1.0507009873554805
_SELU_ALPHA = 1.6732632423543772
_SELU_LOW = _SELU_SCALE * _SELU_ALPHA


def _selu(x: Array, y: Array) -> None:
    below = np.minimum(x, 0, out=scratch_like(x))
    np.expm1(below, out=below)
    np.multiply(below, _SELU_LOW, out=below)
    np.maximum(x, 0, out=y)
    np.multiply(y, _SELU_SCALE, out=y)
    np.add(y, below, out=y)  # one of the two is 0


def _selu_grad(gy: Array, y: Array, gx: Array) -> None:
    np.minimum(y, 0, out=gx)
    np.add(gx, _SELU_LOW, out=gx)
    np.copyto(gx, _SELU_SCALE, where=y > 0)
    np.multiply(gx, gy, out=gx)


selu = Activation(
    "selu",
    """Scaled exponential linear unit, y = 1.0507 x for x > 0, else 1.7581 (exp(x) - 1).

    Gradient:
        gx = 1.0507 gy where y > 0, else gy * (y + 1.7581), from y alone.

    Numerics:
        As for `elu`.

    Reference:
        Klambauer et al. (2017).
    """,
    numpy=_selu,
    cuda=f"y = x > T(0) ? T(T({_SELU_SCALE}) * x) : T(T({_SELU_LOW}) * expm1(x));",
    grad_numpy=_selu_grad,
    grad_cuda=f"gx = y > T(0) ? T(T({_SELU_SCALE}) * gy) : T(gy * (y + T({_SELU_LOW})));",
    kinks=(0.0,),
)


def _powers(x: Array) -> tuple[Array, Array]:
    """Return x, limited so that 0 * infinity does not arise, and exp(-|x|)."""
    near = np.clip(x, -1e4, None, out=scratch_like(x))
    a = np.abs(near, out=scratch_like(x))
    return near, np.exp(np.negative(a, out=a), out=a)


def _softplus(x: Array, y: Array) -> None:
    a = np.abs(x, out=scratch_like(x))
    np.log1p(np.exp(np.negative(a, out=a), out=a), out=a)
    np.add(np.maximum(x, 0, out=y), a, out=y)


def _softplus_grad(gy: Array, x: Array, gx: Array) -> None:
    _, a = _powers(x)
    np.multiply(gy, np.where(x < 0, a, 1) / (a + 1), out=gx)


softplus = Activation(
    "softplus",
    """A smooth rectifier, y = log(1 + exp(x)).

    Gradient:
        gx = gy * sigmoid(x), from x.

    Numerics:
        No overflow for any x; relative error of a few ulp.

    Reference:
        Dugas et al. (2000).
    """,
    saves="x",
    gain="he",
    numpy=_softplus,
    cuda="y = (x > T(0) ? x : T(0)) + log1p(exp(-abs(x)));",
    grad_numpy=_softplus_grad,
    grad_cuda=("const T a = exp(-abs(x)); gx = gy * (x < T(0) ? a : T(1)) / (T(1) + a);"),
)


def _silu(x: Array, y: Array) -> None:
    near, a = _powers(x)
    share = np.divide(np.where(x < 0, a, 1), a + 1, dtype=x.dtype)
    np.multiply(near, share, out=y)


def _silu_grad(gy: Array, x: Array, gx: Array) -> None:
    near, a = _powers(np.minimum(x, 1e4))
    share, other = np.where(x < 0, a, 1) / (a + 1), np.where(x < 0, 1, a) / (a + 1)
    np.multiply(gy, share * (1 + near * other), out=gx)


silu = Activation(
    "silu",
    """Sigmoid linear unit, also known as swish: y = x * sigmoid(x).

    Gradient:
        gx = gy * s * (1 + x (1 - s)) with s = sigmoid(x), from x.

    Numerics:
        The relative error is a few ulp, or |x| times the smallest subnormal number. The gradient
        cancels near x = -1.28: an error is a few machine epsilons of gy s (1 + |x| (1 - s)).

    Reference:
        Hendrycks and Gimpel (2016); Ramachandran et al. (2017).
    """,
    saves="x",
    gain="he",
    numpy=_silu,
    cuda=(
        "const T a = exp(-abs(x)); "
        "y = (x < T(-1e4) ? T(-1e4) : x) * ((x < T(0) ? a : T(1)) / (T(1) + a));"
    ),
    grad_numpy=_silu_grad,
    grad_cuda=(
        "const T a = exp(-abs(x)), near = x < T(-1e4) ? T(-1e4) : x > T(1e4) ? T(1e4) : x; "
        "const T s = (x < T(0) ? a : T(1)) / (T(1) + a); "
        "const T other = (x < T(0) ? T(1) : a) / (T(1) + a); "
        "gx = gy * s * (T(1) + near * other);"
    ),
)


def _mish(x: Array, y: Array) -> None:
    near, a = _powers(x)
    up = np.where(x < 0, a * (a + 2), 1 + 2 * a)
    down = up + np.where(x < 0, 2, 2 * a * a)
    np.multiply(near, up / down, out=y)


def _mish_grad(gy: Array, x: Array, gx: Array) -> None:
    near, a = _powers(np.minimum(x, 1e4))
    up = np.where(x < 0, a * (a + 2), 1 + 2 * a)
    down = up + np.where(x < 0, 2, 2 * a * a)
    bend = 4 * a * (1 + a) * np.where(x < 0, 1, a) / down / down
    np.multiply(gy, up / down + near * bend, out=gx)


_UP = (
    "const T up = x < T(0) ? a * (a + T(2)) : T(1) + T(2) * a; "
    "const T down = up + (x < T(0) ? T(2) : T(2) * a * a); "
)

mish = Activation(
    "mish",
    """Mish, y = x * tanh(log(1 + exp(x))).

    Gradient:
        gx = gy * (w + x (1 - w**2) sigmoid(x)) with w = tanh(log(1 + exp(x))), from x.

    Numerics:
        The relative error is a few ulp, or |x| times the smallest subnormal number. The gradient
        cancels near x = -1.19: an error is a few machine epsilons of gy times the sum of both
        terms' sizes.

    Reference:
        Misra (2020).
    """,
    saves="x",
    gain="he",
    numpy=_mish,
    cuda=f"const T a = exp(-abs(x)); {_UP} y = (x < T(-1e4) ? T(-1e4) : x) * (up / down);",
    grad_numpy=_mish_grad,
    grad_cuda=(
        "const T a = exp(-abs(x)), near = x < T(-1e4) ? T(-1e4) : x > T(1e4) ? T(1e4) : x; "
        f"{_UP} const T bend = T(4) * a * (T(1) + a) * (x < T(0) ? T(1) : a) / down / down; "
        "gx = gy * (up / down + near * bend);"
    ),
)
