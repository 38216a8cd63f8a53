"""Ctrl-C and SIGTERM in a fit: the step is finished and a checkpoint written, then it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Takes note of signals; the loop asks between steps.

    Args:
        watch: whether it does; else signals act as ever.

    Attributes:
        signal: the number of the first one that arrived, 0 before any.
    """

    def __init__(self, watch: bool = True) -> None:
        self.watch, self.signal = watch, 0

    @contextmanager
    def watching(self) -> Iterator[Interruption]:
        """Take note inside the block, in the main thread; a second Ctrl-C is as rude as ever."""
        if not self.watch or threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, frame: FrameType | None) -> None:
            self.signal = number
            for known, handler in before.items():
                signal.signal(known, handler)

        try:
            for number in before:
                signal.signal(number, note)
            yield self
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)

    def leave(self) -> None:
        """End the program as the signal would have.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for SIGTERM, with 128 + 15 as shells have it.
        """
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)
