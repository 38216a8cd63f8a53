"""Read CSV files with a header row by row, with memory for only one batch of rows."""

from __future__ import annotations

import csv
import os
import stat
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from math import isfinite
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO, NoReturn

import numpy as np

from gpunn.data.checks import as_float32
from gpunn.errors import ArgumentError, DataError, UnknownNameError, listed
from gpunn.tables import Encoding
from gpunn.tables.cells import number_in

MAX_RECORD = 1 << 24  # characters; a file without line ends must not fill the memory


@dataclass(frozen=True)
class Rows:
    """Some rows of a table.

    Attributes:
        x: (N, D) float32, the features.
        targets: (N,) cells of the target column as strings; empty if the file has no such column.
        lines: (N,) numbers of the lines, counted from 1.
    """

    x: np.ndarray[Any, Any]
    targets: list[str]
    lines: array[int]


class Table:
    """An open CSV file whose header has been read.

    Args:
        name: the name of the file in messages.
        text: the file, opened without conversion of line ends.
        delimiter: the character between two cells.
        target: the name of the target column, or None.
        features: the names of the feature columns in the wanted order; None for all columns except
            the target.
        labelled: whether the file must have the target column.
        encoding: the encoding of the features, which then names them; None for numbers as they are.

    Raises:
        ArgumentError: the delimiter is not a usable character.
        DataError: the file is empty, its header cannot be used, or a feature is missing.
        UnknownNameError: the target column is missing although the file must be `labelled`.
    """

    def __init__(
        self,
        name: str,
        text: TextIOWrapper,
        delimiter: str,
        target: str | None,
        features: Sequence[str] | None = None,
        labelled: bool = False,
        encoding: Encoding | None = None,
    ) -> None:
        self.encoding = encoding
        features = features if encoding is None else encoding.names
        if len(delimiter) != 1 or delimiter in '\0\r\n"':
            raise ArgumentError(
                f"got the delimiter {delimiter!r}; expected one character between two cells: use "
                "',' or ';'"
            )
        self.name = name
        self._records = _records(name, text, delimiter)
        header = _header(name, next(self._records, (0, []))[1])
        if labelled and target not in header:
            raise UnknownNameError(f"target column in {name}", target, header)
        names = [column for column in header if column != target]
        self.features = tuple(names if features is None else features)
        missing = [feature for feature in self.features if feature not in header]
        if missing:
            raise DataError(
                f"got {name} with columns {listed(header)}; expected {listed(missing)} too, as in "
                "training: add these columns"
            )
        if not self.features:
            raise DataError(
                f"got {name} with only the target {target!r}; expected features too: add columns"
            )
        self._width = len(header)
        self._places = [header[feature] for feature in self.features]
        self._column = None if target is None else header.get(target)

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield batches of `size` rows, with fewer in the last batch.

        Raises:
            DataError: there are no rows, a row is too short or too long, or a value is missing or
                not a number; the message names the line and the column.
        """
        numbers, targets, lines = array("d"), list[str](), array("q")
        first = 0
        for line, picked, target in self.rows():
            if target is not None:
                targets.append(target)
            if self.encoding is None:
                numbers.extend(read_numbers(self.name, line, self.features, picked))
            else:
                numbers.extend(self.encoding.row(picked, self.name, line))
            lines.append(line)
            if len(lines) == size:
                yield self._rows(numbers, targets, lines, first)
                first += size
                numbers, targets, lines = array("d"), [], array("q")
        if lines:
            yield self._rows(numbers, targets, lines, first)

    def rows(self) -> Iterator[tuple[int, list[str], str | None]]:
        """Yield the number of the line, the cells of the features, and the target of each row.

        Raises:
            DataError: there are no rows, or a row is too short or too long.
        """
        line = None
        for line, cells in self._records:
            if len(cells) != self._width:
                raise DataError(
                    f"got {len(cells)} cells in line {line} of {self.name}; expected "
                    f"{self._width}, as the header has: check the commas and quotes"
                )
            target = None if self._column is None else cells[self._column].strip()
            yield line, [cells[place] for place in self._places], target
        if line is None:
            raise DataError(
                f"got {self.name} with a header and no rows; expected at least one example: add "
                "rows"
            )

    def _rows(
        self, numbers: array[float], targets: list[str], lines: array[int], first: int
    ) -> Rows:
        x = np.frombuffer(numbers).reshape(len(lines), -1)
        return Rows(as_float32(f"x of {self.name}", x, first=first), targets, lines)


@contextmanager
def open_table(
    source: Path | BinaryIO,
    delimiter: str,
    target: str | None,
    features: Sequence[str] | None = None,
    labelled: bool = False,
    encoding: Encoding | None = None,
) -> Iterator[Table]:
    """Open a `Table` on a file or on a stream of bytes inside the block.

    Raises:
        DataError: the file cannot be read, or as for `Table`.
    """
    name = str(source) if isinstance(source, Path) else "standard input"
    try:
        file = source.open("rb") if isinstance(source, Path) else source
    except OSError as error:
        raise DataError(
            f"got {name}, which cannot be read ({error.strerror}); expected a CSV file in UTF-8: "
            "check the path"
        ) from error
    # utf-8-sig, because spreadsheets write a byte order mark before the first name.
    text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        yield Table(name, text, delimiter, target, features, labelled, encoding)
    finally:
        text.detach()
        if file is not source:
            file.close()


def read_numbers(
    name: str, line: int, features: Sequence[str], cells: Sequence[str]
) -> list[float]:
    """Return the numbers in the cells of one row.

    Raises:
        DataError: a cell is not a finite number; the message names the line and the column.
    """
    try:
        values = list(map(float, cells))
        # Python reads 1_000 as a number, but other programs do not
        if all(map(isfinite, values)) and "_" not in "".join(cells):
            return values
    except ValueError:
        pass
    for feature, cell in zip(features, cells, strict=True):
        if number_in(cell) is None:
            refuse(name, line, feature, cell)
    raise AssertionError("unreachable: one of the cells was wrong")


def refuse(name: str, line: int, column: str, cell: str) -> NoReturn:
    """Raise a `DataError` for a cell that cannot be used.

    Raises:
        DataError: always.
    """
    got = short(cell) if cell.strip() else "no value"
    raise DataError(
        f"got {got} in line {line}, column {short(column)} of {name}; expected a finite number: "
        "fill it in, remove the row, or encode the column as numbers"
    )


def refuse_target(name: str, line: int, column: str, cell: str) -> NoReturn:
    """Raise a `DataError` for a cell of the target that stands for a missing value.

    Raises:
        DataError: always.
    """
    got = short(cell) if cell.strip() else "no value"
    raise DataError(
        f"got {got} in line {line}, column {short(column)} of {name}; expected a target in every "
        "row: fill it in, or remove the row; if it is the name of a class, name the class otherwise"
    )


class _Lines:
    """The lines of a text. Overlong records and NUL bytes are refused.

    Attributes:
        held: the number of characters since the last complete record.
    """

    def __init__(self, name: str, text: TextIOWrapper) -> None:
        self.name, self.text = name, text
        self.held = self.number = 0
        self.size = _size(text)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.text.readline(MAX_RECORD + 1)
        self.number += 1
        self.held += len(line)
        if not line:
            self._check_end()
            raise StopIteration
        if self.held > MAX_RECORD:
            raise DataError(
                f"got more than {MAX_RECORD} characters in the record that ends at line "
                f"{self.number} of {self.name}; expected rows of a table: check the ends of lines "
                "and the quotes"
            )
        if "\0" in line:
            raise DataError(
                f"got a NUL byte in line {self.number} of {self.name}; expected text in UTF-8: "
                "save it as UTF-8 (it may be UTF-16), or copy it again"
            )
        return line

    def _check_end(self) -> None:
        """Check that the file did not become shorter, so that its last number is whole."""
        if self.size is None:
            return
        end = os.lseek(self.text.fileno(), 0, os.SEEK_CUR)
        if end < self.size:
            raise DataError(
                f"got {self.name}, which had {self.size} bytes when it was opened and now ends at "
                f"{end}; expected a file that does not change while it is read: read it again"
            )


def _size(file: TextIOWrapper) -> int | None:
    """Return the size of a regular file in bytes; None for a pipe."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # no file of the operating system, for example BytesIO
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _records(name: str, text: TextIOWrapper, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of its last line, from 1."""
    lines = _Lines(name, text)
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        for cells in reader:
            lines.held = 0
            if cells:
                yield reader.line_num, cells
    except (OSError, MemoryError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"got {name}, which cannot be read from line {lines.number} on ({error}); expected a "
            "CSV file in UTF-8: check this line"
        ) from error


def _header(name: str, cells: list[str]) -> dict[str, int]:
    """Return the positions of the columns by their names."""
    names = [cell.strip() for cell in cells]
    if not names:
        raise DataError(f"got {name}, which is empty; expected a header and rows: check the path")
    if "" in names:
        raise DataError(
            f"got no name for column {names.index('') + 1} of {name}; expected one for each: name "
            "it, or leave the column out (with pandas, to_csv(index=False))"
        )
    twice = sorted(column for column, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(
            f"got columns of the same name in {name}: {listed(twice)}; expected different names: "
            "rename one of them"
        )
    return {column: place for place, column in enumerate(names)}
