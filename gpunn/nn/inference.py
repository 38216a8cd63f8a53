"""The forward pass as a CUDA graph, for batches of the same shape again and again."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from gpunn.autograd import Tensor
from gpunn.backends.base import Graph
from gpunn.errors import CaptureError
from gpunn.log import logger
from gpunn.typing import Array, Shape

if TYPE_CHECKING:
    from gpunn.nn.module import Module

MAX_SHAPES = 4  # of which graphs are kept, since each holds the activations of a batch


class CapturedForward:
    """Runs a model in evaluation mode: the first batch of a shape eagerly, later ones as a graph.

    A graph repeats what was launched when it was recorded. Weights that change in place are seen;
    when anything that the model consists of is replaced, its graphs are forgotten.
    """

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._graphs: dict[Shape, tuple[Graph, Array, Array] | None] = {}
        self._refused = False

    def __call__(self, model: Module, x: Array) -> Array:
        """The outputs of a model, whose backend can capture, for a batch of its device and dtype.

        The array is overwritten by the next call with this shape.
        """
        parts = model_parts(model)
        if not same_parts(parts, self._parts):
            self._parts, self._refused = parts, False
            self._graphs.clear()
        b, shape = model.backend, tuple(x.shape)
        if self._refused or (shape not in self._graphs and len(self._graphs) == MAX_SHAPES):
            return model(Tensor(x, backend=b)).data
        with b.own_stream():
            if shape not in self._graphs:
                self._graphs[shape] = None
                return model(Tensor(x, backend=b)).data
            found = self._graphs[shape] or self._record(model, x)
            if found is None:
                return model(Tensor(x, backend=b)).data
            graph, x_in, y = found
            x_in[...] = x
            graph.launch()
        return y

    def _record(self, model: Module, x: Array) -> tuple[Graph, Array, Array] | None:
        b = model.backend
        x_in, ys = b.empty_like(x), []

        def forward() -> list[Array]:
            ys.append(model(Tensor(x_in, backend=b)).data)
            return ys

        try:
            graph = b.record(forward)
        except CaptureError as error:
            logger.warning("predicting without captured passes: %s", error)
            self._refused = True
            return None
        found = self._graphs[tuple(x.shape)] = (graph, x_in, ys[0])
        return found


def model_parts(model: Module) -> list[Any]:
    """Everything that decides what a forward pass launches.

    Modules weakly: the model holds this list, and would else hold itself and its memory.
    """
    parts: list[Any] = [value.data for _, value in model.state()]
    for module in model.modules():
        parts.append(weakref.ref(module))
        for name, value in vars(module).items():
            if not isinstance(value, CapturedForward):
                parts += [name, value.data if isinstance(value, Tensor) else value]
    return parts


def same_parts(parts: list[Any], before: list[Any]) -> bool:
    """Whether two lists hold the same objects, or equal numbers and strings."""
    return len(parts) == len(before) and all(
        a is b or (isinstance(a, str | int | float) and type(a) is type(b) and a == b)
        for a, b in zip(parts, before, strict=True)
    )
