"""JSON in files, read within bounds: it is measured before it is parsed, and strict.

No name twice, no NaN where none is asked for, no number that no float is, no depth that a caller's
recursion would not survive.
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

BLOCK = 2**18  # bytes that are measured at a time
MAX_DEPTH = 128  # 42 containers inside each other, and far from Python's recursion limit

_repr = Repr()
_repr.maxstring = _repr.maxother = 60
shown = _repr.repr  # what a file holds, in a message: shortened, and without control characters


def shortened(text: object) -> str:
    """The words of another error, as far as a message has room for them."""
    words = str(text)
    return words if len(words) <= 400 else f"{words[:200]} ... {words[-200:]}"


class Limits(NamedTuple):
    """What is read at most before anything is known about a file.

    They bound what a header that is all malice costs: reading takes no more memory than twice the
    file and 128 bytes for each of these values (measured: names are the dearest, so each counts
    for three values more; then texts with a single wide character).

    Attributes:
        header_bytes: length of the header, or of a document that is a file of its own.
        values: how many brackets, commas and three times its colons the JSON may have.
    """

    header_bytes: int
    values: int


MANIFEST = Limits(2**20, 2**14)
MODEL = Limits(2**22, 2**18)
CHECKPOINT = Limits(2**25, 2**21)  # it has the curves: five of them over 300,000 epochs


def from_json(text: bytes | str, limits: Limits = MODEL, *, finite: bool = True) -> Any:
    """Parse JSON that is measured first.

    Args:
        text: the JSON, in UTF-8 where it is bytes.
        limits: how many values it may have.
        finite: refuse NaN and infinity, which JSON does not have but Python writes.

    Raises:
        ValueError: none, too deep, too many values, a name twice, a number beyond floats.
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
    except RecursionError as error:  # from a caller that is deep already
        raise ValueError("JSON that is nested too deeply") from error


def to_json(value: Any, what: str, limits: Limits = MODEL, *, finite: bool = True) -> str:
    """The JSON of a value, which `from_json` reads.

    Raises:
        ArgumentError: JSON cannot hold it, or it would not be read again.
    """
    try:
        text = json.dumps(value)
        from_json(text, limits, finite=finite)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(
            f"got {what} that cannot be written as JSON ({error}); expected numbers, texts, lists "
            "and dicts: convert it, or leave something out"
        ) from error
    return text


def read_json(path: Path, limits: Limits = MANIFEST) -> Any:
    """The value in a JSON file that is no link.

    Raises:
        ModelFileError: it cannot be read, is too large, or holds no JSON.
    """
    with opened(path, follow=False) as (file, length):
        try:
            if length > limits.header_bytes:
                raise ValueError(f"it has {length} bytes, over {limits.header_bytes}")
            return from_json(file.read(length), limits)
        except ValueError as error:
            raise ModelFileError(
                f"got {path}, which holds no JSON that is read here ({error}); expected what gpunn "
                "wrote: copy the file again"
            ) from error


def _measure(text: bytes | str, limits: Limits) -> None:
    """Count values and depth block by block, without building any."""
    start = odd = count = depth = 0
    while start < len(text):
        block = text[start : start + BLOCK]
        content = block.encode() if isinstance(block, str) else block
        if (len(content) - len(content.rstrip(b"\\"))) % 2:  # and not between \ and what it escapes
            block = text[start : start + BLOCK + 1]
            content = block.encode() if isinstance(block, str) else block
        start += len(block)
        code = np.frombuffer(content.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
        inside = np.cumsum(code == ord('"'), dtype=np.uint8) + np.uint8(odd)  # wraps at 256, evenly
        code = code[inside & 1 == 0] | 0x20  # of brackets: [ is { then, and ] is }
        odd = int(inside[-1] & 1) if len(inside) else odd
        marks = code[(code == ord("{")) | (code == ord("}"))]
        commas, colons = (int(np.count_nonzero(code == ord(mark))) for mark in ",:")
        count += len(marks) + commas + 3 * colons
        if count > limits.values:
            raise ValueError(f"JSON of {count} values and more, over {limits.values}")
        depths = depth + np.cumsum((marks == ord("{")).astype(np.int32) * 2 - 1)
        if depths.max(initial=0) > MAX_DEPTH:
            raise ValueError(f"JSON that is nested more than {MAX_DEPTH} deep")
        depth = int(depths[-1]) if len(depths) else depth


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for name, _ in pairs:
            if name not in found:  # the first of two took it away
                raise ValueError(f"the name {shown(name)} twice in one JSON object")
            del found[name]
    return found


def _integer(text: str) -> int:
    if len(text) > 4300:  # as Python 3.11: longer ones take time that grows with the square
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"the number {shown(text)}, which is not finite")
    return number
