"""Draw predictions against the truth: the errors of a classifier and of a regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError, ShapeError
from gpunn.plot.style import PALETTE, figure, given, tidy

INCHES = 0.27  # of a class in a picture of many classes
NUMBERED = 40  # classes up to which each cell has its number
LONGEST = 16  # characters of a name
MOST_POINTS = 20_000


def confusion_matrix(
    labels: Any, predicted: Any, ax: Any = None, *, names: Sequence[str] = (), title: str = ""
) -> Any:
    """Draw the numbers of examples of each true class (rows) by their predicted class (columns).

    The shade of a cell is its share of the true class. A new figure grows with the classes.

    Args:
        labels: (N,) true classes, integers from 0.
        predicted: (N,) predicted classes.
        ax: matplotlib axes; None for the axes of a new figure.
        names: the names of the classes; empty to show their numbers.
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        ShapeError: the arrays have different shapes, or more than one axis.
        ArgumentError: there are no examples, a class is negative, or has no name.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> ax = confusion_matrix([0, 1, 1], [0, 1, 0], names=["cat", "dog"])
        >>> [text.get_text() for text in ax.texts]
        ['1', '1', '1']
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape or labels.ndim != 1:
        raise ShapeError(
            f"got labels of shape {labels.shape} and predictions of shape {predicted.shape}; "
            "expected (N,) for both: pass class numbers, as model.classify returns"
        )
    if not labels.size or min(labels.min(), predicted.min()) < 0:
        raise ArgumentError(
            "got no examples or negative classes; expected classes from 0: number them from 0"
        )
    classes = max(int(labels.max()), int(predicted.max()), len(names) - 1) + 1
    if len(names) not in (0, classes):
        raise ArgumentError(
            f"got {len(names)} names for classes up to {classes - 1}; expected a name for each "
            f"class: pass {classes} names"
        )
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counted(counts, ax, names=names, title=title)


def counted(counts: Any, ax: Any = None, *, names: Sequence[str] = (), title: str = "") -> Any:
    """Draw a confusion matrix, given as (C, C) counts, as `confusion_matrix` does."""
    classes, whole = len(counts), ax is None
    if whole:
        side = max(3.8, 1.2 + INCHES * classes)
        ax = figure(width=side + 0.6, height=side)[1]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    inches = min(ax.get_window_extent().transformed(ax.figure.dpi_scale_trans.inverted()).size)
    room = 72 * 0.85 * inches / classes  # the width of a cell in points
    for (i, j), count in np.ndenumerate(counts) if classes <= NUMBERED else ():
        if count:
            ink = "white" if shares[i, j] > 0.5 else "black"
            size = min(9.0, room / (0.62 * max(len(str(count)), 2)))
            ax.text(j, i, str(count), ha="center", va="center", color=ink, fontsize=size)
    ticks = [f"{name[: LONGEST - 1]}…" if len(name) > LONGEST else name for name in map(str, names)]
    ticks = ticks or [str(k) for k in range(classes)]
    longest = max(map(len, ticks))
    each = {"fontsize": min(10.0, 1.1 * room)}
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    ax.set_xticks(range(classes), ticks, rotation=90 if longest * 7 > room else 0, **each)
    ax.set_yticks(range(classes), ticks, **each)
    if whole:
        ax.figure.draw_without_rendering()  # the layout of square axes takes two rounds
    return ax


def prediction_error(targets: Any, predicted: Any, ax: Any = None, *, title: str = "") -> Any:
    """Draw the predictions of a regression against the true numbers.

    The closer a point is to the line, the better. The legend has R2 and the root of the mean
    squared error.

    Args:
        targets: (N,) or (N, 1) true numbers.
        predicted: predictions of as many rows.
        ax: matplotlib axes; None for the axes of a new figure.
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        ShapeError: the arrays differ in length, or have several columns.
        ArgumentError: there are no examples, or a number is NaN or infinite.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> ax = prediction_error([1.0, 2.0, 4.0], [1.0, 2.5, 3.5])
        >>> ax.get_legend().get_texts()[0].get_text()
        'R2 0.893, RMSE 0.408, 3 rows'
    """
    targets, predicted = np.asarray(targets, np.float64), np.asarray(predicted, np.float64)
    fitting = {(targets.size,), (targets.size, 1)}
    if targets.shape not in fitting or predicted.shape not in fitting:
        raise ShapeError(
            f"got targets of shape {targets.shape} and predictions of shape {predicted.shape}; "
            "expected (N,) for both: pass one column of each"
        )
    y, found = targets.ravel(), predicted.ravel()
    if not y.size or not np.isfinite([y, found]).all():
        raise ArgumentError(
            "got no examples, or numbers that are NaN or infinite; expected numbers: leave such "
            "rows out"
        )
    errors, spread = np.square(found - y).sum(), np.square(y - y.mean()).sum()
    score = f"R2 {1 - errors / spread:.3g}, " if spread else ""
    text = f"{score}RMSE {np.sqrt(errors / y.size):.3g}, {y.size:,} rows"
    ax, step = given(ax), -(-y.size // MOST_POINTS)
    ends = [min(y.min(), found.min()), max(y.max(), found.max())]
    ax.plot(ends, ends, color="0.3", linewidth=1, zorder=3)
    points = {"color": PALETTE[0], "alpha": 0.5 if y.size > 50 else 0.9, "markersize": 4}
    ax.plot(y[::step], found[::step], "o", label=text, **points)
    ax.legend(frameon=False, loc="upper left")
    return tidy(ax, xlabel="true", ylabel="predicted", title=title)
