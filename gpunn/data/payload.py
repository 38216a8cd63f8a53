"""Bytes of files whose headers may promise anything."""

from __future__ import annotations

from typing import Protocol

CHUNK_BYTES = 1 << 16


class Readable(Protocol):
    """What has bytes to read."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def read_payload(file: Readable, size: int) -> bytearray:
    """Up to `size` bytes, fewer where the file ends.

    Memory grows with the bytes that are there, whatever `size` says.

    Example:
        >>> from io import BytesIO
        >>> len(read_payload(BytesIO(b"abc"), 10**15))
        3
    """
    payload = bytearray()
    while chunk := file.read(min(CHUNK_BYTES, size - len(payload))):
        payload += chunk
    return payload
