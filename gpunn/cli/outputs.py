"""Write predictions as CSV or NPY to a file, as a whole or not at all, or to standard output."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from itertools import count
from operator import add
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import typer
from numpy.lib import format as npy

from gpunn.cli.settings import Settings
from gpunn.cli.sources import STANDARD_INPUT
from gpunn.errors import ArgumentError, OutputError
from gpunn.nn.decisions import largest, shares
from gpunn.storage.atomic import replacing


class Output(Protocol):
    """A destination for the outputs of a network."""

    def write(self, outputs: np.ndarray[Any, Any], reasons: list[list[str]] | None = None) -> None:
        """Write the outputs for some examples, (n, ...), and for CSV the reasons of each."""


class CsvOutput:
    """A CSV file with a line for each example: the name of its class, or the numbers.

    Args:
        file: the file, in UTF-8.
        classes: the names of the classes; None to write the numbers.
        chances: whether to write the probability of each class, too.
        half: the half width of an interval around each number to write, too; None for none.
    """

    def __init__(
        self,
        file: TextIOWrapper,
        classes: Sequence[str] | None,
        chances: bool = False,
        half: float | None = None,
    ) -> None:
        self.writer, self.classes = csv.writer(file, lineterminator="\n"), classes
        self.chances, self.half = chances, half
        self.started = False

    def write(self, outputs: np.ndarray[Any, Any], reasons: list[list[str]] | None = None) -> None:
        """Write the header, if it is not yet written, and the lines."""
        values = outputs.reshape(len(outputs), -1)
        columns = 1 if self.classes else values.shape[1]
        if not self.started:
            head = [f"prediction_{k}" for k in range(columns)]
            head = ["prediction"] if columns == 1 else head
            if self.chances and self.classes:
                head += [f"probability of {name}" for name in self.classes]
            head += ["low", "high"] * (self.half is not None)
            head += [f"reason_{k}" for k in range(1, len(reasons[0]) + 1)] if reasons else []
            self.writer.writerow(head)
            self.started = True
        lines: Iterable[list[str]]
        if self.classes:
            lines = [[self.classes[k]] for k in largest(values)]
            if self.chances:
                lines = map(add, lines, numerals(shares(values)))
        elif self.half is not None:
            lines = numerals(np.hstack([values, values - self.half, values + self.half]))
        else:
            lines = numerals(values)
        if reasons:
            lines = map(add, lines, reasons)
        self.writer.writerows(lines)


def numerals(rows: np.ndarray[Any, Any]) -> Iterator[list[str]]:
    """Yield rows of numbers as the shortest texts that their dtype reads the same numbers from."""
    for row in rows:
        yield row.astype(str).tolist()


class NpyOutput:
    """An NPY file with the outputs, (N, ...), in the dtype of the network.

    The header is written twice, because N is known only at the end. NumPy leaves room for that.

    Args:
        file: the file, which must support seeking.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.header = file, dict[str, Any]()
        self.rows, self.shape = 0, tuple[int, ...]()

    def write(self, outputs: np.ndarray[Any, Any], reasons: list[list[str]] | None = None) -> None:
        """Write the header, if it is not yet written, and the numbers."""
        if not self.header:
            self.header = npy.header_data_from_array_1_0(np.ascontiguousarray(outputs))
            self._write_header(outputs.shape)
        self.file.write(outputs.tobytes())
        self.rows += len(outputs)
        self.shape = outputs.shape[1:]

    def finish(self) -> None:
        """Write the final number of examples into the header."""
        self.file.seek(0)
        self._write_header((self.rows, *self.shape))

    def _write_header(self, shape: tuple[int, ...]) -> None:
        npy.write_array_header_1_0(self.file, self.header | {"shape": shape})


@contextmanager
def open_output(
    path: Path | None,
    classes: Sequence[str] | None,
    chances: bool = False,
    half: float | None = None,
) -> Iterator[Output]:
    """Open a destination for outputs inside the block.

    A file appears under its name when the block ends without an error.

    Args:
        path: a file, CSV unless its name ends in .npy; None for standard output.
        classes: the names of the classes, for CSV; None to write numbers.
        chances: as for `CsvOutput`.
        half: as for `CsvOutput`.

    Raises:
        OutputError: the outputs cannot be written.
        typer.Exit: the reader of standard output has closed it; the code is that of SIGPIPE, 141.
    """
    with _standard_output() if path is None else replacing(path) as file:
        if path is not None and path.suffix.lower() == ".npy":
            numbers = NpyOutput(file)
            yield numbers
            numbers.finish()
        else:
            text = TextIOWrapper(file, encoding="utf-8", newline="")
            try:
                yield CsvOutput(text, classes, chances, half)
            finally:
                text.detach()


def check_output(path: Path | None, inputs: Sequence[str | Path]) -> None:
    """Check that predictions do not replace their inputs, and that their file name is valid.

    Raises:
        ArgumentError: the file is one of `inputs`, or its name ends in .npz.
    """
    if path is None:
        return
    if path.suffix.lower() == ".npz":
        raise ArgumentError(
            f"got --out {path}; expected a name that ends in .csv or .npy: rename it"
        )
    for name in inputs:
        if path.exists() and os.path.exists(name) and os.path.samefile(path, name):
            raise ArgumentError(
                f"got --out {path}, which is also the model or the data; expected another file: "
                "choose another name"
            )


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        # Discard the rest of the buffer; otherwise it would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(141) from None
        raise OutputError(
            f"got standard output, which cannot be written ({error.strerror}); expected room for "
            "the predictions: make room, or name a file with --out"
        ) from error


MODEL = "model.safetensors"


def stem_of(data: str) -> str:
    """Return the name of a data set or file without its suffixes; "stdin" for standard input."""
    name = Path(data).name.removesuffix(".gz")
    return "stdin" if data == STANDARD_INPUT else Path(name).stem


def output_folder(settings: Settings) -> Path:
    """Create the folder for the results, and check before training that it can be written.

    Without --output it is runs/DATA, or runs/DATA-2 and so on if there are models already. A fit
    that goes on from its checkpoints writes where it wrote before.

    Raises:
        OutputError: it cannot be written, or it has a model that is not to be overwritten.
    """
    folder = settings.output or Path("runs") / stem_of(settings.data)
    taken = (folder / MODEL).exists() and settings.checkpoint is None
    if taken and settings.output is None:
        others = (folder.with_name(f"{folder.name}-{k}") for k in count(2))
        folder = next(each for each in others if not (each / MODEL).exists())
        typer.echo(f"output: {folder}, because there is a model of that name already")
    elif taken and not settings.overwrite:
        raise OutputError(
            f"got {folder} for the results, which has a model; expected another folder: pass "
            "--overwrite to replace the model"
        )
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"got {folder} for the results, which cannot be written ({error}); expected a writable "
            "folder: choose another one with --output"
        ) from error
    return folder
