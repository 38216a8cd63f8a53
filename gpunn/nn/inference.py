"""Captured forward passes, for predictions on many batches of the same shape."""

from __future__ import annotations

import sys
import weakref
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpunn.autograd import Tensor
from gpunn.backends import Backend
from gpunn.backends.bounded import Bounded
from gpunn.backends.capture import Captured, State
from gpunn.backends.cpu.recording import recording
from gpunn.fingerprint import Fingerprint
from gpunn.nn.observation import observed
from gpunn.typing import Array, Shape

MAX_SHAPES = 4  # the shapes that are recorded on a GPU; each holds the activations of a batch
HOST_SHAPES = 64  # on the CPU
HOST_ROWS, HOST_BYTES = 512, 1 << 20  # of a batch, and of its activations; more gain too little
OFTEN = 512  # repetitions, after which idle buffers of other work are freed
MET = 256  # shapes whose batches are counted
SECOND, SEVERAL = 2, 64  # the batch of a shape that is recorded: with room left, and without


class Model(Protocol):
    """A function of tensors with a device."""

    @property
    def backend(self) -> Backend:
        """The backend of the model's device."""

    def __call__(self, *inputs: Any) -> Tensor:
        """Return the outputs."""


class Pass(NamedTuple):
    """A recorded pass, and the array that it reads."""

    captured: Captured
    x: Array


class CapturedForward:
    """A model in evaluation mode whose passes are recorded, one recording for each batch shape.

    The first batch of a shape runs as usual, the second is recorded, and later ones replay the
    recording. If there are many shapes, a frequent one replaces the oldest. A recording sees
    weights that change in place. If anything else in the model changes, a new recording is made.
    Threads that predict at the same time have a recording each. The model holds this object, which
    therefore holds the model by a weak reference.

    Args:
        model: the model.
        b: its backend, which can capture.

    Attributes:
        backend: the backend.
    """

    def __init__(self, model: Model, b: Backend) -> None:
        self._model, self.backend = weakref.ref(model), b
        self._met: Bounded[Shape, int] = Bounded(MET)
        # The recordings of each shape that no thread uses at the moment.
        self._idle: Bounded[Shape, list[Pass]] = Bounded(HOST_SHAPES if b.on_host else MAX_SHAPES)
        self._dtype = np.dtype(object)  # of batches on the host; that of the model when it is known
        self._repeated = 0

    def again(self, x: Array, most: int) -> Array | None:
        """Return the outputs for a batch of the host from a recording that may be repeated.

        Args:
            x: an array of NumPy.
            most: the most rows that may be computed at once.

        Returns:
            None if there is none, such as for the first batches of a shape.
        """
        idle = self._idle.get(x.shape)
        if not idle or x.dtype != self._dtype or x.shape[0] > most:
            return None
        if observed.get() is not None or recording() is not None:
            return None
        try:
            one = idle.pop()
        except IndexError:  # another thread has just taken it
            return None
        try:
            captured, place = one
            place[...] = x
            found = captured.result.copy() if captured.again() else None
        finally:
            idle.append(one)
        self._repeated += 1
        if not self._repeated % OFTEN:  # the pool looks at its buffers only when it hands one out
            self.backend.free_memory()
        return found

    def __call__(self, x: Array) -> Array:
        """Return the outputs for a batch on the model's device, in its dtype.

        The array is the caller's.
        """
        model, shape = self._model(), tuple(x.shape)
        assert model is not None
        b = self.backend
        idle = self._idle.get(shape)
        if idle is None:
            self._met[shape] = met = self._met.get(shape, 0) + 1
            room = len(self._idle) < self._idle.limit
            large = b.on_host and (shape[0] > HOST_ROWS or x.nbytes > HOST_BYTES)
            if met < (SECOND if room else SEVERAL) or large:
                return b.kept(model(Tensor(x, backend=b)).data)
            self._met[shape] = 0
            idle = self._idle[shape] = []
        with b.own_stream():
            try:
                one = idle.pop()
            except IndexError:
                one = self._new(b, x)
            try:
                captured, place = one
                captured.look(often=True)
                if captured.state is State.REFUSED:
                    return b.kept(model(Tensor(x, backend=b)).data)
                place[...] = x
                captured.advance()
                y: Array = captured.result.copy()
                if b.on_host:
                    self._dtype = x.dtype
            finally:
                idle.append(one)
        if b.on_host and captured.size_bytes > HOST_BYTES:
            self._idle.pop(shape, None)
            self._met[shape] = -sys.maxsize
        return y

    def _new(self, b: Backend, x: Array) -> Pass:
        known, place = self._model, b.kept(b.empty_like(x))

        def work(tick: Array, k: int) -> Array:
            model: Any = known()
            y: Array = model(Tensor(place, backend=b)).data
            return y

        captured = Captured(
            b,
            work,
            lambda: Fingerprint({"model": known()}),
            what="predicting without captured passes",
        )
        captured.look(often=True)
        captured.forget(State.WARM)  # a batch of this shape has run as usual
        return Pass(captured, place)
