"""scikit-learn's losses. The value is a mean, and the gradients are those of a sum.

`gpunn.sklearn.arithmetic.SummedStep` divides the gradients later, at the same point as
scikit-learn. In float64 on the CPU, a loss has the same bits as scikit-learn's, because NumPy adds
in the same order. Otherwise gpunn's kernels compute it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import ops
from gpunn.autograd import Op, Tensor
from gpunn.autograd.engine import Node, is_recording
from gpunn.backends import Backend
from gpunn.ops.loss_reduction import SCALED
from gpunn.sklearn.arithmetic import WEIGHTED_MEAN, softmax
from gpunn.typing import Array, DType

OUTPUTS_ONLY = (True, False)  # a gradient is needed for the outputs, not for the targets

Exact = Callable[[Array, Array, "Array | None"], "tuple[Any, Array]"]


class SummedLoss:
    """A loss whose gradients are those of the sum over the examples.

    Args:
        base: the operation, which takes `reduction="none"`.
        exact: a function of (outputs, targets, weights or None) that returns the value and the
            gradient with scikit-learn's bits; None if scikit-learn does not have the loss.
        clipped: whether probabilities are clipped to [eps, 1 - eps] of their dtype.
        mean_of_outputs: whether the value is the mean over the K outputs; otherwise it is their
            sum. The gradient is that of the sum, as in scikit-learn.
        options: options of the operation.

    Gradient:
        gz = d(sum_n w_n l_n) / dz, although the value is sum_n w_n l_n / sum_n w_n. Clipping
        does not change the gradient.
    """

    def __init__(
        self,
        base: Op,
        exact: Exact | None = None,
        *,
        clipped: bool = False,
        mean_of_outputs: bool = False,
        **options: float,
    ) -> None:
        self.base, self.exact, self.options = base, exact, options
        self.clipped, self.mean_of_outputs = clipped, mean_of_outputs

    def is_exact(self, b: Backend, dtype: DType) -> bool:
        """Return whether the loss has scikit-learn's bits on this backend, in this dtype."""
        return self.exact is not None and b.kind == "cpu" and dtype == np.float64

    def __call__(self, outputs: Tensor, targets: Array, weights: Array | None = None) -> Tensor:
        """Compute the mean loss of a batch.

        Args:
            outputs: (N, K) outputs of the last layer, before the output activation.
            targets: (N, K) targets if the loss is exact, else targets that `base` takes.
            weights: (N,) weights of the examples, or None if all are equal.
        """
        b, z = outputs.backend, outputs.data
        if self.exact is not None and self.is_exact(b, z.dtype):
            value, gz = b.host(self.exact, z, targets, weights)
        else:
            value, gz = self._composed(b, z, targets, weights)

        def backward(gl: Array, needs: Any) -> tuple[Array]:
            if gl is b.one(gl.dtype):
                return (gz,)
            return (b.launch(SCALED, gl, gz, 1.0, out=b.empty_like(gz)),)  # gl may be wider than gz

        if outputs.node is None or not is_recording():
            return Tensor(value, backend=b)
        return Tensor(value, backend=b, node=Node("summed_loss", (outputs.node,), backward))

    def _composed(self, b: Backend, z: Array, t: Array, weights: Array | None) -> tuple[Any, Array]:
        """Compute the value and the gradient with gpunn's kernels, from the losses of examples."""
        losses, backward = self.base.vjp(b, z, t, reduction="none", **self.options)
        given: Array | float = 1.0
        if weights is None:
            gz = backward(b.one(losses.dtype), OUTPUTS_ONLY)[0]
        else:
            weights = b.cast(weights, losses.dtype)
            gz = backward(weights, OUTPUTS_ONLY)[0]
            given = weights if losses.ndim == 1 else weights.reshape(-1, 1)
        tiny = float(np.finfo(losses.dtype).eps)
        limits = (-math.log1p(-tiny), -math.log(tiny)) if self.clipped else (-math.inf, math.inf)
        times = 1.0 if losses.ndim == 1 or self.mean_of_outputs else float(z.shape[1])
        value, mass = b.empty((), losses.dtype), b.empty((), losses.dtype)
        b.launch(WEIGHTED_MEAN, losses, given, *limits, times, out=(value, mass))
        return value, gz


def _average(losses: Array, weights: Array | None) -> Array:
    """Compute the mean over the examples for each output, in the order of `numpy.average`."""
    if weights is None:
        return np.add.reduce(losses, axis=0) / len(losses)
    return np.average(losses, weights=weights, axis=0)


def _weighted(gz: Array, weights: Array | None) -> Array:
    if weights is not None:
        gz *= weights.reshape(-1, 1)
    return gz


def _clipped(p: Array) -> Array:
    tiny = np.finfo(p.dtype).eps
    clipped = np.maximum(p, tiny)
    return np.minimum(clipped, 1 - tiny, out=clipped)


def _softmax_log_loss(z: Array, t: Array, weights: Array | None) -> tuple[Any, Array]:
    from scipy.special import xlogy

    p = softmax(z)
    value = -np.add.reduce(_average(xlogy(t, _clipped(p)), weights))
    p -= t
    return value, _weighted(p, weights)


def _logistic_log_loss(z: Array, t: Array, weights: Array | None) -> tuple[Any, Array]:
    from scipy.special import expit, xlogy

    p = expit(z)
    q = _clipped(p)
    value = -np.add.reduce(_average(xlogy(t, q) + xlogy(1 - t, 1 - q), weights))
    p -= t
    return value, _weighted(p, weights)


def _squared_error(p: Array, t: Array, weights: Array | None) -> Any:
    return 0.5 * _average((p - t) ** 2, weights).mean()


def _poisson(p: Array, t: Array, weights: Array | None) -> Any:
    from scipy.special import xlogy

    return np.add.reduce(_average(xlogy(t, t / p) - t + p, weights))


def _of_regressor(value: Callable[..., Any], exponential: bool) -> Exact:
    """Return the value of a loss of p, with the gradient p - t; p is z, or exp(z)."""

    def exact(z: Array, t: Array, weights: Array | None) -> tuple[Any, Array]:
        p = np.exp(z) if exponential else z
        return value(p, t, weights), _weighted(p - t, weights)

    return exact


SOFTMAX = SummedLoss(ops.softmax_cross_entropy, _softmax_log_loss, clipped=True)
LOGISTIC = SummedLoss(ops.binary_cross_entropy_with_logits, _logistic_log_loss, clipped=True)
SQUARED = SummedLoss(
    ops.half_squared_error, _of_regressor(_squared_error, False), mean_of_outputs=True
)
POISSON = SummedLoss(ops.poisson_error, _of_regressor(_poisson, True))
REGRESSION = {
    ("squared_error", "identity"): SQUARED,
    ("poisson", "exp"): POISSON,
    ("squared_error", "exp"): SummedLoss(ops.poisson_error, _of_regressor(_squared_error, True)),
    ("poisson", "identity"): SummedLoss(
        ops.half_squared_error, _of_regressor(_poisson, False), mean_of_outputs=True
    ),
}
"""The losses of scikit-learn's regressor by the parameter `loss` and the output activation.

They belong together, unless `loss` was changed after a fit. The gradient is then that of the output
activation, and only the value is that of the parameter, as in scikit-learn.
"""
