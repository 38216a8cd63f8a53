"""NAdam, RAdam and Lion. The update rule of each is one kernel over the flat buffers.

For m, v, c1 and c2 in the formulas see `gpunn.optim.optimizers`.
"""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np

from gpunn.arguments import in_range
from gpunn.backends import scratch_like
from gpunn.optim.optimizer import Optimizer, Parameters
from gpunn.optim.optimizers import MOMENTS, Adam, corrections, moments, rate_of
from gpunn.optim.rule import Rule
from gpunn.optim.schedules import Schedule
from gpunn.typing import Array


def _nadam(
    g: Array,
    lr: Array,
    step: int,
    beta1: float,
    beta2: float,
    log_beta2: float,
    eps: float,
    fall: float,
    p: Array,
    m: Array,
    v: Array,
    grown: Array,
) -> None:
    rate, scratch = rate_of(lr), moments(g, beta1, beta2, m, v)
    here, ahead = (beta1 * (1 - 0.5 * exp(k * fall)) for k in (step, step + 1))
    if step == 1:
        grown.fill(1)
    np.multiply(grown, here, out=grown)
    root = np.sqrt(np.divide(v, corrections(step, beta1, beta2)[1], out=scratch), out=scratch)
    np.add(root, eps, out=root)
    part = np.divide(g, root, out=scratch_like(g))
    weight = np.divide(1 - here, np.subtract(1, grown, out=scratch_like(g)), out=scratch_like(g))
    np.multiply(part, np.multiply(weight, rate, out=weight), out=part)
    np.subtract(p, part, out=p)
    np.divide(m, root, out=part)
    np.subtract(1, np.multiply(grown, ahead, out=weight), out=weight)
    np.divide(ahead, weight, out=weight)
    np.multiply(part, np.multiply(weight, rate, out=weight), out=part)
    np.subtract(p, part, out=p)


class NAdam(Optimizer, name="nadam"):
    """Adam with Nesterov's momentum.

    With u_t = beta1 * (1 - 0.96 ** (t * momentum_decay) / 2) and U = u_1 * ... * u_step,
    p = p - lr * ((1 - u_step) * g / (1 - U) + u_(step + 1) * m / (1 - U * u_(step + 1)))
    / (sqrt(v / c2) + eps).

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of the past in m, 0 <= beta1 < 1, or a schedule.
        beta2: the weight of the past in v, 0 <= beta2 < 1, or a schedule.
        eps: a small number that keeps the division finite.
        weight_decay: weight_decay * p is added to g; see `Optimizer`.
        momentum_decay: how fast u rises, at least 0.
        decay_biases: whether biases decay as well.

    Reference:
        Dozat (2016), with PyTorch's defaults.
    """

    slots = ("mean", "squares", "product")
    limits = Adam.limits
    rule = Rule(
        "nadam",
        "float64 beta1, float64 beta2, T log_beta2, T eps, T fall -> m, v, grown",
        numpy=_nadam,
        cuda=(
            MOMENTS + "const T root = sqrt(v / c2) + eps; "
            "grown = (step == 1 ? T(1) : grown) * here; "
            "p = p - lr * (T(1) - here) / (T(1) - grown) * g / root; "
            "p = p - lr * ahead / (T(1) - grown * ahead) * m / root;"
        ),
        cuda_constants=(
            "const T c2 = -expm1(T(step) * log_beta2), "
            "here = T(beta1) * (T(1) - T(0.5) * exp(T(step) * fall)), "
            "ahead = T(beta1) * (T(1) - T(0.5) * exp(T(step + 1) * fall));"
        ),
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 2e-3,
        beta1: float | Schedule = 0.9,
        beta2: float | Schedule = 0.999,
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0.0,
        momentum_decay: float = 4e-3,
        decay_biases: bool = True,
    ) -> None:
        self.take_numbers(beta1=beta1, beta2=beta2)
        self.eps = in_range("eps", eps, 0.0)
        self.momentum_decay = in_range("momentum_decay", momentum_decay, 0.0)
        super().__init__(parameters, lr, weight_decay, decay_biases)

    def options(self) -> tuple[float, ...]:
        """Return the betas, the logarithm of the second, eps, and the logarithm of u's fall."""
        beta1, beta2 = self.number("beta1"), self.number("beta2")
        log_beta2 = log(beta2) if beta2 else -1e4
        return beta1, beta2, log_beta2, self.eps, self.momentum_decay * log(0.96)


def _radam(
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
    rate, scratch = rate_of(lr), moments(g, beta1, beta2, m, v)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * exp(step * log_beta2) / c2
    if length > 5:
        rise = (length - 4) * (length - 2) * longest
        rise = sqrt(rise / ((longest - 4) * (longest - 2) * length))
        np.add(np.sqrt(v, out=scratch), eps, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, rate * (rise * sqrt(c2) / c1), out=scratch)
    else:
        np.multiply(m, rate / c1, out=scratch)
    np.subtract(p, scratch, out=p)


class RAdam(Adam, name="radam"):
    """Rectified Adam, which needs no warm-up.

    With R = 2 / (1 - beta2) - 1 and r = R - 2 * step * beta2 ** step / c2, while r <= 5,
    p = p - lr * m / c1. Afterwards p = p - lr * k * (m / c1) * sqrt(c2) / (sqrt(v) + eps) with
    k = sqrt((r - 4) * (r - 2) * R / ((R - 4) * (R - 2) * r)).

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of the past in m, 0 <= beta1 < 1, or a schedule.
        beta2: the weight of the past in v, 0 <= beta2 < 1, or a schedule.
        eps: a small number that keeps the division finite.
        weight_decay: weight_decay * p is added to g; see `Optimizer`.
        decay_biases: whether biases decay as well.

    Reference:
        Liu et al. (2020), in PyTorch's form.
    """

    rule = Rule(
        "radam",
        "float64 beta1, float64 beta2, float64 log_beta1, float64 log_beta2, T eps -> m, v",
        numpy=_radam,
        cuda=MOMENTS + "p = p - lr * (adapts ? T(with_root) / (sqrt(v) + eps) : T(plain)) * m;",
        cuda_constants=(
            "const double c1 = -expm1((double)step * log_beta1), "
            "c2 = -expm1((double)step * log_beta2), longest = 2.0 / (1.0 - beta2) - 1.0, "
            "length = longest - 2.0 * (double)step * (1.0 - c2) / c2, plain = 1.0 / c1; "
            "const bool adapts = length > 5.0; "
            "const double rise = (length - 4.0) * (length - 2.0) * longest"
            " / ((longest - 4.0) * (longest - 2.0) * length), "
            "with_root = sqrt((adapts ? rise : 1.0) * c2) / c1;"
        ),
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-3,
        beta1: float | Schedule = 0.9,
        beta2: float | Schedule = 0.999,
        eps: float = 1e-8,
        weight_decay: float | Schedule = 0.0,
        decay_biases: bool = True,
    ) -> None:
        super().__init__(parameters, lr, beta1, beta2, eps, weight_decay, decay_biases=decay_biases)


def _lion(g: Array, lr: Array, step: int, beta1: float, beta2: float, p: Array, m: Array) -> None:
    scratch, added = scratch_like(g), scratch_like(g)
    np.multiply(m, beta1, out=scratch)
    np.add(scratch, np.multiply(g, 1 - beta1, out=added), out=scratch)
    np.multiply(np.sign(scratch, out=scratch), lr, out=scratch)
    np.subtract(p, scratch, out=p)
    np.multiply(m, beta2, out=m)
    np.add(m, np.multiply(g, 1 - beta2, out=added), out=m)


class Lion(Optimizer, name="lion"):
    """Lion: every element moves by lr, with the sign of a mean of gradients.

    p = p - lr * sign(beta1 * m + (1 - beta1) * g); then m = beta2 * m + (1 - beta2) * g. The weight
    decay is decoupled. Rates are 3 to 10 times smaller than Adam's.

    Args:
        parameters: the parameters to train, or None.
        lr: the learning rate.
        beta1: the weight of m in the step, 0 <= beta1 < 1, or a schedule.
        beta2: the weight of the past in m, 0 <= beta2 < 1, or a schedule.
        weight_decay: lr * weight_decay * p is subtracted from p first.
        decay_biases: whether biases decay as well.

    Reference:
        Chen et al. (2023), algorithm 2.
    """

    decoupled = True
    slots = ("mean",)
    limits = Adam.limits
    rule = Rule(
        "lion",
        "float64 beta1, float64 beta2 -> m",
        numpy=_lion,
        cuda=(
            "const T along = T(beta1) * m + T(1.0 - beta1) * g; "
            "p = p - lr * (along > T(0) ? T(1) : along < T(0) ? T(-1) : along); "
            "m = T(beta2) * m + T(1.0 - beta2) * g;"
        ),
    )

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-4,
        beta1: float | Schedule = 0.9,
        beta2: float | Schedule = 0.99,
        weight_decay: float | Schedule = 0.0,
        decay_biases: bool = True,
    ) -> None:
        self.take_numbers(beta1=beta1, beta2=beta2)
        super().__init__(parameters, lr, weight_decay, decay_biases)

    def options(self) -> tuple[float, ...]:
        """Return the betas."""
        return self.number("beta1"), self.number("beta2")
