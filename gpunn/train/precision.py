"""The dtype that a training computes in, over parameters that stay in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gpunn.backends import Backend
from gpunn.backends.base import precision_dtype
from gpunn.errors import ArgumentError, DataError
from gpunn.ops import identity
from gpunn.ops.reductions import all_finite
from gpunn.optim.factor import LossScale
from gpunn.optim.flat import FlatParameters
from gpunn.typing import Array, DType


class Precision:
    """A precision of training for one model.

    Args:
        name: "float32", "tf32", "float16" or "bfloat16"; see `Trainer`.
        b: the backend on which the model will be trained.
        kind: the dtype of its parameters.

    Attributes:
        dtype: that the network computes in.
        loss_scale: of a float16 training, once it is prepared; else None.

    Raises:
        UnknownNameError: no such precision.
        ArgumentError: a narrow one on the CPU, or for a model that is not float32.
    """

    def __init__(self, name: str, b: Backend, kind: DType) -> None:
        dtype = precision_dtype(name)
        if name == "float32":
            dtype = np.dtype(kind)
        elif b.on_host:
            raise ArgumentError(
                f'got precision={name!r} on {b.device}; expected "float32": narrow products are '
                "fast on a GPU only"
            )
        elif kind != np.float32:
            raise ArgumentError(
                f"got precision={name!r} for a model of {kind}; expected one of float32, whose "
                "parameters stay in full precision"
            )
        self.name, self.dtype = name, dtype
        self.loss_scale: LossScale | None = None

    def prepare(self, b: Backend) -> None:
        """Make the loss scale of a float16 training, once."""
        if self.name == "float16" and self.loss_scale is None:
            self.loss_scale = LossScale(b)

    @contextmanager
    def training(self, flat: FlatParameters) -> Iterator[None]:
        """Let a network compute in this precision inside the block, in this thread alone."""
        with flat.backend.rounding(self.name == "tf32"), flat.narrowed(self.dtype):
            yield

    def narrow(self, b: Backend, x: Array) -> Array:
        """Examples of the device in the dtype that is computed in.

        Raises:
            DataError: numbers beyond the range of float16.
        """
        if x.dtype == self.dtype:
            return x
        narrow = b.launch(identity.kernel, x, out=b.empty(x.shape, self.dtype))
        if self.name == "float16" and not all_finite(b, narrow):
            raise DataError(
                "got examples beyond 65504, the range of float16; expected smaller ones: "
                'standardize the data, or pass precision="bfloat16"'
            )
        return narrow
