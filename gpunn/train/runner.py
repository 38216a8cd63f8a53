"""How the steps of an epoch run: one after another, or as graphs of several."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpunn.backends import Elementwise
from gpunn.errors import CaptureError
from gpunn.log import logger
from gpunn.nn.inference import model_parts, same_parts
from gpunn.train.capture import StepGraph
from gpunn.train.feed import Feed
from gpunn.train.step import EagerStep
from gpunn.typing import Array

STEPS_PER_GRAPH = 4  # hides the launch of a graph behind the work of the one before

LAUNCH_S, MOST_LAUNCHES = 0.002, 64  # of a graph at once, so that a signal is soon heard

RATE = Elementwise(
    "rate",
    "raw T rates, int64 tick, int64 ahead -> lr",
    numpy=lambda rates, tick, ahead, lr: lr.fill(rates[int(tick) + ahead]),
    cuda="lr = (T)rates[tick + ahead];",
)


class EagerRunner:
    """Runs an epoch step by step.

    Args:
        step: the training step.
        feed: the batches.
    """

    def __init__(self, step: EagerStep, feed: Feed) -> None:
        self.step, self.feed = step, feed

    def epoch(self, rates: Sequence[float], first: int = 0) -> Iterator[int]:
        """Train on every batch with its learning rate; yields how many steps each launch took.

        Args:
            rates: of every batch of the epoch.
            first: the batch to begin with.
        """
        for number in range(first, self.feed.steps):
            yield self._one(number, rates[number])

    def _one(self, number: int, rate: float) -> int:
        self.step.optimizer.lr = rate
        arrays = self.feed.batch(number)
        self.feed.add(self.step(*arrays), arrays[0].shape[0])
        self.feed.done(number)
        return 1


class CapturedRunner(EagerRunner):
    """Runs an epoch as launches of one graph of several steps.

    The first step of all runs eagerly, and compiles what is needed; so does what is left over at
    the end of an epoch.

    Args:
        step: the training step.
        feed: the batches.
        required: whether steps that cannot be captured are an error. Otherwise they run eagerly,
            with a line in the log.
    """

    def __init__(self, step: EagerStep, feed: Feed, required: bool) -> None:
        super().__init__(step, feed)
        self._required = required
        self._graph: StepGraph | None = None
        self._refused = False
        self._proved = False
        self._known: list[Any] = []
        b, dtype = feed.backend, step.optimizer.bound.dtype
        self._rates = b.zeros((feed.steps,), dtype)

    def epoch(self, rates: Sequence[float], first: int = 0) -> Iterator[int]:
        """As `EagerRunner.epoch`.

        Raises:
            CaptureError: the steps cannot be captured; only the first was taken.
        """
        parts = self._parts()
        if not same_parts(parts, self._known):  # a graph repeats what it was recorded with
            self._known, self._graph, self._refused = parts, None, False
        if not self._refused:
            self.feed.backend.write(self._rates, np.asarray(rates, self._rates.dtype))
        number = first
        for taken in self._launches(rates, first):
            broken = self._broken()
            if broken:
                after = number + taken - broken  # launched with it; they did nothing but draw
                if after and self._graph is not None:
                    self._graph.take_back(after)
                yield broken - number
                return
            number += taken
            self.step.optimizer.note_lr(rates[number - 1])
            yield taken

    def _launches(self, rates: Sequence[float], number: int) -> Iterator[int]:
        """The steps of an epoch from one on: eager, compared, replayed, and what is left over."""
        if self._graph is None and not self._refused and number + 1 < self.feed.whole_steps:
            yield self._one(number, rates[number])
            number += 1
            self._graph = self._record()
            self._proved = not self.feed.backend.synchronous
            if not self._proved:  # from other weights than it was recorded with it tells more
                yield self._one(number, rates[number])
                number += 1
        if self._graph is not None and not self._proved and number < self.feed.whole_steps:
            yield self._compared(number, rates[number])
            number += 1
        if self._graph is not None and self._proved:
            for taken in self._replays(self._graph, number):
                number += taken
                yield taken
        for rest in range(number, self.feed.steps):
            yield self._one(rest, rates[rest])

    def _replays(self, graph: StepGraph, number: int) -> Iterator[int]:
        """Launch the graph while there are whole batches; yields how many steps each launch took.

        Where a launch ends with the work, several make one, so that Python is no part of the time.
        """
        times, waits = 1, self.feed.backend.synchronous
        graph.seek(number)
        while number + graph.count <= self.feed.whole_steps:
            times = min(times, (self.feed.whole_steps - number) // graph.count)
            start = time.perf_counter()
            graph.launch(times)
            number += times * graph.count
            yield times * graph.count
            if waits and time.perf_counter() - start < LAUNCH_S:
                times = min(2 * times, MOST_LAUNCHES)

    def _parts(self) -> list[Any]:
        """Everything that decides what a step launches."""
        step = self.step
        parts = [*model_parts(step.model), *step.optimizer.options(), step.clip_norm]
        return parts + list(vars(step.regularizer).values() if step.regularizer else ())

    def _broken(self) -> int:
        """The step of this epoch, from 1, whose loss ended the training; 0 where none is known."""
        guard = self.step.guard
        if guard is None or guard.mode != "stop" or not self.feed.backend.synchronous:
            return 0
        return int(guard.first)

    def _compared(self, number: int, rate: float) -> int:
        """The first recorded step, beside an eager one that must have the same bits.

        On the CPU what a step does outside of kernels may escape the recording; it is not to
        escape notice.
        """
        step, feed = self.step, self.feed
        streams, guard = step.model.streams(), step.guard
        arrays = [value.data for _, value in step.model.state()]
        arrays += [step.optimizer.bound.data, *step.optimizer.state, step.optimizer.device_step]
        arrays += [feed.total, *(guard.state() if guard is not None else ())]
        before, calls = [a.copy() for a in arrays], [stream.call for stream in streams]
        self._one(number, rate)
        eager = [a.copy() for a in arrays]
        for array, content in zip(arrays, before, strict=True):
            array[...] = content
        for stream, call in zip(streams, calls, strict=True):
            stream.call = call
        graph = self._graph
        assert graph is not None
        graph.seek(number)
        graph.launch()
        if all(a.tobytes() == e.tobytes() for a, e in zip(arrays, eager, strict=True)):
            self._proved = True
            return 1
        for array, content in zip(arrays, eager, strict=True):
            array[...] = content
        self._refuse(
            CaptureError(
                "got a step that computes something without kernels; expected the same bits from "
                "its recording: pass capture=False"
            )
        )
        return 1

    def _refuse(self, error: CaptureError) -> None:
        if self._required:
            raise error
        logger.warning("training without captured steps: %s", error)
        self._graph, self._refused = None, True

    def _record(self) -> StepGraph | None:
        feed, step = self.feed, self.step
        b = feed.backend

        def work(tick: Array, k: int) -> Any:
            b.launch(RATE, self._rates, tick, k, out=step.optimizer.device_lr)
            arrays = feed.batch_at(tick, k)
            with step.optimizer.bound.traced():
                loss = step(*arrays)
            feed.add(loss, feed.batch_size)
            return *arrays, loss

        count = 1 if b.synchronous else max(1, min(STEPS_PER_GRAPH, feed.whole_steps - 1))
        b.launch(RATE, self._rates, b.zero(), 0, out=step.optimizer.device_lr)  # loads it
        try:
            return StepGraph(b, step.model.streams(), work, count)
        except CaptureError as error:
            self._refuse(error)
            return None
