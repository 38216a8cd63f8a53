"""Networks made of modules: in sequence, around a shortcut, or along a directed acyclic graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gpunn.autograd import Tensor
from gpunn.errors import ArgumentError
from gpunn.nn.dropout import Dropout
from gpunn.nn.linear import Activate, Linear
from gpunn.nn.module import Module
from gpunn.ops import add, concatenate


def _as_module(layer: Module | str | Callable[..., Any]) -> Module:
    if isinstance(layer, list | tuple):
        raise ArgumentError(
            f"got a {type(layer).__name__} as a layer; expected layers: use Sequential(*layers)"
        )
    return layer if isinstance(layer, Module) else Activate(layer)


class Sequential(Module):
    """A sequence of layers. A string or a function stands for an activation.

    In training, a linear layer and the dropout behind it run as one operation.

    Args:
        layers: modules, names of activations, or functions of a tensor.

    Example:
        >>> net = Sequential(Linear(64, 32, activation="relu"), Dropout(0.5), Linear(32, 10))
        >>> len(net.parameters())
        4
    """

    def __init__(self, *layers: Module | str | Callable[..., Any]) -> None:
        self.layers = [_as_module(layer) for layer in layers]

    def forward(self, x: Any) -> Tensor:
        """Return the output of the last layer."""
        layers, training = self.layers, self.training
        position = 0
        while position < len(layers):
            layer = layers[position]
            follower = layers[position + 1] if position + 1 < len(layers) else None
            if training and type(layer) is Linear and type(follower) is Dropout:
                x = layer(x, follower)
                position += 1
            else:
                x = layer(x)
            position += 1
        return x if isinstance(x, Tensor) else Tensor(x)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the layers, named by their positions."""
        yield from ((str(position), layer) for position, layer in enumerate(self.layers))

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]

    def config(self) -> dict[str, Any]:
        """Return the layers."""
        return {"layers": list(self.layers)}

    @classmethod
    def from_config(cls, **config: Any) -> Sequential:
        """Build the container from the layers of a `config()`."""
        return cls(*config["layers"])


class Residual(Module):
    """A shortcut around a module, y = x + inner(x)."""

    def __init__(self, inner: Module | str | Callable[..., Any]) -> None:
        self.inner = _as_module(inner)

    def forward(self, x: Any) -> Tensor:
        """Return the sum of x and the output of the inner module."""
        return add(self.inner(x), x)

    def config(self) -> dict[str, Any]:
        """Return the inner module."""
        return {"inner": self.inner}


class Sum(Module):
    """The sum of several inputs."""

    def forward(self, *xs: Any) -> Tensor:
        """Return x_1 + x_2 + ..."""
        y = xs[0]
        for x in xs[1:]:
            y = add(y, x)
        return y if isinstance(y, Tensor) else Tensor(y)

    def config(self) -> dict[str, Any]:
        """Return no arguments."""
        return {}


class Concatenate(Module):
    """The concatenation of several inputs along the last axis."""

    def forward(self, *xs: Any) -> Tensor:
        """Return the inputs side by side, (N, D_1 + D_2 + ...)."""
        return concatenate(*xs, axis=-1)

    def config(self) -> dict[str, Any]:
        """Return no arguments."""
        return {}


class Graph(Module):
    """A directed acyclic graph of modules.

    Args:
        nodes: name -> (module, names of its inputs); a string or a function stands for an
            activation, as in `Sequential`. The input of the network is named "x". Every other
            input must be an earlier node, so the graph has no cycle.
        output: the node whose output is the output of the network; None for the last one.

    Raises:
        ArgumentError: an input is no earlier node, or there are no nodes.

    Example:
        >>> net = Graph({
        ...     "a": (Linear(4, 8, activation="relu"), ["x"]),
        ...     "b": (Linear(8, 8, activation="relu"), ["a"]),
        ...     "y": (Sum(), ["a", "b"]),
        ... })
    """

    def __init__(
        self, nodes: Mapping[str, tuple[Module, Sequence[str]]], output: str | None = None
    ) -> None:
        for name, node in nodes.items():
            if not (isinstance(node, tuple | list) and len(node) == 2):
                raise ArgumentError(
                    f"got node {name!r} as a {type(node).__name__}; expected a module and the "
                    'names of its inputs: write (module, ["x"])'
                )
        known = {"x"}
        for name, (_, inputs) in nodes.items():
            missing = [i for i in inputs if i not in known]
            if missing or not inputs or name in known:
                raise ArgumentError(
                    f"got node {name!r} with inputs {list(inputs)}; expected a new name and inputs "
                    f"among {sorted(known)}: put each node after its inputs"
                )
            known.add(name)
        if not nodes or (output is not None and output not in known - {"x"}):
            raise ArgumentError(
                f"got output {output!r} of {len(nodes)} nodes; expected one of {sorted(known)}: "
                "name a node"
            )
        self.nodes = {name: _as_module(module) for name, (module, _) in nodes.items()}
        self.inputs = {name: list(inputs) for name, (_, inputs) in nodes.items()}
        self.output = output or next(reversed(self.nodes))

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield the nodes, by name."""
        yield from self.nodes.items()

    def forward(self, x: Any) -> Tensor:
        """Return the output of the output node."""
        values = {"x": x}
        for name, module in self.nodes.items():
            values[name] = module(*(values[i] for i in self.inputs[name]))
        y: Tensor = values[self.output]
        return y

    def config(self) -> dict[str, Any]:
        """Return the nodes, the edges and the output."""
        return {"nodes": self.nodes, "inputs": self.inputs, "output": self.output}

    @classmethod
    def from_config(cls, **config: Any) -> Graph:
        """Build the graph from the nodes and edges of a `config()`."""
        nodes = {name: (node, config["inputs"][name]) for name, node in config["nodes"].items()}
        return cls(nodes, config["output"])
