"""Targets and scales of data on disk, found in one pass over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.data.dataset import MAX_UNNAMED_CLASSES, Standardizer
from gpunn.data.rows import MappedRows, RowTable
from gpunn.data.table import MANY_CLASSES
from gpunn.errors import DataError, ShapeError
from gpunn.typing import Array


def targets_of(y: RowTable, target: str, task: str) -> tuple[RowTable, tuple[str, ...] | None]:
    """Return targets as class indices, or as amounts (N, 1).

    Args:
        y: (N,) numbers or texts.
        target: the name of the column, for messages.
        task: "classification", "regression", or "auto", which decides as `load_csv` does.

    Returns:
        The targets, and the names of the classes; None for amounts.

    Raises:
        DataError: a target is missing, or does not fit the task.
    """
    text = y.dtype.kind not in "fiub"
    if task == "regression":
        if text:
            raise DataError(
                f"got text in the target {target!r}; expected numbers for a regression: name "
                "another target, or pass --task classification"
            )
        return _amounts(y), None
    found: Array = np.empty(0, str if text else y.dtype)
    for piece in y.pieces():
        values = _texts(piece, target) if text else piece
        if values.dtype.kind == "f" and (values != np.floor(values)).any():  # or NaN
            if task == "auto":
                return _amounts(y), None
            raise DataError(
                f"got {values[values != np.floor(values)][0]} in the target {target!r}; expected "
                "whole numbers or text for classes: pass --task regression"
            )
        found = np.unique(np.concatenate([found, np.unique(values)]))
        if task == "auto" and not text and len(found) > MANY_CLASSES:
            return _amounts(y), None
        if len(found) > MAX_UNNAMED_CLASSES:
            raise DataError(
                f"got more than {MAX_UNNAMED_CLASSES} different values in the target {target!r}; "
                "expected classes that repeat: name another target"
            )
    if len(found) < 2:
        raise DataError(
            f"got only the value {str(found[0])!r} in the target {target!r}; expected at least two "
            "classes: name another target"
        )

    def indices(values: Array) -> Array:
        return np.searchsorted(found, _texts(values, target) if text else values)

    names = found.astype(np.int64) if found.dtype.kind == "f" else found
    classes = tuple(map(str, names.tolist()))
    return MappedRows(y, indices, f"classes {classes}"), classes


def scales(x: RowTable) -> Standardizer:
    """Compute the mean and the standard deviation of each column, in float64.

    Raises:
        ShapeError: x is not (N, D).
        DataError: x contains NaN or infinity.

    Reference:
        Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance".
    """
    if len(x.shape) != 2:
        raise ShapeError(f"got rows of shape {x.shape[1:]} to standardize; expected (D,)")
    count, mean, squares = 0, np.zeros(x.shape[1]), np.zeros(x.shape[1])
    low, high = np.full(x.shape[1], np.inf), np.full(x.shape[1], -np.inf)
    for piece in x.pieces():
        if not np.isfinite(piece).all():
            row, column = np.argwhere(~np.isfinite(piece))[0].tolist()
            raise DataError(
                f"got {piece[row, column]} in row {count + row} of {x.parts[0].name} and the other "
                f"parts, column {column}; expected finite numbers: fill it in, or drop the row"
            )
        rows, own = len(piece), piece.mean(axis=0, dtype=np.float64)
        apart = own - mean
        squares += ((piece - own) ** 2).sum(axis=0) + apart**2 * (count * rows / (count + rows))
        mean += apart * (rows / (count + rows))
        count += rows
        low, high = np.minimum(low, piece.min(axis=0)), np.maximum(high, piece.max(axis=0))
    return Standardizer(mean, np.where(low == high, 1.0, np.sqrt(squares / count)))


def scaled(y: RowTable, unit: Standardizer) -> RowTable:
    """Return the rows of a table shifted and scaled by a standardizer, in float32."""
    scale: Any = (unit.mean.tolist(), unit.scale.tolist())
    return MappedRows(y, unit, f"scaled {scale}")


def _amounts(y: RowTable) -> RowTable:
    return MappedRows(y, lambda values: np.asarray(values, np.float64)[:, np.newaxis], "amounts")


def _texts(values: Array, target: str) -> Array:
    if any(not isinstance(value, str) for value in values):
        raise DataError(
            f"got a row without a value in the target {target!r}; expected one in each row: drop "
            "rows without it"
        )
    return np.asarray(values, str)
