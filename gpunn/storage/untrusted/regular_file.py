"""Open regular files, and refuse all others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gpunn.errors import ModelFileError


@contextmanager
def opened(path: Path, *, follow: bool = True) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading inside the block; gives the file and its length in bytes.

    Args:
        path: the file.
        follow: whether it may be a symbolic link.

    Raises:
        ModelFileError: there is no such file, or it is a folder, a device or a pipe. A pipe without
            a writer does not block.
    """
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NONBLOCK", 0)  # otherwise opening a pipe waits for a writer
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
