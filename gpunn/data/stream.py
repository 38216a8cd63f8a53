"""Read examples from files of any size, with only one batch of rows in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpunn.columns import Encoding, RawTable
from gpunn.columns.kinds import as_texts
from gpunn.data.arrayfile import StoredArray, choose_x, open_npy, open_npz
from gpunn.data.checks import as_float32, check_finite
from gpunn.data.columnfile import COLUMN_FILES, ColumnFile, open_columns
from gpunn.data.csvfile import Table, open_table
from gpunn.data.dialect import Dialect
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.examples import BATCH_ROWS

MAX_LABEL_BYTES = 1 << 17  # the longest name of a class, so that a broken file has no huge one

Batch = tuple[np.ndarray[Any, Any], list[str] | None]


@dataclass(frozen=True)
class FeatureStream:
    """Examples in a file, which are read once, from front to back, when they are asked for.

    Attributes:
        width: D, the number of features of an example.
        rows: the number of examples; None if it is unknown before the end of the file.
        batches: a function of a number of rows n, which yields pairs of x (n, D) float32 and the
            targets as strings, (n,), or None if there are no targets. The last batch may be
            smaller.
        odd: for columns that are encoded, the number of cells so far that the training data does
            not explain; see `Encoding`.
    """

    width: int
    rows: int | None
    batches: Callable[[int], Iterator[Batch]]
    odd: Counter[str] = field(default_factory=Counter)


@contextmanager
def open_features(
    source: str | os.PathLike[str] | BinaryIO,
    features: Sequence[str] | None = None,
    target: str | None = None,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    columns: Encoding | None = None,
) -> Iterator[FeatureStream]:
    r"""Open examples to predict from, with or without their target, inside the block.

    Reading takes the memory of one batch, whatever the size of the file. No memory map is used: if
    the file is truncated meanwhile, an error is raised and the process does not end.

    Args:
        source: a CSV file; or, by its suffix, an NPZ file with `x` (or `X`), an NPY file, or a
            Parquet, Feather or Excel file; or the bytes of a CSV file, such as `sys.stdin.buffer`.
            More than two dimensions are flattened to two.
        features: the names of the feature columns of a CSV file, in the model's order; None for
            all columns in the order of the file.
        target: the name of the target column, which may be missing. In an NPZ file it is `y`.
        delimiter: the character between two cells of a CSV file; None to recognise it.
        encoding: the encoding of the text of a CSV file; None to recognise it.
        header: whether a CSV file has a header; None: unless the features and the target are
            named column_1 and so on.
        columns: the encoding of the columns, which then names the features; None for numbers as
            they are.

    Returns:
        A context manager that gives a `FeatureStream`.

    Raises:
        DataError: the file is missing, broken or empty, lacks a feature, or holds Python objects;
            or a row has a wrong length, or a missing or unusable value. A broken row raises when
            its batch is read.
        ShapeError: the numbers of targets and examples differ.
        DTypeError: an array does not hold numbers.
        ArgumentError: the delimiter is not a usable character, or the encoding is unknown.
        MissingExtraError: a package that reads the file is not installed.
        OutputError: a compressed array is in Fortran order, and its copy on disk cannot be written.

    Example:
        >>> import io
        >>> with open_features(io.BytesIO(b"a,b\n1,2\n3,4\n5,6\n")) as stream:
        ...     [x.tolist() for x, _ in stream.batches(2)]
        [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]]
    """
    place = Path(source) if isinstance(source, str | os.PathLike) else source
    suffix = place.suffix.lower() if isinstance(place, Path) else ""
    if isinstance(place, Path) and suffix == ".npy":
        with open_npy(place) as stored:
            yield _of_arrays(stored, None)
    elif isinstance(place, Path) and suffix == ".npz":
        with open_npz(place) as archive:
            stored = archive.open(choose_x(place, archive.names))
            yield _of_arrays(stored, archive.open("y") if "y" in archive.names else None)
    elif isinstance(place, Path) and suffix in COLUMN_FILES:
        with open_columns(place) as file:
            yield _of_columns(str(place), file, features, target, columns)
    else:
        told = Dialect(encoding, delimiter, header)
        with open_table(place, told, target, features, encoding=columns) as table:
            yield _of_table(table)


def load_features(
    path: str | os.PathLike[str],
    features: Sequence[str] | None = None,
    target: str | None = None,
    *,
    delimiter: str | None = None,
) -> tuple[np.ndarray[Any, Any], list[str] | None]:
    """Read examples to predict from as a whole; `open_features` reads them batch by batch.

    Args:
        path: a file, as in `open_features`.
        features: the names of the feature columns, in the model's order; None for all columns.
        target: the name of the target column, which may be missing.
        delimiter: the character between two cells of a CSV file; None to recognise it.

    Returns:
        x (N, D) float32, and the targets as strings, or None if the file has no targets.

    Raises:
        DataError, ShapeError, DTypeError, ArgumentError, OutputError: as for `open_features`.
    """
    with open_features(path, features, target, delimiter=delimiter) as stream:
        parts = list(stream.batches(BATCH_ROWS))
    labels = [label for _, part in parts if part is not None for label in part]
    return np.concatenate([x for x, _ in parts]), labels or None


def _of_table(table: Table) -> FeatureStream:
    def batches(size: int) -> Iterator[Batch]:
        return ((rows.x, rows.targets or None) for rows in table.batches(size))

    width = len(table.features) if table.encoding is None else table.encoding.width
    return FeatureStream(width, None, batches, table.odd)


def _of_columns(
    name: str,
    file: ColumnFile,
    features: Sequence[str] | None,
    target: str | None,
    encoding: Encoding | None,
) -> FeatureStream:
    found = [each for each in file.names if each != target]
    names, odd = found if features is None else list(features), Counter[str]()

    def batches(size: int) -> Iterator[Batch]:
        first = 0
        for table in file.tables(size):
            if encoding is None:
                x = _numbers(name, table.select(names, name))
            else:
                x = encoding(table, name, odd)
            check_finite(f"x of {name}", x, first=first)
            labels = None
            if target in table.columns:
                cells = as_texts(table.columns[target])
                labels = ["" if cell is None else cell for cell in cells]
            yield as_float32(f"x of {name}", x, first=first), labels
            first += len(x)
        if not first:
            raise DataError(f"got {name} without rows; expected at least one example: add rows")

    width = len(names) if encoding is None else encoding.width
    return FeatureStream(width, file.rows, batches, odd)


def _numbers(name: str, table: RawTable) -> np.ndarray[Any, Any]:
    for title, column in table.columns.items():
        if column.dtype.kind != "f":
            raise DTypeError(
                f"got column {title!r} of {name} with text or dates; expected numbers, as in "
                "training: encode it first"
            )
    return np.column_stack(list(table.columns.values()))


def _of_arrays(x: StoredArray, y: StoredArray | None) -> FeatureStream:
    if not x.shape or 0 in x.shape:
        raise DataError(
            f"got {x.name} of shape {x.shape} without examples; expected (N, D): add rows"
        )
    if x.dtype.kind not in "fiub":
        raise DTypeError(f"got {x.name} of dtype {x.dtype}; expected real numbers: encode it first")
    if y is not None and y.shape[:1] != x.shape[:1]:
        raise ShapeError(
            f"got x of shape {x.shape} and {y.name} of shape {y.shape}; expected the same number "
            "of rows: pass one target for each example, or none"
        )
    if y is not None and not _are_labels(y):
        y = None

    def batches(size: int) -> Iterator[Batch]:
        labels = None if y is None else y.blocks(size)
        first = 0
        for block in x.blocks(size):
            flat = block.reshape(len(block), -1)
            check_finite(x.name, flat, first=first)
            names = None if labels is None else list(map(str, next(labels).ravel().tolist()))
            yield as_float32(x.name, flat, first=first), names
            first += len(block)

    return FeatureStream(prod(x.shape[1:]), x.shape[0], batches)


def _are_labels(y: StoredArray) -> bool:
    """Return whether `load_npz` reads them as classes: one integer or string for each example."""
    single = prod(y.shape[1:]) == 1 and y.dtype.itemsize <= MAX_LABEL_BYTES
    return single and y.dtype.kind in "iubU"
