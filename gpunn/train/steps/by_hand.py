"""A captured step that a user calls by hand."""

from __future__ import annotations

from operator import is_
from typing import Any

from gpunn.backends.capture import Captured, State
from gpunn.nn.inference import MAX_SHAPES
from gpunn.sparse import is_sparse
from gpunn.train.steps.step import EagerStep
from gpunn.typing import Array


class _Shape:
    """The recording for batches of one shape, and the arrays that it reads.

    Attributes:
        arrays: the examples, their targets and their weights, if there are any.
        borrowed: whether the arrays are the caller's, which must not be written to.
        captured: the captured step.
    """

    def __init__(self, step: EagerStep, arrays: tuple[Array, ...]) -> None:
        self.arrays = read = list(arrays)
        self.borrowed = True
        self.captured = Captured(
            step.optimizer.bound.backend,
            lambda tick, k: step(*read),
            step.parts,
            changes=step.changes,
            pieces=step.lanes,
            settles=step.skips,
            what="a step by hand runs without capture",
        )

    def is_read(self, arrays: tuple[Array, ...]) -> bool:
        """Return whether the recording reads exactly these array objects."""
        return len(arrays) == len(self.arrays) and all(map(is_, arrays, self.arrays))

    def take(self, arrays: tuple[Array, ...]) -> None:
        """Let the recording read these arrays, directly if it reads them already, else a copy."""
        if self.borrowed:
            if self.is_read(arrays):
                return
            if self.captured.state is State.COLD:
                self.arrays[:] = arrays
                return
            self.arrays[:] = map(self.captured.backend.empty_like, arrays)
            self.borrowed = False
            self.captured.forget(State.WARM)
        for mine, given in zip(self.arrays, arrays, strict=True):
            mine[...] = given


class CapturedStep:
    """A training step that is captured. Its signature and its results are those of `EagerStep`.

    The first batch of a shape runs as usual and compiles the kernels. The second is recorded. On
    the CPU, the third is compared bit for bit with a repetition. A step that cannot be repeated
    runs as usual, and the log gets one line. The next call of the same shape overwrites the loss
    that a call returned.

    If the second call gets the same array objects as the first, the recording reads them directly,
    and nothing is copied. The first call with other arrays makes a new recording with its own
    arrays, and every batch is copied into these.

    Each recording holds the arrays of a step, so only the first `MAX_SHAPES` shapes are recorded.
    Batches of other shapes run as usual.

    You may change anything between two calls. The step is then recorded again.

    Args:
        step: the eager step.

    Raises:
        CaptureError: this device cannot capture work.
    """

    def __init__(self, step: EagerStep) -> None:
        self.step = step
        self.backend = step.optimizer.bound.backend
        if why := self.backend.why_no_capture():
            self.backend.record(lambda: why)  # raises the backend's error
        self._shapes: dict[Any, _Shape] = {}
        self._given: Any = (None, None, None, None)  # the last arrays that were read directly

    def __call__(self, x: Array, y: Array, weights: Array | None = None) -> Any:
        """Train on one batch; see `EagerStep.__call__`."""
        with self.backend.own_stream():
            given = self._given
            if x is given[0] and y is given[1] and weights is given[2] and given[3].again():
                return given[3].result
            arrays = (x, y) if weights is None else (x, y, weights)
            if is_sparse(x):
                return self.step(*arrays)
            key = tuple((a.shape, a.dtype) for a in arrays)
            found = self._shapes.get(key)
            if found is None and len(self._shapes) == MAX_SHAPES:
                return self.step(*arrays)
            if found is None:
                found = self._shapes[key] = _Shape(self.step, arrays)
            captured = found.captured
            captured.look(often=True)
            if captured.state is State.REFUSED:
                return self.step(*arrays)
            found.take(arrays)
            captured.advance()
        if found.borrowed:
            self._given = x, y, weights, captured
        elif self._given[3] is captured:  # it reads arrays of its own now
            self._given = None, None, None, None
        return captured.result
