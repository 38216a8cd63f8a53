"""Load the user's CSV and NPZ files as data sets in memory."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpunn.columns import RawTable, is_missing
from gpunn.columns.cells import numbers_in
from gpunn.columns.kinds import as_texts, signs
from gpunn.data.arrayfile import choose_x, open_npz
from gpunn.data.checks import TASKS, Problems, check_lengths
from gpunn.data.columnfile import COLUMN_FILES, open_columns
from gpunn.data.csvfile import missing_target, open_table, read_numbers, refuse
from gpunn.data.dataset import Dataset
from gpunn.data.dialect import Dialect
from gpunn.errors import DataError, DTypeError, ShapeError, UnknownNameError, listed
from gpunn.examples import BATCH_ROWS

MANY_CLASSES = 20  # more different whole numbers are taken for amounts, not for classes


def load_csv(
    path: str | os.PathLike[str],
    target: str,
    *,
    task: str = "auto",
    delimiter: str | None = None,
) -> Dataset:
    r"""Read a CSV file with a header; one column is the target, all others are features.

    Every feature must be a number in every row. Missing values are not filled in, and text is not
    encoded.

    Args:
        path: the file, in UTF-8.
        target: the name of the target column.
        task: "classification", "regression", or "auto": classification if the target has text, or
            at most 20 different numbers, all whole; regression if it has other numbers.
        delimiter: the character between two cells; None to recognise it.

    Returns:
        x (N, D) float32; y (N,) int64 class indices, with the classes sorted (whole numbers by
        value), or (N, 1) float32.

    Raises:
        DataError: the file is missing or empty, a row has a wrong length, or a value is missing or
            not a number; the message names the line and the column.
        UnknownNameError: the target or the task is unknown.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
        >>> _ = path.write_text("weight,red,fruit\n150,0.9,apple\n120,0.1,pear\n", "utf-8")
        >>> data = load_csv(path, "fruit")
        >>> data.features, data.classes, data.y.tolist()
        (('weight', 'red'), ('apple', 'pear'), [0, 1])
    """
    if task not in ("auto", *TASKS):
        raise UnknownNameError("task", task, ("auto", *TASKS))
    path = Path(path)
    parts, targets, lines = list[np.ndarray[Any, Any]](), list[str](), array("q")
    with open_table(path, Dialect(delimiter=delimiter), target, labelled=True) as table:
        for rows in table.batches(BATCH_ROWS):
            parts.append(rows.x)
            targets += rows.targets
            lines += rows.lines
        features = table.features
    _check_whole(str(path), target, targets, lines, Problems())
    y, classes = _targets(str(path), target, targets, lines, task)
    return Dataset(np.concatenate(parts), y, classes, features, path.stem)


@dataclass(frozen=True)
class TableData:
    """A table with a target.

    Attributes:
        table: the features as they are.
        y: (N,) int64 class indices, or (N, 1) float64.
        classes: the names of the classes; None for a regression.
        name: the name of the data.
        left_out: the number of rows that were left out, because their target is missing.
    """

    table: RawTable
    y: np.ndarray[Any, Any]
    classes: tuple[str, ...] | None
    name: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, index: np.ndarray[Any, Any]) -> TableData:
        """Return some rows, by their numbers."""
        return replace(self, table=self.table.rows(index), y=self.y[index])

    def split(self, held_out: float, seed: int = 0) -> tuple[TableData, TableData]:
        """Split the rows as `Dataset.split` does, with the proportions of the classes.

        If a class has a single row, or there are too many classes, the proportions are by chance.
        """
        rows = Dataset(np.zeros((len(self), 1), np.float32), self.y, self.classes)
        stratify = False
        if self.classes is not None:
            counts = np.bincount(self.y)
            stratify = counts.min() > 1 and len(counts) <= min(held_out, 1 - held_out) * len(self)
        train, test = rows.split_rows(held_out, seed, stratify=bool(stratify))
        return self.rows(train), self.rows(test)


def load_table(
    source: str | os.PathLike[str] | BinaryIO,
    target: str,
    *,
    task: str = "auto",
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    header: bool | None = None,
    like: TableData | None = None,
) -> TableData:
    """Read a table of any columns; one of them is the target.

    Rows whose target is missing are left out.

    Args:
        source: a text file of rows, which may be packed by gzip; by its suffix, a Parquet, Feather
            or Excel file; or the bytes of a text file, such as `sys.stdin.buffer`.
        target: the name of the target column; column_1 and so on for a file without a header.
        task: as for `load_csv`. In "auto", more than 20 different whole numbers are amounts.
        delimiter: for text, the character between two cells; None to recognise it.
        decimal: for text, the character before the decimals of the target, "." or ","; None to
            recognise it.
        encoding: for text, its encoding; None to recognise it.
        header: for text, whether the first row has the names of the columns; None: unless the
            target is named column_1 and so on.
        like: other data with the same target, whose task and classes these data take over.

    Raises:
        DataError: the file is missing or empty, or rows have a wrong length; the message names the
            first five such places.
        UnknownNameError: the target or the task is unknown.
        MissingExtraError: a package that reads the file is not installed.
    """
    if task not in ("auto", *TASKS):
        raise UnknownNameError("task", task, ("auto", *TASKS))
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    name, stem = ("standard input", "stdin") if path is None else (str(path), _stem(path))
    lines, problems = array("q"), Problems()
    if path is not None and path.suffix.lower() in COLUMN_FILES:
        with open_columns(path) as file:
            whole = file.whole()
        if target not in whole.columns:
            raise UnknownNameError(f"target column in {path}", target, whole.columns)
        features = [each for each in whole.names if each != target]
        targets = ["" if cell is None else cell for cell in as_texts(whole.columns[target])]
        lines.extend(range(2, len(targets) + 2))
        table = whole.select(features)
        if not features or not targets:
            raise DataError(
                f"got {path} with {len(features)} columns beside the target and {len(targets)} "
                "rows; expected some of both: check the file"
            )
    else:
        rows, targets = list[list[str]](), list[str]()
        told = Dialect(encoding, delimiter, header)
        file_or_bytes = path or _bytes(source)
        with open_table(file_or_bytes, told, target, labelled=True, lenient=True) as text:
            for line, cells, label in text.rows(problems):
                rows.append(cells)
                targets.append(label or "")
                lines.append(line)
            features = list(text.features)
        table = RawTable.of(rows, features)
    problems.tell()
    known = np.array([not is_missing(cell) for cell in targets])
    if not known.any():
        raise DataError(
            f"got {name} without a value in the target {target!r}; expected some: name another one"
        )
    table, left_out = table.rows(known), int((~known).sum())
    lines = array("q", [line for line, good in zip(lines, known, strict=True) if good])
    targets = _plain([cell for cell in targets if not is_missing(cell)], decimal)
    if like is None:
        y, classes = _targets(name, target, targets, lines, task)
        if len(y) > 1 and (y == y[0]).all():
            raise DataError(
                f"got only the value {targets[0]!r} in the target {target!r} of {name}; expected "
                "different ones: name another target"
            )
    else:
        y, classes = _targets_like(name, target, targets, lines, like), like.classes
    return TableData(table, y, classes, stem, left_out)


def _bytes(source: Any) -> BinaryIO:
    if not hasattr(source, "read"):
        raise DTypeError(
            f"got a {type(source).__name__} to read a table from; expected a path or a file that "
            "is open for bytes"
        )
    opened: BinaryIO = source
    return opened


def _stem(path: Path) -> str:
    """Return the name of a file without its suffixes."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.stem


def _plain(cells: list[str], decimal: str | None) -> list[str]:
    """Return cells that are all written numbers, such as 1.234,50 EUR, in Python's way."""
    try:
        for cell in cells:
            _number(cell)
        if decimal != ",":
            return cells
    except ValueError:
        pass
    for sign in signs(decimal):
        values, strange = numbers_in(cells, sign)
        if not strange.any() and not np.isnan(values).any():
            return [f"{value:.17g}" for value in values]
    return cells


def load_npz(path: str | os.PathLike[str], *, task: str = "auto") -> Dataset:
    """Read an NPZ file with arrays `x` (or `X`) and `y`.

    Args:
        path: the file. Arrays of Python objects are refused, because loading them could run code.
        task: "classification", "regression", or "auto": regression for floats, classification
            for integers, booleans and text.

    Returns:
        x (N, D) float32, with more than two dimensions flattened to two; y (N,) int64 class
        indices, with the classes sorted, or (N, K) float32.

    Raises:
        DataError: the file is missing or broken, or an array is missing or cannot be trained on.
        ShapeError: x and y do not fit each other.
        UnknownNameError: the task is unknown.
    """
    if task not in ("auto", *TASKS):
        raise UnknownNameError("task", task, ("auto", *TASKS))
    path = Path(path)
    with open_npz(path) as archive:
        name = choose_x(path, archive.names, labelled=True)
        stored = archive.open(name), archive.open("y")
        check_lengths(*stored)  # before the data are unpacked
        x, y = (part.whole() for part in stored)
    if x.ndim != 2:
        x = x.reshape(len(x), -1)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if task == "regression" or (task == "auto" and y.dtype.kind == "f"):
        if y.dtype.kind not in "fiub":
            raise DTypeError(
                f"got y of dtype {y.dtype} in {path}; expected numbers for a regression: pass "
                "task='classification' for classes"
            )
        return Dataset(x, y.astype(np.float64), name=path.stem)
    if y.ndim != 1 or y.dtype.kind not in "iubU":
        error = ShapeError if y.ndim != 1 else DTypeError
        raise error(
            f"got y of shape {y.shape} and dtype {y.dtype} in {path}; expected (N,) integers or "
            "text for classes: use y.argmax(axis=1) for one-hot rows, floats for regression"
        )
    text = y.tolist() if y.dtype.kind == "U" else []
    missing = [row for row, cell in enumerate(text) if is_missing(cell)]
    if missing:
        raise DataError(
            f"got y with {text[missing[0]]!r} in row {missing[0]} of {path}; expected a target in "
            "every row: leave the row out; if it is the name of a class, name the class otherwise"
        )
    return Dataset(x, *_encoded(path, "y", y, task), name=path.stem)


def is_class(name: str, cell: str) -> bool:
    """Return whether a cell of the target stands for the class that `load_csv` named so.

    The class of the cell 1.0 is named 1.
    """
    if name == cell:
        return True
    try:
        return _number(name) == _number(cell)
    except ValueError:
        return False


def _check_whole(
    name: str, target: str, cells: list[str], lines: array[int], problems: Problems
) -> None:
    """Check that every row has a target; tell the problems of the file.

    Raises:
        DataError: a target is missing, or there were problems before.
    """
    for line, cell in zip(lines, cells, strict=True):
        if is_missing(cell):
            problems.add(missing_target(name, line, target, cell))
    problems.tell()


def _targets_like(
    name: str, target: str, cells: list[str], lines: array[int], like: TableData
) -> np.ndarray[Any, Any]:
    """Return the targets in the form of other data's."""
    if like.classes is None:
        return _targets(name, target, cells, lines, "regression")[0]
    numbers = {each: k for k, each in enumerate(like.classes)}
    for line, cell in zip(lines, cells, strict=True):
        if cell not in numbers:
            found = next((k for k, each in enumerate(like.classes) if is_class(each, cell)), None)
            if found is None:
                raise DataError(
                    f"got the class {cell!r} in line {line}, column {target!r} of {name}; expected "
                    f"one of {listed(like.classes)}, as in training: check the target"
                )
            numbers[cell] = found
    return np.array([numbers[cell] for cell in cells])


def _targets(
    path: str, name: str, cells: list[str], lines: array[int], task: str
) -> tuple[np.ndarray[Any, Any], tuple[str, ...] | None]:
    """Return the targets and the names of their classes, None for regression."""
    if task == "regression":
        values = [
            read_numbers(path, at, [name], [c])[0] for at, c in zip(lines, cells, strict=True)
        ]
        return np.array(values)[:, np.newaxis], None
    try:
        numbers = np.array([_number(cell) for cell in cells])
    except ValueError:
        return _encoded(path, name, np.array(cells), task)
    if not np.isfinite(numbers).all():
        wrong = int(np.argmin(np.isfinite(numbers)))
        refuse(path, lines[wrong], name, cells[wrong])
    fractions = numbers != np.floor(numbers)
    amounts = task == "auto" and len(np.unique(numbers)) > MANY_CLASSES
    if not fractions.any() and not amounts:
        return _encoded(path, name, _whole(cells, numbers), task)
    if task == "auto":
        return numbers[:, np.newaxis], None
    wrong = int(np.argmax(fractions))
    raise DataError(
        f"got {cells[wrong]!r} in line {lines[wrong]}, column {name!r} of {path}; expected whole "
        "numbers or text for classes: pass task='regression'"
    )


def _number(cell: str) -> float:
    if "_" in cell:  # Python reads 1_000 as a number, but other programs do not
        raise ValueError(cell)
    return float(cell)


def _whole(cells: list[str], numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return whole numbers without rounding, because identifiers may exceed 53 bits."""
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return numbers.astype(np.int64) if np.abs(numbers).max() < 2**53 else np.array(cells)


def _encoded(
    path: Path | str, name: str, values: np.ndarray[Any, Any], task: str
) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    """Return the class indices and the sorted names of the classes."""
    classes, y = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"got only the value {str(classes[0])!r} in the target {name!r} of {path}; expected at "
            "least two classes: name another target"
        )
    if task == "auto" and len(classes) > max(MANY_CLASSES, len(values) // 2):
        raise DataError(
            f"got {len(classes)} different values in {len(values)} rows of the target {name!r} of "
            f"{path}; expected classes that repeat: pass task='regression' or "
            "task='classification' to name the task, or name another target"
        )
    return y, tuple(map(str, classes.tolist()))
