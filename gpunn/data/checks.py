"""Checks of arrays before training. Each message names the first wrong value and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.errors import DataError, DTypeError, ShapeError, UnknownNameError
from gpunn.typing import Array

TASKS = ("classification", "regression")


def check_arrays(x: Any, y: Any = None, *, task: str, classes: int | None = None) -> None:
    """Check that a model can be trained on examples and targets.

    Args:
        x: (N, D) numbers, N and D at least 1, finite.
        y: targets, or None to check `x` alone. For classification (N,) integers from 0; for
            regression (N,) or (N, K) finite numbers.
        task: "classification" or "regression".
        classes: the number of classes C; labels must be below it. None for no upper limit.

    Raises:
        DataError: there are no examples, NaN or infinity, or a label out of range.
        ShapeError: the number of dimensions is wrong, or x and y have different lengths.
        DTypeError: the values are not numbers, or the labels are not integers.
        UnknownNameError: the task is unknown.

    Example:
        >>> check_arrays([[0.0, 1.0], [2.0, 3.0]], [0, 1], task="classification")
        >>> check_arrays([[0.0, 1.0], [2.0, 3.0]], [0, -1], task="classification")
        Traceback (most recent call last):
        gpunn.errors.DataError: got label -1 in row 1; expected labels of at least 0: number the \
classes from 0, for example with np.unique(y, return_inverse=True)
    """
    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    x = np.asarray(x)
    if x.ndim != 2:
        raise ShapeError(
            f"got x of shape {x.shape}; expected (N, D), a row for each example: "
            "use x.reshape(len(x), -1)"
        )
    if y is not None:
        y = np.asarray(y)
        check_lengths(x, y)
    check_finite("x", x)
    if y is None:
        return
    if task == "classification":
        check_labels(y, classes)
    elif y.ndim not in (1, 2):
        raise ShapeError(f"got y of shape {y.shape}; expected (N,) or (N, K): reshape the targets")
    else:
        check_finite("y", y)


def check_lengths(x: Array, y: Array) -> None:
    """Check that `x` and `y` have the same number of rows, and at least one value each.

    Only the shapes are read, so the arrays may be on any device.

    Raises:
        DataError: an array has no rows, or rows without columns.
        ShapeError: the lengths differ, or an array has 0 dimensions.
    """
    if not x.shape or not y.shape:
        raise ShapeError(
            f"got x of shape {x.shape} and y of shape {y.shape}; expected a row for each example: "
            "pass arrays, not single numbers"
        )
    if x.shape[0] != y.shape[0]:
        raise ShapeError(
            f"got x of shape {x.shape} and y of shape {y.shape}; expected the same number of rows: "
            "pass one target for each example"
        )
    for name, array in (("x", x), ("y", y)):
        if 0 in array.shape:
            raise DataError(
                f"got {name} of shape {array.shape}, which holds nothing; expected at least one "
                "example with one value: check how the data were selected"
            )


def check_finite(name: str, x: Any, *, first: int = 0) -> None:
    """Check that `x` holds finite real numbers.

    Args:
        name: the name of the array in messages.
        x: host array of any shape.
        first: the number of its first row, if the array is a part of a longer one.

    Raises:
        DataError: there is NaN or infinity; the message names the first row and column.
        DTypeError: the values are not real numbers.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "fiub":
        raise DTypeError(
            f"got {name} of dtype {x.dtype}; expected real numbers: encode text and dates as "
            "numbers first"
        )
    finite = np.isfinite(x)
    if finite.all():
        return
    where = np.unravel_index(int(np.argmin(finite)), x.shape)
    places = "".join(
        f", {'column' if x.ndim == 2 else f'axis {axis}'} {index}"
        for axis, index in enumerate(where[1:], start=1)
    )
    row = f"row {first + int(where[0])}{places}" if where else "its only element"
    raise DataError(
        f"got {name} with {x[where]} in {row} ({x.size - np.count_nonzero(finite)} such values in "
        "all); expected finite numbers: remove these rows or fill the values in"
    )


def check_labels(y: Any, classes: int | None = None) -> None:
    """Check that `y` holds class indices.

    Args:
        y: host array (N,) of an integer dtype. Whole numbers as floats are refused too, because
            they are more often targets of a regression than labels.
        classes: the number of classes C; labels must be below it. None for no upper limit.

    Raises:
        DTypeError: the dtype is not an integer dtype.
        ShapeError: the shape is not (N,).
        DataError: a label is outside 0..C-1; the message names the first such row.
    """
    y = np.asarray(y)
    if y.dtype.kind not in "iu":
        raise DTypeError(
            f"got labels of dtype {y.dtype}; expected integers: use y.astype(np.int64), or "
            "np.unique(y, return_inverse=True) to number the classes"
        )
    if y.ndim != 1:
        raise ShapeError(
            f"got labels of shape {y.shape}; expected (N,): use y.ravel() for a column, "
            "y.argmax(axis=1) for one-hot rows"
        )
    wrong = y < 0 if classes is None else (y < 0) | (y >= classes)
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    wanted = "labels of at least 0" if classes is None else f"labels from 0 to {classes - 1}"
    raise DataError(
        f"got label {y[row]} in row {row}; expected {wanted}: number the classes from 0, for "
        "example with np.unique(y, return_inverse=True)"
    )


def as_float32(name: str, values: np.ndarray[Any, Any], *, first: int = 0) -> np.ndarray[Any, Any]:
    """Return `values` as C-contiguous float32, without a copy if they are so already.

    Args:
        name: the name of the values in messages.
        values: host array of real numbers.
        first: the number of the first row, if the array is a part of a longer one.

    Raises:
        DataError: a value is beyond the range of float32, 3.4e38.
    """
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(values, np.float32)
    if values.dtype.itemsize > 4:
        check_finite(f"{name} as float32 (largest value 3.4e38)", result, first=first)
    return result


class Problems:
    """The problems of a file, of which several are told in one message.

    Args:
        most: the number of problems from which on no more are collected.
    """

    def __init__(self, most: int = 5) -> None:
        self.most, self.found = most, list[str]()

    def add(self, problem: str) -> None:
        """Add a problem; raise all of them if there are too many.

        Raises:
            DataError: there are as many as are told.
        """
        self.found.append(problem)
        if len(self.found) >= self.most:
            self.tell(" and perhaps more" if self.most > 1 else "")

    def tell(self, more: str = "") -> None:
        """Raise the problems as one error, if there are any.

        Raises:
            DataError: there are some.
        """
        if len(self.found) == 1:
            raise DataError(self.found[0])
        if self.found:
            lines = "".join(f"\n  {problem}" for problem in self.found)
            raise DataError(f"got {len(self.found)} problems{more}:{lines}")
