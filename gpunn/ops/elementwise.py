"""What makes an activation of a declaration: the operation and its fused kernels.

From a formula and its derivative follow the operation, the kernel fused with a bias, the one fused
with bias and dropout, and the gradient fused with the upstream gradient and the dropout mask.

In a forward body `y` may be the same array as `x`. A gradient body never gets `gx` as an input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.autograd import Op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, scratch_like
from gpunn.errors import lookup
from gpunn.ops.dropout import DROPOUT_PARAMS, KEEP, keep_factors
from gpunn.ops.option import Option, chosen
from gpunn.typing import Array

ACTIVATIONS: dict[str, Op] = {}
"""Every activation that can be named by a string."""


class Activation(Op):
    """An elementwise activation with its kernels.

    Attributes:
        options: the defaults of the numbers in the formula.
        saves: what the gradient is computed from: "y", "x", or "" when it is the identity.
        kinks: where the derivative jumps.
        differentiable: False for a step, whose derivative is 0 wherever it exists.
    """

    def __init__(
        self,
        name: str,
        doc: str,
        *,
        numpy: Callable[..., Any],
        cuda: str,
        grad_numpy: Callable[..., Any],
        grad_cuda: str,
        saves: str = "y",
        options: dict[str, Option] | None = None,
        kinks: tuple[float, ...] = (),
        differentiable: bool = True,
    ) -> None:
        self.saves, self.kinks, self.differentiable = saves, kinks, differentiable
        self._limits = dict(options or {})
        self.options = {option: limit.default for option, limit in self._limits.items()}
        extra = "".join(f", T {option}" for option in self.options)
        saved = saves or "y"
        self.kernel = Elementwise(name, f"x{extra} -> y", numpy, cuda)
        self.grad_kernel = Elementwise(
            f"{name}_grad", f"gy, {saved}{extra} -> gx", grad_numpy, grad_cuda
        )
        self.grad_dropout_kernel = Elementwise(
            f"{name}_grad_dropout",
            f"gy, {saved}{extra}, {DROPOUT_PARAMS} -> gx",
            _then_dropped(grad_numpy),
            f"{grad_cuda} gx = {KEEP} ? T(gx * scale) : T(0);",
        )
        if saves == "x":
            bias = f"z = z + bias; T x = z; {cuda}"
            self.bias_kernel = Elementwise(
                f"{name}_bias", f"bias{extra} -> z, y", _after_bias(numpy, True), bias
            )
            dropped = f"z = z + bias; T x = z; T y; {cuda}"
        else:
            bias = f"T x = z + bias; T y; {cuda} z = y;"
            self.bias_kernel = Elementwise(
                f"{name}_bias", f"bias{extra} -> z", _after_bias(numpy, False), bias
            )
            dropped = bias
        self.bias_dropout_kernel = Elementwise(
            f"{name}_bias_dropout",
            f"bias{extra}, {DROPOUT_PARAMS} -> z, d",
            _after_bias_dropped(numpy, saves == "x"),
            f"{dropped} d = {KEEP} ? T(y * scale) : T(0);",
        )

        def vjp(b: Backend, x: Array, **given: float) -> tuple[Array, Backward]:
            values = chosen(name, self._limits, given)
            y = b.launch(self.kernel, x, *values)
            kept = x if saves == "x" else y

            def backward(gy: Array, needs: Any) -> tuple[Array | None]:
                if not differentiable:
                    return (None,)
                return (b.launch(self.grad_kernel, gy, kept, *values) if saves else gy,)

            return y, backward

        vjp.__doc__ = doc
        super().__init__(vjp, name)
        ACTIVATIONS[name] = self


def _after_bias(body: Callable[..., Any], saves_x: bool) -> Callable[..., Any]:
    def two_outputs(bias: Array, *rest: Any) -> None:
        *options, z, y = rest
        np.add(z, bias, out=z)
        body(z, *options, y)

    def in_place(bias: Array, *rest: Any) -> None:
        *options, z = rest
        np.add(z, bias, out=z)
        body(z, *options, z)

    return two_outputs if saves_x else in_place


def _after_bias_dropped(body: Callable[..., Any], saves_x: bool) -> Callable[..., Any]:
    def fused(bias: Array, *rest: Any) -> None:
        *options, words, width, threshold, scale, z, d = rest
        np.add(z, bias, out=z)
        if saves_x:
            y = scratch_like(z)
            body(z, *options, y)
        else:
            y = z
            body(z, *options, z)
        keep_factors(words, width, threshold, scale, d)
        np.multiply(d, y, out=d)

    return fused


def _then_dropped(grad_body: Callable[..., Any]) -> Callable[..., Any]:
    def fused(gy: Array, saved: Array, *rest: Any) -> None:
        *options, words, width, threshold, scale, gx = rest
        factors = scratch_like(gx)
        keep_factors(words, width, threshold, scale, factors)
        grad_body(gy, saved, *options, gx)
        np.multiply(gx, factors, out=gx)

    return fused


def get_activation(activation: str | Callable[..., Any]) -> Callable[..., Any]:
    """The activation of a registered name; a callable is returned as it is.

    Raises:
        UnknownNameError: no such name; the message lists the known ones.
    """
    return activation if callable(activation) else lookup("activation", activation, ACTIVATIONS)
