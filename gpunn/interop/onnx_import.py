"""Build a network from an ONNX graph."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import numpy as np

from gpunn.backends import device as default_device
from gpunn.backends import resolve_device
from gpunn.errors import LISTED, GpunnError, ModelFileError
from gpunn.interop.onnx_draft import UNKNOWN
from gpunn.interop.onnx_match import Match, Refused, RefusedError, RefusedNodesError, Rules, about
from gpunn.interop.onnx_network import Network, Step
from gpunn.interop.onnx_rules import match
from gpunn.interop.onnx_source import Source, read_source, unreadable
from gpunn.nn import Module
from gpunn.nn.architecture import MAX_MODULES
from gpunn.storage.untrusted.bounded_json import shortened, shown
from gpunn.typing import DeviceLike

SMALL_BYTES = 2**20
LARGEST_GROWTH = 4  # float16 weights in a float64 network are four times as large
FLAT = {"Flatten", "Reshape"}


def from_onnx(source: Any, *, output: str | None = None, device: DeviceLike = None) -> Module:
    """Build a network from an ONNX model, in evaluation mode.

    The network predicts what a runtime computes from the model, to rounding. It can be trained,
    saved and exported again. `to_onnx` writes such models. Models of other libraries are accepted
    if they are fully connected: `Gemm`, `MatMul` and `Add` become linear layers, and the usual
    activations, normalisations, dropout, sums and concatenations become ours. Numbers that a model
    adds or multiplies elsewhere become a `Standardize`, which training does not change. `Flatten`
    and `Reshape` disappear: pass (N, D) rows.

    The file is treated as untrusted; see docs/untrusted_files.md. A constant in another file is
    read only from the folder of the ONNX file.

    Args:
        source: the path of a file, its bytes, or an `onnx.ModelProto`.
        output: the name of the output that the network computes. None for the only one of floats,
            for example the probabilities of a classifier.
        device: the device of the network; the default device for None.

    Returns:
        A module of the dtype of the output.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelFileError: the file is no ONNX model of one input, or is damaged; or gpunn has no
            module for an operator, which the message names with the reason. Then nothing is built.
        DeviceUnavailableError: the device cannot be used.
    """
    there = resolve_device(device)
    graph, what = read_source(source)
    try:
        with np.errstate(all="ignore"), default_device(there):  # the numbers are the file's
            steps, top = _planned(graph, *_output(graph, output))
            return Network(graph.input, steps).between(graph.input, top).eval()
    except RefusedNodesError as error:
        raise _refusal(what, error.nodes) from error
    except (ValueError, OverflowError) as error:
        raise error if isinstance(error, GpunnError) else unreadable(what, error) from error


def _refusal(what: str, refused: list[Refused]) -> ModelFileError:
    first = "; ".join(
        f"{shown(each.node.name)} ({shown(each.node.kind)[1:-1]}): {shortened(each.why)}"
        for each in refused[:LISTED]
    )
    more = f"; and {len(refused) - LISTED} more" if len(refused) > LISTED else ""
    return ModelFileError(
        f"got {what} with {len(refused)} operators that cannot become modules: {first}{more}. "
        "Expected a fully connected network: export it without them, or pass output= to stop "
        "before them"
    )


def _output(graph: Source, wanted: str | None) -> tuple[str, np.dtype[Any]]:
    """Return the value that the network computes, and its dtype."""
    names = ", ".join(shown(name) for name in list(graph.outputs)[:LISTED])
    if wanted is None:
        chosen = [name for name, (_, dtype) in graph.outputs.items() if dtype is not None]
        chosen = chosen or list(graph.outputs)[-1:]
        if len(chosen) != 1:
            raise ValueError(f"it has the outputs {names}: pass output= with one of them")
        (wanted,) = chosen
    if wanted not in graph.outputs:
        raise ValueError(f"it has no output {wanted!r}, but {names}")
    top, dtype = graph.outputs[wanted]
    return top, np.dtype(np.float32) if dtype is None else dtype


def _planned(graph: Source, top: str, dtype: np.dtype[Any]) -> tuple[dict[str, Step], str]:
    """Return the modules that compute a value, in order and not built yet, and the last one's name.

    Raises:
        RefusedNodesError: no module stands for some operators.
        ValueError: the graph is broken, or the network would be far larger than the file.
    """
    rules = Rules(graph, dtype, _uses(graph, top))
    matches = _matches(rules, top)
    steps, stands = dict[str, Step](), {graph.input: graph.input}
    widths = {graph.input: UNKNOWN if graph.shape is None else prod(graph.shape)}
    numbers = dict[Any, int]()
    for name in [name for name in graph.nodes if name in matches]:
        found, node = matches[name], graph.nodes[name]
        with about(node):
            layer = found.layer(*(widths[each] for each in found.inputs))
        inputs = tuple(stands[each] for each in found.inputs)
        widths[name], stands[name] = layer.width, inputs[0] if layer.make is None else name
        if layer.make is not None:
            steps[name] = Step(inputs, layer, found.mean, node)
            numbers[layer.key or name] = layer.numbers
    size_bytes, read = sum(numbers.values()) * dtype.itemsize, graph.read_bytes
    if len(steps) > MAX_MODULES or size_bytes > max(SMALL_BYTES, LARGEST_GROWTH * read):
        raise ValueError(
            f"it stands for {len(steps)} modules of {size_bytes} bytes; at most {MAX_MODULES} and "
            f"{LARGEST_GROWTH} times the {read} bytes of the file are built"
        )
    return _fused(steps, stands[top])


def _uses(graph: Source, top: str) -> dict[str, int]:
    """Return how many operators take each value, of those that another value needs."""
    uses, seen, pending = {top: 1}, {""}, [top]
    while pending:
        name = pending.pop()
        node = graph.nodes.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        for each in node.inputs:
            uses[each] = uses.get(each, 0) + 1
        pending += node.inputs
    return uses


def _matches(rules: Rules, top: str) -> dict[str, Match]:
    """Return what stands for the values that another one needs, itself included."""
    graph, found, refused, pending = rules.source, dict[str, Match](), dict[str, Refused](), [top]
    while pending:
        name = pending.pop()
        if name == graph.input or name in found or name in refused:
            continue
        node = graph.nodes.get(name)
        if node is None:
            raise ValueError(f"nothing computes {shown(name)}, or only an operator's other output")
        try:
            with about(node):
                found[name] = match(rules, node)
                axes = 1 + len(graph.shape or [0])
                if graph.input in found[name].inputs and axes > 2 and node.kind not in FLAT:
                    raise RefusedError(f"it takes an input of {axes} axes, which are not flat")
            pending += found[name].inputs
        except RefusedNodesError as error:
            refused[name] = error.nodes[0]
            pending += [each for each in node.inputs if each and not graph.is_constant(each)]
    if refused:
        raise RefusedNodesError([refused[name] for name in graph.nodes if name in refused])
    return found


def _fused(steps: dict[str, Step], top: str) -> tuple[dict[str, Step], str]:
    """Return the steps with activations inside the linear layers, and the last one's name.

    Only an activation that is alone in taking the layer's output is joined with it. Layers that
    share their weights are one module, so they keep apart from different activations.
    """
    takers = Counter(each for step in steps.values() for each in step.inputs)
    takers[top] += 1
    after = {
        step.inputs[0]: name
        for name, step in steps.items()
        if step.layer.activation is not None and takers[step.inputs[0]] == 1
    }
    chosen: dict[Any, list[Any]] = {}
    for name, step in steps.items():
        if step.layer.key is not None:
            follower = steps[after[name]].layer.activation if name in after else None
            chosen.setdefault(step.layer.key, []).append(follower)
    found, stands = dict[str, Step](), dict[str, str]()
    for name, step in steps.items():
        functions = chosen.get(step.layer.key, [None]) if step.layer.key is not None else [None]
        if functions[0] is not None and functions.count(functions[0]) == len(functions):
            layer, last = step.layer._replace(activation=functions[0]), after[name]
            inputs = tuple(stands.get(each, each) for each in step.inputs)
            found[name], stands[last] = Step(inputs, layer, None, steps[last].node), name
        elif name not in stands:
            inputs = tuple(stands.get(each, each) for each in step.inputs)
            found[name] = step._replace(inputs=inputs)
    return found, stands.get(top, top)
