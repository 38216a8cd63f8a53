"""What a training computes in, over parameters that stay in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gpunn.backends.base import precision_dtype
from gpunn.errors import ArgumentError, DataError
from gpunn.nn import Module
from gpunn.ops import identity
from gpunn.ops.reductions import all_finite
from gpunn.optim import Optimizer
from gpunn.optim.scaling import LossScale
from gpunn.typing import Array


class Precision:
    """A precision of training for one model.

    Args:
        name: "float32", "tf32", "float16" or "bfloat16"; see `Trainer`.
        model: the network.
        optimizer: bound to its parameters.

    Attributes:
        dtype: that the network computes in.
        loss_scale: of a float16 training, else None.

    Raises:
        UnknownNameError: no such precision.
        ArgumentError: a narrow one on the CPU, or for a model that is not float32.
    """

    def __init__(self, name: str, model: Module, optimizer: Optimizer) -> None:
        dtype = precision_dtype(name)
        if name == "float32":
            dtype = model.dtype
        elif model.backend.synchronous:
            raise ArgumentError(
                f'got precision={name!r} on {model.device}; expected "float32": narrow '
                "products are fast on a GPU only"
            )
        elif model.dtype != np.float32:
            raise ArgumentError(
                f"got precision={name!r} for a model of {model.dtype}; expected one of "
                "float32, whose parameters stay in full precision"
            )
        self.name, self.dtype, self.backend, self.optimizer = name, dtype, model.backend, optimizer
        self.loss_scale = LossScale(model.backend) if name == "float16" else None

    @contextmanager
    def training(self) -> Iterator[None]:
        """Let the network compute in this precision inside the block."""
        self.backend.tf32 = self.name == "tf32"
        try:
            with self.optimizer.bound.narrowed(self.dtype):
                yield
        finally:
            self.backend.tf32 = False

    def narrow(self, x: Array) -> Array:
        """Examples of the device in the dtype that is computed in.

        Raises:
            DataError: numbers beyond the range of float16.
        """
        if x.dtype == self.dtype:
            return x
        b = self.backend
        narrow = b.launch(identity.kernel, x, out=b.empty(x.shape, self.dtype))
        if self.name == "float16" and not all_finite(b, narrow):
            raise DataError(
                "got examples beyond 65504, the range of float16; expected smaller ones: "
                'standardize the data, or pass precision="bfloat16"'
            )
        return narrow
