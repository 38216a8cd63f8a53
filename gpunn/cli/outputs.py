"""Where predictions go: CSV or NPY, to a file that is whole or not there, or to standard output."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import typer
from numpy.lib import format as npy

from gpunn.errors import ArgumentError, OutputError
from gpunn.storage.atomic import replacing


class Output(Protocol):
    """What takes the outputs of a network."""

    def write(self, outputs: np.ndarray[Any, Any]) -> None:
        """Take those of some examples, (n, ...)."""


class CsvOutput:
    """A line for each example: the name of its class, or the numbers.

    Args:
        file: where the lines go, in UTF-8.
        classes: names of the classes; None for numbers.
    """

    def __init__(self, file: TextIOWrapper, classes: Sequence[str] | None) -> None:
        self.writer, self.classes = csv.writer(file, lineterminator="\n"), classes
        self.started = False

    def write(self, outputs: np.ndarray[Any, Any]) -> None:
        """Write the head, if there is none yet, and the lines."""
        values = outputs.reshape(len(outputs), -1)
        columns = 1 if self.classes else values.shape[1]
        if not self.started:
            head = [f"prediction_{k}" for k in range(columns)]
            self.writer.writerow(["prediction"] if columns == 1 else head)
            self.started = True
        if self.classes:
            self.writer.writerows([self.classes[k]] for k in values.argmax(axis=1))
        else:
            self.writer.writerows(values.tolist())


class NpyOutput:
    """The outputs as they are, (N, ...), in the dtype of the network.

    NumPy leaves room in the header for a length that is known at the end.

    Args:
        file: where they go; it must seek.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.header = file, dict[str, Any]()
        self.rows, self.shape = 0, tuple[int, ...]()

    def write(self, outputs: np.ndarray[Any, Any]) -> None:
        """Write the header, if there is none yet, and the numbers."""
        if not self.header:
            self.header = npy.header_data_from_array_1_0(np.ascontiguousarray(outputs))
            self._write_header(outputs.shape)
        self.file.write(outputs.tobytes())
        self.rows += len(outputs)
        self.shape = outputs.shape[1:]

    def finish(self) -> None:
        """Write the length into the header."""
        self.file.seek(0)
        self._write_header((self.rows, *self.shape))

    def _write_header(self, shape: tuple[int, ...]) -> None:
        npy.write_array_header_1_0(self.file, self.header | {"shape": shape})


@contextmanager
def open_output(path: Path | None, classes: Sequence[str] | None) -> Iterator[Output]:
    """Where outputs are written inside the block; a file is there when the block has ended well.

    Args:
        path: a file; CSV unless it ends in .npy. Standard output for None.
        classes: names of the classes, for CSV; None for numbers.

    Raises:
        OutputError: it cannot be written.
        typer.Exit: nobody reads standard output any more; the code is that of SIGPIPE, 141.
    """
    with _standard_output() if path is None else replacing(path) as file:
        if path is not None and path.suffix.lower() == ".npy":
            numbers = NpyOutput(file)
            yield numbers
            numbers.finish()
        else:
            text = TextIOWrapper(file, encoding="utf-8", newline="")
            try:
                yield CsvOutput(text, classes)
            finally:
                text.detach()


def check_output(path: Path | None, inputs: Sequence[str | Path]) -> None:
    """Raise if predictions would replace what they are made from, or their name lies.

    Raises:
        ArgumentError: the file is one of `inputs`, or named like an archive of arrays.
    """
    if path is None:
        return
    if path.suffix.lower() == ".npz":
        raise ArgumentError(f"got --out {path}; expected a name that ends in .csv or .npy")
    for name in inputs:
        if path.exists() and os.path.exists(name) and os.path.samefile(path, name):
            raise ArgumentError(
                f"got --out {path}, which is what to predict from or with; expected another file"
            )


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        # What is left in the buffer goes nowhere, instead of failing again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(141) from None
        raise OutputError(
            f"got standard output, which cannot be written ({error.strerror}); expected room for "
            "the predictions: make room, or name a file with --out"
        ) from error
