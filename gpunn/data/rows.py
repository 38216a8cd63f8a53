"""Data sets larger than memory: rows in files, which a fit reads while it trains."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.data.parts import ArrayPart, NpyPart, ParquetPart, Part
from gpunn.errors import ArgumentError, DataError, listed
from gpunn.typing import Shape


class RowTable:
    """Rows in several parts, one after another, as one table that is read where it is sliced.

    Attributes:
        shape: (N, ...).
        dtype: the dtype of the numbers.
        chunks: the numbers of rows of the pieces that are best read as a whole.

    Raises:
        DataError: the parts have different shapes or dtypes, or no rows.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        first = self.parts[0]
        for part in self.parts:
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise DataError(
                    f"got {part.name} with rows of shape {part.shape[1:]} of {part.dtype}, and "
                    f"{first.name} with {first.shape[1:]} of {first.dtype}; expected the same in "
                    "all parts: write them alike"
                )
        self._ends = np.cumsum([0, *(part.shape[0] for part in self.parts)])
        self.shape: Shape = (int(self._ends[-1]), *first.shape[1:])
        self.dtype = first.dtype
        self.chunks = [rows for part in self.parts for rows in part.chunks]
        if not self.shape[0]:
            raise DataError(f"got {first.name} without rows; expected at least one")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray[Any, Any]:
        """Read consecutive rows.

        Raises:
            DataError: a part has changed or cannot be read. The message names it.
        """
        start, stop, _ = rows.indices(len(self))
        if start >= stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        found: list[np.ndarray[Any, Any]] = []
        first = int(np.searchsorted(self._ends, start, "right")) - 1
        for part, begin in zip(self.parts[first:], self._ends[first:], strict=False):
            if begin >= stop:
                break
            begin = int(begin)
            found.append(part.read(max(0, start - begin), min(stop - begin, part.shape[0])))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def mark(self) -> str:
        """Return a text that other data would not have."""
        return "; ".join(part.mark() for part in self.parts)


class Rows:
    """Examples and targets that lie on disk, or anywhere from where rows can be read.

    `Trainer.fit(rows)` reads them while it trains. See `open_rows`.

    Attributes:
        x: (N, ...) the examples. A slice of it is read.
        y: (N, ...) their targets.
    """

    def __init__(self, x: RowTable, y: RowTable) -> None:
        if len(x) != len(y):
            raise DataError(
                f"got {len(x)} examples and {len(y)} targets; expected as many: check that no part "
                "is missing"
            )
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        parts = len(self.x.parts)
        return f"Rows(x {self.x.shape} {self.x.dtype}, y {self.y.shape}, {parts} parts)"


def open_rows(x: Any, y: Any = None, *, target: str | None = None) -> Rows:
    """Open data that a fit reads while it trains, because memory has no room for them.

    Args:
        x: the examples: an NPY or Parquet file, a list of files, or a pattern such as
            "x-*.npy", whose files are sorted by name; or an array of Zarr, Dask or h5py.
        y: the targets in the same form: a file for each file of `x` with as many rows, or an array.
            None for Parquet, whose files have a column of targets.
        target: the name of the column of targets of Parquet files. All other columns are examples.

    Returns:
        The examples and targets, for `Trainer.fit`.

    Raises:
        DataError: a file is missing or broken, or the parts do not fit together. The message names
            the file.
        ArgumentError: targets are missing, or given twice.
        MissingExtraError: pyarrow is not installed.

    Example:
        rows = gn.data.open_rows("x-*.npy", "y-*.npy")
        gn.Trainer(net, shards=8).fit(rows, epochs=5, batch_size=512)
    """
    if (y is None) == (target is None):
        raise ArgumentError(
            "got targets from both y and target, or from neither; expected y for arrays and NPY "
            "files, or target, the name of a column of Parquet files"
        )
    if target is not None:
        paths = _paths(x, "x")
        return Rows(
            RowTable([ParquetPart(path, None, target) for path in paths]),
            RowTable([ParquetPart(path, [target], flat=True) for path in paths]),
        )
    rows, targets = RowTable(_parts(x, "x")), RowTable(_parts(y, "y"))
    ends = [[0, *np.cumsum([part.shape[0] for part in t.parts])] for t in (rows, targets)]
    if len(rows.parts) == len(targets.parts) > 1 and ends[0] != ends[1]:
        pairs = zip(rows.parts, targets.parts, *map(pairwise, ends), strict=True)
        for part, other, (a, b), (c, d) in pairs:
            if b - a != d - c:
                raise DataError(
                    f"got {part.name} with {b - a} rows and {other.name} with {d - c}; expected as "
                    "many: check that no part is missing"
                )
    return Rows(rows, targets)


def _parts(given: Any, name: str) -> list[Part]:
    if hasattr(given, "shape") and hasattr(given, "dtype"):
        return [ArrayPart(given, name)]
    if isinstance(given, list | tuple) and given and all(hasattr(g, "shape") for g in given):
        return [ArrayPart(each, f"{name}[{k}]") for k, each in enumerate(given)]
    paths = _paths(given, name)
    return [NpyPart(path) if path.suffix == ".npy" else ParquetPart(path, None) for path in paths]


def _paths(given: Any, name: str) -> list[Path]:
    """Return the files of a name, a pattern or a list of names."""
    if not isinstance(given, str | Path | list | tuple):
        raise ArgumentError(
            f"got {name} as a {type(given).__name__}; expected a file, a pattern, a list of files "
            "or an array with rows"
        )
    names = list(map(str, given)) if isinstance(given, list | tuple) else [str(given)]
    found: list[Path] = []
    for each in names:
        matches = sorted(glob.glob(each)) if glob.has_magic(each) else [each]
        if not matches:
            raise DataError(f"got {each!r}, which no file matches; expected at least one file")
        found += map(Path, matches)
    wrong = [str(path) for path in found if path.suffix not in (".npy", ".parquet")]
    if wrong or not found:
        raise DataError(
            f"got {listed(wrong) or 'no files'} for {name}; expected NPY or Parquet files"
        )
    return found
