"""How the steps of an epoch run: one after another, or as graphs of several."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpunn.backends import Elementwise
from gpunn.errors import CaptureError
from gpunn.train.capture import StepGraph
from gpunn.train.feed import Feed
from gpunn.train.step import EagerStep
from gpunn.typing import Array

logger = logging.getLogger("gpunn")

STEPS_PER_GRAPH = 4  # hides the launch of a graph behind the work of the one before

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
        x, y = self.feed.batch(number)
        self.feed.add(self.step(x, y), len(x))
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
        b, dtype = feed.backend, step.optimizer.bound.dtype
        self._rates = b.zeros((feed.steps,), dtype)

    def epoch(self, rates: Sequence[float], first: int = 0) -> Iterator[int]:
        """As `EagerRunner.epoch`.

        Raises:
            CaptureError: the steps cannot be captured; only the first was taken.
        """
        number = first
        if self._graph is None and not self._refused and number + 1 < self.feed.whole_steps:
            self.feed.backend.write(self._rates, np.asarray(rates, self._rates.dtype))
            yield self._one(number, rates[number])
            number += 1
            self._graph = self._record()
        if self._graph is not None:
            graph = self._graph
            self.feed.backend.write(self._rates, np.asarray(rates, self._rates.dtype))
            graph.seek(number)
            while number + graph.count <= self.feed.whole_steps:
                graph.launch()
                number += graph.count
                self.step.optimizer.note_lr(rates[number - 1])
                yield graph.count
        for rest in range(number, self.feed.steps):
            yield self._one(rest, rates[rest])

    def _record(self) -> StepGraph | None:
        feed, step = self.feed, self.step
        b = feed.backend

        def work(tick: Array, k: int) -> Any:
            b.launch(RATE, self._rates, tick, k, out=step.optimizer.device_lr)
            x, y = feed.batch_at(tick, k)
            loss = step(x, y)
            feed.add(loss, feed.batch_size)
            return x, y, loss

        count = max(1, min(STEPS_PER_GRAPH, feed.whole_steps - 1))
        b.launch(RATE, self._rates, b.zero(), 0, out=step.optimizer.device_lr)  # loads it
        try:
            return StepGraph(b, step.model.streams(), work, count)
        except CaptureError as error:
            if self._required:
                raise
            logger.warning("training without CUDA graphs: %s", error)
            self._refused = True
            return None
