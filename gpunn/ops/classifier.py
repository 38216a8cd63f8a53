"""The end of a classifier: its last hidden layer, its output layer and its loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, RowKernel, computed
from gpunn.errors import DTypeError, ShapeError
from gpunn.ops.activations import relu
from gpunn.ops.class_losses import CUDA, check_labels
from gpunn.ops.cross_entropy import SOFTMAX_CROSS_ENTROPY, softmax_cross_entropy
from gpunn.ops.dropout import Rate
from gpunn.ops.elementwise import chosen
from gpunn.ops.elementwise_losses import no_target_gradient
from gpunn.ops.linear import Dropped, check_shapes, layer_of, parameter_gradients
from gpunn.ops.loss_reduction import Reduction
from gpunn.typing import Array, DType

MOST_CLASSES = 16
"""The most columns of an output layer that is computed together with its loss."""
MOST_PRODUCTS = 2**22
"""The most multiplications of such an output layer. A matrix product is faster above it, by an
estimate from the bandwidth of the caches, which read the weights once for each row."""
DTYPES = ("float32", "float64")


def _classifier_loss(
    h: Array,
    w: Array,
    bias: Array,
    labels: Array,
    loss: Array,
    gz: Array,
    gh: Array,
    total: Array,
    smoothing: float,
    divisor: float,
    scale: float,
    kept: float,
    classes: int,
    columns: int,
    rows: int,
) -> None:
    z = h @ w + bias
    numbers = smoothing, divisor, scale, classes, rows
    SOFTMAX_CROSS_ENTROPY.numpy(z, labels, loss, gz, total, *numbers)
    relu.grad_kernel.numpy(gz @ w.T * gz.dtype.type(kept), h, gh)


CLASSIFIER_LOSS = RowKernel(
    "classifier_loss",
    numpy=_classifier_loss,
    cuda_file=CUDA / "softmax_cross_entropy.cu",
    dtypes=DTYPES,
    ticket=True,
)


def is_small(dtype: DType, rows: int, columns: int, classes: int) -> bool:
    """Return whether an output layer is small enough to be computed together with its loss.

    Args:
        dtype: the dtype of its weights.
        rows: the rows of the batch.
        columns: the inputs of the layer.
        classes: its outputs.
    """
    fits = 0 < classes <= MOST_CLASSES and rows * columns * classes <= MOST_PRODUCTS
    return fits and np.dtype(dtype).name in DTYPES


@op
def classifier_loss(
    b: Backend,
    x: Array,
    w: Array,
    bias: Array,
    output_w: Array,
    output_bias: Array,
    t: Array,
    *,
    dropout: Dropped | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Backward]:
    """softmax_cross_entropy(linear(linear(x, w, bias, relu, dropout), output_w, output_bias), t).

    One launch computes the output layer, the loss, and the gradients up to the hidden layer's
    product. A training step calls this operation on a GPU.

    Args:
        x: (N, D) inputs of the hidden layer.
        w: (D, H) its weights.
        bias: (H,).
        output_w: (H, C) weights of the output layer, at most 16 columns.
        output_bias: (C,).
        t: (N,) integer labels 0 .. C - 1.
        dropout: the rate and the bits of inverted dropout behind the hidden layer, or None.
        label_smoothing: as for `softmax_cross_entropy`.
        reduction: "mean" or "sum".

    Returns:
        The loss, a 0-d array.

    Raises:
        ShapeError: the shapes do not fit, or there are more than 16 classes.
        DTypeError: arrays of a 16-bit dtype, or labels that are not integers.
        ArgumentError: label_smoothing is outside its range.
        DataError: on the CPU, a label out of range. On a GPU that row's loss is NaN.

    Gradient:
        With gz = (p - q) / N: goutput_w = h' gz and gh = gz output_w' where h > 0, else 0, times
        the scale of dropout. The hidden layer's are those of `linear` for gh.

    Reference:
        Lectures 000 and 003.
    """
    name = "classifier_loss"
    hidden = layer_of(b, x, w, bias, relu, dropout)
    h = hidden.y
    rows, classes = len(h), output_w.shape[-1]
    if h.ndim != 2 or t.ndim != 1 or not 0 < classes <= MOST_CLASSES:
        raise ShapeError(
            f"got x of shape {x.shape}, {classes} classes and targets of shape {t.shape} in "
            f"{name}; expected (N, D), at most {MOST_CLASSES} classes and (N,) labels: use "
            "linear and softmax_cross_entropy"
        )
    check_shapes(h, output_w, output_bias)
    if h.dtype.name not in DTYPES:
        raise DTypeError(
            f"got {h.dtype} in {name}; expected float32 or float64: use linear and "
            "softmax_cross_entropy"
        )
    entropy = softmax_cross_entropy
    (smoothing,) = chosen(entropy.name, entropy.limits, {"label_smoothing": label_smoothing})
    how, kind = Reduction.of(reduction, rows, h.dtype), computed(h.dtype)
    loss, total = b.empty((rows,), kind), b.empty((), kind)
    gz, gh = b.empty((rows, classes), h.dtype), b.empty_like(h)
    check_labels(b, entropy.name, gz, t)
    kept = 1.0 if dropout is None else Rate.of(dropout.rate).scale
    labels = b.xp.ascontiguousarray(b.cast(t, np.int64))
    arrays = (h, *map(b.xp.ascontiguousarray, (output_w, output_bias)), labels, loss, gz, gh, total)
    numbers = (float(smoothing), float(how.divisor), how.scale, kept)
    threads = min(CLASSIFIER_LOSS.threads, 32 * -(-h.shape[1] // 64))
    sizes = classes, h.shape[1], rows
    b.launch_rows(
        CLASSIFIER_LOSS, rows, h.dtype, *arrays, *numbers, *sizes, threads=threads, columns=classes
    )

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient(entropy.name, needs[-2:])
        error, signal = (how.gradient(b, gl, g) for g in (gz, gh))
        ends = parameter_gradients(b, h, error, needs[3], needs[4])
        return *hidden.gradients(signal, needs[:3]), *ends, None

    return how.of_losses(loss, total), backward
