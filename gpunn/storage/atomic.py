"""Writing a file whole or not at all."""

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
