"""AdaGrad and RMSprop, whose rates depend on squared gradients.

In the formulas, g is the gradient, p the parameter and lr the learning rate.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gpunn.arguments import flag, in_range
from gpunn.backends import scratch_like
from gpunn.optim.optimizer import Limits, Optimizer, Parameters
from gpunn.optim.rule import Rule
from gpunn.optim.schedules import Schedule
from gpunn.typing import Array


def _step_by_root(g: Array, lr: Array, eps: float, p: Array, s: Array, scratch: Array) -> None:
    """Compute p = p - lr * g / (sqrt(s) + eps), in place."""
    np.sqrt(s, out=scratch)
    np.add(scratch, eps, out=scratch)
    np.divide(g, scratch, out=scratch)
    np.multiply(scratch, lr, out=scratch)
    np.subtract(p, scratch, out=p)


def _adagrad(g: Array, lr: Array, step: Array, eps: float, p: Array, s: Array) -> None:
    scratch = np.multiply(g, g, out=scratch_like(g))
    np.add(s, scratch, out=s)
    _step_by_root(g, lr, eps, p, s, scratch)


class AdaGrad(Optimizer, name="adagrad"):
    """AdaGrad: the rate of each parameter depends on the sum of its squared gradients.

    s = s + g ** 2; p = p - lr * g / (sqrt(s) + eps).

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        eps: a small number that keeps the division finite.
        weight_decay: weight_decay * p is added to g; see `Optimizer`.
        decay_biases: whether biases decay as well.

    Reference:
        Duchi et al. (2011).
    """

    slots = ("squares",)
    rule = Rule(
        "adagrad",
        "T eps -> s",
        numpy=_adagrad,
        cuda="s = s + g * g; p = p - lr * g / (sqrt(s) + eps);",
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 0.01,
        eps: float = 1e-10,
        weight_decay: float | Schedule = 0.0,
        decay_biases: bool = True,
    ) -> None:
        self.eps = in_range("eps", eps, 0.0)
        super().__init__(parameters, lr, weight_decay, decay_biases)

    def options(self) -> tuple[float, ...]:
        """Return eps."""
        return (self.eps,)


def _rmsprop(
    g: Array, lr: Array, step: Array, decay: float, eps: float, p: Array, s: Array
) -> None:
    scratch = np.multiply(g, g, out=scratch_like(g))
    np.multiply(scratch, 1 - decay, out=scratch)
    np.multiply(s, decay, out=s)
    np.add(s, scratch, out=s)
    _step_by_root(g, lr, eps, p, s, scratch)


def _full_rmsprop(
    g: Array,
    lr: Array,
    step: int,
    decay: float,
    eps: float,
    momentum: float,
    centered: float,
    p: Array,
    s: Array,
    m: Array,
    v: Array,
) -> None:
    scratch, square = scratch_like(g), scratch_like(g)
    np.multiply(s, decay, out=s)
    np.add(s, np.multiply(np.multiply(g, g, out=scratch), 1 - decay, out=scratch), out=s)
    np.multiply(m, decay, out=m)
    np.add(m, np.multiply(g, 1 - decay, out=scratch), out=m)
    np.multiply(np.multiply(m, m, out=square), centered, out=square)
    np.maximum(np.subtract(s, square, out=scratch), 0, out=scratch)
    np.add(np.sqrt(scratch, out=scratch), eps, out=scratch)
    np.multiply(v, momentum, out=v)
    np.add(v, np.divide(g, scratch, out=scratch), out=v)
    np.subtract(p, np.multiply(v, lr, out=scratch), out=p)


class RMSprop(Optimizer, name="rmsprop"):
    """RMSprop: the rate of each parameter depends on a running mean of its squared gradients.

    s = decay * s + (1 - decay) * g ** 2; p = p - lr * g / (sqrt(s) + eps).
    With momentum, p = p - lr * v with v = momentum * v + g / (sqrt(s) + eps). If it is centered,
    s - m ** 2 stands below the root, with m = decay * m + (1 - decay) * g.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        decay: the weight of the past, 0 <= decay < 1, or a schedule.
        eps: a small number that keeps the division finite.
        momentum: 0 <= momentum < 1, or a schedule.
        centered: whether the mean gradient is subtracted, so that s is a variance.
        weight_decay: weight_decay * p is added to g; see `Optimizer`.
        decay_biases: whether biases decay as well.

    Reference:
        Tieleman and Hinton (2012), in PyTorch's form.
    """

    slots: tuple[str, ...] = ("squares",)
    limits: ClassVar[Limits] = {"decay": (0.0, 1.0), "momentum": (0.0, 1.0)}
    momentum: float | Schedule = 0.0
    centered = False
    rule = Rule(
        "rmsprop",
        "float64 decay, T eps -> s",
        numpy=_rmsprop,
        cuda="s = T(decay) * s + T(1.0 - decay) * g * g; p = p - lr * g / (sqrt(s) + eps);",
    )
    full_rule = Rule(
        "rmsprop_full",
        "float64 decay, T eps, T momentum, T centered -> s, m, v",
        numpy=_full_rmsprop,
        cuda=(
            "s = T(decay) * s + T(1.0 - decay) * g * g; m = T(decay) * m + T(1.0 - decay) * g; "
            "const T spread = s - centered * m * m; "
            "v = momentum * v + g / (sqrt(spread > T(0) ? spread : T(0)) + eps); p = p - lr * v;"
        ),
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 0.01,
        decay: float | Schedule = 0.99,
        eps: float = 1e-8,
        momentum: float | Schedule = 0.0,
        centered: bool = False,
        weight_decay: float | Schedule = 0.0,
        decay_biases: bool = True,
    ) -> None:
        self.take_numbers(decay=decay, momentum=momentum)
        self.eps = in_range("eps", eps, 0.0)
        if flag("centered", centered) or momentum:
            self.centered, self.rule = centered, self.full_rule
            self.slots = ("squares", "mean", "velocity")
        super().__init__(parameters, lr, weight_decay, decay_biases)

    def options(self) -> tuple[float, ...]:
        """Return decay and eps, and in the full form the momentum and 1 if it is centered."""
        first = self.number("decay"), self.eps
        if self.rule is not self.full_rule:
            return first
        return (*first, self.number("momentum"), float(self.centered))
