"""The reduction of the individual losses of a batch to one number, and of their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpunn.arguments import lookup
from gpunn.backends import Backend, Elementwise
from gpunn.errors import DataError
from gpunn.typing import Array

REDUCTIONS = dict.fromkeys(("mean", "sum", "none"))
OF_ELEMENTS = REDUCTIONS | {"batchmean": None}
"""The reductions of losses of elements. "batchmean" divides their sum by the number of rows."""

SCALED = Elementwise(
    "scaled",
    "g, x, T scale -> y",
    numpy=lambda g, x, scale, y: np.multiply(x, g * scale, out=y),
    cuda="y = g * x * scale;",
)


class Reduction(NamedTuple):
    """The reduction of individual losses to one number, and the factors of their gradients.

    Attributes:
        name: "mean", "sum" or "none".
        divisor: the divisor of the sum of the losses.
        scale: the factor by which the kernel multiplies every gradient when it computes it.
        rest: the factor by which the backward pass multiplies. In float16 and bfloat16 it is the
            1 / count of a mean: applied in the kernel, it would round small gradients to 0 before
            a loss scale can lift them.
        mass: the sum of the weights of a weighted mean, a 0-d array of the device. It divides the
            sum after the kernel. None for other reductions.
    """

    name: str
    divisor: int
    scale: float
    rest: float
    mass: Array | None = None

    @classmethod
    def of(
        cls,
        name: str,
        losses: int,
        dtype: Any,
        mass: Array | None = None,
        rows: int | None = None,
    ) -> Reduction:
        """Return the reduction of a number of losses.

        Args:
            name: its name.
            losses: the number of individual losses.
            dtype: the dtype of the predictions.
            mass: the sum of their weights, for a weighted mean.
            rows: the number of rows, if the losses are of elements.

        Raises:
            UnknownNameError: there is no such reduction.
            DataError: there are no losses to reduce.
        """
        lookup("reduction", name, REDUCTIONS if rows is None else OF_ELEMENTS)
        if not losses and name != "none":
            raise DataError("got a loss over no examples; expected at least one: check the batch")
        if mass is not None:
            return cls(name, 1, 1.0, 1.0, mass if name == "mean" else None)
        divisor = losses if name == "mean" else rows if name == "batchmean" and rows else 1
        narrow = np.dtype(dtype).itemsize < 4
        return cls(
            name, divisor, 1.0 if narrow else 1.0 / divisor, 1.0 / divisor if narrow else 1.0
        )

    def of_losses(self, losses: Array, total: Array) -> Array:
        """Return the value of the loss: the individual losses for "none", else their total."""
        return losses if self.name == "none" else total

    def share(self, b: Backend, gl: Array) -> Array:
        """Return the gradient of the sum of the losses, for that of the reduced loss.

        A weighted mean of nothing has no gradient: the mass 0 counts as a tiny one.
        """
        if self.mass is None:
            return gl
        return b.xp.divide(gl, b.xp.maximum(self.mass, np.finfo(self.mass.dtype).tiny))

    def gradient(self, b: Backend, gl: Array, gradients: Array) -> Array:
        """Return the gradients times the gradient of the reduced loss (unchanged if it is 1)."""
        if gl is b.one(gl.dtype) and self.rest == 1.0:
            return gradients
        if self.name == "none" and gl.ndim < gradients.ndim:
            gl = gl[:, None]
        return b.launch(SCALED, gl, gradients, self.rest, out=b.empty_like(gradients))
