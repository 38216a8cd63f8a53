"""Feature maps: fixed transforms after which a linear model may be enough."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import count, in_range
from gpunn.autograd import Tensor
from gpunn.backends import backend
from gpunn.backends.dtypes import float_dtype
from gpunn.backends.random import Draw, RandomStream, normal
from gpunn.errors import ShapeError
from gpunn.nn.init import initial
from gpunn.nn.linear import described
from gpunn.nn.module import Buffer, Module
from gpunn.ops import abs as absolute
from gpunn.ops import concatenate, get_activation, linear, multiply, subtract
from gpunn.typing import Array, DeviceLike, DType, Shape


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
        self.squares = bool(squares)

    def forward(self, x: Any) -> Tensor:
        """Return the features and their products, (N, D + number of products)."""
        x = x if isinstance(x, Tensor) else Tensor(x)
        if x.ndim != 2:
            raise ShapeError(f"got x of shape {x.shape}; expected (N, D): reshape the examples")
        d, skip = x.shape[1], 0 if self.squares else 1
        products = [
            multiply(x[:, i : i + 1], x[:, i + skip :]) for i in range(d) if i + skip < d
        ]  # (N, D - i - skip) each
        return concatenate(x, *products) if products else x

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
        self._activation = get_activation(activation)
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
