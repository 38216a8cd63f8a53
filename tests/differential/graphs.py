"""Random expressions against NumPy in float64: their values and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import gpunn as gn
from gpunn import ops

UNARY = {
    "exp": (ops.exp, np.exp),
    "sin": (ops.sin, np.sin),
    "cos": (ops.cos, np.cos),
    "abs": (ops.abs, np.abs),
    "tanh": (ops.tanh, np.tanh),
    "sigmoid": (ops.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    "relu": (ops.relu, lambda x: np.maximum(x, 0)),
    "softmax": (
        lambda x: ops.softmax(x),
        lambda x: (e := np.exp(x - x.max(-1, keepdims=True))) / e.sum(-1, keepdims=True),
    ),
    "root": (lambda x: ops.sqrt(x * x + 1.0), lambda x: np.sqrt(x * x + 1)),
    "logarithm": (lambda x: ops.log(ops.abs(x) + 0.5), lambda x: np.log(np.abs(x) + 0.5)),
    "square": (lambda x: x**2, lambda x: x**2),
    "minus": (lambda x: -x, lambda x: -x),
    "transposed": (lambda x: x.T, lambda x: x.T),
    "flipped": (lambda x: x[::-1], lambda x: x[::-1]),
    "centred": (
        lambda x: x - x.mean(axis=0, keepdims=True),
        lambda x: x - x.mean(axis=0, keepdims=True),
    ),
    "row sums": (lambda x: x * x.sum(axis=1, keepdims=True), lambda x: x * x.sum(1, keepdims=True)),
}
BINARY = {
    "add": (lambda x, y: x + y, np.add),
    "subtract": (lambda x, y: x - y, np.subtract),
    "multiply": (lambda x, y: x * y, np.multiply),
    "divide": (lambda x, y: x / (y * y + 1.0), lambda x, y: x / (y * y + 1)),
    "products": (lambda x, y: x @ y.T @ x, lambda x, y: x @ y.T @ x),
    "beside": (
        lambda x, y: ops.concatenate(x, y, axis=0)[: x.shape[0]] * y,
        lambda x, y: np.concatenate([x, y])[: len(x)] * y,
    ),
}
STEP = 1e-6


def program(rng: np.random.Generator) -> list[tuple[str, list[int]]]:
    """Draw the operations of an expression, each with the numbers of earlier values it reads."""
    lines = []
    for known in range(2, 2 + int(rng.integers(2, 9))):
        kinds = UNARY if rng.random() < 0.6 else BINARY
        count = 1 if kinds is UNARY else 2
        lines.append((str(rng.choice([*kinds])), rng.integers(0, known, count).tolist()))
    return lines


def check(seed: int, device: str = "cpu") -> None:
    """Compare values and gradients of one expression.

    Raises:
        AssertionError: they differ.
    """
    rng = np.random.default_rng(seed)
    lines = program(rng)
    size = int(rng.integers(1, 5))
    arrays = [rng.standard_normal((size, size)) for _ in range(2)]
    weight = rng.standard_normal((size, size))
    # the scales of a run are constants of the expression, so they are computed only once
    scales = scales_of(lines, arrays)

    def value(inputs: list[Any]) -> Any:
        return numbers(lines, inputs, scales, 1)

    tensors = [gn.tensor(a, requires_grad=True, device=device) for a in arrays]
    y = numbers(lines, tensors, scales, 0)
    expected = value(arrays)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-9, atol=1e-9)
    (y * gn.tensor(weight, device=device)).sum().backward()
    for k, (tensor, array) in enumerate(zip(tensors, arrays, strict=True)):
        slope = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in arrays]
                moved[k][place] += sign * STEP
                ends.append((value(moved) * weight).sum())
            slope[place] = (ends[0] - ends[1]) / (2 * STEP)
        found = (
            np.zeros_like(array) if tensor.grad is None else tensor.backend.download(tensor.grad)
        )
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)


def scales_of(lines: list[tuple[str, list[int]]], arrays: list[Any]) -> list[float]:
    """Return a factor for each value, so that no expression overflows."""
    values, scales = list(arrays), []
    for name, places in lines:
        found = {**UNARY, **BINARY}[name][1](*(values[place] for place in places))
        scales.append(1.0 / (1.0 + float(np.abs(found).mean())))
        values.append(found * scales[-1])
    return scales


def numbers(
    lines: list[tuple[str, list[int]]], inputs: list[Any], scales: list[float], which: int
) -> Any:
    """Compute the sum of all values of an expression with gpunn (0) or NumPy (1)."""
    values = list(inputs)
    for (name, places), scale in zip(lines, scales, strict=True):
        function = {**UNARY, **BINARY}[name][which]
        values.append(function(*(values[place] for place in places)) * scale)
    total = values[2]
    for more in values[3:]:
        total = total + more
    return total
