"""A learned vector for each category."""

from __future__ import annotations

from math import prod
from typing import Any

from gpunn.arguments import count, flag
from gpunn.autograd import Tensor
from gpunn.backends import backend
from gpunn.backends.dtypes import float_dtype
from gpunn.backends.random import Draw, is_by_chance, new_stream, normal
from gpunn.guesses import answers
from gpunn.nn.init import initial
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.ops import embedding
from gpunn.ops.embedding import row_number
from gpunn.typing import Array, DeviceLike, DType, Shape


class Embedding(Module):
    """A layer that turns each code of a category into a learned vector, y[n] = weight[x[n]].

    The codes are whole numbers from 0 to R - 1, integers or floats, since a `Trainer` converts
    examples to the dtype of the model. For (N,) codes the output is (N, D). For (N, K) codes it is
    (N, K, D), as in PyTorch; `Linear` then works on each vector by itself. With `flatten`, it is
    (N, K D), the vectors of an example side by side, which `Linear(K * D, ...)` combines.

    A network for a table with categories of several columns numbers them one after the other: the
    codes of the second column begin at the number of levels of the first. `OneHot` with `Linear`
    behind it computes the same for few levels, and passes columns of numbers on.

    Args:
        num_embeddings: R, the number of codes.
        embedding_dim: D, the length of a vector.
        padding_idx: a code whose vector is 0 at first and gets no gradient; a negative one counts
            from the end. None for no such code.
        flatten: whether the vectors of an example are put side by side.
        seed: the seed of the first vectors; by default the next one of `gpunn.manual_seed`.
        dtype: float16, float32 or float64.
        device: the device of the weight; the default device for None.

    Attributes:
        weight: (R, D) parameter, standard normal at first.

    Raises:
        ArgumentError: a size is below 1, `padding_idx` is no code, or `flatten` is neither True
            nor False.

    Gradient:
        See `gpunn.ops.embedding`.

    Reference:
        Guo and Berkhahn (2016), arXiv 1604.06737.

    Example:
        >>> layer = Embedding(5, 2, flatten=True, seed=0)
        >>> layer.predict([[4, 0, 0], [1, 2, 3]]).shape
        (2, 6)
    """

    @answers
    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        flatten: bool = False,
        seed: int | None = None,
        dtype: DType = "float32",
        device: DeviceLike = None,
    ) -> None:
        shape = count("num_embeddings", num_embeddings), count("embedding_dim", embedding_dim)
        self.padding_idx = row_number(padding_idx, shape[0])
        self.flatten = flag("flatten", flatten)
        self.by_chance = is_by_chance(seed)
        b, kind, draw = backend(device), float_dtype(dtype), new_stream(seed).draw()
        self.weight = Parameter(initial(self._first, shape, draw, b, kind))

    def _first(self, shape: Shape, draw: Draw) -> Array:
        weight = normal(shape, *draw.key, draw.call)
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        return weight

    def forward(self, x: Any) -> Tensor:
        """Return the vectors of the codes.

        Args:
            x: (N,), or any other shape whose first axis is the examples.

        Raises:
            DataError: on the CPU, a code is not a whole number from 0 to R - 1. On a GPU its
                vector is NaN, which the loss reports.
            DTypeError: the codes are floats of 16 bits that cannot tell R numbers apart.
        """
        y: Tensor = embedding(x, self.weight, padding_idx=self.padding_idx)
        return y.reshape(y.shape[0], prod(y.shape[1:])) if self.flatten and y.ndim > 2 else y

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        rows, columns = self.weight.shape
        return {
            "num_embeddings": rows,
            "embedding_dim": columns,
            "padding_idx": self.padding_idx,
            "flatten": self.flatten,
            "dtype": self.weight.dtype.name,
        }
