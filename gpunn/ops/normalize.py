"""Layer and batch normalisation."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, RowKernel, computed, scratch_like, widened
from gpunn.backends.kernel import WARP_COLUMNS
from gpunn.errors import DTypeError, ShapeError
from gpunn.ops.reductions import add_rows, as_gradients, column_sums, in_shares, sums_for
from gpunn.typing import Array

_CUDA = Path(__file__).parent / "cuda"
ABOVE_ONE = float(np.nextafter(1.0, 2.0))


def check_columns(name: str, x: Array, *each: Array) -> None:
    """Check that x is (N, D), and that each of the other arrays has one number for each column.

    Raises:
        ShapeError: the shapes do not fit.
        DTypeError: an array has another dtype than x.
    """
    if x.ndim != 2 or any(array.shape != x.shape[1:] for array in each):
        raise ShapeError(
            f"got x of shape {x.shape}, and {', '.join(str(array.shape) for array in each)} for "
            f"its columns in {name}; expected (N, D) and (D,): check the number of features"
        )
    for array in each:
        if array.dtype != x.dtype:
            raise DTypeError(
                f"got x of {x.dtype} and {array.dtype} for its columns in {name}; expected one "
                f"dtype: use x.astype({str(array.dtype)!r})"
            )


def _check_running(x: Array, *running: Array) -> None:
    for array in running:
        if array.shape != x.shape[1:] or array.dtype != computed(x.dtype):
            raise ShapeError(
                f"got running values of shape {array.shape} and {array.dtype} in batch_norm; "
                f"expected {x.shape[1:]} and {computed(x.dtype)}, one for each feature"
            )


def scratch_of(out: Array, statistic: Array) -> Array:
    """Return the array to compute in: `out`, or a wider one if the statistics are wider."""
    return out if out.dtype == statistic.dtype else scratch_like(out, statistic.dtype)


def round_to(work: Array, out: Array) -> None:
    """Round what was computed in `scratch_of(out, ...)` to `out`."""
    if work is not out:
        out[...] = work


def _normal(x: Array, mean: Array, rest: Array, inverse: Array, out: Array) -> Array:
    """Compute (x - mean) * inverse, where the mean has two parts."""
    np.subtract(x, mean, out=out)
    np.subtract(out, rest, out=out)
    return np.multiply(out, inverse, out=out)


# over rows ---------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _share(count: int, dtype: Any) -> Array:
    return np.full(count, 1 / count, dtype)


def _layer_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    y: Array,
    mean: Array,
    rest: Array,
    inverse: Array,
    eps: float,
    columns: int,
    rows: int,
) -> None:
    work = scratch_of(y, mean)
    np.vecdot(widened(x, mean.dtype), _share(columns, mean.dtype), out=mean)
    np.subtract(x, mean[:, None], out=work)
    np.divide(np.add.reduce(work, axis=1, out=rest), columns, out=rest)
    np.subtract(work, rest[:, None], out=work)
    np.add.reduce(np.multiply(work, work, out=scratch_like(work)), axis=1, out=inverse)
    np.divide(inverse, columns, out=inverse)
    np.sqrt(np.add(inverse, eps, out=inverse), out=inverse)
    np.reciprocal(inverse, out=inverse)
    np.multiply(work, inverse[:, None], out=work)
    np.multiply(work, gamma, out=work)
    np.add(work, beta, out=work)
    round_to(work, y)


def _layer_norm_grad(
    gy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rest: Array,
    inverse: Array,
    gx: Array,
    columns: int,
    rows: int,
) -> None:
    work = scratch_of(gx, mean)
    normal = scratch_like(x, mean.dtype)
    _normal(x, mean[:, None], rest[:, None], inverse[:, None], normal)
    np.multiply(gy, gamma, out=work, dtype=mean.dtype)
    along = np.add.reduce(np.multiply(work, normal, out=scratch_like(work)), axis=1) / columns
    np.subtract(work, np.add.reduce(work, axis=1, keepdims=True) / columns, out=work)
    np.subtract(work, np.multiply(normal, along[:, None], out=normal), out=work)
    np.multiply(work, inverse[:, None], out=work)
    round_to(work, gx)


def _layer_norm_grad_columns(
    gy: Array,
    x: Array,
    mean: Array,
    rest: Array,
    inverse: Array,
    ggamma: Array,
    gbeta: Array,
    columns: int,
    rows: int,
) -> None:
    normal = scratch_like(x, mean.dtype)
    _normal(x, mean[:, None], rest[:, None], inverse[:, None], normal)
    add_rows(np.multiply(normal, gy, out=normal), ggamma)
    add_rows(gy, gbeta)


def _layer_norm_grad_in_one(
    gy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rest: Array,
    inverse: Array,
    gx: Array,
    ggamma: Array,
    gbeta: Array,
    columns: int,
    rows: int,
) -> None:
    _layer_norm_grad(gy, x, gamma, mean, rest, inverse, gx, columns, rows)
    block = np.arange(rows) // WARPS % len(ggamma)
    for k, (along, plain) in enumerate(zip(ggamma, gbeta, strict=True)):
        own = block == k
        statistics = mean[own], rest[own], inverse[own]
        _layer_norm_grad_columns(gy[own], x[own], *statistics, along, plain, columns, sum(own))


LAYER_NORM = RowKernel("layer_norm", _layer_norm, _CUDA / "layer_norm.cu")
LAYER_NORM_GRAD = RowKernel("layer_norm_grad", _layer_norm_grad, _CUDA / "layer_norm.cu")
LAYER_NORM_GRAD_COLUMNS = RowKernel(
    "layer_norm_grad_columns",
    _layer_norm_grad_columns,
    _CUDA / "layer_norm.cu",
    by_columns=True,
)
LAYER_NORM_GRAD_IN_ONE = RowKernel(
    "layer_norm_grad_in_one", _layer_norm_grad_in_one, _CUDA / "layer_norm_grad_in_one.cu"
)
WARPS = LAYER_NORM_GRAD_IN_ONE.threads // 32
MANY_ROWS, MOST_BLOCKS = 4096, 512
"""From so many rows on, a GPU computes all gradients in one pass, in so many blocks."""
MOST_COLUMNS = {8: 64}
"""The longest row of that pass for numbers of so many bytes, if it is not `WARP_COLUMNS`: a thread
has no registers for a longer one."""


@op
def layer_norm(
    b: Backend, x: Array, gamma: Array, beta: Array, *, eps: float = 1e-5
) -> tuple[Array, Backward]:
    """Normalise every row to mean 0 and variance 1, then y = normal * gamma + beta.

    Args:
        x: (N, D).
        gamma: (D,).
        beta: (D,).
        eps: added to the variance.

    Gradient:
        gx = (gn - mean(gn) - normal mean(gn normal)) / deviation with gn = gy gamma. Kept for the
        backward pass: x, and the mean (in two parts) and the inverse deviation of each row.

    Numerics:
        float16 and bfloat16 are computed in float32 and rounded once. A row of equal numbers
        gives beta exactly. An error is a few machine epsilons of the largest y of its row, before
        beta is added; the gradient's is a few epsilons of the largest gn / deviation.

    Reference:
        Ba et al. (2016).
    """
    check_columns("layer_norm", x, gamma, beta)
    x, gamma = b.xp.ascontiguousarray(x), b.xp.ascontiguousarray(gamma)
    y = b.empty_like(x)
    statistics = tuple(b.empty(x.shape[:1], computed(x.dtype)) for _ in range(3))
    args = (x, gamma, b.xp.ascontiguousarray(beta), y, *statistics, in_range("eps", eps, 0.0))
    b.launch_matrix(LAYER_NORM, x.shape, x.dtype, *args)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        gy, gx, (rows, columns) = b.xp.ascontiguousarray(gy), None, x.shape
        sums = sums_for(b, needs[1:], (x.shape[1:],) * 2, x.dtype)
        most = MOST_COLUMNS.get(x.dtype.itemsize, WARP_COLUMNS)
        if b.fuses and all(needs) and rows >= MANY_ROWS and columns <= most:
            gx, blocks = b.empty_like(x), min(MOST_BLOCKS, -(-rows // WARPS))
            parts = [b.empty((blocks, columns), out.dtype) for out in sums]
            args = (gy, x, gamma, *statistics, gx, *parts, columns, rows)
            b.launch_rows(LAYER_NORM_GRAD_IN_ONE, blocks, x.dtype, *args, columns=columns)
            for part, out in zip(parts, sums, strict=True):
                column_sums(b, part, out)
            return gx, *as_gradients(b, needs[1:], sums, x.dtype)
        if needs[0]:
            gx = b.empty_like(x)
            args = (gy, x, gamma, *statistics, gx)
            b.launch_matrix(LAYER_NORM_GRAD, x.shape, x.dtype, *args)
        if needs[1] or needs[2]:
            given = (gy, x, *statistics)
            in_shares(b, LAYER_NORM_GRAD_COLUMNS, x, given, tuple(sums))
        return gx, *as_gradients(b, needs[1:], sums, x.dtype)

    return y, backward


# over the batch ----------------------------------------------------------------------------


def _batch_norm(
    x: Array,
    gamma: Array,
    beta: Array,
    y: Array,
    mean: Array,
    rest: Array,
    inverse: Array,
    running_mean: Array,
    running_variance: Array,
    momentum: float,
    eps: float,
    columns: int,
    rows: int,
) -> None:
    work, kind = scratch_of(y, mean), mean.dtype
    np.multiply(x, 1 / rows, out=work, dtype=kind)  # a sum of large numbers would overflow
    np.subtract(x, add_rows(work, mean), out=work)
    np.divide(add_rows(work, rest), rows, out=rest)
    np.subtract(work, rest, out=work)
    squares = np.multiply(work, work, out=scratch_like(work))
    variance = add_rows(squares, inverse) / rows
    np.reciprocal(np.sqrt(variance + eps), out=inverse)
    np.multiply(work, inverse * gamma, out=work)
    np.add(work, beta, out=work)
    round_to(work, y)
    running_mean += momentum * ((mean - running_mean) + rest)
    running_variance += momentum * (variance * (rows / (rows - 1)) - running_variance)


def _batch_norm_grad(
    gy: Array,
    x: Array,
    gamma: Array,
    mean: Array,
    rest: Array,
    inverse: Array,
    gx: Array,
    ggamma: Array,
    gbeta: Array,
    columns: int,
    rows: int,
) -> None:
    work = scratch_of(gx, mean)
    normal = _normal(x, mean, rest, inverse, scratch_like(x, mean.dtype))
    add_rows(np.multiply(gy, normal, out=work), ggamma)
    add_rows(gy, gbeta)
    np.subtract(gy, gbeta / rows, out=work)
    np.subtract(work, np.multiply(normal, ggamma / rows, out=normal), out=work)
    np.multiply(work, inverse * gamma, out=work)
    round_to(work, gx)


BATCH_NORM = RowKernel("batch_norm", _batch_norm, _CUDA / "batch_norm.cu", by_columns=True)
BATCH_NORM_GRAD = RowKernel(
    "batch_norm_grad", _batch_norm_grad, _CUDA / "batch_norm.cu", by_columns=True
)


@op
def batch_norm(
    b: Backend,
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    running_mean: Array,
    running_variance: Array,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Backward]:
    """Normalise every column over the batch, then y = normal * gamma + beta.

    The running mean and the running (unbiased) variance move by `momentum` towards those of the
    batch. Evaluation uses the running values instead of the batch's.

    Args:
        x: (N, D), N >= 2.
        gamma: (D,).
        beta: (D,).
        running_mean: (D,), changed in place; float32 if x is float16 or bfloat16.
        running_variance: (D,), changed in place; the same dtype.
        momentum: the weight of this batch in the running values.
        eps: added to the variance.

    Raises:
        ShapeError: the batch has fewer than two rows, or the shapes do not fit.

    Gradient:
        As for `layer_norm`, with means over the batch.

    Numerics:
        As for `layer_norm`, with columns for rows. In a compiled kernel and on a GPU, digits of
        the variance are lost where the deviation is below a few machine epsilons of the mean, and
        the square of a machine epsilon of the mean must be finite.

    Reference:
        Ioffe and Szegedy (2015).
    """
    check_columns("batch_norm", x, gamma, beta)
    _check_running(x, running_mean, running_variance)
    if x.shape[0] < 2:
        raise ShapeError(
            f"got a batch of {x.shape[0]} rows in batch_norm; expected at least 2 in training: "
            "choose a batch size that leaves no single row over"
        )
    x, gamma = b.xp.ascontiguousarray(x), b.xp.ascontiguousarray(gamma)
    y = b.empty_like(x)
    statistics = tuple(b.empty(x.shape[1:], computed(x.dtype)) for _ in range(3))
    args = (x, gamma, b.xp.ascontiguousarray(beta), y, *statistics)
    numbers = (in_range("momentum", momentum, 0.0, ABOVE_ONE), in_range("eps", eps, 0.0))
    b.launch_matrix(BATCH_NORM, x.shape, x.dtype, *args, running_mean, running_variance, *numbers)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        gx = b.empty_like(x)
        sums = sums_for(b, needs[1:], (x.shape[1:],) * 2, x.dtype)
        args = (b.xp.ascontiguousarray(gy), x, gamma, *statistics, gx, *sums)
        b.launch_matrix(BATCH_NORM_GRAD, x.shape, x.dtype, *args)
        return gx, *as_gradients(b, needs[1:], sums, x.dtype)

    return y, backward
