"""Draw curves: of a fit over its epochs, and of an activation with its derivative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpunn.arguments import lookup
from gpunn.backends import backend
from gpunn.errors import ArgumentError
from gpunn.ops import Activation, get_activation
from gpunn.ops.elementwise import opened
from gpunn.plot.style import PALETTE, TRAINING, VALIDATION, given, logarithmic, tidy


def learning_curve(
    history: Mapping[str, Sequence[float]],
    ax: Any = None,
    *,
    quantity: str = "loss",
    title: str | None = None,
) -> Any:
    """Draw one quantity over the epochs, for the training and for the validation data.

    The best epoch of a loss or an accuracy is marked: that of the validation data, if there are
    any. The labels name the loss and the data, as far as the history knows them.

    Args:
        history: the history of a fit, or any mapping from names to numbers of epochs.
        ax: matplotlib axes; None for the axes of a new figure.
        quantity: "loss", on a logarithmic axis; "accuracy", in percent; "lr", "seconds", or a
            metric.
        title: the title above the picture; None for the name of the data.

    Returns:
        The axes.

    Raises:
        ArgumentError: the history has no such curve.
        MissingExtraError: matplotlib is not installed.
    """
    names = {name: name in history for name in (quantity, f"val_{quantity}")}
    if not any(names.values()):
        raise ArgumentError(
            f"got quantity={quantity!r}; expected one of {', '.join(sorted(history))}: "
            "choose one of them, or pass validation=... to fit for validation curves"
        )
    ax = given(ax)
    scale = 100 if quantity == "accuracy" else 1
    sizes = getattr(history, "rows", 0), getattr(history, "val_rows", 0)
    for (name, there), label, size, color in zip(
        names.items(), ("training", "validation"), sizes, (TRAINING, VALIDATION), strict=True
    ):
        if there:
            values = scale * np.array(history[name])
            text = f"{label}, {size:,} rows" if size else label
            marks = {"marker": "o" if len(values) <= 10 else ""}
            ax.plot(range(1, len(values) + 1), values, color=color, label=text, **marks)
    if quantity in ("loss", "accuracy"):
        _mark_best(ax, values, color, quantity)
        ax.legend(frameon=False, fontsize="small")
    if quantity == "loss":
        logarithmic(ax.yaxis)
    said = {"accuracy": "accuracy (%)", "seconds": "seconds an epoch", "lr": "learning rate"}
    said["loss"] = getattr(history, "loss", "").replace("_", " ") or "loss"
    data = getattr(history, "data", "") if title is None else title
    tidy(ax, xlabel="epoch", ylabel=said.get(quantity, quantity.replace("_", " ")), title=data)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def _mark_best(ax: Any, values: Any, color: str, quantity: str) -> None:
    """Mark the epoch with the smallest loss or the largest accuracy."""
    if np.isnan(values).all():
        return
    epoch = int((np.nanargmax if quantity == "accuracy" else np.nanargmin)(values))
    text = f"best: {values[epoch]:.4g} in epoch {epoch + 1}"
    mark = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "linestyle": ""}
    ax.plot([epoch + 1], [values[epoch]], color=color, label=text, **mark)


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
    if scale == "log":
        logarithmic(ax.yaxis)
    if len(curves) > 1:
        ax.legend(frameon=False)
    return tidy(ax, xlabel=xlabel, ylabel=ylabel, title=title)
