"""Captured forward passes, for predictions on many batches of the same shape."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from gpunn.autograd import Tensor
from gpunn.backends import Backend
from gpunn.backends.capture import Captured, State
from gpunn.fingerprint import Fingerprint
from gpunn.typing import Array, Shape

MAX_SHAPES = 4  # the shapes that are recorded; each recording holds the activations of a batch


class Model(Protocol):
    """A function of tensors with a device."""

    @property
    def backend(self) -> Backend:
        """The backend of the model's device."""

    def __call__(self, *inputs: Any) -> Tensor:
        """Return the outputs."""


class CapturedForward:
    """A model in evaluation mode whose passes are recorded, one recording for each batch shape.

    The first batch of a shape runs as usual, and later ones replay the recording. A recording sees
    weights that change in place. If anything else in the model changes, a new recording is made.
    The model holds this object, which therefore holds the model by a weak reference.

    Args:
        model: a model whose backend can capture.
    """

    def __init__(self, model: Model) -> None:
        self._model = weakref.ref(model)
        self._shapes: dict[Shape, tuple[Captured, Array]] = {}

    def __call__(self, x: Array) -> Array:
        """Return the outputs for a batch on the model's device, in its dtype.

        The next call with this shape overwrites the returned array.
        """
        model, shape = self._model(), tuple(x.shape)
        assert model is not None
        b = model.backend
        if shape not in self._shapes and len(self._shapes) == MAX_SHAPES:
            return model(Tensor(x, backend=b)).data
        with b.own_stream():
            if shape not in self._shapes:
                self._shapes[shape] = self._new(b, x)
            captured, x_in = self._shapes[shape]
            captured.look(often=True)
            if captured.state is State.REFUSED:
                return model(Tensor(x, backend=b)).data
            x_in[...] = x
            captured.advance()
        y: Array = captured.result
        return y

    def _new(self, b: Backend, x: Array) -> tuple[Captured, Array]:
        known, x_in = self._model, b.empty_like(x)

        def work(tick: Array, k: int) -> Array:
            model: Any = known()
            y: Array = model(Tensor(x_in, backend=b)).data
            return y

        captured = Captured(
            b,
            work,
            lambda: Fingerprint({"model": known()}),
            what="predicting without captured passes",
        )
        return captured, x_in
