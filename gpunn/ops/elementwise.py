"""Build an activation from its formula and its derivative: the operation and its fused kernels.

The kernels are: the formula alone, the formula after adding a bias, the formula after adding a
bias and before dropout, the gradient, and the gradient behind dropout.

In a forward body, `y` may be the same array as `x`. In a gradient body, `gx` is never one of the
inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from gpunn.arguments import flag, is_number, lookup
from gpunn.autograd import Op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, scratch_like
from gpunn.errors import ArgumentError, DTypeError
from gpunn.names import at_home_of, home_of
from gpunn.ops.dropout import DROPOUT_PARAMS, KEEP, dropped
from gpunn.typing import Array

ACTIVATIONS: dict[str, Op] = {}
"""The activations that a string can name."""

GAINS = dict.fromkeys(("he", "glorot"))
"""The kinds of initial weights that an activation can ask for."""

SAVES = dict.fromkeys(("y", "sign", "x", ""))
"""What the gradient of an activation can be computed from."""


class Option(NamedTuple):
    """A number in a formula: its default and the open interval it must lie in.

    `type` is its type in CUDA bodies: "T", or "float64" if they need more of its digits, or "bool"
    for a flag. If `closed`, the interval includes its lower end.
    """

    default: float
    low: float = 0.0
    high: float = float("inf")
    type: str = "T"
    closed: bool = False


def chosen(
    name: str, options: Mapping[str, Option], given: Mapping[str, float]
) -> tuple[float, ...]:
    """Return the numbers of a formula, in the order of its signature.

    Args:
        name: the name of the formula, for messages.
        options: the numbers that the formula has.
        given: the numbers that a caller chose.

    Raises:
        UnknownNameError: the formula has no such option.
        ArgumentError: a number is outside its interval.
    """
    for option, number in given.items():
        _, low, high, kind, closed = lookup(f"option of {name}", option, options)
        if kind == "bool":
            flag(option, number)
            continue
        above = is_number(number) and (low <= number if closed else low < number)
        if not above or not number < high:
            raise ArgumentError(
                f"got {option}={number!r} in {name}; expected {low} <{'=' * closed} {option} < "
                f"{high}"
            )
    return tuple(given.get(option, limit.default) for option, limit in options.items())


def check_floats(name: str, x: Array) -> None:
    """Check that the array of an operation holds floats.

    Raises:
        DTypeError: it holds something else.
    """
    if not np.issubdtype(x.dtype, np.floating) and np.dtype(x.dtype).name != "bfloat16":
        raise DTypeError(
            f"got {x.dtype} in {name}; expected floats: convert with astype('float32'), because "
            "gpunn converts nothing by itself"
        )


def opened(function: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the function inside a `functools.partial`, and the options that were given to it."""
    options: dict[str, Any] = {}
    while isinstance(function, partial) and not function.args:
        options = {**function.keywords, **options}
        function = function.func
    return function, options


def trait(function: Callable[..., Any], name: str, default: Any) -> Any:
    """Return an attribute of a function, or of the function inside a `functools.partial`."""
    return getattr(function, name, getattr(opened(function)[0], name, default))


def configured(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function with the given options.

    Raises:
        UnknownNameError: a registered function has no such option.
        ArgumentError: a number is outside its interval.
    """
    if not options:
        return function
    checked = trait(function, "checked", None)
    return partial(function, **(options if checked is None else checked(options)))


class Activation(Op):
    """An elementwise activation with its kernels.

    Attributes:
        limits: the numbers in the formula that a caller may choose, with their intervals.
        options: the defaults of these numbers.
        gain: the initial weights that suit it: "he" for rectifiers, "glorot" for the rest.
        saves: what the gradient is computed from: "y"; "sign", that of y, so the output after
            dropout does as well; "x"; or "" for the identity.
        saved: the name of that array in the body of the gradient, "x" or "y".
        keeps_dropped: whether the output after dropout is all that the gradient needs.
        kinks: the points where the derivative jumps.
        differentiable: False for a step, whose derivative is 0 wherever it exists.
        epilogue: the epilogue of `Backend.matmul_with` that adds a bias and applies the
            activation; "" if there is none.
        same_as: the activation that computes the same except for rounding, which exports use in
            its place; None if there is none.
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
        gain: str = "glorot",
        epilogue: str = "",
        same_as: Activation | None = None,
    ) -> None:
        self.epilogue, self.same_as = epilogue, same_as
        self.saves, self.kinks, self.differentiable = saves, kinks, differentiable
        lookup("gain", gain, GAINS)
        lookup("saves", saves, SAVES)
        self.gain, self.limits = gain, MappingProxyType(dict(options or {}))
        self.options = MappingProxyType({k: limit.default for k, limit in self.limits.items()})
        extra = "".join(f", {limit.type} {option}" for option, limit in self.limits.items())
        self.saved = saved = "x" if saves == "x" else "y"
        self.keeps_dropped = saves in ("sign", "")
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
            kept = f"z = z + bias; T x = z; T y; {cuda}"
        else:
            bias = f"T x = z + bias; T y; {cuda}"
            self.bias_kernel = Elementwise(
                f"{name}_bias", f"bias{extra} -> z", _after_bias(numpy, False), f"{bias} z = y;"
            )
            kept = f"{bias} z = y;" if saves == "y" else bias
        self.bias_dropout_kernel = Elementwise(
            f"{name}_bias_dropout",
            f"bias{extra}, {DROPOUT_PARAMS} -> {'z' if self.keeps_dropped else 'z, d'}",
            _after_bias_dropped(numpy, saves),
            f"{kept} {'z' if self.keeps_dropped else 'd'} = {KEEP} ? T(y * scale) : T(0);",
        )

        def vjp(b: Backend, x: Array, **given: float) -> tuple[Array, Backward]:
            values = chosen(name, self.limits, given)
            check_floats(name, x)
            y = b.launch(self.kernel, x, *values)
            kept = x if saves == "x" else y

            def backward(gy: Array, needs: Any) -> tuple[Array | None]:
                if not differentiable:
                    return (None,)
                return (b.launch(self.grad_kernel, gy, kept, *values) if saves else gy,)

            return y, backward

        vjp.__doc__ = doc
        super().__init__(vjp, name, home_of(numpy))
        ACTIVATIONS[name] = self

    def checked(self, options: Mapping[str, float]) -> Mapping[str, float]:
        """Check options, and return them.

        Raises:
            UnknownNameError: the activation has no such option.
            ArgumentError: a number is outside its interval.
        """
        chosen(self.name, self.limits, options)
        return options


def _after_bias(body: Callable[..., Any], saves_x: bool) -> Callable[..., Any]:
    @at_home_of(body)
    def two_outputs(bias: Array, *rest: Any) -> None:
        *options, z, y = rest
        np.add(z, bias, out=z)
        body(z, *options, y)

    @at_home_of(body)
    def in_place(bias: Array, *rest: Any) -> None:
        *options, z = rest
        np.add(z, bias, out=z)
        body(z, *options, z)

    return two_outputs if saves_x else in_place


def _after_bias_dropped(body: Callable[..., Any], saves: str) -> Callable[..., Any]:
    @at_home_of(body)
    def two_outputs(bias: Array, *rest: Any) -> None:
        *options, words, width, threshold, scale, z, d = rest
        np.add(z, bias, out=z)
        y = scratch_like(z) if saves == "x" else z
        body(z, *options, y)
        dropped(y, words, width, threshold, scale, d)

    @at_home_of(body)
    def in_place(bias: Array, *rest: Any) -> None:
        *options, words, width, threshold, scale, z = rest
        np.add(z, bias, out=z)
        body(z, *options, z)
        dropped(z, words, width, threshold, scale, z)

    return two_outputs if saves in ("x", "y") else in_place


def _then_dropped(grad_body: Callable[..., Any]) -> Callable[..., Any]:
    @at_home_of(grad_body)
    def fused(gy: Array, saved: Array, *rest: Any) -> None:
        *options, words, width, threshold, scale, gx = rest
        grad_body(gy, saved, *options, gx)
        dropped(gx, words, width, threshold, scale, gx)

    return fused


def get_activation(
    activation: str | Mapping[str, Any] | Callable[..., Any], **options: float
) -> Callable[..., Any]:
    """Return the activation of a registered name, or the function that was passed.

    Args:
        activation: a registered name; a function of a tensor; or, as in a model file, a mapping
            of options with the name under "name".
        options: numbers of the formula, for example `slope=0.3` of "leaky_relu". With options, the
            result is a `functools.partial`.

    Raises:
        UnknownNameError: no such name or option; the message lists the known ones.
        ArgumentError: an option is outside its interval.

    Example:
        >>> get_activation("leaky_relu", slope=0.5)(np.array([-2.0, 2.0])).numpy()
        array([-1.,  2.])
    """
    if isinstance(activation, Mapping):
        given: dict[str, Any] = {**activation, **options}
        return get_activation(given.pop("name", "") or "", **given)
    if not callable(activation):
        activation = lookup("activation", activation, ACTIVATIONS)
    return configured(activation, options)
