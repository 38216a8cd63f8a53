"""Build a network from a module of PyTorch, without importing PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn.backends import device as default_device
from gpunn.backends import resolve_device
from gpunn.backends.dtypes import FLOATS
from gpunn.errors import ArgumentError, GpunnError
from gpunn.interop.onnx_draft import UNKNOWN
from gpunn.nn import (
    Activate,
    BatchNorm,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Module,
    ParametricActivation,
    RMSNorm,
    Sequential,
)
from gpunn.nn.init import undrawn
from gpunn.ops import get_activation
from gpunn.typing import DeviceLike

Array = np.ndarray[Any, Any]


def from_torch(module: Any, *, device: DeviceLike = None) -> Module:
    """Build a network from a `torch.nn.Sequential`, with its weights.

    The outputs are those of PyTorch to rounding, and the layers have the same numbers. PyTorch's
    state can therefore be loaded later with `load_torch_state_dict`. The network is in training
    mode if the module is. A normalisation without weights gets a gamma of 1 and a beta of 0, which
    training changes. `Flatten` behind `Embedding` becomes its `flatten=True`, and elsewhere it does
    nothing: pass (N, D) rows.

    Args:
        module: a `Sequential`, also nested, of `Linear`, activations, `Dropout`, `BatchNorm1d`,
            `LayerNorm`, `RMSNorm`, `Embedding`, `Flatten` and `Identity`; or one of them.
            Subclasses of PyTorch's classes are refused, because they may compute something else.
        device: the device of the network; the default device for None.

    Raises:
        ArgumentError: a module has no counterpart; the message names it. Nothing is built then.
        DeviceUnavailableError: the device cannot be used.
    """
    there = resolve_device(device)
    reading = _Reading(module)
    parts = reading.parts([("", module)])
    with default_device(there):
        built = [part.build() for part in parts]
    net = built[0] if len(built) == 1 else Sequential(*built)
    return net.train(bool(module.training))


@dataclass
class _Part:
    """A module that is not built yet.

    Attributes:
        make: builds it.
        weights: the tensors of PyTorch, in the layout of gpunn, by the names of gpunn.
        activation: the activation that a linear layer gets, or that the module is; None for others.
        linear: whether it is a linear layer.
        codes: whether it is an embedding, and no `Flatten` has joined it.
        flatten: whether one has.
    """

    make: Callable[[], Module]
    weights: dict[str, Array] = field(default_factory=dict)
    activation: Any = None
    linear: bool = False
    codes: bool = False
    flatten: bool = False
    built: Module | None = None

    def build(self) -> Module:
        """Return the module, which is the same each time."""
        if self.built is None and self.weights:
            with undrawn():
                self.built = self.make()
            self.built.load_state_dict(self.weights)
        elif self.built is None:
            self.built = self.make()
        if isinstance(self.built, Linear) and self.activation is not None:
            self.built.activation = self.activation
        if isinstance(self.built, Embedding):
            self.built.flatten = self.flatten
        return self.built


class _Reading:
    """The modules of PyTorch that were read so far.

    Attributes:
        width: the number of columns behind them; UNKNOWN if none tells.
        dtype: the dtype of their weights.
    """

    def __init__(self, module: Any) -> None:
        self.width, self.dtype = UNKNOWN, np.dtype(np.float32)
        self._places = Counter(_ids(module))
        self._parts: dict[int, _Part] = {}
        for tensor in getattr(module, "state_dict", dict)().values():
            if tensor.is_floating_point():
                self.dtype = np.dtype(_name_of(tensor))
                break

    def parts(self, modules: Iterable[tuple[str, Any]]) -> list[_Part]:
        """Return the counterparts of modules in a row, with their names."""
        found = list[_Part]()
        for name, module in modules:
            with _about(name, module):
                part = self._parts[id(module)] = self._parts.get(id(module)) or self._part(
                    name, module
                )
            joined = found[-1] if found else None
            if joined is not None and joined.linear and part.activation is not None:
                joined.activation, joined.linear = part.activation, False
            elif joined is not None and joined.codes and type(module).__name__ == "Flatten":
                joined.flatten, joined.codes = True, False
            else:
                found.append(part)
            once = self._places[id(module)] == 1
            part.linear, part.codes = part.linear and once, part.codes and once
        return found

    def _part(self, name: str, module: Any) -> _Part:
        kind = type(module)
        sequence = kind.__name__ == "Sequential"
        if not kind.__module__.startswith(HOME) or not (sequence or kind.__name__ in COUNTERPARTS):
            raise ArgumentError("gpunn has no counterpart")
        if module._forward_hooks or module._forward_pre_hooks:
            raise ArgumentError("it has hooks, which may compute anything")
        if sequence:
            prefix = f"{name}." if name else ""
            inner = self.parts((f"{prefix}{k}", each) for k, each in module._modules.items())
            return _Part(lambda: Sequential(*(part.build() for part in inner)))
        return COUNTERPARTS[kind.__name__](self, module)

    def numbers(self, tensor: Any) -> Array:
        """Return the numbers of a tensor of PyTorch; bfloat16 as float32."""
        found = tensor.detach().cpu()
        kind = _name_of(tensor)
        self.dtype = np.dtype(kind)
        return np.array((found.float() if kind == "float32" else found).numpy())


def _name_of(tensor: Any) -> str:
    """Return the dtype in gpunn for a tensor of PyTorch: its own, and float32 for bfloat16."""
    name = str(tensor.dtype).rpartition(".")[2]
    if name not in (*FLOATS, "bfloat16"):
        raise ArgumentError(f"its weights are of {name}")
    return "float32" if name == "bfloat16" else name


def _ids(module: Any) -> Iterator[int]:
    """Yield the identities of a module of PyTorch and of those inside, each time one occurs."""
    yield id(module)
    for each in getattr(module, "_modules", {}).values():
        yield from _ids(each)


@contextmanager
def _about(name: str, module: Any) -> Iterator[None]:
    """Name the module of PyTorch in the errors that are raised inside the block."""
    try:
        yield
    except _RefusedError:
        raise
    except (GpunnError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        shown = str(module).partition("\n")[0][:200]
        raise _RefusedError(
            f"got {shown} at {name or 'the top'} ({error}); expected a torch.nn.Sequential of "
            f"{', '.join(sorted(COUNTERPARTS))}: convert the part that consists of them"
        ) from error


class _RefusedError(ArgumentError):
    """A module of PyTorch without a counterpart, which the message names."""


def _linear(reading: _Reading, module: Any) -> _Part:
    weight = reading.numbers(module.weight)
    reading.width, inputs = weight.shape
    weights, outputs = {"weight": weight.T}, reading.width
    if module.bias is not None:
        weights["bias"] = reading.numbers(module.bias)
    options: dict[str, Any] = {"bias": module.bias is not None, "dtype": weight.dtype}
    return _Part(lambda: Linear(inputs, outputs, **options), weights, linear=True)


def _batch_norm(reading: _Reading, module: Any) -> _Part:
    if module.running_mean is None or module.momentum is None:
        raise ArgumentError("ours has running values, with a momentum")
    mean = reading.numbers(module.running_mean)
    variance = reading.numbers(module.running_var)
    weights = _affine(reading, module, len(mean))
    options = {"momentum": module.momentum, "eps": module.eps, "dtype": reading.dtype}
    return _Part(
        lambda: BatchNorm(len(mean), **options),
        weights | {"running_mean": mean, "running_variance": variance},
    )


def _layer_norm(reading: _Reading, module: Any) -> _Part:
    if len(module.normalized_shape) != 1:
        raise ArgumentError("ours normalises the columns of rows")
    (size,) = module.normalized_shape
    weights = _affine(reading, module, size)
    options = {"eps": module.eps, "dtype": reading.dtype}
    return _Part(lambda: LayerNorm(size, **options), weights)


def _rms_norm(reading: _Reading, module: Any) -> _Part:
    if len(module.normalized_shape) != 1:
        raise ArgumentError("ours normalises the columns of rows")
    (size,) = module.normalized_shape
    gamma = _affine(reading, module, size, ("gamma",))
    options = {"eps": module.eps, "dtype": reading.dtype}
    return _Part(lambda: RMSNorm(size, **options), gamma)


def _embedding(reading: _Reading, module: Any) -> _Part:
    if module.max_norm is not None or module.scale_grad_by_freq:
        raise ArgumentError("ours has neither max_norm nor scale_grad_by_freq")
    weight = reading.numbers(module.weight)
    rows, columns = weight.shape
    options = {"padding_idx": module.padding_idx, "dtype": weight.dtype}
    reading.width = UNKNOWN
    return _Part(lambda: Embedding(rows, columns, **options), {"weight": weight}, codes=True)


def _affine(
    reading: _Reading, module: Any, size: int, names: tuple[str, ...] = ("gamma", "beta")
) -> dict[str, Array]:
    reading.width = size
    found = {name: module.weight if name == "gamma" else module.bias for name in names}
    return {
        name: np.full(size, name == "gamma", reading.dtype) if t is None else reading.numbers(t)
        for name, t in found.items()
    }


def _dropout(reading: _Reading, module: Any) -> _Part:
    Dropout(module.p)  # checks the rate
    rate = module.p
    return _Part(lambda: Dropout(rate))


def _slopes(reading: _Reading, module: Any) -> _Part:
    slopes = reading.numbers(module.weight)
    size = reading.width if slopes.size == 1 else slopes.size
    if size == UNKNOWN:
        raise ArgumentError("nothing before it says how many columns it has")
    options = {"activation": "relu", "dtype": slopes.dtype}
    share = 1 - np.broadcast_to(slopes, (size,))
    return _Part(lambda: ParametricActivation(size, **options), {"share": share})


def _nothing(reading: _Reading, module: Any) -> _Part:
    if (getattr(module, "start_dim", 1), getattr(module, "end_dim", -1)) != (1, -1):
        raise ArgumentError("ours takes rows of numbers, and start_dim=1 to end_dim=-1 gives them")
    return _Part(lambda: Activate("identity"))


def _activation(
    own: str, fixed: Mapping[str, tuple[Any, ...]] | None = None, **options: str
) -> Callable[[_Reading, Any], _Part]:
    """Return the conversion of an activation.

    Args:
        own: its name in gpunn.
        fixed: attributes that PyTorch's module must have, with the values that they may have.
        options: for each option in gpunn, the attribute of PyTorch's module.
    """

    def convert(reading: _Reading, module: Any) -> _Part:
        for attribute, values in (fixed or {}).items():
            if getattr(module, attribute) not in values:
                raise ArgumentError(f"ours has {attribute}={values[0]!r}")
        given = {option: float(getattr(module, theirs)) for option, theirs in options.items()}
        standard = getattr(get_activation(own), "options", {}) == given
        function: Any = own if standard else get_activation(own, **given)
        return _Part(lambda: Activate(function), activation=function)

    return convert


def _gelu(reading: _Reading, module: Any) -> _Part:
    own = "gelu" if module.approximate == "none" else f"gelu_{module.approximate}"
    return _activation(own)(reading, module)


HOME = "torch.nn.modules."
ROWS = {"dim": (-1, 1, None)}
"""The axes of rows; None is the last one of (N, D) rows."""

COUNTERPARTS: dict[str, Callable[[_Reading, Any], _Part]] = {
    "Linear": _linear,
    "BatchNorm1d": _batch_norm,
    "LayerNorm": _layer_norm,
    "RMSNorm": _rms_norm,
    "Embedding": _embedding,
    "Dropout": _dropout,
    "Flatten": _nothing,
    "Identity": _nothing,
    "PReLU": _slopes,
    "GELU": _gelu,
    "ReLU": _activation("relu"),
    "LeakyReLU": _activation("leaky_relu", slope="negative_slope"),
    "ELU": _activation("elu", alpha="alpha"),
    "SELU": _activation("selu"),
    "SiLU": _activation("silu"),
    "Mish": _activation("mish"),
    "Softplus": _activation("softplus", {"beta": (1,)}),
    "Sigmoid": _activation("sigmoid"),
    "Tanh": _activation("tanh"),
    "Softmax": _activation("softmax", ROWS),
    "LogSoftmax": _activation("log_softmax", ROWS),
    "ReLU6": _activation("relu6"),
    "Hardswish": _activation("hardswish"),
}
"""The conversions of PyTorch's modules but Sequential, by the names of their classes."""
