"""Read Parquet, Feather and Excel files as tables of columns."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from gpunn.columns import RawTable
from gpunn.errors import DataError, GpunnError, MissingExtraError, listed

ARROW, SHEETS = (".parquet", ".feather"), (".xlsx",)
COLUMN_FILES = (*ARROW, *SHEETS)
"""The suffixes of files that `open_columns` reads."""

LARGEST_SHEET = 1 << 30  # bytes after unpacking: a small file must not fill the memory


class ColumnFile:
    """An open file of columns.

    Attributes:
        names: the names of its columns.
        rows: the number of rows; None if it is unknown before the end of the file.
    """

    def __init__(self, names: Sequence[str], rows: int | None, batches: Any) -> None:
        self.names, self.rows, self.batches = tuple(names), rows, batches

    def tables(self, size: int) -> Iterator[RawTable]:
        """Yield tables of up to `size` rows."""
        yield from self.batches(size)

    def whole(self) -> RawTable:
        """Return all rows as one table."""
        return next(self.tables(1 << 62), RawTable.of({name: [] for name in self.names}))


@contextmanager
def open_columns(path: Path) -> Iterator[ColumnFile]:
    """Open a Parquet, Feather or Excel file inside the block. Of Excel's sheets the first is read.

    Raises:
        MissingExtraError: pyarrow or openpyxl is not installed.
        DataError: the file is missing or broken, or has no header or two columns of one name.
    """
    suffix = path.suffix.lower()
    with open_sheet(path) if suffix in SHEETS else open_arrow(path, suffix) as found:
        names = [name.strip() for name in found.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or "" in names or not names:
            what = f"several columns of the same name: {listed(twice)}" if twice else "no name"
            raise DataError(
                f"got {what} for a column of {path}; expected different names: name the columns"
            )
        yield found


@contextmanager
def open_arrow(path: Path, suffix: str) -> Iterator[ColumnFile]:
    """Open a Parquet or Feather file with pyarrow."""
    try:
        import pyarrow as pa
        from pyarrow import feather, parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "files", f"a {suffix} file") from error

    try:
        if suffix == ".parquet":
            with parquet.ParquetFile(path) as file:
                names, rows = file.schema_arrow.names, file.metadata.num_rows

                def parts(size: int) -> Iterator[RawTable]:
                    if size > rows:
                        yield _of_arrow(file.read())
                        return
                    for batch in file.iter_batches(size):
                        yield _of_arrow(batch)

                yield ColumnFile(names, rows, parts)
            return
        table = feather.read_table(path, memory_map=False)

        def slices(size: int) -> Iterator[RawTable]:
            for start in range(0, len(table), size):
                yield _of_arrow(table.slice(start, size))

        yield ColumnFile(table.column_names, len(table), slices)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, GpunnError):
            raise
        raise DataError(
            f"got {path}, which cannot be read ({str(error)[:200]}); expected a {suffix} file: "
            "check the path"
        ) from error


def _of_arrow(table: Any) -> RawTable:
    columns = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if hasattr(column, "combine_chunks"):
            column = column.combine_chunks()
        if str(column.type).startswith("dictionary"):
            column = column.dictionary_decode()
        columns[name.strip()] = column.to_numpy(zero_copy_only=False)
    return RawTable.of(columns)


@contextmanager
def open_sheet(path: Path) -> Iterator[ColumnFile]:
    """Open the first sheet of an Excel file with openpyxl. Formulas count as their values."""
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise MissingExtraError("openpyxl", "files", "an .xlsx file") from error

    book: Any = None
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(each.file_size for each in archive.infolist())
        if size_bytes > LARGEST_SHEET:
            raise DataError(
                f"got {path} with {size_bytes} bytes after unpacking; expected at most "
                f"{LARGEST_SHEET}: save it as CSV"
            )
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows: Iterator[Any] = (
            row for row in book.worksheets[0].iter_rows(values_only=True) if any_cell(row)
        )
        first = next(rows, ())
        while sum(cell is not None for cell in first) == 1:  # a title, unless it is a column
            second = next(rows, ())
            if sum(cell is not None for cell in second) < 2:
                rows = chain([second] if second else [], rows)
                break
            first = second
        names = ["" if cell is None else str(cell) for cell in first]
        while names and not names[-1]:
            names.pop()  # formatted but empty cells

        def parts(size: int) -> Iterator[RawTable]:
            kept = list[Sequence[Any]]()
            for row in rows:
                cells = [*row, *[None] * len(names)][: len(names)]
                kept.append([_cell(cell) for cell in cells])
                if len(kept) == size:
                    yield RawTable.of(kept, names)
                    kept = []
            if kept:
                yield RawTable.of(kept, names)

        yield ColumnFile(names, None, parts)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, InvalidFileException) as error:
        if isinstance(error, GpunnError):
            raise
        raise DataError(
            f"got {path}, which cannot be read ({str(error)[:200]}); expected an .xlsx file: save "
            "it again, or as CSV"
        ) from error
    finally:
        if book is not None:
            book.close()


def any_cell(row: Sequence[Any]) -> bool:
    """Return whether a row has a cell that is not empty."""
    return any(cell is not None and cell != "" for cell in row)


def _cell(cell: Any) -> Any:
    """Return a cell of a sheet; a date as text, as CSV has it."""
    return cell.isoformat(" ") if isinstance(cell, datetime) else cell
