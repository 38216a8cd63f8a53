"""The negative logarithm of a normal density, to predict a mean and a variance."""

from __future__ import annotations

from math import log, pi
from typing import Any

import numpy as np

from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, computed, scratch_like
from gpunn.errors import ShapeError
from gpunn.ops.domains import VARIANCES, check_domain
from gpunn.ops.elementwise import Option, check_floats, chosen
from gpunn.ops.elementwise_losses import Loss, as_prediction, no_target_gradient
from gpunn.ops.loss_reduction import Reduction
from gpunn.ops.reductions import summed
from gpunn.ops.smooth import softplus
from gpunn.typing import Array

_REST = 0.5 * log(2 * pi)


def _nll(
    p: Array,
    t: Array,
    var: Array,
    count: int,
    scale: float,
    full: bool,
    eps: float,
    loss: Array,
    gp: Array,
    gvar: Array,
    total: Array,
) -> None:
    wide = np.maximum(var, eps, out=scratch_like(p))
    away = np.subtract(p, t, out=scratch_like(p))
    slope = np.divide(away, wide, out=scratch_like(p))
    square = np.multiply(slope, away, out=away)
    np.multiply(np.add(np.log(wide, out=loss), square, out=loss), 0.5, out=loss)
    if full:
        np.add(loss, _REST, out=loss)
    total.fill(total[()] + np.add.reduce(loss, axis=None))
    np.subtract(1, square, out=square)
    np.divide(np.multiply(square, 0.5 * scale, out=square), wide, out=gvar)
    np.multiply(slope, scale, out=gp)


GAUSSIAN = Elementwise(
    "gaussian_nll",
    "p, t, var, float64 count, T scale, bool full, T eps -> l, gp, gvar, sum total",
    numpy=_nll,
    cuda=(
        "const T wide = var < eps ? eps : var, away = p - t, slope = away / wide; "
        f"l = T(0.5) * (log(wide) + slope * away) + (full ? T({_REST}) : T(0)); total = l; "
        "gp = slope * scale; gvar = (T(1) - slope * away) * (T(0.5) * scale) / wide;"
    ),
    once="total = T(total / count);",
    numpy_once=lambda p, t, var, count, *rest: rest[-1].fill(rest[-1][()] / count),
)


def _gaussian_nll(
    b: Backend,
    p: Array,
    t: Array,
    var: Array | None = None,
    *,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> tuple[Array, Backward]:
    """Minus the logarithm of a normal density, (log v + (p - t)**2 / v) / 2, v = max(var, eps).

    Args:
        p: predicted means. Without `var`, (..., 2 K) outputs of a network: K means, and then K
            numbers s with var = softplus(s).
        t: targets of the shape of the means, or (N,) for means (N, 1).
        var: variances of at least 0, of the shape of the means, or one for each row of them:
            (..., 1) or (...).
        full: whether the constant log(2 pi) / 2 is added.
        eps: the smallest variance, above 0.
        reduction: "mean" over all elements, "sum" or "none".

    Raises:
        ShapeError: shapes that do not fit, or an odd number of outputs without `var`.
        ArgumentError: eps is not above 0, or full is no flag.
        DataError: on the CPU, a variance below 0.

    Gradient:
        gp = (p - t) / v and gvar = (1 - (p - t)**2 / v) / (2 v), as if v were var: a variance that
        eps limits gets the gradient of v, as in PyTorch.

    Numerics:
        The terms of the loss and of gvar cancel: an error is a few machine epsilons of their sizes.

    Reference:
        Nix and Weigend (1994); PyTorch's `GaussianNLLLoss`.
    """
    name = "gaussian_nll"
    check_floats(name, p)
    whole_line, least = chosen(name, gaussian_nll.limits, {"full": full, "eps": eps})
    mean, raw = p, None
    if var is None:
        if not p.ndim or p.shape[-1] % 2 or not p.shape[-1]:
            raise ShapeError(
                f"got outputs of shape {p.shape} in {name}; expected (..., 2 K), K means and K "
                "numbers for the variances: pass var, or widen the last layer"
            )
        half = p.shape[-1] // 2
        mean, raw = (b.xp.ascontiguousarray(part) for part in (p[..., :half], p[..., half:]))
        var = b.launch(softplus.kernel, raw)
    t = as_prediction(b, name, mean, t)
    shape = var.shape
    if shape == mean.shape[:-1] and mean.ndim:
        var = var.reshape(*shape, 1)
    if var.shape not in (mean.shape, (*mean.shape[:-1], 1)):
        raise ShapeError(
            f"got means of shape {mean.shape} and variances of shape {shape} in {name}; expected "
            "the same shape, or one variance for each row: reshape the variances"
        )
    if b.synchronous:
        check_domain(f"variances in {name}", var, VARIANCES)
    how, kind = Reduction.of(reduction, mean.size, p.dtype), computed(p.dtype)
    out = (b.empty(mean.shape, kind), b.empty_like(mean), b.empty_like(mean), b.empty((), kind))
    numbers = (how.divisor, how.scale, whole_line, least)
    losses, gp, gvar, total = b.launch(GAUSSIAN, mean, t, var, *numbers, out=out)

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient(name, needs)
        of_mean, of_var = (how.gradient(b, gl, g) for g in (gp, gvar))
        if raw is not None:
            both = b.empty_like(p)
            b.copy_to(both[..., :half], of_mean)
            b.copy_to(both[..., half:], b.launch(softplus.grad_kernel, of_var, raw))
            return both, None
        if var.shape != mean.shape:
            of_var = summed(b, of_var, (mean.ndim - 1,), keepdims=True)
        return of_mean, None, of_var.reshape(shape)

    return how.of_losses(losses, total), backward


gaussian_nll = Loss(_gaussian_nll, "gaussian_nll")
gaussian_nll.limits = {"full": Option(False, type="bool"), "eps": Option(1e-6)}
