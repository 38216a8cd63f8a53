"""Data sets larger than memory: rows in files, which a fit reads while it trains."""

from __future__ import annotations

import glob
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.backends.random import permutation
from gpunn.data.parts import ArrayPart, NpyPart, ParquetPart, Part
from gpunn.errors import ArgumentError, DataError, listed
from gpunn.typing import Shape

PIECES = 50  # into which all rows are divided at least, to hold some of them out
SPLIT_STREAM = 2**62 + 1  # random streams of the data layer; layers count from 1


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
        found = self._read(start, stop)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _read(self, start: int, stop: int) -> list[np.ndarray[Any, Any]]:
        found: list[np.ndarray[Any, Any]] = []
        first = int(np.searchsorted(self._ends, start, "right")) - 1
        for part, begin in zip(self.parts[first:], self._ends[first:], strict=False):
            if begin >= stop:
                break
            begin = int(begin)
            found.append(part.read(max(0, start - begin), min(stop - begin, part.shape[0])))
        return found

    def mark(self) -> str:
        """Return a text that other data would not have."""
        return "; ".join(part.mark() for part in self.parts)

    def pieces(self) -> Iterator[np.ndarray[Any, Any]]:
        """Read all rows, a chunk at a time."""
        for start, stop in pairwise([0, *accumulate(self.chunks)]):
            yield self[start:stop]


class PickedRows(RowTable):
    """Some rows of a table: runs (start, stop) of rows that follow each other."""

    def __init__(self, table: RowTable, runs: Sequence[tuple[int, int]]) -> None:
        self.parts, self._table, self._runs = table.parts, table, list(runs)
        self.chunks = [stop - start for start, stop in runs]
        self._ends = np.cumsum([0, *self.chunks])
        self.shape, self.dtype = (int(self._ends[-1]), *table.shape[1:]), table.dtype

    def _read(self, start: int, stop: int) -> list[np.ndarray[Any, Any]]:
        found, first = [], int(np.searchsorted(self._ends, start, "right")) - 1
        for (begin, end), at in zip(self._runs[first:], self._ends[first:].tolist(), strict=False):
            if at >= stop:
                break
            found.append(self._table[begin + max(0, start - at) : min(begin + stop - at, end)])
        return found

    def mark(self) -> str:
        """Return a text that other data would not have."""
        return f"{self._table.mark()} {zlib.crc32(np.array(self._runs).tobytes()):08x}"


class MappedRows(RowTable):
    """A table whose rows are computed from those of another where they are read.

    Args:
        table: the other table.
        function: takes rows and returns as many.
        name: says what it does, for `mark`.
    """

    def __init__(self, table: RowTable, function: Callable[[Any], Any], name: str) -> None:
        self.parts, self.chunks = table.parts, table.chunks
        self._table, self._function, self._name = table, function, name
        one = function(table[:1])
        self.shape, self.dtype = (len(table), *one.shape[1:]), one.dtype

    def _read(self, start: int, stop: int) -> list[np.ndarray[Any, Any]]:
        return [self._function(self._table[start:stop])]

    def mark(self) -> str:
        """Return a text that other data would not have."""
        return f"{self._table.mark()} {self._name}"


def floats(table: RowTable) -> RowTable:
    """Return a table of float32 or float64 as it is, and others in float64."""
    if table.dtype in (np.float32, np.float64):
        return table
    return MappedRows(table, lambda rows: rows.astype(np.float64), "in float64")


class Rows:
    """Examples and targets that lie on disk, or anywhere from where rows can be read.

    `Trainer.fit(rows)` reads them while it trains. See `open_rows`.

    Attributes:
        x: (N, ...) the examples. A slice of it is read.
        y: (N, ...) their targets.
        features: the names of the columns of `x`; None if they have none.
        classes: the names of the classes of `y`; None for numbers.
    """

    def __init__(
        self,
        x: RowTable,
        y: RowTable,
        features: tuple[str, ...] | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> None:
        if len(x) != len(y):
            raise DataError(
                f"got {len(x)} examples and {len(y)} targets; expected as many: check that no part "
                "is missing"
            )
        self.x, self.y, self.features, self.classes = x, y, features, classes

    def split(self, fraction: float, *, seed: int) -> tuple[Rows, Rows]:
        """Split into two parts at random, such as training and test rows.

        Rows that lie together stay together, because single rows take too long to read: the
        second part consists of whole chunks, or of fiftieths of the data where chunks are longer.

        Args:
            fraction: the fraction of the rows that the second part has at least, between 0 and 1.
            seed: the seed.

        Raises:
            ArgumentError: fraction is not between 0 and 1.
            DataError: there are too few rows for two parts.
        """
        fraction, most = in_range("fraction", fraction, 0.0, 1.0), -(-len(self) // PIECES)
        ends = accumulate(self.x.chunks)
        cuts = [cut for a, b in pairwise([0, *ends]) for cut in range(a, b, most)]
        runs = list(pairwise([*cuts, len(self)]))
        order = permutation(len(runs), seed, SPLIT_STREAM, 0).tolist()
        taken, rows = 0, 0
        while rows < fraction * len(self):
            start, stop = runs[order[taken]]
            taken, rows = taken + 1, rows + stop - start
        if not 0 < rows < len(self):
            raise DataError(
                f"got {len(self)} rows to hold {fraction:g} of them out; expected some rows for "
                "each part: use more rows"
            )
        first, second = sorted(order[taken:]), sorted(order[:taken])
        return self._picked([runs[k] for k in first]), self._picked([runs[k] for k in second])

    def _picked(self, runs: list[tuple[int, int]]) -> Rows:
        x, y = (PickedRows(table, runs) for table in (self.x, self.y))
        return Rows(x, y, self.features, self.classes)

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
    """
    if (y is None) == (target is None):
        raise ArgumentError(
            "got targets from both y and target, or from neither; expected y for arrays and NPY "
            "files, or target, the name of a column of Parquet files"
        )
    if target is not None:
        parts = [ParquetPart(path, None, target) for path in _paths(x, "x")]
        targets = RowTable([ParquetPart(part.path, [target], flat=True) for part in parts])
        for part in parts:
            if part.columns != parts[0].columns:
                raise DataError(
                    f"got {part.name} with columns {listed(part.columns)}, and {parts[0].name} "
                    f"with {listed(parts[0].columns)}; expected the same in the same order"
                )
        return Rows(RowTable(parts), targets, tuple(parts[0].columns))
    rows, labels = RowTable(_parts(x, "x")), RowTable(_parts(y, "y"))
    ends = [[0, *np.cumsum([part.shape[0] for part in t.parts])] for t in (rows, labels)]
    if len(rows.parts) == len(labels.parts) > 1 and ends[0] != ends[1]:
        pairs = zip(rows.parts, labels.parts, *map(pairwise, ends), strict=True)
        for part, other, (a, b), (c, d) in pairs:
            if b - a != d - c:
                raise DataError(
                    f"got {part.name} with {b - a} rows and {other.name} with {d - c}; expected as "
                    "many: check that no part is missing"
                )
    return Rows(rows, labels)


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
