"""Read JSON from files within limits. Its size and its depth are measured before it is parsed.

These are refused: duplicate names, numbers beyond the range of floats, NaN and infinity (unless
the caller allows them), and nesting so deep that it could exceed Python's recursion limit.
"""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from reprlib import Repr
from typing import Any, NamedTuple

import numpy as np

from gpunn.errors import ArgumentError, ModelFileError
from gpunn.storage.untrusted.regular_file import opened

BLOCK = 2**18  # the number of bytes or characters that are measured at a time
MAX_DEPTH = 128  # enough for 42 nested containers, and far below Python's recursion limit

_repr = Repr()
_repr.maxstring = _repr.maxother = 60
shown = _repr.repr  # formats a value from a file for a message, without control characters


def shortened(text: object) -> str:
    """Return the text of another error, shortened to 400 characters."""
    words = str(text)
    return words if len(words) <= 400 else f"{words[:200]} ... {words[-200:]}"


class Limits(NamedTuple):
    """The limits for reading a file of unknown content.

    They bound the memory that a malicious header can take: at most twice the size of the file, and
    128 bytes for each value. Names take the most memory, so each counts as three more values.

    Attributes:
        header_bytes: the largest length of a header, or of a JSON file.
        values: the largest sum of the number of brackets, the number of commas and three times the
            number of colons in the JSON.
    """

    header_bytes: int
    values: int


MANIFEST = Limits(2**20, 2**14)
MODEL = Limits(2**22, 2**18)
CHECKPOINT = Limits(2**25, 2**21)  # enough for five curves over 300,000 epochs


def from_json(text: bytes | str, limits: Limits = MODEL, *, finite: bool = True) -> Any:
    """Parse JSON after measuring it.

    Args:
        text: the JSON; bytes are UTF-8.
        limits: the largest number of values.
        finite: whether to refuse NaN and infinity, which JSON does not have but Python writes.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or has too many values, a duplicate
            name, or a number beyond the range of floats.
    """
    _measure(text, limits)
    try:
        return json.loads(
            text if isinstance(text, str) else text.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_finite if finite else float,
            parse_constant=_finite if finite else float,
        )
    except RecursionError as error:  # the caller is nested deeply already
        raise ValueError("JSON that is nested too deeply") from error


def to_json(value: Any, what: str, limits: Limits = MODEL, *, finite: bool = True) -> str:
    """Return the JSON of a value, and check that `from_json` can read it.

    Raises:
        ArgumentError: JSON cannot hold the value, or `from_json` would refuse it.
    """
    try:
        text = json.dumps(value)
        from_json(text, limits, finite=finite)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(
            f"got {what} that cannot be written as JSON ({error}); expected numbers, strings, "
            "lists and dicts: convert it, or leave something out"
        ) from error
    return text


def read_json(path: Path, limits: Limits = MANIFEST) -> Any:
    """Return the value in a JSON file. Links are refused.

    Raises:
        ModelFileError: the file cannot be read, is too large, or holds no JSON.
    """
    with opened(path, follow=False) as (file, length):
        try:
            if length > limits.header_bytes:
                raise ValueError(f"it has {length} bytes, more than {limits.header_bytes}")
            return from_json(file.read(length), limits)
        except ValueError as error:
            raise ModelFileError(
                f"got {path}, which holds no acceptable JSON ({error}); expected a file that gpunn "
                "wrote: copy the file again"
            ) from error


def _measure(text: bytes | str, limits: Limits) -> None:
    """Count the values and the depth of JSON block by block, without building objects."""
    start = odd = count = depth = 0
    while start < len(text):
        block = text[start : start + BLOCK]
        content = block.encode() if isinstance(block, str) else block
        if (len(content) - len(content.rstrip(b"\\"))) % 2:  # do not split an escape sequence
            block = text[start : start + BLOCK + 1]
            content = block.encode() if isinstance(block, str) else block
        start += len(block)
        code = np.frombuffer(content.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
        inside = np.cumsum(code == ord('"'), dtype=np.uint8) + np.uint8(odd)  # wraps at an even 256
        code = code[inside & 1 == 0] | 0x20  # turns [ into { and ] into }
        odd = int(inside[-1] & 1) if len(inside) else odd
        marks = code[(code == ord("{")) | (code == ord("}"))]
        commas, colons = (int(np.count_nonzero(code == ord(mark))) for mark in ",:")
        count += len(marks) + commas + 3 * colons
        if count > limits.values:
            raise ValueError(f"JSON of {count} values or more, above the limit of {limits.values}")
        depths = depth + np.cumsum((marks == ord("{")).astype(np.int32) * 2 - 1)
        if depths.max(initial=0) > MAX_DEPTH:
            raise ValueError(f"JSON that is nested more than {MAX_DEPTH} deep")
        depth = int(depths[-1]) if len(depths) else depth


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, _ in pairs:
            if name not in found:  # its first occurrence was deleted below
                raise ValueError(f"a JSON object with the name {shown(name)} twice")
            del found[name]
    return found


def _integer(text: str) -> int:
    if len(text) > 4300:  # as in Python 3.11, because the time grows with the square of the length
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"the number {shown(text)}, which is not finite")
    return number
