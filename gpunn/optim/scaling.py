"""The loss scale that keeps the gradients of a float16 network within float16's range."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.backends import Backend, Elementwise
from gpunn.optim.clipping import CLIP_FACTOR_CUDA, NORM, clip_factor
from gpunn.optim.flat import FlatParameters
from gpunn.typing import Array


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


class LossScale:
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
