"""A dict with a limit: the only kind of cache whose keys come from the data."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dict of at most `limit` entries. A new entry removes the oldest if the dict is full.

    Several threads may use it. An entry that was found may be gone at the next look, so look once,
    with `get`.

    Args:
        limit: the most entries, at least 1.
        removed: is called with each value that is removed to make room; None for nothing.
    """

    def __init__(self, limit: int, removed: Callable[[V], object] | None = None) -> None:
        super().__init__()
        self.limit = limit
        self._removed = removed
        self._lock = threading.Lock()

    def __setitem__(self, key: K, value: V) -> None:
        with self._lock:
            full = len(self) >= self.limit and key not in self
            old = [self.pop(next(iter(self)))] if full else []
            super().__setitem__(key, value)
        if self._removed is not None:
            for one in old:
                self._removed(one)
