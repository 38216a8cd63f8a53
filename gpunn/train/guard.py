"""What happens in a step whose loss is NaN or infinite, decided on the device."""

from __future__ import annotations

import numpy as np

from gpunn.arguments import lookup
from gpunn.backends import Backend, Elementwise
from gpunn.typing import Array

MODES = {"stop": 0, "skip": 1, "ignore": 2}


def _guard(
    loss: Array,
    times: Array,
    skip: int,
    factor: Array,
    kept: Array,
    first: Array,
    count: Array,
    steps: Array,
) -> None:
    steps += 1
    finite = bool(np.isfinite(loss))
    if not finite:
        count += 1
        if not first:
            first[...] = steps
    factor[...] = times if (finite if skip else not first) else 0
    kept[...] = loss if finite else 0


GUARD = Elementwise(
    "guard",
    "loss, times, int64 skip -> factor, kept, int64 first, int64 count, int64 steps",
    numpy=_guard,
    cuda=(
        "steps = steps + 1; const bool finite = loss - loss == T(0); "
        "if (!finite) { count = count + 1; if (first == 0) first = steps; } "
        "factor = (skip ? finite : first == 0) ? times : T(0); kept = finite ? loss : T(0);"
    ),
)


class Guard:
    """Looks at the loss of every step where it is, and keeps a broken one from the parameters.

    With "stop" no step after the first broken one changes a parameter, so at the end of the epoch
    the parameters are those with which it broke; with "skip" only the broken steps change none.

    Args:
        b: the backend.
        mode: "stop" or "skip".
        dtype: of the parameters.

    Attributes:
        first: 0-d int64, the first broken step since `begin`, counted from 1; 0 for none.
        count: 0-d int64, how many there were since the guard was made.
        kept: 0-d, the loss of the last step, or 0 where it was not finite.
    """

    def __init__(self, b: Backend, mode: str, dtype: np.dtype) -> None:
        lookup("on_nonfinite", mode, MODES)
        self.backend, self.mode = b, mode
        self.first, self.count, self._steps = (b.zeros((), np.int64) for _ in range(3))
        self._factor, self.kept = (b.zeros((), dtype) for _ in range(2))

    def begin(self, batch: int = 0) -> None:
        """Count steps from this batch of an epoch."""
        self.first.fill(0)
        self._steps.fill(batch)

    def state(self) -> tuple[Array, ...]:
        """What a step changes."""
        return self._factor, self.kept, self.first, self.count, self._steps

    def factor(self, loss: Array, times: Array) -> Array:
        """What the update multiplies the gradients by: `times`, or 0 to change nothing."""
        self.backend.launch(GUARD, loss, times, MODES[self.mode], out=self.state())
        return self._factor
