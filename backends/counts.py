"""Counts of repeated work: the number of the step and the draws from each random stream.

Repeated work reads these counts from arrays of the device. `Counts` keeps them equal to the counts
of the host, which other work uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from gpunn.backends.base import Backend
from gpunn.backends.kernel import Elementwise
from gpunn.backends.random import Counter, RandomStream
from gpunn.typing import Array

ADVANCE = Elementwise(
    "advance",
    "int64 by -> int64 count",
    numpy=lambda by, count: np.add(count, by, out=count),
    cuda="count = count + by;",
)

TAKE_BACK = Elementwise(
    "take_back",
    "int64 go, int64 drawn -> int64 count",
    numpy=lambda go, drawn, count: np.subtract(count, 0 if int(go) else drawn, out=count),
    cuda="count = go ? count : count - drawn;",
)


class Counts:
    """The counts of a recording on the device and on the host.

    Args:
        b: the backend.
        streams: the random streams that the work draws from.
        steps: the number of steps of one recording.

    Attributes:
        tick: the number of the step, a 0-d array of the device.
    """

    def __init__(self, b: Backend, streams: tuple[RandomStream, ...], steps: int) -> None:
        self.backend, self.streams, self.steps = b, streams, steps
        self._counters = b.zeros((1 + len(streams),), np.int64)
        self._increments = b.zeros(self._counters.shape, np.int64)
        self.tick = self._counter(0)
        self._at: int | None = -1  # the content of the device's counters; None if it is out of date
        self._calls = self._drawn = [0] * len(streams)

    @property
    def calls(self) -> list[int]:
        """The number of draws from each stream, as the host counts them."""
        return [stream.call for stream in self.streams]

    def hold(self) -> bool:
        """Return whether the device's counts are those of the host."""
        return self._at is not None and (not self.streams or self.calls == self._calls)

    def place(self, tick: int) -> None:
        """Set the device's counts to step `tick` (-1 for any) and to the host's counts of draws."""
        if tick in (self._at, -1) and self.hold():
            return
        self._at, self._calls = max(tick, 0), self.calls
        self.backend.write(self._counters, np.array([self._at, *self._calls], np.int64))

    def took(self, times: int) -> None:
        """Count the recording as launched `times` times."""
        if self._at is not None:
            self._at += times * self.steps
        if self.streams:
            for stream, drawn in zip(self.streams, self._drawn, strict=True):
                stream.call += times * drawn
            self._calls = self.calls

    def take_back(self, steps: int) -> None:
        """Put the streams back by so many steps."""
        for stream, drawn in zip(self.streams, self._drawn, strict=True):
            stream.call -= steps * drawn // self.steps

    def settle(self) -> None:
        """Take over what the device's counts lack. Work may have launched `take_back` for a stream.

        This waits for the device.
        """
        found = self.backend.download(self._counters)[1:].tolist()
        for stream, expected, count in zip(self.streams, self._calls, found, strict=True):
            stream.call -= expected - count
        self._calls = found

    def set_back(self, calls: Sequence[int]) -> None:
        """Put the streams back to these numbers of draws."""
        for stream, call in zip(self.streams, calls, strict=True):
            stream.call = call
        self._at = None

    def advance(self) -> None:
        """Add the increments on the device: the last call of a recording."""
        self.backend.launch(ADVANCE, self._increments, out=self._counters)

    def load(self) -> None:
        """Launch the kernel of `advance` without an effect: a capture cannot load a kernel."""
        self.backend.write(self._increments, np.zeros(len(self._increments), np.int64))
        self.advance()

    def learn(self, starts: Sequence[int], ends: Sequence[int]) -> None:
        """Take the increments of a recording from the draws before and after it."""
        self._drawn = [end - start for end, start in zip(ends, starts, strict=True)]
        self.backend.write(self._increments, np.array([self.steps, *self._drawn], np.int64))

    @staticmethod
    def take_back_unless(b: Backend, go: Array, stream: RandomStream, calls: int) -> None:
        """Set a stream back to `calls` draws if `go`, a 0-d int64 array of the device, is 0.

        In captured work the device decides; `settle` tells the host. Otherwise this waits for the
        device.
        """
        if stream.counter is not None:
            b.launch(TAKE_BACK, go, stream.call - calls, out=stream.counter.call)
        elif not int(b.download(go)):
            stream.call = calls

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Make draws inside the block use the device's counts, which are out of date then."""
        for k, stream in enumerate(self.streams):
            stream.counter = Counter(self._counter(k + 1), stream.call)
        try:
            yield
        finally:
            self._at = None
            for stream in self.streams:
                stream.counter = None

    def _counter(self, k: int) -> Array:
        """Return a view of one counter as a 0-d array; NumPy's integer indexing would copy it."""
        return self._counters[k : k + 1].reshape(())
