"""Files of named arrays (safetensors) and of JSON: read within bounds, written whole or not at all.

What is read may come from anyone. Only regular files are opened. A header is measured before it is
parsed, and checked before an array takes memory; arrays are read one by one, where they are asked
for. No pickle, no eval, no memory map: a file that shrinks while it is read is an error, not a
signal. `docs/files.md` has the format byte by byte.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpunn.errors import (
    ArgumentError,
    GpunnError,
    ModelFileError,
    OutOfMemoryError,
    OutputError,
)
from gpunn.storage.bounded_json import MANIFEST, MODEL, Limits, from_json, shown
from gpunn.typing import DType, Shape

MAX_AXES = 32
MAX_BYTES = 2**62  # of one array, so that no product of its sizes overflows
DTYPES = {
    **{name: np.dtype(f"<{name.lower()[0]}{int(name[1:]) // 8}") for name in ("F16", "F32", "F64")},
    **{f"{k}{n}": np.dtype(f"<{k.lower()}{n // 8}") for k in "IU" for n in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
}
"""The dtypes of safetensors that NumPy has."""


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

    def __init__(self, file: BinaryIO, metadata: dict[str, str]) -> None:
        super().__init__()
        self._file, self.metadata = file, metadata

    def sha256(self) -> str:
        """The checksum of the whole file."""
        checksum = hashlib.sha256()
        self._file.seek(0)
        while part := self._file.read(2**16):
            checksum.update(part)
        return checksum.hexdigest()


@contextmanager
def opened(path: Path, *, follow: bool = True) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file to read from, and its length in bytes.

    Args:
        path: the file.
        follow: whether it may be a symbolic link.

    Raises:
        ModelFileError: no such file, or a folder, a device, a pipe: nothing is waited for.
    """
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer opens at once
        | getattr(os, "O_NOCTTY", 0)
        | getattr(os, "O_BINARY", 0)
        | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    )
    try:
        if not follow and os.path.islink(path):
            raise OSError("it is a symbolic link, which gpunn does not write")
        handle = os.open(path, flags)
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            os.close(handle)
            raise OSError("it is a folder, a device or a pipe")
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"got {path}, which cannot be read ({error}); expected a regular file: check the path"
        ) from error
    with os.fdopen(handle, "rb", buffering=0) as file:
        yield file, about.st_size


@contextmanager
def open_arrays(path: Path, limits: Limits = MODEL, *, follow: bool = True) -> Iterator[ArrayFile]:
    """A safetensors file whose header holds what it promises.

    Raises:
        ModelFileError: it cannot be read, or is not whole.
    """
    with opened(path, follow=follow) as (file, length):
        yield _read_header(file, length, path, limits)


def unpack(
    path: Path, limits: Limits = MODEL
) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    """Metadata and arrays of a safetensors file, all of them.

    Raises:
        ModelFileError: it cannot be read, or is not whole.
    """
    with open_arrays(path, limits) as file:
        return file.metadata, {name: np.asarray(array) for name, array in file.items()}


def _not_whole(path: Path, why: object) -> ModelFileError:
    return ModelFileError(
        f"got {path}, which cannot be read ({why}); expected a whole file of safetensors: check "
        "the path, or copy the file again"
    )


def _read_header(file: BinaryIO, length: int, path: Path, limits: Limits) -> ArrayFile:
    start = file.read(8)
    if len(start) < 8:
        raise _not_whole(path, f"it has {length} bytes")
    size = int.from_bytes(start, "little")
    if size > length - 8 and (
        start[:4] == b"PK\x03\x04" or (start[0] == 0x80 and 2 <= start[1] <= 5)
    ):
        raise _not_whole(path, "it looks like a pickle or a .pt file, which may hold any code")
    if size > length - 8:
        raise _not_whole(path, f"its header should have {size} bytes, and {length - 8} are there")
    if size > limits.header_bytes:
        raise _not_whole(path, f"its header has {size} bytes, over {limits.header_bytes}")
    try:
        text = file.read(size)
        if len(text) < size:
            raise ValueError("it became shorter while it was read")
        header = from_json(text, limits)
        del text
        if not isinstance(header, dict):
            raise ValueError(f"its header is {shown(header)}, not an object")
        found = ArrayFile(file, _texts(header.pop("__metadata__", {})))
        end = 8 + size
        places = {name: _place(name, entry) for name, entry in header.items()}
        for name, (shape, dtype, first, last) in sorted(places.items(), key=lambda p: p[1][2:]):
            if first != end - 8 - size:
                raise ValueError(f"the bytes of {shown(name)} overlap others, or leave a gap")
            found[name] = StoredArray(file, path, end, shape, dtype)
            end += last - first
        if end != length:
            raise ValueError(f"its arrays should end at byte {end}, and it ends at {length}")
    except ValueError as error:
        raise _not_whole(path, error) from error
    return found


def _texts(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"its metadata are {shown(metadata)}, not texts by name")
    return metadata


def _place(name: str, entry: Any) -> tuple[Shape, np.dtype[Any], int, int]:
    """Shape, dtype, first byte and end of an array, as its header has them."""
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
        raise ValueError(f"{shown(name)} has shape {shown(shape)}, which is beyond any machine")
    return tuple(shape), dtype, offsets[0], offsets[1]


def listed(names: Collection[str]) -> str:
    """Names in a message: the first ten, in order, and how many there are more."""
    few = [
        name if len(name) < 60 and name.isprintable() else shown(name)
        for name in sorted(names)[:10]
    ]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(few) + more or "none"


def check_state(
    found: Mapping[str, Any], expected: Mapping[str, Any], *, what: str = "a state", exact: bool
) -> None:
    """Be sure that arrays are those of a model or an optimizer, before any of them is read.

    Args:
        found: name -> array, or what has a shape and a dtype.
        expected: likewise.
        what: for the message.
        exact: whether the dtypes must be the same; else real numbers do.

    Raises:
        ModelFileError: names are missing or left over; a shape or a dtype differs.
    """
    if found.keys() != expected.keys():
        missing, unknown = expected.keys() - found.keys(), found.keys() - expected.keys()
        raise ModelFileError(
            f"got {what} of other names (missing: {listed(missing)}; unknown: {listed(unknown)}); "
            "expected those of this model: build the model that was saved"
        )
    for name, value in expected.items():
        shape, dtype = getattr(found[name], "shape", None), getattr(found[name], "dtype", None)
        if shape is None or tuple(shape) != tuple(value.shape):
            raise ModelFileError(
                f"got {what} with {name} of shape {shape}; expected {tuple(value.shape)}: build "
                "the model that was saved"
            )
        real = getattr(dtype, "kind", "-") in "fiu" or getattr(dtype, "name", "") == "bfloat16"
        same = dtype == value.dtype if exact else real
        if not same:
            raise ModelFileError(
                f"got {what} with {name} of dtype {dtype}; expected "
                f"{value.dtype if exact else 'real numbers'}: build the model that was saved, or "
                "convert with astype"
            )


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


# writing ---------------------------------------------------------------------------------------


def pack(
    tensors: Mapping[str, np.ndarray[Any, Any]],
    header: dict[str, str] | None = None,
    limits: Limits = MODEL,
) -> bytes:
    """The content of a safetensors file with `header` as its metadata.

    Raises:
        ArgumentError: the header is longer, or has more arrays, than what is read again.
    """
    from safetensors.numpy import save as to_bytes

    # only the bytes of contiguous arrays are in the order of their shapes
    whole = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    content: bytes = to_bytes(whole, metadata=header)
    size = int.from_bytes(content[:8], "little")
    try:
        if size > limits.header_bytes:
            raise ValueError(f"{size} bytes, over {limits.header_bytes}")
        from_json(content[8 : 8 + size], limits)
    except ValueError as error:
        raise ArgumentError(
            f"got a header to write that would not be read again ({error}); expected a shorter "
            "one: leave something out of info, or join layers"
        ) from error
    return content


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file whose content takes the place of `path` when the block ends, and not before.

    It is written beside its place, synced and renamed, so at any moment either the old or the new
    content is whole, and a block that raises leaves nothing behind. A link stays a link: its target
    is replaced. What is no regular file (a pipe, /dev/null) is written to as it is.

    Raises:
        OutputError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with beside.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
            _sync_folder(target.parent)
        finally:
            with suppress(OSError):  # the first error is the one to tell
                beside.unlink(missing_ok=True)
    except GpunnError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"got {path} to write, and it cannot be written in {target.parent} ({reason}); expected"
            " a folder that can be written and has room: make room, or choose another place"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make names in a folder survive a crash of the machine, where the system can."""
    if os.name == "posix":
        with suppress(OSError):  # a folder that must not be read, or a file system that cannot
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content is whole.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(content)
