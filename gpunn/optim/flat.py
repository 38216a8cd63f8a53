"""Flat parameters: all parameters of an optimizer in one buffer, all gradients in another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from gpunn.arguments import in_range
from gpunn.autograd import Sink, Tensor
from gpunn.autograd.engine import Leaf
from gpunn.errors import ArgumentError, DeviceMismatchError, DTypeError, GradientError
from gpunn.ops import identity
from gpunn.typing import Array, DType

ALIGN = 64  # bytes; a parameter starts at a cache line, which also fits 16-byte loads


class Spare(NamedTuple):
    """Another buffer for the gradients of flat parameters.

    Attributes:
        array: (P,) the gradients; the elements between two parameters are 0.
        sinks: the part of each parameter.
    """

    array: Array
    sinks: list[Sink]


class FlatParameters:
    """Parameters as views of one flat buffer, with the regularised ones first.

    An update is then one kernel for any number of layers, and the addresses never change. The
    elements between two parameters are always 0.

    Attributes:
        data: (P,) all parameters.
        grad: (P,) all gradients.
        narrow: inside `narrowed`, (P,) a copy of the parameters in the dtype that the network
            computes in; else None.
        weights: the slice of `data` and `grad` that penalties apply to.
        tensors: the parameters, in the order of the buffer.
        parts: the slice of `data` and `grad` that belongs to each parameter.
        factors: two (P,) arrays, the factors of each element's learning rate and of its weight
            decay; None if all are 1. They are 0 for frozen parameters, which require no gradient.

    Args:
        parameters: the parameters.
        decay_biases: whether parameters that penalties do not apply to have weight decay.

    Raises:
        ArgumentError: there are no parameters, or one is not a tensor that requires a gradient.
        DeviceMismatchError: the parameters are on different devices.
        DTypeError: the parameters have different dtypes.
    """

    def __init__(self, parameters: Iterable[Tensor], decay_biases: bool = True) -> None:
        given = list(parameters)
        for tensor in given:
            if not isinstance(tensor, Tensor) or not _trainable(tensor):
                raise ArgumentError(
                    f"got {type(tensor).__name__} to optimize; expected tensors with "
                    "requires_grad=True: pass model.parameters()"
                )
        tensors = list(dict.fromkeys(given))
        if not tensors:
            raise ArgumentError("got no parameters to optimize; expected at least one")
        self.backend = tensors[0].backend
        self.dtype = tensors[0].dtype
        for tensor in tensors:
            if tensor.backend is not self.backend:
                raise DeviceMismatchError(
                    f"got parameters on {self.backend.device} and {tensor.device}; expected one "
                    "device: call model.to(device) first"
                )
            if tensor.dtype != self.dtype:
                raise DTypeError(
                    f"got parameters of {self.dtype} and {tensor.dtype}; expected one dtype: make "
                    "all layers with the same dtype"
                )
        self.decay_biases = decay_biases
        self.tensors = sorted(tensors, key=lambda t: not getattr(t, "regularize", True))
        step = ALIGN // self.dtype.itemsize
        ends = np.cumsum([0, *(-(-t.size // step) * step for t in self.tensors)]).tolist()
        penalised = sum(getattr(t, "regularize", True) for t in self.tensors)
        self.weights = slice(0, ends[penalised])
        self.data = self.backend.zeros((ends[-1],), self.dtype)
        self.grad = self.backend.zeros((ends[-1],), self.dtype)
        self.narrow: Array | None = None
        self._narrow: Array | None = None
        self.views: dict[Tensor, Array] = {}
        self.parts: dict[Tensor, slice] = {}
        self._narrow_views: dict[Tensor, Array] = {}
        self._leaves: list[Leaf | None] = []  # None for a frozen parameter
        self._sinks: list[Sink] = []
        with self.backend.current():
            for tensor, start in zip(self.tensors, ends, strict=False):
                self._adopt(tensor, slice(start, start + tensor.size))
        self.factors: tuple[Array, Array] | None = None
        self._read: tuple[list[float], ...] = ()
        self.read_factors()

    def read_factors(self) -> None:
        """Take over the factors that the parameters have now."""
        read = tuple(
            [self._factor(tensor, name) for tensor in self.tensors]
            for name in ("lr_factor", "decay_factor")
        )
        if read == self._read:
            return
        self._read = read
        if all(factor == 1 for each in read for factor in each):
            self.factors = None
            return
        if self.factors is None:
            self.factors = (
                self.backend.zeros(self.data.shape, self.dtype),
                self.backend.zeros(self.data.shape, self.dtype),
            )
        for array, each in zip(self.factors, read, strict=True):
            on_host = np.ones(self.data.shape, self.dtype)
            for tensor, factor in zip(self.tensors, each, strict=True):
                on_host[self.parts[tensor]] = factor
            self.backend.write(array, on_host)

    def _factor(self, tensor: Tensor, name: str) -> float:
        if tensor.node is None:
            return 0.0
        decays = self.decay_biases or getattr(tensor, "regularize", True)
        if name == "decay_factor" and not decays:
            return 0.0
        return in_range(name, getattr(tensor, name, 1.0), 0.0)

    def __getstate__(self) -> dict[str, Any]:
        """Return the parameters; a copy makes buffers and views of its own."""
        return {"tensors": self.tensors, "decay_biases": self.decay_biases}

    def __setstate__(self, state: dict[str, Any]) -> None:
        FlatParameters.__init__(self, state["tensors"], state.get("decay_biases", True))

    def take_back(self) -> None:
        """Make all parameters views of this buffer again, with their present values.

        Another optimizer may have taken the parameters meanwhile.

        Raises:
            DeviceMismatchError: a parameter is on another device now.
        """
        self.read_factors()
        if self._narrow_views or self._is_whole():
            return
        for tensor in self.tensors:
            if tensor.backend is not self.backend:
                raise DeviceMismatchError(
                    f"got a parameter on {tensor.device} and an optimizer on "
                    f"{self.backend.device}; expected one device: make the optimizer after "
                    "model.to(device)"
                )
        self._leaves.clear()
        self._sinks.clear()
        with self.backend.current():
            for tensor in self.tensors:
                self._adopt(tensor, self.parts[tensor])

    def _is_whole(self) -> bool:
        ours = zip(self.tensors, self._leaves, self._sinks, strict=True)
        return all(
            tensor.data is self.views[tensor] and _is_tied(tensor, leaf, sink)
            for tensor, leaf, sink in ours
        )

    def _adopt(self, tensor: Tensor, part: slice) -> None:
        view: Array = self.data[part].reshape(tensor.shape)
        view[...] = tensor.data
        tensor.data = view
        self.views[tensor], self.parts[tensor] = view, part
        leaf, sink = self._tie(tensor)
        self._leaves.append(leaf)
        self._sinks.append(sink)

    def _tie(self, tensor: Tensor) -> tuple[Leaf | None, Sink]:
        """Let gradients of a parameter go to its part of the buffer; a frozen one has none."""
        leaf, part = tensor.node, self.grad[self.parts[tensor]]
        sink = Sink(part.reshape(tensor.shape))
        if not isinstance(leaf, Leaf):
            part.fill(0)
            return None, sink
        leaf.sink = sink
        if leaf.grad is not None:
            pending, leaf.grad = leaf.grad, None
            leaf.add(self.backend, pending)
        return leaf, sink

    def follow_frozen(self) -> None:
        """Take over which parameters are frozen now."""
        frozen = [leaf is None for leaf in self._leaves]
        now = [tensor.node is None for tensor in self.tensors]
        if frozen == now:
            return
        with self.backend.current():
            for k, tensor in enumerate(self.tensors):
                if frozen[k] != now[k]:
                    self._leaves[k], self._sinks[k] = self._tie(tensor)
        self.read_factors()

    def mute(self) -> None:
        """Set the gradients of frozen parameters to 0, because a penalty may have changed them."""
        for tensor, leaf in zip(self.tensors, self._leaves, strict=True):
            if leaf is None:
                self.grad[self.parts[tensor]].fill(0)

    @contextmanager
    def narrowed(self, dtype: DType) -> Iterator[None]:
        """Let the network compute with copies of its parameters in another dtype.

        Inside the block, an update changes the parameters in full precision, and the copies as
        well. Gradients are in full precision. After the block the network uses its parameters.
        """
        if np.dtype(dtype) == self.dtype:
            yield
            return
        if self._narrow is None or self._narrow.dtype != dtype:
            self._narrow = self.backend.empty(self.data.shape, dtype)
        self.narrow = self._narrow  # the same buffer in every block, because graphs use its address
        self.backend.launch(identity.kernel, self.data, out=self.narrow)
        try:
            for tensor in self.tensors:
                tensor.data = self._narrow_views[tensor] = self.narrow[self.parts[tensor]].reshape(
                    tensor.shape
                )
            yield
        finally:
            for tensor, view in self.views.items():
                tensor.data = view
            self._narrow_views.clear()
            self.narrow = None

    def spare(self, memory: Array | None = None) -> Spare:
        """Return another buffer for the gradients, in memory that is given or in new one."""
        array = self.backend.empty(self.grad.shape, self.dtype) if memory is None else memory
        array.fill(0)
        sinks = [Sink(array[self.parts[t]].reshape(t.shape)) for t in self.tensors]
        return Spare(array, sinks)

    @contextmanager
    def writing_to(self, spare: Spare, *, adds: bool = False) -> Iterator[None]:
        """Let backward passes inside the block write the gradients to a spare buffer.

        Afterwards there are gradients in `grad`, whose content is up to the caller.

        Args:
            spare: the buffer.
            adds: whether they are added to its content.
        """
        for leaf, sink in zip(self._leaves, spare.sinks, strict=True):
            sink.adds = adds
            if leaf is not None:
                leaf.sink = sink
                if adds and leaf.grad is not None:
                    leaf.grad = sink.array
        try:
            yield
        finally:
            for leaf, sink in zip(self._leaves, self._sinks, strict=True):
                if leaf is not None:
                    leaf.sink = sink
                    if leaf.grad is not None:
                        leaf.grad = sink.array

    def zero_grad(self) -> None:
        """Forget all gradients. The next backward pass overwrites them."""
        for leaf in self._leaves:
            if leaf is not None:
                leaf.grad = None

    def note_gradients(self) -> None:
        """Take the content of the buffer as the gradients of all parameters."""
        for leaf, sink in zip(self._leaves, self._sinks, strict=True):
            if leaf is not None:
                leaf.grad = sink.array

    def check_ready(self) -> None:
        """Check that every parameter is still a view of this buffer and has a gradient.

        Raises:
            GradientError: a parameter was moved, replaced or taken by another optimizer, or it has
                no gradient.
        """
        self.follow_frozen()
        views = self._narrow_views or self.views
        ours = zip(self.tensors, self._leaves, self._sinks, strict=True)
        for position, (tensor, leaf, sink) in enumerate(ours):
            if tensor.data is not views[tensor] or not _is_tied(tensor, leaf, sink):
                raise GradientError(
                    f"got parameter {position} of shape {tensor.shape}, which was moved, replaced "
                    "or taken by another optimizer or Trainer; expected it to stay: make the "
                    "optimizer after model.to(device), use the newest one, and write values with "
                    "p.data[...] = values"
                )
            if leaf is not None and leaf.grad is None:
                raise GradientError(
                    f"got no gradient for parameter {position} of shape {tensor.shape}; expected "
                    "one for each: call loss.backward() first, leave out unused parameters, and "
                    "note that no gradient passes a hard_threshold"
                )


def _trainable(tensor: Tensor) -> bool:
    """Return whether an optimizer may have a tensor: a leaf, or a parameter that is frozen now."""
    frozen = tensor.node is None and hasattr(tensor, "regularize")
    return isinstance(tensor.node, Leaf) or frozen


def _is_tied(tensor: Tensor, leaf: Leaf | None, sink: Sink) -> bool:
    """Return whether the gradients of a parameter go where they should."""
    return tensor.node is leaf and (leaf is None or leaf.sink is sink)
