"""Draw curves: of a fit over its epochs, and of an activation with its derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.arguments import lookup
from gpunn.backends import backend
from gpunn.errors import ArgumentError
from gpunn.ops import Activation, get_activation
from gpunn.ops.elementwise import opened
from gpunn.plot.style import PALETTE, TRAINING, VALIDATION, given, tidy

if TYPE_CHECKING:
    from gpunn.train import History


def learning_curve(
    history: History, ax: Any = None, *, quantity: str = "loss", title: str = ""
) -> Any:
    """Draw one quantity over the epochs, for the training and for the validation data.

    Args:
        history: the history of a fit.
        ax: matplotlib axes; None for the axes of a new figure.
        quantity: "loss", on a logarithmic axis; "accuracy", in percent; "lr" or "seconds".
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        ArgumentError: the history has no such curve.
        MissingExtraError: matplotlib is not installed.
    """
    names = {name: name in history for name in (quantity, f"val_{quantity}")}
    if not any(names.values()):
        raise ArgumentError(
            f"got quantity={quantity!r}; expected one of {', '.join(sorted(history.curves))}: "
            "choose one of them, or pass validation=... to fit for validation curves"
        )
    ax = given(ax)
    marks = {"marker": "o" if history.epochs <= 10 else ""}
    scale = 100 if quantity == "accuracy" else 1
    for (name, there), label, color in zip(
        names.items(), ("training", "validation"), (TRAINING, VALIDATION), strict=True
    ):
        if there:
            values = scale * np.array(history[name])
            ax.plot(range(1, len(values) + 1), values, color=color, label=label, **marks)
    if quantity == "loss":
        ax.set_yscale("log")
    unit = {"accuracy": "accuracy (%)", "seconds": "seconds an epoch", "lr": "learning rate"}
    tidy(ax, xlabel="epoch", ylabel=unit.get(quantity, quantity), title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if quantity in ("loss", "accuracy"):
        ax.legend(frameon=False)
    return ax


def activation(name: str | Activation, ax: Any = None, *, low: float = -4, high: float = 4) -> Any:
    """Draw an elementwise activation and its derivative.

    Args:
        name: a registered name or an `Activation`.
        ax: matplotlib axes; None for the axes of a new figure.
        low: the x at which the curve begins.
        high: the x at which the curve ends.

    Returns:
        The axes.

    Raises:
        UnknownNameError: there is no such activation.
        ArgumentError: the activation is not elementwise, or low is not below high.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lectures 001, 003 and 004, "activation functions".
    """
    found, options = opened(get_activation(name))
    if not isinstance(found, Activation) or not low < high:
        raise ArgumentError(
            f"got {name!r} from {low} to {high}; expected an elementwise activation and low < high"
            ": choose others"
        )
    ax = given(ax)
    x = np.linspace(low, high, 1001)
    y, backward = found.vjp(backend("cpu"), x, **options)
    slope = np.zeros_like(x)
    if found.differentiable:
        (slope,) = backward(np.ones_like(x), (True,))
    ax.axhline(0, color="#bbbbbb", linewidth=0.8)
    for values, color, style, label in (
        (y, PALETTE[0], "-", "value"),
        (slope, PALETTE[1], "--", "derivative"),
    ):
        jumps = np.abs(np.diff(values)) > 0.05  # draw no line across a jump
        broken = np.insert(values, np.flatnonzero(jumps) + 1, np.nan)
        places = np.insert(x, np.flatnonzero(jumps) + 1, np.nan)
        ax.plot(places, broken, style, color=color, linewidth=2, label=label)
    ax.legend(frameon=False, loc="upper left")
    return tidy(ax, title=found.name)


SCALES = {"linear": "linear", "log": "log"}


def series(
    curves: dict[str, tuple[Any, Any]],
    ax: Any = None,
    *,
    xlabel: str = "",
    ylabel: str = "",
    scale: str = "linear",
    title: str = "",
) -> Any:
    """Draw several curves, each in its own colour and line style.

    Args:
        curves: label -> (x, y).
        ax: matplotlib axes; None for the axes of a new figure.
        xlabel: the label of the x axis, with its unit.
        ylabel: the label of the y axis, with its unit.
        scale: the scale of the y axis, "linear" or "log".
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        UnknownNameError: there is no such scale.
        MissingExtraError: matplotlib is not installed.
    """
    lookup("scale", scale, SCALES)
    ax = given(ax)
    for number, (label, (x, y)) in enumerate(curves.items()):
        style = ("-", "--", "-.", ":")[number % 4]
        marker = "o" if len(x) <= 12 else ""
        color = PALETTE[number % len(PALETTE)]
        ax.plot(x, y, style, color=color, marker=marker, linewidth=2, label=label)
    ax.set_yscale(scale)
    if len(curves) > 1:
        ax.legend(frameon=False)
    return tidy(ax, xlabel=xlabel, ylabel=ylabel, title=title)
