"""Tables of the user's: CSV files and NPZ files as data sets."""

from __future__ import annotations

import os
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from gpunn.data.checks import TASKS, as_float32, check_finite, check_lengths
from gpunn.data.dataset import Dataset
from gpunn.errors import DataError, DTypeError, ShapeError, UnknownNameError

MANY_CLASSES = 20  # more classes than this, most of them of one row, are asked about
NPZ_ERRORS = (  # what NumPy and zipfile raise on broken, foreign, encrypted or lying files
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_csv(
    path: str | os.PathLike[str], target: str, *, task: str = "auto", delimiter: str = ","
) -> Dataset:
    r"""Read a CSV file with a header; one column is the target, all others are features.

    Every feature must be a number in every row: nothing is filled in or encoded in silence.

    Args:
        path: the file, in UTF-8.
        target: name of the target column.
        task: "classification", "regression", or "auto": regression if the target has numbers with
            a fractional part, classification if it has whole numbers or text.
        delimiter: the character between two cells.

    Returns:
        x (N, D) float32; y (N,) int64 class indices, the classes sorted (whole numbers by value),
        or (N, 1) float32.

    Raises:
        DataError: no such file, or one that is empty, ragged, or has missing or foreign values;
            the message names the line and the column.
        UnknownNameError: an unknown target or task.

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
    features, x, targets, lines = _columns(path, delimiter, target, labelled=True)
    y, classes = _targets(path, target, targets, lines, task)
    return Dataset(x, y, classes, features, path.stem)


def load_features(
    path: str | os.PathLike[str],
    features: Sequence[str] | None = None,
    target: str | None = None,
    *,
    delimiter: str = ",",
) -> tuple[np.ndarray[Any, Any], list[str] | None]:
    """Read examples to predict from: the features alone, with or without their target.

    Args:
        path: a CSV file with a header, or an NPZ file with `x` (or `X`).
        features: names of the feature columns, in the model's order; None for the file's.
        target: name of the target column, which may be missing.
        delimiter: the character between two cells of a CSV file.

    Returns:
        x (N, D) float32, and the target's cells as text where the file has them, else None.

    Raises:
        DataError: as `load_csv` and `load_npz`, or a feature that the file lacks.
    """
    path = Path(path)
    if path.suffix == ".npz":
        arrays = _npz_arrays(path)
        x = arrays.get("x", arrays.get("X"))
        if x is None or not x.ndim or not x.size:
            raise DataError(f"got {path} without examples; expected an array x (or X) of them")
        check_finite("x", x)
        labels = list(map(str, arrays["y"].tolist())) if "y" in arrays else None
        return as_float32("x", x.reshape(len(x), -1)), labels
    _, x, cells, _ = _columns(path, delimiter, target, features)
    return as_float32("x", x), cells or None


def load_npz(path: str | os.PathLike[str], *, task: str = "auto") -> Dataset:
    """Read an NPZ file with arrays `x` (or `X`) and `y`.

    Args:
        path: the file. Arrays of Python objects are refused: loading them could run code.
        task: "classification", "regression", or "auto": regression for floats, classification
            for integers, booleans and text.

    Returns:
        x (N, D) float32, more than two dimensions flattened to two; y (N,) int64 class indices,
        the classes sorted, or (N, K) float32.

    Raises:
        DataError: no such file, a broken one, arrays that are missing or cannot be trained on.
        ShapeError: x and y that do not fit each other.
        UnknownNameError: an unknown task.
    """
    if task not in ("auto", *TASKS):
        raise UnknownNameError("task", task, ("auto", *TASKS))
    path = Path(path)
    arrays = _npz_arrays(path)
    names = [name for name in ("x", "X") if name in arrays]
    if len(names) != 1 or "y" not in arrays:
        raise DataError(
            f"got {path} with arrays {', '.join(sorted(arrays)) or '(none)'}; expected x (or X) "
            "and y: write it with np.savez(path, x=x, y=y)"
        )
    x, y = arrays[names[0]], arrays["y"]
    check_lengths(x, y)
    if x.ndim != 2:
        x = x.reshape(len(x), -1)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if task == "regression" or (task == "auto" and y.dtype.kind == "f"):
        if y.dtype.kind not in "fiub":
            raise DTypeError(f"got y of dtype {y.dtype} in {path}; expected numbers to regress on")
        return Dataset(x, y.astype(np.float64), name=path.stem)
    if y.ndim != 1 or y.dtype.kind not in "iubU":
        error = ShapeError if y.ndim != 1 else DTypeError
        raise error(
            f"got y of shape {y.shape} and dtype {y.dtype} in {path}; expected (N,) integers or "
            "text for classes: use y.argmax(axis=1) for one-hot rows, floats for regression"
        )
    return Dataset(x, *_encoded(path, "y", y, task), name=path.stem)


# CSV ---------------------------------------------------------------------------------------------


def _columns(
    path: Path,
    delimiter: str,
    target: str | None,
    features: Sequence[str] | None = None,
    labelled: bool = False,
) -> tuple[tuple[str, ...], np.ndarray[Any, Any], list[str], array[int]]:
    """Names and numbers of the features, the target's cells, and line numbers.

    The features are all columns but the target, if none are named. There are no target cells if
    the file has no such column, which is an error where it is `labelled`.
    """
    rows = _rows(path, delimiter)
    header = _header(path, next(rows, (0, []))[1])
    if labelled and target not in header:
        raise UnknownNameError(f"target column in {path}", target, header)
    features = [name for name in header if name != target] if features is None else list(features)
    missing = [name for name in features if name not in header]
    if missing:
        raise DataError(
            f"got {path} with columns {', '.join(header)}; expected {', '.join(missing)} too, as "
            "in training"
        )
    if not features:
        raise DataError(f"got {path} with the target {target!r} alone; expected features beside it")
    places = [header.index(name) for name in features]
    column = header.index(target) if target in header else None
    numbers, lines = array("d"), array("q")
    targets: list[str] = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"got {len(cells)} cells in line {line} of {path}; expected {len(header)}, as the "
                "header has: check the commas and quotes"
            )
        if column is not None:
            targets.append(cells[column].strip())
        numbers.extend(_numbers(path, line, features, [cells[place] for place in places]))
        lines.append(line)
    if not lines:
        raise DataError(f"got {path} with a header and no rows; expected at least one example")
    return tuple(features), np.frombuffer(numbers).reshape(len(lines), -1), targets, lines


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers counted from 1."""
    import csv

    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first name.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"got {path}, which cannot be read ({error}); expected a CSV file in UTF-8"
        ) from error


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not names:
        raise DataError(f"got {path}, which is empty; expected a header and rows")
    if "" in names:
        raise DataError(
            f"got no name for column {names.index('') + 1} of {path}; expected one for each: name "
            "it, or leave the column out (with pandas, to_csv(index=False))"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"got columns of the same name in {path}: {', '.join(twice)}; expected different names"
        )
    return names


def _numbers(path: Path, line: int, features: list[str], cells: list[str]) -> list[float]:
    try:
        values = [_number(cell) for cell in cells]
    except ValueError:
        for name, cell in zip(features, cells, strict=True):
            try:
                _number(cell)
            except ValueError:
                _refuse(path, line, name, cell)
        raise
    if not np.isfinite(values).all():
        wrong = int(np.argmin(np.isfinite(values)))
        _refuse(path, line, features[wrong], cells[wrong])
    return values


def _number(cell: str) -> float:
    if "_" in cell:  # Python reads 1_000 as a number, nobody else does
        raise ValueError(cell)
    return float(cell)


def _refuse(path: Path, line: int, name: str, cell: str) -> NoReturn:
    got = f"{cell!r}" if cell.strip() else "no value"
    raise DataError(
        f"got {got} in line {line}, column {name!r} of {path}; expected a finite number: fill it "
        "in, remove the row, or encode the column as numbers"
    )


def _targets(
    path: Path, name: str, cells: list[str], lines: array[int], task: str
) -> tuple[np.ndarray[Any, Any], tuple[str, ...] | None]:
    """Targets and the names of their classes, None for regression."""
    for line, cell in zip(lines, cells, strict=True):
        if not cell or cell.lower() == "nan":
            _refuse(path, line, name, cell)
    if task == "regression":
        values = [_numbers(path, at, [name], [c])[0] for at, c in zip(lines, cells, strict=True)]
        return np.array(values)[:, np.newaxis], None
    try:
        numbers = np.array([_number(cell) for cell in cells])
    except ValueError:
        return _encoded(path, name, np.array(cells), task)
    if not np.isfinite(numbers).all():
        wrong = int(np.argmin(np.isfinite(numbers)))
        _refuse(path, lines[wrong], name, cells[wrong])
    fractions = numbers != np.floor(numbers)
    if not fractions.any():
        return _encoded(path, name, _whole(cells, numbers), task)
    if task == "auto":
        return numbers[:, np.newaxis], None
    wrong = int(np.argmax(fractions))
    raise DataError(
        f"got {cells[wrong]!r} in line {lines[wrong]}, column {name!r} of {path}; expected whole "
        "numbers or text for classes: pass task='regression'"
    )


def _whole(cells: list[str], numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whole numbers without rounding: identifiers may exceed the 53 bits of a float."""
    try:
        return np.array([int(cell) for cell in cells], np.int64)
    except (ValueError, OverflowError):
        return numbers.astype(np.int64) if np.abs(numbers).max() < 2**53 else np.array(cells)


def _encoded(
    path: Path, name: str, values: np.ndarray[Any, Any], task: str
) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    """Class indices and the sorted names of the classes."""
    classes, y = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"got the value {str(classes[0])!r} alone in the target {name!r} of {path}; expected "
            "at least two classes"
        )
    if task == "auto" and len(classes) > max(MANY_CLASSES, len(values) // 2):
        raise DataError(
            f"got {len(classes)} different values in {len(values)} rows of the target {name!r} of "
            f"{path}; expected classes that repeat: pass task='regression' or "
            "task='classification' to say what is meant, or name another target"
        )
    return y, tuple(map(str, classes.tolist()))


# NPZ ---------------------------------------------------------------------------------------------


def _npz_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return {name: archive[name] for name in archive.files if name in ("x", "X", "y")}
    except NPZ_ERRORS as error:
        raise DataError(
            f"got {path}, which cannot be read ({error}); expected an NPZ file of plain arrays: "
            "write it with np.savez(path, x=x, y=y)"
        ) from error
