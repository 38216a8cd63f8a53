"""Load the data that the DATA argument of the command line names."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path

from gpunn.data import load_csv, load_digits, load_mnist, load_npz, open_rows
from gpunn.data.dataset import Dataset
from gpunn.data.rows import Rows
from gpunn.data.rowtargets import targets_of
from gpunn.errors import ArgumentError, DataError

EMBEDDED = ("digits", "mnist")
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Source:
    """A data set, with or without a test set of its own.

    Attributes:
        data: the whole data set; only the training part if there is a test set.
        name: its name.
        test: the test set, or None.
        is_file: whether the data came from a file of the user.
    """

    data: Dataset | Rows
    name: str
    test: Dataset | None = None
    is_file: bool = False

    def splits(self, held_out: float, seed: int) -> tuple[Dataset | Rows, Dataset | Rows]:
        """Return training and test examples."""
        if self.test is not None:
            return self.data, self.test
        if not 0.0 < held_out < 1.0:
            raise ArgumentError(
                f"got --held-out {held_out}; expected a fraction between 0 and 1: pass e.g. 0.2"
            )
        return split(self.data, held_out, seed)


def split(
    data: Dataset | Rows, held_out: float, seed: int
) -> tuple[Dataset | Rows, Dataset | Rows]:
    """Hold out a part of the examples. In memory, it has the proportions of the classes."""
    if isinstance(data, Rows):
        return data.split(held_out, seed=seed)
    return data.split(held_out, seed=seed, stratify=data.classes is not None)


def is_pattern(name: str) -> bool:
    """Return whether a DATA argument is a pattern of the names of several files."""
    return glob.has_magic(name) and not Path(name).exists()


def load_source(
    name: str,
    target: str | None = None,
    task: str = "auto",
    data_dir: Path | None = None,
    delimiter: str | None = None,
) -> Source:
    """Load the data that a DATA argument names.

    Raises:
        DataError: there is no such data set or file, or it is broken.
        ArgumentError: a CSV file is given without --target, or `digits` or `mnist` with it.
    """
    if name in EMBEDDED and target is not None:
        raise ArgumentError(
            f"got --target {target} for {name}, which has its own target; expected no --target: "
            "leave it out"
        )
    if name == "digits":
        return Source(load_digits(), name)
    if name == "mnist":
        train, test = load_mnist(data_dir)
        return Source(train, name, test)
    if is_pattern(name):
        rows, column = open_rows(name, target=required(target, name)), str(target)
        y, classes = targets_of(rows.y, column, task)
        return Source(Rows(rows.x, y, rows.features, classes), name, is_file=True)
    path = existing(name)
    if path.suffix == ".npz":
        data = load_npz(path)
        return Source(data, data.name, is_file=True)
    data = load_csv(path, required(target, name), task=task, delimiter=delimiter)
    return Source(data, data.name, is_file=True)


def existing(name: str) -> Path:
    """Return the path of a file that exists.

    Raises:
        DataError: there is none.
    """
    path = Path(name)
    if not path.is_file():
        raise DataError(
            f"got {name!r} as DATA, but there is no such file; expected one of "
            f"{', '.join(EMBEDDED)}, the path of a file with columns or of a .npz file, or - for "
            "standard input: check the path"
        )
    return path


def required(target: str | None, name: str) -> str:
    """Return the target of a table.

    Raises:
        ArgumentError: it was not given.
    """
    if target is None:
        raise ArgumentError(
            f"got {name} without a target; expected --target COLUMN: name the column to predict"
        )
    return target
