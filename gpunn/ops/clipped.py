"""Activations that are clipped: ReLU6, and hardswish, whose gate is one."""

from __future__ import annotations

import numpy as np

from gpunn.backends import scratch_like
from gpunn.ops.elementwise import Activation
from gpunn.typing import Array


def _relu6_grad(gy: Array, y: Array, gx: Array) -> None:
    inside = np.greater(y, 0, out=scratch_like(y, np.bool_))
    np.logical_and(inside, np.less(y, 6, out=scratch_like(y, np.bool_)), out=inside)
    gx.fill(0)  # a product would make NaN of 0 times infinity
    np.copyto(gx, gy, where=inside)


relu6 = Activation(
    "relu6",
    """Rectified linear unit with an upper end, y = min(max(x, 0), 6). NaN stays NaN.

    Gradient:
        gx = gy where 0 < y < 6, else 0. At both ends the derivative is 0, as in PyTorch.

    Reference:
        Krizhevsky (2010), "Convolutional deep belief networks on CIFAR-10".
    """,
    gain="he",
    numpy=lambda x, y: np.clip(x, 0, 6, out=y),
    cuda="y = x < T(0) ? T(0) : x > T(6) ? T(6) : x;",
    grad_numpy=_relu6_grad,
    grad_cuda="gx = y > T(0) && y < T(6) ? gy : T(0);",
    kinks=(0.0, 6.0),
)


def _hardswish(x: Array, y: Array) -> None:
    gate = np.clip(x, -3, 3, out=scratch_like(x))
    near = np.maximum(x, -3, out=scratch_like(x))  # 0 times infinity would be NaN
    np.divide(np.add(gate, 3, out=gate), 6, out=gate)
    np.multiply(near, gate, out=y)


def _hardswish_grad(gy: Array, x: Array, gx: Array) -> None:
    slope = np.divide(x, 3, out=scratch_like(x))
    np.add(slope, 0.5, out=slope)
    np.copyto(slope, 0, where=x <= -3)
    np.copyto(slope, 1, where=x >= 3)
    np.multiply(slope, gy, out=gx)


hardswish = Activation(
    "hardswish",
    """SiLU with a gate of three lines, y = x * min(max(x + 3, 0), 6) / 6.

    Gradient:
        gx = 0 for x <= -3, gy for x >= 3, else gy * (x / 3 + 1 / 2), from x. At both ends it is
        that of the line outside, as in PyTorch.

    Numerics:
        The gradient cancels near x = -1.5: an error is a few machine epsilons of gy.

    Reference:
        Howard et al. (2019).
    """,
    saves="x",
    gain="he",
    numpy=_hardswish,
    cuda=(
        "const T gate = x < T(-3) ? T(0) : x > T(3) ? T(1) : T((x + T(3)) / T(6)); "
        "y = (x < T(-3) ? T(-3) : x) * gate;"
    ),
    grad_numpy=_hardswish_grad,
    grad_cuda=(
        "const T slope = x <= T(-3) ? T(0) : x >= T(3) ? T(1) : T(x / T(3) + T(0.5)); "
        "gx = gy * slope;"
    ),
    kinks=(-3.0, 3.0),
)
