"""The precision of a training: the dtype that it computes in. Parameters stay in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from gpunn.backends import Backend
from gpunn.backends.dtypes import precision_dtype
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
        name: the name.
        dtype: the dtype that the network computes in.
        loss_scale: the loss scale of a float16 training after `prepare`, else None.

    Raises:
        UnknownNameError: there is no such precision.
        ArgumentError: the precision is not "float32", and the device is the CPU or the model is
            not float32.
    """

    def __init__(self, name: str, b: Backend, kind: DType) -> None:
        dtype = precision_dtype(name)
        if name == "float32":
            dtype = np.dtype(kind)
        elif b.on_host:
            raise ArgumentError(
                f'got precision={name!r} on {b.device}; expected "float32": other precisions need '
                "a GPU"
            )
        elif kind != np.float32:
            raise ArgumentError(
                f"got precision={name!r} for a model of {kind}; expected a model of float32: "
                'leave precision="float32", or make the model with dtype float32'
            )
        self.name, self.dtype = name, dtype
        self.loss_scale: LossScale | None = None

    def prepare(self, b: Backend) -> None:
        """Make the loss scale of a float16 training, once."""
        if self.name == "float16" and self.loss_scale is None:
            self.loss_scale = LossScale(b)

    @contextmanager
    def training(self, flat: FlatParameters) -> Iterator[None]:
        """Let a network compute in this precision inside the block, in this thread only."""
        with flat.backend.rounding(self.name == "tf32"), flat.narrowed(self.dtype):
            yield

    def narrow(self, b: Backend, x: Array) -> Array:
        """Convert examples on the device to the dtype of the precision.

        Raises:
            DataError: an example is beyond the range of float16.
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
