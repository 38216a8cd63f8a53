"""Files of named arrays in the safetensors format, which `docs/files.md` describes byte by byte.

Each array is read when it is asked for. Reading uses no pickle, no eval and no memory map. If a
file shrinks while it is read, reading raises an error; with a memory map it would end the process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpunn.errors import ArgumentError, ModelFileError, OutOfMemoryError
from gpunn.storage.untrusted.bounded_json import MODEL, Limits, from_json
from gpunn.storage.untrusted.header import DTYPES, read_header
from gpunn.storage.untrusted.regular_file import opened
from gpunn.typing import DType, Shape

CODES = {dtype: code for code, dtype in DTYPES.items()}


class StoredArray:
    """An array in an open file; `numpy.asarray` reads it.

    Attributes:
        shape: its shape.
        dtype: its dtype.
    """

    def __init__(self, file: BinaryIO, path: Path, start: int, shape: Shape, dtype: DType) -> None:
        self._file, self._path, self._start = file, path, start
        self.shape, self.dtype = shape, np.dtype(dtype)

    def __array__(self, dtype: DType = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        try:
            array = np.empty(self.shape, self.dtype)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"got {self._path} with an array of {self.dtype} {self.shape}, which does not fit "
                "into memory; expected one that fits: use a machine with more memory"
            ) from error
        content = array.reshape(-1).view(np.uint8).data
        self._file.seek(self._start)
        while content:
            count = self._file.readinto(content)  # type: ignore[attr-defined]
            if not count:
                raise _not_whole(self._path, "it became shorter while it was read")
            content = content[count:]
        if self.dtype == bool and (array.view(np.uint8) > 1).any():
            raise _not_whole(self._path, "it has booleans other than 0 and 1")
        return array if dtype is None else array.astype(dtype, copy=False)


class ArrayFile(dict[str, StoredArray]):
    """The arrays of an open safetensors file by name, of which only the header has been read.

    Attributes:
        metadata: the strings in the header, by name.
    """

    def __init__(
        self, file: BinaryIO, metadata: dict[str, str], arrays: dict[str, StoredArray]
    ) -> None:
        super().__init__(arrays)
        self._file, self.metadata = file, metadata

    def sha256(self) -> str:
        """Return the SHA-256 checksum of the whole file, in hexadecimal."""
        checksum = hashlib.sha256()
        self._file.seek(0)
        while part := self._file.read(2**16):
            checksum.update(part)
        return checksum.hexdigest()


@contextmanager
def open_arrays(path: Path, limits: Limits = MODEL, *, follow: bool = True) -> Iterator[ArrayFile]:
    """Open a safetensors file inside the block, after checking its header.

    Raises:
        ModelFileError: the file cannot be read, or is not whole.
    """
    with opened(path, follow=follow) as (file, length):
        try:
            metadata, places, start = read_header(file, length, limits)
        except ValueError as error:
            raise _not_whole(path, error) from error
        arrays = {
            name: StoredArray(file, path, start + place.start, place.shape, place.dtype)
            for name, place in places.items()
        }
        yield ArrayFile(file, metadata, arrays)


def _not_whole(path: Path, why: object) -> ModelFileError:
    return ModelFileError(
        f"got {path}, which cannot be read ({why}); expected a whole safetensors file: check the "
        "path, or copy the file again"
    )


def pack(
    tensors: Mapping[str, np.ndarray[Any, Any]],
    metadata: Mapping[str, str] | None = None,
    limits: Limits = MODEL,
) -> bytes:
    """Return the content of a safetensors file.

    Arrays with large elements come first, so every array starts at a multiple of its item size.

    Args:
        tensors: the arrays by name.
        metadata: strings for the header, by name.
        limits: the limits with which the file will be read.

    Raises:
        ArgumentError: the format does not have the dtype of an array, or the header exceeds the
            limits.
    """
    arrays = {name: _plain(name, array) for name, array in tensors.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    for name in order:
        array, start = arrays[name], end
        end += array.nbytes
        entry = {"dtype": CODES[array.dtype], "shape": array.shape, "data_offsets": (start, end)}
        header[name] = entry
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        if len(text) > limits.header_bytes:
            raise ValueError(f"{len(text)} bytes, more than {limits.header_bytes}")
        from_json(text, limits)
    except ValueError as error:
        raise ArgumentError(
            f"got a header that could not be read again ({error}); expected a shorter one: leave "
            "something out of info, or join layers"
        ) from error
    contents = [arrays[name].reshape(-1).view(np.uint8).data for name in order]
    return b"".join([len(text).to_bytes(8, "little"), text, *contents])


def _plain(name: str, array: Any) -> np.ndarray[Any, Any]:
    """Return the array in C order and little-endian, as it is written."""
    found = np.asarray(array)
    dtype = found.dtype.newbyteorder("<")
    if dtype not in CODES:
        raise ArgumentError(
            f"got {name} of dtype {found.dtype} to write; expected one of "
            f"{', '.join(str(dtype) for dtype in CODES)}: convert it with astype"
        )
    return np.asarray(found, dtype, order="C")
