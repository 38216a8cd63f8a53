"""How a text file of rows is written: its encoding, and the character between two cells."""

from __future__ import annotations

import csv
import gzip
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from gpunn.errors import ArgumentError

SAMPLE = 1 << 16  # bytes that are looked at
DELIMITERS = (",", ";", "\t", "|")
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Dialect:
    """How a text file of rows is written.

    Attributes:
        encoding: the encoding of the text.
        delimiter: the character between two cells.
    """

    encoding: str = "utf-8-sig"
    delimiter: str = ","


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


def recognised(sample: bytes, delimiter: str | None = None) -> Dialect:
    """Recognise how a file is written from its first bytes.

    Args:
        sample: the first bytes of the file.
        delimiter: the character between two cells, if it is known.
    """
    encoding = _encoding(sample)
    if delimiter is not None:
        return Dialect(encoding, check_delimiter(delimiter))
    text = sample.decode(encoding, "replace")
    lines = text.splitlines()[:200]
    if len(lines) > 1 and not text.endswith(("\n", "\r")):
        lines.pop()  # the sample may end in the middle of a row
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    return Dialect(encoding, max(DELIMITERS, key=lambda each: _evidence(lines, each)))


def _encoding(sample: bytes) -> str:
    if sample.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "utf-16"
    if sample.startswith(BOM_UTF8):
        return "utf-8-sig"
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


def unpacked(source: Path | BinaryIO) -> tuple[Any, bytes]:
    """Open a file, unpacking one that gzip has packed, and look at its first bytes.

    Returns:
        The file, opened for bytes, and its first bytes, which are still to be read.
    """
    raw: Any = source.open("rb", SAMPLE) if isinstance(source, Path) else source
    file = raw if hasattr(raw, "peek") else BufferedReader(raw)
    sample = file.peek(SAMPLE)
    if sample.startswith(GZIP):
        file = gzip.GzipFile(fileobj=file)
        sample = file.peek(SAMPLE)
    return file, sample[:SAMPLE]
