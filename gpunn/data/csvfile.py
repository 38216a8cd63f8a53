"""Read CSV files with a header row by row, with memory for only one batch of rows."""

from __future__ import annotations

import csv
import os
import re
import stat
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from reprlib import repr as short
from typing import Any, BinaryIO, NoReturn, TypeVar

import numpy as np

from gpunn.columns import Encoding, RawTable
from gpunn.columns.cells import number_in
from gpunn.columns.raw import missing_columns
from gpunn.data.checks import Problems, as_float32
from gpunn.data.dialect import Dialect, recognised, unpacked
from gpunn.errors import DataError, UnknownNameError, listed

Item = TypeVar("Item")
NUMBERED = re.compile(r"column_\d+").fullmatch
ZIP = b"PK\3\4"
MOST_TITLES = 10  # the rows that may stand before a header
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
        dialect: how the file is written. Without a header the columns are column_1 and so on. If
            it isn't said whether there is one, there is none if the target and the features are
            named so, and are not in the first row.
        target: the name of the target column, or None.
        features: the names of the feature columns in the wanted order; None for all columns except
            the target.
        labelled: whether the file must have the target column.
        encoding: the encoding of the features, which then names them; None for numbers as they are.
        lenient: whether columns may have no name, such as the index of a frame of pandas; they are
            then called "Unnamed: 0" and so on, as pandas reads them. The header may also stand
            behind up to ten other rows, if it has the target.

    Raises:
        ArgumentError: the delimiter is not a usable character.
        DataError: the file is empty, its header cannot be used, or a feature is missing.
        UnknownNameError: the target column is missing although the file must be `labelled`.
    """

    def __init__(
        self,
        name: str,
        text: TextIOWrapper,
        dialect: Dialect,
        target: str | None,
        features: Sequence[str] | None = None,
        labelled: bool = False,
        encoding: Encoding | None = None,
        lenient: bool = False,
    ) -> None:
        self.encoding, self.odd = encoding, Counter[str]()
        features = features if encoding is None else encoding.names
        self.name = name
        self._records = _records(name, text, dialect.delimiter or ",")
        line, first = next(self._records, (0, list[str]()))
        wanted = [*(features or ()), *([] if target is None else [target])]
        bare = dialect.header is False
        if dialect.header is None:
            bare = bool(wanted) and not set(wanted) & set(first) and all(map(NUMBERED, wanted))
        if first and bare:
            self._records = chain([(line, first)], self._records)
            first = [f"column_{k}" for k in range(1, len(first) + 1)]
        if lenient or encoding is not None:
            if not bare:
                first = self._header_of(first, wanted)
            first = [cell if cell.strip() else f"Unnamed: {k}" for k, cell in enumerate(first)]
        header = _header(name, first)
        if labelled and target not in header:
            raise UnknownNameError(f"target column in {name}", target, header)
        names = [column for column in header if column != target]
        self.features = tuple(names if features is None else features)
        missing = [feature for feature in self.features if feature not in header]
        if missing:
            raise DataError(missing_columns(name, list(header), missing))
        if not self.features:
            raise DataError(
                f"got {name} with only the target {target!r}; expected features too: add columns"
            )
        self._width = len(header)
        self._places = [header[feature] for feature in self.features]
        self._column = None if target is None else header.get(target)

    def _header_of(self, first: list[str], wanted: list[str]) -> list[str]:
        """Return the first of the next rows that has a wanted name; `first` if none has."""
        if not first or set(wanted) & {cell.strip() for cell in first}:
            return first
        seen = list(islice(self._records, MOST_TITLES))
        for k, (_, cells) in enumerate(seen):
            if set(wanted) & {cell.strip() for cell in cells}:
                self._records = chain(seen[k + 1 :], self._records)
                return cells
        self._records = chain(seen, self._records)
        return first

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield batches of `size` rows, with fewer in the last batch.

        Raises:
            DataError: there are no rows, a row is too short or too long, or a value is missing or
                not a number; the message names the line and the column.
        """
        if self.encoding is not None:
            yield from self._encoded(size, self.encoding)
            return
        numbers, targets, lines = array("d"), list[str](), array("q")
        first = 0
        for line, picked, target in self.rows():
            if target is not None:
                targets.append(target)
            numbers.extend(read_numbers(self.name, line, self.features, picked))
            lines.append(line)
            if len(lines) == size:
                yield self._rows(numbers, targets, lines, first)
                first += size
                numbers, targets, lines = array("d"), [], array("q")
        if lines:
            yield self._rows(numbers, targets, lines, first)

    def _encoded(self, size: int, encoding: Encoding) -> Iterator[Rows]:
        for rows in batched(self.rows(), size):
            lines, cells, targets = zip(*rows, strict=True)
            x = encoding(RawTable.of(cells, self.features), self.name, self.odd)
            yield Rows(x, [target for target in targets if target is not None], array("q", lines))

    def rows(self, problems: Problems | None = None) -> Iterator[tuple[int, list[str], str | None]]:
        """Yield the number of the line, the cells of the features, and the target of each row.

        Args:
            problems: what collects the problems of rows, which are then left out; None to raise
                the first one.

        Raises:
            DataError: there are no rows, or a row is too short or too long.
        """
        line = None
        problems = Problems(1) if problems is None else problems
        for line, cells in self._records:
            if len(cells) != self._width:
                problems.add(
                    f"got {len(cells)} cells in line {line} of {self.name}; expected "
                    f"{self._width}, as the header has: check the commas and quotes"
                )
                continue
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


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items, with fewer in the last one."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


@contextmanager
def open_table(
    source: Path | BinaryIO,
    told: Dialect,
    target: str | None,
    features: Sequence[str] | None = None,
    labelled: bool = False,
    encoding: Encoding | None = None,
    lenient: bool = False,
) -> Iterator[Table]:
    """Open a `Table` on a file or on a stream of bytes inside the block.

    A file that gzip has packed is unpacked.

    Raises:
        DataError: the file cannot be read, or as for `Table`.
    """
    name = str(source) if isinstance(source, Path) else "standard input"
    with ExitStack() as opened:
        try:
            file, sample = opened.enter_context(unpacked(source))
        except (OSError, EOFError) as error:
            raise DataError(
                f"got {name}, which cannot be read ({error}); expected a CSV file: check the path"
            ) from error
        if sample.startswith(ZIP):
            raise DataError(
                f"got {name}, which is a zip archive; expected a CSV file: unpack it, or pack it "
                "with gzip"
            )
        dialect = recognised(sample, told)
        text = TextIOWrapper(file, encoding=dialect.encoding, newline="")
        opened.callback(text.detach)
        yield Table(name, text, dialect, target, features, labelled, encoding, lenient)


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


def missing_target(name: str, line: int, column: str, cell: str) -> str:
    """Return the words for a cell of the target that stands for a missing value."""
    got = short(cell) if cell.strip() else "no value"
    return (
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
    """Yield the rows that are not blank, each with the number of its last line, from 1.

    Lines before the header that begin with # are comments, and so is Excel's "sep=;".
    """
    lines, first = _Lines(name, text), True
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        for cells in reader:
            lines.held = 0
            if cells and not (first and cells[0].startswith(("#", "sep="))):
                first = False
                yield reader.line_num, cells
    except (OSError, EOFError, MemoryError, UnicodeError, zlib.error, csv.Error) as error:
        raise DataError(
            f"got {name}, which cannot be read from line {lines.number} on ({error}); expected a "
            "CSV file: check this line"
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
