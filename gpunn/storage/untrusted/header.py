"""Read the header of a safetensors file and check it before memory for arrays is allocated."""

from __future__ import annotations

from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gpunn.storage.untrusted.bounded_json import Limits, from_json, shown
from gpunn.typing import Shape

MAX_AXES = 32
MAX_BYTES = 2**62  # the largest array, so that no product of its sizes overflows
DTYPES = {
    **{name: np.dtype(f"<{name.lower()[0]}{int(name[1:]) // 8}") for name in ("F16", "F32", "F64")},
    **{f"{k}{n}": np.dtype(f"<{k.lower()}{n // 8}") for k in "IU" for n in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
}
"""The dtypes of safetensors that NumPy has."""


class Place(NamedTuple):
    """The place of an array in a file.

    Attributes:
        shape: the shape of the array.
        dtype: the dtype of the array.
        start: the position of its first byte, counted from the end of the header.
        end: the position behind its last byte.
    """

    shape: Shape
    dtype: np.dtype[Any]
    start: int
    end: int


def read_header(
    file: BinaryIO, length: int, limits: Limits
) -> tuple[dict[str, str], dict[str, Place], int]:
    """Read and check the header of an open file.

    Args:
        file: the file, at its start.
        length: its length in bytes.
        limits: the limits of the header.

    Returns:
        The metadata, the place of each array, and the length of the header in bytes.

    Raises:
        ValueError: the file is not a whole safetensors file; the message says why.
    """
    start = file.read(8)
    if len(start) < 8:
        raise ValueError(f"it has {length} bytes")
    size = int.from_bytes(start, "little")
    if size > length - 8 and (
        start[:4] == b"PK\x03\x04" or (start[0] == 0x80 and 2 <= start[1] <= 5)
    ):
        raise ValueError("it looks like a pickle or a .pt file, which may contain code")
    if size > length - 8:
        raise ValueError(f"its header should have {size} bytes, but only {length - 8} are there")
    if size > limits.header_bytes:
        raise ValueError(f"its header has {size} bytes, more than {limits.header_bytes}")
    text = file.read(size)
    if len(text) < size:
        raise ValueError("it became shorter while it was read")
    header = from_json(text, limits)
    del text
    if not isinstance(header, dict):
        raise ValueError(f"its header is {shown(header)}, not an object")
    metadata = _texts(header.pop("__metadata__", {}))
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for name, place in sorted(places.items(), key=lambda p: p[1][2:]):
        if place.start != end:
            raise ValueError(f"the bytes of {shown(name)} overlap other arrays or leave a gap")
        end = place.end
    if 8 + size + end != length:
        raise ValueError(f"its arrays should end at byte {8 + size + end}, but it ends at {length}")
    return metadata, places, 8 + size


def _texts(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"its metadata are {shown(metadata)}, not strings by name")
    return metadata


def _place(name: str, entry: Any) -> Place:
    """Read the place of an array from its entry in the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} has {shown(entry)}, not a dtype, a shape and offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"{shown(name)} has dtype {shown(code)}, not one of {', '.join(DTYPES)}")
    for numbers, most in ((shape, MAX_AXES), (offsets, 2)):
        whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        if not whole or len(numbers) > most:
            raise ValueError(f"{shown(name)} has {shown(numbers)}, not a list of sizes")
    dtype = DTYPES[code]
    if len(offsets) != 2 or prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"{shown(name)} has {code}, {shown(shape)} in bytes {shown(offsets)}")
    if prod(max(n, 1) for n in shape) * dtype.itemsize > MAX_BYTES:
        raise ValueError(f"{shown(name)} has shape {shown(shape)}, which is too large")
    return Place(tuple(shape), dtype, offsets[0], offsets[1])
