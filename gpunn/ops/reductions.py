"""Sums, means and maxima over axes."""

from __future__ import annotations

from typing import Any

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend
from gpunn.typing import Array, Shape


def total(b: Backend, x: Array) -> Array:
    """The sum of all elements as a 0-d array of the device; integers sum as NumPy's do."""
    if x.dtype in ("float32", "float64"):
        return b.xp.sum(x, out=b.empty((), x.dtype))
    if x.dtype == "float16":  # added up in float32, rounded once
        return b.xp.asarray(b.xp.sum(x, dtype="float32")).astype(x.dtype)
    return b.xp.asarray(b.xp.sum(x))


def column_sums(b: Backend, x: Array, out: Array | None = None) -> Array:
    """(N, H) -> (H,); float16 is added up in float32 and rounded once."""
    if x.dtype != "float16":
        return b.xp.sum(x, axis=0, out=out)
    sums = b.xp.sum(x, axis=0, dtype="float32").astype(x.dtype)
    if out is None:
        return sums
    out[...] = sums
    return out


def _spread(b: Backend, g: Array, shape: Shape, axis: Any, keepdims: bool) -> Array:
    """A view of a reduced gradient with the shape of what was reduced."""
    if axis is not None and not keepdims:
        g = b.xp.expand_dims(g, axis)
    return b.xp.broadcast_to(g, shape)


@op
def sum_(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """The sum over all axes, or over `axis`.

    Gradient:
        gy, spread over the axes that were summed.
    """
    y = total(b, x) if axis is None and not keepdims else b.xp.sum(x, axis=axis, keepdims=keepdims)
    return y, lambda gy, needs: (_spread(b, gy, x.shape, axis, keepdims),)


@op
def mean(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """The mean over all axes, or over `axis`.

    Gradient:
        gy / count, spread over the axes that were averaged.
    """
    y = b.xp.asarray(b.xp.mean(x, axis=axis, keepdims=keepdims))
    share = y.size / max(x.size, 1)
    return y, lambda gy, needs: (_spread(b, gy * share, x.shape, axis, keepdims),)


@op
def max_(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """The maximum over all axes, or over `axis`.

    Gradient:
        gy at the maxima; ties share it equally.
    """
    top = b.xp.max(x, axis=axis, keepdims=True)
    y = top if keepdims else b.xp.asarray(b.xp.max(x, axis=axis))

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        hit = (x == top).astype(x.dtype)
        share = hit / b.xp.sum(hit, axis=axis, keepdims=True)
        return (_spread(b, gy, x.shape, axis, keepdims) * share,)

    return y, backward
