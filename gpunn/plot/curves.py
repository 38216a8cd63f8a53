"""Curves: of a fit over its epochs, and of an activation with its derivative."""

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
    """One quantity over the epochs, for the training and for the validation data.

    Args:
        history: of a fit.
        ax: matplotlib axes; those of a new figure for None.
        quantity: "loss", on a logarithmic axis, or "accuracy", in percent; "lr" and "seconds" too.
        title: above the picture.

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
            "for validation curves pass validation=... to fit"
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
    """An elementwise activation and its derivative.

    Args:
        name: a registered name or an `Activation`.
        ax: matplotlib axes; those of a new figure for None.
        low: where the curve begins.
        high: where it ends.

    Returns:
        The axes.

    Raises:
        UnknownNameError: no such activation.
        ArgumentError: not an elementwise one, or not low < high.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lectures 001, 003 and 004, "activation functions".
    """
    found, options = opened(get_activation(name))
    if not isinstance(found, Activation) or not low < high:
        raise ArgumentError(
            f"got {name!r} from {low} to {high}; expected an elementwise activation and low < high"
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
        jumps = np.abs(np.diff(values)) > 0.05  # a kink or a step: no line across it
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
    """Several curves, each with its own colour and line, told apart without colours too.

    Args:
        curves: label -> (x, y).
        ax: matplotlib axes; those of a new figure for None.
        xlabel: with its unit.
        ylabel: with its unit.
        scale: of the y axis, "linear" or "log".
        title: above the picture.

    Returns:
        The axes.

    Raises:
        UnknownNameError: an unknown scale.
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
