"""Streams, events and graphs of the pretended GPU.

Work is done at once, unless an `order` is in force. Then it waits in the queue of its stream, and
only events and waits of the host say what must have been done: what a program does not order, the
stand-in does in the order that hurts.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from tests.standin.machine import MACHINE, CUDARuntimeError

Action = Callable[[], Any]
ILLEGAL_ADDRESS = 700


class Graph:
    """What a capture recorded.

    Attributes:
        actions: the work, in its order.
        broken: why it may not be launched: its memory may belong to others. Empty if it may.
    """

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.broken = ""
        self.recorded = False

    def launch(self, stream: Stream | None = None) -> None:
        """Do it."""
        if self.broken:
            raise CUDARuntimeError(
                f"cudaErrorIllegalAddress: the graph uses {self.broken}", ILLEGAL_ADDRESS
            )
        stream = MACHINE.current() if stream is None else stream
        for action in self.actions:
            stream.do(action)

    def upload(self, stream: Any = None) -> None:
        """Nothing to prepare."""


class Mark:
    """A place in the queue of a stream: what an event is until its stream gets there."""

    def __init__(self, stream: Stream, done: bool) -> None:
        self.stream, self.done = stream, done

    def __call__(self) -> None:
        self.done = True


class Wait:
    """Work of a stream that is not done before the mark of another."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def __call__(self) -> None:
        assert self.mark.done


class Queues:
    """All work that waits to be done, and the order in which it is.

    Attributes:
        order: None does work at once. "late" does nothing before the host waits for it, and then
            only what the host waits for. A generator does some work of any streams at any time.
        busy: the streams with work, which outlives them.
    """

    def __init__(self) -> None:
        self.order: str | random.Random | None = None
        self.busy: list[Stream] = []
        self._lock = threading.RLock()

    def add(self, stream: Stream, action: Action) -> None:
        """Put work at the end of the queue of a stream."""
        with self._lock:
            if stream not in self.busy:
                self.busy.append(stream)
            stream.queue.append(action)
            if not isinstance(self.order, random.Random):
                return
            for _ in range(self.order.choice((0, 0, 1, 2, 8))):
                ready = [s for s in self.busy if self._missing(s) is None]
                self._step(self.order.choice(ready))
                if not self.busy:
                    return

    def finish(self, stream: Stream, mark: Mark | None = None) -> None:
        """Do the work of a stream up to a mark, or all of it, and what it must wait for."""
        with self._lock:
            goals = [(stream, mark)]
            while goals:
                stream, mark = goals[-1]
                if not stream.queue or (mark is not None and mark.done):
                    goals.pop()
                elif (missing := self._missing(stream)) is not None:
                    goals.append((missing.stream, missing))
                else:
                    self._step(stream)

    def finish_all(self) -> None:
        """Do all work of all streams."""
        while self.busy:
            self.finish(self.busy[-1])

    def _missing(self, stream: Stream) -> Mark | None:
        work = stream.queue[0]
        return work.mark if isinstance(work, Wait) and not work.mark.done else None

    def _step(self, stream: Stream) -> None:
        action = stream.queue.popleft()
        if not stream.queue:
            self.busy.remove(stream)
        try:
            _run(action)
        except BaseException:  # as on a card, where nothing is done after an error
            for left in self.busy:
                left.queue.clear()
            self.busy.clear()
            raise


QUEUES = Queues()
_current = threading.local()


class Stream:
    """As `cupy.cuda.Stream`.

    Attributes:
        graph: what is being captured on it, or None.
        queue: the work that waits.
    """

    null: Stream
    known: ClassVar[weakref.WeakValueDictionary[int, Stream]] = weakref.WeakValueDictionary()

    def __init__(self, null: bool = False, non_blocking: bool = False, **ignored: Any) -> None:
        if not null and not non_blocking:
            raise NotImplementedError("the stand-in knows no streams that wait for the default one")
        self.is_null = null
        self.ptr = 0 if null else id(self)
        self.graph: Graph | None = None
        self.queue: deque[Action] = deque()
        self._before: list[Stream] = []
        Stream.known[self.ptr] = self

    def use(self) -> Stream:
        """Make it the current stream of this thread."""
        _current.stream = self
        return self

    def __enter__(self) -> Stream:
        self._before.append(current())
        return self.use()

    def __exit__(self, *exception: object) -> None:
        self._before.pop().use()

    def do(self, action: Action) -> None:
        """Do work, record it for a graph, or put it into the queue."""
        if self.graph is not None:
            self.graph.actions.append(action)
        else:
            self.do_now(action)

    def do_now(self, action: Action) -> None:
        """Do work, or put it into the queue, whether a capture is on or not."""
        if QUEUES.order is None:
            _run(action)
        else:
            QUEUES.add(self, action)

    def finish(self) -> None:
        """Do what waits."""
        QUEUES.finish(self)

    def synchronize(self) -> None:
        """Wait for its work."""
        MACHINE.synchronise()
        self.finish()

    def begin_capture(self, mode: Any = None) -> None:
        """Record from now on what is launched on this stream."""
        if self.is_null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.graph is not None:
            raise RuntimeError("the stream is already capturing")
        self.graph = Graph()

    def end_capture(self) -> Graph:
        """The graph of what was launched since `begin_capture`."""
        if self.graph is None:
            raise RuntimeError("cannot end capture: the stream is not capturing")
        graph, self.graph = self.graph, None
        graph.recorded = True
        return graph

    def is_capturing(self) -> bool:
        """Whether a capture is on."""
        return self.graph is not None

    def record(self, event: Event | None = None) -> Event:
        """An event that is done when this stream's work is."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Do nothing more on this stream before the event is done."""
        if self.graph is not event.graph:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureIsolation: one capture, and work outside of it, are ordered"
            )
        if event.mark is not None and not event.mark.done:
            self.do_now(Wait(event.mark))


class Event:
    """As `cupy.cuda.Event`: a moment of a stream.

    Attributes:
        mark: where it was recorded last; None if never, and in a capture.
        graph: what was being captured when it was recorded.
    """

    def __init__(self, **ignored: Any) -> None:
        self.seconds = 0.0
        self.mark: Mark | None = None
        self.graph: Graph | None = None

    def record(self, stream: Stream | None = None) -> None:
        """Mark what the stream has been given so far."""
        stream = current() if stream is None else stream
        self.seconds = time.perf_counter()
        self.mark, self.graph = None, stream.graph
        if stream.graph is None:
            self.mark = Mark(stream, done=not stream.queue)
            if stream.queue:
                stream.do_now(self.mark)

    def synchronize(self) -> None:
        """Wait for it."""
        MACHINE.synchronise()
        self._finish()

    @property
    def done(self) -> bool:
        """Whether it is done. Who looks again and again will see it: the work goes on."""
        self._finish()
        return True

    def _finish(self) -> None:
        if self.mark is not None:
            QUEUES.finish(self.mark.stream, self.mark)


def current() -> Stream:
    """The current stream of this thread."""
    try:
        return _current.stream
    except AttributeError:
        return Stream.null.use()


@contextmanager
def order(how: str | int) -> Iterator[None]:
    """Let only events and waits order work, inside a `with` block.

    Args:
        how: "late", or the seed of a random order.
    """
    before = QUEUES.order
    QUEUES.order = how if isinstance(how, str) else random.Random(how)
    try:
        yield
    finally:
        QUEUES.order = before
        QUEUES.finish_all()


def synchronize_device() -> None:
    """Wait for the device."""
    MACHINE.synchronise()
    QUEUES.finish_all()


def _run(action: Action) -> None:
    with np.errstate(all="ignore"):  # a GPU does not warn
        action()


Stream.null = Stream(null=True)
MACHINE.current = current
