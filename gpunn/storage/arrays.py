"""Files of named arrays, in the format safetensors; `docs/files.md` has it byte by byte.

Arrays are read one by one, when they are asked for. No pickle, no eval, no memory map: a file that
shrinks while it is read is an error, not a signal.
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
                f"got {self._path} with an array of {self.dtype} {self.shape}, for which there is "
                "no room; expected one that fits: use a machine with more memory"
            ) from error
        content = array.reshape(-1).view(np.uint8).data
        self._file.seek(self._start)
        while content:
            count = self._file.readinto(content)  # type: ignore[attr-defined]
            if not count:
                raise _not_whole(self._path, "it became shorter while it was read")
            content = content[count:]
        if self.dtype == bool and (array.view(np.uint8) > 1).any():
            raise _not_whole(self._path, "it has truth values other than 0 and 1")
        return array if dtype is None else array.astype(dtype, copy=False)


class ArrayFile(dict[str, StoredArray]):
    """Name -> array of an open safetensors file; nothing but the header has been read.

    Attributes:
        metadata: the texts in the header.
    """

    def __init__(
        self, file: BinaryIO, metadata: dict[str, str], arrays: dict[str, StoredArray]
    ) -> None:
        super().__init__(arrays)
        self._file, self.metadata = file, metadata

    def sha256(self) -> str:
        """The checksum of the whole file."""
        checksum = hashlib.sha256()
        self._file.seek(0)
        while part := self._file.read(2**16):
            checksum.update(part)
        return checksum.hexdigest()


@contextmanager
def open_arrays(path: Path, limits: Limits = MODEL, *, follow: bool = True) -> Iterator[ArrayFile]:
    """A safetensors file whose header holds what it promises.

    Raises:
        ModelFileError: it cannot be read, or is not whole.
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
        f"got {path}, which cannot be read ({why}); expected a whole file of safetensors: check "
        "the path, or copy the file again"
    )


def pack(
    tensors: Mapping[str, np.ndarray[Any, Any]],
    metadata: Mapping[str, str] | None = None,
    limits: Limits = MODEL,
) -> bytes:
    """The content of a safetensors file.

    Arrays of large elements come first, so every array starts at a multiple of its element's size.

    Args:
        tensors: the arrays by name.
        metadata: texts for the header.
        limits: what is read again.

    Raises:
        ArgumentError: a dtype that the format does not have; a header that is longer, or has more
            arrays, than what is read again.
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
            raise ValueError(f"{len(text)} bytes, over {limits.header_bytes}")
        from_json(text, limits)
    except ValueError as error:
        raise ArgumentError(
            f"got a header to write that would not be read again ({error}); expected a shorter "
            "one: leave something out of info, or join layers"
        ) from error
    contents = [arrays[name].reshape(-1).view(np.uint8).data for name in order]
    return b"".join([len(text).to_bytes(8, "little"), text, *contents])


def _plain(name: str, array: Any) -> np.ndarray[Any, Any]:
    """The array as its bytes are written: in C order, little-endian."""
    found = np.asarray(array)
    dtype = found.dtype.newbyteorder("<")
    if dtype not in CODES:
        raise ArgumentError(
            f"got {name} of dtype {found.dtype} to write; expected one of "
            f"{', '.join(str(dtype) for dtype in CODES)}: convert it with astype"
        )
    return np.asarray(found, dtype, order="C")
