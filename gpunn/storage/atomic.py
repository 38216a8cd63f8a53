"""Write a file as a whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gpunn.errors import GpunnError, OutputError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` when the block ends without an error.

    The new file is written beside `path`, synced and renamed. At any moment either the old or the
    new content is whole, and a block that raises leaves nothing behind. If `path` is a link, its
    target is replaced. If it is not a regular file (a pipe, /dev/null), it is written directly.

    Raises:
        OutputError: the file cannot be written.
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
            with suppress(OSError):  # an error here must not hide the first one
                beside.unlink(missing_ok=True)
    except GpunnError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"got {path}, which cannot be written in {target.parent} ({reason}); expected a "
            "writable folder with room: make room, or choose another place"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Sync the names in a folder to disk, if the system supports it."""
    if os.name == "posix":
        with suppress(OSError):  # the folder is unreadable, or the file system cannot
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content is whole.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as file:
        file.write(content)
