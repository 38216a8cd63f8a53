"""The guard against losses and gradients that are NaN or infinite, on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import lookup
from gpunn.backends import Backend, Elementwise
from gpunn.fingerprint import Same, Tracked
from gpunn.optim.kept import SQUARES, with_sign
from gpunn.typing import Array

MODES = {"stop": 0, "skip": 1, "ignore": 2}
"""The reactions to a loss that is not finite, with the kernel's codes; see `Trainer`."""


def _guard(
    loss: Array,
    skip: int,
    rows: float,
    go: Array,
    factor: Array,
    counted: Array,
    first: Array,
    count: Array,
    steps: Array,
    total: Array,
) -> None:
    steps += 1
    finite = bool(np.isfinite(loss))
    if not finite:
        count += 1
        if not first:
            first[...] = steps
    go[...] = factor[...] = finite if skip else not first
    counted[...] = 0 if skip and not finite else loss
    np.add(total, counted * rows, out=total)


_GUARD_CUDA = (
    "steps = steps + 1; const bool finite = loss - loss == T(0); "
    "if (!finite) { count = count + 1; if (first == 0) first = steps; } "
    "go = (skip ? finite : first == 0) ? 1 : 0; factor = T(go); "
    "counted = skip && !finite ? 0.0 : (double)loss; total = total + counted * rows;"
)

GUARD = Elementwise(
    "guard",
    "loss, int64 skip, float64 rows -> int64 go, factor, float64 counted, int64 first, "
    "int64 count, int64 steps, float64 total",
    numpy=_guard,
    cuda=_GUARD_CUDA,
)


def _judged(g: Array, loss: Array, skip: int, rows: float, squares: Array, *state: Array) -> None:
    marked = np.empty_like(loss)
    with_sign(loss, squares, marked)
    _guard(marked, skip, rows, *state)


JUDGED = Elementwise(
    "judged",
    "g, T value, int64 skip, float64 rows -> sum squares, one int64 go, one factor, "
    "one float64 counted, one int64 first, one int64 count, one int64 steps, one float64 total",
    numpy=lambda g, value, skip, rows, squares, *state: SQUARES.numpy(g, squares),
    numpy_once=_judged,
    cuda="squares = g * g;",
    once="const T loss = value + (squares - squares); " + _GUARD_CUDA,
)
"""`SQUARES` of the gradients, and `GUARD` of the loss with their sign, in one launch.

It computes in the dtype of both, so they must have the same one.
"""


class Guard(Tracked):
    """A guard that checks the loss of every step on the device.

    A step is broken if its loss or the norm of its gradients is not finite, or if a buffer of the
    model is no longer finite. (With a loss scale, an infinite norm only lowers the scale.) In the
    mode "stop", the first broken step and all later ones change nothing. At the end of the epoch
    the parameters are then still those that gave the broken loss. In the mode "skip", only the
    broken steps change nothing.

    Args:
        b: the backend.
        mode: "stop" or "skip".
        dtype: the dtype of the parameters.
        total: a 0-d float64 array of the device; None for a new one.

    Attributes:
        go: 1 if the last step may change something, else 0; a 0-d int64 array.
        first: the first broken step since `begin`, counted from 1, or 0; a 0-d int64 array.
        count: the number of broken steps since the guard was made; a 0-d int64 array.
        counted: the loss of the last step, or 0 if the step was skipped; a 0-d float64 array.
        total: the sum of `counted` times the rows of each step, a 0-d float64 array.
    """

    def __init__(self, b: Backend, mode: str, dtype: np.dtype, total: Array | None = None) -> None:
        lookup("on_nonfinite", mode, MODES)
        self.backend, self.mode = b, mode
        self.go, self.first, self.count, self._steps = (b.zeros((), np.int64) for _ in range(4))
        self._factor, self._squares = (b.zeros((), dtype) for _ in range(2))
        self.counted = b.zeros((), np.float64)
        self.total = b.zeros((), np.float64) if total is None else total

    def __fingerprint__(self) -> dict[str, Any]:
        return {"mode": self.mode, "state": tuple(map(Same, self.state()))}

    def begin(self, batch: int = 0) -> None:
        """Start an epoch at this batch, and forget the first broken step."""
        self.first.fill(0)
        self._steps.fill(batch)

    def state(self) -> tuple[Array, ...]:
        """Return the arrays that a step changes."""
        counts = self.first, self.count, self._steps
        return self.go, self._factor, self.counted, *counts, self.total

    def judge(self, loss: Array, rows: int, gradients: Array | None = None) -> Array:
        """Judge a step: set `go`, add to `total`, and return `go` as a factor of the gradients.

        Args:
            loss: the loss, a 0-d array of the device.
            rows: the rows of the batch.
            gradients: the gradients, whose sum of squares must be finite, too. None if `loss` has
                their sign already.
        """
        b, given = self.backend, (loss, MODES[self.mode], float(rows))
        if gradients is None:
            b.launch(GUARD, *given, out=self.state())
        else:
            b.launch(JUDGED, gradients, *given, out=(self._squares, *self.state()))
        return self._factor
