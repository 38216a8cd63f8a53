"""Training steps as one CUDA graph: recorded once, launched again and again.

A graph repeats the same launches with the same addresses, so everything that changes from step to
step lives on the device: the number of the batch, the learning rate, the number of draws that each
random stream has taken, the optimizer's count of steps. The host keeps count too, without asking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends import Backend, Elementwise, RandomStream
from gpunn.backends.base import Graph
from gpunn.backends.random import Counter, Draw
from gpunn.train.step import EagerStep
from gpunn.typing import Array

ADVANCE = Elementwise(
    "advance",
    "int64 by -> int64 count",
    numpy=lambda by, count: np.add(count, by, out=count),
    cuda="count = count + by;",
)


class StepGraph:
    """Several training steps in one graph. All methods are called inside `Backend.own_stream`.

    Args:
        b: the backend.
        streams: the random streams that the steps draw from.
        work: `work(tick, k)` launches step number `tick + k`, where `tick` is read on the device;
            what it returns is kept alive.
        count: steps in the graph.

    Raises:
        CaptureError: the steps cannot be captured.
    """

    def __init__(
        self,
        b: Backend,
        streams: Sequence[RandomStream],
        work: Callable[[Array, int], Any],
        count: int = 1,
    ) -> None:
        self.backend, self.streams, self.count = b, streams, count
        self._counters = b.zeros((1 + len(streams),), np.int64)
        self._warm_up()
        self._expected: list[int] = []
        starts = [stream.call for stream in streams]
        ends: list[int] = []
        increments = b.zeros(self._counters.shape, np.int64)

        def record() -> Any:
            kept = [work(self._counter(0), k) for k in range(count)]
            ends.extend(stream.call for stream in streams)
            b.launch(ADVANCE, increments, out=self._counters)
            return kept

        for k, stream in enumerate(streams):
            stream.counter = Counter(self._counter(k + 1), stream.call)
        try:
            self._graph: Graph = b.record(record)
        finally:
            for stream, start in zip(streams, starts, strict=True):
                stream.counter, stream.call = None, start
        self._drawn = [end - start for end, start in zip(ends, starts, strict=True)]
        b.write(increments, np.array([count, *self._drawn], np.int64))
        self._increments = increments

    def _warm_up(self) -> None:
        """Load the kernels that only a graph uses: loading one in a capture might break it."""
        b = self.backend
        b.launch(ADVANCE, b.zeros(self._counters.shape, np.int64), out=self._counters)
        if self.streams:
            for words in (1, 2):  # one at a time, and in packs
                b.random_words(words, Draw((0, 0), self._counter(1)))

    def _counter(self, k: int) -> Array:
        """One of the counters as a 0-d array, which NumPy's indexing would copy."""
        return self._counters[k : k + 1].reshape(())

    def seek(self, tick: int) -> None:
        """Let the next launch start at step number `tick`, with the streams as they are now."""
        calls = [stream.call for stream in self.streams]
        self.backend.write(self._counters, np.array([tick, *calls], np.int64))
        self._expected = calls

    def in_step(self) -> bool:
        """Whether the device's counts of draws are those of the streams."""
        return not self.streams or self._expected == [stream.call for stream in self.streams]

    def launch(self, times: int = 1) -> None:
        """Do the steps, several times one after another."""
        self._graph.launch(times)
        if self.streams:
            for stream, drawn in zip(self.streams, self._drawn, strict=True):
                stream.call += times * drawn
            self._expected = [stream.call for stream in self.streams]

    def take_back(self, steps: int) -> None:
        """Let the streams be where they were so many launches ago; the arrays stay."""
        for stream, drawn in zip(self.streams, self._drawn, strict=True):
            stream.call -= steps * drawn


class Recorded(NamedTuple):
    """A graph of one step.

    Attributes:
        graph: the graph.
        x: the examples that it reads.
        y: their targets.
        loss: that it writes.
        borrowed: whether x and y are the caller's, which are not written to.
    """

    graph: StepGraph
    x: Array
    y: Array
    loss: Array
    borrowed: bool


class CapturedStep:
    """A training step that is one CUDA graph, with the signature and the numbers of `EagerStep`.

    The first batch of a shape runs eagerly, which compiles what is needed; the second is captured.
    The loss that a call returns is overwritten by the next call of the same shape. Where the second
    call gets the very arrays of the first, the graph reads those, as they are at each launch, and
    nothing is copied; the first call with others makes a graph with arrays of its own, into which
    every batch is copied.

    Args:
        step: the eager step.

    Raises:
        CaptureError: this device has no graphs.

    Example:
        step = gn.train.CapturedStep(gn.train.EagerStep(net, loss, optimizer))
        for x, y in gn.data.batches(x_train, y_train, device="cuda"):
            loss = step(x, y)
    """

    def __init__(self, step: EagerStep) -> None:
        self.step = step
        self.backend = step.optimizer.bound.backend
        if why := self.backend.why_no_capture():
            self.backend.record(lambda: why)  # raises, in the backend's words
        self._first: dict[Any, tuple[Array, Array]] = {}  # batches of shapes met once
        self._recorded: dict[Any, Recorded] = {}

    def __call__(self, x: Array, y: Array) -> Array:
        """Train on one batch; see `EagerStep.__call__`.

        Raises:
            CaptureError: the step copies to the host.
        """
        key = (x.shape, x.dtype, y.shape, y.dtype)
        with self.backend.own_stream():
            found = self._recorded.get(key)
            if found is None:
                if key not in self._first:
                    self._first[key] = x, y
                    return self.step(x, y)
                x_first, y_first = self._first[key]
                found = self._recorded[key] = self._capture(x, y, x is x_first and y is y_first)
                del self._first[key]
            elif found.borrowed and not (x is found.x and y is found.y):
                found = self._recorded[key] = self._capture(x, y, False)
            if not found.borrowed:
                found.x[...] = x
                found.y[...] = y
            if not found.graph.in_step():
                found.graph.seek(0)
            found.graph.launch()
        return found.loss

    def _capture(self, x: Array, y: Array, borrow: bool) -> Recorded:
        b = self.backend
        x_in, y_in = (x, y) if borrow else (b.empty_like(x), b.empty_like(y))
        losses: list[Array] = []

        def work(tick: Array, k: int) -> Any:
            with self.step.optimizer.bound.traced():
                losses.append(self.step(x_in, y_in))
            return losses

        graph = StepGraph(b, self.step.model.streams(), work)
        return Recorded(graph, x_in, y_in, losses[0], borrow)
