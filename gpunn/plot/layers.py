"""What is inside a network, and what it mixes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError, ShapeError
from gpunn.nn import Module, UnitReport
from gpunn.nn import gradient_norms as norms_of
from gpunn.plot.style import PALETTE, given, tidy


def filters(
    weight: Any, shape: tuple[int, int], ax: Any = None, *, columns: int = 10, title: str = ""
) -> Any:
    """The weights into each unit of a first layer as images, side by side.

    Orange is negative, purple positive, white 0; every image has the same scale.

    Args:
        weight: (D, H) array or tensor, or a layer that has such a `weight`.
        shape: (height, width) of the inputs, height * width = D.
        ax: matplotlib axes; those of a new figure for None.
        columns: images in a row.
        title: above the picture.

    Returns:
        The axes.

    Raises:
        ShapeError: the weights do not have the shape of images.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lecture 004, "first-layer filters". Its picture shows AlexNet's, whose weights do not ship
        with this library.
    """
    weight = getattr(weight, "weight", weight)
    pixels = weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight)
    if pixels.ndim != 2 or pixels.shape[0] != shape[0] * shape[1]:
        raise ShapeError(
            f"got weights of shape {pixels.shape} for images of {shape}; expected "
            f"({shape[0] * shape[1]}, H): pass the first layer's"
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


def confusion_matrix(
    labels: Any, predicted: Any, ax: Any = None, *, names: Sequence[str] = (), title: str = ""
) -> Any:
    """How many examples of each class (rows) were given each class (columns).

    Args:
        labels: (N,) true classes, integers from 0.
        predicted: (N,) classes that a model gave.
        ax: matplotlib axes; those of a new figure for None.
        names: of the classes; their numbers without.
        title: above the picture.

    Returns:
        The axes.

    Raises:
        ShapeError: the two have different shapes, or more than one axis.
        ArgumentError: negative classes, or none.
        MissingExtraError: matplotlib is not installed.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ShapeError(
            f"got labels of shape {labels.shape} and predictions of shape {predicted.shape}; "
            "expected (N,) both: pass class numbers, as model.classify gives"
        )
    if not labels.size or min(labels.min(), predicted.min()) < 0:
        raise ArgumentError("got no examples or negative classes; expected classes from 0")
    classes = max(int(labels.max()), int(predicted.max())) + 1
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax = given(ax)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[i, j] > 0.5 else "black"
            ax.text(j, i, str(count), ha="center", va="center", color=ink, fontsize=8)
    ticks = list(names) or [str(k) for k in range(classes)]
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    ax.set_xticks(range(classes), ticks)
    ax.set_yticks(range(classes), ticks)
    return ax


def gradient_norms(
    model: Module | Mapping[str, float], ax: Any = None, *, label: str = "", title: str = ""
) -> Any:
    """The norm of each layer's weight gradient on a logarithmic axis. Call again to compare.

    Args:
        model: a model after a backward pass, or what `gpunn.nn.gradient_norms` gave.
        ax: matplotlib axes; those of a new figure for None.
        label: of the curve; each call takes the next colour.
        title: above the picture.

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
    ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if label:
        ax.legend(frameon=False)
    return tidy(ax, xlabel="layer", ylabel="norm of the weight gradient", title=title)


def dead_units(reports: Mapping[str, UnitReport], ax: Any = None, *, title: str = "") -> Any:
    """The share of dead units of each layer, and the mean slope of its activations.

    Args:
        reports: what `gpunn.nn.dead_units` gave.
        ax: matplotlib axes; those of a new figure for None.
        title: above the picture.

    Returns:
        The axes.

    Raises:
        ArgumentError: no layers with activations.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lectures 002 and 003.
    """
    if not reports:
        raise ArgumentError("got no reports; expected at least one layer with an activation")
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
