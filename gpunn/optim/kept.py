"""Arrays that a step writes besides its update, and that a broken step must leave as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunn.autograd import Tensor
from gpunn.backends import Backend, Elementwise
from gpunn.fingerprint import Same, Tracked
from gpunn.ops import identity
from gpunn.ops.loss_reduction import SCALED
from gpunn.typing import Array

SPOILED = Elementwise(
    "spoiled",
    "x -> sum sign",
    numpy=lambda x, sign: np.add(sign, np.sum(x - x), out=sign),
    cuda="sign = x - x;",
)
"""0 if all elements are finite, else NaN."""

SQUARES = Elementwise(
    "squares",
    "x -> sum total",
    numpy=lambda x, total: np.add(total, np.vdot(x, x), out=total),
    cuda="total = x * x;",
)
"""The sum of squares, infinite where it is beyond the range of the dtype."""


def with_sign(loss: Array, sign: Array, marked: Array) -> None:
    """Write the loss, or NaN if the sign is not finite (NumPy)."""
    np.add(loss, sign - sign, out=marked)


WITH_SIGN = Elementwise(
    "with_sign",
    "loss, sign -> marked",
    numpy=with_sign,
    cuda="marked = loss + (sign - sign);",
)
"""The loss, or NaN if the sign is not finite."""

CHOSEN = Elementwise(
    "chosen",
    "saved, int64 go -> x",
    numpy=lambda saved, go, x: None if int(go) else np.copyto(x, saved),
    cuda="if (go == 0) x = saved;",
)


class Kept(Tracked):
    """The values of tensors before a step, to which a broken step sets them back.

    The tensors of a dtype become views of one array, so that a step takes few launches for any
    number of tensors.

    Args:
        b: their backend.
        tensors: the tensors, such as the running values of batch norm.
    """

    def __init__(self, b: Backend, tensors: Iterable[Tensor]) -> None:
        self.backend, self.tensors = b, tuple(tensors)
        self._views: tuple[Array, ...] = ()
        self._parts: tuple[tuple[Array, Array], ...] = ()  # present values, saved values
        self._adopt()

    def __fingerprint__(self) -> dict[str, Any]:
        return {"arrays": tuple(Same(array) for part in self._parts for array in part)}

    def save(self) -> None:
        """Save the present values."""
        if not all(t.data is view for t, view in zip(self.tensors, self._views, strict=True)):
            self._adopt()  # another step has taken the tensors, or they were moved
        for now, saved in self._parts:
            self.backend.launch(identity.kernel, now, out=saved)

    def signs(self) -> list[Array]:
        """Return 0-d arrays of the device that are NaN if a present value is not finite."""
        floats = [now for now, _ in self._parts if now.dtype.kind == "f"]
        return [self.backend.launch(SPOILED, now) for now in floats]

    def settle(self, go: Array) -> None:
        """Set the saved values back if `go`, a 0-d int64 array of the device, is 0."""
        for now, saved in self._parts:
            self.backend.launch(CHOSEN, saved, go, out=now)

    @contextmanager
    def elsewhere(self, number: int) -> Iterator[list[Array]]:
        """Let the tensors live in other arrays inside the block, with the saved values at first.

        Args:
            number: the number of the arrays, from 0. They are the same in every block.

        Yields:
            The arrays of floats, which change inside the block.
        """
        while len(self._others) <= number:
            self._others.append(self._new())
        views, others = self._others[number]
        for (_, saved), other in zip(self._parts, others, strict=True):
            self.backend.launch(identity.kernel, saved, out=other)
        for tensor, view in zip(self.tensors, views, strict=True):
            tensor.data = view
        try:
            yield _floats(others)
        finally:
            for tensor, view in zip(self.tensors, self._views, strict=True):
                tensor.data = view

    def set_back(self) -> None:
        """Set the saved values back."""
        for now, saved in self._parts:
            self.backend.launch(identity.kernel, saved, out=now)

    def moved(self) -> list[Array]:
        """Return the present floats, in arrays of the device that later writes change."""
        return _floats(now for now, _ in self._parts)

    def move(self, sums: list[Array], scale: float) -> None:
        """Write floats, as `moved` returns them, times a number.

        Everything else gets the values that it had when the first block of `elsewhere` ended.
        """
        b = self.backend
        for now, total in zip(self.moved(), sums, strict=True):
            b.launch(SCALED, b.one(now.dtype), total, scale, out=now)
        for (now, _), other in zip(self._parts, self._others[0][1], strict=True):
            if now.dtype.kind != "f":
                b.launch(identity.kernel, other, out=now)

    def _adopt(self) -> None:
        with self.backend.current():
            self._views, present = self._new()
            for tensor, view in zip(self.tensors, self._views, strict=True):
                view[...] = tensor.data
                tensor.data = view
            self._parts = tuple((now, self.backend.empty_like(now)) for now in present)
        self._others: list[tuple[tuple[Array, ...], tuple[Array, ...]]] = []

    def _new(self) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Make arrays for the tensors: a view for each tensor, and the array of each dtype."""
        b, views, arrays = self.backend, dict[Tensor, Array](), list[Array]()
        by_dtype: dict[Any, list[Tensor]] = {}
        for tensor in self.tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for dtype, tensors in by_dtype.items():
            array = b.zeros((sum(t.size for t in tensors),), dtype)
            start = 0
            for tensor in tensors:
                views[tensor] = array[start : start + tensor.size].reshape(tensor.shape)
                start += tensor.size
            # kernels compute in float
            arrays.append(array if dtype.kind == "f" else array.view(np.uint8))
        return tuple(views[tensor] for tensor in self.tensors), tuple(arrays)


def _floats(arrays: Iterable[Array]) -> list[Array]:
    return [array for array in arrays if array.dtype.kind == "f"]
