"""Conversion of frames of pandas, Polars and similar libraries to arrays; it imports none."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.errors import DataError


def is_frame(data: object) -> bool:
    """Return whether `data` has the methods of a table with named columns."""
    kind = type(data)
    return hasattr(kind, "to_numpy") and hasattr(kind, "__getitem__") and hasattr(data, "columns")


def from_frame(data: Any, name: str) -> Any:
    """Convert a frame, or one of its columns, to an array. Other data is returned as it is.

    Args:
        data: a frame, which becomes (N, D), a column, which becomes (N,), or something else.
        name: the name of the data in messages.

    Raises:
        DataError: a column does not contain numbers, or two columns have the same name.
    """
    if not hasattr(type(data), "to_numpy"):
        return data
    if not is_frame(data):
        return _numbers(data, name, getattr(data, "name", None))
    columns = [_numbers(data[column], name, column) for column in data.columns]
    for column, values in zip(data.columns, columns, strict=True):
        if values.ndim != 1:
            raise DataError(
                f"got {name} with several columns {column!r}; expected one of each name: rename "
                "or drop the others"
            )
    return np.column_stack(columns) if columns else np.empty((len(data), 0))


def column_names(data: Any) -> tuple[str, ...] | None:
    """Return the names of a frame's columns; None for anything else."""
    return tuple(map(str, data.columns)) if is_frame(data) else None


def _numbers(column: Any, name: str, title: object) -> np.ndarray[Any, Any]:
    values = np.asarray(column.to_numpy())
    if values.dtype.kind not in "fiub":
        raise DataError(
            f"got {name} with column {title!r} of dtype {getattr(column, 'dtype', values.dtype)}; "
            "expected numbers: encode text and dates as numbers, fill in missing values, or drop "
            "the column"
        )
    return values
