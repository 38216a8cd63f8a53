"""Join modules that are wired as in an ONNX graph, in a sequence where they are one."""

from __future__ import annotations

from typing import Any, NamedTuple

from gpunn.interop.onnx_match import Layer, Refused, RefusedNodesError, about
from gpunn.interop.onnx_source import Node
from gpunn.nn import Ensemble, Graph, Linear, Module, Residual, Sequential, Sum
from gpunn.nn.init import undrawn

MAX_NESTED = 15  # shortcuts inside shortcuts; a model file has about 40 containers inside others


class Step(NamedTuple):
    """A module of the network.

    Attributes:
        inputs: the names of the values that it takes.
        layer: the module, which is not built yet.
        mean: for the mean of several networks, the options of `Ensemble`; None for others.
        node: the last operator that it stands for.
    """

    inputs: tuple[str, ...]
    layer: Layer
    mean: dict[str, Any] | None
    node: Node


class Network:
    """The builder of a network from its steps.

    A value dominates another if all ways from the input to the other lead through it. Between two
    neighbours in this order there is one module, a shortcut, an ensemble, or a `Graph`.

    Args:
        start: the name of the input.
        steps: the modules by the names of their outputs, each behind its inputs.
    """

    def __init__(self, start: str, steps: dict[str, Step]) -> None:
        self.steps = steps
        self._before = {start: start}  # the closest value that dominates each
        self._depth = {start: 0}
        self._takers: dict[str, list[str]] = {}
        self._built: dict[Any, Module] = {}
        for name, step in steps.items():
            found = step.inputs[0]
            for each in step.inputs[1:]:
                found = self._common(found, each)
            self._before[name], self._depth[name] = found, self._depth[found] + 1
            for each in step.inputs:
                self._takers.setdefault(each, []).append(name)

    def between(self, start: str, end: str, nested: int = 0) -> Module:
        """Return the network from a value to one that it dominates."""
        parts = []
        while end != start:
            parts.append(self._segment(self._before[end], end, nested))
            end = self._before[end]
        return parts[0] if len(parts) == 1 else Sequential(*reversed(parts))

    def _common(self, one: str, other: str) -> str:
        while one != other:
            if self._depth[one] < self._depth[other]:
                one, other = other, one
            one = self._before[one]
        return one

    def _segment(self, start: str, end: str, nested: int) -> Module:
        """Return the module, or the graph, from a value to the next one that it dominates."""
        module, inputs = self._module(end, nested)
        if inputs == (start,):
            return module
        names, nodes, counts = {start: "x"}, dict[str, Any](), dict[str, int]()
        taken, pending = {end: (module, inputs)}, [*inputs]
        while pending:
            name = pending.pop()
            if name != start and name not in taken:
                taken[name] = self._module(name, nested)
                pending += taken[name][1]
        for name in (each for each in self.steps if each in taken):
            module, inputs = taken[name]
            kind = type(module).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            names[name] = f"{kind}_{counts[kind]}"
            nodes[names[name]] = module, [names[each] for each in inputs]
        return Graph(nodes)

    def _needed(self, start: str, end: str) -> set[str]:
        """Return the values behind `start` that `end` is computed from, itself included."""
        found, pending = set[str](), [end]
        while pending:
            name = pending.pop()
            if name != start and name not in found:
                found.add(name)
                pending += self.steps[name].inputs
        return found

    def _around(self, name: str, nested: int) -> tuple[str, ...]:
        """Return the values that an ensemble or a shortcut takes inside; none for other modules."""
        step, start = self.steps[name], self._before[name]
        if step.mean is not None:
            return step.inputs
        others = [each for each in step.inputs if each != start]
        if step.layer.make is not Sum or len(step.inputs) != 2 or len(others) != 1:
            return ()
        inside = self._needed(start, others[0])
        own = all({*self._takers[each]} <= inside | {name} for each in inside)
        return (others[0],) if own and nested < MAX_NESTED else ()

    def _module(self, name: str, nested: int) -> tuple[Module, tuple[str, ...]]:
        """Return the module of a value, and what it takes."""
        step, start = self.steps[name], self._before[name]
        inside = self._around(name, nested)
        if inside and nested > MAX_NESTED:
            raise RefusedNodesError([Refused(step.node, "it is a mean inside too many others")])
        parts = [self.between(start, each, nested + 1) for each in inside]
        if step.mean is not None:
            with about(step.node):
                return Ensemble(parts, **step.mean), (start,)
        if parts:
            return Residual(parts[0]), (start,)
        key = step.layer.key or name
        if key not in self._built:
            self._built[key] = _build(step)
        return self._built[key], step.inputs


def _build(step: Step) -> Module:
    """Build a module with its weights."""
    layer = step.layer
    assert layer.make is not None
    with about(step.node):
        if layer.state is None:
            return layer.make()
        with undrawn():
            module = layer.make()
        module.load_state_dict(layer.state())
    if isinstance(module, Linear) and layer.activation is not None:
        module.activation = layer.activation
    return module
