"""What layers and networks have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from gpunn.autograd import Tensor, no_grad
from gpunn.autograd.engine import Leaf
from gpunn.backends import Backend, Device, RandomStream, backend
from gpunn.errors import ArgumentError
from gpunn.examples import BATCH_ROWS
from gpunn.fingerprint import Same, Tracked
from gpunn.names import register
from gpunn.nn.observation import observed
from gpunn.nn.prediction import largest, outputs
from gpunn.storage.state import check_state
from gpunn.typing import Array, DeviceLike

MODULES: dict[str, type[Module]] = {}
"""The module classes that a model file can name."""

Self = TypeVar("Self", bound="Module")


class Parameter(Tracked, Tensor):
    """A tensor that training changes.

    Attributes:
        regularize: whether penalties on the size of weights apply; False for biases.
    """

    __slots__ = ("regularize",)

    def __init__(self, data: Array, *, regularize: bool = True) -> None:
        super().__init__(data, requires_grad=True)
        self.regularize = regularize

    def __fingerprint__(self) -> dict[str, Any]:
        return {"data": Same(self.data)}  # repeated work sees what is written to it


class Buffer(Tracked, Tensor):
    """A tensor that belongs to a module's state but is not trained."""

    __slots__ = ()

    def __fingerprint__(self) -> dict[str, Any]:
        return {"data": Same(self.data)}


class Module(Tracked):
    """A function with parameters. A subclass assigns parameters and modules as attributes.

    It defines `forward`; and `config`, the arguments of its constructor, if `gpunn.save` should
    be able to write it. The backward pass follows from the operations that `forward` calls.
    """

    training = True
    untracked = frozenset(("_captured",))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(MODULES, "module", cls.type_name(), cls, cls.__module__)

    @classmethod
    def type_name(cls) -> str:
        """The name of this class in a model file: short for gpunn's own, else with its module."""
        own = cls.__module__.startswith("gpunn.")
        return cls.__qualname__ if own else f"{cls.__module__}.{cls.__qualname__}"

    @classmethod
    def from_config(cls, **config: Any) -> Module:
        """The module of a `config()`."""
        return cls(**config)

    def forward(self, *inputs: Any) -> Tensor:
        """Compute the output."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def config(self) -> dict[str, Any]:
        """The arguments that make this module again, as JSON values and modules."""
        raise ArgumentError(
            f"got a {type(self).__name__}, which defines no config(); expected one to save its "
            "architecture: define it, or write model.state_dict() with safetensors yourself"
        )

    def __call__(self, *inputs: Any) -> Tensor:
        """The output of `forward`."""
        y = self.forward(*inputs)
        observer = observed.get()
        if observer is not None:
            observer(self, y)
        return y

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or pickle keeps: everything but captured graphs."""
        return {name: value for name, value in vars(self).items() if name != "_captured"}

    def __repr__(self) -> str:
        """The constructor's arguments, and the modules inside, indented."""
        inside = [f"({name}): {child!r}" for name, child in self.children()]
        if inside:
            text = "\n".join(inside).replace("\n", "\n  ")
            return f"{type(self).__name__}(\n  {text}\n)"
        try:
            config = self.config()
        except ArgumentError:
            return f"{type(self).__name__}()"
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in config.items())})"

    # what it consists of -------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """The modules that are attributes, or elements of lists and dicts that are."""
        yield from self._members(Module)

    def _members(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        """Attributes of a kind, and elements of lists and dicts that are attributes."""
        for name, value in vars(self).items():
            if isinstance(value, kind):
                yield name, value
                continue
            parts: Any = ()
            if isinstance(value, list | tuple):
                parts = enumerate(value)
            elif isinstance(value, dict):
                parts = value.items()
            yield from ((f"{name}.{n}", part) for n, part in parts if isinstance(part, kind))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and every module inside it, once each, with dotted names."""
        seen: set[int] = set()

        def walk(module: Module, name: str) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield name, module
            for child_name, child in module.children():
                yield from walk(child, f"{name}.{child_name}" if name else child_name)

        return walk(self, prefix)

    def modules(self) -> Iterator[Module]:
        """This module and every module inside it, once each."""
        return (module for _, module in self.named_modules())

    def _tensors(self, kind: type[Tensor]) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in module._members(kind):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors: every parameter, then every buffer, once each."""
        yield from self._tensors(Parameter)
        yield from self._tensors(Buffer)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, with its dotted name."""
        return self._tensors(Parameter)

    def parameters(self) -> list[Parameter]:
        """Every parameter once."""
        return [parameter for _, parameter in self.named_parameters()]

    @property
    def device(self) -> Device:
        """The device of the parameters and buffers; the default device when there are none."""
        return self.backend.device

    @property
    def backend(self) -> Backend:
        """The backend of the parameters and buffers; the default one when there are none."""
        for _, value in self.state():
            return value.backend
        return backend()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters and buffers; float32 when there are none."""
        for _, value in self.state():
            return value.dtype
        return np.dtype(np.float32)

    # state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Host copies of all parameters and buffers, by name."""
        return {name: value.numpy() for name, value in self.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set all parameters and buffers, in place, one after another.

        Args:
            state: name -> host array of real numbers, or what NumPy makes one of and has a shape
                and a dtype. The values are converted to the model's dtypes.

        Raises:
            ModelFileError: names are missing or left over, a shape differs, or a dtype is not one
                of real numbers. Nothing is set.
        """
        tensors = dict(self.state())
        check_state(state, tensors, exact=False)
        with self.backend.current():
            for name, value in tensors.items():
                value.backend.write(value.data, np.asarray(state[name]))

    def streams(self) -> list[RandomStream]:
        """The random streams of the modules inside, in order."""
        return [
            value
            for module in self.modules()
            for value in vars(module).values()
            if isinstance(value, RandomStream)
        ]

    def to(self: Self, device: DeviceLike) -> Self:
        """Move parameters and buffers to a device, in place; an optimizer is made after it.

        Raises:
            DeviceUnavailableError: the device cannot be used; nothing is moved.
        """
        there = backend(device)
        for _, value in self.state():
            if value.backend is not there:
                value.data = there.upload(value.numpy())
                value.backend = there
                value.node = None if value.node is None else Leaf(value.shape)
        return self

    # modes and use -------------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Put this module and those inside into training mode (or, for False, evaluation)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Put this module and those inside into evaluation mode: dropout does nothing."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without recording inside the block; modes are put back after it."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            with no_grad():
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def predict(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """The outputs for many examples, in evaluation mode: NumPy in, NumPy out; CuPy likewise.

        Host data is moved to the model's device batch by batch, and the outputs back.

        Args:
            x: (N, ...) numbers: an array, a tensor, a frame of pandas or Polars, a sparse matrix,
                or what NumPy makes an array of.
            batch_size: examples at a time.

        Returns:
            (N, ...) outputs, scores for a classifier.

        Raises:
            ShapeError: x has no axis of examples, or does not fit the model.
            DTypeError, DataError: x, or a column of it, does not hold numbers.
            DeviceMismatchError: x lives on another GPU than the model.
        """
        return outputs(self, x, batch_size)

    def classify(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """The class with the highest score for each example: (N,) integers.

        No softmax is needed for this (lecture 001).

        Raises:
            ShapeError: outputs that are not (N, C) with at least two classes. What a single output
                means depends on the loss: `Trainer.classify` knows.
        """
        return largest(outputs(self, x, batch_size))
