"""The one number by which an update multiplies all gradients.

Three things decide it: clipping by the global norm, the loss scale of a float16 network, and a
guard that keeps a loss that is NaN or infinite from the parameters. `Factor` puts them together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import in_range, lookup
from gpunn.backends import Backend, Elementwise
from gpunn.fingerprint import Same, Tracked
from gpunn.ops.elementwise_losses import SCALED
from gpunn.optim.flat import FlatParameters
from gpunn.typing import Array

MODES = {"stop": 0, "skip": 1, "ignore": 2}
"""What a loss that is not finite does; see `Trainer`."""

# clipping ----------------------------------------------------------------------------------------


def _norm_body(x: Array, norm: Array) -> None:
    flat = x.reshape(-1)
    norm += np.dot(flat, flat)


NORM = Elementwise(
    "norm",
    "x -> sum norm",
    numpy=_norm_body,
    cuda="norm = x * x;",
    once="norm = sqrt(norm);",
    numpy_once=lambda x, norm: np.sqrt(norm, out=norm),
)


def clip_factor(norm: float, limit: float) -> float:
    """What gradients of a norm are multiplied by; NaN where the norm is infinite or NaN."""
    return 1.0 + (norm - norm) if norm <= limit else limit / norm + (norm - norm)


CLIP_FACTOR_CUDA = """
__device__ inline T clip_factor(T norm, T limit) {  // NaN where the norm is not finite
  return (norm > limit ? limit / norm : T(1)) + (norm - norm);
}
"""


CLIP_FACTOR = Elementwise(
    "clip_factor",
    "norm, T limit -> factor",
    numpy=lambda norm, limit, factor: factor.fill(clip_factor(float(norm), limit)),
    cuda="factor = clip_factor(norm, limit);",
    preamble=CLIP_FACTOR_CUDA,
)


def global_norm(flat: FlatParameters) -> Array:
    """The Euclidean norm of all gradients together, a 0-d array of the device."""
    return flat.backend.launch(NORM, flat.grad)


def clip_by_global_norm(flat: FlatParameters, max_norm: float) -> Array:
    """Scale all gradients by one factor so that their global norm is at most `max_norm`.

    A norm that is not finite makes every gradient NaN, so that it does not pass unnoticed.

    Args:
        flat: the parameters, `optimizer.bound`.
        max_norm: above 0.

    Returns:
        The norm before clipping, a 0-d array of the device.

    Raises:
        ArgumentError: max_norm is not above 0.

    Reference:
        Pascanu et al. (2013).
    """
    b, norm = flat.backend, global_norm(flat)
    factor = b.launch(CLIP_FACTOR, norm, check_max_norm(max_norm))
    b.launch(SCALED, factor, flat.grad, 1.0, out=flat.grad)
    return norm


def check_max_norm(max_norm: float) -> float:
    """A limit on a norm, above 0.

    Raises:
        ArgumentError: it is none.
    """
    return in_range("max_norm", max_norm, float(np.finfo(np.float32).tiny))


# the loss scale ----------------------------------------------------------------------------------


def _rescale(
    norm: Array, limit: float, interval: int, factor: Array, scale: Array, good: Array
) -> None:
    if not np.isfinite(norm):
        factor[...], good[...] = 0, 0
        scale[...] = max(float(scale) / 2, 1.0)
        return
    old = float(scale)
    factor[...] = (clip_factor(float(norm) / old, limit) if limit else 1.0) / old
    good += 1
    if int(good) == interval:
        good[...], scale[...] = 0, old * 2


RESCALE = Elementwise(
    "rescale",
    "norm, T limit, int64 interval -> factor, scale, int64 good",
    numpy=_rescale,
    cuda=(
        "if (norm - norm != T(0)) { factor = T(0); good = 0; "
        "scale = scale / T(2) > T(1) ? scale / T(2) : T(1); } else { "
        "factor = (limit > T(0) ? clip_factor(norm / scale, limit) : T(1)) / scale; "
        "good = good + 1; if (good == interval) { good = 0; scale = scale * T(2); } }"
    ),
    preamble=CLIP_FACTOR_CUDA,
)


class LossScale(Tracked):
    """Dynamic loss scaling: everything lives on the device, and no step waits for it.

    The gradient of the loss is multiplied by `scale`, so that small gradients survive in float16;
    the update divides by it. A step whose gradients overflowed is skipped and halves the scale;
    `interval` good steps in a row double it.

    Args:
        b: the backend of the parameters.
        start: the first scale.
        interval: good steps after which the scale is doubled.

    Attributes:
        scale: 0-d float32 array of the device.
        good: 0-d int64 array, good steps since the scale changed.

    Reference:
        Micikevicius et al. (2018), section 3.2.
    """

    def __init__(self, b: Backend, start: float = 2.0**16, interval: int = 2000) -> None:
        self.backend, self.interval = b, interval
        self.scale = b.full((), start, np.float32)
        self.good = b.zeros((), np.int64)
        self._factor = b.zeros((), np.float32)

    def __fingerprint__(self) -> dict[str, Any]:
        return {"interval": self.interval, "scale": Same(self.scale), "good": Same(self.good)}

    def arrays(self) -> dict[str, Array]:
        """The scale and the good steps where they live."""
        return {"scale": self.scale, "good": self.good}

    def factor(self, flat: FlatParameters, clip_norm: float | None) -> Array:
        """What the update multiplies the gradients by, 0 where one of them is not finite.

        Clipping by the global norm, if there is any, is part of it.
        """
        b = self.backend
        norm = b.launch(NORM, flat.grad)
        out = (self._factor, self.scale, self.good)
        b.launch(RESCALE, norm, clip_norm or 0.0, self.interval, out=out)
        return self._factor

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set what `state_dict` gave.

        Raises:
            ArgumentError: a number outside its range. Nothing is set.
        """
        scale = in_range("scale", float(state["scale"]), 1.0)
        good = in_range("good", int(state["good"]), 0, self.interval)
        self.scale.fill(scale)
        self.good.fill(int(good))

    def state_dict(self) -> dict[str, Any]:
        """The scale and the good steps, on the host."""
        return {
            "scale": self.backend.download(self.scale),
            "good": self.backend.download(self.good),
        }


# losses that are not finite ----------------------------------------------------------------------


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


class Guard(Tracked):
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

    def __fingerprint__(self) -> dict[str, Any]:
        return {"mode": self.mode, "state": tuple(map(Same, self.state()))}

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


# all of it ---------------------------------------------------------------------------------------


class Factor(Tracked):
    """Computes what an update multiplies the gradients by.

    Args:
        clip_norm: largest global norm of the gradients, or None.
        scale: the loss scale of a float16 network, or None.
        guard: keeps a loss that is not finite from the parameters, or None.

    Raises:
        ArgumentError: clip_norm is not above 0.
    """

    def __init__(
        self,
        clip_norm: float | None = None,
        scale: LossScale | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.clip_norm = None if clip_norm is None else check_max_norm(clip_norm)
        self.scale, self.guard = scale, guard

    def of(self, flat: FlatParameters, loss: Array) -> tuple[Array | None, Array]:
        """The factor for the gradients of a loss, and the loss as it counts.

        Args:
            flat: the parameters with their gradients.
            loss: 0-d array of the device.

        Returns:
            A 0-d array of the device, None for 1; and the loss, 0 where it is not to be counted.
        """
        factor = None
        if self.scale is not None:
            factor = self.scale.factor(flat, self.clip_norm)
        elif self.clip_norm is not None:
            factor = flat.backend.launch(CLIP_FACTOR, global_norm(flat), self.clip_norm)
        guard = self.guard
        if guard is None:
            return factor, loss
        factor = guard.factor(loss, flat.backend.one(flat.dtype) if factor is None else factor)
        return factor, guard.kept if guard.mode == "skip" else loss

    def state(self) -> tuple[Array, ...]:
        """The arrays that a step changes."""
        found = () if self.guard is None else self.guard.state()
        return found if self.scale is None else (*found, *self.scale.arrays().values())
