"""Feature maps: fixed transforms after which a linear model may be enough."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

from gpunn.arguments import count, flag, in_range
from gpunn.autograd import Tensor
from gpunn.backends import backend
from gpunn.backends.dtypes import float_dtype
from gpunn.backends.random import Draw, RandomStream, normal
from gpunn.errors import ShapeError
from gpunn.nn.init import initial
from gpunn.nn.linear import ChosenActivation, described
from gpunn.nn.module import Module
from gpunn.nn.parameter import Buffer
from gpunn.ops import abs as absolute
from gpunn.ops import concatenate, linear, multiply, subtract
from gpunn.typing import Array, DeviceLike, DType, Shape


class PolynomialFeatures(Module):
    """The products of up to `degree` features, each product once, without the constant 1.

    The order is scikit-learn's: x_1 ... x_D, then x_1 x_1, x_1 x_2, ..., then products of three.
    There are (D + degree)! / (D! degree!) - 1 of them.

    Args:
        in_features: D, the number of inputs.
        degree: the most factors of a product.
        interaction_only: whether to leave out products in which a feature appears twice.

    Raises:
        ArgumentError: an argument is outside its range.
        ShapeError: the inputs are not (N, D).

    Reference:
        Lecture 004, "polynomial expansion", with the products of higher degree behind its dots.

    Example:
        >>> PolynomialFeatures(2, degree=3)(np.array([[2.0, 3.0]])).numpy()
        array([[ 2.,  3.,  4.,  6.,  9.,  8., 12., 18., 27.]])
    """

    def __init__(
        self, in_features: int, degree: int = 2, *, interaction_only: bool = False
    ) -> None:
        self.in_features = count("in_features", in_features)
        self.degree = count("degree", degree)
        self.interaction_only = flag("interaction_only", interaction_only)

    def forward(self, x: Any) -> Tensor:
        """Return the products, (N, number of products)."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        d, skip = self.in_features, int(self.interaction_only)
        if x.ndim != 2 or x.shape[1] != d:
            raise ShapeError(f"got x of shape {x.shape}; expected (N, {d}): pass the same columns")
        found, before, starts = [x], x, [*range(d), d]
        for _ in range(1, self.degree):  # x_i times the products of one factor less from x_i on
            parts, ends = [], [0]
            for i in range(d):
                first = starts[min(i + skip, d)]
                if first < before.shape[1]:
                    parts.append(multiply(x[:, i : i + 1], before[:, first:]))
                ends.append(ends[-1] + before.shape[1] - first)
            if not parts:
                break
            before, starts = concatenate(*parts) if len(parts) > 1 else parts[0], ends
            found.append(before)
        return concatenate(*found) if len(found) > 1 else x

    def factors(self) -> list[tuple[int, ...]]:
        """Return the columns of x that each product has as factors, in order."""
        choose = combinations if self.interaction_only else combinations_with_replacement
        sizes = range(1, self.degree + 1)
        return [each for size in sizes for each in choose(range(self.in_features), size)]

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "in_features": self.in_features,
            "degree": self.degree,
            "interaction_only": self.interaction_only,
        }


class QuadraticFeatures(Module):
    """The features and their products, (x, x x'), each product once.

    With `squares`, the order is x_1 ... x_d, x_1 x_1, x_1 x_2, ..., x_d x_d, which makes
    d + d (d + 1) / 2 features. Without `squares`, only different features are multiplied. For two
    features this gives (x1, x2, x1 x2), which makes XOR linearly separable.

    Args:
        squares: whether to include the square of each feature.

    Raises:
        ShapeError: the inputs are not (N, D).

    Reference:
        Lecture 004, "polynomial expansion"; lecture 003, "nonlinear feature maps".

    Example:
        >>> x = np.array([[2.0, 3.0]])
        >>> QuadraticFeatures()(x).numpy()
        array([[2., 3., 4., 6., 9.]])
        >>> QuadraticFeatures(squares=False)(x).numpy()
        array([[2., 3., 6.]])
    """

    def __init__(self, squares: bool = True) -> None:
        self.squares = flag("squares", squares)

    def forward(self, x: Any) -> Tensor:
        """Return the features and their products, (N, D + number of products)."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        if x.ndim != 2:
            raise ShapeError(f"got x of shape {x.shape}; expected (N, D): reshape the examples")
        return PolynomialFeatures(x.shape[1], interaction_only=not self.squares).forward(x)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"squares": self.squares}


class RandomFeatures(Module):
    """Features rho(w_j . x) with fixed random weights, w_j ~ N(0, deviation**2 I).

    The lecture writes N(0, sigma I) without saying whether sigma is a variance. Here the argument
    is the standard deviation.

    Args:
        in_features: D, the number of inputs.
        out_features: H, the number of features.
        activation: rho, a registered name or any function of a tensor.
        deviation: the standard deviation of the weights, above 0.
        seed: the seed of the weights; the same seed gives the same weights on every device.
        dtype: the dtype of the weights.
        device: the device of the weights; the default device for None.

    Attributes:
        weight: (D, H) buffer, which training does not change.

    Raises:
        ArgumentError: an argument is outside its range.

    Reference:
        Lecture 004, "random features expansion".

    Example:
        >>> RandomFeatures(2, 100)(np.zeros((5, 2), np.float32)).shape
        (5, 100)
    """

    activation = ChosenActivation()
    _activation: Callable[..., Tensor]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: Any = "relu",
        *,
        deviation: float = 1.0,
        seed: int = 0,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        shape = count("in_features", in_features), count("out_features", out_features)
        self.activation = activation
        self.deviation = in_range("deviation", deviation, float(np.finfo(np.float32).tiny))
        self.seed = RandomStream(seed).seed
        b, kind, draw = backend(device), float_dtype(dtype), RandomStream(self.seed).draw()
        self.weight = Buffer(initial(self._drawn, shape, draw, b, kind))

    def _drawn(self, shape: Shape, draw: Draw) -> Array:
        return self.deviation * normal(shape, *draw.key, draw.call)

    def forward(self, x: Any) -> Tensor:
        """Return the random features, (N, H)."""
        y: Tensor = self._activation(linear(x, self.weight))
        return y

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "in_features": self.weight.shape[0],
            "out_features": self.weight.shape[1],
            "activation": described(self.activation),
            "deviation": self.deviation,
            "seed": self.seed,
            "dtype": self.weight.dtype.name,
        }


class DifferenceFeature(Module):
    """The feature map [1; |x1 - x2|] of two features, which turns a band into a half-line.

    Raises:
        ShapeError: the inputs are not (N, 2).

    Reference:
        Lecture 002, "leveraging nonlinear transformations".

    Example:
        >>> DifferenceFeature()(np.array([[1.0, 3.0]])).numpy()
        array([[1., 2.]])
    """

    def forward(self, x: Any) -> Tensor:
        """Return [1; |x1 - x2|] of each row, (N, 2)."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        if x.ndim != 2 or x.shape[1] != 2:
            raise ShapeError(f"got x of shape {x.shape}; expected (N, 2): pass two features")
        gap = absolute(subtract(x[:, :1], x[:, 1:]))
        one = Tensor(x.backend.full(gap.shape, 1.0, x.dtype), backend=x.backend)
        return concatenate(one, gap)

    def config(self) -> dict[str, Any]:
        """Return no arguments."""
        return {}
