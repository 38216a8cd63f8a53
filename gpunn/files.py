"""Files of named arrays (safetensors), and files that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.errors import ModelFileError, OutputError


def pack(
    tensors: Mapping[str, np.ndarray[Any, Any]], header: dict[str, str] | None = None
) -> bytes:
    """The content of a safetensors file with `header` as its metadata."""
    from safetensors.numpy import save as to_bytes

    # only the bytes of contiguous arrays are in the order of their shapes
    whole = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    content: bytes = to_bytes(whole, metadata=header)
    return content


def unpack(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    """Metadata and tensors of a safetensors file.

    Raises:
        ModelFileError: it cannot be read, or is not whole.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise ModelFileError(
            f"got {path}, which cannot be read ({error}); expected a whole file of safetensors: "
            "check the path, or copy the file again"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content is whole.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise OutputError(
            f"got {path} to write; it cannot be written ({error}): choose another place"
        ) from error
