"""Turn operators of an ONNX graph into modules, by rules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunn.errors import GpunnError
from gpunn.interop.onnx_arithmetic import add, divide, fixed, multiply, scaler, subtract, total
from gpunn.interop.onnx_draft import UNKNOWN
from gpunn.interop.onnx_match import Layer, Match, RefusedError, Rules, added, unchanged
from gpunn.interop.onnx_patterns import activation_at, attributes_of, columns_of, input_of
from gpunn.interop.onnx_proposals import PROPOSALS, chain, second
from gpunn.interop.onnx_source import Node, as_written
from gpunn.interop.onnx_weights import batch_norm, gemm, layer_norm, matmul, rms_norm, slopes
from gpunn.nn import Activate, Concatenate, Dropout
from gpunn.nn.ensemble import LEAST


def match(rules: Rules, node: Node) -> Match:
    """Return the module that stands for the operators that end at one.

    Raises:
        RefusedError: none does.
    """
    for rule in (_mean, _proposed, _activation, RULES.get(node.kind)):
        try:
            found = rule(rules, node) if rule is not None else None
        except (GpunnError, IndexError, ArithmeticError, ValueError) as error:
            raise RefusedError(str(error)) from error
        if found is not None:
            if any(not name or rules.source.is_constant(name) for name in found.inputs):
                raise RefusedError("a constant stands where a network has rows")
            return found
    raise RefusedError(
        "no module computes it with these inputs"
        if node.kind in RULES
        else "gpunn has no module for it"
    )


def _proposed(rules: Rules, node: Node) -> Match | None:
    for propose in PROPOSALS.get(node.kind, ()):
        try:
            modules = list(propose(rules.source, node, rules.dtype))
        except GpunnError:  # the numbers are those of something else
            continue
        for module in modules:
            found = input_of(rules.source, node, module, rules.dtype)
            if found:
                return Match(
                    (found,),
                    lambda width, made=module: Layer(
                        lambda: made,
                        columns_of(made, width, rules.dtype) or width,
                        numbers=sum(tensor.size for _, tensor in made.state()),
                    ),
                )
    return None


def _activation(rules: Rules, node: Node) -> Match | None:
    found = activation_at(rules.source, node, rules.dtype)
    if found is None:
        return None
    function, start = found
    return Match(
        (start,), lambda width: Layer(lambda: Activate(function), width, activation=function)
    )


def _mean(rules: Rules, node: Node) -> Match | None:
    """Return the mean of the outputs, or of the probabilities, of several networks."""
    factor = rules.constant(node, 1, 0) if node.kind == "Mul" else None
    if factor is None or not factor > 0:
        return None
    found = rules.alone(node.inputs[0], "Log", "Add", "Mul")
    share = factor
    if found:
        least, inner = rules.constant(found[1], 1, 0), rules.constant(found[2], 1, 0)
        if least is None or inner is None or not np.isclose(least, rules.dtype.type(LEAST), atol=0):
            return None
        share, temperature = inner, as_written(1 / float(factor))
    addend, terms = (found[-1] if found else node).inputs[0], list[str]()
    while rules.uses.get(addend) == 1 and (part := chain(rules.source, addend, "Add")):
        terms.append(part[0].inputs[1])
        addend = part[0].inputs[0]
    terms = [addend, *reversed(terms)]
    if not np.isclose(
        float(share) * len(terms), 1, rtol=1e-2 if rules.dtype.itemsize < 4 else 1e-6
    ):
        return None
    if not found:
        if len(terms) < 2 or any(rules.source.is_constant(term) for term in terms):
            return None
        return Match(tuple(terms), lambda *widths: added(widths), {})
    ends = [chain(rules.source, term, "Softmax") for term in terms]
    if not all(ends) or any(attributes_of("Softmax", e[0].attributes)["axis"] != -1 for e in ends):
        return None
    options = {"average": "probabilities", "temperature": temperature}
    return Match(tuple(end[0].inputs[0] for end in ends), lambda *widths: added(widths), options)


def _same_rows(rules: Rules, node: Node) -> Match | None:
    """Return nothing for an operator that leaves (N, D) rows as they are."""
    if node.kind == "Flatten" and attributes_of(node.kind, node.attributes)["axis"] not in (1, -1):
        raise RefusedError("its axis is not 1")
    if node.kind != "Reshape":
        return unchanged(node.inputs[0])
    shape = second(rules.source, node)
    if shape is None or shape.shape != (2,):
        raise RefusedError("its shape is no constant of 2 numbers")
    rows, columns = shape.tolist()

    def layer(width: int) -> Layer:
        if (rows, columns) != (0, -1) and (columns != width or rows == 1):
            raise RefusedError(
                f"the shape {(rows, columns)} is not that of rows of {width} numbers"
            )
        return Layer(None, width)

    return Match((node.inputs[0],), layer)


def _dropout(rules: Rules, node: Node) -> Match | None:
    given = rules.constant(node, 1, 0)
    standard = attributes_of(node.kind, node.attributes)["ratio"]  # an attribute until version 12
    rate = standard if given is None else as_written(float(given))
    make = lambda: Dropout(rate)  # noqa: E731
    return Match((node.inputs[0],), lambda width: Layer(make, width))


def _concatenate(rules: Rules, node: Node) -> Match | None:
    if attributes_of(node.kind, node.attributes).get("axis") != -1:
        raise RefusedError("its axis is not the last one")

    def layer(*widths: int) -> Layer:
        return Layer(Concatenate, UNKNOWN if UNKNOWN in widths else sum(widths))

    return Match(tuple(node.inputs), layer)


RULES: dict[str, Callable[[Rules, Node], Match | None]] = {
    "Gemm": gemm,
    "MatMul": matmul,
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Neg": lambda rules, node: fixed(rules, node.inputs[0], np.zeros(1), -np.ones(1), inverse=True),
    "PRelu": slopes,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "Dropout": _dropout,
    "Flatten": _same_rows,
    "Reshape": _same_rows,
    "Sum": total,
    "Concat": _concatenate,
    "ai.onnx.ml.Scaler": scaler,
    "ai.onnx.ml.ZipMap": _same_rows,
}
"""The rules by the kind of the last operator, behind means, proposals and activations."""
