"""LAMB, whose steps have a length in proportion to the norm of each parameter."""

from __future__ import annotations

from math import sqrt

import numpy as np

from gpunn.arguments import in_range
from gpunn.backends import Elementwise, scratch_like
from gpunn.ops import identity
from gpunn.optim.optimizer import Parameters
from gpunn.optim.optimizers import BETAS, CORRECTIONS, MOMENTS, Adam, corrections, moments
from gpunn.optim.rule import Rule
from gpunn.optim.schedules import Schedule
from gpunn.typing import Array


def _direction(
    g: Array,
    lr: Array,
    step: int,
    beta1: float,
    beta2: float,
    log_beta1: float,
    log_beta2: float,
    eps: float,
    p: Array,
    m: Array,
    v: Array,
    u: Array,
) -> None:
    c1, c2 = corrections(step, beta1, beta2)
    root = np.sqrt(np.divide(v, c2, out=moments(g, beta1, beta2, m, v)), out=u)
    np.divide(np.divide(m, c1, out=scratch_like(m)), np.add(root, eps, out=root), out=u)


def _lengths(
    p: Array, shrink: float, fade: Array | float, u: Array, ours: Array, theirs: Array
) -> None:
    by = shrink * float(fade)
    np.add(u, np.multiply(p, by, out=scratch_like(p)), out=u)
    ours += np.vdot(p, p)
    theirs += np.vdot(u, u)


LENGTHS = Elementwise(
    "lamb_lengths",
    "p, T shrink, T fade -> u, sum ours, sum theirs",
    numpy=_lengths,
    cuda="u = u + shrink * fade * p; ours = p * p; theirs = u * u;",
)
"""u + shrink * fade * p, and the sums of squares of p and of the result."""


def _by_norms(
    u: Array, ours: Array, theirs: Array, factor: Array, lr: Array, pace: Array | float, p: Array
) -> None:
    rate = float(lr) * float(pace)
    if float(factor) and rate:
        ratio = sqrt(float(ours) / float(theirs)) if float(ours) and float(theirs) else 1.0
        np.subtract(p, np.multiply(u, rate * ratio, out=scratch_like(u)), out=p)


BY_NORMS = Elementwise(
    "lamb_step",
    "u, ours, theirs, factor, lr, T pace -> p",
    numpy=_by_norms,
    cuda=(
        "const T ratio = ours > T(0) && theirs > T(0) ? sqrt(ours / theirs) : T(1); "
        "if (factor != T(0) && pace != T(0)) p = p - lr * pace * ratio * u;"
    ),
)
"""p - lr * pace * u, times the ratio of the norms of p and u."""


class LAMB(Adam, name="lamb"):
    """LAMB, for large batches: Adam's direction, with a length in proportion to each parameter's.

    u = (m / c1) / (sqrt(v / c2) + eps) + weight_decay * p; p = p - lr * |p| / |u| * u, with the
    norms of the whole parameter. If one of them is 0, |p| / |u| counts as 1.

    A step takes two small kernels for each parameter besides that over the flat buffers.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of the past in m, 0 <= beta1 < 1, or a schedule.
        beta2: the weight of the past in v, 0 <= beta2 < 1, or a schedule.
        eps: a small number that keeps the division finite.
        weight_decay: the weight of p in u, at least 0.
        decay_biases: whether biases decay as well.

    Reference:
        You et al. (2020), algorithm 2, with the identity in place of phi.
    """

    slots = ("mean", "squares", "direction")
    rule = Rule(
        "lamb",
        f"{BETAS} -> m, v, u",
        numpy=_direction,
        cuda=MOMENTS + "u = (m / c1) / (sqrt(v / c2) + eps);",
        cuda_constants=CORRECTIONS,
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-3,
        beta1: float | Schedule = 0.9,
        beta2: float | Schedule = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
    ) -> None:
        decay = in_range("weight_decay", weight_decay, 0.0)
        super().__init__(parameters, lr, beta1, beta2, eps, decay, decay_biases=decay_biases)

    @property
    def decay_kind(self) -> str:
        """The empty text, because the decay is part of the direction."""
        return ""

    def step(self, factor: Array | None = None) -> None:
        """Update every parameter by its gradient; see `Optimizer.step`."""
        super().step(factor)
        flat, shrink = self.bound, self.number("weight_decay")
        b, directions = flat.backend, self.state[2]
        times = b.one(flat.dtype) if factor is None else factor
        for tensor in flat.tensors:
            part, ours, theirs = flat.parts[tensor], *(b.empty((), flat.dtype) for _ in range(2))
            pace, fade = (1.0, 1.0) if flat.factors is None else _first(flat.factors, part)
            u, p = directions[part], flat.data[part]
            b.launch(LENGTHS, p, shrink, fade, out=(u, ours, theirs))
            b.launch(BY_NORMS, u, ours, theirs, times, self.device_lr, pace, out=p)
        if flat.narrow is not None:
            b.launch(identity.kernel, flat.data, out=flat.narrow)


def _first(arrays: tuple[Array, Array], part: slice) -> list[Array]:
    """Return the first elements of a part of arrays, as 0-d views."""
    return [array[part.start : part.start + 1].reshape(()) for array in arrays]
