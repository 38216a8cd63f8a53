"""Layers for the columns of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import pi
from typing import Any

import numpy as np

from gpunn.arguments import count, in_range
from gpunn.autograd import Tensor
from gpunn.backends import Backend, backend
from gpunn.backends.dtypes import float_dtype
from gpunn.backends.random import Draw, is_by_chance, new_stream, normal, uniform
from gpunn.errors import ArgumentError, ShapeError
from gpunn.nn.init import initial
from gpunn.nn.linear import ChosenActivation, described
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.ops import add, multiply, subtract, waves
from gpunn.ops.columns import level_columns
from gpunn.typing import Array, DeviceLike, DType, Shape

NO_CODE = -0.5


class OneHot(Module):
    """A layer that turns codes of categories into columns of 0 and 1.

    The columns of numbers come first, and stay as they are. A category of more than two levels
    becomes one column for each level. A category of two levels becomes one column that is -1 for
    code 0 and 1 for code 1. A code that is no level, such as -1, becomes zeros.

    Args:
        levels: one integer for each column: 0 for numbers, then the number of levels, at least 2,
            of each category.

    Attributes:
        numbers: the number of columns of numbers.
        out_features: the number of columns of the output.

    Raises:
        ArgumentError: the levels are not such integers.

    Example:
        >>> layer = OneHot([0, 3, 2])
        >>> layer(np.array([[0.5, 2, 1], [7, -1, 0]], np.float32)).numpy()
        array([[ 0.5,  0. ,  0. ,  1. ,  1. ],
               [ 7. ,  0. ,  0. ,  0. , -1. ]], dtype=float32)
    """

    def __init__(self, levels: Sequence[int]) -> None:
        self.levels = [count("levels", each, 0) for each in levels]
        self.numbers = next((k for k, each in enumerate(self.levels) if each), len(self.levels))
        if not self.levels or any(each < 2 for each in self.levels[self.numbers :]):
            raise ArgumentError(
                f"got levels={self.levels}; expected 0 for each column of numbers, then at least 2 "
                "for each category: put the numbers first, and leave out constant columns"
            )
        self.out_features = self.numbers + len(self.places()[0])

    def places(self) -> tuple[list[int], list[float], list[float]]:
        """Return what each column behind the numbers looks for.

        Returns:
            The number of a column of codes, the code that becomes 1, and the code that becomes -1.
        """
        column, high, low = list[int](), list[float](), list[float]()
        for place, each in enumerate(self.levels[self.numbers :], self.numbers):
            some = [1] if each == 2 else range(each)
            column += [place] * len(some)
            high += some
            low += [0.0 if each == 2 else NO_CODE] * len(some)
        return column, high, low

    def forward(self, x: Any) -> Tensor:
        """Return (N, out_features) numbers for (N, D) codes."""
        if x.ndim != 2 or x.shape[1] != len(self.levels):
            raise ShapeError(
                f"got x of shape {x.shape}; expected (N, {len(self.levels)}), one column for each "
                "of levels"
            )
        x = x if isinstance(x, Tensor) else Tensor(x)
        places = _on_device(x.backend, x.dtype, tuple(self.levels))
        y: Tensor = level_columns(x, *places, self.numbers)
        return y

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"levels": self.levels}


@lru_cache(maxsize=64)
def _on_device(b: Backend, kind: DType, levels: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Return the places of the layer with these levels as arrays of a device."""
    column, high, low = OneHot(levels).places()
    return (
        b.upload(np.array(column, np.int64)),
        b.upload(np.array(high, kind)),
        b.upload(np.array(low, kind)),
    )


class PeriodicEmbedding(Module):
    """A layer that adds, to the columns, learned sums of waves of each of the first columns.

    e_jk = sum_f weight_jfk cos(2 pi frequency_jf x_j + phase_jf) + bias_jk. The output is x,
    followed by the K sums of each of the first columns.

    Args:
        numbers: n, the number of columns that are embedded, the first ones.
        outputs: K, the number of sums of a column.
        frequencies: F, the number of waves of a column.
        deviation: the standard deviation of the first frequencies.
        seed: the seed of the first parameters; None for another one in every run.
        dtype: the dtype of the parameters.
        device: the device of the parameters; the default device for None.

    Attributes:
        frequency: (n, F) parameter.
        phase: (n, F) parameter, uniform between -pi and pi at first.
        weight: (n, F, K) parameter, uniform between -1/4 and 1/4 at first.
        bias: (n, K) parameter, the same.

    Raises:
        ArgumentError: an argument is outside its range.

    Reference:
        Gorishniy et al. (2022), arXiv 2203.05556; Holzmüller et al. (2024), arXiv 2407.04491.

    Example:
        >>> PeriodicEmbedding(2, seed=0)(np.zeros((5, 4), np.float32)).shape
        (5, 10)
    """

    def __init__(
        self,
        numbers: int,
        outputs: int = 3,
        frequencies: int = 16,
        deviation: float = 0.1,
        *,
        seed: int | None = None,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        n, waves_each, sums = (
            count("numbers", numbers),
            count("frequencies", frequencies),
            count("outputs", outputs),
        )
        self.deviation = in_range("deviation", deviation, 0.0)
        self.by_chance = is_by_chance(seed)
        b, kind, stream = backend(device), float_dtype(dtype), new_stream(seed)

        def parameter(shape: Shape, draw_from: Callable[..., Array], times: float) -> Parameter:
            def drawn(shape: Shape, draw: Draw) -> Array:
                return times * draw_from(shape, *draw.key, draw.call)

            return Parameter(initial(drawn, shape, stream.draw(), b, kind), regularize=False)

        def centred(shape: Shape, *key: int) -> Array:
            return 2 * uniform(shape, *key) - 1

        self.frequency = parameter((n, waves_each), normal, self.deviation)
        self.phase = parameter((n, waves_each), centred, pi)
        self.weight = parameter((n, waves_each, sums), centred, 0.25)
        self.bias = parameter((n, sums), centred, 0.25)

    def forward(self, x: Any) -> Tensor:
        """Return (N, D + n K) numbers for (N, D) with D >= n."""
        y: Tensor = waves(x, self.frequency, self.phase, self.weight, self.bias)
        return y

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        numbers, frequencies, outputs = self.weight.shape
        return {
            "numbers": numbers,
            "outputs": outputs,
            "frequencies": frequencies,
            "deviation": self.deviation,
            "dtype": self.weight.dtype.name,
        }


class Scale(Module):
    """A layer that multiplies each column by a learned number, y = x * scale.

    Args:
        features: D, the number of columns.
        dtype: the dtype of the numbers.
        device: the device of the numbers; the default device for None.

    Attributes:
        scale: (D,) parameter, 1 at first.

    Raises:
        ArgumentError: features is not at least 1.
    """

    def __init__(
        self, features: int, *, dtype: DType = "float32", device: DeviceLike = None
    ) -> None:
        b, kind = backend(device), float_dtype(dtype)
        self.scale = Parameter(b.full((count("features", features),), 1, kind), regularize=False)

    def forward(self, x: Any) -> Tensor:
        """Return the scaled x, (N, D)."""
        y: Tensor = multiply(x, self.scale)
        return y

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"features": self.scale.size, "dtype": self.scale.dtype.name}


class ParametricActivation(Module):
    """A blend of the identity and an activation, y = x + share * (f(x) - x), with learned shares.

    Args:
        features: D, the number of columns; each has its own share.
        activation: f, a registered name or any function of a tensor.
        dtype: the dtype of the shares.
        device: the device of the shares; the default device for None.

    Attributes:
        share: (D,) parameter, 1 at first.

    Raises:
        ArgumentError: features is not at least 1.
        UnknownNameError: the activation is unknown.
    """

    activation = ChosenActivation()
    _activation: Callable[..., Tensor]

    def __init__(
        self,
        features: int,
        activation: str | Callable[..., Any] = "mish",
        *,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        b, kind = backend(device), float_dtype(dtype)
        self.activation = activation
        self.share = Parameter(b.full((count("features", features),), 1, kind), regularize=False)

    def forward(self, x: Any) -> Tensor:
        """Return the blend, (N, D)."""
        y: Tensor = add(x, multiply(subtract(self._activation(x), x), self.share))
        return y

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "features": self.share.size,
            "activation": described(self.activation),
            "dtype": self.share.dtype.name,
        }
