"""The factor by which an update multiplies all gradients.

It combines three things: clipping by the global norm, the loss scale of a float16 network, and a
guard against losses that are NaN or infinite. `Factor` computes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpunn.arguments import check_kind, count, in_range
from gpunn.backends import Backend, Elementwise, widened
from gpunn.fingerprint import Same, Tracked
from gpunn.ops.loss_reduction import SCALED
from gpunn.optim.flat import FlatParameters
from gpunn.optim.guard import Guard
from gpunn.optim.kept import SPOILED, SQUARES, WITH_SIGN
from gpunn.typing import Array

# clipping ----------------------------------------------------------------------------------------


def _norm_body(x: Array, norm: Array) -> None:
    flat = widened(x, np.float64).reshape(-1)
    norm += np.dot(flat, flat)


NORM = Elementwise(
    "norm",
    "x -> sum float64 norm",  # in float the square of 1e20 is infinite, and that of 1e-23 is 0
    numpy=_norm_body,
    cuda="norm = (double)x * (double)x;",
    once="norm = sqrt(norm);",
    numpy_once=lambda x, norm: np.sqrt(norm, out=norm),
)


def clip_factor(norm: float, limit: float) -> float:
    """Return min(1, limit / norm), or NaN if the norm is infinite or NaN."""
    return 1.0 + (norm - norm) if norm <= limit else limit / norm + (norm - norm)


CLIP_FACTOR_CUDA = """
__device__ inline T clip_factor(T norm, T limit) {  // NaN if the norm is not finite
  return (norm > limit ? limit / norm : T(1)) + (norm - norm);
}
"""


CLIP_FACTOR = Elementwise(
    "clip_factor",
    "norm, T limit, int64 go -> factor",
    numpy=lambda norm, limit, go, factor: factor.fill(
        clip_factor(float(norm), limit) if int(go) else 0
    ),
    cuda="factor = go ? clip_factor(norm, limit) : T(0);",
    preamble=CLIP_FACTOR_CUDA,
)


def global_norm(flat: FlatParameters) -> Array:
    """Compute the Euclidean norm of all gradients together, a 0-d array of the device."""
    return flat.backend.launch(NORM, flat.grad, out=flat.backend.empty((), flat.dtype))


def sign_of_gradients(flat: FlatParameters) -> Array:
    """Return a 0-d array of the device that is finite if an update by the gradients is, too.

    It is the sum of their squares in the dtype of the parameters, because optimizers keep squares.
    In float16, whose squares overflow from 256 on, it only tells whether all gradients are finite.
    """
    kernel = SPOILED if flat.dtype.itemsize < 4 else SQUARES
    return flat.backend.launch(kernel, flat.grad)


def clip_by_global_norm(flat: FlatParameters, max_norm: float) -> Array:
    """Scale all gradients by one factor so that their global norm is at most `max_norm`.

    A norm that is not finite makes every gradient NaN, so that the fault is noticed.

    Args:
        flat: the parameters, `optimizer.bound`.
        max_norm: the largest norm, above 0.

    Returns:
        The norm before clipping, a 0-d array of the device.

    Raises:
        ArgumentError: max_norm is not above 0, or `flat` is something else.

    Reference:
        Pascanu et al. (2013).
    """
    check_kind("flat", flat, FlatParameters, "optimizer.bound, or clip_norm to Trainer")
    b, norm = flat.backend, global_norm(flat)
    factor = b.launch(CLIP_FACTOR, norm, check_max_norm(max_norm), b.one(np.int64))
    b.launch(SCALED, factor, flat.grad, 1.0, out=flat.grad)
    return norm


def check_max_norm(max_norm: float) -> float:
    """Check that a limit on a norm is above 0, and return it.

    Raises:
        ArgumentError: `max_norm` is not above 0.
    """
    return in_range("max_norm", max_norm, float(np.finfo(np.float32).tiny))


# the loss scale ----------------------------------------------------------------------------------


def _rescale(
    norm: Array,
    limit: float,
    interval: int,
    go: Array,
    factor: Array,
    scale: Array,
    good: Array,
) -> None:
    if not int(go):
        factor[...] = 0
        return
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
    "norm, T limit, int64 interval, int64 go -> factor, scale, int64 good",
    numpy=_rescale,
    cuda=(
        "if (!go) factor = T(0); else if (norm - norm != T(0)) { factor = T(0); good = 0; "
        "scale = scale / T(2) > T(1) ? scale / T(2) : T(1); } else { "
        "factor = (limit > T(0) ? clip_factor(norm / scale, limit) : T(1)) / scale; "
        "good = good + 1; if (good == interval) { good = 0; scale = scale * T(2); } }"
    ),
    preamble=CLIP_FACTOR_CUDA,
)


class LossScale(Tracked):
    """A dynamic loss scale. Its state is on the device, so no step waits for it.

    The gradient of the loss is multiplied by `scale`, so that small gradients do not become 0 in
    float16. The update divides by the scale. A step whose gradients overflow is skipped, and the
    scale is halved. After `interval` good steps in a row it is doubled.

    Args:
        b: the backend of the parameters.
        start: the first scale.
        interval: the number of good steps after which the scale is doubled.

    Attributes:
        scale: the scale, a 0-d float32 array of the device.
        good: the good steps since the scale changed, a 0-d int64 array of the device.

    Reference:
        Micikevicius et al. (2018), section 3.2.
    """

    def __init__(self, b: Backend, start: float = 2.0**16, interval: int = 2000) -> None:
        self.backend, self.interval = b, count("interval", interval)
        in_range("start", start, 1.0)
        self.scale = b.full((), start, np.float32)
        self.good = b.zeros((), np.int64)
        self._factor = b.zeros((), np.float32)

    def __fingerprint__(self) -> dict[str, Any]:
        return {"interval": self.interval, "scale": Same(self.scale), "good": Same(self.good)}

    def arrays(self) -> dict[str, Array]:
        """Return the arrays of the scale and the good steps, on the device."""
        return {"scale": self.scale, "good": self.good}

    def factor(
        self, flat: FlatParameters, clip_norm: float | None, go: Array | None = None
    ) -> Array:
        """Compute the factor of the gradients, and update the scale.

        The factor is 0 if a gradient is not finite. Else it undoes the scale and, with
        `clip_norm`, clips the gradients by their global norm.

        Args:
            flat: the parameters with their gradients.
            clip_norm: the largest global norm of the gradients, or None.
            go: a 0-d int64 array of the device. If it is 0, the factor is 0, and the scale stays.
                None for 1.
        """
        b = self.backend
        norm = global_norm(flat)
        out = (self._factor, self.scale, self.good)
        go = b.one(np.int64) if go is None else go
        b.launch(RESCALE, norm, clip_norm or 0.0, self.interval, go, out=out)
        return self._factor

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state that `state_dict` returned. If an error is raised, nothing is changed.

        Raises:
            ArgumentError: a number is outside its range.
        """
        scale = in_range("scale", float(state["scale"]), 1.0)
        good = in_range("good", int(state["good"]), 0, self.interval)
        self.scale.fill(scale)
        self.good.fill(int(good))

    def state_dict(self) -> dict[str, Any]:
        """Return host copies of the scale and the good steps."""
        return {
            "scale": self.backend.download(self.scale),
            "good": self.backend.download(self.good),
        }


# the whole factor --------------------------------------------------------------------------------


class Factor(Tracked):
    """The factor by which an update multiplies the gradients.

    Args:
        clip_norm: the largest global norm of the gradients, or None.
        scale: the loss scale of a float16 network, or None.
        guard: the guard against losses that are not finite, or None.

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

    def of(
        self, flat: FlatParameters, loss: Array, rows: int, signs: Iterable[Array] = ()
    ) -> tuple[Array | None, Array]:
        """Compute the factor for the gradients of a loss, and the loss to be counted.

        Args:
            flat: the parameters with their gradients.
            loss: the loss, a 0-d array of the device.
            rows: the rows of the batch.
            signs: further 0-d arrays of the device. If one is not finite, the step is broken.

        Returns:
            The factor, a 0-d array of the device, or None for 1; and the loss, or 0 if the step is
            skipped.
        """
        b, guard, clip, norm = flat.backend, self.guard, self.clip_norm, None
        go, factor = b.one(np.int64), None
        if clip is not None and self.scale is None:
            norm = global_norm(flat)
        if guard is not None:
            gradients = None
            if norm is not None:
                signs = (*signs, norm)
            elif self.scale is None and flat.dtype == loss.dtype:
                gradients = flat.grad
            elif self.scale is None:
                signs = (*signs, sign_of_gradients(flat))
            for sign in signs:
                loss = b.launch(WITH_SIGN, loss, b.cast(sign, loss.dtype))
            factor, go, loss = guard.judge(loss, rows, gradients), guard.go, guard.counted
        if self.scale is not None:
            factor = self.scale.factor(flat, clip, go)
        elif clip is not None:
            factor = b.launch(CLIP_FACTOR, norm, clip, go)
        return factor, loss

    def state(self) -> tuple[Array, ...]:
        """Return the arrays that a step changes."""
        found = () if self.guard is None else self.guard.state()
        return found if self.scale is None else (*found, *self.scale.arrays().values())
