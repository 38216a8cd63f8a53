"""The parts of a data set on disk, of which any rows can be read: NPY, Parquet, Zarr and Dask."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np

from gpunn.data.arrayfile import StoredArray
from gpunn.errors import DataError, MissingExtraError
from gpunn.typing import Shape

Rows = np.ndarray[Any, Any]
CHUNK_BYTES = 1 << 19  # read at a time; a disk delivers shorter pieces more slowly
SAMPLES, SAMPLE_BYTES = 16, 1 << 16
GROUPS = 8  # row groups of a Parquet file that are kept after they were decoded


class Part(Protocol):
    """Rows that lie together.

    Attributes:
        name: the name in messages.
        shape: (rows, ...).
        dtype: the dtype of the numbers.
        chunks: the numbers of rows of the pieces that are best read as a whole.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    chunks: list[int]

    def read(self, start: int, stop: int) -> Rows:
        """Read rows.

        Raises:
            DataError: the rows are not there, or are broken.
        """

    def mark(self) -> str:
        """Return a text that other data would not have: the size, and a checksum of samples."""


class NpyPart:
    """An NPY file. Rows are read and not mapped, so that a file that is cut off is an error."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        with _opened(path) as file:
            stored = StoredArray(file, os.fstat(file.fileno()).st_size, self.name)
        if stored.fortran:
            raise DataError(
                f"got {path} in Fortran order; expected C order, in which rows lie together: write "
                "it again with np.save(path, np.ascontiguousarray(x))"
            )
        self.shape, self.dtype, self._start = stored.shape, stored.dtype, stored.start
        self.chunks = even_chunks(self.shape, self.dtype)

    def read(self, start: int, stop: int) -> Rows:
        """Read rows; see `Part`."""
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        each = prod(self.shape[1:]) * self.dtype.itemsize
        with _opened(self.path) as file:
            file.seek(self._start + start * each)
            found = file.readinto(rows.reshape(-1).view(np.uint8))
        if found != rows.nbytes:
            raise DataError(
                f"got {self.name} without row {start + found // max(each, 1)} of {self.shape[0]}; "
                "expected all of them: it was cut off after it was opened, so write it again"
            )
        return rows.astype(self.dtype.newbyteorder("="), copy=False)

    def mark(self) -> str:
        """Return a text that other data would not have; see `Part`."""
        crc, size = 0, self.path.stat().st_size
        with _opened(self.path) as file:
            for place in np.linspace(0, max(0, size - SAMPLE_BYTES), SAMPLES).astype(int):
                file.seek(int(place))
                crc = zlib.crc32(file.read(SAMPLE_BYTES), crc)
        return f"{self.shape} {self.dtype} {size} {crc:08x}"


class ParquetPart:
    """Columns of numbers of a Parquet file. Row groups are decoded as a whole.

    Args:
        path: the file.
        columns: the names of the columns; None for all but `without`.
        without: the column to leave out.
        flat: whether the rows are single numbers, or texts.
    """

    def __init__(
        self, path: Path, columns: list[str] | None, without: str = "", *, flat: bool = False
    ) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "files", f"reading {path.name}") from error
        self.path, self.name, self._flat = path, str(path), flat
        with _parquet_errors(path):
            self._open: Any = lambda: parquet.ParquetFile(path)
            with self._open() as file:
                schema, groups = file.schema_arrow, file.metadata
        names = list(schema.names)
        missing = [name for name in [*(columns or []), without] if name and name not in names]
        if missing:
            raise DataError(
                f"got {path} without a column {missing[0]!r}; expected one of {names[:20]}"
            )
        self.columns = [n for n in names if n != without] if columns is None else columns
        kinds = [_dtype_of(schema.field(name).type) for name in self.columns]
        wrong = [n for n, kind in zip(self.columns, kinds, strict=True) if kind.kind not in "fiub"]
        if wrong and not (flat and is_text(schema.field(wrong[0]).type)):
            raise DataError(
                f"got a column {wrong[0]!r} of {path} that is not of numbers; expected numbers: "
                "for text and dates use gn.sklearn.TableClassifier, or encode them first"
            )
        self.dtype = np.result_type(*kinds)
        self.chunks = [groups.row_group(k).num_rows for k in range(groups.num_row_groups)]
        self.shape = (sum(self.chunks), *(() if flat else (len(self.columns),)))
        self._ends = np.cumsum([0, *self.chunks])
        self._decoded: OrderedDict[int, Rows] = OrderedDict()
        self._lock = Lock()

    def read(self, start: int, stop: int) -> Rows:
        """Read rows; see `Part`."""
        first = int(np.searchsorted(self._ends, start, "right")) - 1
        last = int(np.searchsorted(self._ends, stop, "left"))
        found = []
        for group in range(first, last):
            rows, offset = self._group(group), int(self._ends[group])
            found.append(rows[max(0, start - offset) : stop - offset])
        return np.concatenate(found)

    def _group(self, number: int) -> Rows:
        with self._lock:
            if number not in self._decoded:
                with _parquet_errors(self.path), self._open() as file:
                    table = file.read_row_group(number, columns=self.columns)
                rows = np.column_stack([table[name].to_numpy() for name in self.columns])
                self._decoded[number] = rows[:, 0] if self._flat else rows
                if len(self._decoded) > GROUPS:
                    self._decoded.popitem(last=False)
            self._decoded.move_to_end(number)
            return self._decoded[number]

    def mark(self) -> str:
        """Return a text that other data would not have; see `Part`."""
        with _opened(self.path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - SAMPLE_BYTES))  # the footer has the statistics of each column
            crc = zlib.crc32(file.read())
        return f"{self.shape} {self.columns} {size} {crc:08x}"


class ArrayPart:
    """An object with a shape, a dtype and rows: an array of Zarr, Dask, h5py or NumPy."""

    def __init__(self, array: Any, name: str) -> None:
        self._array, self.name = array, name
        self.shape, self.dtype = tuple(map(int, array.shape)), np.dtype(array.dtype)
        chunks = getattr(array, "chunks", None)
        first = chunks[0] if chunks else None
        if isinstance(first, tuple):  # Dask's
            self.chunks = list(map(int, first))
        elif first:
            self.chunks = _divided(self.shape[0], int(first))
        else:
            self.chunks = even_chunks(self.shape, self.dtype)

    def read(self, start: int, stop: int) -> Rows:
        """Read rows; see `Part`."""
        try:
            rows = np.asarray(self._array[start:stop])
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DataError(
                f"got {self.name} whose rows {start} to {stop} cannot be read ({error}); expected "
                "all of them"
            ) from error
        if rows.shape != (stop - start, *self.shape[1:]):
            raise DataError(
                f"got rows of shape {rows.shape} from {self.name}; expected "
                f"{(stop - start, *self.shape[1:])}"
            )
        return rows

    def mark(self) -> str:
        """Return a text that other data would not have; see `Part`."""
        crc = 0
        for row in np.linspace(0, max(0, self.shape[0] - 1), SAMPLES).astype(int):
            crc = zlib.crc32(self.read(int(row), int(row) + 1).tobytes(), crc)
        return f"{self.shape} {self.dtype} {crc:08x}"


def even_chunks(shape: Shape, dtype: np.dtype[Any]) -> list[int]:
    """Return the numbers of rows of chunks of about `CHUNK_BYTES`."""
    each = max(1, prod(shape[1:]) * dtype.itemsize)
    return _divided(shape[0], max(1, CHUNK_BYTES // each))


def _divided(rows: int, length: int) -> list[int]:
    return [length] * (rows // length) + ([rows % length] if rows % length else [])


def is_text(kind: Any) -> bool:
    """Return whether a type of Arrow is text, also where each text is stored once."""
    return str(getattr(kind, "value_type", kind)) in ("string", "large_string", "string_view")


def _dtype_of(kind: Any) -> np.dtype[Any]:
    """Return the dtype of a type of Arrow; that of objects for one that NumPy does not have."""
    try:
        found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        return found
    except NotImplementedError:
        return np.dtype(object)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise DataError(
            f"got {path}, which cannot be read ({error.strerror}); expected a file"
        ) from error


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # pyarrow's own are of these
        raise DataError(
            f"got {path}, which cannot be read as Parquet ({str(error)[:200]}); expected a whole "
            "file: write it again"
        ) from error
