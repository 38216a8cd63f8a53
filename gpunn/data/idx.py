"""Read and write IDX files, the format of MNIST: a header of sizes and then big-endian numbers.

Reference:
    LeCun, Cortes, Burges (1998), "The MNIST database of handwritten digits", section
    "The IDX file format".
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpunn.data.payload import read_payload
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.storage.atomic import write_atomically

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
DEFLATE_RATIO = 1032  # the highest ratio of deflate; zlib's technical details
MAX_DIMENSIONS = 32


def read_idx(path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    """Read an IDX file. Whether it is gzipped is detected from its content, not from its name.

    Memory grows with the bytes in the file, not with the size that the header claims.

    Args:
        path: the file.

    Returns:
        A writable array of the file's shape, in the machine's byte order: uint8, int8, int16,
        int32, float32 or float64.

    Raises:
        DataError: the file is missing, empty, of another format, truncated, too long or corrupt.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels-idx1-ubyte.gz"
        >>> write_idx(path, np.array([5, 0, 4], np.uint8))
        >>> read_idx(path)
        array([5, 0, 4], dtype=uint8)
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP_MAGIC
            file.seek(0)
            limit = os.fstat(file.fileno()).st_size * (DEFLATE_RATIO if zipped else 1)
            if not zipped:
                return _read(path, file, limit)
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read(path, unzipped, limit)
    except MemoryError as error:
        raise DataError(
            f"got {path}, which does not fit into memory; expected a smaller file: use a part of it"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"got {path}, a broken gzip file ({error}); expected a whole one: download it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"got {path}, which cannot be read ({error.strerror or error}); expected an IDX file: "
            "check the path"
        ) from error


def write_idx(path: str | os.PathLike[str], array: Any) -> None:
    """Write an array as an IDX file, gzipped if the name ends in .gz.

    The same array always gives the same bytes, because no time stamp is stored.

    Args:
        path: the file; an existing file is replaced as a whole.
        array: 1 to 32 dimensions; uint8, int8, int16, int32, float32 or float64.

    Raises:
        DTypeError: IDX does not have the dtype, for example int64.
        ShapeError: the array has no dimensions, too many, or a size of 2**32 or more.
        OutputError: the file cannot be written.
    """
    array = np.asarray(array)
    codes = {np.dtype(name).newbyteorder("="): code for code, name in DTYPES.items()}
    code = codes.get(array.dtype.newbyteorder("="))
    if code is None:
        raise DTypeError(
            f"got dtype {array.dtype}; expected one that IDX has ({', '.join(map(str, codes))}): "
            "convert with array.astype"
        )
    if not 1 <= array.ndim <= MAX_DIMENSIONS or max(array.shape) >= 2**32:
        raise ShapeError(
            f"got shape {array.shape}; expected 1 to {MAX_DIMENSIONS} sizes below 2**32: reshape it"
        )
    content = bytes((0, 0, code, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    content += array.astype(DTYPES[code]).tobytes()
    if Path(path).suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    write_atomically(Path(path), content)


def _read(path: Path, file: BinaryIO | gzip.GzipFile, limit: int) -> np.ndarray[Any, Any]:
    dtype, shape = _header(path, file)
    expected = prod(shape) * dtype.itemsize
    # If one size is 0 the array takes no bytes, but the other sizes may still be too large.
    if expected > limit or prod(max(size, 1) for size in shape) * dtype.itemsize > sys.maxsize:
        raise DataError(
            f"got {path}, whose header asks for shape {shape} of {dtype.name} ({expected} bytes); "
            f"expected at most the {limit} bytes that the file can hold: it is truncated or not an "
            "IDX file, so download it again"
        )
    # Reading one more byte detects a file that is too long, and makes gzip check its checksum.
    payload = read_payload(file, expected + 1)
    if len(payload) != expected:
        what = "truncated" if len(payload) < expected else "too long"
        found = f"{len(payload)}" if len(payload) < expected else f"more than {expected}"
        raise DataError(
            f"got {path} with {found} bytes of data; expected {expected} for shape {shape} of "
            f"{dtype.name}: the file is {what}, so download it again"
        )
    values = np.frombuffer(payload, dtype).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _header(path: Path, file: BinaryIO | gzip.GzipFile) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    if not magic:
        raise DataError(f"got {path}, which is empty; expected an IDX file: download it again")
    known = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in DTYPES
    if not known or not 1 <= magic[3] <= MAX_DIMENSIONS:
        raise DataError(
            f"got {path}, which begins with bytes {magic.hex(' ')}; expected 00 00, a type code "
            f"({', '.join(f'{code:02x}' for code in DTYPES)}) and 1 to {MAX_DIMENSIONS} sizes: "
            "this is not an IDX file, so check the path"
        )
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(
            f"got {path} with {4 + len(sizes)} bytes; expected a header of {4 + 4 * magic[3]}: the "
            "file is truncated, so download it again"
        )
    return np.dtype(DTYPES[magic[2]]), tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
