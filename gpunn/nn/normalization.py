"""Normalisation layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import count, fitting, flag, in_range
from gpunn.autograd import Tensor
from gpunn.backends import backend, computed
from gpunn.backends.dtypes import float_dtype
from gpunn.errors import ArgumentError, DTypeError, ShapeError
from gpunn.examples import column_quartiles, column_scales
from gpunn.guesses import answers
from gpunn.nn.module import Module
from gpunn.nn.parameter import Buffer, Parameter
from gpunn.ops import (
    add,
    batch_norm,
    divide,
    layer_norm,
    multiply,
    rms_norm,
    smooth_clip,
    subtract,
)
from gpunn.typing import DeviceLike, DType


class Standardize(Module):
    """A layer that shifts and scales each column by fixed numbers, y = (x - mean) / scale.

    `Standardize.fit(x)` computes the numbers from data; training does not change them. As the first
    layer of a network, it lets the model take raw data. With `inverse`, y = x scale + mean: as the
    last layer, it converts the outputs of a regression to the unit of the targets.

    Args:
        mean: (D,) numbers.
        scale: (D,) numbers other than 0.
        inverse: whether to undo the scaling instead.
        dtype: float16, float32 or float64.
        device: the device of the numbers; the default device for None.

    Raises:
        ShapeError: mean and scale have different lengths.
        DTypeError: mean or scale does not hold numbers.
        ArgumentError: a scale is 0 in the dtype, or a number is not finite.
        DataError: a number is beyond the range of the dtype.
    """

    def __init__(
        self,
        mean: Any,
        scale: Any,
        *,
        inverse: bool = False,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        mean, scale = _numbers("mean", mean), _numbers("scale", scale)
        if mean.ndim != 1 or mean.shape != scale.shape:
            raise ShapeError(
                f"got mean {mean.shape}, scale {scale.shape}; expected (D,) and (D,): pass one of "
                "each for every column"
            )
        if not scale.astype(float_dtype(dtype)).all():
            raise ArgumentError(
                "got a scale of 0; expected numbers other than 0: use 1 for a constant column"
            )
        b, kind = backend(device), float_dtype(dtype)
        self.inverse = flag("inverse", inverse)
        self.mean = Buffer(b.upload(fitting("mean", mean, kind)))
        self.scale = Buffer(b.upload(fitting("scale", scale, kind)))

    @classmethod
    def fit(
        cls,
        x: Any,
        *,
        inverse: bool = False,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> Standardize:
        """Build a layer that gives each column of `x` mean 0 and standard deviation 1.

        Args:
            x: (N, D) examples of the training data; or, with `inverse`, targets.
            inverse: whether to undo the scaling instead, so that outputs get the unit of the
                targets.
            dtype: as for the class.
            device: as for the class.

        Raises:
            ShapeError: x is not (N, D).
            DataError: x has no rows, or holds NaN or infinity.

        Example:
            >>> layer = Standardize.fit(np.array([[1.0, 5.0], [3.0, 5.0]]))
            >>> layer(np.array([[5.0, 6.0]], np.float32)).numpy()
            array([[3., 1.]], dtype=float32)
        """
        return cls(*column_scales(x), inverse=inverse, dtype=dtype, device=device)

    def forward(self, x: Any) -> Tensor:
        """Return the shifted and scaled x, (N, D)."""
        wide = widened_to(x, self.mean)
        mean, scale = in_dtype_of(wide, self.mean), in_dtype_of(wide, self.scale)
        if self.inverse:
            y = add(multiply(wide, scale), mean)
        else:
            y = divide(subtract(wide, mean), scale)
        return y if wide is x else y.astype(x.dtype)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "mean": self.mean.numpy().tolist(),
            "scale": self.scale.numpy().tolist(),
            "inverse": self.inverse,
            "dtype": self.mean.dtype.name,
        }


class RobustScale(Module):
    """A layer that scales each column by fixed numbers and clips it smoothly.

    y = u / sqrt(1 + (u / limit)**2) with u = (x - center) * scale. `RobustScale.fit(x)` computes
    the numbers from data; training does not change them.

    Args:
        center: (D,) numbers.
        scale: (D,) numbers.
        limit: above 0; |y| stays below it.
        dtype: float16, float32 or float64.
        device: the device of the numbers; the default device for None.

    Raises:
        ShapeError: center and scale are not (D,).
        ArgumentError: the limit is not above 0.
        DTypeError, DataError: a number does not fit the dtype.

    Reference:
        Holzmüller et al. (2024), arXiv 2407.04491.
    """

    def __init__(
        self,
        center: Any,
        scale: Any,
        limit: float = 3.0,
        *,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        b, kind = backend(device), float_dtype(dtype)
        center, scale = fitting("center", center, kind), fitting("scale", scale, kind)
        if center.ndim != 1 or center.shape != scale.shape:
            raise ShapeError(
                f"got center {center.shape}, scale {scale.shape}; expected (D,) and (D,): pass one "
                "of each for every column"
            )
        self.limit = in_range("limit", limit, float(np.finfo(np.float32).tiny))
        self.center, self.scale = Buffer(b.upload(center)), Buffer(b.upload(scale))

    @classmethod
    def fit(
        cls, x: Any, limit: float = 3.0, *, dtype: DType = "float32", device: DeviceLike = None
    ) -> RobustScale:
        """Build a layer from the medians and quartiles of the columns of `x`.

        The scale is the inverse of the distance of the quartiles. If half of a column is one
        number, it is 2 / (max - min). A constant column becomes 0.

        Args:
            x: (N, D) examples of the training data.
            limit: as for the class.
            dtype: as for the class.
            device: as for the class.

        Raises:
            ShapeError: x is not (N, D).
            DataError: x has no rows, or holds NaN or infinity.

        Example:
            >>> layer = RobustScale.fit(np.array([[1.0], [2.0], [3.0], [4.0], [1000.0]]))
            >>> layer(np.array([[3.0], [1000.0]], np.float32)).numpy().round(2)
            array([[0.],
                   [3.]], dtype=float32)
        """
        return cls(*column_quartiles(x), limit, dtype=dtype, device=device)

    def forward(self, x: Any) -> Tensor:
        """Return the scaled and clipped x, (N, D)."""
        wide = widened_to(x, self.center)
        center, scale = in_dtype_of(wide, self.center), in_dtype_of(wide, self.scale)
        y: Tensor = smooth_clip(multiply(subtract(wide, center), scale), limit=self.limit)
        return y if wide is x else y.astype(x.dtype)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "center": self.center.numpy().tolist(),
            "scale": self.scale.numpy().tolist(),
            "limit": self.limit,
            "dtype": self.center.dtype.name,
        }


def _numbers(name: str, values: Any) -> np.ndarray[Any, Any]:
    """Return values as float64. Strings that look like numbers are refused."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" and array.size:
        raise DTypeError(
            f"got {name} of dtype {array.dtype}; expected (D,) numbers: convert it with astype"
        )
    if not np.isfinite(array).all():
        raise ArgumentError(
            f"got a {name} that is not finite; expected numbers: look for NaN and infinity in the "
            "data it was computed from"
        )
    return array.astype(np.float64)


def widened_to(x: Any, numbers: Buffer) -> Any:
    """Return x in the dtype of fixed numbers if that is wider: float16 may not have the numbers."""
    return x.astype(numbers.dtype) if x.dtype.itemsize < numbers.dtype.itemsize else x


def in_dtype_of(x: Any, numbers: Buffer) -> Tensor:
    """Return fixed numbers in the dtype of x, if that is wider than theirs."""
    if x.dtype == numbers.dtype:
        return numbers
    return Tensor(numbers.backend.cast(numbers.data, x.dtype), backend=numbers.backend)


class LayerNorm(Module):
    """A layer that normalises each example over its features, then scales by gamma and adds beta.

    Args:
        features: D, at least 1.
        eps: added to the variance, at least 0.
        dtype: float16, float32 or float64.
        device: the device of the parameters; the default device for None.

    Raises:
        ArgumentError: a number is outside its range.

    Reference:
        Ba et al. (2016); see `gpunn.ops.layer_norm`.
    """

    def __init__(
        self,
        features: int,
        *,
        eps: float = 1e-5,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        self.features, self.eps = count("features", features), in_range("eps", eps, 0.0)
        b, kind = backend(device), float_dtype(dtype)
        self.gamma = Parameter(b.full((self.features,), 1, kind), regularize=False)
        self.beta = Parameter(b.zeros((self.features,), kind), regularize=False)

    def forward(self, x: Any) -> Tensor:
        """Return the normalised x, (N, D)."""
        return layer_norm(x, self.gamma, self.beta, eps=self.eps)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"features": self.features, "eps": self.eps, "dtype": self.gamma.dtype.name}


class RMSNorm(Module):
    """A layer that divides each example by the root of its mean square, then multiplies by gamma.

    It is PyTorch's `RMSNorm` over the last axis.

    Args:
        features: D, at least 1.
        eps: added to the mean square, at least 0; None for the machine epsilon of the dtype that is
            computed in, 1.2e-7 for float16 and float32, as in PyTorch.
        dtype: float16, float32 or float64.
        device: the device of the parameter; the default device for None.

    Attributes:
        gamma: (D,) parameter, 1 at first.

    Raises:
        ArgumentError: a number is outside its range.

    Reference:
        Zhang and Sennrich (2019), arXiv 1910.07467; see `gpunn.ops.rms_norm`.

    Example:
        >>> RMSNorm(2)(np.array([[3.0, -4.0]], np.float32)).numpy().round(3)
        array([[ 0.849, -1.131]], dtype=float32)
    """

    @answers
    def __init__(
        self,
        features: int,
        *,
        eps: float | None = None,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        self.features = count("features", features)
        self.eps = None if eps is None else in_range("eps", eps, 0.0)
        b, kind = backend(device), float_dtype(dtype)
        self.gamma = Parameter(b.full((self.features,), 1, kind), regularize=False)

    def forward(self, x: Any) -> Tensor:
        """Return the normalised x, (N, D)."""
        y: Tensor = rms_norm(x, self.gamma, eps=self.eps)
        return y

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"features": self.features, "eps": self.eps, "dtype": self.gamma.dtype.name}


class BatchNorm(LayerNorm):
    """A layer that normalises each feature over the batch, then scales by gamma and adds beta.

    In evaluation it uses the running mean and variance instead of those of the batch.

    Args:
        features: D, at least 1.
        momentum: the weight of a batch in the running values, 0 <= momentum <= 1.
        eps: added to the variance, at least 0.
        dtype: float16, float32 or float64.
        device: the device of the parameters; the default device for None.

    Raises:
        ArgumentError: a number is outside its range.

    Reference:
        Ioffe and Szegedy (2015); see `gpunn.ops.batch_norm`.
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        super().__init__(features, eps=eps, dtype=dtype, device=device)
        self.momentum = in_range("momentum", momentum, 0.0, np.nextafter(1.0, 2.0))
        b, kind = self.gamma.backend, computed(self.gamma.dtype)  # float16 would round updates away
        self.running_mean = Buffer(b.zeros((self.features,), kind))
        self.running_variance = Buffer(b.full((self.features,), 1, kind))

    def forward(self, x: Any) -> Tensor:
        """Return the normalised x, (N, D)."""
        if not self.training:
            wide = widened_to(x, self.running_mean)
            deviation = (in_dtype_of(wide, self.running_variance) + self.eps) ** 0.5
            normal: Tensor = (wide - in_dtype_of(wide, self.running_mean)) / deviation
            normal = normal if wide is x else normal.astype(x.dtype)
            return normal * self.gamma + self.beta
        return batch_norm(
            x,
            self.gamma,
            self.beta,
            running_mean=self.running_mean.data,
            running_variance=self.running_variance.data,
            momentum=self.momentum,
            eps=self.eps,
        )

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().config() | {"momentum": self.momentum}
