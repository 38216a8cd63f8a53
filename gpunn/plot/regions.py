"""Draw the regions of the plane that a classifier assigns to its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError, ShapeError
from gpunn.nn import Module
from gpunn.nn.decisions import above, largest
from gpunn.plot.style import MARKERS, PALETTE, given


def decision_regions(
    classifier: Any,
    x: Any,
    y: Any,
    ax: Any = None,
    *,
    names: Sequence[str] = (),
    resolution: int = 200,
    title: str = "",
) -> Any:
    """Draw the regions that a classifier of two features assigns to its classes, and the examples.

    Args:
        classifier: a model, an object with a method `predict`, or a function that maps (N, 2)
            points to (N,) classes. A model chooses the class with the highest score, or, with a
            single output, class 1 if the output is above 0.
        x: (N, 2) examples.
        y: (N,) integer classes.
        ax: matplotlib axes; None for the axes of a new figure.
        names: the names of the classes for the legend; empty for no legend.
        resolution: the number of points along each axis.
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        ShapeError: x is not (N, 2), or y is not (N,).
        ArgumentError: there are more classes than colours.
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lectures 001, 002 and 004.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != x.shape[:1]:
        raise ShapeError(
            f"got x of shape {x.shape} and y of shape {y.shape}; expected (N, 2) and (N,): choose "
            "two features"
        )
    margin = 0.15 * np.ptp(x, axis=0) + 1e-6
    axes = [
        np.linspace(low, high, resolution)
        for low, high in zip(x.min(axis=0) - margin, x.max(axis=0) + margin, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2).astype(x.dtype)
    regions = classes_of(classifier, grid).reshape(resolution, resolution)
    known = np.unique(np.concatenate([y, regions.ravel()]))
    if len(known) > len(PALETTE):
        raise ArgumentError(
            f"got {len(known)} classes; expected at most {len(PALETTE)} to draw: leave some out"
        )
    ax = given(ax)
    ranks = np.searchsorted(known, regions)
    edges = np.arange(len(known) + 1) - 0.5
    ax.contourf(*axes, ranks, edges, colors=PALETTE[: len(known)], alpha=0.25, antialiased=False)
    for rank in range(1, len(known)):
        if (ranks >= rank).any() and (ranks < rank).any():
            ax.contour(*axes, ranks >= rank, [0.5], colors="black", linewidths=1)
    for rank, label in enumerate(known):
        chosen = x[y == label]
        name = str(names[int(label)]) if names else None
        style = {"marker": MARKERS[rank], "edgecolors": "white", "linewidths": 0.5, "s": 28}
        ax.scatter(chosen[:, 0], chosen[:, 1], color=PALETTE[rank], label=name, zorder=3, **style)
    if names:
        ax.legend(frameon=True, framealpha=0.9)
    ax.set(title=title, xlim=axes[0][[0, -1]], ylim=axes[1][[0, -1]])
    return ax


def classes_of(classifier: Any, points: Any) -> np.ndarray[Any, Any]:
    """Return the (N,) classes that a classifier, as in `decision_regions`, gives (N, 2) points."""
    if isinstance(classifier, Module):
        scores = classifier.predict(points)
        scores = scores.reshape(len(points), -1)
        found = largest(scores) if scores.shape[1] > 1 else above(scores[:, 0], 0)
    else:
        found = getattr(classifier, "predict", classifier)(points)
    return np.asarray(found).astype(int).reshape(len(points))
