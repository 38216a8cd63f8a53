"""The operation of a linear layer, fused with its bias, activation and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gpunn.autograd import op, product_of, target
from gpunn.autograd.engine import Backward, Need
from gpunn.backends import Backend
from gpunn.backends.random import Draw
from gpunn.errors import ArgumentError, DTypeError, ShapeError
from gpunn.ops.activations import identity
from gpunn.ops.dropout import Rate, dropout_words
from gpunn.ops.elementwise import Activation, chosen, opened
from gpunn.ops.reductions import column_sums
from gpunn.typing import Array


class Dropped(NamedTuple):
    """Dropout on the output of a linear layer: its rate and its random bits."""

    rate: float
    draw: Draw


def check_shapes(x: Array, w: Array, bias: Array | None) -> None:
    """Check the arrays of a linear layer.

    Raises:
        ShapeError, DTypeError: they do not fit; the message names both.
    """
    if x.ndim == 0 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
        raise ShapeError(
            f"got x of shape {x.shape} and w of shape {w.shape}; expected (..., {w.shape[0]}) and "
            f"{w.shape}: check the number of input features"
        )
    if x.dtype != w.dtype:
        raise DTypeError(
            f"got x of {x.dtype} and w of {w.dtype}; expected one dtype: "
            f"use x.astype({str(w.dtype)!r})"
        )
    if bias is not None and bias.shape != w.shape[1:]:
        raise ShapeError(
            f"got bias of shape {bias.shape} and w of shape {w.shape}; expected {w.shape[1:]}: "
            "make it as wide as the output"
        )


def _checked_feedback(feedback: Array, w: Array) -> Array:
    if feedback.shape != w.shape or feedback.dtype != w.dtype:
        raise ShapeError(
            f"got feedback of shape {feedback.shape} and {feedback.dtype}; expected those of w, "
            f"{w.shape} and {w.dtype}: create it like w"
        )
    return feedback


def _with_numbers(activation: Callable[..., Any]) -> tuple[Activation, tuple[float, ...]]:
    """Return an elementwise activation, and the numbers of its formula."""
    found, given = opened(activation)
    if not isinstance(found, Activation):
        raise ArgumentError(
            f"got the activation {activation!r} in linear; expected an elementwise one of "
            "gpunn.ops: apply others to the result"
        )
    return found, chosen(found.name, found.limits, given)


class Layer(NamedTuple):
    """A linear layer after its forward pass.

    Attributes:
        y: its output.
        through: returns gz, the gradient through dropout and activation, for gy.
        gradients: returns the gradients of x, w and the bias for gz and their needs.
        differentiable: whether its activation has a derivative.
    """

    y: Array
    through: Callable[[Array], Array]
    gradients: Callable[[Array, Any], tuple[Array | None, ...]]
    differentiable: bool


@op
def linear(
    b: Backend,
    x: Array,
    w: Array,
    bias: Array | None = None,
    *,
    activation: Callable[..., Any] = identity,
    dropout: Dropped | None = None,
    feedback: Array | None = None,
) -> tuple[Array, Backward]:
    """y = dropout(activation(x @ w + bias)), with everything after the product in one kernel.

    Args:
        x: (N, D), or (..., D).
        w: (D, H).
        bias: (H,) or None.
        activation: an elementwise activation, or a `functools.partial` that sets its options.
        dropout: the rate and the bits of inverted dropout on the result; None for no dropout.
        feedback: (D, H), the matrix that carries the error signal back in place of w; None for w
            itself. With another matrix, gx is the error signal of feedback alignment, not the
            gradient.

    Returns:
        (N, H), or (..., H).

    Raises:
        ShapeError: the shapes do not fit; the message names both.

    Gradient:
        gz = gy * keep / (1 - rate) * activation'(z); gx = gz w', gw = x' gz, gbias = sum_n gz.
        Kept for the backward pass: x, w (or `feedback`), and y or z, depending on the activation's
        derivative. With dropout it is the activation before it, a further array, but for
        `identity`, `relu` and `leaky_relu`, whose y after dropout does as well.

    Reference:
        All five lectures; feedback alignment: Lillicrap et al. (2016), Nature Communications 7,
        and Song, Xu and Lafferty (2021), arXiv 2106.06044, both named in lecture 000.
    """
    layer = layer_of(b, x, w, bias, activation, dropout, feedback)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        if not layer.differentiable:
            return (None,) * len(needs)
        return layer.gradients(layer.through(gy), needs)

    return layer.y, backward


def layer_of(
    b: Backend,
    x: Array,
    w: Array,
    bias: Array | None = None,
    activation: Callable[..., Any] = identity,
    dropout: Dropped | None = None,
    feedback: Array | None = None,
) -> Layer:
    """Compute the output of a linear layer; see `linear`."""
    check_shapes(x, w, bias)
    back = w if feedback is None else _checked_feedback(feedback, w)
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])  # (N, D)
    activation, options = _with_numbers(activation)
    bits: tuple[Any, ...] = ()
    fused = None
    if b.fuses and bias is not None and dropout is None and activation.epilogue:
        fused = b.matmul_with(activation.epilogue, rows, w, bias)
    z = b.matmul(rows, w) if fused is None else fused  # (N, H)
    offset = b.zeros(w.shape[1:], w.dtype) if bias is None else bias
    if fused is not None:
        kept = y = z
    elif dropout is not None:
        rate = Rate.of(dropout.rate)
        words = dropout_words(b, rate, z.size, dropout.draw)
        bits = (words, *rate, rate.scale)
        out = z if activation.keeps_dropped else (z, b.empty_like(z))
        made = b.launch(activation.bias_dropout_kernel, offset, *options, *bits, out=out)
        kept, y = (made, made) if activation.keeps_dropped else made
    elif bias is None and not activation.saves:
        kept = y = z
    elif activation.saves == "x":
        out = (z, b.empty_like(z))
        kept, y = b.launch(activation.bias_kernel, offset, *options, out=out)
    else:
        kept = y = b.launch(activation.bias_kernel, offset, *options, out=z)

    def through(gy: Array) -> Array:
        gy = gy if gy.ndim == 2 else gy.reshape(z.shape)
        if bits:
            out = b.empty_like(kept)
            return b.launch(activation.grad_dropout_kernel, gy, kept, *options, *bits, out=out)
        if activation.saves:
            return b.launch(activation.grad_kernel, gy, kept, *options, out=b.empty_like(kept))
        return gy

    def gradients(gz: Array, needs: Any) -> tuple[Array | None, ...]:
        gx = b.matmul(gz, back.T).reshape(x.shape) if needs[0] else None
        if len(needs) == 2:
            return gx, product_of(b, rows.T, gz, needs[1]) if needs[1] else None
        return gx, *parameter_gradients(b, rows, gz, needs[1], needs[2])

    y = y if x.ndim == 2 else y.reshape(*x.shape[:-1], w.shape[1])
    return Layer(y, through, gradients, activation.differentiable)


def parameter_gradients(
    b: Backend, rows: Array, gz: Array, weight: Need, bias: Need
) -> tuple[Array | None, Array | None]:
    """Return the gradients of weight and bias, computed by one product if the device can."""
    if b.fuses and weight and bias:
        sums = target(bias)
        sums = b.empty(gz.shape[1:], gz.dtype) if sums is None else sums
        gw = b.matmul_with("bias_grad", rows.T, gz, sums, out=target(weight))
        if gw is not None:
            return gw, sums
    gw = product_of(b, rows.T, gz, weight) if weight else None
    return gw, column_sums(b, gz, out=target(bias)) if bias else None
