"""Capture of repeated work: the first step runs as usual, the second is recorded, then repeated.

A recording repeats the same calls on the same addresses. Everything that changes from step to step
therefore lives in arrays of the device: the number of the step, the learning rate, and the number
of draws from each random stream. `Captured` owns these counts and keeps the host's counts equal.

On the CPU, recording a step also does the step. The first repetition is compared bit for bit with
an ordinary step. On a GPU, a capture executes nothing. On both, `Captured` refuses work that
changes its own parts, such as a module that counts its calls.
"""

from __future__ import annotations

import enum
import random
import time
from collections.abc import Callable
from operator import is_
from typing import Any

import numpy as np

from gpunn.backends.base import Backend, Graph
from gpunn.backends.counts import Counts
from gpunn.backends.kernel import Elementwise
from gpunn.backends.random import RandomStream
from gpunn.errors import CaptureError
from gpunn.fingerprint import Fingerprint
from gpunn.log import logger
from gpunn.typing import Array

# Several repetitions are launched at once if that takes less than LAUNCH_S seconds. Both limits are
# low, so that Python can handle a signal soon.
LAUNCH_S, MOST_LAUNCHES = 0.002, 64
# Work is refused when so many of its steps changed its parts. One change is allowed, because a
# module may fill a cache in its first step.
TRIES = 2

WINDOW = Elementwise(
    "window",
    "raw T numbers, int64 tick -> number",
    numpy=lambda numbers, tick, number: np.copyto(number, numbers[int(tick) :][: len(number)]),
    cuda="number = (T)numbers[tick + (long long)i];",
)
"""The numbers of the steps from number `tick` on."""


class State(enum.Enum):
    """The state of captured work."""

    COLD = enum.auto()  # never done; the first step compiles the kernels
    WARM = enum.auto()  # done once as usual
    RECORDED = enum.auto()  # recorded, but not yet compared with an ordinary step
    PROVED = enum.auto()  # the recording may be repeated
    REFUSED = enum.auto()  # every further step is done as usual


class Captured:
    """Work that is recorded and repeated. Call the methods inside `Backend.own_stream`.

    Args:
        b: the backend.
        work: a function. `work(tick, k)` does step number `tick + k`, where `tick` is a 0-d array
            of the device, and returns an array of the device.
        parts: makes a fingerprint of everything that the work depends on. The random streams in
            it are those that the work draws from.
        changes: returns the arrays that the work changes, for the comparison on the CPU.
        steps: the number of steps in one recording.
        pieces: the number of pieces that long kernels are divided into; see `Backend.record`.
        settles: whether the device takes back draws of steps that did not happen.
        required: whether to raise an error if the work cannot be repeated. Otherwise the work is
            done as usual, and the log gets one line.
        what: the description of the work in the log.

    Attributes:
        state: the state of the capture.
        repeated: the number of steps that were repetitions.
        result: the result of the last step. A repetition overwrites the same array.
    """

    def __init__(
        self,
        b: Backend,
        work: Callable[[Array, int], Array],
        parts: Callable[[], Fingerprint],
        *,
        changes: Callable[[Fingerprint], list[Array]] = lambda parts: [],
        steps: int = 1,
        pieces: int = 1,
        settles: bool = False,
        required: bool = False,
        what: str = "training without captured steps",
    ) -> None:
        self.backend, self.steps = b, steps
        self.state, self.repeated = State.COLD, 0
        self.result: Any = None
        self._work, self._parts, self._changes = work, parts, changes
        self._pieces = pieces
        self._required, self._what, self._settles = required, what, settles
        self._known: Fingerprint | None = None
        self._graph: Graph | None = None
        self._results: list[Any] = []
        self._restless, self._times = 0, 1
        self._counts = Counts(b, (), steps)

    @property
    def size_bytes(self) -> int:
        """The bytes of the arrays of the recording; 0 if there is none."""
        return 0 if self._graph is None else self._graph.size_bytes

    # called from outside -------------------------------------------------------------------------

    def look(self, *, often: bool = False) -> None:
        """Forget the recording if anything that it depends on has changed.

        Args:
            often: whether the caller looks before every step. Work with a part whose changes
                cannot be seen is then refused; otherwise it is recorded again after each look.
        """
        known = self._known
        if self.state is State.REFUSED:
            return
        same = Fingerprint.unchanged if often else Fingerprint.unchanged_throughout
        if known is not None and not known.opaque and same(known):
            return
        now = self._parts()
        if now.restless:
            self._refuse(f"{now.restless} is an iterator, which changes when it is read")
        elif now.opaque and often:
            self._refuse(f"gpunn cannot see whether {now.opaque} changes")
        elif known is not None and (now.opaque or now.difference(known)):
            self.forget()
        self._know(now)

    def forget(self, state: State = State.COLD) -> None:
        """Drop the recording, because the work has changed, and go back to `state`."""
        if self.state is not State.REFUSED:
            self.state, self._graph, self._results = state, None, []

    def advance(self, tick: int = -1, limit: int = 1) -> int:
        """Do at least one step and at most `limit`.

        Args:
            tick: the number of the first step; -1 if the work does not use it.
            limit: the most steps to do; at least `steps` when the state is PROVED.

        Returns:
            The number of steps that were done.
        """
        taken = self._advance(tick, limit)
        if self.backend.synchronous:
            self.settle()
        return taken

    def settle(self) -> None:
        """Let the host know of draws that the device took back. On a GPU this waits."""
        if self._settles and self._counts.streams:
            self._counts.settle()

    def _advance(self, tick: int, limit: int) -> int:
        if self.state is State.PROVED:
            return self._repeat(tick, limit)
        if self.state is State.COLD:
            if self._watched(lambda: self._do(tick)):
                self.state = State.WARM
            return 1
        if self.state is State.WARM:
            return self._record(tick, limit)
        if self.state is State.RECORDED:
            self._prove(tick)
            return 1
        self._do(tick)
        return 1

    def again(self) -> bool:
        """Repeat one step if the recording is proved and nothing changed; return whether it did.

        This is the fastest way to do a step, for work that does not use the step's number.
        """
        known, graph = self._known, self._graph
        if self.state is not State.PROVED or known is None or graph is None:
            return False
        counts = self._counts
        if not counts.hold() or not known.unchanged():
            return False
        graph.launch()
        if counts.streams:  # the number of the step is of no use here
            counts.took(1)
            if self.backend.synchronous:
                self.settle()
        self.repeated += self.steps
        return True

    def take_back(self, steps: int) -> None:
        """Set the random streams back by a number of steps. Arrays keep their content."""
        self._counts.take_back(steps)

    # the states ----------------------------------------------------------------------------------

    def _do(self, tick: int) -> None:
        """Do one step as usual."""
        counts = self._counts
        counts.place(tick)
        with counts.on_device():
            self.result = self._work(counts.tick, 0)

    def _record(self, tick: int, limit: int) -> int:
        """Record the work. Do at least one step, and return the number of steps done."""
        b, counts = self.backend, self._counts
        counts.place(tick)
        starts = counts.calls
        results: list[Any] = []
        ends: list[int] = []

        def work() -> Any:
            results.extend(self._work(counts.tick, k) for k in range(self.steps))
            ends.extend(counts.calls)
            if tick >= 0 or counts.streams:  # otherwise nothing reads the counts
                counts.advance()
            return results

        counts.load()
        graph: Graph | None = None

        def record() -> None:
            nonlocal graph
            with counts.on_device():
                graph = b.record(work, self._pieces)

        try:
            steady = self._watched(record)
        except CaptureError as error:
            counts.set_back(starts)
            self._refuse(str(error))
            self._do(tick)
            return 1
        assert graph is not None
        self.result = results[-1]
        if not graph.done:
            counts.set_back(starts)
        if not steady or graph.refused:
            if graph.refused:
                self._refuse(_cannot(graph.refused))
            if not graph.done:
                self._do(tick)
            return 1
        counts.learn(starts, ends)
        self._graph, self._results = graph, results
        if graph.done:
            self.state = State.RECORDED
            return 1
        self.state = State.PROVED
        return self._repeat(tick, limit)

    def _prove(self, tick: int) -> None:
        """Do an ordinary step, repeat the same step, and compare the results bit for bit."""
        graph, recorded = self._graph, self._results[-1]
        arrays = [] if self._known is None else self._changes(self._known)
        counts = self._counts
        before, calls = [a.copy() for a in arrays], counts.calls
        steady = self._watched(lambda: self._do(tick))
        ordinary, drawn = self.result, counts.calls
        after = [a.copy() for a in arrays]
        if not steady or graph is None:
            return
        for array, content in zip(arrays, before, strict=True):
            array[...] = content
        counts.set_back(calls)
        counts.place(tick)
        graph.launch()
        self._took(1)
        same = recorded.tobytes() == ordinary.tobytes()
        if same and all(a.tobytes() == e.tobytes() for a, e in zip(arrays, after, strict=True)):
            self.state, self.result = State.PROVED, recorded
            return
        for array, content in zip(arrays, after, strict=True):
            array[...] = content
        counts.set_back(drawn)
        self.result = ordinary
        self._refuse(
            "got a recording whose results differ from those of an ordinary step; expected the "
            "same bits, which needs every computation to be a kernel: pass capture=False"
        )

    def _repeat(self, tick: int, limit: int) -> int:
        """Launch the recording; on a synchronous device, several short repetitions at once."""
        graph = self._graph
        assert graph is not None
        self._counts.place(tick)
        self.result = self._results[-1]
        if limit == self.steps:
            graph.launch()
            self._took(1)
            return limit
        times = min(self._times, limit // self.steps)
        start = time.perf_counter()
        graph.launch(times)
        if self.backend.synchronous and time.perf_counter() - start < LAUNCH_S:
            self._times = min(2 * times, MOST_LAUNCHES)
        self._took(times)
        return times * self.steps

    # what a step must not change -----------------------------------------------------------------

    def _watched(self, step: Callable[[], None]) -> bool:
        """Do a step; return whether it changed no part that it depends on, or refuse the work."""
        before = _ambient()
        step()
        known = self._known
        changed = "Python's or NumPy's global random generator" if _ambient() != before else ""
        if not changed and (known is None or not known.unchanged()):
            now = self._parts()
            changed = "" if known is None else now.difference(known)
            self._know(now)
        if not changed:
            return True
        self._restless += 1
        self.forget()
        if self._restless == TRIES:
            self._refuse(f"a step changes {changed}, on which later steps depend")
        return False

    def _refuse(self, why: str) -> None:
        if self._required:
            raise CaptureError(why if "expected" in why else _cannot(why))
        logger.warning("%s: %s", self._what, why)
        self.forget()
        self.state = State.REFUSED

    def _know(self, parts: Fingerprint) -> None:
        self._known = parts
        streams = tuple(part for part in parts.found if isinstance(part, RandomStream))
        known = self._counts.streams
        if len(streams) != len(known) or not all(map(is_, streams, known)):
            self.forget()
            self._counts = Counts(self.backend, streams, self.steps)

    def _took(self, times: int) -> None:
        self._counts.took(times)
        self.repeated += times * self.steps


def _cannot(why: str) -> str:
    return (
        f"got a step that cannot be captured ({why}); expected one without copies to the host and "
        "without state of its own: pass capture=False"
    )


def _ambient() -> Any:
    """Return the states of the global random generators of Python and NumPy."""
    state: Any = np.random.get_state()  # noqa: NPY002  (the global generator is meant)
    return random.getstate(), state[1].tobytes(), state[2:]
