"""A check of gradients against central differences along random directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.autograd.engine import no_grad
from gpunn.autograd.tensor import Tensor, tensor
from gpunn.errors import DTypeError, GradcheckError


def gradcheck(
    function: Callable[..., Tensor],
    *inputs: Any,
    eps: float = 1e-6,
    rtol: float = 1e-6,
    seed: int = 0,
    directions: int = 3,
) -> None:
    """Compare the gradient of `function` with central differences along random directions.

    Let J be the Jacobian, v a random direction of the inputs and gy a random gradient of the
    output. The two numbers <gy, J v> (numerical) and <J' gy, v> (analytic) must agree.

    Args:
        function: a deterministic function that takes one tensor per input and returns a tensor.
        inputs: float64 arrays or tensors, more than `eps` away from kinks.
        eps: the step of the difference.
        rtol: the allowed difference, relative to the largest of 1 and the two numbers.
        seed: the seed of the directions.
        directions: the number of directions.

    Raises:
        GradcheckError: the two numbers disagree; the message compares the first entries.
        DTypeError: an input is not float64.

    Example:
        >>> gradcheck(lambda x: x * x, np.array([1.0, -2.0]))
    """
    arrays = [np.array(x.numpy() if isinstance(x, Tensor) else x) for x in inputs]
    device = next((x.device for x in inputs if isinstance(x, Tensor)), None)
    for array in arrays:
        if array.dtype != np.float64:
            raise DTypeError(f"got {array.dtype} in gradcheck; expected float64: use astype")
    rng = np.random.default_rng(seed)

    def value(points: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        with no_grad():
            return function(*[tensor(p, device=device) for p in points]).numpy()

    for _ in range(directions):
        leaves = [tensor(a, requires_grad=True, device=device) for a in arrays]
        y = function(*leaves)
        gy = rng.standard_normal(y.shape)
        y.backward(y.backend.upload(gy))
        grads = [
            np.zeros(t.shape) if t.grad is None else t.backend.download(t.grad) for t in leaves
        ]
        for array, grad in zip(arrays, grads, strict=True):
            if grad.shape != array.shape:
                raise GradcheckError(
                    f"got a gradient of shape {grad.shape}; expected {array.shape}, the shape of "
                    "the input: correct the backward function"
                )
        vs = [rng.standard_normal(a.shape) for a in arrays]
        ahead = value([a + eps * v for a, v in zip(arrays, vs, strict=True)])
        behind = value([a - eps * v for a, v in zip(arrays, vs, strict=True)])
        numerical = float(np.sum(gy * (ahead - behind)) / (2 * eps))
        analytic = float(sum(np.sum(g * v) for g, v in zip(grads, vs, strict=True)))
        if not abs(numerical - analytic) <= rtol * max(1.0, abs(numerical), abs(analytic)):
            details = _entries(value, arrays, grads, gy, eps)
            raise GradcheckError(
                f"got {analytic!r} along a random direction; expected {numerical!r}, the central "
                f"difference: correct the backward function. Per entry:\n{details}"
            )


def _entries(
    value: Callable[..., Any], arrays: list[Any], grads: list[Any], gy: Any, eps: float
) -> str:
    lines = []
    for k, (array, grad) in enumerate(zip(arrays, grads, strict=True)):
        for index in list(np.ndindex(array.shape))[:64]:
            points = [[a.copy() for a in arrays] for _ in range(2)]
            points[0][k][index] += eps
            points[1][k][index] -= eps
            numerical = float(np.sum(gy * (value(points[0]) - value(points[1]))) / (2 * eps))
            lines.append(
                f"input {k}{list(index)}: analytic {grad[index]!r} numerical {numerical!r}"
            )
    return "\n".join(lines)
