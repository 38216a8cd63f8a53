"""Convert weights to and from the names and layouts of PyTorch, without needing PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunn.arguments import flag
from gpunn.autograd import Tensor
from gpunn.errors import ArgumentError, ModelFileError
from gpunn.nn import (
    Activate,
    BatchNorm,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    Module,
    RMSNorm,
    Sequential,
)
from gpunn.ops import get_activation, identity
from gpunn.storage.arrays import open_arrays, pack
from gpunn.storage.atomic import write_atomically
from gpunn.storage.state import IncompatibleKeys, check_names, check_shapes, not_shared

COUNTER = "num_batches_tracked"  # a number in PyTorch's batch norm that changes no output


class Place(NamedTuple):
    """The name of a tensor in PyTorch's state, and whether its axes are swapped there."""

    name: str
    tensor: Tensor
    swapped: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor in PyTorch."""
        return self.tensor.shape[::-1] if self.swapped else self.tensor.shape


def to_torch_state_dict(model: Module) -> dict[str, np.ndarray[Any, Any]]:
    """Return host copies of the weights, named as in the state of an equal `torch.nn.Sequential`.

    In PyTorch, the activation of a `Linear` is a module of its own. It therefore takes a number, as
    a dropout does. The layers of `Sequential(Linear(4, 8, "relu"), Dropout(), Linear(8, 2))` are
    PyTorch's modules 0, 2 and 3. `Linear.weight` is (D, H) in gpunn and (H, D) in PyTorch.

    PyTorch's `LeakyReLU` needs `negative_slope=0.1` to compute the same. All other modules, `GELU`,
    `BatchNorm1d`, `LayerNorm` and `RMSNorm` included, compute the same with their defaults. An
    activation without a module in PyTorch takes a number too, and so does the `Flatten` behind an
    `Embedding` with `flatten=True`.

    Args:
        model: a `Sequential` of linear layers, activations, dropout, embeddings, batch, layer and
            RMS norm, also nested; or one such layer, which is treated as a `Sequential` of one
            layer.

    Returns:
        name -> array, in PyTorch's order.

    Raises:
        ArgumentError: a module has no counterpart in `torch.nn.Sequential`.

    Example:
        >>> state = to_torch_state_dict(Sequential(Linear(3, 2, "relu"), Linear(2, 1)))
        >>> {name: array.shape for name, array in state.items()}
        {'0.weight': (2, 3), '0.bias': (2,), '2.weight': (1, 2), '2.bias': (1,)}
    """
    state: dict[str, np.ndarray[Any, Any]] = {}
    for name, tensor, swapped in _places(model):
        value = tensor.numpy()
        state[name] = np.ascontiguousarray(value.T) if swapped else value
        if name.endswith("running_var"):
            state[f"{name.removesuffix('running_var')}{COUNTER}"] = np.array(0, np.int64)
    return state


def load_torch_state_dict(
    model: Module, state: Mapping[str, Any], strict: bool = True
) -> IncompatibleKeys:
    """Set the weights from the state of an equal `torch.nn.Sequential`, in place.

    Args:
        model: as for `to_torch_state_dict`.
        state: name -> any value that `numpy.asarray` takes, for example a PyTorch tensor on the
            CPU. The values are converted to the dtype of the model.
        strict: whether the names must be those of the model. With False, only the shared ones are
            set.

    Returns:
        `missing_keys` and `unexpected_keys`, as in PyTorch.

    Raises:
        ModelFileError: names are missing or left over, a shape differs, or a value is not an array
            of numbers. In this case nothing is set.
        ArgumentError: a module has no counterpart in `torch.nn.Sequential`.

    Example:
        >>> layer = Linear(2, 1)
        >>> load_torch_state_dict(layer, {"0.weight": [[1.0, 2.0]], "0.bias": [3.0]})
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        >>> layer.predict([[1.0, 1.0]])
        array([[6.]], dtype=float32)
    """
    places = list(_places(model))
    wanted = [place.name for place in places]
    given = [name for name in state if name.rpartition(".")[2] != COUNTER]
    if flag("strict", strict):
        check_names(
            given,
            wanted,
            "a state",
            "those of an equal torch.nn.Sequential: build the same layers, or rename the arrays "
            "(activations and dropouts take a number each)",
        )
    shared = [place for place in places if place.name in state]
    _check_shapes((place, getattr(state[place.name], "shape", place.shape)) for place in shared)
    values = {place.tensor: _value(place, state[place.name]) for place in shared}
    found = {name: values[tensor] for name, tensor in model.state() if tensor in values}
    model.load_state_dict(found, strict=False)
    return not_shared(given, wanted)


def save_torch(model: Module, path: str | Path) -> None:
    """Write the weights with PyTorch's names, as a safetensors file.

    PyTorch reads it with `net.load_state_dict(safetensors.torch.load_file(path))`. The file does
    not hold the architecture; `gpunn.save` writes a file that does.

    Raises:
        ArgumentError: as for `to_torch_state_dict`.
        OutputError: the file cannot be written.
    """
    write_atomically(Path(path), pack(to_torch_state_dict(model)))


def load_torch(model: Module, path: str | Path, strict: bool = True) -> IncompatibleKeys:
    """Set the weights from a safetensors file with PyTorch's names, in place.

    PyTorch writes it with `safetensors.torch.save_file(net.state_dict(), path)`. A `.pt` file is
    refused, because it is a pickle, which may run any code. `strict` and the result are those of
    `load_torch_state_dict`.

    Raises:
        ModelFileError: the file is not a whole safetensors file, or as for `load_torch_state_dict`.
        ArgumentError: as for `load_torch_state_dict`.
    """
    with open_arrays(Path(path)) as file:
        return load_torch_state_dict(model, file, strict)


def _value(place: Place, given: Any) -> np.ndarray[Any, Any]:
    """Return the value that was given for a place, in gpunn's layout."""
    try:
        value = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            f"got {place.name} of type {type(given).__name__}, which NumPy cannot read ({error}); "
            "expected an array on the host: use tensor.detach().cpu(), and .float() for bfloat16"
        ) from error
    if value.dtype.kind not in "fiu":
        raise ModelFileError(
            f"got {place.name} of dtype {value.dtype}; expected real numbers: convert it"
        )
    _check_shapes([(place, value.shape)])
    return value.T if place.swapped else value


def _check_shapes(given: Iterable[tuple[Place, Any]]) -> None:
    shapes = ((place.name, tuple(shape), place.shape) for place, shape in given)
    check_shapes("a state of PyTorch's layout", shapes, "build the layers with the same sizes")


def _places(model: Module) -> Iterator[Place]:
    if isinstance(model, Sequential) and type(model).forward is Sequential.forward:
        return _in_a_row(model.layers, "")
    return _in_a_row([model], "")


def _in_a_row(layers: list[Module], prefix: str) -> Iterator[Place]:
    """Yield the places of a sequence of layers, numbered as in PyTorch."""
    number = 0
    for layer in layers:
        forward = type(layer).forward  # a subclass that overrides forward has no counterpart
        if forward not in COUNTERPARTS:
            raise ArgumentError(
                f"got a {type(layer).__name__} at place {prefix}{number}; expected a layer with a "
                "counterpart in torch.nn.Sequential (Linear, Activate, Dropout, BatchNorm, "
                "LayerNorm, RMSNorm, Embedding, Sequential): write model.state_dict() and name the "
                "arrays yourself"
            )
        yield from COUNTERPARTS[forward](layer, f"{prefix}{number}.")
        number += 2 if _is_two(layer) else 1


def _is_two(layer: Module) -> bool:
    """Return whether the counterpart of a layer is two modules: the second has no weights."""
    if isinstance(layer, Embedding):
        return layer.flatten
    return isinstance(layer, Linear) and get_activation(layer.activation) is not identity


def _linear(layer: Any, prefix: str) -> Iterator[Place]:
    yield Place(f"{prefix}weight", layer.weight, swapped=True)
    if layer.bias is not None:
        yield Place(f"{prefix}bias", layer.bias)


def _embedding(layer: Any, prefix: str) -> Iterator[Place]:
    yield Place(f"{prefix}weight", layer.weight)


def _rms_norm(layer: Any, prefix: str) -> Iterator[Place]:
    yield Place(f"{prefix}weight", layer.gamma)


def _layer_norm(layer: Any, prefix: str) -> Iterator[Place]:
    yield from _rms_norm(layer, prefix)
    yield Place(f"{prefix}bias", layer.beta)


def _batch_norm(layer: Any, prefix: str) -> Iterator[Place]:
    yield from _layer_norm(layer, prefix)
    yield Place(f"{prefix}running_mean", layer.running_mean)
    yield Place(f"{prefix}running_var", layer.running_variance)


def _nothing(layer: Any, prefix: str) -> Iterator[Place]:
    return iter(())


def _nested(layer: Any, prefix: str) -> Iterator[Place]:
    return _in_a_row(layer.layers, prefix)


COUNTERPARTS: dict[Callable[..., Any], Callable[[Any, str], Iterator[Place]]] = {
    Linear.forward: _linear,
    Embedding.forward: _embedding,
    LayerNorm.forward: _layer_norm,
    RMSNorm.forward: _rms_norm,
    BatchNorm.forward: _batch_norm,
    Activate.forward: _nothing,
    Dropout.forward: _nothing,
    Sequential.forward: _nested,
}
"""The places of a module in PyTorch's state, by its `forward` method."""
