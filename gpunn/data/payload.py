"""Read the bytes of files whose headers may claim any size."""

from __future__ import annotations

from typing import Protocol

CHUNK_BYTES = 1 << 16


class Readable(Protocol):
    """An object with bytes to read."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""


def read_payload(file: Readable, size: int) -> bytearray:
    """Read up to `size` bytes; fewer if the file ends before.

    Memory grows with the bytes in the file, not with `size`.

    Example:
        >>> from io import BytesIO
        >>> len(read_payload(BytesIO(b"abc"), 10**15))
        3
    """
    payload = bytearray()
    while chunk := file.read(min(CHUNK_BYTES, size - len(payload))):
        payload += chunk
    return payload
