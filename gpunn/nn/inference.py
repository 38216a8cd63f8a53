"""Predictions as repeated work, for batches of the same shape again and again."""

from __future__ import annotations

import weakref
from typing import Any, Protocol

from gpunn.autograd import Tensor
from gpunn.backends import Backend
from gpunn.backends.capture import Captured, State
from gpunn.fingerprint import Fingerprint
from gpunn.typing import Array, Shape

MAX_SHAPES = 4  # that are recorded, since each recording holds the activations of a batch


class Model(Protocol):
    """A function of tensors with a device."""

    @property
    def backend(self) -> Backend:
        """The backend of its device."""

    def __call__(self, *inputs: Any) -> Tensor:
        """The outputs."""


class CapturedForward:
    """Runs a model in evaluation mode: the first batch of a shape as usual, later ones repeated.

    Weights that change in place are seen. When anything else that the model consists of changes,
    its passes are recorded anew. The model is held weakly, because it holds this object.

    Args:
        model: whose backend can capture.
    """

    def __init__(self, model: Model) -> None:
        self._model = weakref.ref(model)
        self._shapes: dict[Shape, tuple[Captured, Array]] = {}

    def __call__(self, x: Array) -> Array:
        """The outputs for a batch of the model's device and dtype.

        The array is overwritten by the next call with this shape.
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
