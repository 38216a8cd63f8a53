"""Find the end of a classifier that one operation computes together with its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn.autograd import Tensor
from gpunn.autograd.engine import is_recording
from gpunn.nn.containers import Sequential
from gpunn.nn.dropout import Dropout
from gpunn.nn.linear import drawn, is_plain, is_watched
from gpunn.nn.module import Module
from gpunn.nn.observation import observed
from gpunn.ops import identity, relu, softmax_cross_entropy
from gpunn.ops.classifier import classifier_loss, is_small
from gpunn.ops.elementwise import opened
from gpunn.sparse import is_sparse
from gpunn.typing import Array


def loss_in_one(model: Module, loss: Callable[..., Any], x: Array, t: Array) -> Tensor | None:
    """Return the loss of a classifier whose end is one operation; None if it is several.

    It is one on a GPU, if the network ends in a hidden layer with ReLU, perhaps dropout, and a
    small output layer, and the loss is the cross-entropy of labels. See `ops.classifier_loss`.

    Args:
        model: the network, in training mode.
        loss: the loss.
        x: (N, ...) examples on the model's device.
        t: their targets there.
    """
    if type(model) is not Sequential or "forward" in vars(model) or len(model.layers) < 2:
        return None
    first: list[Any] = model.layers[:-1]
    output = model.layers[-1]
    if not is_plain(output, identity) or not output.weight.backend.fuses:
        return None
    dropout = first.pop() if type(first[-1]) is Dropout else None
    hidden = first.pop() if first else None
    if not is_plain(hidden, relu) or (dropout is not None and "forward" in vars(dropout)):
        return None
    function, options = opened(loss)
    plain = {"label_smoothing", "reduction"}.issuperset(options)
    if function is not softmax_cross_entropy or not plain or options.get("reduction") == "none":
        return None
    if is_watched() or observed.get() is not None or is_recording() is not True:
        return None
    w = output.weight
    if t.ndim != 1 or is_sparse(x) or not is_small(w.dtype, len(x), *w.shape):
        return None
    h: Any = Sequential(*first)(x) if first else x
    if h.ndim != 2:
        value: Tensor = loss(Sequential(*model.layers[len(first) :])(h), t)
        return value
    given = (h, hidden.weight, hidden.bias, w, output.bias, t)
    return classifier_loss(*given, dropout=drawn(dropout), **options)
