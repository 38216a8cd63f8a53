"""Read NPY files and the arrays of NPZ files, as a whole or block by block."""

from __future__ import annotations

import os
import struct
import tempfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from gpunn.data.payload import CHUNK_BYTES, read_payload
from gpunn.errors import DataError, GpunnError, OutputError, listed

READ_ERRORS = (  # the errors of zipfile, zlib and NumPy for broken, foreign and encrypted files
    OSError,
    EOFError,
    ValueError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    LookupError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
MAX_REASON = 200  # characters, because NumPy quotes a whole broken header
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the methods that NumPy writes


class StoredArray:
    """An array in a file, of which only the header has been read.

    Arrays of Python objects are refused, because loading them could run code.

    Args:
        file: the open file, at the beginning of the array.
        size: the size in bytes of the file, or of the member of an archive.
        name: the name of the array in messages.

    Attributes:
        shape: the shape in the header.
        dtype: the dtype of the numbers in the file, in their byte order.
        fortran: whether the first index varies fastest.

    Raises:
        DataError: the header is broken, does not fit the number of bytes, or asks for Python
            objects.
    """

    def __init__(self, file: IO[bytes], size: int, name: str) -> None:
        self.file, self.name = file, name
        with reading(name):
            self.shape, fortran, self.dtype = _header(file)
            self.fortran = fortran and len(self.shape) > 1
            self.start = file.tell()
        if self.dtype.hasobject or self.dtype.names or self.dtype.subdtype:
            raise DataError(
                f"got {name} of dtype {self.dtype}; expected plain arrays of numbers or text: "
                "convert it before np.save or np.savez (objects are never unpickled)"
            )
        self.size_bytes = prod(self.shape) * self.dtype.itemsize
        if min(self.shape, default=0) < 0 or self.start + self.size_bytes != size:
            raise DataError(
                f"got {name} with {size - self.start} bytes of data; expected {self.size_bytes} "
                f"for shape {self.shape} of {self.dtype}: it is truncated or was changed, so write "
                "it again"
            )

    def whole(self) -> np.ndarray[Any, Any]:
        """Read the whole array, in the byte order of the machine.

        Raises:
            DataError: the data are broken.
        """
        with reading(self.name):
            order = "F" if self.fortran else "C"
            flat = _decoded(_bytes(self.file, self.size_bytes), self.dtype)
            return flat.reshape(self.shape, order=order)  # type: ignore[call-overload,no-any-return]

    def blocks(self, rows: int) -> Iterator[np.ndarray[Any, Any]]:
        """Yield blocks of `rows` rows, with fewer in the last block.

        Raises:
            DataError: the data are broken.
            OutputError: the array is in Fortran order in an archive, which needs a temporary copy
                on disk, and the copy cannot be written.
        """
        with ExitStack() as stack:
            file = self.file
            if self.fortran and isinstance(file, zipfile.ZipExtFile):
                # Columns need seeks, and a compressed member can only be read front to back.
                file = stack.enter_context(self._copied())
            for first in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - first)
                with reading(self.name):
                    read = self._columns if self.fortran else self._rows
                    block = read(file, first, count)
                yield block

    def _rows(self, file: IO[bytes], first: int, count: int) -> np.ndarray[Any, Any]:
        tail = self.shape[1:]
        payload = _bytes(file, count * prod(tail) * self.dtype.itemsize)
        return _decoded(payload, self.dtype).reshape(count, *tail)

    def _columns(self, file: IO[bytes], first: int, count: int) -> np.ndarray[Any, Any]:
        """Read rows of an array in Fortran order, column by column."""
        total, tail = self.shape[0], self.shape[1:]
        payload = bytearray()
        for column in range(prod(tail)):
            file.seek(self.start + (column * total + first) * self.dtype.itemsize)
            payload += _bytes(file, count * self.dtype.itemsize)
        flat = _decoded(payload, self.dtype).reshape(-1, count)  # (columns, count)
        return flat.T.reshape((count, *tail), order="F")

    @contextmanager
    def _copied(self) -> Iterator[IO[bytes]]:
        """Unpack the file to a temporary file inside the block, at the same positions."""
        with tempfile.TemporaryFile() as copy:
            try:
                copy.seek(self.start)
                while chunk := self._chunk():
                    copy.write(chunk)
                copy.flush()
            except GpunnError:
                raise
            except OSError as error:
                raise OutputError(
                    f"got {self.name} in Fortran order; its copy in {tempfile.gettempdir()} cannot "
                    f"be written ({error.strerror}): make room, set TMPDIR, or write the array in "
                    "C order"
                ) from error
            yield copy

    def _chunk(self) -> bytes:
        with reading(self.name):
            return self.file.read(CHUNK_BYTES)


@contextmanager
def open_npy(path: Path) -> Iterator[StoredArray]:
    """Open the array of an NPY file inside the block.

    Raises:
        DataError: the file is missing or broken.
    """
    with ExitStack() as stack:
        with reading(path):
            file = stack.enter_context(path.open("rb"))
            size = os.fstat(file.fileno()).st_size
        yield StoredArray(file, size, str(path))


class Archive:
    """An open NPZ file, whose arrays are read when they are asked for.

    Attributes:
        names: the names of the arrays.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, stack: ExitStack) -> None:
        self.path, self._archive, self._stack = path, archive, stack
        self._members = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        self.names = tuple(self._members)

    def open(self, name: str) -> StoredArray:
        """Open one of the arrays, to be read as a whole or in blocks.

        Raises:
            DataError: the array is broken, or compressed by a method that NumPy does not use.
        """
        info, where = self._members[name], f"array {name} of {self.path}"
        if info.compress_type not in PACKINGS:  # others may allocate what a header asks
            raise DataError(
                f"got {where}, compressed by method {info.compress_type}; expected a method of "
                "np.savez or np.savez_compressed: write it again with one of them"
            )
        with reading(where):
            file = self._stack.enter_context(self._archive.open(info))
        return StoredArray(file, info.file_size, where)


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """Open an NPZ file inside the block.

    Raises:
        DataError: the file is missing or broken.
    """
    with ExitStack() as stack:
        with reading(path):
            archive = Archive(path, stack.enter_context(zipfile.ZipFile(path)), stack)
        yield archive


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Convert the errors that libraries raise for a broken file into a `DataError`."""
    try:
        yield
    except GpunnError:
        raise
    except READ_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) else None
        reason = reason or str(error)[:MAX_REASON] or type(error).__name__
        raise DataError(
            f"got {name}, which cannot be read ({reason}); "
            "expected a whole file of plain arrays: write it with np.save or np.savez(path, x=x, "
            "y=y)"
        ) from error


def choose_x(path: Path, names: Sequence[str], *, labelled: bool = False) -> str:
    """Return the name of the examples in an archive, x or X.

    Raises:
        DataError: the archive has neither or both, or no y although it must be `labelled`.
    """
    found = [name for name in ("x", "X") if name in names]
    if len(found) != 1 or (labelled and "y" not in names):
        raise DataError(
            f"got {path} with arrays {listed(sorted(names)) or '(none)'}; expected x (or X)"
            f"{' and y' * labelled}: write it with np.savez(path, x=x, y=y)"
        )
    return found[0]


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the shape, whether the array is in Fortran order, and the dtype."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"it has the unknown format version {version}")
    # Version 3 differs from 2 only in the names of fields, and arrays with fields are refused.
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about headers of Python 2 and foreign ones
        return read(file)


def _bytes(file: IO[bytes], size: int) -> bytearray:
    payload = read_payload(file, size)
    if len(payload) != size:
        raise EOFError(f"it ends {size - len(payload)} bytes too early")
    return payload


def _decoded(payload: bytearray, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return bytes as numbers in the byte order of the machine."""
    values = np.frombuffer(payload, dtype)
    return values.astype(dtype.newbyteorder("="), copy=False)
