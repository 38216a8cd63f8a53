"""SGD, Adam and AdamW. The update rule of each is one kernel over the flat buffers.

In the formulas, g is the gradient, p the parameter, lr the learning rate, and `step` counts from 1.
Adam's means are m = beta1 * m + (1 - beta1) * g and v = beta2 * v + (1 - beta2) * g ** 2. Their
bias corrections are c1 = 1 - beta1 ** step and c2 = 1 - beta2 ** step. The NumPy bodies are called
on chunks that stay in the cache.
"""

from __future__ import annotations

from math import expm1, log, sqrt
from typing import Any, ClassVar

import numpy as np

from gpunn.arguments import flag, in_range, lookup
from gpunn.backends import scratch_like
from gpunn.errors import ArgumentError
from gpunn.optim.optimizer import OPTIMIZERS, Limits, Optimizer, Parameters
from gpunn.optim.rule import Rule
from gpunn.optim.schedules import Schedule
from gpunn.typing import Array

MOMENTS = "m = T(beta1) * m + T(1.0 - beta1) * g; v = T(beta2) * v + T(1.0 - beta2) * g * g; "
CORRECTIONS = "const T c1 = -expm1(T(step) * log_beta1), c2 = -expm1(T(step) * log_beta2);"
BETAS = "float64 beta1, float64 beta2, T log_beta1, T log_beta2, T eps"


def _sgd(
    g: Array, lr: Array, step: Array, momentum: float, ahead: float, p: Array, v: Array
) -> None:
    np.multiply(v, momentum, out=v)
    np.add(v, g, out=v)
    scratch = scratch_like(v)
    if ahead:
        np.multiply(v, momentum, out=scratch)
        np.add(scratch, g, out=scratch)
        np.multiply(scratch, lr, out=scratch)
    else:
        np.multiply(v, lr, out=scratch)
    np.subtract(p, scratch, out=p)


def _damped_sgd(
    g: Array, lr: Array, step: int, momentum: float, ahead: float, fresh: float, p: Array, v: Array
) -> None:
    added = g if step == 1 else np.multiply(g, fresh, out=scratch_like(g))
    np.multiply(v, momentum, out=v)
    np.add(v, added, out=v)
    np.subtract(p, np.multiply(v, lr, out=scratch_like(v)), out=p)


class SGD(Optimizer, name="sgd"):
    """Stochastic gradient descent with momentum.

    v = momentum * v + (1 - dampening) * g; p = p - lr * v. At the first step v = g.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        momentum: 0 <= momentum < 1, or a schedule; 0 is plain descent, p = p - lr * g.
        nesterov: whether to step along g + momentum * v instead of v.
        dampening: 0 <= dampening < 1; above 0 only with momentum, and not with nesterov.
        weight_decay: weight_decay * p is added to g; see `Optimizer`.
        decay_biases: whether biases decay as well.

    Raises:
        ArgumentError: an option is outside its range.

    Reference:
        Sutskever et al. (2013), in PyTorch's form; lectures 000 to 004.
    """

    slots: tuple[str, ...] = ("velocity",)
    limits: ClassVar[Limits] = {"momentum": (0.0, 1.0)}
    dampening = 0.0
    rule = Rule(
        "sgd",
        "T momentum, T ahead -> v",
        numpy=_sgd,
        cuda="v = momentum * v + g; p = p - lr * (ahead != T(0) ? T(g + momentum * v) : v);",
    )
    damped_rule = Rule(
        "sgd_damped",
        "T momentum, T ahead, T fresh -> v",
        numpy=_damped_sgd,
        cuda="(void)ahead; v = momentum * v + (step == 1 ? g : T(fresh * g)); p = p - lr * v;",
    )
    plain_rule = Rule(
        "sgd_plain",
        "->",
        numpy=lambda g, lr, step, p: np.subtract(p, np.multiply(g, lr, out=scratch_like(g)), out=p),
        cuda="p = p - lr * g;",
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 0.01,
        momentum: float | Schedule = 0.0,
        nesterov: bool = False,
        dampening: float = 0.0,
        weight_decay: float | Schedule = 0.0,
        decay_biases: bool = True,
    ) -> None:
        self.take_numbers(momentum=momentum)
        self.nesterov = flag("nesterov", nesterov)
        if in_range("dampening", dampening, 0.0, 1.0):
            self.dampening, self.rule = dampening, self.damped_rule
            if nesterov or not momentum:
                raise ArgumentError(
                    f"got dampening={dampening} with momentum={momentum} and nesterov={nesterov}; "
                    "expected momentum above 0, and nesterov=False"
                )
        if nesterov and not momentum:
            raise ArgumentError(
                "got nesterov=True with momentum=0; expected momentum > 0: pass e.g. momentum=0.9"
            )
        if not momentum:
            self.slots = ()
            self.rule = self.plain_rule
        super().__init__(parameters, lr, weight_decay, decay_biases)

    def options(self) -> tuple[float, ...]:
        """Return the momentum, 1 for Nesterov's form, and the weight of the new gradient."""
        if not self.slots:
            return ()
        fresh = (1.0 - self.dampening,) if self.dampening else ()
        return (self.number("momentum"), float(self.nesterov), *fresh)


def moments(g: Array, beta1: float, beta2: float, m: Array, v: Array) -> Array:
    """Update the means, and return scratch memory of their shape."""
    scratch = np.multiply(g, 1 - beta1, out=scratch_like(g))
    np.multiply(m, beta1, out=m)
    np.add(m, scratch, out=m)
    np.multiply(g, g, out=scratch)
    np.multiply(scratch, 1 - beta2, out=scratch)
    np.multiply(v, beta2, out=v)
    np.add(v, scratch, out=v)
    return scratch


def corrections(step: int, beta1: float, beta2: float) -> tuple[float, float]:
    """Return c1 and c2. The betas are exact where they move; their logarithms are in T there."""
    logs = (log(beta) if beta else -1e4 for beta in (beta1, beta2))
    c1, c2 = (-expm1(step * each) for each in logs)
    return c1, c2


def rate_of(lr: Array) -> Array | float:
    """Return the rates of the elements, or the one rate as a number."""
    return lr if lr.ndim else float(lr)


def _adam(
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
) -> None:
    c1, c2 = corrections(step, beta1, beta2)
    _divided_step(rate_of(lr), c1, c2, eps, p, m, v, moments(g, beta1, beta2, m, v))


def _divided_step(
    rate: Array | float,
    c1: float,
    c2: float,
    eps: float,
    p: Array,
    m: Array,
    v: Array,
    scratch: Array,
) -> None:
    """Compute p = p - rate * (m / c1) / (sqrt(v / c2) + eps), in place."""
    np.sqrt(v, out=scratch)
    # Both corrections are applied to numbers, not to arrays.
    np.add(scratch, eps * sqrt(c2), out=scratch)
    np.divide(m, scratch, out=scratch)
    np.multiply(scratch, rate * sqrt(c2) / c1, out=scratch)
    np.subtract(p, scratch, out=p)


def _amsgrad(
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
    top: Array,
) -> None:
    c1, c2 = corrections(step, beta1, beta2)
    scratch = moments(g, beta1, beta2, m, v)
    np.maximum(top, v, out=top)
    _divided_step(rate_of(lr), c1, c2, eps, p, m, top, scratch)


class Adam(Optimizer, name="adam"):
    """Adam: steps along a running mean of gradients, divided by the root of their mean square.

    p = p - lr * (m / c1) / (sqrt(v / c2) + eps); see the module for m, v, c1 and c2.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of the past in m, 0 <= beta1 < 1, or a schedule.
        beta2: the weight of the past in v, 0 <= beta2 < 1, or a schedule.
        eps: a small number that keeps the division finite.
        weight_decay: weight_decay * p is added to g; see `Optimizer`. `AdamW` keeps it apart.
        amsgrad: whether the largest v so far stands below the root.
        decay_biases: whether biases decay as well.

    Raises:
        ArgumentError: an option is outside its range.

    Reference:
        Kingma and Ba (2015), algorithm 1; Reddi et al. (2018) for amsgrad.
    """

    slots: tuple[str, ...] = ("mean", "squares")
    limits: ClassVar[Limits] = {"beta1": (0.0, 1.0), "beta2": (0.0, 1.0)}
    rule = Rule(
        "adam",
        f"{BETAS} -> m, v",
        numpy=_adam,
        cuda=MOMENTS + "p = p - lr * (m / c1) / (sqrt(v / c2) + eps);",
        cuda_constants=CORRECTIONS,
    )
    amsgrad_rule = Rule(
        "amsgrad",
        f"{BETAS} -> m, v, top",
        numpy=_amsgrad,
        cuda=MOMENTS + "top = v > top ? v : top; p = p - lr * (m / c1) / (sqrt(top / c2) + eps);",
        cuda_constants=CORRECTIONS,
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-3,
        beta1: float | Schedule = 0.9,
        beta2: float | Schedule = 0.999,
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0.0,
        amsgrad: bool = False,
        decay_biases: bool = True,
    ) -> None:
        self.take_numbers(beta1=beta1, beta2=beta2)
        self.eps = in_range("eps", eps, 0.0)
        if flag("amsgrad", amsgrad):
            self.slots, self.rule = ("mean", "squares", "largest"), self.amsgrad_rule
        super().__init__(parameters, lr, weight_decay, decay_biases)

    def options(self) -> tuple[float, ...]:
        """Return the betas, their logarithms and eps."""
        betas = self.number("beta1"), self.number("beta2")
        return (*betas, *(log(beta) if beta else -1e4 for beta in betas), self.eps)


class AdamW(Adam, name="adamw"):
    """Adam with decoupled weight decay: first p = p - lr * weight_decay * p, then Adam's step.

    Every parameter decays, including biases, as in PyTorch.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of the past in m.
        beta2: the weight of the past in v.
        eps: a small number that keeps the division finite.
        weight_decay: the decay, at least 0, or a schedule.
        amsgrad: whether the largest v so far stands below the root.
        decay_biases: whether biases decay as well.

    Reference:
        Loshchilov and Hutter (2019).
    """

    decoupled = True

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-3,
        beta1: float | Schedule = 0.9,
        beta2: float | Schedule = 0.999,
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0.01,
        amsgrad: bool = False,
        decay_biases: bool = True,
    ) -> None:
        super().__init__(parameters, lr, beta1, beta2, eps, weight_decay, amsgrad, decay_biases)


def get_optimizer(optimizer: str | Optimizer, **options: Any) -> Optimizer:
    """Return the optimizer with a registered name. An optimizer is returned as it is.

    Args:
        optimizer: a name or an optimizer.
        options: the options of an optimizer that is given by name.

    Raises:
        UnknownNameError: the name is unknown; the message lists the known names.
        ArgumentError: an optimizer has no such option, or is no name and has options already.
    """
    if isinstance(optimizer, Optimizer):
        if options:
            kind = type(optimizer).__name__
            raise ArgumentError(
                f"got {' and '.join(options)} beside an optimizer {kind}, which has its own; "
                f"expected {kind}({', '.join(f'{k}={v!r}' for k, v in options.items())})"
            )
        return optimizer
    name = optimizer.lower() if isinstance(optimizer, str) else optimizer
    return lookup("optimizer", name, OPTIMIZERS)(**options)
