"""What makes the kernels of an update rule out of its formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backends import Elementwise, scratch_like
from gpunn.typing import Array

RULES: dict[str, Rule] = {}
"""Every update rule, by name."""

COUNT = "taken = taken + (factor != T(0) ? 1 : 0);"


class Rule:
    """The kernels of an update rule.

    Each multiplies the gradient by `factor`, skips the update where that is 0, and counts the
    steps taken, all in one launch.

    Args:
        name: of the kernel.
        signature: "T momentum -> v": numbers on the left; state arrays on the right.
        numpy: called as `numpy(g, lr, step, numbers..., p, states...)` on chunks, with `step`
            counted from 1.
        cuda: the same for one element.
        cuda_constants: what `cuda` uses and no element decides; compilers take it out of a loop.

    Attributes:
        kernel: "g, factor, lr, numbers -> p, states, taken".
        narrow_kernel: "... -> p, states, narrow, taken"; writes p also in the dtype that products
            are computed in.
    """

    def __init__(
        self,
        name: str,
        signature: str,
        numpy: Callable[..., Any],
        cuda: str,
        cuda_constants: str = "",
    ) -> None:
        self.name = name
        RULES[name] = self
        numbers, states = (part.strip() for part in signature.split("->"))
        inputs = "g, factor, lr" + (f", {numbers}" if numbers else "")
        outputs = "p" + (f", {states}" if states else "")
        place = numbers.count(",") + 1 if numbers else 0  # of p behind the numbers
        text = (
            "const long long step = taken + 1; (void)step; "
            f"{cuda_constants} if (factor != T(0)) {{ g = g * factor; {cuda} }}"
        )

        def body(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
            *arrays, taken = rest
            times = float(factor)
            if times != 0:
                if times != 1:
                    g = np.multiply(g, factor, out=scratch_like(g))
                numpy(g, lr, int(taken) + 1, *arrays)

        def narrow_body(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
            *arrays, narrow, taken = rest
            body(g, factor, lr, *arrays, taken)
            np.copyto(narrow, arrays[place], casting="same_kind")

        self.kernel = Elementwise(
            name,
            f"{inputs} -> {outputs}, one int64 taken",
            numpy=body,
            cuda=text,
            once=COUNT,
            numpy_once=_count,
        )
        self.narrow_kernel = Elementwise(
            f"{name}_narrow",
            f"{inputs} -> {outputs}, narrow, one int64 taken",
            numpy=narrow_body,
            cuda=f"{text} narrow = p;",
            once=COUNT,
            numpy_once=_count,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """There is one rule of a name: a copy of it is itself."""
        return _known, (self.name,)


def _known(name: str) -> Rule:
    return RULES[name]


def _count(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
    taken = rest[-1]
    taken.fill(int(taken) + (float(factor) != 0))
