"""scikit-learn's arithmetic, where the order of its operations differs from gpunn's.

All code that exists only to give the same bits as scikit-learn is in this module and in
`gpunn.sklearn.losses`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from gpunn import optim
from gpunn.arguments import in_range
from gpunn.autograd import Tensor
from gpunn.backends import Elementwise, scratch_like
from gpunn.ops import Activation, sigmoid
from gpunn.optim import Optimizer, Regularizer
from gpunn.optim.flat import FlatParameters
from gpunn.optim.optimizer import Limits
from gpunn.optim.regularizers import Regularizers
from gpunn.optim.rule import Rule
from gpunn.optim.schedules import Schedule
from gpunn.train import EagerStep
from gpunn.typing import Array

# update rules ------------------------------------------------------------------------------------


def _sgd_step(
    g: Array, lr: Array, step: Array, momentum: float, ahead: float, p: Array, v: Array
) -> None:
    scratch = g * lr
    np.multiply(v, momentum, out=v)
    np.subtract(v, scratch, out=v)
    if ahead:
        np.subtract(momentum * v, scratch, out=scratch)
        np.add(p, scratch, out=p)
    else:
        np.add(p, v, out=p)


class SGD(Optimizer):
    """Descent with momentum whose velocity contains the rate.

    v = momentum * v - lr * g; p = p + v.

    `gpunn.optim.SGD` multiplies by the rate last. The two agree until the rate changes.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        momentum: 0 <= momentum <= 1.
        nesterov: whether p = p + momentum * v - lr * g replaces p = p + v.

    Reference:
        Sutskever et al. (2013).
    """

    slots = ("velocity",)
    limits: ClassVar[Limits] = {"momentum": (0.0, float(np.nextafter(1.0, 2.0)))}
    rule = Rule(
        "sgd_step",
        "T momentum, T ahead -> v",
        numpy=_sgd_step,
        cuda=("v = momentum * v - lr * g; p = p + (ahead != T(0) ? T(momentum * v - lr * g) : v);"),
    )

    def __init__(
        self,
        parameters: Iterable[Tensor] | None = None,
        lr: float = 0.01,
        momentum: float | Schedule = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.take_numbers(momentum=momentum)
        self.nesterov = bool(nesterov)
        super().__init__(parameters, lr)

    def options(self) -> tuple[float, ...]:
        """Return the momentum, and 1 for Nesterov's form."""
        return self.number("momentum"), float(self.nesterov)


def _adam_hat(
    g: Array,
    lr: Array,
    step: Array,
    beta1: float,
    beta2: float,
    log_beta1: float,
    log_beta2: float,
    eps: float,
    p: Array,
    m: Array,
    v: Array,
) -> None:
    steps = int(step)
    rate = (lr if lr.ndim else float(lr)) * sqrt(1 - beta2**steps) / (1 - beta1**steps)
    scratch = g * (1 - beta1)
    np.multiply(m, beta1, out=m)
    np.add(m, scratch, out=m)
    np.multiply(g, g, out=scratch)
    np.multiply(scratch, 1 - beta2, out=scratch)
    np.multiply(v, beta2, out=v)
    np.add(v, scratch, out=v)
    np.sqrt(v, out=scratch)
    np.add(scratch, eps, out=scratch)
    np.divide(m * rate, scratch, out=scratch)
    np.subtract(p, scratch, out=p)


class Adam(optim.Adam):
    """Adam with the paper's epsilon-hat, which is added to sqrt(v) before the bias correction.

    p = p - lr * c * m / (sqrt(v) + eps), with c = sqrt(1 - beta2 ** t) / (1 - beta1 ** t). The
    arguments are those of `gpunn.optim.Adam`.

    Reference:
        Kingma and Ba (2015), end of section 2.
    """

    rule = Rule(
        "adam_hat",
        "T beta1, T beta2, T log_beta1, T log_beta2, T eps -> m, v",
        numpy=_adam_hat,
        cuda=(
            "m = beta1 * m + (T(1) - beta1) * g; v = beta2 * v + (T(1) - beta2) * g * g; "
            "p = p - lr * root / rest * m / (sqrt(v) + eps);"
        ),
        cuda_constants=(
            "const T root = sqrt(-expm1(T(step) * log_beta2)), rest = -expm1(T(step) * log_beta1);"
        ),
    )


# gradients of a sum, divided at the end -----------------------------------------------------------

MASS = Elementwise(
    "mass",
    "w -> sum total",
    numpy=lambda w, total: np.add(total, np.sum(w), out=total),
    cuda="total = w;",
    chunkable=False,  # chunks would change the order of NumPy's sum
)

SLICE = 16_384  # the elements that `_complete` works on at a time


def _complete(
    w: Array, spans: Array, times: Array, alpha: float, size: Array | float, g: Array, value: Array
) -> None:
    by = alpha * float(times)
    scratch = np.empty(min(len(g), SLICE), g.dtype)  # small enough to stay in the cache
    for start in range(0, len(g), SLICE):
        part, weights = g[start : start + SLICE], w[start : start + SLICE]
        if by:
            np.multiply(weights, by, out=scratch[: len(weights)])
            np.add(part, scratch[: len(weights)], out=part)
        np.divide(part, size, out=part)
    for start, end in spans.tolist():  # one sum per weight, in scikit-learn's order
        value += np.dot(w[start:end], w[start:end])
    value *= 0.5 * alpha
    value /= size


COMPLETE = Elementwise(
    "complete_mean",
    "w, raw int64 spans, times, T alpha, size -> g, sum value",
    numpy=_complete,
    cuda="value = w * w; g = (g + alpha * times * w) / size;",
    once="value = T(0.5) * alpha * value / size;",
)
DIVIDED = Elementwise(
    "divided",
    "size -> g",
    numpy=lambda size, g: np.divide(g, size, out=g),
    cuda="g = g / size;",
)


class SummedL2(Regularizer):
    """scikit-learn's L2 penalty, alpha / 2 * sum(W ** 2) / n, and further penalties.

    It is for gradients that are sums over n examples. `SummedStep` calls `complete`, which adds the
    penalty and then divides all gradients by n, as scikit-learn does. The penalty shrinks with the
    batch size (scikit-learn issues 6780, 10477); that of `gpunn.optim.L2` does not.

    Args:
        alpha: the strength, at least 0.
        more: penalties and constraints that are applied after the division.

    Gradient:
        g = (g + alpha * W) / n for weights, g / n for biases.
    """

    def __init__(self, alpha: float, *more: Regularizer) -> None:
        self.alpha, self.more = in_range("alpha", alpha, 0.0), Regularizers(*more)

    def complete(self, flat: FlatParameters, spans: Array, times: Array, size: Any) -> Array:
        """Turn the gradients of a sum into those of a mean, and add all penalties.

        Args:
            flat: the parameters.
            spans: (K, 2) starts and ends of the K weights in the buffer, int64, on the device.
            times: the factor of the loss's gradients, a 0-d array of the device.
            size: n, the rows of the batch or the sum of their weights.

        Returns:
            The value of the penalties, a 0-d array of the device.
        """
        b, weights = flat.backend, flat.weights
        value = b.empty((), flat.dtype)
        numbers = (flat.data[weights], spans, times, self.alpha, size)
        b.launch(COMPLETE, *numbers, out=(flat.grad[weights], value))
        if weights.stop < flat.grad.size:
            b.launch(DIVIDED, size, out=flat.grad[weights.stop :])
        more = self.more.penalize(flat, times)
        return value if more is None else b.xp.add(value, more)

    def constrain(self, flat: FlatParameters) -> None:
        """Apply the constraints among `more`."""
        self.more.constrain(flat)


class SummedStep(EagerStep):
    """A step whose loss has the gradients of a sum. `SummedL2` divides them by the batch size."""

    def loss_of(self, outputs: Tensor, y: Array, weights: Array | None) -> Tensor:
        """Compute the loss of a batch. `SummedLoss` takes the weights as an argument."""
        return self.loss(outputs, y, weights)

    def penalty(self, times: Array, rows: int, weights: Array | None) -> Array | None:
        """Complete the gradients, and return the value of the penalties."""
        assert isinstance(self.regularizer, SummedL2)
        flat = self.optimizer.bound
        size = rows if weights is None else flat.backend.launch(MASS, weights)
        return self.regularizer.complete(flat, self._spans, times, size)

    @cached_property
    def _spans(self) -> Array:
        """The start and end of each weight in the flat buffer."""
        flat = self.optimizer.bound
        parts = [flat.parts[tensor] for tensor in flat.tensors]
        spans = [(part.start, part.stop) for part in parts if part.start < flat.weights.stop]
        return flat.backend.upload(np.array(spans, np.int64).reshape(-1, 2))


# formulas ----------------------------------------------------------------------------------------


def _weighted_mean(
    l: Array,  # noqa: E741
    weight: Array | float,
    low: float,
    high: float,
    times: float,
    total: Array,
    mass: Array,
) -> None:
    kept = np.clip(l, low, high, out=scratch_like(l))
    total += np.sum(np.multiply(kept, weight, out=kept))
    mass += np.sum(weight) * (l.size / np.size(weight))


def _over_mass(
    l: Array,  # noqa: E741
    weight: Array | float,
    low: float,
    high: float,
    times: float,
    total: Array,
    mass: Array,
) -> None:
    total[...] = total * times / mass


WEIGHTED_MEAN = Elementwise(
    "weighted_mean",
    "l, weight, T low, T high, T times -> sum total, sum mass",
    numpy=_weighted_mean,
    cuda="total = weight * (l < low ? low : l > high ? high : l); mass = weight;",
    once="total = total * times / mass;",
    numpy_once=_over_mass,
)
"""times * sum(w * l) / sum(w) over losses l clipped to [low, high], with (N, 1) weights w."""


def _expit(x: Array, y: Array) -> None:
    from scipy.special import expit

    expit(x, out=y)


def _logistic_grad(gy: Array, y: Array, gx: Array) -> None:
    np.multiply(gy, y, out=gx)
    rest = np.subtract(1, y, out=scratch_like(y))
    np.multiply(gx, rest, out=gx)


EXPIT = Activation(
    "expit",
    """The sigmoid with SciPy's rounding, y = expit(x). `ops.sigmoid` is faster.

    Gradient:
        gx = gy * y * (1 - y), computed from left to right.
    """,
    numpy=_expit,
    cuda="y = T(1) / (T(1) + exp(-x));",
    grad_numpy=_logistic_grad,
    grad_cuda="gx = gy * y * (T(1) - y);",
    same_as=sigmoid,
)


def softmax(z: Array) -> Array:
    """Return the softmax of (N, C) host scores with scikit-learn's rounding.

    `ops.softmax` corrects the rounding errors of z - max(z).
    """
    p: Array = z - np.maximum.reduce(z, axis=1, keepdims=True)
    np.exp(p, out=p)
    p /= np.add.reduce(p, axis=1)[:, np.newaxis]
    return p
