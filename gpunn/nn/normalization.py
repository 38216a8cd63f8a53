"""Normalisation layers."""

from __future__ import annotations

from typing import Any

from gpunn.autograd import Tensor
from gpunn.backends import backend
from gpunn.backends.base import float_dtype
from gpunn.nn.module import Buffer, Module, Parameter
from gpunn.ops import batch_norm, layer_norm
from gpunn.typing import DeviceLike, DType


class LayerNorm(Module):
    """Normalise each example over its features, then scale by gamma and shift by beta.

    Args:
        features: D.
        eps: added to the variance.
        dtype: float16, float32 or float64.
        device: where the parameters live.

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
        self.features, self.eps = features, eps
        b, kind = backend(device), float_dtype(dtype)
        self.gamma = Parameter(b.full((features,), 1, kind), regularize=False)
        self.beta = Parameter(b.zeros((features,), kind), regularize=False)

    def forward(self, x: Any) -> Tensor:
        """The normalised x, (N, D)."""
        return layer_norm(x, self.gamma, self.beta, eps=self.eps)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"features": self.features, "eps": self.eps, "dtype": self.gamma.dtype.name}


class BatchNorm(LayerNorm):
    """Normalise each feature over the batch; in evaluation, by the running mean and variance.

    Args:
        features: D.
        momentum: weight of a batch in the running values.
        eps: added to the variance.
        dtype: float16, float32 or float64.
        device: where the parameters live.

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
        self.momentum = momentum
        b, kind = self.gamma.backend, self.gamma.dtype
        self.running_mean = Buffer(b.zeros((features,), kind))
        self.running_variance = Buffer(b.full((features,), 1, kind))

    def forward(self, x: Any) -> Tensor:
        """The normalised x, (N, D)."""
        if not self.training:
            deviation = (self.running_variance + self.eps) ** 0.5
            normal: Tensor = (x - self.running_mean) / deviation
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
        """The constructor's arguments."""
        return super().config() | {"momentum": self.momentum}
