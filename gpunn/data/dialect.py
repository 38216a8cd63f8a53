"""The format of a text file of rows: its encoding, and the character between two cells."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from gpunn.errors import ArgumentError

SAMPLE = 1 << 16  # bytes that are looked at
DELIMITERS = (",", ";", "\t", "|")
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Dialect:
    r"""The format of a text file of rows. An entry of None is recognised.

    Attributes:
        encoding: the encoding of the text.
        delimiter: the character between two cells; the text "\t" stands for a tab.
        header: whether the first row has the names of the columns.

    Raises:
        ArgumentError: the encoding is unknown, or the delimiter is not a usable character.
    """

    encoding: str | None = None
    delimiter: str | None = None
    header: bool | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", check_delimiter(self.delimiter))
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError as error:
            raise ArgumentError(
                f"got the encoding {self.encoding!r}; expected one that Python knows: use 'utf-8', "
                "'cp1252' or 'utf-16'"
            ) from error


def check_delimiter(delimiter: str) -> str:
    r"""Return a delimiter; the text "\t" stands for a tab.

    Raises:
        ArgumentError: the delimiter is not a usable character.
    """
    delimiter = "\t" if delimiter in ("\\t", "tab") else delimiter
    if len(delimiter) != 1 or delimiter in '\0\r\n"':
        raise ArgumentError(
            f"got the delimiter {delimiter!r}; expected one character between two cells: use "
            "',' or ';'"
        )
    return delimiter


def recognised(sample: bytes, told: Dialect) -> Dialect:
    """Recognise how a file is written from its first bytes.

    Args:
        sample: the first bytes of the file.
        told: what is known.
    """
    encoding = told.encoding or _encoding(sample)
    if told.delimiter is not None:
        return replace(told, encoding=encoding)
    text = sample.decode(encoding, "replace")
    lines = text.splitlines()[:200]
    if len(lines) > 1 and not text.endswith(("\n", "\r")):
        lines.pop()  # the sample may end in the middle of a row
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if lines and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:
        return replace(told, encoding=encoding, delimiter=check_delimiter(lines[0].strip()[4]))
    delimiter = max(DELIMITERS, key=lambda each: _evidence(lines, each))
    if not _evidence(lines, delimiter)[1] and _evidence(lines, " ")[0] == 1:
        delimiter = " "
    return replace(told, encoding=encoding, delimiter=delimiter)


def _encoding(sample: bytes) -> str:
    if sample.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    if sample.startswith(BOM_UTF8):
        return "utf-8-sig"
    for place, name in ((1, "utf-16-le"), (0, "utf-16-be")):  # without a mark
        if len(sample) > 3 and sample[place::2].count(0) > 0.9 * len(sample[place::2]):
            return name
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # the sample may end within a character
            return "cp1252"
    return "utf-8-sig"


def _evidence(lines: list[str], delimiter: str) -> tuple[float, int]:
    """Return the share of rows that have the most frequent width above 1, and that width."""
    try:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return 0.0, 0
    width, times = max(
        ((w, n) for w, n in widths.items() if w > 1), key=lambda pair: pair[1], default=(0, 0)
    )
    return times / max(1, sum(widths.values())), width


@contextmanager
def unpacked(source: Path | BinaryIO) -> Iterator[tuple[Any, bytes]]:
    """Open a file inside the block, unpacking one that gzip, bzip2 or xz has packed.

    Yields:
        The file, opened for bytes, and its first bytes, which are still to be read.
    """
    with ExitStack() as opened:
        raw: Any = source
        if isinstance(source, Path):
            raw = opened.enter_context(source.open("rb", SAMPLE))
        file = raw
        if not hasattr(raw, "peek"):
            file = BufferedReader(raw)
            opened.callback(file.detach)  # the caller's file stays open
        sample = file.peek(SAMPLE)
        if sample.startswith(GZIP):
            file = opened.enter_context(gzip.GzipFile(fileobj=file))
        elif sample.startswith(b"BZh"):
            file = opened.enter_context(bz2.BZ2File(file))
        elif sample.startswith(b"\xfd7zXZ\0"):
            file = opened.enter_context(lzma.LZMAFile(file))
        sample = file.peek(SAMPLE)
        yield file, sample[:SAMPLE]
