"""Update rules: what an optimizer does to one element, as kernels over the flat buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from gpunn.backends import Elementwise, scratch_like
from gpunn.names import at_home_of, home_of, is_own, register
from gpunn.typing import Array

RULES: dict[str, Rule] = {}
"""Every update rule, by name."""

DECAYS = {
    "": "",
    "coupled": "g = g + shrink * p; ",
    "decoupled": "p = p - lr * shrink * p; ",
}
"""The CUDA code of each kind of weight decay, which comes before the rule's own."""

COUNT = "taken = taken + (factor != T(0) ? 1 : 0);"


class Rule:
    """The kernels of an update rule.

    In one launch, a kernel multiplies the gradient by `factor`, lets the parameters decay, updates
    them and counts the step. If the factor is 0, it does nothing.

    Args:
        name: the name of the kernel.
        signature: for example "T momentum -> v", with numbers on the left and state arrays on the
            right.
        numpy: the NumPy body, called on chunks as `numpy(g, lr, step, numbers..., p, states...)`.
            `step` counts from 1. If elements have rates of their own, `lr` is an array.
        cuda: the CUDA body, for one element.
        cuda_constants: CUDA code for values that are the same for all elements. A compiler moves
            it out of the loop.

    Attributes:
        types: the dtype of each number, by name: "T", the parameters' own, or another one.
        formula: the CUDA code of the rule alone, for one element.
        kernels: the kernels by (decay, paced, narrow). The signature of ("", False, False) is
            "g, factor, lr, numbers -> p, states, taken". One with weight decay also takes its
            strength behind the numbers. "coupled" adds shrink * p to the gradient, and "decoupled"
            subtracts lr * shrink * p from p. A paced kernel then takes the factors of every
            element's rate and decay, and leaves elements whose rate has the factor 0 as they are.
            A narrow one also writes p in the dtype that products are computed in.
    """

    def __init__(
        self,
        name: str,
        signature: str,
        numpy: Callable[..., Any],
        cuda: str,
        cuda_constants: str = "",
    ) -> None:
        self.name, self.formula = name, f"{cuda_constants} {cuda}".strip()
        register(RULES, "update rule", name, self, home_of(numpy))
        numbers, states = (part.strip() for part in signature.split("->"))
        named = [part.split() for part in numbers.split(",")] if numbers else []
        self.types = {words[-1]: words[0] if len(words) > 1 else "T" for words in named}
        self.kernels = {
            kind: self._kernel(kind, numbers, states, numpy, cuda, cuda_constants)
            for kind in product(DECAYS, (False, True), (False, True))
        }

    def _kernel(
        self,
        kind: tuple[str, bool, bool],
        numbers: str,
        states: str,
        numpy: Callable[..., Any],
        cuda: str,
        constants: str,
    ) -> Elementwise:
        decay, paced, narrow = kind
        more = [*["T shrink"] * bool(decay), *["pace, fade"] * paced]
        scaled = "shrink = shrink * fade; " if decay else "(void)fade; "
        return Elementwise(
            "_".join(filter(None, (self.name, decay, "paced" * paced, "narrow" * narrow))),
            ", ".join(filter(None, ("g, factor, lr", numbers, *more)))
            + " -> "
            + ", ".join(filter(None, ("p", states, "narrow" * narrow, "one int64 taken"))),
            numpy=_body(numpy, len(self.types), *kind),
            cuda=(
                f"const long long step = taken + 1; (void)step; {constants}"
                f"if (factor != T(0){' && pace != T(0)' * paced}) {{ g = g * factor; "
                f"{('lr = lr * pace; ' + scaled) * paced}{DECAYS[decay]}{cuda} }} "
                + "narrow = p;"
                * narrow
            ),
            once=COUNT,
            numpy_once=_count,
        )

    def __fingerprint__(self) -> None:
        """Return None, because a rule never changes."""

    def __identity__(self) -> dict[str, Any] | str:
        if is_own("update rule", self.name):
            return self.name
        return {"kernel": self.kernels["", False, False]}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a rule as its name, so that a copy of a rule is the same object."""
        return _known, (self.name,)


def _body(
    rule: Callable[..., Any], count: int, decay: str, paced: bool, narrow: bool
) -> Callable[..., Any]:
    """Return the NumPy body of a kernel of a rule.

    Args:
        rule: the rule's own body.
        count: the number of numbers that it takes.
        decay: the kind of weight decay, a key of `DECAYS`.
        paced: whether elements have factors of their rate and decay.
        narrow: whether a narrow copy of p is written.
    """

    @at_home_of(rule)
    def body(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
        times, step, arrays = float(factor), int(rest[-1]) + 1, list(rest[count:-1])
        shrink = float(arrays.pop(0)) if decay else 0.0
        pace, fade = (arrays.pop(0), arrays.pop(0)) if paced else (None, None)
        copy = arrays.pop() if narrow else None
        if times != 0:
            still = None if pace is None else _Still(pace, arrays)
            rate = lr if pace is None else np.multiply(pace, lr, out=scratch_like(pace))
            if times != 1:
                g = np.multiply(g, factor, out=scratch_like(g))
            if decay:
                by = shrink if fade is None else np.multiply(fade, shrink, out=scratch_like(fade))
                g = _decayed(decay, g, rate, by, arrays[0])
            # a number that a schedule moves is read from a 0-d array
            rule(g, rate, step, *map(_number, rest[:count]), *arrays)
            if still is not None:
                still.set_back()
        if copy is not None:
            np.copyto(copy, arrays[0], casting="same_kind")

    return body


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, np.ndarray) else value


def _decayed(decay: str, g: Array, rate: Array, shrink: Array | float, p: Array) -> Array:
    """Let parameters decay, and return the gradient that the rule gets."""
    if decay == "coupled":
        scratch = np.multiply(p, shrink, out=scratch_like(p))
        return np.add(g, scratch, out=scratch)
    np.multiply(p, 1 - (rate if rate.ndim else float(rate)) * shrink, out=p)
    return g


class _Still:
    """The elements of a chunk whose rate has the factor 0, with their values before an update."""

    def __init__(self, pace: Array, arrays: Sequence[Array]) -> None:
        self._where = pace == 0
        self._arrays = arrays if self._where.any() else ()
        self._values = [array[self._where] for array in self._arrays]

    def set_back(self) -> None:
        """Write the values back."""
        for array, values in zip(self._arrays, self._values, strict=True):
            array[self._where] = values


def _known(name: str) -> Rule:
    return RULES[name]


def _count(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
    taken = rest[-1]
    taken.fill(int(taken) + (float(factor) != 0))
