"""A table before anything is known of it: columns of numbers, of texts and of dates, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from gpunn.columns.cells import is_missing
from gpunn.errors import DataError, ShapeError, listed
from gpunn.frames import is_frame

Array = np.ndarray[Any, Any]


class RawTable:
    """Columns with names. A column is (N,) float64, datetime64, or objects that are text or None.

    NaN, NaT and None stand for missing cells.

    Args:
        columns: the columns by name, each of the same length.

    Raises:
        ShapeError: the columns have different lengths.
    """

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self.columns = dict(columns)
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise ShapeError(
                f"got columns of lengths {sorted(lengths)}; expected one length: check the table"
            )
        self._rows = lengths.pop() if lengths else 0

    @classmethod
    def of(cls, data: Any, names: Sequence[str] | None = None) -> RawTable:
        """Return the columns of a frame, a dict, an array or a list of rows.

        Args:
            data: a frame of pandas or Polars, a mapping of names to columns, an (N, D) array, or a
                list of rows.
            names: the names of the columns of an array or of rows; None for column_1 and so on.

        Raises:
            ShapeError: there are not N rows of D cells.
            DataError: two columns have one name.
        """
        if isinstance(data, RawTable):
            return data
        if is_frame(data):
            titles = [str(title) for title in data.columns]
            twice = sorted({title for title in titles if titles.count(title) > 1})
            if twice:
                raise DataError(
                    f"got several columns of the same name: {listed(twice)}; expected different "
                    "names: rename or drop them"
                )
            return cls({str(title): cleaned(data[title].to_numpy()) for title in data.columns})
        if isinstance(data, Mapping):
            return cls({str(name): cleaned(column) for name, column in data.items()})
        columns = _columns(data)
        if names is None:
            names = [f"column_{k}" for k in range(1, len(columns) + 1)]
        if len(names) != len(columns):
            raise ShapeError(
                f"got rows of {len(columns)} cells for {len(names)} columns; expected as many "
                "cells as columns: check the table"
            )
        return cls(dict(zip(names, map(cleaned, columns), strict=True)))

    def __len__(self) -> int:
        return self._rows

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.columns)

    def rows(self, index: Array) -> RawTable:
        """Return a table of some rows.

        Args:
            index: numbers of rows, or a mask.
        """
        return RawTable({name: column[index] for name, column in self.columns.items()})

    def select(self, names: Iterable[str], source: str = "the table") -> RawTable:
        """Return a table of some columns, in the given order.

        Raises:
            DataError: a column is missing; the message names all that are.
        """
        names = list(names)
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise DataError(missing_columns(source, self.names, missing))
        return RawTable({name: self.columns[name] for name in names})


def missing_columns(source: str, names: Sequence[str], missing: Sequence[str]) -> str:
    """Return the words for columns that are missing, with the name that is most like the first."""
    lower = {name.lower(): name for name in names}
    near = get_close_matches(missing[0].lower(), list(lower), 1)
    hint = f" (did you mean {lower[near[0]]!r}?)" if near else ""
    return (
        f"got {source} with columns {listed(names)}; expected {listed(missing)} too, as in "
        f"training{hint}: add these columns"
    )


def _columns(data: Any) -> list[Any]:
    """Return the columns of an array or of a list of rows."""
    if isinstance(data, np.ndarray):
        if data.ndim != 2:
            raise ShapeError(f"got an array of shape {data.shape}; expected (N, D) cells")
        return list(data.T)
    rows = [list(row) for row in data]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ShapeError(
            f"got rows of {sorted(widths)} cells; expected one number of cells: check the table"
        )
    return [_object(cells) for cells in zip(*rows, strict=True)]


def _object(cells: Sequence[Any]) -> Array:
    found = np.empty(len(cells), object)
    found[:] = cells
    return found


def cleaned(column: Any) -> Array:
    """Return a column as float64, datetime64, or text and None.

    A column of Python numbers becomes float64. Booleans become the texts "False" and "True".

    Raises:
        DataError: a number is infinite.
    """
    if not hasattr(column, "dtype"):
        column = _object(list(column))
    column = np.asarray(column)
    kind = column.dtype.kind
    if kind in "fiu":
        numbers: Array = column.astype(np.float64)
        if np.isinf(numbers).any():
            raise DataError(
                f"got infinity in row {int(np.isinf(numbers).argmax())} of a column; expected "
                "finite numbers, or NaN for missing ones"
            )
        return numbers
    if kind == "M":
        dates: Array = column.astype("datetime64[us]")
        return dates
    if kind in "bUS":
        column = column.astype(str).astype(object)
    texts = _object([_text(cell) for cell in column.tolist()])
    if kind == "O":
        known = [cell for cell in column.tolist() if not _is_none(cell)]
        if known and all(
            isinstance(c, int | float | np.number) and not isinstance(c, bool | np.bool_)
            for c in known
        ):
            return np.array([np.nan if _is_none(c) else float(c) for c in column.tolist()])
    return texts


def _is_none(cell: Any) -> bool:
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float | np.floating) and not np.isfinite(cell)


def _text(cell: Any) -> str | None:
    if _is_none(cell):
        return None
    text = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
    text = text.strip()
    return None if is_missing(text) else text
