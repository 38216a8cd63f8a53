"""The encoding of the columns of a table as numbers, as it was found in the training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from reprlib import repr as short
from statistics import median
from typing import Any

import numpy as np

from gpunn.errors import DataError, ModelFileError, listed
from gpunn.tables.cells import is_missing, number_in

MANY_LEVELS = 100  # a column of text with more different values is refused


@dataclass(frozen=True)
class Column:
    """The encoding of one column.

    Attributes:
        name: the name of the column.
        levels: the values of a category, sorted; None for a column of numbers.
        middle: the number that stands for a missing one, the median of the training data.
        missing: whether a last column of 0 and 1 tells which cells are missing.
    """

    name: str
    levels: list[str] | None = None
    middle: float = 0.0
    missing: bool = False

    @classmethod
    def of(cls, values: Any) -> Column:
        """Build a column from the values in a model file.

        Raises:
            ModelFileError: the values are not those of a column.
        """
        try:
            found = cls(**values)
            texts = [found.name, *(found.levels or [])]
            distinct = found.levels is None or len(set(found.levels)) == len(found.levels) > 0
            listed = found.levels is None or isinstance(found.levels, list)
            kinds = isinstance(found.missing, bool) and type(found.middle) is float
            if not (distinct and listed and kinds and isfinite(found.middle)):
                raise ValueError("values of other kinds")
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a name that is no text")
        except (TypeError, ValueError) as error:
            raise ModelFileError(
                f"got a column that cannot be read from the model file ({error}); expected the "
                "encoding that gpunn train writes: train it again"
            ) from error
        return found

    @property
    def width(self) -> int:
        """The number of columns that this column becomes."""
        return (1 if self.levels is None else len(self.levels)) + self.missing


class Encoding:
    """A function that encodes rows of cells as numbers.

    A number stays one, and a missing number becomes the median of the training data. A category
    becomes a column of 0 and 1 for each level. A level that training did not see, and a missing
    category, become zeros. If training had missing cells in a column, one more column marks them.

    Args:
        columns: the encodings of the columns, in the order of the cells.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._places = [
            {level: place for place, level in enumerate(column.levels or ())}
            for column in self.columns
        ]

    @classmethod
    def fit(cls, source: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Encoding:
        """Find the encodings of the columns in the rows of the training data.

        Args:
            source: the name of the data in messages.
            names: the names of the D columns.
            rows: rows of D cells each.

        Raises:
            DataError: a column has no values, or text with more than 100 different values.
        """
        cells = zip(*rows, strict=True)
        return cls([_found(source, *column) for column in zip(names, cells, strict=True)])

    @classmethod
    def of(cls, values: Any) -> Encoding:
        """Build an encoding from the values in a model file.

        Raises:
            ModelFileError: the values are not those of an encoding.
        """
        if not isinstance(values, list) or not values:
            raise ModelFileError(
                "got an encoding that is not a list of columns; expected what gpunn train writes: "
                "train it again"
            )
        return cls([Column.of(each) for each in values])

    def values(self) -> list[dict[str, Any]]:
        """Return the encoding as values that JSON can hold."""
        return [asdict(column) for column in self.columns]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def width(self) -> int:
        """The number of columns after the encoding."""
        return sum(column.width for column in self.columns)

    @property
    def plain(self) -> bool:
        """Whether all columns are numbers without missing cells, so that nothing changes."""
        return all(column.levels is None and not column.missing for column in self.columns)

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """The names of the columns after the encoding."""
        found = list[str]()
        for column in self.columns:
            name, levels = column.name, column.levels
            found += [name] if levels is None else [f"{name}={level}" for level in levels]
            found += [f"{name} is missing"] * column.missing
        return tuple(found)

    def describe(self) -> str:
        """Return one line that tells what each column was taken for."""
        parts = list[str]()
        for column in self.columns:
            kind = "number" if column.levels is None else f"category of {len(column.levels)}"
            parts.append(f"{column.name} ({kind}{', with missing cells' * column.missing})")
        return listed(parts)

    def row(self, cells: Sequence[str], source: str, line: int) -> list[float]:
        """Encode the cells of one row as `width` numbers.

        Args:
            cells: D cells in the order of the columns.
            source: the name of the file in messages.
            line: the number of the row in messages.

        Raises:
            DataError: a cell in a column of numbers is neither a number nor missing.
        """
        found = list[float]()
        for column, places, cell in zip(self.columns, self._places, cells, strict=True):
            cell = cell.strip()
            gone = is_missing(cell)
            if column.levels is None:
                value = column.middle if gone else number_in(cell)
                if value is None:
                    raise DataError(
                        f"got {short(cell)} in line {line}, column {short(column.name)} of "
                        f"{source}; expected a finite number, as in training, or an empty cell: "
                        "correct it"
                    )
                found.append(value)
            else:
                part = [0.0] * len(column.levels)
                if cell in places:
                    part[places[cell]] = 1.0
                found += part
            if column.missing:
                found.append(float(gone))
        return found

    def __call__(
        self, rows: Sequence[Sequence[str]], source: str = "the table"
    ) -> np.ndarray[Any, Any]:
        """Encode N rows of cells as (N, width) float64.

        Raises:
            DataError: as for `row`.
        """
        found = [self.row(cells, source, line) for line, cells in enumerate(rows, 1)]
        return np.array(found, np.float64).reshape(len(rows), self.width)


def _found(source: str, name: str, cells: Sequence[str]) -> Column:
    known = [cell.strip() for cell in cells if not is_missing(cell)]
    missing = len(known) < len(cells)
    if not known:
        raise DataError(
            f"got no value in column {name!r} of {source}; expected at least one: leave the column "
            "out"
        )
    numbers = [value for cell in known if (value := number_in(cell)) is not None]
    if len(numbers) == len(known):
        return Column(name, None, float(median(numbers)), missing)
    levels = sorted(set(known))
    if len(levels) > MANY_LEVELS:
        strange = next(cell for cell in known if number_in(cell) is None)
        raise DataError(
            f"got {len(levels)} different values in column {name!r} of {source}, of which "
            f"{short(strange)} is no number; expected numbers, or at most {MANY_LEVELS} different "
            "values: correct the cells, or leave the column out"
        )
    return Column(name, levels, 0.0, missing)
