"""The base class of layers and networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from reprlib import Repr
from typing import Any, TypeVar

import numpy as np

from gpunn.arguments import flag
from gpunn.autograd import Tensor, no_grad
from gpunn.autograd.engine import Leaf
from gpunn.backends import Backend, Device, RandomStream, backend
from gpunn.errors import ArgumentError
from gpunn.examples import BATCH_ROWS
from gpunn.fingerprint import Latest, Tracked
from gpunn.names import register
from gpunn.nn.decisions import largest
from gpunn.nn.observation import observed
from gpunn.nn.page import html_table, text_table
from gpunn.nn.parameter import Buffer, Parameter
from gpunn.nn.prediction import outputs
from gpunn.storage.state import IncompatibleKeys, check_state, fitted
from gpunn.typing import Array, DeviceLike

MODULES: dict[str, type[Module]] = {}
"""The module classes that a model file can name."""

Self = TypeVar("Self", bound="Module")


def type_name(module: type[Module]) -> str:
    """Return the name of a class of modules in a model file; user classes include their module."""
    own = module.__module__.startswith("gpunn.")
    return module.__qualname__ if own else f"{module.__module__}.{module.__qualname__}"


_evaluating: ContextVar[bool] = ContextVar("gpunn_evaluating", default=False)
_SHORT = Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 6
_SHORT.maxstring = _SHORT.maxother = 200


class Module(Tracked):
    """A function with parameters: the base class of layers and networks.

    A subclass assigns parameters and modules as attributes and defines `forward`. The backward pass
    follows from the operations that `forward` calls. To be saved by `gpunn.save`, the subclass also
    defines `config`, which returns the arguments of its constructor.

    Attributes:
        training: whether the module is in training mode.
        by_chance: whether its initial numbers are others in every run, because nobody gave a seed.
    """

    by_chance = False
    untracked = frozenset(("_captured", "by_chance"))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register(MODULES, "module", type_name(cls), cls, cls.__module__)

    @classmethod
    def from_config(cls, **config: Any) -> Module:
        """Build a module from the values of its `config()`."""
        return cls(**config)

    @property
    def training(self) -> bool:
        """Whether the module is in training mode, as a new one is. False inside `evaluating`."""
        return not _evaluating.get() and vars(self).get("training", True)

    @training.setter
    def training(self, mode: bool) -> None:
        attributes = vars(self)
        if attributes.get("training", True) is not mode:
            Latest.count()
            attributes["training"] = mode

    def forward(self, *inputs: Any) -> Tensor:
        """Compute the output."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor that rebuild this module.

        They are JSON values and modules.
        """
        raise ArgumentError(
            f"got a {type(self).__name__}, which defines no config(); expected one to save its "
            "architecture: define it, or write model.state_dict() with safetensors yourself"
        )

    def __call__(self, *inputs: Any) -> Tensor:
        """Return the output of `forward`."""
        y = self.forward(*inputs)
        observer = observed.get()
        if observer is not None:
            observer(self, y)
        return y

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes that a copy or pickle keeps: all except captured graphs."""
        return {name: value for name, value in vars(self).items() if name != "_captured"}

    def __identity__(self) -> dict[str, Any]:
        parts = {k: v for k, v in vars(self).items() if k not in (*self.untracked, "training")}
        return parts if self.training else {**parts, "training": False}

    def __repr__(self) -> str:
        """Return the type with its modules, indented, or with the arguments of its constructor."""
        inside = [f"({name}): {child!r}" for name, child in self.children()]
        if inside:
            text = "\n".join(inside).replace("\n", "\n  ")
            return f"{type(self).__name__}(\n  {text}\n)"
        try:
            config = self.config()
        except ArgumentError:
            return f"{type(self).__name__}()"
        given = ", ".join(f"{name}={_SHORT.repr(value)}" for name, value in config.items())
        return f"{type(self).__name__}({given})"

    def _repr_html_(self) -> str:
        """Return a table of the modules and their numbers of parameters, for a notebook."""
        return html_table(self)

    def summary(self) -> None:
        """Print the modules and their numbers of parameters.

        Example:
            >>> from gpunn import nn
            >>> nn.Sequential(nn.Linear(4, 8, "relu", seed=0), nn.Linear(8, 3, seed=1)).summary()
            name  module                                                        parameters
            0     Linear(in_features=4, out_features=8, activation='relu', ...          40
            1     Linear(in_features=8, out_features=3, activation='identit...          27
            67 parameters, 268 bytes of float32 on cpu
        """
        print(text_table(self))

    # contents ------------------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules that are attributes or stand in lists, tuples or dicts of attributes.

        Each comes with its name.
        """
        yield from self._members(Module)

    def _members(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        """Yield attributes of a kind, and elements of lists and dicts that are attributes."""
        for name, value in tuple(vars(self).items()):  # another thread may set an attribute
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
        """Return an iterator over this module and all inside it, each once with a dotted name."""
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
        """Return an iterator over this module and all modules inside it, each once."""
        return (module for _, module in self.named_modules())

    def _tensors(self, kind: type[Tensor]) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in module._members(kind):
                if id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the names and tensors of all parameters, then of all buffers, each once."""
        yield from self._tensors(Parameter)
        yield from self._tensors(Buffer)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Return an iterator over all parameters, each once with its dotted name."""
        return self._tensors(Parameter)

    def parameters(self) -> list[Parameter]:
        """Return all parameters, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    @property
    def device(self) -> Device:
        """The device of the parameters and buffers; the default device when there are none."""
        return self.backend.device

    @property
    def backend(self) -> Backend:
        """The backend of the parameters and buffers; the default one when there are none."""
        return self._home()[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters and buffers; float32 when there are none."""
        return self._home()[1]

    def _home(self) -> tuple[Backend, np.dtype[Any]]:
        """Return the backend and the dtype together, from one look at the modules."""
        for _, value in self.state():
            return value.backend, value.dtype
        return backend(), np.dtype(np.float32)

    # state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return host copies of all parameters and buffers, by name."""
        return {name: value.numpy() for name, value in self.state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Set parameters and buffers in place; return `missing_keys` and `unexpected_keys`.

        Args:
            state: name -> host array of real numbers, or an object with a shape and a dtype that
                NumPy can convert. The values are converted to the model's dtypes.
            strict: whether the names must be those of the model; if not, only shared ones are set.

        Raises:
            ModelFileError: shapes differ, names are missing or left over, a dtype is not one of
                real numbers, or a number is beyond the model's dtype. Then nothing is set.
        """
        tensors = dict(self.state())
        other = check_state(state, tensors, exact=False, strict=flag("strict", strict))
        left = {id(tensors.pop(name)) for name in other.missing_keys}
        with self.backend.current():
            for name, array in fitted(state, tensors, "a state").items():
                tensors[name].backend.write(tensors[name].data, array)
        for module in self.modules():
            if module.by_chance and left.isdisjoint(id(t) for _, t in module._members(Tensor)):
                module.by_chance = False
        return other

    def streams(self) -> list[RandomStream]:
        """Return the random streams of the modules inside, in order."""
        return [
            value
            for module in self.modules()
            for value in tuple(vars(module).values())
            if isinstance(value, RandomStream)
        ]

    def to(self: Self, device: DeviceLike) -> Self:
        """Move the parameters and buffers to a device, in place. Create optimizers afterwards.

        Raises:
            DeviceUnavailableError: the device cannot be used. In this case nothing is moved.
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
        """Put this module and all inside it into training mode (for False: evaluation mode)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Put this module and all inside it into evaluation mode, in which dropout does nothing."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Use evaluation mode and no tape inside the block, in this thread only.

        No module is changed: inside the block `training` is False for every module. Another thread
        may train the same modules meanwhile.
        """
        token = _evaluating.set(True)
        try:
            with no_grad():
                yield
        finally:
            _evaluating.reset(token)

    def requires_grad_(self: Self, wanted: bool = True) -> Self:
        """Let training change all parameters inside, or freeze them (for False)."""
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    def zero_grad(self) -> None:
        """Clear the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def predict(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """Compute the outputs for many examples, batch by batch, in evaluation mode.

        The outputs are NumPy arrays for host data and CuPy arrays for CuPy data. Host data is moved
        to the model's device and the outputs are moved back.

        Args:
            x: (N, ...) numbers: an array, a tensor, a frame of pandas or Polars, a sparse matrix,
                rows on disk (`rows.x` of `gn.data.open_rows`), or anything that NumPy can convert
                to an array.
            batch_size: the number of examples in a batch.

        Returns:
            (N, ...) outputs, scores for a classifier.

        Raises:
            ShapeError: x has no axis of examples, or does not fit the model.
            DTypeError, DataError: x, or a column of it, does not hold numbers.
            DeviceMismatchError: x is on another GPU than the model.
        """
        return outputs(self, x, batch_size)

    def classify(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """Return the class with the highest score for each example: (N,) integers.

        No softmax is needed for this (lecture 001).

        Raises:
            ShapeError: the outputs are not (N, C) with at least two classes. The meaning of a
                single output depends on the loss; use `Trainer.classify`.
            DataError: the highest score of an example is NaN or infinite.
        """
        return largest(outputs(self, x, batch_size))
