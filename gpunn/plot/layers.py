"""Draw the weights, gradients and units of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError, ShapeError
from gpunn.nn import Module, UnitReport
from gpunn.nn import gradient_norms as norms_of
from gpunn.plot.style import PALETTE, given, logarithmic, tidy


def filters(
    weight: Any, shape: tuple[int, int], ax: Any = None, *, columns: int = 10, title: str = ""
) -> Any:
    """Draw the weights into each unit of a first layer as images, side by side.

    Negative weights are orange, positive ones purple, and 0 is white. All images have the same
    scale.

    Args:
        weight: (D, H) array or tensor, or a layer that has such a `weight`.
        shape: (height, width) of the inputs, height * width = D.
        ax: matplotlib axes; None for the axes of a new figure.
        columns: the number of images in a row.
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        ShapeError: the weights do not have the shape of images.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lecture 004, "first-layer filters". Its picture shows the filters of AlexNet, whose weights
        do not come with this library.
    """
    weight = getattr(weight, "weight", weight)
    pixels = weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight)
    if pixels.ndim != 2 or pixels.shape[0] != shape[0] * shape[1]:
        raise ShapeError(
            f"got weights of shape {pixels.shape} for images of {shape}; expected "
            f"({shape[0] * shape[1]}, H): pass the weights of the first layer"
        )
    ax, count = given(ax), pixels.shape[1]
    columns = min(columns, count)
    rows = -(-count // columns)
    tiles = np.full((rows * (shape[0] + 1) + 1, columns * (shape[1] + 1) + 1), np.nan)
    for number, image in enumerate(pixels.T.reshape(count, *shape)):
        top = number // columns * (shape[0] + 1) + 1
        left = number % columns * (shape[1] + 1) + 1
        tiles[top : top + shape[0], left : left + shape[1]] = image
    limit = float(np.percentile(np.abs(pixels), 99.5)) or 1.0
    ax.imshow(tiles, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set(xticks=[], yticks=[], title=title)
    ax.set_frame_on(False)
    return ax


def gradient_norms(
    model: Module | Mapping[str, float], ax: Any = None, *, label: str = "", title: str = ""
) -> Any:
    """Draw the norm of the weight gradient of each layer on a logarithmic axis.

    To compare models, call the function again with the same axes.

    Args:
        model: a model after a backward pass, or the result of `gpunn.nn.gradient_norms`.
        ax: matplotlib axes; None for the axes of a new figure.
        label: the label of the curve; each call takes the next colour.
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        GradientError: no backward pass has run.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lectures 003 and 004: vanishing and exploding gradients.
    """
    norms = norms_of(model) if isinstance(model, Module) else dict(model)
    ax = given(ax)
    number = len(ax.lines)
    style = {"color": PALETTE[number % len(PALETTE)], "marker": "osD^vPX*"[number % 8]}
    ax.plot(range(1, len(norms) + 1), list(norms.values()), label=label or None, **style)
    logarithmic(ax.yaxis)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if label:
        ax.legend(frameon=False)
    return tidy(ax, xlabel="layer", ylabel="norm of the weight gradient", title=title)


def dead_units(reports: Mapping[str, UnitReport], ax: Any = None, *, title: str = "") -> Any:
    """Draw the fraction of dead units of each layer, and the mean slope of its activations.

    Args:
        reports: the result of `gpunn.nn.dead_units`.
        ax: matplotlib axes; None for the axes of a new figure.
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        ArgumentError: there are no layers with activations.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lectures 002 and 003.
    """
    if not reports:
        raise ArgumentError(
            "got no reports; expected at least one layer with an activation: pass the result of "
            "gpunn.nn.dead_units"
        )
    ax, places = given(ax), np.arange(len(reports))
    dead = [100 * report.fraction for report in reports.values()]
    slopes = [100 * float(report.slope.mean()) for report in reports.values()]
    ax.bar(places - 0.2, dead, 0.4, color=PALETTE[1], label="dead units (% of the layer)")
    hatch = {"hatch": "//", "edgecolor": "white"}
    ax.bar(places + 0.2, slopes, 0.4, color=PALETTE[0], label="mean slope (%)", **hatch)
    for place, share in zip(places, dead, strict=True):
        ax.text(place - 0.2, share, f"{share:.0f}", ha="center", va="bottom", fontsize=8)
    ax.set_xticks(places, [f"layer {name}" for name in reports])
    ax.set_ylim(0, 1.25 * max(*dead, *slopes, 1.0))
    ax.legend(frameon=False, loc="upper left")
    return tidy(ax, ylabel="percent", title=title)
