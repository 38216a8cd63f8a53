"""The optimizers. The update rule of each is one kernel over the flat buffers.

In the formulas, g is the gradient, p the parameter, lr the learning rate, and `step` counts from 1.
The NumPy bodies are called on chunks that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import expm1, log, sqrt
from typing import Any

import numpy as np

from gpunn.arguments import flag, in_range, lookup
from gpunn.autograd import Tensor
from gpunn.backends import scratch_like
from gpunn.errors import ArgumentError
from gpunn.optim.optimizer import OPTIMIZERS, Optimizer, Rule
from gpunn.typing import Array

Parameters = Iterable[Tensor] | None


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


class SGD(Optimizer, name="sgd"):
    """Stochastic gradient descent with momentum.

    v = momentum * v + g; p = p - lr * v.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        momentum: 0 <= momentum < 1; 0 is plain descent, p = p - lr * g.
        nesterov: whether to step along g + momentum * v instead of v.

    Raises:
        ArgumentError: an option is outside its range.

    Reference:
        Sutskever et al. (2013), in PyTorch's form; lectures 000 to 004.
    """

    slots: tuple[str, ...] = ("velocity",)
    rule = Rule(
        "sgd",
        "T momentum, T ahead -> v",
        numpy=_sgd,
        cuda="v = momentum * v + g; p = p - lr * (ahead != T(0) ? T(g + momentum * v) : v);",
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
        momentum: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.momentum = in_range("momentum", momentum, 0.0, 1.0)
        self.nesterov = flag("nesterov", nesterov)
        if nesterov and not momentum:
            raise ArgumentError(
                "got nesterov=True with momentum=0; expected momentum > 0: pass e.g. momentum=0.9"
            )
        if not momentum:
            self.slots = ()
            self.rule = self.plain_rule
        super().__init__(parameters, lr)

    def options(self) -> tuple[float, ...]:
        """Return the momentum, and 1 for Nesterov's form."""
        return (self.momentum, float(self.nesterov)) if self.slots else ()


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

    def __init__(self, parameters: Parameters = None, lr: float = 0.01, eps: float = 1e-10) -> None:
        self.eps = in_range("eps", eps, 0.0)
        super().__init__(parameters, lr)

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


class RMSprop(Optimizer, name="rmsprop"):
    """RMSprop: the rate of each parameter depends on a running mean of its squared gradients.

    s = decay * s + (1 - decay) * g ** 2; p = p - lr * g / (sqrt(s) + eps).

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        decay: the weight of the past, 0 <= decay < 1.
        eps: a small number that keeps the division finite.

    Reference:
        Tieleman and Hinton (2012), in PyTorch's form.
    """

    slots = ("squares",)
    rule = Rule(
        "rmsprop",
        "float64 decay, T eps -> s",
        numpy=_rmsprop,
        cuda="s = T(decay) * s + T(1.0 - decay) * g * g; p = p - lr * g / (sqrt(s) + eps);",
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 0.01,
        decay: float = 0.99,
        eps: float = 1e-8,
    ) -> None:
        self.decay, self.eps = in_range("decay", decay, 0.0, 1.0), in_range("eps", eps, 0.0)
        super().__init__(parameters, lr)

    def options(self) -> tuple[float, ...]:
        """Return decay and eps."""
        return self.decay, self.eps


def _adam(
    g: Array,
    lr: Array,
    step: Array,
    beta1: float,
    beta2: float,
    log_beta1: float,
    log_beta2: float,
    eps: float,
    shrink: float | Array,
    p: Array,
    m: Array,
    v: Array,
) -> None:
    steps, rate = int(step), lr if lr.ndim else float(lr)
    correction1, correction2 = -expm1(steps * log_beta1), -expm1(steps * log_beta2)
    if np.any(shrink):
        np.multiply(p, 1 - rate * shrink, out=p)
    scratch = np.multiply(g, 1 - beta1, out=scratch_like(g))
    np.multiply(m, beta1, out=m)
    np.add(m, scratch, out=m)
    np.multiply(g, g, out=scratch)
    np.multiply(scratch, 1 - beta2, out=scratch)
    np.multiply(v, beta2, out=v)
    np.add(v, scratch, out=v)
    np.sqrt(v, out=scratch)
    # This is m / c1 / (sqrt(v / c2) + eps), with both corrections applied to numbers, not arrays.
    np.add(scratch, eps * sqrt(correction2), out=scratch)
    np.divide(m, scratch, out=scratch)
    np.multiply(scratch, rate * sqrt(correction2) / correction1, out=scratch)
    np.subtract(p, scratch, out=p)


class Adam(Optimizer, name="adam"):
    """Adam: steps along a running mean of gradients, divided by the root of their mean square.

    m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g ** 2;
    p = p - lr * (m / c1) / (sqrt(v / c2) + eps), with c1 = 1 - beta1 ** step and
    c2 = 1 - beta2 ** step.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of the past in m, 0 <= beta1 < 1.
        beta2: the weight of the past in v, 0 <= beta2 < 1.
        eps: a small number that keeps the division finite.

    Raises:
        ArgumentError: an option is outside its range.

    Reference:
        Kingma and Ba (2015), algorithm 1.
    """

    slots = ("mean", "squares")
    rule = Rule(
        "adam",
        "float64 beta1, float64 beta2, T log_beta1, T log_beta2, T eps, T shrink -> m, v",
        numpy=_adam,
        cuda=(
            "m = T(beta1) * m + T(1.0 - beta1) * g; v = T(beta2) * v + T(1.0 - beta2) * g * g; "
            "p = p - lr * shrink * p; p = p - lr * (m / c1) / (sqrt(v / c2) + eps);"
        ),
        cuda_constants=(
            "const T c1 = -expm1(T(step) * log_beta1), c2 = -expm1(T(step) * log_beta2);"
        ),
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        self.beta1, self.beta2 = (in_range("beta1", beta1, 0, 1), in_range("beta2", beta2, 0, 1))
        self.eps = in_range("eps", eps, 0.0)
        self.weight_decay = 0.0
        super().__init__(parameters, lr)

    def options(self) -> tuple[float, ...]:
        """Return the betas, their logarithms, eps and the weight decay."""
        logs = tuple(log(beta) if beta else -1e4 for beta in (self.beta1, self.beta2))
        return (self.beta1, self.beta2, *logs, self.eps, self.weight_decay)


class AdamW(Adam, name="adamw"):
    """Adam with decoupled weight decay: first p = p - lr * weight_decay * p, then Adam's step.

    Every parameter decays, including biases, as in PyTorch.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of the past in m.
        beta2: the weight of the past in v.
        eps: a small number that keeps the division finite.
        weight_decay: the decay, at least 0.

    Reference:
        Loshchilov and Hutter (2019).
    """

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        decay = in_range("weight_decay", weight_decay, 0.0)
        super().__init__(None, lr, beta1, beta2, eps)
        self.weight_decay = decay
        if parameters is not None:
            self.bind(parameters)


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
